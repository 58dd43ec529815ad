"""The same view as a coroutine of Starlette, which needs an ASGI server."""

import asyncio

from starlette.applications import Starlette  # type: ignore[import-not-found, unused-ignore]
from starlette.requests import Request  # type: ignore[import-not-found, unused-ignore]
from starlette.responses import (  # type: ignore[import-not-found, unused-ignore]
    PlainTextResponse,
)
from starlette.routing import Route  # type: ignore[import-not-found, unused-ignore]

from .attendance import Attendance

parked = Attendance()


async def wait_a_while(request: Request) -> PlainTextResponse:
    with parked.attend():
        await asyncio.sleep(float(request.query_params["seconds"]))
    return PlainTextResponse("waited\n")


async def count_parked(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{parked.present}\n")


app = Starlette(routes=[Route("/wait", wait_a_while), Route("/parked", count_parked)])
