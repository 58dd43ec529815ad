"""The same small site in each framework, as its own documentation would have it written.

| path | what it does |
|---|---|
| ``/wait/NAME`` | waits for the site's gate within ``except Exception``, and answers the name |
| ``/stream`` | sends ``begin``, waits for the gate, sends ``end`` |
| ``/empty`` | sends empty blocks, and waits between them |
| ``/broken`` | waits for what fails with ``Broken``; the site's error handler answers 503 |
| ``/upload`` | answers the digest of the body that it reads in pieces |
"""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import bottle
import cherrypy
import falcon
from pyramid.config import Configurator
from pyramid.response import Response

from bide import wait
from tests.served import Application, Gate

try:
    import web
except ImportError:  # it needs Python 3.12 or older
    web = None
webpy: Any = web

PIECE = 16 * 1024  # bytes


class Broken(Exception):  # noqa: N818 - says what happened
    """What a promise of the site fails with."""


async def broken() -> None:
    """Fail after a turn of the loop."""
    await asyncio.sleep(0)
    raise Broken("the other service is down")


@dataclass
class Site:
    """What the views of a site share with the test.

    Attributes:
        framework: its name.
        gate: what they wait for.
        seen: what has happened to them, in order.
    """

    framework: str
    gate: Gate = field(default_factory=Gate)
    seen: list[str] = field(default_factory=list)
    application: Application = field(init=False, repr=False)

    def wait(self) -> None:
        """Wait as a view does that hands every error it knows of to somebody."""
        try:
            wait(self.gate.promise())
        except Exception as error:
            self.seen.append(f"swallowed {type(error).__name__}")
        finally:
            self.seen.append("waited")

    def stream(self) -> Iterator[bytes]:
        """Return two blocks, with a wait in between."""
        try:
            yield b"begin\n"
            wait(self.gate.promise())
            yield b"end\n"
        finally:
            self.seen.append("stream closed")

    def empty(self) -> Iterator[bytes]:
        """Return blocks of which most are empty."""
        yield b""
        wait(asyncio.sleep(0))
        yield b""
        yield b"something"
        wait(asyncio.sleep(0))
        yield b""


def digest(read: Callable[[int], bytes]) -> str:
    """Read to the end, piece by piece."""
    sums = hashlib.sha256()
    while piece := read(PIECE):
        sums.update(piece)
    return sums.hexdigest()


def of_bottle(site: Site) -> Application:
    """Build it with Bottle; its hooks are its teardown."""
    app = bottle.Bottle()

    def waiting(name: str) -> str:
        site.wait()
        return name

    def breaking() -> None:
        try:
            wait(broken())
        except Broken as error:
            bottle.abort(503, str(error))

    def upload() -> str:
        return digest(bottle.request.environ["wsgi.input"].read)

    def unavailable(error: Any) -> str:
        return f"handled: {error.body}"

    def teardown() -> None:
        site.seen.append("torn down")

    app.get("/wait/<name>", callback=waiting)
    app.get("/stream", callback=site.stream)
    app.get("/empty", callback=site.empty)
    app.get("/broken", callback=breaking)
    app.post("/upload", callback=upload)
    app.error(503, callback=unavailable)
    app.add_hook("after_request", teardown)
    application: Application = app.wsgi
    return application


class _Resource:
    """A resource of Falcon; ``suffix`` of a route chooses the responder."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def on_get_wait(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        self.site.wait()
        assert req.path == f"/wait/{name}"
        resp.text = name

    def on_get_stream(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.stream = self.site.stream()

    def on_get_empty(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.stream = self.site.empty()

    def on_get_broken(self, req: falcon.Request, resp: falcon.Response) -> None:
        wait(broken())

    def on_post_upload(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.text = digest(req.bounded_stream.read)


class _Teardown:
    """Falcon's middleware; it has no other teardown."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        self.site.seen.append("torn down")


def _falcon_unavailable(
    req: falcon.Request, resp: falcon.Response, error: Exception, params: object
) -> None:
    resp.status = falcon.HTTP_503
    resp.text = f"handled: {error}"


def of_falcon(site: Site) -> Application:
    """Build it with Falcon."""
    app = falcon.App(middleware=[_Teardown(site)])
    resource = _Resource(site)
    app.add_route("/wait/{name}", resource, suffix="wait")
    for each in ("stream", "empty", "broken", "upload"):
        app.add_route(f"/{each}", resource, suffix=each)
    app.add_error_handler(Broken, _falcon_unavailable)
    return app


def of_pyramid(site: Site) -> Application:
    """Build it with Pyramid; finished callbacks are its teardown."""

    def waiting(request: Any) -> Response:
        request.add_finished_callback(lambda _: site.seen.append("torn down"))
        site.wait()
        return Response(request.matchdict["name"])

    def stream(request: Any) -> Response:
        return Response(app_iter=site.stream(), content_type="text/plain")

    def empty(request: Any) -> Response:
        return Response(app_iter=site.empty(), content_type="text/plain")

    def breaking(request: Any) -> None:
        wait(broken())

    def upload(request: Any) -> Response:
        return Response(digest(request.body_file_raw.read))

    def unavailable(error: Broken, request: Any) -> Response:
        return Response(f"handled: {error}", status=503)

    with Configurator() as config:
        for path, view in {
            "/wait/{name}": waiting,
            "/stream": stream,
            "/empty": empty,
            "/broken": breaking,
            "/upload": upload,
        }.items():
            config.add_route(path, path)
            config.add_view(view, route_name=path)
        config.add_exception_view(unavailable, context=Broken)
        application: Application = config.make_wsgi_app()
        return application


class _Root:
    """A tree of CherryPy."""

    _cp_config: ClassVar[dict[str, Any]] = {"response.stream": True}

    def __init__(self, site: Site) -> None:
        self._site = site

    @cherrypy.expose  # type: ignore[untyped-decorator]
    def wait(self, name: str) -> str:
        cherrypy.request.hooks.attach("on_end_request", lambda: self._site.seen.append("torn down"))
        self._site.wait()
        return name

    @cherrypy.expose  # type: ignore[untyped-decorator]
    def stream(self) -> Iterator[bytes]:
        return self._site.stream()

    @cherrypy.expose  # type: ignore[untyped-decorator]
    def empty(self) -> Iterator[bytes]:
        return self._site.empty()

    @cherrypy.expose  # type: ignore[untyped-decorator]
    def broken(self) -> None:
        wait(broken())

    @cherrypy.expose  # type: ignore[untyped-decorator]
    @cherrypy.config(**{"request.process_request_body": False})  # type: ignore[untyped-decorator]
    def upload(self) -> str:
        return digest(cherrypy.request.wsgi_environ["wsgi.input"].read)


def of_cherrypy(site: Site) -> Application:
    """Build it with CherryPy; a hook at the request's end is its teardown."""

    def unavailable() -> None:
        error = sys.exception()
        cherrypy.response.status = 503 if isinstance(error, Broken) else 500
        cherrypy.response.body = f"handled: {error}".encode()

    config = {"/": {"request.error_response": unavailable}}
    application: Application = cherrypy.Application(_Root(site), config=config)
    return application


def of_webpy(site: Site) -> Application:
    """Build it with web.py; a hook behind the view is its teardown."""
    web.config.debug = False  # its page leaves files open, and its reloader reads all modules

    class Waiting:
        def GET(self, name: str) -> str:
            site.wait()
            return name

    class Stream:
        def GET(self) -> Iterator[bytes]:
            return site.stream()

    class Empty:
        def GET(self) -> Iterator[bytes]:
            return site.empty()

    class Breaking:
        def GET(self) -> None:
            wait(broken())

    class Upload:
        def POST(self) -> str:
            return digest(web.ctx.env["wsgi.input"].read)

    def handling(handle: Callable[[], Any]) -> Any:
        web.header("Content-Type", "text/plain; charset=utf-8")
        try:
            return handle()
        finally:
            site.seen.append("torn down")

    def unavailable() -> Any:
        error = sys.exception()
        if isinstance(error, Broken):
            return web.HTTPError("503 Service Unavailable", {}, f"handled: {error}")
        return web.HTTPError("500 Internal Server Error")

    paths = ("/wait/(.*)", Waiting, "/stream", Stream, "/empty", Empty)
    app = web.application((*paths, "/broken", Breaking, "/upload", Upload))
    app.add_processor(handling)
    app.internalerror = unavailable
    application: Application = app.wsgifunc()
    return application


SITES: dict[str, Callable[[Site], Application]] = {
    "bottle": of_bottle,
    "cherrypy": of_cherrypy,
    "falcon": of_falcon,
    "pyramid": of_pyramid,
}
if web is not None:
    SITES["webpy"] = of_webpy
