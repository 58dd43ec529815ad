"""One wait and its one outcome, Bide's own promise, and what a promise's end tells.

What else is a promise, and how each kind is listened to, is in :mod:`bide.waiting.adapters`.

Invariants: a sink is told any number of times, from any thread, and counts the first; nothing
here blocks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable
from typing import Any, Literal

log = logging.getLogger("bide")

Reason = Literal["", "result", "timeout", "cancelled"]
Over = Literal["", "timeout", "cancelled"]
Ending = Literal["", "allowed", "cancelled"]


class Sink:
    """Where an outcome goes; from any thread, at any time, the first one counts."""

    __slots__ = ()

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Offer an outcome; return whether it was the first."""
        raise NotImplementedError


class Subscription:
    """One sink's listening to one promise; made with the two.

    Attributes:
        begins: whether ``start`` begins what was promised, as it does with a coroutine.
        on_thread: whether ``cancel`` belongs on the waiting thread, since it calls code that may
            block; else it may be called from any.
        cleans_up: whether this must be done although the request is cancelled.
    """

    __slots__ = ()

    begins: bool = False
    on_thread: bool = False
    cleans_up: bool = False

    def __init__(self, promise: Any, sink: Sink) -> None:
        raise NotImplementedError

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen; awaitables run on ``loop`` unless they belong to another one."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask for the outcome, and have one: cancel the promise, or wait for it no longer."""
        raise NotImplementedError


class Wait(Sink):
    """One wait, with one outcome: the first to settle it claims it.

    Two try-locks decide the two races, each between exactly two sides:

    - ``claim``: which of result, timeout and cancellation is the outcome;
    - ``handover``: whether the waiting thread parks (then settling wakes it) or finds the
      outcome already there (then nobody is woken, and nothing is queued for it).

    Attributes:
        over: for what its time is over, if it is; the loop's. The promise is then asked to end,
            and if it has a result after all, that counts.
        ending: "cancelled" once a cancellation has asked the promise to end; "allowed" where it
            may not, because this cleans up; the waiting thread's.
        interrupted: whether the waiting thread is to go on to look around, and then to park again.
        promise: what is waited for, while it is; for people who look.
        for_client: whether this waits for the request's own client.
    """

    __slots__ = (
        "_claim",
        "_handover",
        "_wake",
        "ending",
        "error",
        "interrupted",
        "over",
        "parked",
        "promise",
        "reason",
        "value",
    )

    for_client = False

    def __init__(self, wake: Callable[[Wait], None]) -> None:
        self._claim = threading.Lock()
        self._handover = threading.Lock()
        self._wake = wake
        self.value: Any = None
        self.error: BaseException | None = None
        self.reason: Reason = ""
        self.over: Over = ""
        self.ending: Ending = ""
        self.interrupted = False
        self.promise: Any = None
        self.parked: Any = None  # the hub's: what to resume; on the waiting thread only

    def settle(
        self,
        value: Any = None,
        error: BaseException | None = None,
        reason: Reason = "result",
    ) -> bool:
        """Offer an outcome, from any thread; return whether it was the first."""
        if not self._claim.acquire(False):
            return False
        self.value = value
        self.error = error
        self.reason = reason
        if not self._handover.acquire(False):
            self._wake(self)
        return True

    def interrupt(self) -> None:
        """Have the waiting thread look what has happened, without an outcome; from any thread."""
        self.interrupted = True
        if not self.reason:
            self._wake(self)

    def must_park(self) -> bool:
        """Return whether the outcome is still to come; called once, by the waiting thread."""
        return self._handover.acquire(False)


class Signal:
    """Bide's own promise: fires once, from any thread, and may be listened to from any.

    Lock-free, so that it may fire in a destructor. Firing records the outcome and then looks
    for callbacks; subscribing adds the callback and then looks for the outcome; popping hands
    each callback to exactly one of the two.
    """

    __slots__ = ("_callbacks", "_claim", "_fired", "error", "value")

    def __init__(self) -> None:
        self._claim = threading.Lock()
        self._callbacks: list[Sink] = []
        self._fired = False
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def fired(self) -> bool:
        """Whether the outcome is there; once true, it stays so."""
        return self._fired

    def fire(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Set the outcome, from any thread; return whether it is the first, the one that counts."""
        if not self._claim.acquire(False):
            return False
        self.value = value
        self.error = error
        self._fired = True
        self._deliver()
        return True

    def listen(self, sink: Sink) -> None:
        """Tell ``sink`` the outcome: now if there is one, else on the thread that fires."""
        self._callbacks.append(sink)
        if self._fired:
            self._deliver()

    def forget(self, sink: Sink) -> None:
        """Drop a sink that has its outcome from elsewhere."""
        try:
            self._callbacks.remove(sink)
        except ValueError:  # taken out for delivery meanwhile; it ignores what it is told
            pass

    def _deliver(self) -> None:
        while True:
            try:
                sink = self._callbacks.pop()
            except IndexError:
                return
            sink.settle(self.value, self.error)


def settle_from(future: Any, sink: Sink) -> None:
    """Tell ``sink`` what a finished future holds; a cancelled one is an error."""
    error: BaseException | None = None
    value = None
    try:
        # Asked for, not raised: a traceback through the callers' frames would hold the future, and
        # so the error itself.
        if asyncio.isfuture(future) or isinstance(future, concurrent.futures.Future):
            error = future.exception()
        if error is None:
            value = future.result()
    except BaseException as raised:  # noqa: BLE001 - whatever it is belongs to the waiting line
        error = raised
    try:
        sink.settle(value, error)
    finally:
        del error  # one that was raised here holds this frame, and its callers': no cycle


def give_up(sink: Sink) -> None:
    """Tell ``sink`` that nothing will come: what was promised is cancelled, or others' now."""
    sink.settle(error=asyncio.CancelledError())


def listen(subscribe: Callable[[], object], sink: Sink) -> None:
    """Subscribe; what that raises is the outcome, since nobody is there to catch it."""
    try:
        subscribe()
    except BaseException as error:  # noqa: BLE001 - it belongs to the waiting line
        sink.settle(error=error)


def withdraw(cancel: Callable[[], object], sink: Sink) -> None:
    """Cancel a promise. It may fail at that: the wait ends all the same, and the log says why."""
    try:
        cancel()
    except BaseException:
        log.exception("a promise failed when it was cancelled")
        give_up(sink)
