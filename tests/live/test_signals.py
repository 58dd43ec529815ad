"""Signals to a real process: it finishes what is in flight, and leaves."""

import signal
import sys
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import get
from tests.serving import Client, request, until

SOURCE = """
import asyncio, os, time, bide
from pathlib import Path

async def opened():
    while not Path("open").exists():
        await asyncio.sleep(0.005)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [])
    if path == "/block":
        yield b"begun"
        while not Path("open").exists():
            time.sleep(0.005)
    elif path == "/wait":
        yield b"begun"
        bide.wait(opened())
    elif path == "/push":
        yield bide.wait(opened()) or b"begun"
    yield b" and finished"

@bide.capable("async")
def on_loop(environ, start_response):
    return app(environ, start_response)
"""

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``mysite``."""
    (tmp_path / "mysite.py").write_text(SOURCE)


@SIGNALS
@pytest.mark.parametrize(
    ("name", "path"), [("app", "/block"), ("app", "/wait"), ("on_loop", "/wait")]
)
def test_a_signal_lets_what_is_in_flight_finish(
    start: Start, tmp_path: Path, number: signal.Signals, name: str, path: str
) -> None:
    """The response is whole; idle connections are closed at once; exit code 0."""
    program = start(f"mysite:{name}", "--bind", "127.0.0.1:0")
    address = program.serving()
    idle, used, busy = Client(address), Client(address), Client(address)
    used.send(request("/"))
    assert used.response().complete
    busy.send(request(path))
    busy.head()
    assert busy.chunk() == b"begun"
    program.signal(number)
    program.until(f"stopping: requests in progress are finished ({number.name})")
    assert idle.rest() == used.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        Client(address)
    (tmp_path / "open").touch()
    assert [busy.chunk(), busy.chunk()] == [b" and finished", b""]
    assert busy.rest() == b""
    assert program.wait() == 0
    assert program.lines[-1].endswith("stopped")
    for client in (idle, used, busy):
        client.close()


@SIGNALS
def test_a_signal_to_an_idle_server_ends_it(start: Start, number: signal.Signals) -> None:
    """With exit code 0, and without a traceback."""
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    assert get(program.serving()).complete
    program.signal(number)
    assert program.wait() == 0
    assert len(program.lines) == 3


@SIGNALS
def test_a_second_signal_stops_at_once(start: Start, number: signal.Signals) -> None:
    """What is in flight is lost, and the exit code says that it was a signal."""
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    client = Client(program.serving())
    client.send(request("/block"))
    client.head()
    program.signal(number)
    program.until("stopping")
    program.signal(number)
    program.until("stopped at once")
    assert program.wait() == 128 + number
    assert b" and finished" not in client.rest()
    client.close()


def test_requests_that_are_not_finished_in_time_are_cancelled(start: Start) -> None:
    """One that waits gets its 503 or is cut; the program ends by itself."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--graceful-timeout", "0.05")
    address = program.serving()
    begun, waiting = Client(address), Client(address)
    begun.send(request("/wait"))
    begun.head()
    waiting.send(request("/push"))
    assert begun.chunk() == b"begun"
    program.signal(signal.SIGTERM)
    assert begun.rest() == b""
    assert waiting.response().status == 503
    assert program.wait() == 0
    begun.close()
    waiting.close()


RUNNING = """
import sys, bide

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"run"]

if __name__ == "__main__":
    try:
        bide.run(app, bind=sys.argv[1], threads=2)
    except bide.StartError as error:
        print(error)
        sys.exit(3)
    print("after")
"""


def test_bide_run_serves_until_a_signal(start: Start, tmp_path: Path) -> None:
    """And then the program goes on behind it."""
    (tmp_path / "mine.py").write_text(RUNNING)
    program = start("mine.py", "127.0.0.1:0", program=[sys.executable])
    address = program.serving()
    assert program.lines[0].endswith("in up to 2 threads")
    assert get(address).body == b"run"
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert program.output == ["after"]


def test_bide_run_raises_what_one_line_can_explain(start: Start, tmp_path: Path) -> None:
    """A StartError, which the program may catch."""
    (tmp_path / "mine.py").write_text(RUNNING)
    program = start("mine.py", "nowhere", program=[sys.executable])
    assert program.wait() == 3
    assert program.output[0].startswith("'nowhere' is no address")


OWN = """
import asyncio, bide

async def answer():
    await asyncio.sleep(0)
    return b"own loop"

def app(environ, start_response):
    start_response("200 OK", [])
    return [bide.wait(answer())]

async def main():
    async with bide.Server(app, bind="127.0.0.1:0") as server:
        print(server.addresses[0], flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("cancelled", flush=True)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_control_c_ends_a_program_that_serves_beside_its_own_work(
    start: Start, tmp_path: Path
) -> None:
    """The way of asyncio: the main task is cancelled, and the server is left in good order."""
    (tmp_path / "mine.py").write_text(OWN)
    program = start("mine.py", program=[sys.executable])
    until(lambda: program.output)
    assert get(program.output[0]).body == b"own loop"
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert program.output[1:] == ["cancelled", "interrupted"]
    assert program.lines == []


def test_the_program_ends_though_a_thread_waits_by_the_servers_loop(
    start: Start, tmp_path: Path
) -> None:
    """Python waits for threads that are no daemons, and they for their waits."""
    (tmp_path / "mysite.py").write_text(WAITING_THREAD)
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    assert get(program.serving()).body == b"waits"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == ["ServerStopping('the server stops')"]


WAITING_THREAD = """
import concurrent.futures, threading, time, bide

def block(promise):
    try:
        bide.wait(promise, timeout=3600)
    except BaseException as error:
        print(repr(error), flush=True)

def app(environ, start_response):
    promise = concurrent.futures.Future()
    threading.Thread(target=block, args=(promise,)).start()
    while not promise._done_callbacks:
        time.sleep(0.002)
    start_response("200 OK", [])
    return [b"waits"]
"""
