"""An ASGI application's lifespan: its start and its end, in one task of the event loop.

The application may not know it: an exception before its first ``receive`` says so.
Everything is called on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from bide.asgi.messages import Application, Message
from bide.errors import StartError

log = logging.getLogger("bide")

SECONDS: Final = 60.0
"""What an application has to start."""
MOMENT: Final = 1.0
"""Seconds that a task has to end, after it has said that it has failed."""

_SCOPE: Final = {"version": "3.0", "spec_version": "2.0"}


class LifespanFailed(StartError):  # noqa: N818 - says what happened
    """The application has not started, or cannot go on; ``__cause__`` is what it raised, if any."""


class Lifespan:
    """One application's lifespan.

    Args:
        application: the ASGI callable.
        name: what it is called in the log.
        state: what it may add to; the scopes of requests have copies.
        context: the context that its task runs in.
        must: whether it must know lifespans; else it may.
        seconds: how long it may take to start.
    """

    def __init__(
        self,
        application: Application,
        name: str,
        state: dict[str, Any],
        context: Context,
        must: bool = False,
        seconds: float = SECONDS,
    ) -> None:
        self._application = application
        self._name = name
        self._state = state
        self._context = context
        self._must = must
        self._seconds = seconds
        self._received: bool  # whether it has asked for an event
        self._events: asyncio.Queue[Message]
        self._answer: asyncio.Future[Message]
        self._task: asyncio.Task[None]
        self._stopping: bool
        self._failed: Callable[[LifespanFailed], object]
        self._told: bool  # that it has ended, or cannot go on
        self._exit: BaseException | None  # what would end the event loop, were it raised

    async def start(self, failed: Callable[[LifespanFailed], object]) -> bool:
        """Let the application start; return whether it knows lifespans.

        Args:
            failed: called when it cannot go on, once it has started: its lifespan has raised, or
                has sent ``lifespan.shutdown.failed``. That is in the log then.

        Raises:
            LifespanFailed: it has failed; its task has ended.
        """
        self._received = self._stopping = self._told = False
        self._events, self._exit = asyncio.Queue(), None
        self._failed = failed
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._task = asyncio.Task(self._live(), loop=loop, context=self._context)
        self._events.put_nowait({"type": "lifespan.startup"})
        try:
            await asyncio.wait(
                (self._task, self._answer),
                timeout=self._seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            return await self._started()
        except BaseException:
            self._task.cancel()
            raise

    async def _started(self) -> bool:
        if self._answer.done():
            message = self._answer.result()
            if message["type"] == "lifespan.startup.complete":
                self._task.add_done_callback(self._ended)
                return True
            await asyncio.wait((self._task,), timeout=MOMENT)  # it may raise what it has caught
            error = self._error()
            raise LifespanFailed(self._says(error, _line(message))) from error
        if not self._task.done():
            raise LifespanFailed(f"{self._name} has not started within {self._seconds:g} s")
        error = self._error()
        if self._received or self._must:
            raise LifespanFailed(
                self._says(error, "its lifespan has ended before it has answered lifespan.startup")
            ) from error
        if error is not None:
            log.debug("%s does not support lifespans: %r", self._name, error)
        return False

    def _says(
        self, error: BaseException | None, said: str, what: str = "has failed to start"
    ) -> str:
        if error is not None:
            said = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{self._name} {what}{': ' if said else ''}{said}"

    def _error(self) -> BaseException | None:
        """Return what the task has raised."""
        if not self._task.done():
            return None
        if self._task.cancelled():
            return asyncio.CancelledError()
        error = self._exit or self._task.exception()
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # of a task group, whose own text says nothing
        return error

    async def stop(self, seconds: float) -> None:
        """Let the application stop, for so many seconds; an error is logged.

        Only after a ``start`` that has returned true.
        """
        if self._task.done():
            self._ended(None)  # which the loop may not have called yet
            self._stopping = True
            return
        self._stopping = True
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait(
            (self._task, self._answer), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        answer = self._answer.result() if self._answer.done() else None
        if answer is not None:
            await asyncio.wait((self._task,), timeout=MOMENT)  # it may raise what it has caught
        elif not self._task.done():
            log.error("%s has not stopped in time: its lifespan is cancelled", self._name)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=MOMENT)
            return
        error = self._error()
        if error is not None:
            log.error("%s has failed to stop", self._name, exc_info=error)
        elif answer is not None and answer["type"] == "lifespan.shutdown.failed":
            log.error("%s has failed to stop: %s", self._name, answer["message"])

    def _ended(self, _: object) -> None:
        """Called when the task has ended; also while the server serves."""
        error = self._error()
        if self._stopping or self._told:
            return
        if error is None:  # some applications do so as soon as they have started
            self._told = True
            log.warning("the lifespan of %s has ended, while it serves", self._name)
        else:
            self._tell(error, "")

    @property
    def _serves(self) -> bool:
        """Whether it has started, and is not asked to stop."""
        if self._stopping or not self._answer.done():
            return False
        return bool(self._answer.result()["type"] == "lifespan.startup.complete")

    def _tell(self, error: BaseException | None, said: str) -> None:
        """Called when the application cannot go on."""
        failed = LifespanFailed(self._says(error, said, "has failed while it served"))
        log.error("%s", failed, exc_info=error)
        self._told = True
        self._failed(failed)

    # The application's ---------------------------------------------------------------------------

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": _SCOPE.copy(), "state": self._state}
        try:
            await self._application(scope, self._receive, self._send)
        except (SystemExit, KeyboardInterrupt) as error:
            self._exit = error

    async def _receive(self) -> Message:
        self._received = True
        return await self._events.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.shutdown.failed" and self._serves:
            if not self._told:
                self._tell(None, _line(message))
            return
        phase = "lifespan.shutdown" if self._stopping else "lifespan.startup"
        if kind not in (f"{phase}.complete", f"{phase}.failed"):
            raise RuntimeError(f"{kind!r} was sent, and {phase} has been asked")
        if self._answer.done():
            raise RuntimeError(f"{phase} was answered already")
        self._answer.set_result({"message": "", **message})


def _line(message: Message) -> str:
    """Return what a message says, as one line."""
    return " ".join(str(message.get("message", "")).split())
