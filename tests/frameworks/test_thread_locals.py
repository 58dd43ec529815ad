"""What frameworks keep for each thread is shared by the requests of a lane while they wait.

As they come, Bottle and Pyramid give another request's data: shown here, so that the page that
warns of it is known to be true, and the remedies that it gives with it. The requests of each test
are parked on one thread, and are told apart by their paths.
"""

from collections.abc import Callable, Iterator
from typing import Any

import bottle
import falcon
import pytest
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from pyramid.threadlocal import get_current_request, manager

from bide import wait
from tests.conftest import Serve
from tests.serving import Application, Gate, Response


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


@pytest.mark.usefixtures("as_they_come")
def test_bottle_as_it_comes_mixes_requests_that_wait(serve: Serve) -> None:
    """The globals are of the request that came last; so are the status and the cookies sent."""
    first, _ = interleaved(serve, of_bottle)
    assert first.text == "a /b"
    assert first.status == 202
    assert first.header("Set-Cookie") == "user=b"


@pytest.mark.usefixtures("as_they_come")
def test_pyramid_as_it_comes_gives_another_current_request(serve: Serve) -> None:
    """The stack's top is what began last; the response is the request's own."""
    first, second = interleaved(serve, of_pyramid)
    assert first.text == "a /b"
    assert second.text == "b /a"
    assert (first.status, second.status) == (201, 202)
    assert str(first.header("Set-Cookie")).startswith("user=a;")


@pytest.mark.usefixtures("in_context")
@pytest.mark.parametrize("make", [of_bottle, of_pyramid, of_falcon])
def test_requests_that_wait_on_one_thread_keep_their_own_data(
    serve: Serve, make: Callable[[Gates], Application]
) -> None:
    """With the page's remedies; Falcon needs none, for it hands its objects on."""
    for answer, name, status in zip(interleaved(serve, make), "ab", (201, 202), strict=True):
        assert answer.text == f"{name} /{name}"
        assert answer.status == status
        assert str(answer.header("Set-Cookie")).startswith(f"user={name}")


@pytest.mark.usefixtures("in_context")
def test_bottles_request_is_its_own_in_a_stream(serve: Serve) -> None:
    """The generator runs in the request's context too."""
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


@pytest.mark.usefixtures("in_context")
def test_the_remedy_leaves_nothing_behind() -> None:
    """Outside a request Pyramid has none, and Bottle says so."""
    assert get_current_request() is None
    manager.push({"request": "mine", "registry": None})
    assert manager.pop()["request"] == "mine"
    assert manager.pop() is None
    manager.clear()
    with pytest.raises(RuntimeError, match="not initialized"):
        _ = bottle.request.environ
