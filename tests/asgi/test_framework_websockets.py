"""WebSockets of Starlette, FastAPI, Quart, Litestar and Channels, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocketException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

import bide
from tests.asgi.test_frameworks import passing
from tests.conftest import Serve
from tests.django_settings import django_settings
from tests.protocols.websocket.peers import ASKED, read_frame, upgraded
from tests.protocols.websocket.wires import BINARY, CLOSE, FIN, TEXT, closing, frame
from tests.served import Log, Served, request, until


def echoes(served: Served, path: str = "/echo", kinds: tuple[int, ...] = (TEXT, BINARY)) -> None:
    """Check that two messages come back, and that the close is answered."""
    client = upgraded(served, path=path)
    for kind in kinds:
        for data in (b"hello", b"x" * 70_000):
            client.send(frame(kind, data))
            assert read_frame(client) == (FIN | kind, data)
    client.send(closing(1000))
    assert read_frame(client) == (FIN | CLOSE, (1000).to_bytes(2))
    assert client.rest() == b""
    served.until_idle()


async def starlette_echo(socket: WebSocket) -> None:
    """Send back what comes."""
    await socket.accept()
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


async def starlette_text(socket: WebSocket) -> None:
    """Receive, and let what Starlette raises at the end pass."""
    await socket.accept()
    while True:
        await socket.receive_text()


async def starlette_flood(socket: WebSocket) -> None:
    """Send, and let what Starlette raises at the end pass."""
    await socket.accept()
    while True:
        await socket.send_bytes(bytes(65536))


async def starlette_denied(_: WebSocket) -> None:
    """Refuse with a response."""
    raise HTTPException(401, "who are you", {"X-Why": "because"})


def test_starlettes_sockets_end_without_a_traceback(serve: Serve, log: Log) -> None:
    """However they end; below a mount and a middleware; one is refused with a response."""
    routes = {
        "/echo": starlette_echo,
        "/text": starlette_text,
        "/flood": starlette_flood,
        "/denied": starlette_denied,
    }
    application = Starlette(
        routes=[WebSocketRoute(path, endpoint) for path, endpoint in routes.items()],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passing)],
    )
    served = serve(bide.mount({"/live": application}))
    echoes(served, "/live/echo")
    response = served.get("/live/denied", headers=ASKED)
    assert (response.status, response.text) == (401, "who are you")
    assert response.header("X-Why") == "because"
    assert served.get("/live/none", headers=ASKED).status in (403, 404)
    leaving = upgraded(served, path="/live/text")
    served.until_waiting(1)
    leaving.close()
    served.until_idle()
    flooded = served.connect(window=4096)
    flooded.send(request("/live/flood", headers=ASKED))
    until(lambda: [each.state for each in served.server.requests()] == ["sending"])
    flooded.reset()
    served.until_idle()
    assert log.find("failed") is None


def test_fastapis_dependencies_may_refuse_a_socket(serve: Serve) -> None:
    """By a close code, which is 403 before it is accepted."""
    app = FastAPI()

    async def known(socket: WebSocket) -> str:
        if "name" not in socket.query_params:
            raise WebSocketException(1008)
        return socket.query_params["name"]

    @app.websocket("/echo")
    async def echo(socket: WebSocket, name: str = Depends(known)) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text if text != "name" else name)

    served = serve(app)
    echoes(served, "/echo?name=a", (TEXT,))
    client = upgraded(served, path="/echo?name=ada")
    client.send(frame(TEXT, b"name"))
    assert read_frame(client) == (FIN | TEXT, b"ada")
    client.close()
    assert served.get("/echo", headers=ASKED).status == 403


def test_quarts_sockets_echo(serve: Serve) -> None:
    """It cancels its own task when its client has left."""
    quart = pytest.importorskip("quart")
    app = quart.Quart("echo")

    async def echo() -> None:
        while True:
            await quart.websocket.send(await quart.websocket.receive())

    app.websocket("/echo")(echo)
    echoes(serve(app))


def test_litestars_sockets_echo(serve: Serve) -> None:
    """By its listeners, and by its handlers."""
    litestar = pytest.importorskip("litestar")

    async def listen(data: str) -> str:
        return data

    async def handle(socket: Any) -> None:
        await socket.accept()
        while True:
            await socket.send_bytes(await socket.receive_bytes())

    handle.__annotations__["socket"] = litestar.WebSocket
    handlers = [litestar.websocket_listener("/echo")(listen), litestar.websocket("/raw")(handle)]
    served = serve(litestar.Litestar(handlers))
    echoes(served, kinds=(TEXT,))
    echoes(served, "/raw", kinds=(BINARY,))


def test_channels_consumers_echo(serve: Serve) -> None:
    """Those that are coroutines, and those that block in threads; by Channels' own routing."""
    pytest.importorskip("channels")
    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path

    class Waits(AsyncWebsocketConsumer):  # type: ignore[misc, unused-ignore]
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    class Blocks(WebsocketConsumer):  # type: ignore[misc, unused-ignore]
        def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            self.send(text_data=text_data, bytes_data=bytes_data)

    routes = [path("echo", Waits.as_asgi()), path("blocks", Blocks.as_asgi())]
    with django_settings():
        served = serve(ProtocolTypeRouter({"websocket": URLRouter(routes)}))
        echoes(served)
        echoes(served, "/blocks")
        served.stop()
