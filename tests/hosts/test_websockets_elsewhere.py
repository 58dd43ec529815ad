"""``bide.websocket`` under other servers: the same view, which keeps its thread there."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.failures import Failures, same
from tests.live.processes import Program
from tests.served import DEADLINE, Client, request
from tests.websocket_clients import end_of

MODULE = """
import bide
from flask import Flask, request

app = Flask(__name__)
kept = []


@app.route("/echo", websocket=True)
def echo():
    socket = bide.websocket(request.environ)
    assert bide.websocket(request.environ) is socket
    for message in socket:
        if message == "return":
            break
        if message == "raise":
            raise LookupError("the test's")
        if message == "close":
            socket.close(4000, "bye")
        socket.send(message)
    kept.append(socket)  # what keeps it does not keep it open
    return "ignored " * 1000


@app.route("/late", websocket=True)
def late():
    socket = bide.websocket(request.environ)
    socket.accept(subprotocol="b")
    try:
        socket.receive(timeout=0)
    except TimeoutError:
        socket.send("nothing yet")
    try:
        socket.receive(timeout=1000)
    finally:
        socket.send("x" * 3_000_000)
    return ""


@app.route("/denied", websocket=True)
def denied():
    bide.websocket(request.environ)
    return "no", 403


@app.get("/page")
def page():
    try:
        bide.websocket(request.environ)
    except bide.RemoteProtocolError as error:
        return str(error), error.status


wrapped = bide.blocking(app)

if __name__ == "__main__":
    app.run(port=0)
"""
GUNICORN = ["-m", "gunicorn", "-b", "127.0.0.1:0"]
SERVERS = {
    "Werkzeug": (["talking.py"], "Running on"),
    "gunicorn gthread": ([*GUNICORN, "--threads", "4", "talking:app"], "Listening at"),
    "gunicorn gthread, blocking": (
        [*GUNICORN, "--threads", "4", "talking:wrapped"],
        "Listening at",
    ),
}
REFUSED = {
    "gunicorn sync": ([*GUNICORN, "talking:app"], "Listening at", "gthread"),
    "waitress": (
        ["-m", "waitress", "--listen=127.0.0.1:0", "talking:app"],
        "Serving on",
        "waitress",
    ),
}
Start = Callable[..., tuple[Program, str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server of the module as a process; give it and its address."""
    (tmp_path / "talking.py").write_text(MODULE)
    programs = []

    def begin(*arguments: str, says: str) -> tuple[Program, str]:
        program = Program([sys.executable, *arguments], tmp_path)
        programs.append(program)
        return program, program.until(says).partition("http://")[2].split()[0]

    yield begin
    for program in programs:
        program.signal(signal.SIGTERM)
        program.wait()
        program.close()


@pytest.mark.parametrize("server", SERVERS)
def test_a_view_s_websocket_works_under_other_servers(server: str, start: Start) -> None:
    """Every kind of message and of end; and ordinary pages beside it."""
    arguments, says = SERVERS[server]
    _, address = start(*arguments, says=says)
    url = f"ws://{address}"
    with Failures() as failures:
        with failures.of("messages"), connect(f"{url}/echo") as client:
            for message in ("hi", b"bytes", "é" * 70_000, bytes(300_000)):
                client.send(message)
                same(client.recv(timeout=DEADLINE), message)
            assert client.ping().wait(DEADLINE)
        for word, code in {"return": 1000, "raise": 1011, "close": 4000}.items():
            with failures.of(word), connect(f"{url}/echo") as client:
                client.send(word)
                same(end_of(client)[0], code)
        options: dict[str, Any] = {"subprotocols": ["a", "b"], "max_size": None}
        with failures.of("time-outs"), connect(f"{url}/late", **options) as client:
            same(client.subprotocol, "b")
            same(client.recv(timeout=DEADLINE), "nothing yet")
            client.send("go")
            same(len(client.recv(timeout=DEADLINE)), 3_000_000)
        with failures.of("denied"), pytest.raises(InvalidStatus, match="403"):
            connect(f"{url}/denied").close()
        with failures.of("page"):
            page = Client(address)
            page.send(request("/page", headers=["Connection: close"]))
            same(page.response().status, 426)
            page.close()


@pytest.mark.parametrize("server", REFUSED)
def test_a_server_that_cannot_is_named_in_one_error(server: str, start: Start) -> None:
    """The view's 500, and the error with its remedy in the server's log."""
    arguments, says, named = REFUSED[server]
    program, address = start(*arguments, says=says)
    with pytest.raises(InvalidStatus, match="500"):
        connect(f"ws://{address}/echo").close()
    assert named in program.until("bide.errors.BideError: bide.websocket()")
