"""WebSockets of an ASGI application in processes: several workers, and what is loaded when."""

import contextlib
import signal
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import DEADLINE, until
from tests.websocket_clients import end_of

SOURCE = """
import os, sys

LATE = ("bide.asgi.websocket", "bide.protocols.websocket.connection", "websockets")

async def app(scope, receive, send):
    if scope["type"] == "http":
        loaded = " ".join(each for each in LATE if each in sys.modules)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": loaded.encode()})
        return
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``mysite``."""
    (tmp_path / "mysite.py").write_text(SOURCE)


def test_each_worker_has_sockets_and_all_close_them_when_they_stop(start: Start) -> None:
    """With 1012; nobody is left behind."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--workers", "2")
    address = program.serving()
    workers: set[str] = set()
    with contextlib.ExitStack() as opened:
        sockets: list[ClientConnection] = []

        def both() -> bool:
            sockets.append(opened.enter_context(connect(f"ws://{address}/")))
            workers.add(str(sockets[-1].recv(timeout=DEADLINE)))
            return len(workers) == 2

        until(both, "one worker has all the sockets")
        for number, socket in enumerate(sockets):
            socket.send(str(number))
            assert socket.recv(timeout=DEADLINE) == str(number)
        program.signal(signal.SIGTERM)
        for socket in sockets:
            assert end_of(socket)[0] == 1012
    assert program.wait() == 0


def test_what_speaks_the_protocol_is_loaded_at_the_first_socket(start: Start) -> None:
    """A server that is asked for none does without."""
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    address = program.serving()
    assert get(address, "/").text == ""
    with connect(f"ws://{address}/") as socket:
        socket.recv(timeout=DEADLINE)
        assert len(get(address, "/").text.split()) == 3
