"""Where a thread of control waits: in a hub's greenlet, or by blocking its thread.

An executor gives each conversation a :class:`Waiter`, and hangs it on the conversation's greenlet,
where :func:`current_waiter` finds it. Anywhere else a wait blocks the calling thread, and
awaitables run on the process's home loop. This module knows neither requests nor servers.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

from greenlet import getcurrent, greenlet

from bide.errors import Cancelled, WaitError
from bide.waiting.adapters import SignalSubscription, adapter_for, discard, is_cancelling
from bide.waiting.background import (
    Blocked,
)
from bide.waiting.background import (
    background_loop as background_loop,  # where waiting outside a request looks for it
)
from bide.waiting.cleanups import cleans_up, cleanup_time
from bide.waiting.deadlines import Deadline
from bide.waiting.foreign import runs_greenlets
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Over, Signal, Subscription, Wait, give_up, withdraw
from bide.waiting.parking import Parking as Parking
from bide.waiting.parking import ThreadParking as ThreadParking
from bide.waiting.parking import must_turn, pinned, refuse_under_lock, runs_loop
from bide.waiting.times import Times

TURN: Final = 0.01
"""Seconds for which a response is sent to a quick client before others of its thread go on."""


refusals: Final[list[Callable[[], object]]] = []
"""Called before each wait of an application, on its thread; may raise WaitError."""


class Waiter(Blocked):
    """One conversation's place to wait: at most one wait at a time, each with one outcome.

    ``wait`` and ``wait_io`` belong to the conversation's thread; ``cancel`` may be called from any.
    The two meet without a lock: a wait is published and then looks for a cancellation;
    ``cancel`` records the cancellation and then looks for a published wait.

    Attributes:
        current: the wait in progress.
        ends: called in turn, on its thread and in its context, when the conversation has ended.
        times: where the conversation's time goes.
    """

    __slots__ = (
        "_cancellation",
        "_deadline",
        "_firm",
        "_raised",
        "current",
        "ends",
        "loop",
        "parking",
        "times",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, parking: Parking | None = None) -> None:
        self.loop = loop
        self.parking = parking
        self.ends: tuple[Callable[[], None], ...] = ()
        self.times = Times()
        self.current: Wait | None = None
        self._cancellation: Cancelled | None = None
        self._firm = False  # ends what wait_io waits for, too
        self._raised = False  # the cancellation, to the application
        self._deadline: float | None = None  # of cleaning up, in monotonic seconds, once that began

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; from any thread.

        Running code is not interrupted. The first cancellation counts; a later one can make it
        ``firm``, so that it ends a wait for the request's own client, too.
        """
        if self._cancellation is None:
            self._cancellation = cancellation
        elif not firm or (self._firm and not background_loop.was_taken_back(self.loop)):
            return
        if firm:
            self._firm = True
        current = self.current
        if current is not None and (firm or type(current) is not ClientWait):
            current.interrupt()  # whether it may be ended is seen on its own thread

    def raised(self, cancellation: Cancelled) -> None:
        """Called when the call's own connection has raised this: from now on waits clean up.

        On the conversation's thread.
        """
        self.cancel(_again(cancellation))
        self._begin_cleaning_up()
        self._raised = True

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` has been called."""
        return self._cancellation is not None

    def wait(self, promise: Any, timeout: float | None = None) -> Any:
        """Suspend until ``promise`` fires; see :func:`wait`."""
        try:
            for refuse in refusals:
                refuse()
            parking = self._place()
            wait = Wait(parking.wake)
            wait.promise = promise
            if timeout is not None and not timeout >= 0:
                raise ValueError(f"a timeout is a number of seconds, 0 or more, not {timeout!r}")
            subscription = adapter_for(promise)(promise, wait)
        except BaseException:
            discard(promise)
            raise
        # Not always None: a promise may wait itself while it is subscribed to.
        outer, self.current = self.current, wait
        try:
            if self._cancellation is None:
                self._run(wait, subscription, parking, timeout)
            else:
                limit, why = self._admitted(wait, subscription, parking, timeout)
                self._run(wait, subscription, parking, limit, why)
        finally:
            self.current = outer
            wait.promise = None  # it refers to its result, and what refers to the wait may live on
        if wait.error is None:
            # Taken out: what refers to the wait still, refers to the outcome no more.
            value, wait.value = wait.value, None
            return value
        try:
            self._raise(wait, timeout)
        finally:
            # An error's traceback holds this frame, and these hold the error: no cycle.
            del promise, subscription, wait, outer

    def call(self, function: Callable[[], None]) -> None:
        """Call what may wait while a wait is in progress, for its parking; cancelling ends both."""
        wait, known = self.current, self.cancelled
        try:
            self.times.run(function)
        finally:
            self.current = wait
            if wait is not None and self._cancellation is not None and not known:
                wait.interrupted = True

    def keep_pace(self, behind: Signal | None) -> None:
        """Wait for the client, where it is behind; where not, let others go on from time to time.

        A client that takes all at once would else have the thread, and perhaps the event loop, for
        as long as a response is.
        """
        if behind is None:
            parking = self.parking
            if parking is None or time.monotonic() - parking.since < TURN:
                return
            if pinned(self.loop):  # no others can go on here
                return
            behind = Signal()
            self.loop.call_soon_threadsafe(behind.fire)
        self.wait_io(behind)

    def wait_io(self, signal: Signal) -> Any:
        """Suspend for the request's own connection, whose events end the wait themselves.

        Unlike an application's wait it survives a half-closed connection: a client that has
        sent everything may still read. Only a firm cancellation ends it.
        """
        parking = self.place_for_client()
        wait = ClientWait(parking.wake)
        wait.promise = signal
        subscription = SignalSubscription(signal, wait)
        outer, self.current = self.current, wait
        try:
            if self._firm:
                limit, why = self._admitted(wait, subscription, parking, None)
                self._run(wait, subscription, parking, limit, why)
            else:
                self._run(wait, subscription, parking, None)
        finally:
            self.current = outer
            wait.promise = None  # as above
        if wait.error is None:
            value, wait.value = wait.value, None
            return value
        try:
            self._raise(wait, None)
        finally:
            del signal, wait, subscription, outer  # as above

    def _admitted(
        self, wait: Wait, subscription: Subscription, parking: Parking, limit: float | None
    ) -> tuple[float | None, Over]:
        """Let a wait begin though the request is cancelled, within the time to clean up, or raise.

        The first one outside a clean-up raises the cancellation, unless its result is there.
        """
        if not self._raised and not subscription.cleans_up and not cleans_up():
            if not subscription.begins:
                return limit, "timeout"
            self._refuse(subscription, wait)
        remaining = self._begin_cleaning_up()
        if remaining <= 0:
            self._pause(parking)
            self._refuse(subscription, wait)
        wait.ending = "allowed"
        if limit is None or remaining < limit:
            return remaining, "cancelled"
        return limit, "timeout"

    def _refuse(self, subscription: Subscription, wait: Wait) -> None:
        withdraw(subscription.cancel, wait)
        raise self._raised_again()

    def _run(
        self,
        wait: Wait,
        subscription: Subscription,
        parking: Parking,
        limit: float | None,
        why: Over = "timeout",
    ) -> None:
        """Subscribe and return once ``wait`` is settled."""
        deadline: Deadline | None = None
        try:
            subscription.start(self.loop)
            if limit is not None:
                deadline = Deadline(wait, subscription, self.loop, cleanup_time.of_promise)
                deadline.set(limit, why)
            if wait.must_park():
                # What came before this wait could be interrupted is looked for.
                if self._cancellation is not None:
                    deadline = self._look(wait, subscription, deadline, parking)
                while not wait.reason:
                    self.times.park(wait, parking)
                    if wait.interrupted:
                        deadline = self._look(wait, subscription, deadline, parking)
        except BaseException:
            # The promise refused, KeyboardInterrupt came to a blocked thread, or the greenlet is
            # being ended: whatever the promise brings now, nobody waits for it.
            if wait.settle(reason="cancelled"):
                withdraw(subscription.cancel, wait)
            raise
        finally:
            if deadline is not None:
                deadline.drop()

    def _look(
        self, wait: Wait, subscription: Subscription, deadline: Deadline | None, parking: Parking
    ) -> Deadline | None:
        """Find what a wait was interrupted for; on its own thread."""
        wait.interrupted = False
        if wait.reason:
            return deadline
        begins = not (wait.over or wait.ending) and (self._firm or type(wait) is not ClientWait)
        blocks = self._firm and isinstance(parking, ThreadParking)
        if (begins or blocks) and self._is_stranded():
            wait.ending = "cancelled"  # it may never turn again, and nothing go on there
            withdraw(subscription.cancel, wait)
            give_up(wait)
        elif wait.over:  # and this is the thread to cancel its promise
            assert deadline is not None
            deadline.give_patience()
            withdraw(subscription.cancel, wait)
        elif begins:
            remaining = self._begin_cleaning_up()
            allowed = subscription.cleans_up or cleans_up()
            wait.ending = "allowed" if allowed else "cancelled"
            if deadline is None:
                deadline = Deadline(wait, subscription, self.loop, cleanup_time.of_promise)
            if wait.ending == "allowed":
                assert deadline is not None
                deadline.set(remaining, "cancelled", sooner=True)
                return deadline
            if deadline is not None:
                deadline.give_patience()
            withdraw(subscription.cancel, wait)
        return deadline

    def _is_stranded(self) -> bool:
        return self.loop.is_closed() or background_loop.was_taken_back(self.loop)

    def _raise(self, wait: Wait, timeout: float | None) -> NoReturn:
        """Raise the error of a wait: TimeoutError or the cancellation, if it was ended for that."""
        error, wait.error = wait.error, None
        assert error is not None
        why = wait.over or wait.ending
        try:
            if why in ("timeout", "cancelled") and is_cancelling(error):
                error = self._raised_again() if why == "cancelled" else None
            if error is None:
                raise TimeoutError(f"no result within {timeout} s")
            raise error
        finally:
            # The traceback holds this frame, and with it the error: no cycle for the collector.
            del error

    def _place(self) -> Parking:
        """Choose how to stop: in the hub, unless something that is the thread's is in progress.

        A running loop belongs to the thread, not to the greenlet: were this greenlet to park below
        one of its own (asgiref's ``async_to_sync`` up the stack), the next conversation of the
        thread would find that loop running. So it blocks the thread, or is refused.
        """
        why = pinned(self.loop, 4)
        if self.parking is not None and not why:
            return self.parking
        if self.parking is not None and must_turn(self.loop):
            raise WaitError(why)
        return ThreadParking(self)

    def place_for_client(self) -> Parking:
        """Return where a wait for the request's own client parks."""
        return self._place()

    def look(self) -> None:
        """Raise the cancellation, if it has come and was not raised yet; not in a clean-up."""
        if self._cancellation is not None and not self._raised and not cleans_up():
            raise self._raised_again()

    def _begin_cleaning_up(self) -> float:
        """Return the seconds that are left to clean up; the first call begins them."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + cleanup_time.seconds
        return self._deadline - now

    def _pause(self, parking: Parking) -> None:
        # Code that swallows the cancellation and waits again, in a loop, would have the thread to
        # itself.
        if isinstance(parking, ThreadParking):
            time.sleep(TURN)  # its loop may never turn again
            return
        pause = Wait(parking.wake)
        on_loop(self.loop, self.loop.call_later, TURN, pause.settle)
        if not self.loop.is_closed() and pause.must_park():
            while not pause.reason:
                self.times.park(pause, parking)

    def _raised_again(self) -> Cancelled:
        """Make the cancellation to raise. When it is the first, there is still time to clean up."""
        assert self._cancellation is not None
        remaining = self._begin_cleaning_up()
        if not self._raised and self._deadline is not None:
            self._raised = True
            self._deadline += max(0.0, cleanup_time.of_promise - remaining)
        return _again(self._cancellation)


class ClientWait(Wait):
    """A wait for the request's own client."""

    __slots__ = ()

    for_client = True


def _again(cancellation: Cancelled) -> Cancelled:
    # A fresh one each time: a raised exception gathers the traceback of where it was raised.
    return type(cancellation)(*cancellation.args)


# Where there is no conversation -------------------------------------------------------------


def look() -> None:
    """Raise the cancellation of the request that this code runs in, as :meth:`Waiter.look`."""
    waiter = current_waiter()
    if waiter is not None:
        waiter.look()


def current_waiter() -> Waiter | None:
    """Find the conversation that this code runs in; None outside.

    Looked for along the parents, since a library may run below the conversation in a greenlet of
    its own (SQLAlchemy's asyncio bridge does).
    """
    running: greenlet | None = getcurrent()
    while running is not None:
        waiter: Waiter | None = getattr(running, "waiter", None)
        if waiter is not None:
            return waiter
        parent = running.parent
        # gevent's hub runs greenlets of anybody: its parent is merely who needed it first.
        if parent is not None and runs_greenlets(running.gr_frame or sys._getframe()):
            return None
        running = parent
    return None


def waiter_here() -> Waiter:
    """Return the current conversation's waiter, or one that blocks this thread.

    Raises:
        WaitError: there is no conversation, and this thread runs an event loop, which a blocked
            thread would stop, or a lock is held.
    """
    waiter = current_waiter()
    if waiter is not None:
        return waiter
    refuse_under_lock()  # before the home loop's own is taken
    if runs_loop():
        raise WaitError(
            "this thread runs an event loop, which waiting would stop: use `await` here, "
            "or wait in a thread (asyncio.to_thread)"
        )
    return Waiter(background_loop.get())
