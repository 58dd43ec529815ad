"""Twisted's reactor and Bide's loop as one, both ways.

- :func:`loop_of` returns a reactor's loop: asyncio's own, where the reactor runs on it, else a loop
  that asks the reactor for everything.
- :func:`install` makes the loop of a Bide server Twisted's reactor (``bide --reactor twisted``).

On asyncio's loop coroutines may then await both asyncio's futures and ``Deferred`` objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor
from twisted.internet.process import reapAllProcesses
from twisted.python.failure import Failure

from bide.errors import StartError


def loop_of(reactor: Any) -> asyncio.AbstractEventLoop:
    """Return the loop on which a reactor's conversations wait."""
    loop: Any = getattr(reactor, "_asyncioEventloop", None)
    if loop is None:
        loop = ReactorLoop(reactor)
    else:
        await_both_kinds(loop)
    return loop  # type: ignore[no-any-return]


def await_both_kinds(loop: asyncio.AbstractEventLoop) -> None:
    """Let the tasks of a loop await ``Deferred`` objects; one that has a task factory is left."""
    if loop.get_task_factory() is None:
        loop.set_task_factory(_task)  # type: ignore[arg-type]


def _task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    return asyncio.Task(_BothKinds(coro, loop), loop=loop, **options)


class _BothKinds(Coroutine[Any, Any, Any]):
    """A coroutine as a task takes it: where it awaits a ``Deferred``, a future stands for that."""

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._coro = coro
        self._loop = loop
        self._awaited: Deferred[Any] | None = None

    def send(self, value: Any) -> Any:
        """Go on. The ``Deferred`` itself gives its result, or raises, where it is awaited."""
        self._awaited = None
        return self._translated(self._coro.send(value))

    def throw(self, *error: Any) -> Any:
        """Raise where it waits: it is cancelled, and so is the ``Deferred``."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.cancel()
        return self._translated(self._coro.throw(*error))

    def close(self) -> None:
        """End."""
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:  # its name and its frame, for whoever shows the task
        return getattr(self._coro, name)

    def _translated(self, awaited: Any) -> Any:
        if not isinstance(awaited, Deferred):
            return awaited
        future: Any = self._loop.create_future()
        self._awaited = awaited
        awaited.addBoth(_fired, future)
        future._asyncio_future_blocking = True  # a task's word for "awaited"
        return future


def _fired(result: Any, future: asyncio.Future[None]) -> Any:
    """Let the task go on, and keep the result for it; a failure that nobody awaits is dropped."""
    if not future.done():
        future.set_result(None)
        return result
    return None if isinstance(result, Failure) else result


class ReactorLoop:
    """What Bide asks of an event loop, answered by a reactor that is not asyncio's.

    A coroutine that is waited for runs as Twisted runs it, and may await ``Deferred`` objects; what
    belongs to asyncio needs asyncio's reactor. Any thread may call ``call_soon_threadsafe``; the
    rest is for the reactor's.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call_soon_threadsafe(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> None:
        """Call on the reactor's thread."""
        if context is None:
            self._reactor.callFromThread(callback, *args)
        else:
            self._reactor.callFromThread(context.run, callback, *args)

    call_soon = call_soon_threadsafe

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Timer:
        """Call after so many seconds."""
        if context is None:
            return _Timer(self._reactor.callLater(delay, callback, *args))
        return _Timer(self._reactor.callLater(delay, context.run, callback, *args))

    def time(self) -> float:
        """Return the reactor's time, in seconds."""
        seconds: float = self._reactor.seconds()
        return seconds

    def is_closed(self) -> bool:
        """Never: a reactor is not closed."""
        return False

    def is_running(self) -> bool:
        """Return whether the reactor runs."""
        running: bool = self._reactor.running
        return running

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> _Task:
        """Run a coroutine as Twisted does."""
        if context is None:
            context = contextvars.copy_context()
        return _Task(context.run(Deferred.fromCoroutine, coro))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise what a callback has raised, for the reactor to log."""
        raise context["exception"]


class _Timer:
    """A delayed call, as asyncio has it."""

    def __init__(self, delayed: Any) -> None:
        self._delayed = delayed

    def cancel(self) -> None:
        """Cancel, unless it was called."""
        if self._delayed.active():
            self._delayed.cancel()


class _Task:
    """A coroutine that Twisted runs, as much of a task as a subscription uses."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self._deferred = deferred
        self._callbacks: list[Callable[[Any], object]] = []
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        deferred.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, value: Any) -> None:
        self._value = value
        self._finish()

    def _failed(self, failure: Failure) -> None:
        self._error = failure.value
        self._finish()

    def _finish(self) -> None:
        self._done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def add_done_callback(
        self, callback: Callable[[Any], object], context: contextvars.Context | None = None
    ) -> None:
        """Call back with this when it is done: now, if it is."""
        called = callback if context is None else lambda task: context.run(callback, task)
        if self._done:
            called(self)
        else:
            self._callbacks.append(called)

    def result(self) -> Any:
        """Return what it returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._value

    def done(self) -> bool:
        """Return whether it has ended."""
        return self._done

    def cancel(self) -> None:
        """Cancel what it awaits."""
        if not self._done:
            self._deferred.cancel()


class BideReactor(AsyncioSelectorReactor):
    """A reactor whose loop is run by Bide."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        await_both_kinds(loop)
        self.stopped: Callable[[], object] = lambda: None
        self._ended = asyncio.Event()

    def run(self, installSignalHandlers: bool = True) -> None:
        """Raise RuntimeError: it runs already."""
        raise RuntimeError("Bide runs the reactor: leave reactor.run() out")

    def stop(self) -> None:
        """Have the server stop, which stops this."""
        self.stopped()

    def crash(self) -> None:
        """Note the end; the loop is Bide's."""
        ReactorBase.crash(self)

    async def finish(self, seconds: float) -> None:
        """Fire the shutdown event, and wait for what that starts, for so long at most."""
        self.addSystemEventTrigger("after", "shutdown", self._ended.set)
        self.fireSystemEvent("shutdown")
        with contextlib.suppress(TimeoutError):  # what hangs there does not hang the process
            await asyncio.wait_for(self._ended.wait(), seconds)


def install(loop: asyncio.AbstractEventLoop) -> BideReactor:
    """Make a loop Twisted's reactor; before anything imports ``twisted.internet.reactor``.

    Raises:
        StartError: another reactor has been installed.
    """
    if "twisted.internet.reactor" in sys.modules:
        raise StartError(
            "a reactor has been installed already, so --reactor twisted comes too late: nothing "
            "may import twisted.internet.reactor before Bide does"
        )
    reactor = BideReactor(loop)
    installReactor(reactor)  # type: ignore[no-untyped-call]
    return reactor


def running_on(loop: asyncio.AbstractEventLoop, stopped: Callable[[], object]) -> BideReactor:
    """Let the reactor that is installed run, on its loop, which is running.

    Args:
        loop: from :func:`install`'s caller.
        stopped: called when somebody calls the reactor's ``stop``.

    Raises:
        StartError: the loop is not the reactor's.
    """
    from twisted.internet import reactor

    if not isinstance(reactor, BideReactor) or reactor._asyncioEventloop is not loop:
        raise StartError("Twisted's reactor is not on the server's loop: start with bide.run")
    reactor.stopped = stopped
    reactor.startRunning(installSignalHandlers=False)
    loop.add_signal_handler(signal.SIGCHLD, reapAllProcesses)  # for spawnProcess
    return reactor
