"""Waiting in ordinary code: ``wait`` and the functions beside it, which applications call.

Inside a request that Bide runs, a wait parks the request's greenlet, and its thread runs other
requests. Anywhere else a wait blocks the calling thread, and awaitables run on one background loop.
So the same code works under every server, in a script and in a shell.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from bide.errors import Cancelled, WaitError
from bide.systems import at_fork
from bide.waiting.actor import Actor, Call
from bide.waiting.adapters import LOOKUPS, All, adapter_for, discard
from bide.waiting.arguments import check_async_iterable, check_async_manager, check_function
from bide.waiting.cleanups import cleanup_time
from bide.waiting.current import look
from bide.waiting.outcome import Signal
from bide.waiting.registered import find
from bide.waiting.served import context_elsewhere
from bide.waiting.thread_locals import alone, kept
from bide.waiting.thread_pool import ThreadPool
from bide.waiting.waiter import waiter_here

if TYPE_CHECKING:
    from bide.typing import AddsCallbacks, FutureLike, Promise

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
P = ParamSpec("P")
Own = Signal | All | Call
"""Bide's own promises."""

LOOKUPS.append(find)  # before the first wait


@overload
def wait(promise: Awaitable[T], timeout: float | None = None) -> T: ...
@overload
def wait(promise: FutureLike[T], timeout: float | None = None) -> T: ...
@overload
def wait(promise: AddsCallbacks[T], timeout: float | None = None) -> T: ...
@overload
def wait(promise: Own, timeout: float | None = None) -> Any: ...


def wait(promise: Any, timeout: float | None = None) -> Any:
    """Suspend this request until ``promise`` has its result. Return that, or raise its error.

    May be called anywhere below the application: in a view, a template, a library, a generator,
    middleware. Meanwhile the request's thread runs other requests. This one goes on later on the
    same thread, in the same context. Outside a request, ``wait`` blocks the calling thread.

    If the wait ends early, the promise is cancelled, unless others wait for it, too.

    Args:
        promise: an awaitable, or an object with ``add_done_callback`` and ``result``, or one with
            ``addCallback``. A coroutine runs as a task on the server's event loop, with a copy of
            this context.
        timeout: seconds, 0 or more; None: no limit.

    Raises:
        TimeoutError: there was no result in time.
        ClientDisconnected: the client has left.
        RequestTimeout: the request has taken longer than ``request_timeout``.
        ServerStopping: the server stops, and the time to finish is over.
        ThreadEnded: the request's thread was ended by an asynchronous exception.
        WaitError: waiting is not possible here: on a thread that runs an event loop, outside a
            request; or while a lock of the server is held.
        TypeError: ``promise`` is not a promise.
        ValueError: ``timeout`` is less than 0.
    """
    try:
        here = waiter_here()
    except WaitError:
        discard(promise)
        raise
    try:
        return here.wait(promise, timeout)
    finally:
        del promise  # it may hold the error, whose traceback holds this frame: no cycle


# By position up to six, as typeshed does for asyncio.gather: a type checker sees a tuple.
@overload
def wait_all(first: Promise[T1], /, *, timeout: float | None = None) -> tuple[T1]: ...
@overload
def wait_all(
    first: Promise[T1], second: Promise[T2], /, *, timeout: float | None = None
) -> tuple[T1, T2]: ...
@overload
def wait_all(
    first: Promise[T1], second: Promise[T2], third: Promise[T3], /, *, timeout: float | None = None
) -> tuple[T1, T2, T3]: ...
@overload
def wait_all(
    first: Promise[T1],
    second: Promise[T2],
    third: Promise[T3],
    fourth: Promise[T4],
    /,
    *,
    timeout: float | None = None,
) -> tuple[T1, T2, T3, T4]: ...
@overload
def wait_all(
    first: Promise[T1],
    second: Promise[T2],
    third: Promise[T3],
    fourth: Promise[T4],
    fifth: Promise[T5],
    /,
    *,
    timeout: float | None = None,
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
def wait_all(
    first: Promise[T1],
    second: Promise[T2],
    third: Promise[T3],
    fourth: Promise[T4],
    fifth: Promise[T5],
    sixth: Promise[T6],
    /,
    *,
    timeout: float | None = None,
) -> tuple[T1, T2, T3, T4, T5, T6]: ...
@overload
def wait_all(*promises: Promise[T], timeout: float | None = None) -> list[T]: ...


def wait_all(*promises: Any, timeout: float | None = None) -> Any:
    """Start all promises together and wait for all of them; return their results in order.

    The first error is raised, and the other promises are cancelled. As :func:`wait`, this may be
    called from any thread.

    Args:
        promises: each as for :func:`wait`.
        timeout: seconds for all of them together, 0 or more; None: no limit.

    Raises:
        TypeError: an argument is not a promise. Then none is started.
        Exception: the first error of a promise, or what :func:`wait` raises.
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

    The iterable runs in one task on the server's event loop, from its first item to its ``aclose``.
    If you leave the iteration early, ``aclose`` is called there. Nothing waits for its end.

    Args:
        iterable: what ``async for`` takes.
        timeout: seconds for each item, 0 or more; None: no limit.

    Raises:
        TypeError: ``iterable`` is not an async iterable.
        Exception: at an item: the iterable's error, or an error of :func:`wait`.
    """
    check_async_iterable(iterable)
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
    """Return a plain context manager for an async one.

    ``with using(manager) as value:`` does the same as ``async with``. The manager is entered and
    left in one task on the server's event loop. This code waits for both as :func:`wait` does. A
    manager that was entered is always left, even if the request is cancelled.

    The start and the end of the block raise the manager's errors, and those of :func:`wait`. The
    call itself raises TypeError if ``manager`` is not an async context manager.
    """
    check_async_manager(manager)
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
        # As `async with` does when its task is cancelled, except that the block goes on.
        nonlocal error
        error = cancelled
        return await leave()

    actor = Actor(abandon, manager)
    try:
        value = wait(actor.call(enter))
        try:
            look()
        except Cancelled:  # it came while the manager was entered: the block is not run
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
        # Where a wait above was given up, the manager may be entered all the same.
        actor.leave(leave, cleanup_time.seconds)
        error = None  # its traceback holds this frame: no cycle


_pool = ThreadPool()
at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]


def in_thread(
    function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> concurrent.futures.Future[T]:
    """Call a blocking function on another thread; return a promise of its result.

    May be called from any thread. The function runs with a copy of this context, on one of 32
    threads that the process keeps for this. A thread that waits, by :func:`wait` or in a promise's
    ``result()``, does not count. If the function raises an error, the promise fails with it.

    Raises:
        TypeError: ``function`` cannot be called, or is async.
        RuntimeError: the program is ending, or the system cannot start a thread.
    """
    check_function(function, "in_thread")
    context = context_elsewhere()
    if kept:
        return _pool.submit(context.run, alone, function, *args, **kwargs)
    return _pool.submit(context.run, function, *args, **kwargs)
