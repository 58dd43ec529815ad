"""Where a thread of control waits: in a hub's greenlet, or by blocking its thread.

An executor gives each conversation a :class:`Waiter`, and hangs it on the conversation's greenlet,
where :func:`current_waiter` finds it. Anywhere else a wait blocks the calling thread, and
awaitables run on the process's home loop. This module knows neither requests nor servers.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from greenlet import getcurrent, greenlet

from bide.errors import Cancelled, WaitError
from bide.home import home_loop as home_loop  # where waiting outside a request looks for it
from bide.locks import obstacle
from bide.mailboxes import on_loop, runs_loop
from bide.promises import Signal, Wait
from bide.subscriptions import SignalSubscription, Subscription, adapter_for, discard

CLEANUP_SECONDS = 10.0
"""How long a cancelled request may still wait, for all its waits together, in seconds."""

TURN: Final = 0.01
"""Seconds for which a response is sent to a quick client before others of its thread go on."""


class Parking(Protocol):
    """How a thread of control stops until its wait is settled.

    Attributes:
        since: when the one that runs now went on, in monotonic seconds.
    """

    since: float

    def park(self, wait: Wait) -> None:
        """Return once ``wait`` is settled; on the waiting thread."""

    def wake(self, wait: Wait) -> None:
        """Let ``park`` return; from any thread."""


class ThreadParking:
    """Parks by blocking the thread; one object for each wait."""

    __slots__ = ("_turnstile", "_waiter")

    since = math.inf  # it has the thread to itself: no others go on

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self._turnstile = threading.Lock()
        self._turnstile.acquire()

    def park(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Block this thread, until the loop's server has stopped at the latest."""
        waiter = self._waiter
        try:
            home_loop.block(waiter)
            self._turnstile.acquire()
        finally:
            home_loop.unblock(waiter)

    def wake(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Let the thread go on."""
        self._turnstile.release()


class Waiter:
    """One conversation's place to wait: at most one wait at a time, each with one outcome.

    ``wait`` and ``wait_io`` belong to the conversation's thread; ``cancel`` may be called from any.
    The two meet without a lock: a wait is published and then looks for a cancellation;
    ``cancel`` records the cancellation and then looks for a published wait.

    Attributes:
        ends: called in turn, on its thread and in its context, when the conversation has ended.
    """

    __slots__ = ("_cancellation", "_current", "_deadline", "_firm", "ends", "loop", "parking")

    def __init__(self, loop: asyncio.AbstractEventLoop, parking: Parking | None = None) -> None:
        self.loop = loop
        self.parking = parking
        self.ends: tuple[Callable[[], None], ...] = ()
        self._current: Wait | None = None
        self._cancellation: Cancelled | None = None
        self._firm = False  # ends what wait_io waits for, too
        self._deadline: float | None = None  # set once the cancellation has been raised

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait in progress, or the next one, by raising; from any thread.

        Running code is not interrupted. The first cancellation counts; a later one can make it
        ``firm``, so that it ends a wait for the request's own client, too.
        """
        if self._cancellation is None:
            self._cancellation = cancellation
        elif self._firm or not firm:
            return
        if firm:
            self._firm = True
        current = self._current
        if current is not None and (firm or type(current) is not _ClientWait):
            current.settle(error=_again(cancellation), reason="cancelled")

    def raised(self, cancellation: Cancelled) -> None:
        """Know that the conversation's own connection has raised this: from now on waits clean up.

        On the conversation's thread.
        """
        self.cancel(_again(cancellation))
        if self._deadline is None:
            self._deadline = time.monotonic() + CLEANUP_SECONDS

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` has been called."""
        return self._cancellation is not None

    def wait(self, promise: Any, timeout: float | None = None) -> Any:
        """Suspend until ``promise`` fires; see :func:`wait`."""
        try:
            parking = self._place()
            wait = Wait(parking.wake)
            limit = _checked(timeout)
            subscription = adapter_for(promise)(promise, wait)
        except BaseException:
            discard(promise)
            raise
        self._current = wait
        if self._cancellation is not None:
            try:
                remaining = self._cleanup_time(parking)
            except Cancelled:
                self._current = None
                subscription.cancel()
                discard(promise)
                raise
            limit = remaining if limit is None else min(limit, remaining)
        try:
            self._run(wait, subscription, parking, limit)
        finally:
            self._current = None
        if wait.reason == "result":
            try:
                return _result(wait)
            finally:
                # An error's traceback holds this frame, and these hold the error: no cycle.
                del promise, subscription, wait
        subscription.cancel()
        if wait.reason == "timeout" and (self._cancellation is None or limit == timeout):
            raise TimeoutError(f"no result within {timeout} s")
        raise self._raised_again()

    def call(self, function: Callable[[], None]) -> None:
        """Call what may wait while a wait is in progress, for its parking; cancelling ends both."""
        wait, known = self._current, self.cancelled
        try:
            function()
        finally:
            self._current = wait
            ends = self._firm or type(wait) is not _ClientWait
            if wait is not None and self._cancellation is not None and ends and not known:
                wait.settle(error=_again(self._cancellation), reason="cancelled")

    def keep_pace(self, behind: Signal | None) -> None:
        """Wait for the client, where it is behind; where not, let others go on from time to time.

        A client that takes all at once would else have the thread, and perhaps the event loop, for
        as long as a response is.
        """
        if behind is None:
            parking = self.parking
            if parking is None or time.monotonic() - parking.since < TURN:
                return
            if self._place() is not parking:  # no others can go on here
                return
            behind = Signal()
            self.loop.call_soon_threadsafe(behind.fire)
        self.wait_io(behind)

    def wait_io(self, signal: Signal) -> Any:
        """Suspend for the request's own connection, whose events end the wait themselves.

        Unlike an application's wait it survives a half-closed connection: a client that has
        sent everything may still read. Only a firm cancellation ends it.
        """
        parking = self._place_for_client()
        wait = _ClientWait(parking.wake)
        subscription = SignalSubscription(signal, wait)
        limit = None
        self._current = wait
        try:
            if self._firm:
                limit = self._cleanup_time(parking)
            self._run(wait, subscription, parking, limit)
        finally:
            self._current = None
        if wait.reason == "result":
            try:
                return _result(wait)
            finally:
                del signal, wait, subscription  # as above
        subscription.cancel()
        raise self._raised_again()

    def _run(
        self, wait: Wait, subscription: Subscription, parking: Parking, limit: float | None
    ) -> None:
        """Subscribe and return once ``wait`` is settled."""
        timer = None
        try:
            subscription.start(self.loop)
            if limit is not None:
                timer = _Timer(wait)
                on_loop(self.loop, timer.arm, self.loop, limit)
            if wait.must_park():
                parking.park(wait)
        except BaseException:
            # The promise refused, KeyboardInterrupt came to a blocked thread, or the greenlet is
            # being ended: whatever the promise brings now, nobody waits for it.
            if wait.settle(reason="cancelled"):
                subscription.cancel()
            raise
        finally:
            if timer is not None and wait.reason != "timeout" and not self.loop.is_closed():
                on_loop(self.loop, timer.disarm)

    def _place(self) -> Parking:
        """Choose how to stop: in the hub, unless a foreign loop runs on this thread.

        asyncio's running loop belongs to the thread, not to the greenlet: were this greenlet to
        park below a loop of its own (asgiref's ``async_to_sync`` up the stack), the next
        conversation of the thread would find that loop running. So it blocks the thread.
        """
        refuse_under_lock()
        if self.parking is None or asyncio._get_running_loop() not in (None, self.loop):
            return ThreadParking(self)
        return self.parking

    def _place_for_client(self) -> Parking:
        return self._place()

    def _cleanup_time(self, parking: Parking) -> float:
        """Raise the cancellation the first time; then say how long cleaning up may wait."""
        if self._deadline is None:
            raise self._raised_again()
        remaining = self._deadline - time.monotonic()
        if remaining > 0:
            return remaining
        # Code that swallows it and waits again, in a loop, would have the thread to itself.
        pause = Wait(parking.wake)
        on_loop(self.loop, _Timer(pause).arm, self.loop, TURN)
        if not self.loop.is_closed() and pause.must_park():
            parking.park(pause)
        raise self._raised_again()

    def _raised_again(self) -> Cancelled:
        """Give the cancellation to raise; the time to clean up begins with the first."""
        assert self._cancellation is not None
        if self._deadline is None:
            self._deadline = time.monotonic() + CLEANUP_SECONDS
        return _again(self._cancellation)


class _ClientWait(Wait):
    """A wait for the request's own client."""

    __slots__ = ()


def _again(cancellation: Cancelled) -> Cancelled:
    # A fresh one each time: a raised exception gathers the traceback of where it was raised.
    return type(cancellation)(*cancellation.args)


def _result(wait: Wait) -> Any:
    # Taken out: what refers to the wait still, refers to the outcome no more.
    value, error = wait.value, wait.error
    wait.value = wait.error = None
    if error is None:
        return value
    try:
        raise error
    finally:
        # The traceback holds this frame, and with it the error: no cycle for the collector.
        del error


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"a timeout is a number of seconds, 0 or more, not {timeout!r}")
    return timeout


class _Timer:
    """One wait's deadline; lives on the loop, and is asked for from the waiting thread."""

    __slots__ = ("_handle", "_wait")

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        if not self._wait.reason:
            self._handle = loop.call_later(limit, self._expire)

    def _expire(self) -> None:
        self._wait.settle(reason="timeout")

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


# Where there is no conversation -------------------------------------------------------------


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
        running = running.parent
    return None


def refuse_under_lock() -> None:
    """Raise WaitError where a lock is held that others need for a wait to end; see bide.locks."""
    found = obstacle(sys._getframe(1))
    running: greenlet | None = getcurrent()
    # A library may run below the conversation in a greenlet of its own: each has its own frames.
    while not found and running is not None and getattr(running, "waiter", None) is None:
        running = running.parent
        if running is not None and running.parent is not None:
            found = obstacle(running.gr_frame)
    if found:
        raise WaitError(found)


def waiter_here() -> Waiter:
    """Give the current conversation's waiter, or one that blocks this thread.

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
    return Waiter(home_loop.get())
