"""Signals while the application is imported, and those that it handles itself."""

import signal
import stat
import sys
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import until

IMPORTING = """
import asyncio, ctypes, os, signal, sys, threading, time

def hang():
    print("importing", flush=True)
    while True:
        time.sleep(0.01)

async def hang_in_a_loop():
    hang()

kind = os.environ["KIND"]
if kind == "code":
    hang()
elif kind == "lock":
    print("importing", flush=True)
    threading.Semaphore(0).acquire()
elif kind == "loop":
    asyncio.run(hang_in_a_loop())
elif kind == "swallows":
    try:
        hang()
    except BaseException:
        pass
elif kind == "exits":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(7))
    hang()
elif kind == "ignores":
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    print("importing", flush=True)
    while not heard:
        time.sleep(0.01)
elif kind == "C":  # no signal interrupts it
    mutex = ctypes.create_string_buffer(256)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    print("importing", flush=True)
    lock(mutex)

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["code", "lock", "loop", "swallows", "exits", "ignores"])
def test_a_signal_stops_the_start_while_the_application_is_imported(
    start: Start, tmp_path: Path, kind: str, number: signal.Signals
) -> None:
    """As it stops a server: code 0, and one line. Without a handler, a first process gets none."""
    (tmp_path / "mysite.py").write_text(IMPORTING)
    program = start("mysite:app", "--bind", "127.0.0.1:0", KIND=kind)
    until(lambda: program.output)
    program.signal(number)
    assert program.wait() == 0
    assert program.lines == [f"bide: stopped by {number.name} while mysite:app was imported"]


def test_a_second_signal_ends_an_import_that_hangs(start: Start, tmp_path: Path) -> None:
    """In C code, where Python runs no handler."""
    (tmp_path / "mysite.py").write_text(IMPORTING)
    program = start("mysite:app", "--bind", "127.0.0.1:0", KIND="C")
    until(lambda: program.output)
    program.signal(signal.SIGINT)
    program.signal(signal.SIGTERM)
    assert program.wait() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert program.lines == ["bide: stopped at once, by a second signal"]


def test_a_child_forked_at_import_ends_as_it_would_without_bide(
    start: Start, tmp_path: Path
) -> None:
    """Its signals are its own, and what ends it does not wait for the server's thread."""
    (tmp_path / "mysite.py").write_text(FORKING)
    program = start("mysite:app", "--bind", "127.0.0.1:0")
    assert get(program.serving()).text.startswith("-15 ")
    assert program.lines[-1].endswith("in up to 4 threads")


FORKING = """
import os, signal, sys, time

reading, writing = os.pipe()
killed = os.fork()
if not killed:
    os.write(writing, b"!")
    while True:
        time.sleep(0.01)
os.read(reading, 1)
os.kill(killed, signal.SIGTERM)
ended = os.fork()
if not ended:
    sys.exit(7)
codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in (killed, ended)]

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d %d" % tuple(codes)]
"""

MOVING = """
import os, bide
os.chdir("/")

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"served"]
"""

RUNNING = """
import bide
from mysite import app, os
os.chdir(os.path.dirname(__file__))

class Moving:
    def __call__(self, environ, start_response):
        return app(environ, start_response)

    @property
    def __capabilities__(self):  # read when the server is made
        os.chdir("/")
        return frozenset({"threads"})

bide.run(Moving(), bind="unix:run.sock", access_log="a.log", socket_mode="0600")
"""


@pytest.mark.parametrize("command", ["bide", "run"])
def test_paths_are_those_of_where_bide_was_started(
    start: Start, tmp_path: Path, command: str
) -> None:
    """Not of where the application has gone to."""
    (tmp_path / "mysite.py").write_text(MOVING)
    (tmp_path / "mine.py").write_text(RUNNING)
    options = ["--bind", "unix:run.sock", "--access-log", "a.log", "--socket-mode", "0600"]
    if command == "bide":
        program = start("mysite:app", *options)
    else:
        program = start("mine.py", program=[sys.executable])
    address = program.serving()
    assert address == f"unix:{tmp_path}/run.sock"
    assert get(address).text == "served"
    assert stat.S_IMODE((tmp_path / "run.sock").stat().st_mode) == 0o600
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert not (tmp_path / "run.sock").exists()
    assert "GET / HTTP/1.1" in (tmp_path / "a.log").read_text()


HANDLING = """
import os, signal, sys, bide

status = None
before = signal.getsignal(signal.SIGTERM)

def handle(number, frame):
    print("handled", number, status().stopping, flush=True)
    kind = os.environ["KIND"]
    if kind == "exits":
        sys.exit(7)
    if kind == "fails":
        raise ValueError("a mistake")
    if kind == "goes on" and callable(before):
        before(number, frame)

signal.signal(signal.SIGTERM, handle)

def app(environ, start_response):
    global status
    status = environ["bide.status"]
    start_response("200 OK", [])
    return [b"served"]

if __name__ == "__main__":
    bide.run(app, bind="127.0.0.1:0")
"""


@pytest.mark.parametrize("kind", ["returns", "exits", "fails", "goes on", "runs itself"])
def test_the_applications_own_handler_is_called_before_the_server_stops(
    start: Start, tmp_path: Path, kind: str
) -> None:
    """And said so at the start. What it raises does not end the server before its requests."""
    (tmp_path / "mysite.py").write_text(HANDLING)
    if kind == "runs itself":
        program = start("-m", "mysite", program=[sys.executable], KIND=kind)
    else:
        program = start("mysite:app", "--bind", "127.0.0.1:0", KIND=kind)
    address = program.serving()
    module = "__main__" if kind == "runs itself" else "mysite"
    said = f"the application handles SIGTERM: {module}.handle is called before the server stops"
    assert program.lines[0].endswith(said)
    assert get(address).text == "served"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert program.output == [f"handled {int(signal.SIGTERM)} False"]
    failed = [line for line in program.lines if "the application's handler of SIGTERM" in line]
    assert bool(failed) == (kind == "fails")
    assert any(line.endswith("INFO stopped") for line in program.lines)
