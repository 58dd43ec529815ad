"""What frameworks keep for each thread is shared by the requests of a lane while they wait.

As they come, these give another request's data: shown here, so that the page that warns of it is
known to be true. With their integrations each request keeps its own. The requests of each test are
parked on one thread, and are told apart by their paths.
"""

from collections.abc import Callable, Iterator
from typing import Any

import bottle
import cherrypy
import falcon
import pytest
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from pyramid.threadlocal import get_current_request, manager

import bide.integrations.bottle
import bide.integrations.pyramid
from bide import StartError, wait
from bide.waiting.thread_locals import kept
from tests.conftest import Serve
from tests.frameworks import sites
from tests.served import Application, Gate, Log, Response

web: Any = sites.webpy
OF_WEBPY = pytest.mark.skipif(web is None, reason="web.py needs Python 3.12 or older")


class Gates(dict[str, Gate]):
    """A gate for each name."""

    def __missing__(self, name: str) -> Gate:
        return self.setdefault(name, Gate())


def of_bottle(gates: Gates) -> Application:
    """Answer with what the globals say after the wait."""
    app = bottle.Bottle()

    def view(name: str) -> str:
        bottle.response.set_cookie("user", name)
        bottle.response.status = 201 if name == "a" else 202
        wait(gates[name].promise())
        return f"{name} {bottle.request.path}"

    app.get("/<name>", callback=view)
    application: Application = app.wsgi
    return application


def of_pyramid(gates: Gates) -> Application:
    """Answer with what the current request is after the wait."""

    def view(request: Any) -> PyramidResponse:
        name = request.matchdict["name"]
        wait(gates[name].promise())
        response = PyramidResponse(
            f"{name} {get_current_request().path}", status=201 if name == "a" else 202
        )
        response.set_cookie("user", name)
        return response

    with Configurator() as config:
        config.add_route("view", "/{name}")
        config.add_view(view, route_name="view")
        application: Application = config.make_wsgi_app()
        return application


def of_falcon(gates: Gates) -> Application:
    """Answer with the request that is given."""

    class Resource:
        def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
            resp.set_cookie("user", name, secure=False)
            resp.status = 201 if name == "a" else 202
            wait(gates[name].promise())
            resp.text = f"{name} {req.path}"

    app = falcon.App()
    app.add_route("/{name}", Resource())
    return app


def of_cherrypy(gates: Gates) -> Application:
    """Answer with what the globals say after the wait."""

    class Root:
        @cherrypy.expose  # type: ignore[untyped-decorator]
        def default(self, name: str) -> str:
            cherrypy.response.cookie["user"] = name
            cherrypy.response.status = 201 if name == "a" else 202
            wait(gates[name].promise())
            return f"{name} {cherrypy.request.path_info}"

    application: Application = cherrypy.Application(Root(), config={"/": {}})
    return application


def of_webpy(gates: Gates) -> Application:
    """Answer with what the context says after the wait."""

    class View:
        def GET(self, name: str) -> str:
            web.setcookie("user", name)
            web.ctx.status = "201 Created" if name == "a" else "202 Accepted"
            wait(gates[name].promise())
            return f"{name} {web.ctx.path}"

    application: Application = web.application(("/(.*)", View)).wsgifunc()
    return application


def of_webpy_sessions(gates: Gates) -> Application:
    """Answer with the session's after the wait: it is kept in a dictionary of its own."""
    app = web.application(())
    session: Any = web.session.Session(app, web.session.MemoryStore())

    class View:
        def GET(self, name: str) -> str:
            session.name = name
            web.setcookie("user", name)
            web.ctx.status = "201 Created" if name == "a" else "202 Accepted"
            wait(gates[name].promise())
            return f"{name} /{session.name}"

    app.add_mapping("/(.*)", View)
    application: Application = app.wsgifunc()
    return application


def interleaved(serve: Serve, make: Callable[[Gates], Application]) -> tuple[Response, Response]:
    """Park ``/a`` and then ``/b`` on one thread, resume ``a`` and then ``b``; give the answers."""
    gates = Gates()
    served = serve(make(gates), threads=1)
    first = served.request("/a")
    served.until_waiting(1)
    second = served.request("/b")
    served.until_waiting(2)
    gates["a"].open()
    answer = first.response()
    gates["b"].open()
    return answer, second.response()


def test_bottle_as_it_comes_mixes_requests_that_wait(serve: Serve) -> None:
    """The globals are of the request that came last; so are the status and the cookies sent."""
    first, _ = interleaved(serve, of_bottle)
    assert first.text == "a /b"
    assert first.status == 202
    assert first.header("Set-Cookie") == "user=b"


@pytest.mark.parametrize("make", [of_cherrypy, pytest.param(of_webpy, marks=OF_WEBPY)])
def test_cherrypy_and_webpy_as_they_come_break_requests_that_wait(
    serve: Serve, make: Callable[[Gates], Application], log: Log
) -> None:
    """The first has the last one's data; the last one has none, since the first took it away."""
    first, second = interleaved(serve, make)
    if make is of_cherrypy:  # it looks for the response's end in what is another's, or nobody's
        assert first.status == 500
    else:
        assert first.text == "a /b"
        log.failure()
    assert second.status == 500


def test_pyramid_as_it_comes_gives_another_current_request(serve: Serve) -> None:
    """The stack's top is what began last; the response is the request's own."""
    first, second = interleaved(serve, of_pyramid)
    assert first.text == "a /b"
    assert second.text == "b /a"
    assert (first.status, second.status) == (201, 202)
    assert str(first.header("Set-Cookie")).startswith("user=a;")


@pytest.mark.usefixtures("integrated")
@pytest.mark.parametrize(
    "make",
    [
        *(of_bottle, of_cherrypy, of_falcon, of_pyramid),
        *(pytest.param(each, marks=OF_WEBPY) for each in (of_webpy, of_webpy_sessions)),
    ],
)
def test_requests_that_wait_on_one_thread_keep_their_own_data(
    serve: Serve, make: Callable[[Gates], Application]
) -> None:
    """With the integrations; Falcon needs none, for it hands its objects on."""
    for answer, name, status in zip(interleaved(serve, make), "ab", (201, 202), strict=True):
        assert answer.text == f"{name} /{name}"
        assert answer.status == status
        assert [each for each in answer.all("Set-Cookie") if each.startswith(f"user={name}")]


@pytest.mark.usefixtures("integrated")
def test_bottles_request_is_its_own_in_a_stream(serve: Serve) -> None:
    """The generator runs as part of its request, too."""
    gates = Gates()
    app = bottle.Bottle()

    def view(name: str) -> Iterator[str]:
        yield f"{name}\n"
        wait(gates[name].promise())
        yield bottle.request.path

    app.get("/<name>", callback=view)
    served = serve(app.wsgi, threads=1)
    clients = {name: served.request(f"/{name}") for name in "ab"}
    served.until_waiting(2)
    for name, client in clients.items():
        gates[name].open()
        assert client.response().text == f"{name}\n/{name}"


@pytest.mark.usefixtures("integrated")
def test_outside_of_requests_all_is_as_before() -> None:
    """Pyramid has a stack of the thread's, and Bottle says that there is none."""
    assert get_current_request() is None
    manager.push({"request": "mine", "registry": None})
    assert get_current_request() == "mine"
    manager.clear()
    with pytest.raises(RuntimeError, match="not initialized"):
        _ = bottle.request.environ
    bottle.response.body = "mine"
    del bottle.response.body
    with pytest.raises(RuntimeError, match="not initialized"):
        _ = bottle.response.body


@pytest.mark.usefixtures("integrated")
def test_an_integration_that_is_installed_twice_is_there_once() -> None:
    """The second one changes nothing, and takes nothing back."""
    before = list(kept)
    for module in (bide.integrations.bottle, bide.integrations.pyramid):
        module.install()()
    assert kept == before


def test_a_bottle_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its properties are its own affair: one that has others is not half replaced."""
    found, before = dict(vars(bottle.LocalResponse)), list(kept)
    monkeypatch.delattr(bottle.LocalResponse, "_cookies")
    with pytest.raises(
        StartError, match=r"does not support Bottle .*: it is made for Bottle 0\.13"
    ):
        bide.integrations.bottle.install()
    assert vars(bottle.LocalResponse)["body"] is found["body"]
    assert kept == before
