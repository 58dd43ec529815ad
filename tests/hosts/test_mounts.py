"""Several applications under another server, each at its path."""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

import bide
from bide.errors import LoadError
from bide.hosts.asgi import asgi
from bide.hosts.wsgi import blocking
from tests.asgi.sites import Receive, Scope, Send, answer
from tests.failures import Failures, same
from tests.hosts.asgi_server import Exchange, run, until
from tests.hosts.fake_host import FakeHost
from tests.served import Environ, Log, answering

with warnings.catch_warnings():  # it would rather have another client than httpx
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


def wsgi(name: str) -> Any:
    """Return a WSGI application that answers where it was found."""
    return answering(lambda environ: f"{name} {environ['SCRIPT_NAME']} {environ['PATH_INFO']}")


def told(name: str) -> Any:
    """Return an ASGI application that does."""

    async def application(scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan")
        await answer(send, f"{name} {scope['root_path']} {scope['path']}".encode())

    return application


def test_a_request_under_an_asgi_server_goes_to_the_longest_path(log: Log) -> None:
    """By the raw path below the server's root, which may be in the path or not."""
    hosted = asgi(
        bide.mount(
            {"/": wsgi("root"), "/live": told("live"), "/live/deep": wsgi("deep"), "/é": told("é")}
        )
    )

    async def ask(path: str, **more: Any) -> str:
        request = Exchange(hosted, path=path, **more)
        await request.task
        assert request.status == 200
        return request.body.decode()

    async def steps() -> None:
        with Failures() as failures:
            cases: list[tuple[str, dict[str, Any], str]] = [
                ("/", {}, "root  /"),
                ("/lively", {}, "root  /lively"),
                ("/live", {}, "live /live /live"),
                ("/live//x", {}, "live /live /live//x"),
                ("/live/deep/x", {}, "deep /live/deep /x"),
                ("/live/x", {"raw_path": b"/live%2Fx"}, "root  /live/x"),
                ("/live/deep/x", {"raw_path": b"/l%69ve/deep%2Fx"}, "live /live /live/deep/x"),
                ("/é/x", {"raw_path": b"/%C3%A9/x"}, "é /é /é/x"),
                ("/é", {}, "é /é /é"),
                ("/api/live/x", {"root_path": "/api"}, "live /api/live /api/live/x"),
                ("/live/x", {"root_path": "/api"}, "live /api/live /api/live/x"),
                ("/a b/live", {"root_path": "/a b", "raw_path": b"/a%20b/live"},
                 "live /a b/live /a b/live"),
                ("/live/x", {"raw_path": b"/other/x"}, "live /live /live/x"),
                ("/api/live/deep", {"root_path": "/api/"}, "deep /api/live/deep "),
            ]  # fmt: skip
            for path, more, expected in cases:
                with failures.of(f"{path} {more}"):
                    same(await ask(path, **more), expected)
        alone = asgi(bide.mount({"/live": told("live")}))
        request = Exchange(alone, path="/other")
        await request.task
        assert request.status == 404
        await alone.stop()
        await hosted.stop()

    run(steps())


def site(name: str, events: list[str]) -> Starlette:
    """Return an ASGI site that has a lifespan with state, a page and a WebSocket."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, str]]:
        events.append(f"{name} starts")
        yield {name: "made"}
        events.append(f"{name} ends")

    async def page(request: Request) -> PlainTextResponse:
        state = sorted(request.scope["state"])
        return PlainTextResponse(f"{state} {request.scope['root_path']}")

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"{name} {await socket.receive_text()}")
        await socket.close()

    routes = [Route("/page", page), WebSocketRoute("/echo", echo)]
    return Starlette(routes=routes, lifespan=lifespan)


def test_they_have_one_state_and_one_lifespan_of_an_asgi_server(log: Log) -> None:
    """Started in their order, ended in reverse; WebSockets are found likewise."""
    events: list[str] = []

    def old(environ: Environ, start_response: Any) -> list[bytes]:
        if "bide.websocket" in environ:
            socket = bide.websocket(environ)
            socket.send(f"old {socket.receive()!s}")
            return []
        start_response("200 OK", [])
        return [str(sorted(environ["bide.state"])).encode()]

    hosted = asgi(bide.mount({"/a": site("a", events), "/old": old, "/b": site("b", events)}))
    with TestClient(hosted) as client:
        assert events == ["a starts", "b starts"]
        assert client.get("/a/page").text == "['a', 'b'] /a"
        assert client.get("/b/page").text == "['a', 'b'] /b"
        assert client.get("/old").text == "['a', 'b']"
        for name in ("a", "b", "old"):
            with client.websocket_connect(f"/{name}/echo") as socket:
                socket.send_text("hi")
                assert socket.receive_text() == f"{name} hi"
    assert events[2:] == ["b ends", "a ends"]

    # Below another site there is no lifespan: it is begun at first need, and stopped by hand.
    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await hosted.stop()

    with TestClient(Starlette(routes=[Mount("/sub", hosted)], lifespan=lifespan)) as client:
        assert client.get("/sub/b/page").text == "['a', 'b'] /sub/b"
    assert events[4:] == ["a starts", "b starts", "b ends", "a ends"]


def test_a_start_that_fails_under_an_asgi_server_is_told_and_undone(log: Log) -> None:
    """The server gets the message of the application that cannot start."""
    events: list[str] = []

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    hosted = asgi(bide.mount({"/a": site("a", events), "/b": broken}))

    async def steps() -> None:
        messages = [{"type": "lifespan.startup"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        with pytest.raises(bide.StartError, match="no database"):
            await hosted({"type": "lifespan"}, receive, send)
        [message] = sent
        assert message["type"] == "lifespan.startup.failed"
        assert "no database" in message["message"]
        assert events == ["a starts", "a ends"]
        await hosted.stop()

    run(steps())


def test_a_stop_ends_what_waits_in_wsgi_applications_and_leaves_the_server_its_own(
    log: Log,
) -> None:
    """The calls of ASGI applications are the server's tasks."""
    ended = asyncio.Event()

    async def live(scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan")
        await ended.wait()
        await answer(send, b"in the end")

    def old(environ: Environ) -> bytes:
        bide.wait(asyncio.Event().wait())
        return b""

    async def steps() -> None:
        hosted = asgi(bide.mount({"/live": live, "/old": answering(old)}))
        stream, waiting = Exchange(hosted, path="/live"), Exchange(hosted, path="/old")
        await until(lambda: bide.status().waiting == 1)
        assert len(bide.status().requests) == 1
        await hosted.stop()
        await waiting.task
        assert waiting.status == 503
        ended.set()
        await stream.task
        assert stream.body == b"in the end"
        assert not bide.status().requests

    run(steps())


def test_wsgi_applications_are_mounted_under_any_wsgi_server(log: Log) -> None:
    """By the decoded path, which is all that such a server tells."""

    def waits(environ: Environ) -> str:
        return bide.wait(asyncio.sleep(0, f"waits {environ['SCRIPT_NAME']} {environ['PATH_INFO']}"))

    one = bide.mount({"/": wsgi("root"), "/a": wsgi("a"), "/a/b": answering(waits)})
    only = bide.mount({"/a": wsgi("a"), "/é": wsgi("é")})
    two = "é".encode().decode("latin-1")
    with Failures() as failures:
        for hosted, path, root, expected in [
            (one, "/", "", "root  /"),
            (one, "", "/api", "root /api "),
            (one, "/ab", "", "root  /ab"),
            (one, "/a", "", "a /a "),
            (one, "/a/bc", "/api", "a /api/a /bc"),
            (one, "/a/b/c", "/api", "waits /api/a/b /c"),
            (one, "//a", "", "root  //a"),
            (only, f"/{two}/x", "", f"é /{two} /x"),
            (only, "/", "", "There is no application at this path.\n"),
        ]:
            with failures.of(f"{root} {path}"):
                host = FakeHost(hosted, PATH_INFO=path, SCRIPT_NAME=root)
                same(host.call().rest().decode(), expected)
                same(host.status, "404 Not Found" if "There" in expected else "200 OK")
    with pytest.raises(LoadError, match=r"live is an ASGI application, .* by bide\.hosts\.asgi"):
        blocking(bide.mount({"/": wsgi("root"), "/live": "tests.hosts.test_mounts:live"}))


live = told("live")


def test_functions_of_on_start_are_called_once_for_all_under_a_wsgi_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the first request to any of them; each finds what they made."""
    monkeypatch.setattr("bide.serving.lifetime._starts", [lambda state: state.update(n=len(calls))])
    monkeypatch.setattr("bide.hosts.starting.atexit.register", lambda _: None)
    calls: list[str] = []

    def look(environ: Environ) -> str:
        calls.append(environ["SCRIPT_NAME"])
        return f"{environ['bide.state']}"

    hosted: Any = blocking(bide.mount({"/a": answering(look), "/b": answering(look)}))
    for path in ("/b", "/a"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
        assert b"".join(hosted(environ, lambda *_: None)) == b"{'n': 0}"
    assert calls == ["/b", "/a"]
