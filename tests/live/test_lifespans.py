"""Lifespans of ASGI applications in servers that are processes: what ends them, and how."""

import signal
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import Client, request, until

SOURCE = """
import asyncio, os
from pathlib import Path

broken = asyncio.Event()
START = {"type": "http.response.start", "status": 200}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        waiting = [asyncio.ensure_future(each) for each in (broken.wait(), receive())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if broken.is_set():
            raise ValueError("the pool has broken")
        print("stopped", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send(START)
    if "break" in scope["path"]:
        broken.set()
    if scope["path"] == "/break":
        await scope["extensions"]["bide.drain"]
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

async def hangs(scope, receive, send):
    await receive()
    Path("begun").touch()
    await asyncio.Event().wait()
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``living``."""
    (tmp_path / "living.py").write_text(SOURCE)


def test_a_server_stops_when_the_lifespan_of_its_application_fails(start: Start) -> None:
    """As at a signal, but for the exit code; the log has the traceback."""
    program = start("living:app", "--bind", "127.0.0.1:0")
    client = Client(program.serving())
    client.send(request("/break"))
    assert client.response().text == str(program.pid)
    client.close()
    assert program.wait() == 1
    assert program.output == []
    said = "living:app has failed while it served: ValueError: the pool has broken"
    assert said in program.lines[1]
    assert program.lines[-1] == f"bide: {said}"


def test_a_worker_is_replaced_when_the_lifespan_of_its_application_fails(start: Start) -> None:
    """The new one serves before the old one ends."""
    program = start("living:app", "--bind", "127.0.0.1:0", "--workers", "1")
    address = program.serving()
    broken = get(address, "/break/at/once").text
    program.until("is replaced: its application cannot go on")
    until(lambda: get(address).text != broken)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == ["stopped"]


def test_a_signal_stops_the_applications_that_have_started_before_it(
    start: Start, tmp_path: Path
) -> None:
    """While another one starts."""
    program = start("/=living:app", "/late=living:hangs", "--bind", "127.0.0.1:0")
    until((tmp_path / "begun").exists)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == ["stopped"]
