"""One site by each framework, by clients that are written by hand; skipped where one is missing.

A stream that its client leaves, an upload, what is done in the background when the client has left,
and a start that fails.
"""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import bide
from bide.applications.loading import ApplicationFailed
from tests.asgi.sites import endless
from tests.conftest import Serve
from tests.django_settings import django_settings
from tests.served import Log, happened, request, until


class Site:
    """What the site of each framework does.

    Attributes:
        events: what has happened to its streams, and at its start and end.
        go_on: lets what is done in the background end.
        done: set when it has.
        fails: whether the start fails.
        task: what is done in the background, where the framework has no such thing.
    """

    def __init__(self, fails: bool = False) -> None:
        self.events: list[str] = []
        self.go_on, self.done = threading.Event(), threading.Event()
        self.fails = fails
        self.task: asyncio.Task[None] | None = None

    async def later(self) -> None:
        """Do something in the background."""
        await asyncio.to_thread(happened, self.go_on)
        self.done.set()

    async def start(self) -> None:
        """Start."""
        if self.fails:
            raise ValueError("no database")
        self.events.append("start")

    async def stop(self) -> None:
        """Stop."""
        self.events.append("stop")

    @contextlib.asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Start and stop."""
        await self.start()
        yield
        await self.stop()


def starlette(site: Site) -> Any:
    """Make the site with Starlette."""
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def stream(_: Request) -> Response:
        return StreamingResponse(endless(site.events))

    async def upload(request: Request) -> Response:
        return PlainTextResponse(str(sum([len(block) async for block in request.stream()])))

    async def background(_: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(site.later))

    return Starlette(
        routes=[
            Route("/stream", stream),
            Route("/upload", upload, methods=["POST"]),
            Route("/background", background),
        ],
        lifespan=site.lifespan,
    )


def fastapi(site: Site) -> Any:
    """Make the site with FastAPI."""
    from fastapi import BackgroundTasks, FastAPI, Request
    from fastapi.responses import PlainTextResponse, StreamingResponse

    app = FastAPI(lifespan=site.lifespan)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(endless(site.events))

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return sum([len(block) async for block in request.stream()])

    @app.get("/background", response_class=PlainTextResponse)
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(site.later)
        return "ok"

    return app


def litestar(site: Site) -> Any:
    """Make the site with Litestar."""
    module = pytest.importorskip("litestar")
    responses = pytest.importorskip("litestar.response")
    tasks = pytest.importorskip("litestar.background_tasks")

    async def stream() -> Any:
        return responses.Stream(endless(site.events))

    async def upload(request: Any) -> str:
        return str(sum([len(block) async for block in request.stream()]))

    async def background() -> Any:
        later = tasks.BackgroundTask(site.later)
        return responses.Response("ok", media_type="text/plain", background=later)

    stream.__annotations__["return"] = responses.Stream
    upload.__annotations__["request"] = module.Request
    background.__annotations__["return"] = responses.Response
    return module.Litestar(
        route_handlers=[
            module.get("/stream")(stream),
            module.post("/upload", media_type="text/plain")(upload),
            module.get("/background")(background),
        ],
        on_startup=[site.start],
        on_shutdown=[site.stop],
        logging_config=None,  # it would be the whole process's
    )


def quart(site: Site) -> Any:
    """Make the site with Quart."""
    module = pytest.importorskip("quart")
    app = module.Quart(__name__)

    async def stream() -> Any:
        return endless(site.events), 200

    async def upload() -> str:
        return str(sum([len(block) async for block in module.request.body]))

    async def background() -> str:
        app.add_background_task(site.later)
        return "ok"

    app.get("/stream")(stream)
    app.post("/upload")(upload)
    app.get("/background")(background)
    app.before_serving(site.start)
    app.after_serving(site.stop)
    return app


def django(site: Site) -> Any:
    """Make the site with Django; what is done in the background is a task of its own."""
    from django.core.handlers.asgi import ASGIHandler, ASGIRequest
    from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
    from django.urls import path

    async def stream(_: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(endless(site.events))

    async def upload(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(len(request.read())))

    async def background(_: HttpRequest) -> HttpResponse:
        site.task = asyncio.get_running_loop().create_task(site.later())
        return HttpResponse("ok")

    class Request(ASGIRequest):  # type: ignore[misc]
        urlconf = (path("stream", stream), path("upload", upload), path("background", background))

    class Handler(ASGIHandler):  # type: ignore[misc]
        request_class = Request

    return Handler()


def channels(site: Site) -> Any:
    """Make the site with consumers of Channels, likewise."""
    pytest.importorskip("channels")
    from channels.generic.http import AsyncHttpConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path

    class Stream(AsyncHttpConsumer):  # type: ignore[misc]
        async def handle(self, _: bytes) -> None:
            await self.send_headers()
            async for block in endless(site.events):
                await self.send_body(block, more_body=True)

    class Upload(AsyncHttpConsumer):  # type: ignore[misc]
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, str(len(body)).encode())

    class Background(AsyncHttpConsumer):  # type: ignore[misc]
        async def handle(self, _: bytes) -> None:
            site.task = asyncio.get_running_loop().create_task(site.later())
            await self.send_response(200, b"ok")

    paths: dict[str, Any] = {"stream": Stream, "upload": Upload, "background": Background}
    router = URLRouter([path(each, made.as_asgi()) for each, made in paths.items()])
    return ProtocolTypeRouter({"http": router})


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Have Django use settings that fit no urls of its own."""
    with django_settings(ROOT_URLCONF=()):
        yield


MAKERS = [starlette, fastapi, litestar, quart]
BARE = [django, channels]
"""Those whose applications know no lifespan."""


@pytest.mark.parametrize("make", [*MAKERS, *BARE])
def test_a_site_is_served_as_its_framework_has_it(
    serve: Serve, make: Callable[[Site], Any]
) -> None:
    """Under a mount, beside another one; without a line in the log."""
    site, other = Site(), Site()
    served = serve(bide.mount({"/": make(site), "/other": make(other)}))
    for path in ("/stream", "/other/stream"):
        client = served.connect(window=4096)
        client.send(request(path))
        assert client.head().status == 200
        client.chunk()
        client.reset()
        served.until_idle()
    # What is left of an iterator is the collector's, which has the loop end it.
    until(lambda: gc.collect() >= 0 and "ended" in site.events and "ended" in other.events)
    response = served.get("/upload", method="POST", body=b"y" * 300_000)
    assert response.text == "300000"
    client = served.request("/background")
    assert client.response().text == "ok"
    client.reset()
    site.go_on.set()
    happened(site.done)
    served.stop()
    happened_to = ["begun", "ended"] if make in BARE else ["start", "begun", "ended", "stop"]
    assert site.events == other.events == happened_to


@pytest.mark.parametrize("make", MAKERS)
def test_a_start_that_fails_is_said_in_one_line(
    serve: Serve, log: Log, make: Callable[[Site], Any]
) -> None:
    """With what the application has raised."""
    with pytest.raises(ApplicationFailed, match=r"has failed to start: .*no database"):
        serve(make(Site(fails=True)))


@pytest.mark.parametrize("make", BARE)
def test_a_framework_that_knows_no_lifespan_says_so_where_one_must_be(
    serve: Serve, log: Log, make: Callable[[Site], Any]
) -> None:
    """With ``lifespan="on"``; else its sites are served, as above."""
    with pytest.raises(ApplicationFailed, match=r"has failed to start: .*lifespan"):
        serve(make(Site()), lifespan="on")
