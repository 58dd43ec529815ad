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
    """Allow a loop's tasks to await ``Deferred`` objects, unless it has a task factory already."""
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
        """Continue. Where a ``Deferred`` is awaited, it returns its own result, or raises."""
        self._awaited = None
        return self._translated(self._coro.send(value))

    def throw(self, *error: Any) -> Any:
        """Raise an error where the coroutine waits, after cancelling the ``Deferred``."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.cancel()
        return self._translated(self._coro.throw(*error))

    def close(self) -> None:
        """Close the coroutine."""
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:  # its name and its frame, for code that shows tasks
        return getattr(self._coro, name)

    def _translated(self, awaited: Any) -> Any:
        if not isinstance(awaited, Deferred):
            return awaited
        future: Any = self._loop.create_future()
        self._awaited = awaited
        awaited.addBoth(_fired, future)
        future._asyncio_future_blocking = True  # how a task sees that it is awaited
        return future


def _fired(result: Any, future: asyncio.Future[None]) -> Any:
    """Wake the task, and keep the result for it; drop a failure that no task awaits any more."""
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
        """Call ``callback`` on the reactor's thread, soon; from any thread."""
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
        """Call ``callback`` after ``delay`` seconds."""
        if context is None:
            return _Timer(self._reactor.callLater(delay, callback, *args))
        return _Timer(self._reactor.callLater(delay, context.run, callback, *args))

    def time(self) -> float:
        """Return the reactor's time, in seconds."""
        seconds: float = self._reactor.seconds()
        return seconds

    def is_closed(self) -> bool:
        """Return false: a reactor is never closed."""
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
        self._callbacks: list[tuple[Callable[[Any], object], contextvars.Context | None]] = []
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
        for callback, context in callbacks:
            self._call(callback, context)

    def _call(self, callback: Callable[[Any], object], context: contextvars.Context | None) -> None:
        if context is None:
            callback(self)
        else:
            context.run(callback, self)

    def add_done_callback(
        self, callback: Callable[[Any], object], context: contextvars.Context | None = None
    ) -> None:
        """Call ``callback`` with this task when it is done; at once if it is done."""
        if self._done:
            self._call(callback, context)
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Do not call back with this."""
        self._callbacks = [each for each in self._callbacks if each[0] != callback]

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
        """Tell the server to stop, which then stops the reactor."""
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
    """Start the installed reactor on its loop, which is running.

    Args:
        loop: from :func:`install`'s caller.
        stopped: called when the reactor's ``stop`` is called.

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
