"""A request's own thread, for the blocking code of the coroutines that it waits for.

asgiref has an executor for that: while ``async_to_sync`` blocks a thread, ``sync_to_async`` has
its calls made there. A request of Bide's that waits has parked and blocks no thread, so its *desk*
takes the place of the executor's parking, and makes the calls between going to sleep and going
on.

Calls of one request are never made one within the other, but for those that the inner one waits
for itself: each call has a *frame* of its own, and what it starts comes back to that. So what
runs beside a call does not get into the call's transaction.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync

from bide.waiting.outcome import Wait
from bide.waiting.waiter import Parking, Waiter, current_waiter

T = TypeVar("T")

frame_of_context: ContextVar[Frame | None] = ContextVar("bide.django.frame", default=None)
"""Where the blocking calls of this code are made; copied into every task that it starts."""


class Item:
    """One call, and the promise of its result."""

    __slots__ = ("_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.future: Future[Any] = Future()

    def run(self) -> None:
        """Make the call, unless it is not wanted any more; never raises."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - it belongs to the coroutine
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Frame:
    """Makes calls on the thread of the request, while that waits in this frame: an executor.

    ``submit`` may be called from any thread. Two sides meet without a lock: a call is queued and
    then looks whether the frame has ended; a frame that ends says so and then looks for calls.
    """

    __slots__ = ("_items", "_outer", "_wait", "desk", "ended", "task_context")

    def __init__(self, desk: Desk, outer: Frame | None) -> None:
        self.desk = desk
        self.task_context: list[asyncio.Task[Any]] | None = None  # asgiref's: whom to cancel
        self._outer = outer
        self._items: deque[Item] = deque()
        self._wait: Wait | None = None  # that is parked here
        self.ended = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a call made."""
        item = Item(functools.partial(fn, *args, **kwargs))
        self._queue(item)
        return item.future

    def _queue(self, item: Item) -> None:
        if self.ended:
            self._pass_on(item)
            return
        if self.desk.elsewhere is not None:
            self.desk.elsewhere(item.run)
            return
        self._items.append(item)
        wait = self._wait
        if wait is not None:
            self.desk.wake(wait)
        if self._has_ended():
            try:
                self._items.remove(item)
            except ValueError:  # the frame's end has found it
                return
            self._pass_on(item)

    def _has_ended(self) -> bool:  # meanwhile, in another thread
        return self.ended

    def _pass_on(self, item: Item) -> None:
        if self._outer is not None:
            self._outer._queue(item)
        else:  # the request is over: this is where asgiref makes calls that no request waits for
            SyncToAsync.single_thread_executor.submit(item.run)

    def park(self, wait: Wait) -> None:
        """Make calls until ``wait`` is settled or interrupted; on the request's thread."""
        before, self._wait = self._wait, wait
        try:
            while not (wait.reason or wait.interrupted):
                if self._items:
                    self.desk.waiter.call(functools.partial(self._make, self._items.popleft()))
                else:
                    self.desk.inner.park(wait)
        finally:
            self._wait = before

    def _make(self, item: Item) -> None:
        inner = self.desk.frame = Frame(self.desk, self)
        try:
            item.run()
        finally:
            self.desk.frame = self
            inner.end()

    def end(self) -> None:
        """Make no more calls; those that came meanwhile are made around it."""
        self.ended = True
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                return
            self._pass_on(item)


class Desk:
    """The parking of a request: the executor's own, but for the calls.

    Attributes:
        frame: the innermost one, in which the request's code runs now.
        elsewhere: makes calls in another thread, for a request on the event loop's, where blocking
            is not allowed; see :mod:`.clerks`.
        held: what the database connections of this request are kept in; theirs.
        ends: called in turn when the request has ended.
    """

    __slots__ = ("elsewhere", "ended", "ends", "frame", "held", "inner", "name", "waiter")

    def __init__(self, waiter: Waiter, inner: Parking) -> None:
        self.waiter = waiter
        self.inner = inner
        self.name = inner.name
        self.held: Any = None
        self.elsewhere: Callable[[Callable[[], None]], object] | None = None
        self.frame = Frame(self, None)
        self.ends: list[Callable[[], None]] = []
        self.ended = False
        waiter.parking = self
        waiter.ends += (self.end,)

    def end(self) -> None:
        """Give back what is kept for the request, when that has ended."""
        self.frame.end()
        for end in self.ends:
            end()
        self.ended = True
        # No cycles for the collector, which may run in any thread.
        self.ends.clear()
        del self.frame, self.waiter

    @property
    def since(self) -> float:
        """When the one that runs now went on."""
        return self.inner.since

    @since.setter
    def since(self, since: float) -> None:
        self.inner.since = since

    def wake(self, wait: Wait) -> None:
        """Let ``park`` look again; from any thread."""
        self.inner.wake(wait)

    def park(self, wait: Wait) -> None:
        """Make calls until ``wait`` is settled or interrupted."""
        (self.inner if self.ended else self.frame).park(wait)

    @property
    def parks(self) -> bool:
        """Whether a wait parks here: no foreign event loop runs on this thread."""
        return asyncio._get_running_loop() in (None, self.waiter.loop)


def desk_here() -> Desk | None:
    """Give the desk of the request that this code runs in; None outside, and when it has ended."""
    waiter = current_waiter()
    if waiter is None:
        return None
    parking = waiter.parking
    if isinstance(parking, Desk):
        return None if parking.ended else parking
    if parking is None:
        return None
    desk = Desk(waiter, parking)
    if asyncio._get_running_loop() is waiter.loop:
        from bide.integrations.django.worker_threads import clerk_for

        desk.elsewhere = clerk_for(desk)
    return desk
