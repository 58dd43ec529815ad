"""One request of a test's client, and its response, without a connection between.

The conversation runs as it does behind a socket: it waits for pieces of the body, and for a client
that is slower. The test's thread takes the response; the loop brings the body.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

from bide.errors import BideError, Cancelled
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.executors.monitor import stack_of
from bide.hosts.channel import HostChannel, Part
from bide.serving.dispatcher import Dispatcher
from bide.settings import DEFAULTS
from bide.testing.live import LoopThread
from bide.wsgi.conversation import Conversation

WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of a request's body that wait for the application."""
_OWN: Final = str(Path(__file__).parent.parent)


class Overdue(BideError, TimeoutError):  # noqa: N818 - says what happened
    """The application has not done in time what the test waits for; says what it does instead."""


class IncompleteResponse(BideError):  # noqa: N818 - says what happened
    """The response was cut: a client would have seen its connection broken off."""


class Watched(Conversation):
    """A conversation whose errors are the test's."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange, *args: Any) -> None:
        super().__init__(*args)
        self._exchange = exchange

    def failed(self, error: BaseException) -> None:
        """Keep what the application raised, for the test; or log it, and answer as a server."""
        if not self._exchange.raises:
            super().failed(error)
            return
        self._exchange.error = error
        self.stream.cut()

    def close(self, close: Callable[[], object]) -> None:
        """Call the iterable's ``close``, whose error is the test's, too."""
        if not self._exchange.raises:
            super().close(close)
            return
        try:
            close()
        except Cancelled:
            pass  # as it is there
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            if self._exchange.error is None:
                self._exchange.error = error


def _is_own(filename: str) -> bool:
    return filename.startswith(_OWN)


class Exchange:
    """One request on its way; made and used on the test's thread, but for what says otherwise.

    Attributes:
        stream: its two directions.
        raises: whether an error of the application is the test's.
        error: that error; by the conversation's thread.
        conversation: once it has begun; by the loop.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        thread: LoopThread,
        peer: Peer,
        request: Request,
        raises: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._thread = thread
        self._loop = thread.loop
        self.raises = raises
        self._something = threading.Event()
        self._channel = HostChannel(peer, self._something.set, room_again=self._room_again)
        self.stream = Stream(request, self._channel, WINDOW if request.has_body else 0)
        self.error: BaseException | None = None
        self.conversation: Conversation | None = None
        self.done = threading.Event()
        self.left = False
        self._upload_error: BaseException | None = None
        self._room = asyncio.Event()  # in the body's window; on the loop

    def start(self, more: Mapping[str, Any], body: bytes | Iterable[bytes] | None) -> None:
        """Have the conversation begin, and its body come."""
        # In a context of its own, as behind a socket.
        call = self._loop.call_soon_threadsafe
        call(self._begin, more, context=contextvars.Context())
        if isinstance(body, bytes):
            call(self.stream.body.feed, body)
            call(self.stream.body.finish)
        elif body is not None:
            threading.Thread(
                target=self._upload, args=(body,), name="bide-upload", daemon=True
            ).start()

    def _begin(self, more: Mapping[str, Any]) -> None:
        self.conversation = self._dispatcher.begin(
            self.stream, more, partial(Watched, self), self.ended
        )
        self._dispatcher.run(self.conversation)

    # From other threads -------------------------------------------------------------------------

    def _room_again(self) -> None:
        self._loop.call_soon_threadsafe(self._room.set)

    def ended(self) -> None:
        """Called when the conversation has ended; on its thread."""
        self.done.set()
        self._something.set()
        if not self._loop.is_closed():
            self._room_again()

    def _upload(self, pieces: Iterable[bytes]) -> None:
        body = self.stream.body
        try:
            for piece in pieces:
                if not isinstance(piece, bytes):
                    raise TypeError(f"a body's pieces are bytes, not {type(piece).__name__}")
                if not piece:
                    continue  # to the application it would be the end
                feeding = asyncio.run_coroutine_threadsafe(self._feed(piece), self._loop)
                if not feeding.result():
                    return
            self._loop.call_soon_threadsafe(body.finish)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            if self.done.is_set():
                return  # nobody waits for it, and the loop may have ended
            self._upload_error = error
            self.leave("the client has failed while it sent its body")
            self._something.set()

    async def _feed(self, piece: bytes) -> bool:
        body = self.stream.body
        body.feed(piece)
        self._room.clear()
        while not self.done.is_set() and not self.left and body.must_pause():
            await self._room.wait()
            self._room.clear()
        return not (self.done.is_set() or self.left)

    # The response -------------------------------------------------------------------------------

    def take(self, deadline: float, what: str) -> Part:
        """Wait for more of the response.

        Raises:
            Overdue: it has not come by then, in monotonic seconds; the client has left.
        """
        while True:
            self._something.clear()
            part = self._channel.take()
            if self._upload_error is not None:
                raise self._upload_error
            if part is not None:
                return part
            if not self._something.wait(max(0.0, deadline - monotonic())):
                overdue = self._overdue(what)
                self.leave("the test's client has waited for too long")
                raise overdue

    def sent(self, blocks: list[bytes]) -> None:
        """Called when the test has taken these."""
        self._channel.sent(blocks)

    def finish(self, deadline: float) -> None:
        """Wait for the conversation's end, and raise what the application has raised.

        Raises:
            Overdue: it has not ended by then.
        """
        if not self.done.wait(max(0.0, deadline - monotonic())):
            raise self._overdue("the end of its call")
        if self._upload_error is not None:
            raise self._upload_error
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: no cycle

    def _overdue(self, what: str) -> Overdue:
        conversation = self.conversation
        if conversation is None:
            frame = sys._current_frames().get(self._thread.ident)
            stack = "".join(traceback.format_stack(frame)[-12:]).rstrip()
            return Overdue(f"the event loop is blocked, and {what} does not come:\n{stack}")
        name = conversation.describe()
        doing = self._activity(conversation)
        return Overdue(f"{name}: {what} has not come in time; {doing}")

    def _activity(self, conversation: Conversation) -> str:
        """Return what the conversation does, for people; from any thread, and so a moment old."""
        stack = stack_of(conversation, self._dispatcher.executor.hubs)
        if stack:
            return f"its code runs:\n{stack}"
        wait = conversation.times.spent[2]
        if wait is None:
            status = self._dispatcher.status()
            return f"it has not begun: {status.threads_busy} threads are busy"
        if wait.for_client and conversation.stream.behind:
            return "it waits for its client to take what it has sent"
        frame = getattr(wait.parked, "gr_frame", None)
        frames = traceback.extract_stack(frame) if frame is not None else []
        lines = traceback.format_list([each for each in frames if not _is_own(each.filename)])
        if not lines:
            return "it waits for a promise that it has yielded"
        return f"it waits:\n{''.join(lines[-12:]).rstrip()}"

    def leave(self, reason: str = "the client has left") -> None:
        """Leave, as a client that closes its connection; from any thread."""
        if not self.left and not self.done.is_set():
            self.left = True
            self._loop.call_soon_threadsafe(self._leave, reason)

    def _leave(self, reason: str) -> None:
        gone = self._channel.lose(self.stream, reason)
        self._room.set()
        if self.conversation is not None:
            self.conversation.cancel(gone)
