"""Waiting in ordinary code: ``wait`` and its company, which applications call.

Inside a request that Bide runs, a wait parks the request's greenlet and its thread goes on with
others. Anywhere else it blocks the calling thread, and awaitables run on one background loop,
so the same code works under every server, in a script and in a shell.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar, overload

from bide.errors import Cancelled, WaitError
from bide.waiting.actor import Actor
from bide.waiting.adapters import All, adapter_for, discard
from bide.waiting.cleanups import cleanup_time
from bide.waiting.thread_locals import alone, kept
from bide.waiting.thread_pool import ThreadPool
from bide.waiting.waiter import look, waiter_here

T = TypeVar("T")


@overload
def wait(promise: Awaitable[T], timeout: float | None = None) -> T: ...
@overload
def wait(promise: concurrent.futures.Future[T], timeout: float | None = None) -> T: ...
@overload
def wait(promise: Any, timeout: float | None = None) -> Any: ...


def wait(promise: Any, timeout: float | None = None) -> Any:
    """Suspend this request until ``promise`` fires; return its result, or raise its error here.

    Callable from anywhere below the application: a view, a template, a library, a generator,
    middleware. The request's thread goes on with other requests meanwhile, and this one goes on
    later on the same thread, in the same context. Outside a request it blocks the thread.

    Args:
        promise: an awaitable, or an object with ``add_done_callback`` and ``result``, or with
            ``addCallback``. A
            coroutine runs as a task on the server's event loop, with a copy of this context.
        timeout: seconds, 0 or more; None waits for as long as it takes.

    Raises:
        TimeoutError: no result in time; the promise was cancelled.
        ClientDisconnected: the client has left; the promise was cancelled.
        ServerStopping: the server stops; the promise was cancelled.
        WaitError: outside a request, on a thread that runs an event loop.
        TypeError: ``promise`` is not a promise.
    """
    try:
        here = waiter_here()
    except WaitError:
        discard(promise)
        raise
    try:
        return here.wait(promise, timeout)
    finally:
        del promise  # the error is its own: no cycle through this frame


def wait_all(*promises: Any, timeout: float | None = None) -> list[Any]:
    """Start all promises together, wait for all; return their results in order.

    The first error is raised here, and the others are cancelled. Else as :func:`wait`; ``timeout``
    is for all of them together, in seconds.
    """
    promise = None
    try:
        for promise in promises:
            adapter_for(promise)
    except TypeError:
        discard(All(promises))
        raise
    try:
        results: list[Any] = wait(All(promises), timeout)
        return results
    finally:
        del promise, promises  # as in wait


def iterate(iterable: AsyncIterable[T], timeout: float | None = None) -> Iterator[T]:
    """Iterate over an async iterable in ordinary code, waiting for each item as :func:`wait` does.

    The iterable runs in one task on the server's loop, from its first item to its ``aclose``. An
    iteration that is left early closes it there, without waiting for the end of that.

    Args:
        iterable: what ``async for`` takes.
        timeout: seconds for each item; None for as long as it takes.
    """
    if not hasattr(type(iterable), "__aiter__"):
        raise TypeError(f"iterate() takes an async iterable, not {type(iterable).__name__}")
    return _iterate(iterable, timeout)


def _iterate(iterable: AsyncIterable[T], timeout: float | None) -> Iterator[T]:
    iterator = aiter(iterable)
    close = getattr(iterator, "aclose", None)

    async def abandon(_: BaseException) -> None:
        if close is not None:
            await close()

    actor = Actor(abandon, iterator)
    try:
        while True:
            try:
                item = wait(actor.call(iterator.__anext__), timeout)
            except StopAsyncIteration:
                close = None
                return
            yield item
    finally:
        actor.leave(close, cleanup_time.seconds)


def using(
    manager: AbstractAsyncContextManager[T, bool | None],
) -> AbstractContextManager[T, bool | None]:
    """Make a plain context manager of an async one.

    ``with using(manager) as value:`` stands for ``async with``. It is entered and left in one task
    on the server's loop, waiting as :func:`wait` does.
    """
    return _using(manager)


@contextlib.contextmanager
def _using(manager: AbstractAsyncContextManager[T, bool | None]) -> Iterator[T]:
    entered = False
    error: BaseException | None = None

    async def enter() -> T:
        nonlocal entered
        value = await manager.__aenter__()
        entered = True
        return value

    async def leave() -> bool | None:
        nonlocal entered
        if not entered:
            return False
        entered = False  # once
        if error is None:
            return await manager.__aexit__(None, None, None)
        return await manager.__aexit__(type(error), error, error.__traceback__)

    async def abandon(cancelled: BaseException) -> bool | None:
        # What `async with` does when its task is cancelled, but that the block runs on.
        nonlocal error
        error = cancelled
        return await leave()

    actor = Actor(abandon, manager)
    try:
        value = wait(actor.call(enter))
        try:
            look()
        except Cancelled:  # it came meanwhile: the block is not run
            wait(actor.clean_up(leave))
            raise
        try:
            yield value
        except BaseException as raised:
            error = raised
            # Without a name for the promise: it holds the error, whose traceback holds this frame.
            if not wait(actor.clean_up(leave)):
                raise
        else:
            wait(actor.clean_up(leave))
    finally:
        # Where the wait was given up, before or while it was left, it may be entered all the same.
        actor.leave(leave, cleanup_time.seconds)
        error = None  # its traceback holds this frame: no cycle


_pool = ThreadPool()
os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]


def in_thread(
    function: Callable[..., T], /, *args: Any, **kwargs: Any
) -> concurrent.futures.Future[T]:
    """Call a function that blocks in another thread; return a promise of its result.

    It runs with a copy of this context, in one of 32 threads kept for this. Those that wait
    themselves, by :func:`wait` or for the promise's ``result()``, do not count.

    Raises:
        RuntimeError: the program ends, or the system gives no thread.
    """
    context = contextvars.copy_context()
    if kept:
        return _pool.submit(context.run, alone, function, *args, **kwargs)
    return _pool.submit(context.run, function, *args, **kwargs)
