"""The same as coroutines of Starlette, which need an ASGI server."""

from starlette.applications import Starlette  # type: ignore[import-not-found, unused-ignore]
from starlette.requests import Request  # type: ignore[import-not-found, unused-ignore]
from starlette.responses import (  # type: ignore[import-not-found, unused-ignore]
    PlainTextResponse,
)
from starlette.routing import (  # type: ignore[import-not-found, unused-ignore]
    Route,
    WebSocketRoute,
)
from starlette.websockets import WebSocket  # type: ignore[import-not-found, unused-ignore]

from .attendance import Attendance

parked = Attendance()


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    with parked.attend():
        async for message in socket.iter_text():
            await socket.send_text(message)


async def count_parked(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{parked.present}\n")


async def count_busy(request: Request) -> PlainTextResponse:
    return PlainTextResponse("0\n")  # there are no threads


async def answer_quickly(request: Request) -> PlainTextResponse:
    return PlainTextResponse("quick\n")


app = Starlette(
    routes=[
        WebSocketRoute("/socket", echo),
        Route("/parked", count_parked),
        Route("/busy", count_busy),
        Route("/quick", answer_quickly),
    ]
)
