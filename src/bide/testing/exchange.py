"""One request of a test client, and its response, without a connection in between.

The conversation runs as it does behind a socket: it waits for pieces of the body, and for a slower
client. The test's thread takes the response; the loop feeds the body.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final

from bide.errors import BideError
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.executors.monitor import stack_of
from bide.hosts.channel import HostChannel, Part
from bide.serving.dispatcher import Dispatcher
from bide.serving.dispatchers import Dispatchers
from bide.settings import DEFAULTS
from bide.testing.live import LoopThread
from bide.testing.watched import Watched, WatchedTask

WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of a request's body that wait for the application."""


class Overdue(BideError, TimeoutError):  # noqa: N818 - says what happened
    """The application has not answered in time. The message says what it is doing."""


class IncompleteResponse(BideError):  # noqa: N818 - says what happened
    """The response was cut: a real client would have seen its connection break."""


class Exchange:
    """One request on its way; made and used on the test's thread, except where noted.

    Attributes:
        stream: the request and its response.
        raises: whether an error of the application is raised in the test.
        error: that error; set on the call's thread.
        call: the call of the application, once it has begun; set on the loop.
        channel: the way of the response to the test.
        something: set when there may be something for the test; from any thread.
    """

    def __init__(
        self,
        dispatchers: Dispatchers,
        thread: LoopThread,
        peer: Peer,
        request: Request,
        raises: bool,
    ) -> None:
        self._dispatchers = dispatchers
        self._thread = thread
        self._loop = thread.loop
        self.raises = raises
        self.something = threading.Event()
        self.channel = HostChannel(peer, self.something.set, room_again=self._room_again)
        self.stream = Stream(request, self.channel, WINDOW if request.has_body else 0)
        self.error: BaseException | None = None
        self.call: Watched | WatchedTask | None = None
        self.done = threading.Event()
        self.left = False
        self._upload_error: BaseException | None = None
        self._room = asyncio.Event()  # in the body's window; on the loop

    def start(self, more: Mapping[str, Any], body: bytes | Iterable[bytes] | None) -> None:
        """Start the conversation and the upload of its body."""
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
        dispatcher = self._dispatchers.find(self.stream.request)
        self.call = dispatcher.begin(
            self.stream, {**more, **self.environ()}, self.maker(dispatcher), self.ended
        )
        dispatcher.run(self.call)

    def maker(self, dispatcher: Dispatcher) -> Callable[..., Watched | WatchedTask]:
        """Return what makes the call."""
        return partial(Watched if dispatcher.interface == "wsgi" else WatchedTask, self)

    def environ(self) -> dict[str, Any]:
        """Return what this kind of request adds to an environ."""
        return {}

    # From other threads -------------------------------------------------------------------------

    def _room_again(self) -> None:
        self._loop.call_soon_threadsafe(self._room.set)

    def ended(self) -> None:
        """Called when the conversation has ended; on its thread."""
        self.done.set()
        self.something.set()
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
                return  # no thread waits for it, and the loop may have ended
            self._upload_error = error
            self.leave("the client has failed while it sent its body")
            self.something.set()

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
            Overdue: it has not come by ``deadline``, in monotonic seconds; the client has left.
        """
        part: Part = self.await_something(self.channel.take, deadline, what)
        return part

    def await_something(
        self, look: Callable[[], Any], deadline: float, what: str, stays: bool = False
    ) -> Any:
        """Wait until there is something; as ``take``, unless the client ``stays``."""
        while True:
            self.something.clear()
            found = look()
            if self._upload_error is not None:
                raise self._upload_error
            if found is not None:
                return found
            if not self.something.wait(max(0.0, deadline - monotonic())):
                overdue = self.overdue(what)
                if not stays:
                    self.leave("the test's client has waited for too long")
                raise overdue

    def sent(self, blocks: list[bytes]) -> None:
        """Called when the test has taken these blocks."""
        self.channel.sent(blocks)

    def finish(self, deadline: float) -> None:
        """Wait for the conversation's end, and raise what the application has raised.

        Raises:
            Overdue: it has not ended by ``deadline``, in monotonic seconds.
        """
        if not self.done.wait(max(0.0, deadline - monotonic())):
            raise self.overdue("the end of its call")
        if self._upload_error is not None:
            raise self._upload_error
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what the application has raised, if it has, and nobody was told."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: no cycle

    def overdue(self, what: str) -> Overdue:
        """Return the error that says what the application does in place of what is waited for."""
        call = self.call
        if call is not None:
            activity = self._activity(call)
            if activity:
                return Overdue(f"{call.describe()}: {what} has not come in time; {activity}")
        frame = sys._current_frames().get(self._thread.ident)
        stack = "".join(traceback.format_stack(frame)[-12:]).rstrip()
        return Overdue(f"the event loop is blocked, and {what} does not come:\n{stack}")

    def _activity(self, call: Watched | WatchedTask) -> str:
        """Return a sentence on what the application does; from any thread, so a moment old."""
        dispatcher = call.begun_by
        stack = stack_of(call, dispatcher.executor.hubs)
        if stack:
            return f"its code runs:\n{stack}"
        activity = call.activity()
        if activity or isinstance(call, WatchedTask):
            return activity
        return f"it has not begun: {dispatcher.status().threads_busy} threads are busy"

    def leave(self, reason: str = "the client has left") -> None:
        """Act as a client that closes its connection; from any thread."""
        if not self.left and not self.done.is_set():
            self.left = True
            self.call_soon(self.act_on_leaving, reason)

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop; from any thread."""
        self._loop.call_soon_threadsafe(function, *args)

    def act_on_leaving(self, reason: str) -> None:
        """Called when the client has left; on the loop."""
        gone = self.channel.lose(self.stream, reason)
        self._room.set()
        if self.call is not None:
            self.call.cancel(gone)
