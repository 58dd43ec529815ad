"""WebSockets as streams of HTTP/2 (RFC 8441), of both interfaces, with others' client code."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from flask import Flask
from flask import request as flask_request

import bide
from bide import WebSocketClosed
from bide.protocols.websocket import connection
from bide.seeing.snapshot import snapshot
from bide.serving import counters
from tests.asgi.sites import Receive, Scope, Send, accept, echo_messages
from tests.asgi.sites import opening as opening_asgi
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.http2_sockets import Line
from tests.served import DEADLINE, Environ, Gate, Log, Served, happened, until
from tests.websocket_clients import client_of

LIMIT = 5.0


def opening(function: Callable[[bide.WebSocket], object]) -> Any:
    """Make an application: ``/page`` is a page, any other path a WebSocket that a function has."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/page":
            start_response("200 OK", [])
            return [b"page"]
        function(bide.websocket(environ))
        return []

    return application


def echo(socket: bide.WebSocket) -> None:
    """Send back what comes."""
    for message in socket:
        socket.send(message)


def echoes(line: Line, deflate: bool = False) -> None:
    """Check that messages of every kind and size come back, and that an end is answered."""
    socket = line.open(deflate=deflate).opened()
    same(bool(socket.protocol.extensions), deflate)
    for message in ("", "hi", b"bytes", "é€" * 5, "x" * 70_000, bytes(300_000)):
        socket.send(message)
        assert socket.receive() == message
    socket.close(4000)
    same(socket.closed(), 4000)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("deflate", [True, False])
def test_messages_of_every_kind_and_size_come_back(
    serve: Serve, interface: str, deflate: bool
) -> None:
    """Compressed and not; no thread is held between them."""
    application = opening(echo) if interface == "wsgi" else opening_asgi(echo_messages)
    served = serve(application)
    line = Line(served)
    echoes(line, deflate)
    echoes(line, deflate)
    waiting = line.open().opened()
    served.until_waiting(1) if interface == "wsgi" else until(lambda: served.server.requests())
    [request] = served.server.requests()
    same((request.protocol, request.method), ("websocket", "GET"))
    until(lambda: served.status.threads_busy == 0)
    waiting.close()
    same(waiting.closed(), 1000)
    served.until_idle()


def test_views_of_frameworks_work_as_they_are(serve: Serve) -> None:
    """Flask's routes with ``websocket=True``, and FastAPI's, on one connection with their pages."""
    flask = Flask("chat")

    @flask.route("/chat", websocket=True)
    def chat() -> str:
        socket = bide.websocket(flask_request.environ)
        for message in socket:
            protocol = flask_request.environ["SERVER_PROTOCOL"]
            socket.send(f"{flask_request.method} {protocol} {flask_request.path} {message!s}")
        return "ignored"

    @flask.route("/page")
    def page() -> str:
        return "page"

    fast = FastAPI()

    @fast.websocket("/chat")
    async def fast_chat(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="b")
        scope = websocket.scope
        text = await websocket.receive_text()
        await websocket.send_text(f"{scope['type']} {scope['http_version']} {scope['path']} {text}")
        await websocket.close()

    served = serve(bide.mount({"/": flask, "/fast": fast}))
    line = Line(served)
    socket = line.open("/chat").opened()
    other = line.open("/fast/chat", [("sec-websocket-protocol", "a, b")]).opened()
    same(other.answer.headers["sec-websocket-protocol"], "b")
    socket.send("a")
    same(socket.receive(), "GET HTTP/2 /chat a")
    same(line.get("/page").body, b"page")
    other.send("b")
    same(other.receive(), "websocket 2 /fast/chat b")
    same(other.closed(), 1000)
    socket.close()
    same(socket.closed(), 1000)
    served.until_idle()


def test_the_scope_is_as_over_http_1(serve: Serve) -> None:
    """But for its version: type, scheme, headers and extensions are the same."""
    scopes: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await accept(receive, send)
        await send({"type": "websocket.close"})

    served = serve(opening_asgi(look))
    line = Line(served)
    same(line.open("/a%20b?c=d").opened().closed(), 1000)
    served.until_idle()
    [scope] = scopes
    same((scope["type"], scope["http_version"]), ("websocket", "2"))
    same(scope["scheme"], "wss" if line.scheme == "https" else "ws")
    same((scope["path"], scope["query_string"]), ("/a b", b"c=d"))
    assert "method" not in scope
    headers = dict(scope["headers"])
    same((headers[b"upgrade"], headers[b"host"]), (b"websocket", b"test"))
    extensions = set(scope["extensions"]) - {"tls"}
    same(extensions, {"websocket.http.response", "bide.drain"})


def test_one_that_is_refused_is_answered_and_the_connection_goes_on(serve: Serve) -> None:
    """By the view, by what is wrong with the request, or for a page that has no WebSocket."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/open":
            bide.websocket(environ).accept()
            return []
        assert ("bide.websocket" in environ) == (environ.get("HTTP_UPGRADE") == "websocket")
        start_response("403 Forbidden", [("X-Why", "because")])
        return [b"no"]

    async def closing(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    served = serve(bide.mount({"/": application, "/asgi": opening_asgi(closing)}))
    line = Line(served)
    with Failures() as failures:
        for path, headers, status in (
            ("/", [], 403),
            ("/asgi", [], 403),
            ("/open", [("sec-websocket-extensions", "a b")], 400),
            ("/asgi", [("sec-websocket-extensions", "a b")], 400),
        ):
            with failures.of((path, status)):
                socket = line.open(path, list(headers))
                line.read(socket.number)
                same(socket.answer.status, status)
    same(line.get("/open").status, 400)
    same(line.get("/").status, 403)
    served.until_idle()


def test_many_sockets_and_pages_share_a_connection(serve: Serve) -> None:
    """Each gets its own messages; a broadcast reaches all of them."""
    sockets: list[bide.WebSocket] = []

    def keep(socket: bide.WebSocket) -> None:
        socket.accept()
        sockets.append(socket)
        echo(socket)

    served = serve(opening(keep))
    line = Line(served)
    each = [line.open().opened() for _ in range(50)]
    until(lambda: len(sockets) == 50)
    numbers = [line.ask("/page") for _ in range(20)]
    for number, socket in enumerate(each):
        socket.send(f"{number} " + "x" * 2000)
    for number, socket in enumerate(each):
        assert str(socket.receive()).split()[0] == str(number)
    for number in numbers:
        same(line.read(number).body, b"page")
    same(bide.broadcast(sockets, "to all"), 50)
    for socket in each:
        same(socket.receive(), "to all")
    same(served.status.connections, 1)
    for socket in each:
        socket.close()
        same(socket.closed(), 1000)
    served.until_idle()


def test_a_slow_socket_stops_no_other_stream(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up for itself, by ``min_rate``; its view goes on with WebSocketClosed.

    Without pings: nobody reads the other one's while the time is moved on.
    """
    monkeypatch.setattr(connection, "PING", math.inf)
    ended: list[int] = []

    def view(socket: bide.WebSocket) -> None:
        try:
            if socket.receive() == "flood":
                while True:
                    socket.send(bytes(100_000))
            echo(socket)
        except WebSocketClosed as closed:
            ended.append(closed.code)

    served = serve(opening(view), idle_timeout=LIMIT)
    line = Line(served)
    slow, other = line.open().opened(), line.open().opened()
    line.stalled.add(slow.number)
    slow.send("flood")
    served.until_waiting(2)  # one waits for its client, the other for a message
    other.send("do not")
    other.send("here")
    same(other.receive(), "here")
    same(line.get("/page").body, b"page")
    served.advance_until(lambda: ended, LIMIT)
    same(ended, [1006])
    line.until(lambda: slow.answer.reset is not None)
    log.take("a client that reads too slowly is disconnected")
    other.send("still here")
    same(other.receive(), "still here")


def test_a_view_that_does_not_receive_stops_its_own_client_alone(serve: Serve) -> None:
    """Its window shuts; what waits is bounded; nothing is lost."""
    gate = Gate()
    sizes: list[int] = []

    def view(socket: bide.WebSocket) -> None:
        socket.accept()
        bide.wait(gate.promise())
        sizes.extend(len(message) for message in socket)

    served = serve(opening(view))
    line = Line(served)
    slow = line.open().opened()
    count = 0
    while line.h2.local_flow_control_window(slow.number) > 20_000:
        slow.send(bytes(10_000))
        count += 1
        served.call(lambda: None)
        line.get("/page")  # what the server has credited has come
    assert count * 10_000 < 4 * 65_535
    same(line.get("/page").body, b"page")
    gate.open()
    for _ in range(20):
        slow.send(bytes(10_000))
    slow.close()
    same(slow.closed(), 1000)
    served.until_idle()
    same(sizes, [10_000] * (count + 20))
    same(served.server.unread_total.used, 0)


def test_what_ends_a_socket_is_told_to_the_view_that_waits(serve: Serve) -> None:
    """A reset stream, one that ends, and the connection's loss; other streams go on."""
    told: list[object] = []
    ended = threading.Event()

    def keep(socket: bide.WebSocket) -> None:
        try:
            told.append(list(socket))
        except WebSocketClosed as closed:
            told.append(closed.code)
        ended.set()

    served = serve(opening(keep))
    cases: dict[str, tuple[Callable[[Any, Line], object], object]] = {
        "close": (lambda it, _: it.close(), []),
        "reset": (lambda it, _: it.reset(), 1006),
        "end": (lambda it, _: it.end(), 1006),
        "loss": (lambda _, line: line.client.reset(), 1006),
        "departure": (lambda _, line: line.client.close(), 1006),
        "half close": (lambda _, line: line.client.half_close(), 1006),
    }
    with Failures() as failures:
        for name, (end, expected) in cases.items():
            if name == "half close" and served.context is not None:
                continue
            with failures.of(name):
                line = Line(served)
                socket = line.open().opened()
                served.until_waiting(1)
                end(socket, line)
                happened(ended)
                ended.clear()
                served.until_idle()
                same(told.pop(), expected)
                if name in ("close", "reset", "end"):
                    same(line.get("/page").body, b"page")


def test_a_client_that_resets_before_it_is_accepted_is_told(serve: Serve) -> None:
    """The view's accept, or its wait, raises; nothing of the stream is left."""
    gate = Gate()
    raised: list[str] = []

    def view(socket: bide.WebSocket) -> None:
        try:
            bide.wait(gate.promise())
            socket.accept()
        except bide.ClientDisconnected as gone:
            raised.append(type(gone).__name__)
            raise

    served = serve(opening(view))
    line = Line(served)
    socket = line.open()
    served.until_waiting(1)
    socket.reset()
    served.until_idle()
    same(raised, ["ClientDisconnected"])
    same(line.get("/page").body, b"page")
    until(lambda: not served.connections[0]._streams)


def test_each_connection_is_counted_once_by_what_it_speaks(serve: Serve) -> None:
    """However many sockets it carries; these are counted as such, on whatever they are."""
    served = serve(opening(echo))
    before = snapshot()["connections"]
    line = Line(served)
    each = [line.open().opened() for _ in range(3)]
    with client_of(served) as alone, closing(served.connect(over_http2=False)):
        alone.send("hi")
        same(alone.recv(timeout=DEADLINE), "hi")
        until(lambda: served.status.connections == 3)
        seen = snapshot()
        same(seen["counts"]["websockets"], 4)
        same(
            {name: seen["connections"][name] - before[name] for name in before},
            {"http/1": 1, "http/2": 1, "websocket": 1},
        )
    for socket in each:
        socket.close()
        same(socket.closed(), 1000)
    until(lambda: snapshot()["counts"]["websockets"] == 0)
    until(lambda: snapshot()["connections"] == {**before, "http/2": before["http/2"] + 1})


def test_a_server_that_stops_closes_its_sockets(serve: Serve) -> None:
    """Close code 1012 on each stream, and the connection ends when both have answered."""
    served = serve(opening(echo))
    line = Line(served)
    each = [line.open().opened() for _ in range(2)]
    served.until_waiting(2)
    served.begin_stop()
    for socket in each:
        same(socket.close_code(), 1012)
    served.join()


def test_time_outs_of_requests_do_not_end_a_socket(serve: Serve) -> None:
    """Of requests, responses and idle connections; a client that answers no ping is ended."""
    served = serve(opening(echo), idle_timeout=LIMIT, request_timeout=LIMIT, response_timeout=LIMIT)
    line = Line(served)
    socket = line.open().opened()
    served.until_waiting(1)
    served.advance(10.0)
    served.advance(11.0)
    same(served.status.waiting, 1)
    served.advance(21.0)  # nobody has read the ping
    served.until_idle()
    same(socket.close_code(), 1011)
    same(line.get("/page").body, b"page")


def test_pings_are_answered_and_keep_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of each socket is its own."""
    monkeypatch.setattr(connection, "PING", 3.0)
    served = serve(opening(echo))
    line = Line(served)
    socket = line.open().opened()
    for number in range(4):
        served.until_waiting(1)
        served.advance(4.0)
        socket.send(str(number))
        same(socket.receive(), str(number))


def test_it_is_counted_with_the_status_that_was_sent(serve: Serve) -> None:
    """As one request of HTTP/2."""
    seen: list[tuple[int, str, str]] = []

    def count(call: Any) -> None:
        key = counters.key_of(call)
        seen.append((key[2], key[3], key[0]))

    served: Served = serve(opening(echo), ended=count)
    line = Line(served)
    socket = line.open().opened()
    socket.send("a")
    same(socket.receive(), "a")
    socket.close()
    same(socket.closed(), 1000)
    served.until_idle()
    until(lambda: seen)
    same(seen, [(200, "2", "GET")])
