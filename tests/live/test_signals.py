"""Signals to a real process: it finishes what is in flight, and leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import DEADLINE, Client, request, until

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
    again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
    # One, or two: the answer that has come may be of a call that ends only now.
    line = program.until("stopping: finishing ")
    assert line.endswith(f", 30 s at most; {again} to stop at once ({number.name})")
    assert idle.rest() == used.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        Client(address)
    (tmp_path / "open").touch()
    assert [busy.chunk(), busy.chunk()] == [b" and finished", b""]
    assert busy.rest() == b""
    for client in (idle, used, busy):
        client.close()
    assert program.wait() == 0
    assert program.lines[-1].endswith("stopped")


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


def test_a_server_serves_on_for_the_delay_and_a_second_signal_ends_it(start: Start) -> None:
    """The load balancer asks, and sends others elsewhere. The third signal ends the process."""
    program = start(
        *("mysite:app", "--bind", "127.0.0.1:0", "--drain-delay", "1000"),
        *("--health", "/alive", "--ready", "/ready"),
    )
    address = program.serving()
    busy = Client(address)
    busy.send(request("/block"))
    busy.head()
    assert get(address, "/ready").status == 200
    program.signal(signal.SIGTERM)
    program.until("stopping in 1000 s: accepting until then (SIGTERM)")
    until(lambda: get(address, "/ready").status == 503)
    assert get(address, "/alive").status == 200
    served = get(address)
    assert (served.complete, served.header("Connection")) == (True, "close")
    program.signal(signal.SIGTERM)
    program.until("stopping: finishing ")
    program.signal(signal.SIGTERM)
    assert program.wait() == 143
    busy.close()


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
    begun.close()
    waiting.close()
    assert program.wait() == 0


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
    assert program.output[0].startswith("the address 'nowhere' has no port")


OWN = """
import asyncio, bide

async def answer():
    await asyncio.sleep(0)
    return b"own loop"

def app(environ, start_response):
    start_response("200 OK", [])
    return [bide.wait(answer())]

async def main():
    async with bide.Server(app, bind="127.0.0.1:0", blocked_loop=float("inf")) as server:
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
    """Python waits for threads that are not daemons, and they for their waits."""
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


BLOCKED = """
import asyncio, logging, os, signal, sys, threading, time, warnings, bide
from pathlib import Path

def never(environ, start_response):
    Path("blocked").touch()
    while True:
        time.sleep(0.01)

async def never_ends():
    never(None, None)

async def add():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, Path("heard").touch)

async def python_speaks():
    class Raises:
        def __del__(self):
            raise ValueError("x" * 1000)
    for number in range(200):
        logging.getLogger("asyncio").error("x" * 1000)
        warnings.warn(f"{number}" + "x" * 1000)
        Raises()

class Hanging(logging.Handler):
    def emit(self, record):
        Path("hangs").touch()
        while True:
            time.sleep(0.01)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/loop":
        bide.wait(never_ends())
    if path == "/never":
        never(environ, start_response)
    if path == "/add":
        bide.wait(add())
    if path == "/logs":
        for _ in range(200):
            logging.getLogger("bide").warning("x" * 1000)
    if path == "/python":
        bide.wait(python_speaks())
    if path == "/handler":
        logging.getLogger("bide").addHandler(Hanging())
    if path == "/fork":
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        start_response("200 OK", [])
        return [b"%d" % os.waitpid(child, 0)[1]]
    start_response("200 OK", [])
    return [b"%d" % os.getpid()]

@bide.capable("async")
def on_loop(environ, start_response):
    return app(environ, start_response)
"""


@pytest.fixture
def blocked(tmp_path: Path) -> None:
    """Write the module ``blocked``."""
    (tmp_path / "blockedsite.py").write_text(BLOCKED)


@SIGNALS
@pytest.mark.parametrize(("name", "path"), [("app", "/loop"), ("on_loop", "/never")])
def test_signals_are_answered_while_the_loop_is_blocked(
    start: Start, tmp_path: Path, blocked: None, number: signal.Signals, name: str, path: str
) -> None:
    """By a coroutine, or by a view that runs there; the first is said, the second ends it."""
    program = start(f"blockedsite:{name}", "--bind", "127.0.0.1:0", "--blocked-loop", "60")
    client = Client(program.serving())
    client.send(request(path))
    until((tmp_path / "blocked").exists)
    program.signal(number)
    line = program.until("stopping: finishing 1 request, 30 s at most")
    assert line.endswith(f"to stop at once ({number.name})")
    program.signal(number)
    program.until("stopped at once")
    assert program.wait() == 128 + number
    client.close()


@pytest.mark.parametrize("name", ["app", "on_loop"])
def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_signals(
    tmp_path: Path, blocked: None, name: str
) -> None:
    """The pipe of standard error is full from the first lines on."""
    reading, writing = os.pipe()
    address = f"unix:{tmp_path}/socket"
    program = subprocess.Popen(
        [sys.executable, "-m", "bide", f"blockedsite:{name}", "--bind", address],
        cwd=tmp_path,
        stderr=writing,
    )
    try:
        os.close(writing)
        until((tmp_path / "socket").exists)
        until(lambda: accepts(address))
        for _ in range(3):
            assert get(address, "/logs").status == 200
        busy = Client(address)
        busy.send(request("/never"))
        until((tmp_path / "blocked").exists)
        program.send_signal(signal.SIGTERM)
        program.send_signal(signal.SIGINT)
        assert program.wait(DEADLINE) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        busy.close()
    finally:
        program.kill()
        program.wait()
        os.close(reading)


CONSOLE = """{
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"bide": {"handlers": ["console"]}, "bide.access": {"level": "INFO"}},
    "root": {"handlers": ["console"]}
}"""


@pytest.mark.parametrize("name", ["app", "on_loop"])
@pytest.mark.parametrize("config", ["", CONSOLE])
def test_what_python_and_the_deployers_handlers_write_holds_up_nothing(
    tmp_path: Path, blocked: None, name: str, config: str
) -> None:
    """On the event loop's thread, to a full pipe; the process ends by itself."""
    reading, writing = os.pipe()
    address = f"unix:{tmp_path}/socket"
    command = [sys.executable, "-m", "bide", f"blockedsite:{name}", "--bind", address]
    if config:
        (tmp_path / "log.json").write_text(config)
        command += ["--log-config", "log.json"]
    program = subprocess.Popen(command, cwd=tmp_path, stderr=writing)
    try:
        os.close(writing)
        until((tmp_path / "socket").exists)
        until(lambda: accepts(address))
        for path in ("/python", "/logs", "/python"):
            assert get(address, path).status == 200
        program.send_signal(signal.SIGTERM)
        assert program.wait(DEADLINE) == 0
    finally:
        program.kill()
        program.wait()
        os.close(reading)


def accepts(address: str) -> bool:
    """Whether a program listens there."""
    try:
        Client(address).close()
    except OSError:
        return False
    return True


def test_a_log_handler_of_the_application_that_hangs_does_not_hold_up_the_second_signal(
    start: Start, tmp_path: Path, blocked: None
) -> None:
    """What answers signals runs nothing of the application."""
    program = start("blockedsite:app", "--bind", "127.0.0.1:0")
    address = program.serving()
    assert get(address, "/handler").status == 200
    busy = Client(address)
    busy.send(request("/never"))
    until((tmp_path / "blocked").exists)
    program.signal(signal.SIGTERM)
    program.until("stopping")
    program.signal(signal.SIGTERM)
    assert program.wait() == 128 + signal.SIGTERM
    busy.close()


@pytest.mark.parametrize("name", ["app", "on_loop"])
def test_an_application_that_adds_handlers_to_the_loop_hears_its_own_signals(
    start: Start, tmp_path: Path, blocked: None, name: str
) -> None:
    """It takes the wake-up descriptor from the server; both go on to hear theirs."""
    program = start(f"blockedsite:{name}", "--bind", "127.0.0.1:0")
    address = program.serving()
    pid = int(get(address, "/add").text)
    os.kill(pid, signal.SIGUSR1)
    until((tmp_path / "heard").exists)
    program.signal(signal.SIGTERM)
    program.until("stopping")
    assert program.wait() == 0


@pytest.mark.parametrize("name", ["app", "on_loop"])
def test_a_signal_to_a_forked_child_is_not_the_servers(
    start: Start, blocked: None, name: str
) -> None:
    """As multiprocessing ends its workers: the child has the same wake-up descriptor."""
    program = start(f"blockedsite:{name}", "--bind", "127.0.0.1:0")
    address = program.serving()
    assert get(address, "/fork").text == str(int(signal.SIGTERM))
    assert get(address).status == 200
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert sum("stopping" in line for line in program.lines) == 1


def test_sigusr1_opens_the_access_log_anew(start: Start, tmp_path: Path) -> None:
    """While the main thread blocks, too; what is in flight goes on."""
    path, old = tmp_path / "access.log", tmp_path / "old.log"
    program = start(
        "mysite:app", "--bind", "127.0.0.1:0", "--threads", "1", "--access-log", str(path)
    )
    address = program.serving()
    client = Client(address)
    client.send(request("/block"))
    client.head()
    path.rename(old)
    program.signal(signal.SIGUSR1)
    until(path.exists)
    (tmp_path / "open").touch()
    assert [client.chunk(), client.chunk(), client.chunk()][2] == b""
    client.close()
    until(lambda: "/block" in path.read_text())
    assert old.read_text() == ""
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_an_applications_own_handler_of_sigusr1_is_called(start: Start, tmp_path: Path) -> None:
    """And opens no file."""
    path = tmp_path / "access.log"
    with (tmp_path / "mysite.py").open("a") as module:
        module.write(
            "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: Path('heard').touch())\n"
        )
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--access-log", str(path))
    program.serving()
    path.unlink()
    program.signal(signal.SIGUSR1)
    until((tmp_path / "heard").exists)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert not path.exists()
