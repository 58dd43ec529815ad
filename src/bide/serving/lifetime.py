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
from bide.capabilities import name_of
from bide.waiting.api import in_thread, wait

log = logging.getLogger("bide")

F = TypeVar("F", bound=Callable[..., Any])
State = dict[str, Any]

MOMENT: Final = 1.0
"""Seconds that each function for the stop has at least."""

_starts: list[Callable[..., Any]] = []
_stops: list[Callable[..., Any]] = []


def on_start(function: F) -> F:
    """Have a function called when a server starts, before it takes the first request.

    Those that are registered are called in turn. One that raises stops the start, and those for the
    stop are not called. A decorator, or an ordinary call.

    Args:
        function: plain, run in a thread, where it may block and :func:`wait`; or a coroutine
            function, run on the server's loop. It is called with the server's state, a dict, if it
            requires an argument, else with nothing.
    """
    _starts.append(function)
    return function


def on_stop(function: F) -> F:
    """Have a function called when a server stops, once the last request has ended.

    The last one that was registered is called first. What one raises is logged, and the others are
    called. All have what is left of ``graceful_timeout``, and at least ten seconds.

    Args:
        function: as for :func:`on_start`.
    """
    _stops.append(function)
    return function


class Lifetime:
    """One server's start and stop; on its loop, but for ``start_here`` and ``stop_here``.

    Attributes:
        state: what the functions make, for the application.
        started: whether all functions for the start have been called.
        moment: seconds that each function for the stop has at least.
        context: what coroutine functions run in.
    """

    def __init__(self) -> None:
        self.state: State = {}
        self.started = False
        self.moment = MOMENT
        self.context = copy_context()  # one for all of them
        self._starting: asyncio.Task[None] | None = None
        self._stops: list[Callable[..., Any]] = []

    async def start(self) -> None:
        """Call the functions for the start, once, whoever else asks meanwhile.

        Raises:
            ApplicationFailed: one of them has raised, which is the cause.
        """
        if self.started:
            return
        if self._starting is None:
            self._starting = self.begin(self.run_starts())
        await asyncio.shield(self._starting)

    async def run_starts(self) -> None:
        """Call the functions for the start; once at a time."""
        self._stops = list(_stops)
        for function in tuple(_starts):
            try:
                await self.call(function)
            except (Exception, SystemExit) as error:
                self._starting = None  # who asks again has it tried again
                raise _failure(function, error) from error
        self.started = True

    async def stop(self, seconds: float) -> None:
        """Call the functions for the stop, once, where those for the start have been called.

        Args:
            seconds: how long they have, all together; each has a moment in any case.
        """
        if not self.started:
            return
        self.started = False
        deadline = monotonic() + seconds
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
        """Call the functions for the start on this thread, which blocks; as ``start``, once."""
        self._stops = list(_stops)
        for function in tuple(_starts):
            try:
                _call_here(function, self.state)
            except (Exception, SystemExit) as error:
                raise _failure(function, error) from error
        self.started = True

    def stop_here(self) -> None:
        """Call the functions for the stop on this thread, which blocks."""
        while self.started and self._stops:
            function = self._stops.pop()
            try:
                _call_here(function, self.state)
            except (Exception, SystemExit):
                log.exception("%s, registered with on_stop, failed", name_of(function))


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
