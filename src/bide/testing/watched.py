"""Calls of a test's client: what their applications raise is raised in the test."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from bide.asgi.call import Site
from bide.asgi.departures import is_departure
from bide.asgi.http import HTTPCall
from bide.asgi.messages import Scope
from bide.asgi.websocket import WebSocketCall
from bide.errors import Cancelled, LocalProtocolError
from bide.exchange.messaging import Messaging
from bide.exchange.stream import CUT, ENDED, SWITCHED, Stream
from bide.serving.loggers import log
from bide.waiting.times import Times
from bide.wsgi.conversation import Conversation

_OWN: Final = str(Path(__file__).parent.parent)


class Errors(Protocol):
    """Where the errors of a call go: to its test.

    Attributes:
        raises: whether an error of the application is raised in the test.
        error: that error; set on the call's thread.
    """

    raises: bool
    error: BaseException | None


class Watched(Conversation):
    """A conversation whose errors are raised in the test."""

    __slots__ = ("_errors",)

    def __init__(self, errors: Errors, *args: Any) -> None:
        super().__init__(*args)
        self._errors = errors

    def failed(self, error: BaseException) -> None:
        """Keep what the application raised, for the test; or log it, and answer as a server."""
        if not self._errors.raises:
            super().failed(error)
            return
        closing, self._errors.error = self._errors.error, error
        if closing is not None:  # one can be raised, and this came first
            log.error("the application failed in close(): %s", self.describe(), exc_info=closing)
        self.stream.cut()

    def close(self, close: Callable[[], object]) -> None:
        """Call the iterable's ``close``; its error is raised in the test, too."""
        if not self._errors.raises:
            super().close(close)
            return
        try:
            close()
        except Cancelled:
            pass  # as it is there
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            self._errors.error = error

    def activity(self) -> str:
        """Return a sentence on what it waits for; from any thread, so a moment old."""
        wait = self.times.spent[2]
        if wait is None:
            return ""
        if wait.for_client and self.stream.behind:
            return "it waits for its client to take what it has sent"
        frame = getattr(wait.parked, "gr_frame", None)
        frames = traceback.extract_stack(frame) if frame is not None else []
        return _waits(frames) or "it waits for a promise that it has yielded"


class WatchedTask(HTTPCall):
    """An ASGI call whose errors are raised in the test."""

    def __init__(self, errors: Errors, *args: Any) -> None:
        super().__init__(*args)
        self._errors = errors
        self._running: asyncio.Task[Any] | None = None

    def scope(self) -> Scope:
        """Return what the application is told; called in its task."""
        self._running = asyncio.current_task()
        return super().scope()

    def returned(self) -> None:
        """Check that the response is complete."""
        over = self.stream.state in (ENDED, CUT, SWITCHED) or self.left or self.cancellation
        if self._errors.raises and not over:
            raise LocalProtocolError("the application has returned before its response's end")
        super().returned()

    def failed(self, error: BaseException) -> None:
        """Keep what the application raised, for the test; or log it, and answer as a server."""
        if not self._errors.raises or self.expects(error):
            super().failed(error)
            return
        self._errors.error = error
        self.stream.cut()

    def expects(self, error: BaseException) -> bool:
        """Whether an error says only that the request has been ended."""
        cancelled = isinstance(error, asyncio.CancelledError) and self.cancellation is not None
        return cancelled or is_departure(error)

    def activity(self) -> str:
        """Return a sentence on what it awaits; from any thread, so a moment old."""
        task = self._running
        if task is None or self.awaited is None:
            return ""
        wait = self.times.spent[2]
        if wait is not None and wait.for_client:
            return "it waits for its client"
        frames: list[FrameType] = []
        coroutine: Any = task.get_coro()
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None)
            if frame is not None:
                frames.append(frame)
            coroutine = getattr(coroutine, "cr_await", None)
        walked = ((each, each.f_lineno) for each in frames)
        return _waits(list(traceback.StackSummary.extract(walked))) or f"it waits: {self.awaited!r}"


class WatchedSocket(WatchedTask, WebSocketCall):
    """An ASGI call of a WebSocket, whose errors are raised in the test."""

    def __init__(
        self, errors: Errors, site: Site, stream: Stream, times: Times, messaging: Messaging
    ) -> None:
        super().__init__(errors, site, stream, times, messaging)
        self._socket = messaging

    def expects(self, error: BaseException) -> bool:
        """Whether an error says only that the request, or the WebSocket, has ended."""
        over = self.left or self._socket.over is not None
        return super().expects(error) or (over and is_departure(error, told=True))


def _waits(frames: list[traceback.FrameSummary]) -> str:
    """Return the application's frames as text; empty where there is none."""
    own = [each for each in frames if not each.filename.startswith(_OWN)]
    if not own:
        return ""
    return f"it waits:\n{''.join(traceback.format_list(own[-12:])).rstrip()}"
