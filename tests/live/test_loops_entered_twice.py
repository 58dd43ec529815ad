"""A request on the event loop runs the loop again (nest_asyncio): a call that blocks, no more."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import Program
from tests.served import DEADLINE, Client, request

APP = """
import asyncio, concurrent.futures, sys
import nest_asyncio
import bide

parked = concurrent.futures.Future()


async def held(port):  # until the test closes the connection
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    print("nested", file=sys.stderr, flush=True)
    await reader.read()
    writer.close()


async def nested(port):
    parked.set_result("resumed")
    await held(port)
    try:
        bide.wait(asyncio.sleep(0))
    except bide.WaitError as error:
        return str(error)


@bide.capable("async")
def app(environ, start_response):
    path, port = environ["PATH_INFO"], int(environ["QUERY_STRING"] or 0)
    body = path
    if path == "/parked":
        body = bide.wait(parked)
    elif path.startswith("/nested"):
        if path.endswith("resumed"):  # not in the midst of a batch of sockets
            bide.wait(asyncio.sleep(0))
        nest_asyncio.apply()
        body = asyncio.get_event_loop().run_until_complete(nested(port))
        bide.wait(asyncio.sleep(0))
    start_response("200 OK", [])
    return [body.encode()]
"""


@pytest.fixture
def holder() -> Iterator[socket.socket]:
    """Return a listener for what a nested loop waits for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        yield listener


@pytest.fixture
def program(start: Start, tmp_path: Path) -> Program:
    """Start the application; nest_asyncio's own warnings are its own."""
    (tmp_path / "app.py").write_text(APP)
    return start("app:app", "--bind", "127.0.0.1:0", PYTHONWARNINGS="default")


@pytest.mark.parametrize("path", ["/nested", "/nested-resumed"])
def test_requests_go_on_when_the_nested_loop_has_ended(
    program: Program, holder: socket.socket, path: str
) -> None:
    """Those that came meanwhile begin, what waited is resumed; a wait inside is refused."""
    address = program.serving()
    parked, nested, late, again = (Client(address) for _ in range(4))
    parked.send(request("/parked"))
    nested.send(request(f"{path}?{holder.getsockname()[1]}"))
    held, _ = holder.accept()
    program.until("nested")
    late.send(request("/late"))
    nested.send(request("/after"))
    assert parked.is_silent()
    held.close()
    assert nested.response().text.startswith("an event loop that runs below a request")
    assert nested.response().text == "/after"
    assert parked.response().text == "resumed"
    assert late.response().text == "/late"
    again.send(request("/again"))
    assert again.response().text == "/again"
    for client in (parked, nested, late, again):
        client.close()
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert "assert" not in "\n".join(program.lines).lower()


@pytest.mark.parametrize("path", ["/nested", "/nested-resumed"])
def test_a_server_is_stopped_in_a_nested_loop(
    program: Program, holder: socket.socket, path: str
) -> None:
    """The request that runs it ends as one that blocks does."""
    client = Client(program.serving())
    client.send(request(f"{path}?{holder.getsockname()[1]}"))
    held, _ = holder.accept()
    program.until("nested")
    program.signal(signal.SIGTERM)
    program.until("stopping")
    held.close()
    assert client.response().status == 200
    client.close()
    assert program.wait() == 0
