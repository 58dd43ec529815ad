"""Hello as a coroutine of Starlette."""

from starlette.applications import Starlette  # type: ignore[import-not-found, unused-ignore]
from starlette.requests import Request  # type: ignore[import-not-found, unused-ignore]
from starlette.responses import (  # type: ignore[import-not-found, unused-ignore]
    PlainTextResponse,
)
from starlette.routing import Route  # type: ignore[import-not-found, unused-ignore]


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Hello, world!\n")


app = Starlette(routes=[Route("/", hello)])
