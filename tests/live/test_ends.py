"""The end of a process: in bounded time, whatever threads do, and with what atexit has to do."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.failures import Failures, same
from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import Client, request, until

SOURCE = """
import asyncio, atexit, concurrent.futures, contextlib, signal, socket, sys, threading
import time, bide
from bide.waiting.cleanups import cleanup_time
from pathlib import Path

def until(name):
    while not Path(name).exists():
        time.sleep(0.005)

pool = concurrent.futures.ThreadPoolExecutor()

async def to_thread():
    asyncio.ensure_future(asyncio.to_thread(time.sleep, 3600))

async def stubborn():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

async def add(coroutine):
    asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/in_thread":
        bide.in_thread(time.sleep, 3600)
    if path == "/to_thread":
        bide.wait(to_thread())
    if path == "/pool":
        pool.submit(until, "never")
    if path == "/thread":
        threading.Thread(target=until, args=["open"], name="mine", daemon=False).start()
    if path == "/stubborn":
        cleanup_time.seconds = 0.05
        bide.wait(add(stubborn()))
    if path == "/client":
        open_client()
    if path == "/hanging":
        atexit.register(until, "never")
        atexit.register(Path("hangs").touch)
    if path == "/impatient":
        cleanup_time.seconds = 0.05
    start_response("200 OK", [])
    return [b"done"]

@bide.capable("async")
def on_loop(environ, start_response):
    return app(environ, start_response)

@atexit.register
def last():
    if "-m" in sys.orig_argv:  # the process is Bide's own
        signal.raise_signal(signal.SIGUSR1)  # the logs are rotated
    print("atexit", flush=True)

def open_client():
    listener = socket.create_server(("127.0.0.1", 0))

    async def close():
        writer.close()
        await writer.wait_closed()
        listener.close()
        return "closed"

    _, writer = bide.wait(asyncio.open_connection(*listener.getsockname()))
    atexit.register(lambda: print(bide.wait(close(), timeout=1000), flush=True))
"""

FAILING = (
    SOURCE
    + """
threading.Thread(target=until, args=["never"], name="mine").start()
if "wrong" in sys.argv[1]:
    raise ValueError("wrong")
"""
)


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the modules ``mysite`` and ``wrong``."""
    (tmp_path / "mysite.py").write_text(SOURCE)
    (tmp_path / "wrong.py").write_text(FAILING)


@pytest.mark.parametrize("name", ["app", "on_loop"])
def test_threads_that_run_on_are_named_and_left(start: Start, name: str) -> None:
    """Python would wait for them for ever; functions registered with atexit are called."""
    program = start(f"mysite:{name}", "--bind", "127.0.0.1:0", "--graceful-timeout", "0.05")
    address = program.serving()
    for path in ("/in_thread", "/to_thread", "/pool", "/thread", "/stubborn"):
        assert get(address, path).complete
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == ["atexit"]
    assert any("a task goes on though it was cancelled" in line for line in program.lines)
    places = program.lines[-1].partition("threads that still run are left behind: ")[2]
    with Failures() as failures:
        for place in (
            "bide-in-thread in time.sleep",
            "asyncio_0 in time.sleep",
            "ThreadPoolExecutor-0_0 in until (",
            "mine in until (",
            "mysite.py:",
        ):
            with failures.of(place):
                assert place in places, places


def test_threads_that_end_in_time_are_waited_for(start: Start, tmp_path: Path) -> None:
    """As long as requests may take; what is left of that when the server has stopped."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--graceful-timeout", "1000")
    assert get(program.serving(), "/thread").complete
    program.signal(signal.SIGTERM)
    program.until("stopped")
    assert program.output == []
    (tmp_path / "open").touch()
    assert program.wait() == 0
    assert program.output == ["atexit"]
    assert program.lines[-1].endswith("stopped")


@pytest.mark.parametrize("name", ["app", "on_loop"])
def test_what_was_made_on_the_loop_is_closed_by_atexit_functions(start: Start, name: str) -> None:
    """The loop turns until they have run."""
    program = start(f"mysite:{name}", "--bind", "127.0.0.1:0")
    assert get(program.serving(), "/client").complete
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == ["closed", "atexit"]
    assert program.lines[-1].endswith("stopped")


def test_atexit_functions_that_hang_do_not_hold_the_process(start: Start, tmp_path: Path) -> None:
    """A second signal ends it at once; without one it ends by itself after a while."""
    with Failures() as failures:
        for paths, code in ((["/hanging"], 143), (["/hanging", "/impatient"], 0)):
            with failures.of(paths):
                options = ["--bind", "127.0.0.1:0", "--graceful-timeout", "0.05"]
                program = start("mysite:app", *options)
                address = program.serving()
                for path in paths:
                    assert get(address, path).complete
                program.signal(signal.SIGTERM)
                if code:
                    until((tmp_path / "hangs").exists)
                    program.signal(signal.SIGTERM)
                same(program.wait(), code)
                said = "registered with atexit have not ended" in program.lines[-1]
                same(said, not code)


def test_a_start_that_fails_ends_the_process_though_a_thread_runs(start: Start) -> None:
    """With the exit code that it has without one."""
    with Failures() as failures:
        for arguments, code in ((["wrong:app"], 1), (["wrong:app", "--bind", "no"], 1)):
            with failures.of(arguments):
                program = start(*arguments)
                same(program.wait(), code)
                same(program.output, ["atexit"])
                assert "mine in until (" in program.lines[-1]


HOOKED = """
import bide, sys, time
from pathlib import Path

@bide.on_start
async def start(state):
    if "fail" in sys.argv:
        raise ValueError("no database")
    state["made"] = b"on start"

@bide.on_stop
def stop(state):
    print(state["made"].decode(), "and stop", Path("ended").exists(), flush=True)

def app(environ, start_response):
    start_response("200 OK", [])
    yield environ["bide.state"]["made"]
    while not Path("open").exists():
        time.sleep(0.005)
    Path("ended").touch()

"""


def test_functions_for_start_and_stop_are_called_around_the_requests(
    start: Start, tmp_path: Path
) -> None:
    """The last request has ended when those for the stop are called."""
    (tmp_path / "hooked.py").write_text(HOOKED)
    program = start("hooked:app", "--bind", "127.0.0.1:0")
    client = Client(program.serving())
    client.send(request("/"))
    client.head()
    assert client.chunk() == b"on start"
    program.signal(signal.SIGTERM)
    program.until("stopping")
    (tmp_path / "open").touch()
    assert program.wait() == 0
    client.close()
    assert program.output == ["on start and stop True"]


def test_a_start_that_fails_is_one_line_and_exit_code_1(start: Start, tmp_path: Path) -> None:
    """Behind the frames of the application; nothing else of the server is seen."""
    (tmp_path / "hooked.py").write_text(HOOKED + "\nsys.argv.append('fail')\n")
    program = start("hooked:app", "--bind", "127.0.0.1:0")
    assert program.wait() == 1
    assert program.lines[-1] == (
        "bide: hooked.start, registered with on_start, failed: ValueError: no database"
    )
    assert program.lines[0].startswith(f'  File "{tmp_path}/hooked.py"')
    assert len(program.lines) == 3
    assert program.output == []


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_signal_ends_a_start_that_hangs(start: Start, tmp_path: Path, kind: str) -> None:
    """A database that does not answer, say; the stop's functions are for starts that ended."""
    sleep = "time.sleep" if kind == "def" else "await asyncio.sleep"
    (tmp_path / "hangs.py").write_text(HANGING.replace("KIND", kind).replace("SLEEP", sleep))
    program = start("hangs:app", "--bind", "127.0.0.1:0")
    until((tmp_path / "begun").exists)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == []
    assert "stopping" in program.lines[0]
    assert program.lines[1].endswith("stopped")
    assert len(program.lines) == 2 or "in connect (" in program.lines[2]


HANGING = """
import asyncio, bide, time
from pathlib import Path

@bide.on_start
KIND connect():
    Path("begun").touch()
    SLEEP(3600)

@bide.on_stop
def stop():
    print("called", flush=True)

def app(environ, start_response):
    start_response("200 OK", [])
    return []
"""


def test_a_program_that_calls_run_waits_for_its_threads_itself(
    start: Start, tmp_path: Path
) -> None:
    """The process is the program's; what was made on the loop can be closed behind it."""
    (tmp_path / "mine.py").write_text(
        "import sys, mysite, bide\n"
        "bide.run(mysite.app, bind='127.0.0.1:0', graceful_timeout=0.05)\n"
        "print('after', flush=True)\n"
    )
    program = start("mine.py", program=[sys.executable])
    address = program.serving()
    assert get(address, "/client").complete
    assert get(address, "/thread").complete
    program.signal(signal.SIGTERM)
    until(lambda: program.output == ["after"])
    (tmp_path / "open").touch()
    assert program.wait() == 0
    assert program.output == ["after", "closed", "atexit"]


def test_a_rotation_of_logs_ends_no_process_that_has_served() -> None:
    """From the end of the server to that of the process; one that goes on has what it had."""
    source = """
import signal
from bide.process.leaving import leave
from bide.process.signals import Signals, unheard

NUMBERS = (signal.SIGHUP, signal.SIGUSR1)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored

def serve():
    with Signals():
        pass

def program():
    serve()
    for number in NUMBERS:
        signal.raise_signal(number)
    print("alive")

serve()
print([signal.getsignal(each).name for each in NUMBERS])
try:
    leave(program)
finally:  # Python sets its handlers back when it ends, and leaves this
    print([signal.getsignal(each).name for each in NUMBERS])
"""
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "['SIG_DFL', 'SIG_DFL']",
        "alive",
        "['SIG_IGN', 'SIG_IGN']",
    ]
