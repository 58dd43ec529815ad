"""What an application's forked children do: the server goes on, and each request has one answer."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.failures import Failures
from tests.live.conftest import Start
from tests.live.processes import Program, get
from tests.served import Client, request, until

SOURCE = """
import asyncio, multiprocessing, os, pty, signal, subprocess, sys, threading, time
import bide

context = multiprocessing.get_context("fork")
gates = []


def square(number):
    return number * number


async def gate():
    gates.append(asyncio.Event())
    await gates[-1].wait()


async def open_gates():
    for each in gates:
        each.set()


async def later():
    await asyncio.sleep(0.01)
    return 7


async def fork_in_a_coroutine(how):
    child = os.fork()
    if child == 0 and how == "exits":
        sys.exit(7)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork(how, environ, start_response, write):
    child = os.fork()
    if child:
        return child
    if how == "returns":
        return 0
    if how == "raises":
        raise LookupError("the child's own")
    if how == "exits":
        sys.exit(7)
    if how == "ends":
        os._exit(7)
    if how == "execs":
        os.execv(sys.executable, [sys.executable, "-c", "raise SystemExit(7)"])
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "looks":
        status = bide.status()
        os._exit(7 + status.running + len(status.requests))
    if how == "waits":
        os._exit(bide.wait(later()))
    if how == "waits in a thread":
        os._exit(bide.wait(bide.in_thread(lambda: 7)))
    if how == "is in a thread":
        thread = threading.Thread(target=lambda: os._exit(bide.wait(later())))
        thread.start()
        thread.join()
    if how == "writes":
        try:
            write(b"the child's")
        except bide.ClientDisconnected:
            os._exit(7)
    if how == "reads":
        try:
            environ["wsgi.input"].read()
        except bide.ClientDisconnected:
            os._exit(7)
    if how == "is terminated":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if how == "forks":
        os._exit(ended(fork("waits", environ, start_response, write)))
    raise AssertionError(how)


def app(environ, start_response):
    path, how = environ["PATH_INFO"], environ["QUERY_STRING"].replace("%20", " ")
    if path == "/parked":
        bide.wait(gate())
    elif path == "/open":
        bide.wait(open_gates())
    elif path == "/pool":
        with context.Pool(3) as pool:
            assert next(pool.imap_unordered(square, range(9))) in [n * n for n in range(9)]
    elif path == "/process":
        process = context.Process(target=time.sleep, args=(60,))
        process.start()
        process.terminate()
        process.join()
        start_response("200 OK", [])
        return [b"%d" % process.exitcode]
    elif path == "/subprocess":
        subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None, check=True)
    elif path == "/pty":
        child, terminal = pty.fork()
        if not child:
            os.execv(sys.executable, [sys.executable, "-c", ""])
        ended(child)
    elif path == "/coroutine":
        child = bide.wait(fork_in_a_coroutine(how))
        code = ended(child)
        start_response("200 OK", [])
        return [b"%d" % code]
    elif path in ("/in_thread", "/to_thread"):
        def forked():
            child = os.fork()
            if child == 0 and how == "exits":
                sys.exit(7)
            return child
        if path == "/in_thread":
            child = bide.wait(bide.in_thread(forked))
        else:
            child = bide.wait(asyncio.to_thread(forked))
        code = ended(child)
        start_response("200 OK", [])
        return [b"%d" % code]
    elif path == "/fork":
        write = start_response("200 OK", [])
        child = fork(how, environ, start_response, write)
        if child == 0:
            return [b"the child's"]
        return [b"%d" % ended(child)]
    elif path == "/stream":
        start_response("200 OK", [])
        def blocks():
            yield b"before "
            child = fork(how, environ, start_response, None)
            if child == 0:
                yield b"the child's"
            yield b"%d" % ended(child)
        return blocks()
    elif path == "/close":
        start_response("200 OK", [])
        class Blocks(list):
            def close(self):
                if not os.fork():
                    raise SystemExit(7)
        return Blocks([b"closes"])
    start_response("200 OK", [])
    return [path.encode()]


on_loop = bide.capable("async")(lambda environ, start_response: app(environ, start_response))
"""
HOW = {
    "returns": 0,
    "raises": 1,
    "exits": 7,
    "ends": 7,
    "execs": 7,
    "is killed": -9,
    "waits": 7,
    "waits in a thread": 7,
    "is in a thread": 7,
    "writes": 7,
    "reads": 7,
    "is terminated": -15,
    "forks": 7,
    "looks": 7,
}
"""What a child does, and how it has ended then."""
QUIET = "error,ignore::DeprecationWarning"
"""Python 3.12 and later advise against forking beside threads; here it is what is tried."""


class Served:
    """A server with two requests parked on its one thread; they have their answers in the end."""

    def __init__(self, program: Program, address: str, clients: ExitStack) -> None:
        self.program = program
        self.address = address
        self.parked = [
            clients.enter_context(closing(self.ask(path))) for path in ("/parked", "/parked")
        ]

    def ask(self, path: str) -> Client:
        """Send a request on a connection of its own."""
        client = Client(self.address)
        client.send(request(path.replace(" ", "%20")))
        return client

    def check_and_stop(self) -> None:
        """Each parked request has one answer; the server does what it always does, and stops."""
        assert get(self.address, "/open").text == "/open"
        for client in self.parked:
            assert client.response().text == "/parked"
            assert client.is_silent()
        self.program.signal(signal.SIGTERM)
        assert self.program.wait() == 0
        assert sum("stopping" in line for line in self.program.lines) == 1


@pytest.fixture(params=["app", "on_loop"])
def served(
    start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[], Served]]:
    """Start the server, on each executor."""
    (tmp_path / "forking.py").write_text(SOURCE)
    with ExitStack() as clients:

        def serve() -> Served:
            name = f"forking:{request.param}"
            program = start(name, "--bind", "127.0.0.1:0", "--threads", "1", PYTHONWARNINGS=QUIET)
            return Served(program, program.serving(), clients)

        yield serve


def test_whatever_a_child_does_each_request_has_one_answer(served: Callable[[], Served]) -> None:
    """In a view or in a stream; so have those of others that are parked beside it, or behind."""
    server = served()
    with Failures() as failures:
        for how, code in HOW.items():
            for path, before in (("/fork", ""), ("/stream", "before ")):
                if (path, how) == ("/stream", "writes"):
                    continue
                with (
                    failures.of(f"{path}: {how}"),
                    closing(server.ask(f"{path}?{how}")) as client,
                    closing(server.ask("/behind")) as behind,
                ):
                    assert client.response().text == f"{before}{code}"
                    assert client.is_silent()
                    assert behind.response().text == "/behind"
                    assert behind.is_silent()
    server.check_and_stop()


def test_libraries_that_fork_do_what_they_do(served: Callable[[], Served]) -> None:
    """Pools and processes that are terminated, programs behind a function or a terminal."""
    server = served()
    answers = {"/pool": "/pool", "/process": "-15", "/subprocess": "/subprocess", "/pty": "/pty"}
    with Failures() as failures:
        for path, text in answers.items():
            with failures.of(path):
                assert get(server.address, path).text == text
    server.check_and_stop()


def test_a_child_ends_when_it_comes_back_to_the_loop_or_a_pool(
    served: Callable[[], Served],
) -> None:
    """It has their queues, and would do everything a second time."""
    server = served()
    with Failures() as failures:
        for path in ("/coroutine", "/in_thread", "/to_thread"):
            for how, code in (("returns", 0), ("exits", 7)):
                with failures.of(f"{path}: {how}"):
                    assert get(server.address, f"{path}?{how}").text == str(code)
    server.check_and_stop()


def test_a_child_that_is_forked_when_the_answer_is_out_sends_none(
    served: Callable[[], Served],
) -> None:
    """In ``close()``, which is called last."""
    server = served()
    with closing(server.ask("/close")) as client:
        assert client.response().text == "closes"
        assert client.is_silent()
    server.check_and_stop()


STOPPED = """
import asyncio, os, sys
import bide

async def main():
    async with bide.Server(lambda environ, start_response: [], bind="127.0.0.1:0"):
        await asyncio.sleep(0)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    await asyncio.sleep(0)
    os._exit(7)

sys.exit(asyncio.run(main()))
"""


def test_a_program_s_loop_is_its_own_again_when_its_server_has_stopped(start: Start) -> None:
    """A child that it forks then goes on as it would without Bide."""
    program = start(program=[sys.executable, "-c", STOPPED], PYTHONWARNINGS=QUIET)
    assert program.wait() == 7


FULL = """
import os, sys
import forking
reading, writing = os.pipe()
os.set_blocking(writing, False)
try:
    while True:
        os.write(writing, b"x" * 65536)
except BlockingIOError:
    os.set_blocking(writing, True)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/full":
        sys.stderr = open(writing, "w")
    return forking.app(environ, start_response)
"""


def test_a_child_ends_though_nobody_reads_what_it_says(start: Start, tmp_path: Path) -> None:
    """Its parent waits for it, and so does the lane."""
    (tmp_path / "forking.py").write_text(SOURCE)
    (tmp_path / "full.py").write_text(FULL)
    program = start("full:app", "--bind", "127.0.0.1:0", "--threads", "1", PYTHONWARNINGS=QUIET)
    address = program.serving()
    assert get(address, "/full").text == "/full"
    for how in ("returns", "raises"):
        assert get(address, f"/fork?{how}").text == str(HOW[how])


IMPORTED = """
import os, sys, time
if not os.fork():
    {child}
from forking import app, on_loop
"""


@pytest.mark.parametrize(
    "child",
    [
        "sys.exit(0)",
        "sys.exit(7)",
        "raise LookupError('the child\\'s own')",
        "pass",
        "os.kill(os.getpid(), 15); time.sleep(60)",
    ],
)
def test_a_helper_forked_at_import_leaves_the_server_its_signals(
    start: Start, tmp_path: Path, child: str
) -> None:
    """However it ends: it has the loop's epoll, and the descriptor that signals are written to."""
    (tmp_path / "forking.py").write_text(SOURCE)
    (tmp_path / "imports.py").write_text(IMPORTED.format(child=child))
    program = start("imports:app", "--bind", "127.0.0.1:0", PYTHONWARNINGS=QUIET)
    address = program.serving()
    until(lambda: not _children(program.pid), "the child has not ended")
    assert get(address).text == "/"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert sum("stopping" in line for line in program.lines) == 1


def _children(process: int) -> list[str]:
    """Return the processes below one that have not ended."""
    found = []
    for each in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        state = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0]
        if state != "Z":
            found.append(each)
    return found
