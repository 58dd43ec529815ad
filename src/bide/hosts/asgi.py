"""A waiting WSGI application under an ASGI server (ASGI 3, HTTP), or mounted in its application.

Request and response stream both ways. A request that waits holds no thread; the others run on a few
threads of Bide's own, or on the server's event loop where the application says that it can.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bide.conversation import Application, Conversation
from bide.errors import BideError, ClientDisconnected
from bide.hosts.outlet import Outlet, Part
from bide.hosts.runner import Runner
from bide.messages import Head, Request
from bide.stream import Stream

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

WINDOW: Final = 64 * 1024
"""Bytes of a request's body that wait for the application; the server is asked for no more."""


class ResponseCut(BideError):  # noqa: N818 - says what happened
    """The application has failed after its response had begun; the server must not complete it."""


class ASGI:
    """An ASGI application that calls a WSGI application; see :func:`asgi`."""

    def __init__(self, application: Application, **options: Any) -> None:
        self.app = application
        self._options = options
        # One for each loop that calls: a test's client may have one for each test.
        self._runners: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runner] = (
            weakref.WeakKeyDictionary()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope (ASGI 3)."""
        if scope["type"] == "http":
            await _Exchange(self.runner(), scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"the ASGI server offers {scope['type']!r}: WSGI serves HTTP only")

    def runner(self) -> Runner:
        """Give the running loop's, made at first need."""
        loop = asyncio.get_running_loop()
        runner = self._runners.get(loop)
        if runner is None:
            runner = self._runners[loop] = Runner(self.app, loop, **self._options)
        return runner

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.runner()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def stop(self) -> None:
        """End what runs on this loop; for those who mount this where no lifespan comes."""
        runner = self._runners.pop(asyncio.get_running_loop(), None)
        if runner is not None:
            await runner.stop()


def asgi(
    application: Application,
    *,
    executor: str = "auto",
    threads: int = 4,
    queue: int = 1000,
    queue_timeout: float = 30.0,
) -> ASGI:
    """Make an ASGI application of a WSGI application, with everything that Bide lets it do.

    Args:
        application: the WSGI callable.
        executor: "auto", "loop" or "threads"; as ``--executor``.
        threads: threads that run the application at most; waiting takes none.
        queue: requests that may wait for a thread; more are answered 503.
        queue_timeout: seconds that they may wait.

    Raises:
        LoadError: on the first request: it is no WSGI application.
    """
    return ASGI(
        application,
        executor=executor,
        threads=threads,
        queue=queue,
        queue_timeout=queue_timeout,
    )


class _Exchange:
    """One request; all of it on the loop, but for what is called from the conversation."""

    def __init__(self, runner: Runner, scope: Scope, receive: Receive, send: Send) -> None:
        self._runner = runner
        self._scope = scope
        self._receive = receive
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._something = asyncio.Event()  # to be sent
        self._room = asyncio.Event()  # in the body's window
        self._outlet = Outlet(self._ready, room_again=self._room_again)
        self._stream = Stream(_request(scope), self._outlet, WINDOW)
        self._conversation: Conversation | None = None
        self._left = False

    async def run(self) -> None:
        """Run the application, and send what it gives.

        Raises:
            ResponseCut: the response is not complete.
        """
        scope = self._scope
        environ = self._runner.environ(
            scope.get("scheme", "http"),
            _address(scope.get("server"), ("localhost", "80")),
            _address(scope.get("client"), ("", "")),
        )
        environ["SCRIPT_NAME"] = scope.get("root_path", "")
        environ["asgi.scope"] = scope
        # Not in this task's own step: on the loop the application would run as if it were the task.
        self._loop.call_soon(self._begin, environ, context=contextvars.Context())
        feeding = self._loop.create_task(self._feed())
        try:
            await self._respond()
        except asyncio.CancelledError:
            self._leave("the server has cancelled the request")
            raise
        except OSError:  # an ASGI server's word for a client that has left, or a raw one
            self._leave("the client has left")
        finally:
            feeding.cancel()

    def _begin(self, environ: dict[str, Any]) -> None:
        self._conversation = self._runner.begin(self._stream, environ)

    def _ready(self) -> None:
        self._loop.call_soon_threadsafe(self._something.set)

    def _room_again(self) -> None:
        self._loop.call_soon_threadsafe(self._room.set)

    async def _respond(self) -> None:
        begun = False
        while True:
            await self._something.wait()
            self._something.clear()
            part = self._outlet.take()
            if part is None:
                continue
            if part.head is not None:
                await self._send(_start(part, self._stream.bodiless))
                begun = True
            for number, block in enumerate(part.blocks, 1):
                more = not part.ended or number < len(part.blocks)
                await self._send({"type": "http.response.body", "body": block, "more_body": more})
            self._outlet.sent(part.blocks)
            if part.ended:
                if not part.blocks:
                    await self._send({"type": "http.response.body", "body": b""})
                return
            if part.cut:
                if not self._left and begun:
                    raise ResponseCut("the application has given its response up")
                return

    async def _feed(self) -> None:
        """Bring the body as the application reads it, and learn when the client leaves."""
        body = self._stream.body
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._leave("the client has left")
                return
            block = message.get("body", b"")
            if block and not body.complete:
                body.feed(block)
            if not message.get("more_body", False) and not body.complete:
                body.finish()
            while body.full and not body.complete:
                # First the mark, then a second look: the reader looks for the mark after taking.
                self._room.clear()
                body.paused = True
                if body.full:
                    await self._room.wait()

    def _leave(self, reason: str) -> None:
        self._left = True
        gone = ClientDisconnected(reason)
        self._stream.gone = True
        self._outlet.close()
        self._stream.body.fail(gone)
        if self._conversation is not None:
            self._conversation.cancel(gone)


def _request(scope: Scope) -> Request:
    path = scope["path"].encode()
    root = scope.get("root_path", "").encode()
    if root and path.startswith(root):  # ASGI 3: the path has the root in it
        path = path[len(root) :]
    # As sent, where the server tells; PATH_INFO comes from what was decoded, so that % is escaped.
    raw = scope.get("raw_path") or path
    query = scope.get("query_string", b"")
    target = raw + b"?" + query if query else raw
    version = scope.get("http_version", "1.1")
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    request = Request(scope["method"], target, path.replace(b"%", b"%25"), query, version, headers)
    request.has_body = True  # there is no telling: the first message says
    return request


def _address(address: Any, default: tuple[str, str]) -> tuple[str, str]:
    if not address:
        return default
    host, port = address
    return (str(host), "80" if port is None else str(port))


def _start(part: Part, bodiless: bool) -> dict[str, Any]:
    head: Head = part.head  # type: ignore[assignment]
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.headers
    ]
    if part.ended and head.length is None and not bodiless:
        length = b"%d" % sum(map(len, part.blocks))
        headers.append((b"content-length", length))
    return {"type": "http.response.start", "status": head.code, "headers": headers}
