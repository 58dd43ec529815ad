"""A request of an ASGI server: its scope, its conversation, and its response as messages.

The loop and a request's conversation share its channel and its ``Body``. All else here happens on
the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from greenlet import getcurrent

from bide.errors import BideError, ClientDisconnected
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.stream import ENDED, Stream
from bide.hosts.channel import HostChannel, Part
from bide.serving.dispatcher import Dispatcher
from bide.settings import DEFAULTS
from bide.waiting.cleanups import cleanup_time
from bide.wsgi.conversation import Conversation

Scope = MutableMapping[str, Any]  # as Starlette and asgiref type them
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of a request's body that wait for the application before the server is asked for more."""

_SCHEMES: Final = {"ws": "http", "wss": "https"}
"""``wsgi.url_scheme`` of a WebSocket's."""


class ResponseCut(BideError):  # noqa: N818 - says what happened
    """The application has failed after its response had begun; the server must not complete it."""


class InContext(Conversation):
    """A conversation that runs in its host's context, with the variables that middleware set."""

    __slots__ = ("_context",)

    def __init__(self, context: contextvars.Context, *args: Any) -> None:
        super().__init__(*args)
        self._context = context

    def run(self) -> None:
        """Call the application in that context."""
        getcurrent().gr_context = self._context
        super().run()


class Exchange:
    """One HTTP request; on the loop, except for what the conversation calls.

    A WebSocket's request is another kind: :mod:`bide.hosts.asgi_websockets`.

    Attributes:
        loop: the server's.
        stream: the request and its response.
        channel: the way of the response to the server.
        send: sends the server a message.
        something: set when there is something to be sent.
        room: set when there may be room for more of what the client sends.
        left: whether nothing can be sent any more.
    """

    KIND = "http.response"
    """What the names of the response's messages begin with."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: Request,
        scope: Scope,
        receive: Receive,
        send: Send,
        window: int = WINDOW,
    ) -> None:
        self._dispatcher = dispatcher
        self._scope = scope
        self._receive = receive
        self.send = send
        self.loop = asyncio.get_running_loop()
        self.something = asyncio.Event()  # to be sent
        self.room = asyncio.Event()  # for more of what the client sends
        self._ended = asyncio.Event()  # the conversation
        scheme: str = scope.get("scheme", "http")
        peer = Peer(
            _SCHEMES.get(scheme, scheme),
            _address(scope.get("server")),
            _address(scope.get("client")),
        )
        self.channel = HostChannel(peer, self.ready, room_again=self.room_again)
        self.stream = Stream(request, self.channel, window)
        self._conversation: Conversation | None = None
        self.left = False
        self._failure: Exception | None = None  # the server's, when it was asked for a message

    async def run(self) -> None:
        """Run the application, and send its response.

        Raises:
            ResponseCut: the response is not complete.
        """
        first = None
        if not self.begins_at_once():
            first = await self._receive()
            if first["type"] in ("http.disconnect", "websocket.disconnect"):
                return
        # Not in this task's own step: on the loop the application would run as if it were the task.
        # But with what the middleware above has put into the context.
        self.loop.call_soon(self._begin, contextvars.copy_context(), context=contextvars.Context())
        feeding = self.loop.create_task(self._feed(first))
        try:
            await self.respond()
            feeding.cancel()  # a client that leaves while close() runs misses nothing
            await self._ended.wait()
        except asyncio.CancelledError:
            self.leave("the server has cancelled the request")
            self._cancel("the server has cancelled the request")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(cleanup_time.seconds):
                    await self._ended.wait()
            raise
        except OSError:  # what ASGI servers raise when the client has left, or a raw error
            self.leave("the client has left")
            await self._ended.wait()
        except BaseException:
            self.leave("the server takes no more")
            raise
        finally:
            if not self.loop.is_closed():  # as it is for a task that is thrown away
                feeding.cancel()
        if self._failure is not None:
            raise self._failure

    def begins_at_once(self) -> bool:
        """Whether the application begins before anything is received.

        It does where the head announces a body (RFC 9112 section 6.3; HTTP/2 need not). An empty
        body is there already. So a coroutine, which cannot wait for it, can read to its end.
        """
        names = {name.lower() for name, _ in self.stream.request.headers}
        if b"content-length" in names or b"transfer-encoding" in names:
            return True
        request = self.stream.request
        return not request.version.startswith("1") and request.method not in ("GET", "HEAD")

    def _begin(self, context: contextvars.Context) -> None:
        more = {"asgi.scope": self._scope, **self.environ()}
        self._conversation = self._dispatcher.begin(
            self.stream, more, partial(InContext, context), self._over
        )
        self._dispatcher.run(self._conversation)

    def environ(self) -> dict[str, Any]:
        """Return what the environ has beside the scope."""
        return {}

    # From any thread ----------------------------------------------------------------------------

    def ready(self) -> None:
        """Called when there is something to be sent."""
        self._soon(self.something.set)

    def room_again(self) -> None:
        """Called when there is room again for what the client sends."""
        self._soon(self.room.set)

    def _over(self) -> None:
        self._soon(self._ended.set)

    def _soon(self, function: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed, so the client has left
            self.stream.gone = True
            self.channel.close()

    # On the loop --------------------------------------------------------------------------------

    async def respond(self) -> None:
        """Send the response; return when it has ended, or nobody takes it."""
        over = False
        while not over:
            await self.something.wait()
            self.something.clear()
            over = await self.send_what_is_there()

    async def send_what_is_there(self) -> bool:
        """Send what can be sent now; return whether that is the end."""
        part = self.channel.take()
        return part is not None and await self.send_part(part)

    async def send_part(self, part: Part) -> bool:
        """Send some of the response; return whether that is the end.

        Raises:
            ResponseCut: the response will not be complete.
        """
        if self.left:
            return part.ended or part.cut
        kind = self.KIND
        if part.head is not None:
            await self.send(start_message(kind, part.head, part.length))
        body = f"{kind}.body"
        for number, block in enumerate(part.blocks, 1):
            more = not part.ended or number < len(part.blocks)
            await self.send({"type": body, "body": block, "more_body": more})
        self.channel.sent(part.blocks)
        if part.ended and not part.blocks:
            await self.send({"type": body, "body": b""})
        if part.cut and not self.left:
            raise ResponseCut("the application has given its response up")
        return part.ended or part.cut

    async def _feed(self, first: Message | None) -> None:
        """Receive what the client sends, as the application takes it, and notice when it leaves."""
        message = first
        try:
            while await self.take(await self._receive() if message is None else message):
                message = None
        except OSError:
            self.leave("the client has left")
        except Exception as error:  # noqa: BLE001 - the request's task raises it
            self._failure = error
            self.leave("the server has failed")

    async def take(self, message: Message) -> bool:
        """Take a message, and wait until there is room for more; return whether to ask for it."""
        body = self.stream.body
        if message["type"] == "http.disconnect":
            self.leave("the client has left")
            return False
        if body.complete:
            return False  # there is no more of it (ASGI, HTTP); asking on could go on for ever
        block = message.get("body", b"")
        if block:
            body.feed(block)
        if not message.get("more_body", False):
            body.finish()
        self.room.clear()
        while not body.complete and body.must_pause():
            await self.room.wait()
            self.room.clear()
        return True

    def leave(self, reason: str) -> None:
        """Called when the response can no longer be sent."""
        self.left = True
        complete = self.stream.state == ENDED
        self.channel.lose(self.stream, reason)
        if not complete:  # else close() may take its time
            self._cancel(reason)

    def _cancel(self, reason: str) -> None:
        if self._conversation is not None:
            self._conversation.cancel(ClientDisconnected(reason))


def request_of(scope: Scope) -> Request:
    """Return the request of an ASGI scope."""
    text: str = scope["path"]
    raw: bytes = scope.get("raw_path") or quote(text, safe="/*", errors="surrogateescape").encode()
    raw = raw.partition(b"?")[0]
    query = scope.get("query_string", b"")
    request = Request(
        scope.get("method", "GET"),  # a WebSocket has none
        raw + b"?" + query if query else raw,
        raw,
        query,
        scope.get("http_version", "1.1"),
        [(bytes(name), bytes(value)) for name, value in scope["headers"]],
    )
    request.has_body = scope["type"] == "http"  # not known before the first message
    # The server has decoded the path, and lost what is not UTF-8. Middleware may have changed it.
    if request.path.decode("utf-8", "replace") != text and raw != b"*":
        request.path = text.encode("utf-8", "surrogateescape")
    # ASGI 3 has the root in the path; older servers and frameworks, and proxies, take it away.
    root = scope.get("root_path", "").encode("utf-8", "surrogateescape").rstrip(b"/")
    if not request.mount(root):
        request.root = root
    return request


def _address(address: Any) -> tuple[str, int] | None:
    """Return host and port; None where it is a Unix socket, or not known."""
    if not address or address[1] is None:
        return None
    return (str(address[0]), int(address[1]))


def start_message(kind: str, head: Head, length: int | None) -> Message:
    """Return the message with which a response of a kind begins."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.headers
    ]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return {"type": f"{kind}.start", "status": head.code, "headers": headers}
