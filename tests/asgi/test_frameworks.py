"""Starlette, FastAPI and Django as they come, over real sockets and inside mounts."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from flask import Flask, url_for
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import bide
from tests.asgi.sites import endless
from tests.conftest import Serve
from tests.django_settings import django_settings
from tests.served import Log, happened, request, until


class Streams:
    """A Starlette application whose streams are watched.

    Attributes:
        events: what has become of them.
    """

    def __init__(self, *middleware: Middleware) -> None:
        self.events: list[str] = []
        self.application = Starlette(
            routes=[Route("/stream", self._stream), Route("/up", self._up, methods=["POST"])],
            middleware=middleware,
        )

    async def _stream(self, _: Request) -> Response:
        return StreamingResponse(endless(self.events))

    async def _up(self, request: Request) -> Response:
        size = 0
        async for block in request.stream():
            size += len(block)
        return PlainTextResponse(str(size))


async def passing(request: Request, call_next: Any) -> Any:
    """Pass a request on."""
    return await call_next(request)


@pytest.mark.parametrize("middleware", [(), (Middleware(BaseHTTPMiddleware, dispatch=passing),)])
def test_a_stream_ends_when_its_client_has_left(serve: Serve, middleware: Any) -> None:
    """Without a traceback; also in a task group of a middleware's."""
    streams = Streams(*middleware)
    served = serve(streams.application)
    for _ in range(2):
        client = served.connect(window=4096)
        client.send(request("/stream"))
        assert client.head().status == 200
        client.chunk()
        until(lambda: served.status.waiting == 1)
        client.reset()
        served.until_idle()
    # Starlette leaves its iterator to the collector, and the loop ends it then.
    until(lambda: gc.collect() >= 0 and sorted(streams.events) == ["begun"] * 2 + ["ended"] * 2)
    body = b"y" * 300_000
    assert served.get("/up", method="POST", body=body).text == "300000"


def test_fastapi_finds_its_state_and_runs_its_background_tasks(serve: Serve) -> None:
    """Under a mount; its page of docs finds its openapi.json there."""
    done, go_on = threading.Event(), threading.Event()
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        events.append("start")
        yield {"pool": "a pool"}
        events.append("stop")

    app = FastAPI(lifespan=lifespan)

    @app.post("/items/{name}")
    async def item(name: str, request: Request, tasks: BackgroundTasks) -> dict[str, str]:
        def later() -> None:
            happened(go_on)
            done.set()

        tasks.add_task(later)
        return {
            "name": name,
            "pool": request.state.pool,
            "url": str(request.url_for("item", name="x")),
        }

    shop = Flask(__name__)

    @shop.get("/page/<name>")
    def page(name: str) -> str:
        from flask import request as flask_request

        return f"{name} {url_for('page', name='y')} {flask_request.environ['bide.state']['pool']}"

    served = serve(bide.mount({"/api": app, "/shop": shop}))
    client = served.connect()
    client.send(request("/api/items/a", method="POST", body=b"{}"))
    assert client.response().text == (
        '{"name":"a","pool":"a pool","url":"http://test/api/items/x"}'
    )
    client.reset()
    go_on.set()
    happened(done)
    assert "/api/openapi.json" in served.get("/api/docs").text
    assert served.get("/api/openapi.json").status == 200
    assert served.get("/shop/page/x").text == "x /shop/page/y a pool"
    served.stop()
    assert events == ["start", "stop"]


@pytest.mark.skipif(not hasattr(Request, "send_early_hints"), reason="Starlette has them since 1.0")
@pytest.mark.parametrize("middleware", [(), (Middleware(BaseHTTPMiddleware, dispatch=passing),)])
def test_starlette_sends_early_hints(serve: Serve, middleware: Any) -> None:
    """By a method of the request, also below a middleware."""

    async def page(request: Request) -> Response:
        await request.send_early_hints("</style.css>; rel=preload; as=style")
        return PlainTextResponse("page")

    client = serve(Starlette(routes=[Route("/", page)], middleware=middleware)).request("/")
    hints = client.head()
    assert (hints.status, hints.header("Link")) == (103, "</style.css>; rel=preload; as=style")
    assert client.response().text == "page"


def test_an_error_of_a_framework_is_logged_once(serve: Serve, log: Log) -> None:
    """And answered by the framework."""

    async def wrong(_: Request) -> Response:
        raise ValueError("wrong")

    served = serve(Starlette(routes=[Route("/", wrong)]))
    assert served.get("/").status == 500
    assert log.failure().exc_info


def test_django_serves_its_asgi_application(serve: Serve) -> None:
    """Streams, and views that block in threads of its own."""
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path, reverse

    async def blocks() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number
            await asyncio.sleep(0)

    def plain(request: Any) -> Any:
        return HttpResponse(f"{reverse('plain')} {request.path_info} {len(request.body)}")

    async def stream(_: Any) -> Any:
        return StreamingHttpResponse(blocks())

    class Urls:
        urlpatterns = (path("plain", plain, name="plain"), path("stream", stream))

    with django_settings(ROOT_URLCONF=Urls):
        served = serve(bide.mount({"/dj": ASGIHandler()}))
        answer = served.get("/dj/plain", method="POST", body=b"z" * 100_000)
        assert answer.text == "/dj/plain /plain 100000"
        assert served.get("/dj/stream").chunks == [b"0", b"1", b"2"]
        served.stop()
