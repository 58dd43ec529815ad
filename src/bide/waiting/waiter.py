"""How code waits: in a hub's greenlet, or by blocking its thread.

An executor makes a :class:`Waiter` for each conversation. It is an attribute of the conversation's
greenlet, where :func:`current_waiter` finds it. Anywhere else a wait blocks the calling thread, and
awaitables run on the process's background loop. This module knows neither requests nor servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final, NoReturn

from bide.compiling import mypyc_attr
from bide.errors import Cancelled, WaitError
from bide.waiting.adapters import SignalSubscription, adapter_for, discard, is_cancelling
from bide.waiting.arguments import seconds
from bide.waiting.background import (
    background_loop as background_loop,  # where waiting outside a request looks for it
)
from bide.waiting.cleanups import cleans_up, cleanup_time
from bide.waiting.current import current_waiter as current_waiter
from bide.waiting.deadlines import Deadline
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Over, Signal, Subscription, Wait, give_up, withdraw
from bide.waiting.parking import Parking as Parking
from bide.waiting.parking import ThreadParking as ThreadParking
from bide.waiting.parking import must_turn, pinned, refuse_under_lock, runs_loop
from bide.waiting.times import Times

TURN: Final = 0.01
"""Seconds that sending to a quick client may take before other requests of the thread go on."""


refusals: Final[list[Callable[[], object]]] = []
"""Functions called before each wait of an application, on its thread. Each may raise WaitError."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Waiter(Times):
    """The waits of one conversation: at most one at a time, each with one outcome.

    ``wait`` and ``wait_io`` are called on the conversation's thread, ``cancel`` from any. They
    share no lock. A wait is published, and then checks for a cancellation. ``cancel`` records the
    cancellation, and then checks for a published wait.

    Attributes:
        current: the wait in progress.
        ends: called in turn, on its thread and in its context, when the conversation has ended.
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
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, parking: Parking | None = None) -> None:
        super().__init__()
        self.loop = loop
        self.parking = parking
        self.ends: tuple[Callable[[], None], ...] = ()
        self.current: Wait | None = None
        self._cancellation: Cancelled | None = None
        self._firm = False  # the cancellation ends `wait_io`, too
        self._raised = False  # the cancellation has been raised to the application
        self._deadline: float | None = None  # of cleaning up, in monotonic seconds, once that began

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising ``cancellation``; from any thread.

        Running code is not interrupted. The first cancellation counts. A later one can make it
        ``firm``: then it ends a wait for the request's own client, too.
        """
        if self._cancellation is None:
            self._cancellation = cancellation
        elif not firm or (self._firm and not background_loop.was_taken_back(self.loop)):
            return
        if firm:
            self._firm = True
        current = self.current
        if current is not None and (firm or type(current) is not ClientWait):
            current.interrupt()  # its own thread decides whether it may be ended

    def raised(self, cancellation: Cancelled) -> None:
        """Called when the call's own connection has raised ``cancellation``.

        Later waits belong to the clean-up. On the conversation's thread.
        """
        self.cancel(_again(cancellation))
        self._begin_cleaning_up()
        self._raised = True

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` has been called."""
        return self._cancellation is not None

    def wait(self, promise: Any, timeout: Any = None) -> Any:
        """Suspend until ``promise`` fires; see :func:`bide.wait`."""
        limit: float | None = None
        try:
            for refuse in refusals:
                refuse()
            parking = self._place()
            wait = Wait(parking)
            wait.promise = promise
            if timeout is not None:
                limit = seconds(timeout)
            subscription = adapter_for(promise)(promise, wait)
        except BaseException:
            discard(promise)
            raise
        # `current` is not always None: a promise may itself wait while it is subscribed to.
        outer, self.current = self.current, wait
        try:
            if self._cancellation is None:
                self._run(wait, subscription, parking, limit)
            else:
                limit, why = self._admitted(wait, subscription, parking, limit)
                self._run(wait, subscription, parking, limit, why)
        finally:
            self.current = outer
            wait.promise = None  # it refers to its result, and the wait may live on
        if wait.error is None:
            # Taken out, so that whatever still refers to the wait does not keep the value.
            value, wait.value = wait.value, None
            return value
        try:
            self._raise(wait, timeout)
        finally:
            # An error's traceback holds this frame, and these hold the error: no cycle.
            del promise, subscription, wait, outer

    def call(self, function: Callable[[], None]) -> None:
        """Call a function, which may wait, while a wait is in progress; a cancellation ends both.

        Called by the parking of that wait, on the conversation's thread.
        """
        wait, known = self.current, self.cancelled
        try:
            self.run_meanwhile(function)
        finally:
            self.current = wait
            if wait is not None and self._cancellation is not None and not known:
                wait.interrupted = True

    def keep_pace(self, behind: Signal | None) -> None:
        """Wait for the client if it is behind; if not, let others go on from time to time.

        Else a quick client would keep the thread, and perhaps the event loop, for a whole response.

        Args:
            behind: fires when the client has caught up; None where it is not behind.
        """
        if behind is None:
            parking = self.parking
            if parking is None or monotonic() - parking.since < TURN:
                return
            if pinned(self.loop):  # no others can go on here
                return
            behind = Signal()
            self.loop.call_soon_threadsafe(behind.fire)
        self.wait_io(behind)

    def wait_io(self, signal: Signal) -> Any:
        """Suspend until a signal of the request's own connection fires; return its value.

        Unlike an application's wait, this survives a half-closed connection: a client that has
        sent everything may still read. Only a firm cancellation ends it.
        """
        parking = self.place_for_client()
        wait = ClientWait(parking)
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
        """Allow a wait in a cancelled request, within the time to clean up; else raise.

        The first wait outside a clean-up raises the cancellation, unless its result is there.
        Return the wait's limit in seconds, and the reason with which it then ends.
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
        """Subscribe, and park until ``wait`` is settled."""
        deadline: Deadline | None = None
        try:
            subscription.start(self.loop)
            if limit is not None:
                deadline = Deadline(wait, subscription, self.loop)
                deadline.set(limit, why)
            if wait.must_park():
                # A cancellation may have come before this wait could be interrupted.
                if self._cancellation is not None:
                    deadline = self._look(wait, subscription, deadline, parking)
                while not wait.reason:
                    self.park(wait, parking)
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
        """Check why a wait was interrupted, and act on it; on the wait's thread.

        Return the wait's deadline.
        """
        wait.interrupted = False
        if wait.reason:
            return deadline
        begins = not (wait.over or wait.ending) and (self._firm or type(wait) is not ClientWait)
        blocks = self._firm and isinstance(parking, ThreadParking)
        if (begins or blocks) and self._is_stranded():
            wait.ending = "cancelled"  # the loop may never turn again: nothing would go on there
            withdraw(subscription.cancel, wait)
            give_up(wait)
        elif wait.over:  # its promise is cancelled on this thread
            assert deadline is not None
            deadline.give_patience()
            withdraw(subscription.cancel, wait)
        elif begins:
            remaining = self._begin_cleaning_up()
            allowed = subscription.cleans_up or cleans_up()
            wait.ending = "allowed" if allowed else "cancelled"
            if deadline is None:
                deadline = Deadline(wait, subscription, self.loop)
            if wait.ending == "allowed":
                deadline.bring_forward(remaining)
                return deadline
            deadline.give_patience()
            withdraw(subscription.cancel, wait)
        return deadline

    def _is_stranded(self) -> bool:
        return self.loop.is_closed() or background_loop.was_taken_back(self.loop)

    def _raise(self, wait: Wait, timeout: Any) -> NoReturn:
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
        """Choose how to park: in the hub, unless something that is the thread's is in progress.

        A running loop belongs to the thread, not to the greenlet. Suppose that this greenlet parked
        below a loop of its own (asgiref's ``async_to_sync`` up the stack). Then the thread's next
        conversation would find that loop running. So the wait blocks the thread, or is refused.
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
        """Raise the cancellation if there is one that was not raised yet; not in a clean-up."""
        if self._cancellation is not None and not self._raised and not cleans_up():
            raise self._raised_again()

    def _begin_cleaning_up(self) -> float:
        """Return the seconds that are left to clean up; the first call starts that time."""
        now = monotonic()
        if self._deadline is None:
            self._deadline = now + cleanup_time.seconds
        return self._deadline - now

    def _pause(self, parking: Parking) -> None:
        # Code that swallows the cancellation and waits again, in a loop, would keep the thread.
        if isinstance(parking, ThreadParking):
            sleep(TURN)  # its loop may never turn again
            return
        pause = Wait(parking)
        on_loop(self.loop, self.loop.call_later, TURN, pause.settle)
        if not self.loop.is_closed() and pause.must_park():
            while not pause.reason:
                self.park(pause, parking)

    def _raised_again(self) -> Cancelled:
        """Return a new copy of the cancellation, to raise.

        After the first, at least ``cleanup_time.of_promise`` seconds are left to clean up.
        """
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


def waiter_here() -> Waiter:
    """Return the current conversation's waiter, or one that blocks this thread.

    Raises:
        WaitError: there is no conversation, and a lock is held, or this thread runs an event loop,
            which waiting would stop.
    """
    waiter = current_waiter()
    if waiter is not None:
        return waiter
    refuse_under_lock()  # before the background loop's own lock is taken
    if runs_loop():
        raise WaitError(
            "this thread runs an event loop, which waiting would stop: use `await` here, "
            "or wait in a thread (asyncio.to_thread)"
        )
    return Waiter(background_loop.get())
