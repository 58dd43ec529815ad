"""What the application raises into the loop of ``bide`` costs its own request, and no other."""

import os
import signal
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import Client, request, until

SOURCE = """
import asyncio, os, signal, socket, sys, time, bide
from pathlib import Path

GOES_ON = "the application has raised an error in the event loop, which goes on"

class Raised(Exception):
    pass

strikes = []

def handler(number, frame):
    strikes.append(number)
    open(f"struck {len(strikes)}", "w").close()
    raise Raised("by a signal handler")

signal.signal(signal.SIGUSR1, handler)

armed = []
real_send = socket.socket.send

def send(sock, data):
    if armed:
        armed.pop()
        os.kill(os.getpid(), signal.SIGUSR2)
    return real_send(sock, data)

def waits(number, frame):
    bide.wait(opened())

socket.socket.send = send
signal.signal(signal.SIGUSR2, waits)

async def leave(how):
    how()

def exits():
    sys.exit(3)

def interrupts():
    raise KeyboardInterrupt

async def gathered(how):
    await asyncio.gather(leave(how), asyncio.sleep(0))

async def forgotten(how):
    asyncio.ensure_future(leave(how))
    await asyncio.sleep(0.01)
    return "not mine"

async def called_back(how):
    asyncio.get_running_loop().call_soon(how)
    await asyncio.sleep(0.01)
    return "not mine"

async def stops():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "not mine"

def is_open():
    Path("waits").touch()
    while not Path("open").exists():
        time.sleep(0.005)
    return "opened"

async def opened():
    # Nothing of it runs on the loop meanwhile, where a signal could meet it.
    return await asyncio.get_running_loop().run_in_executor(None, is_open)

async def struck():
    os.kill(os.getpid(), signal.SIGUSR1)
    while True:
        time.sleep(0.001)

WAYS = {
    "/gathered/exits": lambda: gathered(exits),
    "/gathered/interrupts": lambda: gathered(interrupts),
    "/forgotten/exits": lambda: forgotten(exits),
    "/forgotten/interrupts": lambda: forgotten(interrupts),
    "/called-back/exits": lambda: called_back(exits),
    "/stops": stops,
    "/opened": opened,
    "/struck": struck,
}

def app(environ, start_response):
    text = "pid %d" % os.getpid()
    if environ["PATH_INFO"] == "/under-lock":
        armed.append(True)
    way = WAYS.get(environ["PATH_INFO"])
    if way is not None:
        text = bide.wait(way())
    start_response("200 OK", [])
    return [text.encode()]

@bide.capable("async")
def on_loop(environ, start_response):
    return app(environ, start_response)
"""

GOES_ON = "the application has raised an error in the event loop, which goes on"

both = pytest.mark.parametrize("name", ["app", "on_loop"])


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``mysite``."""
    (tmp_path / "mysite.py").write_text(SOURCE)


@both
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gathered/exits", 500),
        ("/gathered/interrupts", 500),
        ("/forgotten/exits", 200),
        ("/forgotten/interrupts", 200),
        ("/called-back/exits", 200),
        ("/stops", 200),
    ],
)
def test_a_task_that_would_end_the_loop_ends_itself(
    start: Start, tmp_path: Path, name: str, path: str, status: int
) -> None:
    """Another request that waits meanwhile has its result; the server stops as ever."""
    program = start(f"mysite:{name}", "--bind", "127.0.0.1:0")
    address = program.serving()
    waiting = Client(address)
    waiting.send(request("/opened"))
    assert get(address, path).status == status
    program.until(GOES_ON)
    assert get(address).status == 200
    (tmp_path / "open").touch()
    assert waiting.response().text == "opened"
    waiting.close()
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


@both
def test_a_signal_handler_that_raises_in_an_idle_loop_ends_nothing(
    start: Start, tmp_path: Path, name: str
) -> None:
    """It interrupted the server's own code; what waits goes on."""
    program = start(f"mysite:{name}", "--bind", "127.0.0.1:0")
    address = program.serving()
    waiting = Client(address)
    waiting.send(request("/opened"))
    until((tmp_path / "waits").exists)  # its own code has had its turn on the loop
    pid = int(get(address).text.removeprefix("pid "))
    for number in (1, 2, 3):
        os.kill(pid, signal.SIGUSR1)
        # It may have met the loop, or the connection that has just been closed.
        until((tmp_path / f"struck {number}").exists)
    (tmp_path / "open").touch()
    assert waiting.response().text == "opened"
    waiting.close()
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


@both
def test_a_signal_handler_that_raises_in_a_coroutine_ends_that(start: Start, name: str) -> None:
    """It is that request's error."""
    program = start(f"mysite:{name}", "--bind", "127.0.0.1:0")
    address = program.serving()
    assert get(address, "/struck").status == 500
    program.until("the application failed: GET /struck")
    assert get(address).status == 200


def test_a_signal_handler_cannot_wait_under_the_connections_lock(start: Start) -> None:
    """It is refused, which is the interrupted request's error; the lock is free again."""
    program = start("mysite:on_loop", "--bind", "127.0.0.1:0")
    address = program.serving()
    assert get(address, "/under-lock").status == 500
    program.until("code that has interrupted the server")
    assert get(address).status == 200


def test_an_error_of_the_server_itself_still_ends_it(start: Start) -> None:
    """Such as an address in use."""
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    address = program.serving()
    second = start("mysite:app", "--bind", address)
    assert second.wait() == 1
