"""What an application does when its server starts and stops, and the state that it makes.

Functions are registered for the process, usually while the application is imported. Each server
that starts calls them, with a state of its own, which requests find in ``environ["bide.state"]``.
Coroutine functions run on the server's event loop, plain ones in a thread, where they may block.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from time import monotonic
from typing import Any, Final, TypeVar

from bide.applications.loading import ApplicationFailed
from bide.asgi.lifespan import Lifespan, LifespanFailed
from bide.capabilities import name_of
from bide.waiting.api import in_thread, wait
from bide.waiting.cleanups import cleanup_time

log = logging.getLogger("bide")

F = TypeVar("F", bound=Callable[..., Any])
State = dict[str, Any]

MOMENT: Final = 1.0
"""Seconds that each ``on_stop`` function has at least."""

_starts: list[Callable[..., Any]] = []
_stops: list[Callable[..., Any]] = []


def on_start(function: F) -> F:
    """Register a function that each server of the process calls when it starts.

    Use it as a decorator or call it, before the server starts, from any thread. The functions are
    called in the order of registration, before the first request. If one raises, the server does
    not start, and raises :class:`bide.StartError`; ``on_stop`` functions are not called then. If an
    ASGI application fails to start after them, they are.

    Args:
        function: a plain function, called in a thread, where it may block and :func:`bide.wait`;
            or a coroutine function, run on the server's loop. If it requires an argument, that is
            the server's state, a dict, which requests find in ``environ["bide.state"]``.

    Returns:
        The function.

    Raises:
        TypeError: it is not a function.
    """
    _check(function, "on_start")
    _starts.append(function)
    return function


def on_stop(function: F) -> F:
    """Register a function that each server of the process calls when it stops.

    Use it as a decorator or call it, from any thread. The functions are called when the last
    request has ended, in the reverse order of registration. An error in one is logged, and the
    others are called. All together have the seconds that are left of ``graceful_timeout``, and at
    least ten.

    Args:
        function: as for :func:`on_start`.

    Returns:
        The function.

    Raises:
        TypeError: it is not a function.
    """
    _check(function, "on_stop")
    _stops.append(function)
    return function


def _check(function: Any, caller: str) -> None:
    if not callable(function):
        raise TypeError(
            f"{caller}() takes a function, which is called later, not a value of type "
            f"{type(function).__name__}: write {caller}(f), not {caller}(f())"
        )


class Lifetime:
    """One server's start and stop; on its loop, but for ``start_here`` and ``stop_here``.

    Attributes:
        state: what the functions make for the application; becomes ``environ["bide.state"]``.
        started: whether all ``on_start`` functions have been called.
        moment: seconds that each ``on_stop`` function has at least.
        context: the context that coroutine functions run in.
        lifespans: those of ASGI applications, which start after the functions, in this order, and
            stop before them, in the reverse one; set before the start.
        failure: why an ASGI application cannot go on, once it has said so while it serves.
        on_failure: called then.
    """

    def __init__(self) -> None:
        self.state: State = {}
        self.started = False
        self.moment = MOMENT
        self.context = copy_context()  # one for all of them
        self._starting: asyncio.Task[None] | None = None
        self._awaiting = 0  # tasks that wait for it
        self._given_up: asyncio.Task[None] | None = None  # one that nobody waited for any more
        self._stops: list[Callable[..., Any]] = []
        self.lifespans: list[Lifespan] = []
        self._living: list[Lifespan] = []
        self.failure: ApplicationFailed | None = None
        self.on_failure: Callable[[], object] = _nothing

    async def start(self) -> None:
        """Call the ``on_start`` functions, once, even if several tasks call this meanwhile.

        When all of these are cancelled, the start is, too, and what has started is stopped.

        Raises:
            ApplicationFailed: one of them has raised, which is the cause; or an ASGI application
                has failed to start.
        """
        if self._given_up is not None:
            await asyncio.wait((self._given_up,))
        if self.started:
            return
        if self._starting is None:
            self._starting = self.begin(self.run_starts())
        starting = self._starting
        self._awaiting += 1
        try:
            try:
                await asyncio.shield(starting)
            finally:
                self._awaiting -= 1
        except asyncio.CancelledError:
            if not (self._awaiting or starting.done()):
                self._starting, self._given_up = None, starting
                starting.cancel()
                await asyncio.wait((starting,))
                if not starting.cancelled() and starting.exception() is not None:
                    log.error("the start was stopped, and failed: %s", starting.exception())
            raise

    async def start_alone(self) -> None:
        """Call the ``on_start`` functions, for one that nobody else starts; as :meth:`start`.

        When this is cancelled, what has started is stopped, even if all of it has.
        """
        try:
            await self.start()
        except asyncio.CancelledError:
            await self.stop(cleanup_time.seconds)
            raise

    async def run_starts(self) -> None:
        """Call the ``on_start`` functions; one call of this at a time."""
        self._stops = list(_stops)
        for function in tuple(_starts):
            try:
                await self.call(function)
            except (Exception, SystemExit) as error:
                self._starting = None  # the next call tries again
                raise _failure(function, error) from error
        try:
            for each in self.lifespans:
                if await each.start(self._failed):
                    self._living.append(each)
            if self.failure is not None:
                raise self.failure
        except BaseException as error:
            await self._end(cleanup_time.seconds)
            self._starting = self.failure = None
            if isinstance(error, LifespanFailed):
                raise ApplicationFailed(str(error)) from error.__cause__
            raise
        self.started = True

    def _failed(self, failed: LifespanFailed) -> None:
        """Called when an ASGI application that has started cannot go on."""
        if self.failure is None:
            self.failure = ApplicationFailed(str(failed))
            if self.started:
                self.on_failure()

    async def stop(self, seconds: float) -> None:
        """Call the ``on_stop`` functions, once, if the ``on_start`` functions have been called.

        Args:
            seconds: how long they have, all together; each has a moment in any case.
        """
        if self.started:
            self.started = False
            await self._end(seconds)

    async def _end(self, seconds: float) -> None:
        """Let the ASGI applications stop, then call the ``on_stop`` functions."""
        deadline = monotonic() + seconds
        while self._living:
            await self._living.pop().stop(max(deadline - monotonic(), self.moment))
        while self._stops:
            function = self._stops.pop()
            call = self.begin(self._stop(function))
            await self.wait(call, max(deadline - monotonic(), self.moment))
            if not call.done():
                call.cancel()
                log.error("%s, registered with on_stop, has not ended in time", name_of(function))

    async def _stop(self, function: Callable[..., Any]) -> None:
        try:
            await self.call(function)
        except (Exception, SystemExit):
            log.exception("%s, registered with on_stop, failed", name_of(function))

    async def call(self, function: Callable[..., Any]) -> None:
        """Call a function, and return when it has ended."""
        arguments = _arguments(function, self.state)
        if inspect.iscoroutinefunction(function):
            result = function(*arguments)
        else:
            result = await self.in_thread(function, *arguments)
        if inspect.isawaitable(result):
            await result

    # What asyncio's loops do in this way, and another host's in its own -------------------------

    def begin(self, coro: Coroutine[Any, Any, None]) -> Any:
        """Make a task, in the context that all functions share."""
        return asyncio.get_running_loop().create_task(coro, context=self.context)

    async def wait(self, task: Any, seconds: float) -> None:
        """Return when a task is done, or at the time-out, also if it swallows a cancellation."""
        await asyncio.wait([task], timeout=seconds)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that may block."""
        return await asyncio.wrap_future(in_thread(function, *args))

    # On a host's thread -------------------------------------------------------------------------

    def start_here(self) -> None:
        """Call the ``on_start`` functions on this thread, which blocks; as ``start``, once."""
        self._stops = list(_stops)
        for function in tuple(_starts):
            try:
                _call_here(function, self.state)
            except (Exception, SystemExit) as error:
                raise _failure(function, error) from error
        self.started = True

    def stop_here(self) -> None:
        """Call the ``on_stop`` functions on this thread, which blocks."""
        while self.started and self._stops:
            function = self._stops.pop()
            try:
                _call_here(function, self.state)
            except (Exception, SystemExit):
                log.exception("%s, registered with on_stop, failed", name_of(function))


def _nothing() -> None:
    pass


def _failure(function: Callable[..., Any], error: BaseException) -> ApplicationFailed:
    kind = type(error).__name__
    return ApplicationFailed(
        f"{name_of(function)}, registered with on_start, failed: {kind}: {error}"
    )


def _arguments(function: Callable[..., Any], state: State) -> list[State]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [state] if any(p.kind in kinds and p.default is p.empty for p in parameters) else []


def _call_here(function: Callable[..., Any], state: State) -> None:
    result = function(*_arguments(function, state))
    if inspect.isawaitable(result):
        wait(result)
