"""``on_start`` and ``on_stop`` functions on a reactor that is not asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from bide.serving.lifetime import Lifetime
from bide.waiting.api import in_thread


class ReactorLifetime(Lifetime):
    """A server's start and stop; on the reactor's thread, one call at a time.

    Coroutine functions run as Twisted runs them, and may await ``Deferred`` objects.

    Args:
        loop: the reactor's, a :class:`bide.hosts.twisted.reactor.ReactorLoop`.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self._loop = loop

    async def start(self) -> None:
        """Call the ``on_start`` functions, once.

        Raises:
            ApplicationFailed: one of them has raised, which is the cause.
        """
        if not self.started:
            task = self.begin(self.run_starts())
            await _done(task)
            task.result()

    async def call(self, function: Callable[..., Any]) -> None:
        """Call a function, and return when it has ended."""
        try:
            await super().call(function)
        except CancelledError as error:  # an Exception, which would be logged as a failure
            raise asyncio.CancelledError from error

    def begin(self, coro: Coroutine[Any, Any, None]) -> Any:
        """Make a task, in the context that all functions share."""
        return self._loop.create_task(self._keeping(coro), context=self.context)

    async def _keeping(self, coro: Coroutine[Any, Any, None]) -> None:
        try:
            await coro
        finally:
            self.context = copy_context()  # Twisted runs a coroutine in a copy

    async def wait(self, task: Any, seconds: float) -> None:
        """Return when a task is done, or at the time-out."""
        over: Deferred[None] = Deferred()
        timer = self._loop.call_later(seconds, _fire, over)
        task.add_done_callback(lambda _: _fire(over))
        await over
        timer.cancel()

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that may block."""
        call = in_thread(function, *args)
        over: Deferred[None] = Deferred()
        call.add_done_callback(lambda _: self._loop.call_soon_threadsafe(_fire, over))
        await over
        return call.result()


async def _done(task: Any) -> None:
    over: Deferred[None] = Deferred()
    task.add_done_callback(lambda _: _fire(over))
    await over


def _fire(deferred: Deferred[None]) -> None:
    if not deferred.called:
        deferred.callback(None)
