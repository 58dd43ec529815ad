"""One promise of each kind that can be waited for, with the means to fire it from any thread."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from bide import promises
from tests.served import DEADLINE, Served


class Promised:
    """A promise, and what the other side of it can do.

    Attributes:
        promise: what the application is given to wait for.
        cancelled: set once the promise has been cancelled.
        cancels: whether this kind can be cancelled at all.
        fails: whether this kind can fail.
    """

    cancels = True
    fails = True

    def __init__(self, served: Served, reactor: Any) -> None:
        self.cancelled = threading.Event()
        self._served = served
        self._reactor = reactor
        self.promise: Any = self._make()

    def _make(self) -> Any:
        raise NotImplementedError

    def fire(self, value: Any) -> None:
        """Fulfil the promise; return when that is done. From any thread but the loop's."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Fail the promise."""
        raise NotImplementedError


class _OnLoop(Promised):
    """Behind each of asyncio's kinds stands a future of the server's loop."""

    def _make(self) -> Any:
        self._future: asyncio.Future[Any] = self._served.call(self._served.loop.create_future)
        return self._wrap()

    def _wrap(self) -> Any:
        raise NotImplementedError

    async def _waiting(self) -> Any:
        try:
            return await self._future
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def fire(self, value: Any) -> None:
        self._served.call(self._future.set_result, value)

    def fail(self, error: Exception) -> None:
        self._served.call(self._future.set_exception, error)


class ACoroutine(_OnLoop):
    """What an ``async def`` function returns."""

    def _wrap(self) -> Any:
        return self._waiting()


class AnAwaitable(_OnLoop):
    """An object with ``__await__`` and nothing else."""

    def _wrap(self) -> Any:
        return _Awaitable(self._waiting)


class _Awaitable:
    def __init__(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._function = function

    def __await__(self) -> Generator[Any, None, Any]:
        return self._function().__await__()


class AFuture(_OnLoop):
    """An asyncio future."""

    def _wrap(self) -> Any:
        self._future.add_done_callback(self._note)
        return self._future

    def _note(self, future: "asyncio.Future[Any]") -> None:
        if future.cancelled():
            self.cancelled.set()


class ATask(_OnLoop):
    """An asyncio task, begun before anyone waits for it."""

    def _wrap(self) -> Any:
        return self._served.call(lambda: self._served.loop.create_task(self._waiting()))


class AConcurrentFuture(Promised):
    """``concurrent.futures.Future``, which knows no loop."""

    def _make(self) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.add_done_callback(self._note)
        return future

    def _note(self, future: "concurrent.futures.Future[Any]") -> None:
        if future.cancelled():
            self.cancelled.set()

    def fire(self, value: Any) -> None:
        """Call back on this thread."""
        self.promise.set_result(value)

    def fail(self, error: Exception) -> None:
        """Call back on this thread."""
        self.promise.set_exception(error)


class ARegistered(AConcurrentFuture):
    """A kind that Bide does not know: a handle, for which a future is found."""

    def _make(self) -> Any:
        self._behind = super()._make()
        return Handle(self._behind)

    def fire(self, value: Any) -> None:
        """Call back on this thread."""
        self._behind.set_result(value)

    def fail(self, error: Exception) -> None:
        """Call back on this thread."""
        self._behind.set_exception(error)


class Handle:
    """What an engine might give for a result that is to come."""

    def __init__(self, future: "concurrent.futures.Future[Any]") -> None:
        self.future = future


promises.register(Handle, lambda handle: handle.future)


class ADeferred(Promised):
    """Twisted's, fired on the reactor's thread."""

    def _make(self) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred(self._cancel)

    def _cancel(self, deferred: Any) -> None:
        self.cancelled.set()

    def fire(self, value: Any) -> None:
        """Call back on the reactor's thread."""
        self._call(self.promise.callback, value)

    def fail(self, error: Exception) -> None:
        """Call its errbacks on the reactor's thread."""
        self._call(self.promise.errback, error)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        def calling() -> None:
            function(*args)
            done.set_result(None)

        self._reactor.callFromThread(calling)
        done.result(DEADLINE)


class Bare:
    """The object of the 2004 proposal: ``addCallback``, and nothing else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Any], Any]] = []
        self._values: list[Any] = []

    def addCallback(self, callback: Callable[[Any], Any]) -> None:
        """Call back with each value; inside this call with those that came before."""
        with self._lock:
            self._callbacks.append(callback)
            values = list(self._values)
        for value in values:
            callback(value)

    def fire(self, value: Any) -> None:
        """Call back, on this thread."""
        with self._lock:
            self._values.append(value)
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback(value)


class ABareObject(Promised):
    """See :class:`Bare`; it can neither fail nor be cancelled."""

    cancels = False
    fails = False

    def _make(self) -> Any:
        return Bare()

    def fire(self, value: Any) -> None:
        """Call back on this thread."""
        self.promise.fire(value)


KINDS: list[type[Promised]] = [
    ACoroutine,
    AnAwaitable,
    AFuture,
    ATask,
    AConcurrentFuture,
    ARegistered,
    ADeferred,
    ABareObject,
]
