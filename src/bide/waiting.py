"""Waiting in ordinary code: ``wait`` and its company, and the waiter behind them.

Inside a request that Bide runs, a wait parks the request's greenlet and its thread goes on with
others. Anywhere else it blocks the calling thread, and awaitables run on one background loop,
so the same code works under every server, in a script and in a shell.

This module knows neither requests nor servers: an executor gives each conversation a
:class:`Waiter`, and hangs it on the conversation's greenlet, where :func:`current_waiter` finds it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import os
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, overload

from greenlet import getcurrent, greenlet

from bide.errors import Cancelled, WaitError
from bide.mailboxes import on_loop
from bide.promises import (
    All,
    Signal,
    SignalSubscription,
    Subscription,
    Wait,
    adapter_for,
    discard,
)
from bide.residents import Resident

T = TypeVar("T")

CLEANUP_SECONDS = 10.0
"""How long a cancelled request may still wait, for all its waits together, in seconds."""


class Parking(Protocol):
    """How a thread of control stops until its wait is settled."""

    def park(self, wait: Wait) -> None:
        """Return once ``wait`` is settled; on the waiting thread."""

    def wake(self, wait: Wait) -> None:
        """Let ``park`` return; from any thread."""


class ThreadParking:
    """Parks by blocking the thread; one object for each wait."""

    __slots__ = ("_turnstile",)

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._turnstile.acquire()

    def park(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Block this thread."""
        self._turnstile.acquire()

    def wake(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Let the thread go on."""
        self._turnstile.release()


class Waiter:
    """One conversation's place to wait: at most one wait at a time, each with one outcome.

    ``wait`` and ``wait_io`` belong to the conversation's thread; ``cancel`` may be called from any.
    The two meet without a lock: a wait is published and then looks for a cancellation;
    ``cancel`` records the cancellation and then looks for a published wait.
    """

    __slots__ = ("_cancellation", "_current", "_deadline", "loop", "parking")

    def __init__(self, loop: asyncio.AbstractEventLoop, parking: Parking | None = None) -> None:
        self.loop = loop
        self.parking = parking
        self._current: Wait | None = None
        self._cancellation: Cancelled | None = None
        self._deadline: float | None = None  # set once the cancellation has been raised

    def cancel(self, cancellation: Cancelled) -> None:
        """End the wait in progress, or the next one, by raising; from any thread.

        Running code is not interrupted. The first cancellation counts.
        """
        if self._cancellation is not None:
            return
        self._cancellation = cancellation
        current = self._current
        if current is not None:
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
        parking = self._place()
        wait = Wait(parking.wake)
        try:
            limit = _checked(timeout)
            subscription = adapter_for(promise)(promise, wait)
        except BaseException:
            discard(promise)
            raise
        self._current = wait
        if self._cancellation is not None:
            try:
                remaining = self._cleanup_time()
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
        assert self._cancellation is not None
        if self._deadline is None:
            self._deadline = time.monotonic() + CLEANUP_SECONDS
        raise _again(self._cancellation)

    def wait_io(self, signal: Signal) -> Any:
        """Suspend for the request's own connection, whose events end the wait themselves.

        Unlike an application's wait it survives a half-closed connection: a client that has
        sent everything may still read.
        """
        parking = self._place()
        wait = Wait(parking.wake)
        self._run(wait, SignalSubscription(signal, wait), parking, None)
        try:
            return _result(wait)
        finally:
            del signal, wait  # as above

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
        if self.parking is None or asyncio._get_running_loop() not in (None, self.loop):
            return ThreadParking()
        return self.parking

    def _cleanup_time(self) -> float:
        """Raise the cancellation the first time; then say how long cleaning up may wait."""
        assert self._cancellation is not None
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + CLEANUP_SECONDS
            raise _again(self._cancellation)
        if now >= self._deadline:
            raise _again(self._cancellation)
        return self._deadline - now


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


class _HomeLoop:
    """The process's loop for awaitables outside a request; any thread.

    A running server lends its own, so that a client made once for the process works in requests
    and in the threads they start; else one background thread runs a loop, started at first need.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: list[asyncio.AbstractEventLoop] = []
        self._own: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def lend(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lent.append(loop)

    def take_back(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lent.remove(loop)

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._pid != os.getpid():  # a forked child has the objects, not the threads
                self._pid = os.getpid()
                self._own = None
            for loop in self._lent:
                if loop.is_running():
                    return loop
            if self._own is None:
                self._own = asyncio.new_event_loop()
                threading.Thread(
                    target=self._own.run_forever, name="bide-background-loop", daemon=True
                ).start()
            return self._own

    def close(self) -> None:
        """End the background loop when the program ends."""
        with self._lock:
            if self._own is not None and self._pid == os.getpid():
                self._own.call_soon_threadsafe(self._own.stop)


home_loop = _HomeLoop()
atexit.register(home_loop.close)
# A lock held by another thread at the fork would stay held in the child for ever.
os.register_at_fork(after_in_child=home_loop.__init__)  # type: ignore[misc]


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


def waiter_here() -> Waiter:
    """Give the current conversation's waiter, or one that blocks this thread.

    Raises:
        WaitError: there is no conversation, and this thread runs an event loop, which a blocked
            thread would stop.
    """
    waiter = current_waiter()
    if waiter is not None:
        return waiter
    if asyncio._get_running_loop() is not None:
        raise WaitError(
            "this thread runs an event loop, which waiting would stop: use `await` here, "
            "or wait in a thread (asyncio.to_thread)"
        )
    return Waiter(home_loop.get())


# What applications call ---------------------------------------------------------------------


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
        promise: an awaitable, or an object with ``add_done_callback`` or ``addCallback``. A
            coroutine runs as a task on the server's event loop, with a copy of this context.
        timeout: seconds, 0 or more; None waits for as long as it takes.

    Raises:
        TimeoutError: no result in time; the promise was cancelled.
        ClientDisconnected: the client has left; the promise was cancelled.
        ServerStopping: the server stops; the promise was cancelled.
        WaitError: outside a request, on a thread that runs an event loop.
        TypeError: ``promise`` is no promise.
    """
    try:
        waiter = waiter_here()
    except WaitError:
        discard(promise)
        raise
    try:
        return waiter.wait(promise, timeout)
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

    resident = Resident(abandon)
    try:
        while True:
            try:
                item = wait(resident.call(iterator.__anext__), timeout)
            except StopAsyncIteration:
                close = None
                return
            yield item
    finally:
        resident.leave(close)


@contextlib.contextmanager
def using(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Make a plain context manager of an async one.

    ``with using(manager) as value:`` stands for ``async with``. It is entered and left in one task
    on the server's loop, waiting as :func:`wait` does.
    """
    entered = False

    async def enter() -> T:
        nonlocal entered
        value = await manager.__aenter__()
        entered = True
        return value

    async def leave_entered() -> None:
        # The wait was given up while the manager was being entered: it may have been, all the same.
        if entered:
            await manager.__aexit__(None, None, None)

    async def abandon(error: BaseException) -> bool | None:
        # What `async with` does when its task is cancelled, but that the block runs on.
        return entered and await manager.__aexit__(type(error), error, error.__traceback__)

    resident = Resident(abandon)
    try:
        value = wait(resident.call(enter))
    except BaseException:
        resident.leave(leave_entered)
        raise
    try:
        try:
            yield value
        except BaseException as error:
            # Without a name for the promise: it holds the error, whose traceback holds this frame.
            if not wait(resident.call(manager.__aexit__, type(error), error, error.__traceback__)):
                raise
        else:
            wait(resident.call(manager.__aexit__, None, None, None))
    finally:
        resident.leave(None)


class _Pool:
    """The threads of ``in_thread``; started at first need, ended with the program."""

    def __init__(self) -> None:
        self.executor = concurrent.futures.ThreadPoolExecutor(
            max_workers=32, thread_name_prefix="bide-in-thread"
        )


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]


def in_thread(
    function: Callable[..., T], /, *args: Any, **kwargs: Any
) -> concurrent.futures.Future[T]:
    """Call a function that blocks in another thread; return a promise of its result.

    It runs with a copy of this context, in one of at most 32 threads kept for this.
    """
    context = contextvars.copy_context()
    return _pool.executor.submit(context.run, function, *args, **kwargs)
