"""One wait and its one outcome, and Bide's own promise.

The other kinds of promises are in :mod:`bide.waiting.adapters`.

Invariants: a sink may be told an outcome any number of times, from any thread, and only the first
counts. Nothing here blocks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bide.waiting.parking import Parking

from bide.compiling import mypyc_attr

log = logging.getLogger("bide")

Reason = Literal["", "result", "timeout", "cancelled"]
Over = Literal["", "timeout", "cancelled"]
Ending = Literal["", "allowed", "cancelled"]


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink:
    """Takes an outcome, from any thread and at any time; only the first one counts."""

    __slots__ = ()

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Offer an outcome; return whether it was the first."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Subscription:
    """Listens to one promise, and tells one sink the outcome."""

    __slots__ = ()

    @property
    def begins(self) -> bool:
        """Whether ``start`` begins the promised work, as with a coroutine."""
        return False

    @property
    def on_thread(self) -> bool:
        """Whether ``cancel`` must be called on the waiting thread: its code may block.

        Else any thread may call it.
        """
        return False

    @property
    def cleans_up(self) -> bool:
        """Whether this must be done even when the request is cancelled."""
        return False

    def __init__(self, promise: Any, sink: Sink) -> None:
        raise NotImplementedError

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen. Awaitables run on ``loop``, unless they belong to another loop."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Cancel the promise, or stop listening; either way the sink is told an outcome."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Wait(Sink):
    """One wait, with one outcome: the first to settle it claims it.

    Two try-locks decide the two races, each between exactly two sides:

    - ``claim``: which of result, timeout and cancellation is the outcome;
    - ``handover``: whether the waiting thread parks (then settling wakes it) or finds the
      outcome already there (then nobody is woken, and nothing is queued for it).

    Attributes:
        over: why the wait's time is over; empty while it is not. Set on the loop, which then asks
            the promise to end. If the promise has a result after all, that counts.
        ending: "cancelled" once a cancellation has asked the promise to end; "allowed" where it
            must not, because this wait cleans up. Set on the waiting thread.
        interrupted: whether the waiting thread must wake to check for a cancellation or the end of
            its time. It may then park again.
        promise: the promise, while it is waited for; for the status.
        for_client: whether this waits for the request's own client.
    """

    __slots__ = (
        "_claim",
        "_handover",
        "_parking",
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

    def __init__(self, parking: Parking) -> None:
        self._claim = threading.Lock()
        self._handover = threading.Lock()
        self._parking = parking
        self.value: Any = None
        self.error: BaseException | None = None
        self.reason: Reason = ""
        self.over: Over = ""
        self.ending: Ending = ""
        self.interrupted = False
        self.promise: Any = None
        self.parked: Any = None  # the greenlet that the hub resumes; on the waiting thread only

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
            self._parking.wake(self)
        return True

    def interrupt(self) -> None:
        """Wake the waiting thread without an outcome, so that it checks why; from any thread."""
        self.interrupted = True
        if not self.reason:
            self._parking.wake(self)

    def must_park(self) -> bool:
        """Whether the outcome is still to come; called once, by the waiting thread."""
        return self._handover.acquire(False)


@mypyc_attr(allow_interpreted_subclasses=True)
class Signal:
    """Bide's own promise: fires once. Any thread may fire it, and any may listen.

    Lock-free, so that it may fire in a destructor. Firing records the outcome, and then takes the
    sinks. Listening adds a sink, and then checks for the outcome. Each sink is popped by exactly
    one of the two.
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
        """Remove a sink that has its outcome from elsewhere."""
        try:
            self._callbacks.remove(sink)
        except ValueError:  # taken out for delivery meanwhile; it ignores what it is told
            pass

    def _deliver(self) -> None:
        callbacks = self._callbacks
        while callbacks:
            try:
                sink = callbacks.pop()
            except IndexError:  # the other side has taken it meanwhile
                return
            sink.settle(self.value, self.error)


def settle_from(future: Any, sink: Sink) -> None:
    """Tell ``sink`` the outcome of a finished future; cancelled, it is an error."""
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
    """Tell ``sink`` that no result will come: the outcome is ``asyncio.CancelledError``."""
    sink.settle(error=asyncio.CancelledError())


def listen(subscribe: Callable[[], object], sink: Sink) -> None:
    """Call ``subscribe``. An error that it raises is the outcome, since no caller catches it."""
    try:
        subscribe()
    except BaseException as error:  # noqa: BLE001 - it belongs to the waiting line
        sink.settle(error=error)


def withdraw(cancel: Callable[[], object], sink: Sink) -> None:
    """Cancel a promise. If that raises, the error is logged, and the wait ends all the same."""
    try:
        cancel()
    except BaseException:
        log.exception("a promise failed when it was cancelled")
        give_up(sink)
