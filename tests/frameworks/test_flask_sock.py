"""Flask-Sock and simple-websocket as they come: their sockets are Bide's, and hold no thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import simple_websocket
from flask import Flask
from flask_sock import Sock

from bide.integrations import simple_websocket as integration
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import DEADLINE, Log, until
from tests.websocket_clients import client_of, end_of

SOCKETS = 20


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """Have the library as it comes, and leave it so to other tests."""
    integration.uninstall()
    yield
    integration.uninstall()


def make_site(ended: list[tuple[int, str | None]]) -> Flask:
    app = Flask(__name__)
    app.config["SOCK_SERVER_OPTIONS"] = {
        "ping_interval": 25,
        "subprotocols": ["chat"],
        "max_message_size": 1000,
    }
    sock = Sock(app)

    @sock.route("/echo")  # type: ignore[untyped-decorator]
    def echo(ws: Any) -> None:
        try:
            while True:
                ws.send(ws.receive())
        except simple_websocket.ConnectionClosed as closed:
            assert not ws.connected
            ended.append((closed.reason, closed.message))
            raise

    @sock.route("/once")  # type: ignore[untyped-decorator]
    def once(ws: Any) -> None:
        assert ws.connected
        ws.send(str(ws.receive(timeout=0)))
        ws.send(f"{ws.mode} {ws.subprotocol} {ws.receive(timeout=DEADLINE)}")

    @sock.route("/close")  # type: ignore[untyped-decorator]
    def close(ws: Any) -> None:
        ws.close(4000, "bye")
        for use in (ws.close, ws.receive, lambda: ws.send("late")):
            with pytest.raises(simple_websocket.ConnectionClosed):
                use()

    @app.get("/page")
    def page() -> str:
        return "page"

    return app


def test_flask_sock_s_views_receive_without_a_thread(serve: Serve, log: Log) -> None:
    """Many at once on the one thread, and a page beside them; and their ends are told."""
    ended: list[tuple[int, str | None]] = []
    served = serve(make_site(ended), threads=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(client_of(served, "/echo")) for _ in range(SOCKETS)]
        served.until_waiting(SOCKETS)
        until(lambda: served.status.threads_busy == 0)
        names = [each.name for each in threading.enumerate()]
        assert not [each for each in names if "simple_websocket" in each]
        assert served.get("/page").body == b"page"
        for number, client in enumerate(clients):
            client.send(f"message {number}")
            client.send(bytes([number]))
        for number, client in enumerate(clients):
            assert client.recv(timeout=DEADLINE) == f"message {number}"
            assert client.recv(timeout=DEADLINE) == bytes([number])
        for client in clients:
            client.close(4001, "left")
        until(lambda: len(ended) == SOCKETS)
        assert set(ended) == {(4001, "left")}
    served.until_idle()
    assert "simple_websocket.Server uses Bide's WebSockets" in log.take("simple_web").getMessage()


def test_what_flask_sock_s_views_may_do(serve: Serve) -> None:
    """Subprotocols, time-outs, closing, and a bound of the socket's own."""
    served = serve(make_site([]))
    with Failures() as failures:
        with failures.of("once"), client_of(served, "/once", subprotocols=["x", "chat"]) as client:
            same(client.recv(timeout=DEADLINE), "None")
            client.send("hello")
            same(client.recv(timeout=DEADLINE), "bide chat hello")
            same(end_of(client)[0], 1000)
        for path, code, word in (("/close", 4000, ""), ("/echo", 1009, "x" * 1001)):
            with failures.of(path), client_of(served, path) as client:
                if word:
                    client.send(word)
                same(end_of(client)[0], code)
        with failures.of("page"):
            same(served.get("/page").body, b"page")
    served.until_idle()


def test_a_server_that_stops_ends_flask_sock_s_views(serve: Serve, log: Log) -> None:
    """With 1012, as any of Bide's."""
    ended: list[tuple[int, str | None]] = []
    served = serve(make_site(ended))
    with client_of(served, "/echo") as client:
        served.until_waiting(1)
        served.begin_stop()
        assert end_of(client)[0] == 1012
    served.join(leaving=True)
    assert ended == [(1012, "the server stops")]


def test_a_class_of_one_s_own_chooses_the_subprotocol_and_elsewhere_nothing_changes() -> None:
    """The methods are set on the class itself, for those without Bide's key as they were."""
    before = {name: getattr(simple_websocket.Server, name) for name in ("send", "receive", "close")}
    with pytest.raises(RuntimeError, match="Cannot obtain socket"):
        simple_websocket.Server({})
    undo = integration.install()
    integration.install()()
    with pytest.raises(RuntimeError, match="Cannot obtain socket"):
        simple_websocket.Server({})

    class Own(simple_websocket.Server):  # type: ignore[misc]
        def choose_subprotocol(self, request: Any) -> str:
            assert not self.subprotocols
            return str(request.subprotocols[-1])

    accepted: list[str | None] = []

    class Socket:
        subprotocols = ("a", "b")
        closed = False

        def accept(self, subprotocol: str | None) -> None:
            accepted.append(subprotocol)

    own = Own({"bide.websocket": Socket()}, None, 4096, None)
    assert (accepted, own.subprotocol, own.mode, own.connected) == (["b"], "b", "bide", True)
    undo()
    after = {name: getattr(simple_websocket.Server, name) for name in before}
    assert after == before
    assert "connected" not in vars(simple_websocket.Server)
