"""The client of applications' tests, and applications of ASGI: alone, and mounted beside WSGI."""

import asyncio
from typing import Any

import flask
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import bide
from bide import WebSocketClosed
from bide.testing import Client, IncompleteResponse, Overdue, WebSocketRefused
from tests.served import Log

SHORT = 0.05
"""Seconds of a time-out that is to be reached."""


def site(*, seen: list[Any] | None = None) -> Starlette:
    """Make an application that notes what happens to it."""
    notes: list[Any] = [] if seen is None else seen

    async def echo(request: Request) -> Response:
        body = await request.body()
        return JSONResponse(
            {
                "body": body.decode(),
                "root": request.scope["root_path"],
                "path": request.scope["path"],
                "state": sorted(request.scope["state"]),
            }
        )

    async def stream(request: Request) -> Response:
        async def blocks() -> Any:
            try:
                for number in range(3):
                    yield f"{number}\n"
                await asyncio.Event().wait()
            except BaseException as error:
                notes.append(type(error).__name__)
                raise

        return StreamingResponse(blocks(), media_type="text/plain")

    async def later(request: Request) -> Response:
        return PlainTextResponse("at once", background=BackgroundTask(notes.append, "later"))

    async def fail(request: Request) -> Response:
        raise LookupError("in a coroutine")

    async def wait_for_ever(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    return Starlette(
        routes=[
            Route("/echo", echo, methods=["GET", "POST"]),
            Route("/stream", stream),
            Route("/later", later),
            Route("/fail", fail),
            Route("/wait", wait_for_ever),
        ]
    )


def test_an_asgi_application_is_asked_as_any() -> None:
    """Bodies of every kind, streams, background tasks, and a client that leaves."""
    seen: list[Any] = []
    with Client(site(seen=seen)) as client:
        answer = client.post("/echo", body="höre")
        assert answer.status == 200
        assert answer.json()["body"] == "höre"
        assert client.post("/echo", body=(b"x" * 1000 for _ in range(200))).json()["body"]
        assert client.get("/later").text == "at once"
        assert seen == ["later"]
        with client.stream("GET", "/stream") as response:
            assert [next(response) for _ in range(3)] == [b"0\n", b"1\n", b"2\n"]
        assert seen[1:] == ["CancelledError"]
        assert client.head("/later").body == b""
        assert client.get("/nowhere").status == 404


def test_mounts_are_asked_by_path_and_share_their_state() -> None:
    """One is Flask's; what the lifespan of the other has made, both find."""
    shop = flask.Flask(__name__)

    @shop.get("/")
    def index() -> Any:
        environ = flask.request.environ
        return {"state": sorted(environ["bide.state"]), "root": environ["SCRIPT_NAME"]}

    ended: list[str] = []

    async def live(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["pool"] = "of both"
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            ended.append("lifespan")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await inner(scope, receive, send)

    inner = site()
    with Client(bide.mount({"/": shop, "/live": live})) as client:
        assert client.get("/").json() == {"state": ["pool"], "root": ""}
        answer = client.get("/live/echo").json()
        assert (answer["root"], answer["path"]) == ("/live", "/live/echo")
        assert answer["state"] == ["pool"]
        assert not ended
        with client.stream("GET", "/live/stream") as response:
            next(response)
            client.until_waiting(1)
    assert ended == ["lifespan"]


def test_what_an_asgi_application_raises_is_raised_in_the_test(log: Log) -> None:
    """Or it is logged, and answered 500; a response that is not complete is an error as well."""

    async def half(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    with Client(site()) as client:
        with pytest.raises(LookupError, match="in a coroutine"):
            client.get("/fail")
        assert client.get("/fail", raise_errors=False).status == 500
    log.failure()
    with Client(half) as client:
        with pytest.raises(bide.LocalProtocolError, match="before its response's end"):
            client.get("/")
        with pytest.raises(IncompleteResponse):
            client.get("/", raise_errors=False)
    log.take("without more_body is missing")


def test_an_asgi_application_that_is_not_in_time_is_named_with_what_it_awaits() -> None:
    """By the lines of its coroutines."""
    with Client(site()) as client, pytest.raises(Overdue, match=r"await asyncio\.Event\(\)\.wait"):
        client.get("/wait", timeout=SHORT)


def test_a_websocket_of_an_asgi_application_is_opened_as_any(log: Log) -> None:
    """Mounted, with a subprotocol; refused; in error; and its end is told to both sides."""
    seen: list[Any] = []

    async def talk(socket: WebSocket) -> None:
        await socket.accept("v1", headers=[(b"x-root", socket.scope["root_path"].encode())])
        try:
            while True:
                await socket.send_json([await socket.receive_text()])
        except WebSocketDisconnect as gone:
            seen.append((gone.code, gone.reason))
            raise

    async def refuse(socket: WebSocket) -> None:
        if socket.query_params:
            await socket.send_denial_response(PlainTextResponse("not you", status_code=401))
        else:
            await socket.close()

    async def fail(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        raise LookupError("in a coroutine")

    async def close(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4000, "enough")

    routes = [WebSocketRoute(f"/{each.__name__}", each) for each in (talk, refuse, fail, close)]
    with Client(bide.mount({"/live": Starlette(routes=routes)})) as client:
        for code, reason in ((1000, ""), (4001, "bye")):
            with client.websocket("/live/talk", subprotocols=["v2", "v1"]) as socket:
                assert (socket.subprotocol, socket.headers["x-root"]) == ("v1", "/live")
                socket.send("hello")
                assert socket.receive_json() == ["hello"]
                socket.close(code, reason)
        with client.websocket("/live/talk", subprotocols=["v1"]) as socket:
            with pytest.raises(Overdue, match=r"await socket\.receive_text"):
                socket.receive(timeout=SHORT)
            socket.leave()
        assert seen == [(1000, ""), (4001, "bye"), (1006, "")]
        for path, status in [("refuse", 403), ("refuse?why", 401), ("nowhere", 403)]:
            with pytest.raises(WebSocketRefused) as refused:
                client.websocket(f"/live/{path}")
            assert refused.value.response.status == status
        with client.websocket("/live/fail") as socket:
            socket.send("x")
            with pytest.raises(LookupError, match="in a coroutine"):
                socket.receive()
        with client.websocket("/live/close") as socket, pytest.raises(WebSocketClosed) as closed:
            list(socket)
        assert (closed.value.code, closed.value.reason) == (4000, "enough")
        last = client.websocket("/live/talk", subprotocols=["v1"])
    with pytest.raises(WebSocketClosed) as closed:
        last.receive()
    assert closed.value.code == 1012


def test_a_client_whose_application_has_no_interface_is_not_opened() -> None:
    """It says which arguments an application takes."""

    def neither(one: Any) -> None:
        raise AssertionError

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise LookupError("no database")

    applications: list[tuple[Any, str]] = [
        (neither, "is not a WSGI application"),
        (fails, "no database"),
    ]
    for application, what in applications:
        with pytest.raises(bide.StartError, match=what), Client(application):
            raise AssertionError
