"""A request's own thread, for the blocking code of the coroutines that it waits for.

asgiref has an executor for that: while ``async_to_sync`` blocks a thread, ``sync_to_async`` makes
its calls there. A request of Bide's that waits has parked and blocks no thread. So its
:class:`RequestExecutor` replaces its parking, and makes the calls while the request is parked.

One call of a request is never made within another, except for calls that the other waits for. Each
call has a *frame* of its own, in which the calls of what it starts are made. So what runs beside a
call does not get into the call's transaction.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync

from bide.integrations.django.worker_threads import WorkerThread, choose
from bide.waiting.outcome import Wait
from bide.waiting.parking import Parking
from bide.waiting.waiter import Waiter, current_waiter

T = TypeVar("T")

frame_of_context: ContextVar[Frame | None] = ContextVar("bide.django.frame", default=None)
"""The frame in which this code's blocking calls are made; copied into every task it starts."""


class Item:
    """One call, and the promise of its result."""

    __slots__ = ("_call", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.future: Future[Any] = Future()

    def run(self) -> None:
        """Make the call, unless its promise was cancelled; never raises."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - it belongs to the coroutine
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Frame:
    """An executor that makes calls on the request's thread, while the request waits in this frame.

    ``submit`` may be called from any thread, without a lock. ``queue`` adds the call, and then
    checks whether the frame has ended. A frame that ends notes that, and then takes what is queued.
    """

    __slots__ = ("_items", "_outer", "_wait", "ended", "executor", "task_context")

    def __init__(self, executor: RequestExecutor, outer: Frame | None) -> None:
        self.executor = executor
        self.task_context: list[asyncio.Task[Any]] | None = None  # asgiref's: the tasks to cancel
        self._outer = outer
        self._items: deque[Item] = deque()
        self._wait: Wait | None = None  # the wait that is parked here
        self.ended = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue a call; return the promise of its result. From any thread."""
        item = Item(functools.partial(fn, *args, **kwargs))
        self.queue(item)
        return item.future

    def queue(self, item: Item) -> None:
        """Queue a call; from any thread."""
        if self.ended:
            self._pass_on(item)
            return
        if self.executor.on_loop:
            self.executor.submit_to_worker(item.run)
            return
        self._items.append(item)
        wait = self._wait
        if wait is not None:
            self.executor.wake(wait)
        if self._has_ended():
            try:
                self._items.remove(item)
            except ValueError:  # `end` has taken it
                return
            self._pass_on(item)

    def _has_ended(self) -> bool:  # meanwhile, in another thread
        return self.ended

    def _pass_on(self, item: Item) -> None:
        if self._outer is not None:
            self._outer.queue(item)
        else:  # the request is over: this is where asgiref makes calls that no request waits for
            SyncToAsync.single_thread_executor.submit(item.run)

    def park(self, wait: Wait) -> None:
        """Make calls until ``wait`` is settled or interrupted; on the request's thread."""
        before, self._wait = self._wait, wait
        try:
            while not (wait.reason or wait.interrupted):
                if self._items:
                    self.executor.waiter.call(functools.partial(self._make, self._items.popleft()))
                else:
                    self.executor.park_inside(wait)
        finally:
            self._wait = before

    def _make(self, item: Item) -> None:
        inner = self.executor.frame = Frame(self.executor, self)
        try:
            item.run()
        finally:
            self.executor.frame = self
            inner.end()

    def end(self) -> None:
        """End the frame; calls that are still queued are made in the outer frame."""
        self.ended = True
        while True:
            try:
                item = self._items.popleft()
            except IndexError:
                return
            self._pass_on(item)


class RequestExecutor(Parking):
    """The parking of a request, which makes calls while the request is parked.

    Attributes:
        frame: the innermost frame, in which the request's code runs now.
        on_loop: whether the request runs on the event loop's thread, which must not be blocked. Its
            calls are then made by a worker thread.
        held: the database connections of this request; set by :mod:`.databases`.
        ends: functions called in turn when the request has ended.
    """

    __slots__ = ("_worker", "ended", "ends", "frame", "held", "inner", "on_loop", "waiter")

    def __init__(self, waiter: Waiter, inner: Parking) -> None:
        self.waiter = waiter
        self.inner = inner
        self.name = inner.name
        self.since = inner.since
        self.on_loop = asyncio._get_running_loop() is waiter.loop
        self.held: Any = None
        self.frame = Frame(self, None)
        self.ends: list[Callable[[], None]] = []
        self.ended = False
        self._worker: WorkerThread | None = None
        waiter.parking = self
        waiter.ends += (self.end,)

    def end(self) -> None:
        """Called when the request has ended: release what is kept for it."""
        self.frame.end()
        for end in self.ends:
            end()
        if self._worker is not None:
            self._worker.requests -= 1
            self._worker.executor.submit(self._end_held)
        self.ended = True
        # No cycles for the collector, which may run in any thread.
        self.ends.clear()
        del self.frame, self.waiter

    def _end_held(self) -> None:
        # Read on the worker thread: calls of a request that has ended may have been made since.
        if self.held is not None:
            self.held.end()

    def submit_to_worker(self, function: Callable[[], None]) -> None:
        """Make a call on the request's worker thread, which is chosen for its first call."""
        if self._worker is None:
            self._worker = choose()
            self._worker.requests += 1
        self._worker.executor.submit(self._serve, function)

    def _serve(self, function: Callable[[], None]) -> None:
        _here.executor = self
        try:
            function()
        finally:
            _here.executor = None

    def wake(self, wait: Wait) -> None:
        """Wake ``park``, which checks the wait and the queue again; from any thread."""
        self.inner.wake(wait)

    def park(self, wait: Wait) -> None:
        """Make calls until ``wait`` is settled or interrupted."""
        if self.ended:
            self.park_inside(wait)
        else:
            self.frame.park(wait)

    def park_inside(self, wait: Wait) -> None:
        """Park where the request would park without this."""
        self.inner.park(wait)
        self.since = self.inner.since

    @property
    def parks(self) -> bool:
        """Whether a wait parks here: not where a foreign event loop runs on this thread."""
        return asyncio._get_running_loop() in (None, self.waiter.loop)


class _Here(threading.local):
    executor: RequestExecutor | None = None


_here = _Here()


def served_here() -> RequestExecutor | None:
    """Return the executor of the request whose call this worker thread makes; None elsewhere."""
    return _here.executor


def executor_here() -> RequestExecutor | None:
    """Return the executor of the request that this code runs in, made at first need.

    None outside of a request, and when it has ended.
    """
    waiter = current_waiter()
    if waiter is None:
        return None
    parking = waiter.parking
    if isinstance(parking, RequestExecutor):
        return None if parking.ended else parking
    return None if parking is None else RequestExecutor(waiter, parking)
