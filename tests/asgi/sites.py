"""ASGI applications for tests, written by hand, and what they are made of."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    """Return a message that begins a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(block: bytes = b"", more: bool = False) -> dict[str, Any]:
    """Return a message with a part of the body."""
    return {"type": "http.response.body", "body": block, "more_body": more}


async def answer(send: Send, text: bytes, status: int = 200) -> None:
    """Send a whole response."""
    await send(start(status, (b"content-type", b"text/plain")))
    await send(body(text))


async def endless(events: list[str]) -> AsyncIterator[bytes]:
    """Yield blocks without end; note when it has begun, and when it has ended."""
    events.append("begun")
    try:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)
    finally:
        events.append("ended")


async def read(receive: Receive) -> bytes:
    """Receive a whole body."""
    blocks = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        blocks.append(message["body"])
        if not message["more_body"]:
            return b"".join(blocks)


def routed(**handlers: Handler) -> Handler:
    """Return an application that has a handler for each path's first segment; no lifespan."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handlers[scope["path"].split("/")[1]](scope, receive, send)

    return application


def opening(handler: Handler) -> Handler:
    """Return an application whose every request is a WebSocket that a handler has; no lifespan."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await handler(scope, receive, send)

    return application


async def accept(receive: Receive, send: Send, **more: Any) -> None:
    """Take the first event of a WebSocket, and accept it."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


def text(content: str) -> dict[str, Any]:
    """Return a message that sends text."""
    return {"type": "websocket.send", "text": content}


async def echo_messages(_: Scope, receive: Receive, send: Send) -> None:
    """Accept a WebSocket, and send back what comes."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Latch:
    """Something that happens once, on the server's loop, and that the test makes happen."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None
        self._opened = False

    async def wait(self) -> None:
        """Wait until the test opens it."""
        if not self._opened:
            self._future = self._future or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._future)

    def open(self) -> None:
        """Open it; on the server's loop."""
        self._opened = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
