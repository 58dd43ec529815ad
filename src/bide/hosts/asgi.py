"""A waiting WSGI application under an ASGI server (ASGI 3, HTTP), or mounted in its application.

Request and response stream both ways. A request that waits holds no thread; the others run on a few
threads of Bide's own, or on the server's event loop where the application says that it can.

What one request shares between the loop and its conversation is its channel and its ``Body``;
all else here happens on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from greenlet import getcurrent

from bide.applications.loading import check
from bide.capabilities import name_of
from bide.errors import BideError, ClientDisconnected, StartError
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.stream import ENDED, Stream
from bide.hosts.channel import HostChannel
from bide.serving.dispatcher import Dispatcher, hosted
from bide.settings import DEFAULTS, Settings
from bide.waiting.cleanups import cleanup_time
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application, Conversation

Scope = MutableMapping[str, Any]  # as Starlette and asgiref type them
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of a request's body that wait for the application; the server is asked for no more."""


_lent: Final[deque[asyncio.AbstractEventLoop]] = deque()
"""Loops that were lent for applications that have ended, to be taken back."""


class ResponseCut(BideError):  # noqa: N818 - says what happened
    """The application has failed after its response had begun; the server must not complete it."""


class ASGI:
    """An ASGI application that calls a WSGI application; see :func:`asgi`.

    Each event loop that calls it has threads of its own, started at first need.
    """

    def __init__(self, application: Application, settings: Settings) -> None:
        check(application, name_of(application))
        self.app = application
        self._settings = settings
        # A test's client may have a loop for each test. Single operations only, from any thread.
        self._dispatchers: dict[asyncio.AbstractEventLoop, Dispatcher] = {}
        weakref.finalize(self, _forget, self._dispatchers).atexit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope (ASGI 3); it ends when the application has, ``close()`` and all."""
        if scope["type"] == "http":
            dispatcher = self.dispatcher()
            if not dispatcher.lifetime.started:  # there was no lifespan, or it is on its way
                await dispatcher.lifetime.start()
            await _Exchange(dispatcher, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            # Before it was accepted: the server answers the handshake 403.
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"the ASGI server offers {scope['type']!r}: WSGI serves HTTP only")

    def dispatcher(self) -> Dispatcher:
        """Return the running loop's, made at first need."""
        loop = asyncio.get_running_loop()
        dispatcher = self._dispatchers.get(loop)
        if dispatcher is None:
            for other in list(self._dispatchers):
                if other.is_closed():
                    left = self._dispatchers.pop(other, None)
                    if left is not None:
                        background_loop.take_back(other)
                        left.abandon()
            while _lent:
                with contextlib.suppress(IndexError):  # another thread's loop has been quicker
                    background_loop.take_back(_lent.popleft())
            dispatcher = self._dispatchers[loop] = hosted(self.app, self._settings, loop)
            background_loop.lend(loop)
        return dispatcher

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.dispatcher().lifetime.start()
                except StartError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def stop(self) -> None:
        """End what runs on this loop; for those who mount this where no lifespan comes.

        What waits is cancelled, and has ten seconds to clean up; new requests are answered 503
        meanwhile, and begin anew afterwards.
        """
        loop = asyncio.get_running_loop()
        dispatcher = self._dispatchers.get(loop)
        if dispatcher is not None:
            await dispatcher.stop()
            if self._dispatchers.pop(loop, None) is not None:
                background_loop.take_back(loop)


def _forget(dispatchers: dict[asyncio.AbstractEventLoop, Dispatcher]) -> None:
    # In a destructor, anywhere: background_loop's lock may be held by this very thread.
    _lent.extend(dispatchers)
    for dispatcher in dispatchers.values():
        dispatcher.forget()


def asgi(
    application: Application,
    *,
    executor: str = DEFAULTS.executor,
    threads: int = DEFAULTS.threads,
    queue: int = DEFAULTS.queue,
    queue_timeout: float = DEFAULTS.queue_timeout,
) -> ASGI:
    """Make an ASGI application of a WSGI application, with everything that Bide lets it do.

    Args:
        application: the WSGI callable.
        executor: "auto", "loop" or "threads"; as ``--executor``.
        threads: threads that run the application at most; waiting takes none.
        queue: requests that may wait for a thread; more are answered 503.
        queue_timeout: seconds that they may wait.

    Raises:
        LoadError: it is no WSGI application.
        SettingError: an option with a value that it cannot have.
    """
    settings = Settings(
        executor=executor, threads=threads, queue=queue, queue_timeout=queue_timeout
    )
    return ASGI(application, settings)


class _InContext(Conversation):
    """A conversation that runs in a context of its host's, with what middleware has put there."""

    __slots__ = ("_context",)

    def __init__(self, context: contextvars.Context, *args: Any) -> None:
        super().__init__(*args)
        self._context = context

    def run(self) -> None:
        """Call the application in that context; the next one on this greenlet has another."""
        getcurrent().gr_context = self._context
        super().run()


class _Exchange:
    """One request; all of it on the loop, but for what is called from the conversation."""

    def __init__(self, dispatcher: Dispatcher, scope: Scope, receive: Receive, send: Send) -> None:
        self._dispatcher = dispatcher
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._something = asyncio.Event()  # to be sent
        self._room = asyncio.Event()  # in the body's window
        self._ended = asyncio.Event()  # the conversation
        peer = Peer(
            scope.get("scheme", "http"),
            _address(scope.get("server")),
            _address(scope.get("client")),
        )
        self._channel = HostChannel(peer, self._ready, room_again=self._room_again)
        self._stream = Stream(_request(scope), self._channel, WINDOW)
        self._conversation: Conversation | None = None
        self._left = False
        self._failure: Exception | None = None  # the server's, when it was asked for a message

    async def run(self) -> None:
        """Run the application, and send what it gives.

        Raises:
            ResponseCut: the response is not complete.
        """
        first = None
        if not self._announced():
            # It is there already. So a coroutine, which cannot wait for it, finds its end, too.
            first = await self._receive()
            if first["type"] == "http.disconnect":
                return
        # Not in this task's own step: on the loop the application would run as if it were the task.
        # But with what the middleware above has put into the context.
        self._loop.call_soon(self._begin, contextvars.copy_context(), context=contextvars.Context())
        feeding = self._loop.create_task(self._feed(first))
        try:
            await self._respond()
            feeding.cancel()  # a client that leaves while close() runs misses nothing
            await self._ended.wait()
        except asyncio.CancelledError:
            self._leave("the server has cancelled the request")
            self._cancel("the server has cancelled the request")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(cleanup_time.seconds):
                    await self._ended.wait()
            raise
        except OSError:  # an ASGI server's word for a client that has left, or a raw one
            self._leave("the client has left")
            await self._ended.wait()
        except BaseException:
            self._leave("the server takes no more")
            raise
        finally:
            if not self._loop.is_closed():  # as it is for a task that is thrown away
                feeding.cancel()
        if self._failure is not None:
            raise self._failure

    def _announced(self) -> bool:
        """Whether the head announces a body (RFC 9112 section 6.3; HTTP/2 need not)."""
        names = {name.lower() for name, _ in self._stream.request.headers}
        if b"content-length" in names or b"transfer-encoding" in names:
            return True
        request = self._stream.request
        return not request.version.startswith("1") and request.method not in ("GET", "HEAD")

    def _begin(self, context: contextvars.Context) -> None:
        self._conversation = self._dispatcher.begin(
            self._stream, {"asgi.scope": self._scope}, partial(_InContext, context), self._over
        )
        self._dispatcher.run(self._conversation)

    # From any thread ----------------------------------------------------------------------------

    def _ready(self) -> None:
        self._soon(self._something.set)

    def _room_again(self) -> None:
        self._soon(self._room.set)

    def _over(self) -> None:
        self._soon(self._ended.set)

    def _soon(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: there is no client any more
            self._stream.gone = True
            self._channel.close()

    # On the loop --------------------------------------------------------------------------------

    async def _respond(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            part = self._channel.take()
            if part is None:
                continue
            nobody = self._left
            if nobody:
                if part.ended or part.cut:
                    return
                continue
            if part.head is not None:
                await self._send(_start(part.head, part.length))
            for number, block in enumerate(part.blocks, 1):
                more = not part.ended or number < len(part.blocks)
                await self._send({"type": "http.response.body", "body": block, "more_body": more})
            self._channel.sent(part.blocks)
            if part.ended:
                if not part.blocks:
                    await self._send({"type": "http.response.body", "body": b""})
                return
            if part.cut:
                if self._left:
                    return
                raise ResponseCut("the application has given its response up")

    async def _feed(self, first: Message | None) -> None:
        """Bring the body as the application reads it, and learn when the client leaves."""
        body = self._stream.body
        message = first
        try:
            while True:
                if message is None:
                    message = await self._receive()
                if message["type"] == "http.disconnect":
                    self._leave("the client has left")
                    return
                if body.complete:
                    return  # there is no more of it (ASGI, HTTP); asking on could go on for ever
                block = message.get("body", b"")
                if block:
                    body.feed(block)
                if not message.get("more_body", False):
                    body.finish()
                message = None
                self._room.clear()
                while not body.complete and body.must_pause():
                    await self._room.wait()
                    self._room.clear()
        except OSError:
            self._leave("the client has left")
        except Exception as error:  # noqa: BLE001 - the request's task raises it
            self._failure = error
            self._leave("the server has failed")

    def _leave(self, reason: str) -> None:
        """Called when nobody takes the response any more."""
        self._left = True
        complete = self._stream.state == ENDED
        self._channel.lose(self._stream, reason)
        if not complete:  # else close() may take its time
            self._cancel(reason)

    def _cancel(self, reason: str) -> None:
        if self._conversation is not None:
            self._conversation.cancel(ClientDisconnected(reason))


def _request(scope: Scope) -> Request:
    """Return what a stream has to know of a request."""
    text: str = scope["path"]
    raw: bytes = scope.get("raw_path") or quote(text, safe="/*", errors="surrogateescape").encode()
    raw = raw.partition(b"?")[0]
    query = scope.get("query_string", b"")
    request = Request(
        scope["method"],
        raw + b"?" + query if query else raw,
        raw,
        query,
        scope.get("http_version", "1.1"),
        [(bytes(name), bytes(value)) for name, value in scope["headers"]],
    )
    request.has_body = True  # there is no telling: the first message says
    # What is no UTF-8 has been lost where the server decoded. Middleware may have changed the path.
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


def _start(head: Head, length: int | None) -> Message:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.headers
    ]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return {"type": "http.response.start", "status": head.code, "headers": headers}
