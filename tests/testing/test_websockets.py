"""WebSockets of the client of applications' tests, without sockets."""

from typing import Any

import flask
import pytest

import bide
from bide import WebSocketClosed, wait
from bide.testing import Client, Overdue, WebSocketRefused
from tests.failures import Failures
from tests.served import Environ, Gate, Log, until

SHORT = 0.05
"""Seconds of a time-out that is to be reached."""


pytestmark = pytest.mark.usefixtures("all_ends")


def viewed(view: Any) -> Any:
    """Make an application whose one view has the WebSocket."""

    def application(environ: Environ, start_response: Any) -> Any:
        return view(bide.websocket(environ)) or []

    return application


def echo(socket: bide.WebSocket) -> None:
    """Send back what comes."""
    for message in socket:
        socket.send(message)


def test_a_test_sends_and_receives_text_bytes_and_json() -> None:
    """On threads and on the loop; leaving the block closes, and the view's loop ends."""
    with Failures() as failures:
        for executor in ("threads", "loop"):
            with (
                failures.of(executor),
                Client(viewed(echo), executor=executor) as client,
                client.websocket("/") as socket,
            ):
                for message in ("höre", "", b"\0\xff"):
                    socket.send(message)
                assert [socket.receive() for _ in range(3)] == ["höre", "", b"\0\xff"]
                socket.send_json({"a": [1]})
                assert socket.receive_json() == {"a": [1]}
                with pytest.raises(TypeError):
                    socket.send(1)  # type: ignore[arg-type]


def test_a_flask_view_is_found_by_its_route_and_sees_the_request() -> None:
    """Flask looks for the headers of the handshake; cookies go both ways."""
    app = flask.Flask(__name__)
    app.secret_key = "a test's"

    @app.route("/log-in", methods=["POST"])
    def log_in() -> str:
        flask.session["name"] = "Ada"
        return ""

    @app.route("/chat", websocket=True)
    def chat() -> str:
        socket = bide.websocket(flask.request.environ)
        socket.accept("v1", headers=[("Set-Cookie", "seen=1"), ("X-Room", "main")])
        name = f"{flask.session['name']} in {flask.request.args['room']}"
        socket.send(f"{name}, {flask.request.headers['Origin']}")
        return ""

    with Client(app) as client:
        client.post("/log-in")
        with client.websocket(
            "ws://localhost/chat",
            query={"room": "main"},
            subprotocols=["v2", "v1"],
            headers={"Origin": "http://localhost"},
        ) as socket:
            assert (socket.subprotocol, socket.headers["x-room"]) == ("v1", "main")
            assert list(socket) == ["Ada in main, http://localhost"]
        assert {each.name: each.value for each in client.cookies}["seen"] == "1"


def test_sockets_that_wait_hold_no_thread_and_hear_each_other() -> None:
    """As on a server: the client's counts say so."""
    room: list[bide.WebSocket] = []

    def view(socket: bide.WebSocket) -> None:
        socket.accept()
        room.append(socket)
        for message in socket:
            bide.broadcast(room, message)

    with Client(viewed(view), threads=1) as client:
        sockets = [client.websocket("/") for _ in range(20)]
        client.until_waiting(20)
        until(lambda: client.status().threads_busy == 0)
        assert client.status().threads == 1
        sockets[3].send("hello")
        assert {socket.receive() for socket in sockets} == {"hello"}
        for socket in sockets:
            socket.close()
        client.until_waiting(0)


def test_how_a_socket_ends_is_told_to_both_sides() -> None:
    """The view's code to the test, and the test's to the view."""
    ends: list[tuple[int, str]] = []

    def listens(socket: bide.WebSocket) -> None:
        try:
            while True:
                socket.receive()
        except WebSocketClosed as closed:
            ends.append((closed.code, closed.reason))

    with Client(viewed(listens)) as client:
        for code, reason in ((1000, ""), (4001, "bye"), (1006, "")):
            with client.websocket("/") as socket:
                socket.send("before the end")
                if code == 1006:
                    socket.leave()
                else:
                    socket.close(code, reason)
                with pytest.raises(WebSocketClosed):
                    socket.receive()
                with pytest.raises(WebSocketClosed):
                    socket.send("too late")
    assert ends == [(1000, ""), (4001, "bye"), (1006, "")]

    with Client(viewed(lambda socket: socket.close(4000, "enough"))) as client:
        with client.websocket("/") as socket, pytest.raises(WebSocketClosed, match="enough"):
            list(socket)
        assert socket.closed is not None
        assert (socket.closed.code, socket.closed.reason) == (4000, "enough")


def test_a_view_that_does_not_accept_is_an_error_with_its_answer() -> None:
    """The view has ended when the test has it."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("403 Forbidden", [("X-Why", "no name")])
        return [b"who are you?"]

    with Client(application) as client:
        with pytest.raises(WebSocketRefused, match="403 Forbidden") as refused:
            client.websocket("/")
        response = refused.value.response
        assert (response.status, response.text) == (403, "who are you?")
        assert response.headers["x-why"] == "no name"
        assert not client.status().running


def test_what_a_view_raises_is_raised_in_the_test(log: Log) -> None:
    """Before it accepts, and after; or it is logged, and the socket closed with 1011."""

    def early(socket: bide.WebSocket) -> None:
        raise LookupError("too early")

    def late(socket: bide.WebSocket) -> None:
        socket.send("one")
        socket.receive()
        raise LookupError("later")

    with Client(viewed(early)) as client, pytest.raises(LookupError, match="too early"):
        client.websocket("/")
    with Client(viewed(late)) as client:
        with client.websocket("/") as socket:
            socket.send("x")
            assert socket.receive() == "one"
            with pytest.raises(LookupError, match="later"):
                socket.receive()
        with pytest.raises(LookupError, match="later"), client.websocket("/") as socket:
            socket.send("x")  # it is raised when the block is left
        with client.websocket("/", raise_errors=False) as socket:
            socket.send("x")
            assert socket.receive() == "one"
            with pytest.raises(WebSocketClosed) as closed:
                socket.receive()
            assert closed.value.code == 1011
    log.failure()


def test_a_view_that_is_not_in_time_is_named_with_what_it_does() -> None:
    """An answer or a message that does not come, and a view that takes no more."""
    gate = Gate()

    def view(socket: bide.WebSocket) -> None:
        if "slow" in socket.subprotocols:
            wait(gate.promise())
        socket.accept()
        wait(gate.promise())
        echo(socket)

    with Client(viewed(view)) as client:
        with pytest.raises(Overdue, match=r"it waits(.|\n)*gate\.promise"):
            client.websocket("/", subprotocols=["slow"], timeout=SHORT)
        socket = client.websocket("/")
        with pytest.raises(Overdue, match=r"the next message(.|\n)*gate\.promise"):
            socket.receive(timeout=SHORT)
        socket.send("x" * 70_000)
        with pytest.raises(Overdue, match=r"gate\.promise"):
            socket.send("y", timeout=SHORT)
        gate.open()
        socket.send("y")  # the view has taken what was before it
        assert [len(socket.receive()), socket.receive()] == [70_000, "y"]
        socket.close()


def test_a_view_waits_while_the_test_takes_nothing() -> None:
    """A test that does not receive is a slow client."""
    made: list[int] = []

    def floods(socket: bide.WebSocket) -> None:
        for number in range(20):
            socket.send("x" * 70_000)
            made.append(number)

    with Client(viewed(floods)) as client, client.websocket("/") as socket:
        client.until_waiting(1)
        assert len(made) < 5
        assert len(list(socket)) == 20


def test_a_client_that_is_closed_closes_its_sockets_with_1012() -> None:
    """As a server that stops."""
    ended = []

    def view(socket: bide.WebSocket) -> None:
        echo(socket)
        ended.append("the loop")

    with Client(viewed(view)) as client:
        socket = client.websocket("/")
        client.until_waiting(1)
    with pytest.raises(WebSocketClosed) as closed:
        socket.receive()
    assert closed.value.code == 1012
    assert ended == ["the loop"]
