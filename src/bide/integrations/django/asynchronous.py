"""``async_to_sync`` and ``sync_to_async`` in a request of Bide's; streams of async iterators."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Final

from asgiref.sync import AsyncToSync, SyncToAsync, _restore_context
from django.http import StreamingHttpResponse

from bide.errors import Cancelled
from bide.integrations.django.databases import refuse_in_atomic
from bide.integrations.django.request_executor import (
    Frame,
    RequestExecutor,
    executor_here,
    frame_of_context,
)
from bide.waiting.actor import Actor
from bide.waiting.adapters import KINDS, TaskSubscription
from bide.waiting.outcome import Signal, Sink
from bide.waiting.waiter import Waiter

_async_to_sync: Final = AsyncToSync.__call__
_sync_to_async: Final = SyncToAsync.__call__
_iterate_response: Final = StreamingHttpResponse.__iter__


class _Main:
    """A promise of a coroutine's result that also tells when the coroutine has really ended."""

    __slots__ = ("coroutine", "ended")

    def __init__(self, coroutine: Awaitable[Any]) -> None:
        self.coroutine = coroutine
        self.ended = Signal()


class _MainSubscription(TaskSubscription):
    __slots__ = ("_ended",)

    def __init__(self, promise: _Main, sink: Sink) -> None:
        super().__init__(promise.coroutine, sink)
        self._ended = promise.ended

    def ended(self) -> None:
        """Called when the coroutine has ended, or will never be started."""
        self._ended.fire()


KINDS[_Main] = _MainSubscription


def async_to_sync(self: AsyncToSync[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Replaces ``AsyncToSync.__call__``: run the coroutine on the server's loop, and wait."""
    executor = executor_here()
    if executor is None or self.force_new_loop or not executor.parks:
        return _alone(self, *args, **kwargs)
    refuse_in_atomic()  # before there is a coroutine
    frame = executor.frame
    context = [contextvars.copy_context()]
    main = _Main(_run(self.awaitable, args, kwargs, frame, context, sys.exc_info()[1]))
    try:
        return executor.waiter.wait(main)
    except Cancelled:
        # The coroutine's clean-up may need this thread, which waits while clean-ups may go on.
        executor.waiter.wait(main.ended)
        raise
    finally:
        _restore_context(context[0])


def _alone(self: AsyncToSync[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call asgiref's own method; it must not find a ``Frame`` where it keeps its own executor."""
    executors = AsyncToSync.executors
    frame = getattr(executors, "current", None)
    if not isinstance(frame, Frame):
        return _async_to_sync(self, *args, **kwargs)
    executors.current = None
    try:
        return _async_to_sync(self, *args, **kwargs)
    finally:
        executors.current = frame


async def _run(
    function: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    frame: Frame,
    context: list[contextvars.Context],
    handled: BaseException | None,
) -> Any:
    """As ``AsyncToSync.main_wrap``: carry the context, and the error that is being handled."""
    _restore_context(context[0])
    token = frame_of_context.set(frame)
    task = asyncio.current_task()
    assert task is not None
    tasks = frame.task_context
    if tasks is not None:
        tasks.append(task)
    try:
        if handled is None:
            return await function(*args, **kwargs)
        try:
            raise handled
        except BaseException:  # noqa: BLE001 - it is being handled, as asgiref has it
            return await function(*args, **kwargs)
    finally:
        if tasks is not None:
            tasks.remove(task)
        frame_of_context.reset(token)
        context[0] = contextvars.copy_context()


async def sync_to_async(self: SyncToAsync[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Replaces ``SyncToAsync.__call__``: make the call on the request's own thread."""
    frame = frame_of_context.get()
    executors = AsyncToSync.executors
    before = getattr(executors, "current", None)
    if (
        frame is None
        or not self._thread_sensitive
        or not (before is None or isinstance(before, Frame))  # asgiref's own blocks a thread above
        or getattr(self.thread_sensitive_context.get(None), "_executor", None) is not None
    ):
        return await _sync_to_async(self, *args, **kwargs)
    within = SyncToAsync.__new__(SyncToAsync)
    within.__dict__.update(self.__dict__)
    within.func = functools.partial(_call, frame.executor, self.func)
    executors.current = frame
    try:
        return await _sync_to_async(within, *args, **kwargs)
    finally:
        executors.current = before


def _call(
    executor: RequestExecutor, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Make a call in the frame that was opened for it."""
    if executor_here() is not executor:  # a worker thread, or the request is over
        return function(*args, **kwargs)
    frame = executor.frame
    frame.task_context = getattr(SyncToAsync.threadlocal, "task_context", None)
    token = frame_of_context.set(frame)
    try:
        return function(*args, **kwargs)
    finally:
        frame_of_context.reset(token)


def iterate_response(self: Any) -> Iterator[bytes]:
    """Replaces ``StreamingHttpResponse.__iter__``: iterate block by block, not over one list."""
    executor = executor_here()
    if not self.is_async or executor is None or not executor.parks:
        blocks: Iterator[bytes] = _iterate_response(self)
        return blocks
    stream = _stream(self, executor.waiter)
    # Django's ``close()`` calls this, so that the iterator is closed in the request, and not by the
    # garbage collector.
    self._resource_closers.append(stream.close)
    return stream


def _stream(response: Any, waiter: Waiter) -> Generator[bytes, None, None]:
    iterator = response._iterator
    contexts = [contextvars.copy_context()]

    async def following() -> Any:
        if contexts:
            _restore_context(contexts.pop())
        return await anext(iterator)

    actor = Actor(subject=iterator)
    try:
        while True:
            try:
                part = waiter.wait(actor.call(following))
            except StopAsyncIteration:
                return
            yield response.make_bytes(part)
    finally:
        close = getattr(iterator, "aclose", None)
        try:
            if close is not None:
                waiter.wait(actor.call(close))
        finally:
            actor.leave(None)


def begin(**_: Any) -> None:
    """Receive ``request_started``: what this request starts makes its calls in this frame."""
    executor = executor_here()
    if executor is not None:
        frame_of_context.set(executor.frame)
