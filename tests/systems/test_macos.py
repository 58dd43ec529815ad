"""What macOS lacks has something in its place: a server as there, simulated, by its own command."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bide.systems import listens
from tests.live.processes import Program, get
from tests.served import until

PROJECT = Path(__file__).parent.parent.parent
BEGIN = "from tests.systems.macos import become_macos; become_macos()\n"
COMMAND = f"{BEGIN}from bide.cli import main; main()"

APP = """
import os, socket, sys, select, threading, bide
from pathlib import Path

Path("file").write_bytes(b"sent by the kernel" * 5000)

def call(name):
    return name

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [])
    if path == "/file":
        return environ["wsgi.file_wrapper"](open("file", "rb"))
    if path == "/system":
        seen = sys.platform, hasattr(select, "epoll"), Path("/proc").exists()
        return [repr(seen).encode()]
    if path == "/wait":
        return [bide.wait(bide.in_thread(call, b"waited"))]
    return [str(os.getpid()).encode()]

able = bide.capable("async")(lambda environ, start_response: app(environ, start_response))
alone = bide.capable("processes")(lambda environ, start_response: app(environ, start_response))
"""


class MacOS:
    """Starts programs as on macOS, and ends them with the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Program] = []

    def start(self, *arguments: str) -> Program:
        """Run ``bide`` with the arguments."""
        command = [sys.executable, "-c", COMMAND, *arguments]
        program = Program(command, self._directory, PYTHONPATH=str(PROJECT))
        self._started.append(program)
        return program

    def close(self) -> None:
        """End them all."""
        for each in self._started:
            each.close()


@pytest.fixture
def macos(tmp_path: Path) -> Iterator[MacOS]:
    """Return a way to run ``bide`` beside the application."""
    (tmp_path / "app.py").write_text(APP)
    system = MacOS(tmp_path)
    yield system
    system.close()


@pytest.mark.parametrize("app", ["app:app", "app:able", "app:alone"])
def test_one_process_serves_without_epoll(macos: MacOS, app: str) -> None:
    """In threads, on the loop and in child processes; with files, waits, and a graceful end."""
    program = macos.start(app, "--bind", "127.0.0.1:0", "--pid-file", "pid")
    address = program.serving()
    assert get(address, "/system").text == "('darwin', False, False)"
    assert get(address, "/file").text == "sent by the kernel" * 5000
    assert get(address, "/wait").text == "waited"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_workers_share_plain_sockets(macos: MacOS) -> None:
    """They are replaced on SIGHUP, as many as the processors without an affinity, and stop."""
    program = macos.start("app:app", "--bind", "127.0.0.1:0", "--workers", "auto")
    address = program.serving()
    before = get(address).text
    program.signal(signal.SIGHUP)
    until(lambda: get(address).text != before)
    assert get(address, "/file").text == "sent by the kernel" * 5000
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2", "--preload"], "--preload works only on Linux"),
        (["--workers", "2", "--max-rss", "1000000000"], "--max-rss needs /proc"),
        (["--bind", "unix:@shop"], "is an abstract socket"),
    ],
)
def test_what_only_linux_has_is_refused_in_one_line(
    macos: MacOS, options: list[str], said: str
) -> None:
    """Not ignored, and no traceback."""
    program = macos.start("app:app", *options)
    assert program.wait() != 0
    assert len(program.lines) == 1
    assert program.lines[0].startswith("bide: ")
    assert said in program.lines[0]


def test_a_pid_file_counts_while_its_process_runs(macos: MacOS, tmp_path: Path) -> None:
    """When that has begun is not known."""
    (tmp_path / "pid").write_text(str(os.getpid()))
    program = macos.start("app:app", "--bind", "127.0.0.1:0", "--pid-file", "pid")
    assert program.wait() == 1
    assert "which is running" in program.lines[0]


def test_a_server_tells_what_it_does(macos: MacOS, tmp_path: Path) -> None:
    """Its status has no memory and no processor time, and its stacks come without SIGRTMIN."""
    for options in ((), ("--workers", "2")):
        program = macos.start("app:app", "--bind", "127.0.0.1:0", "--control", "control", *options)
        program.serving()
        for command in ("status", "stacks", "stop"):
            asking = macos.start(command, str(tmp_path / "control"))
            assert asking.wait() == 0, asking.lines
            assert asking.output or command == "stop"
        assert program.wait() == 0


def test_a_listening_socket_is_known_where_the_system_does_not_say_so() -> None:
    """By what it has not: a peer."""

    class Silent(socket.socket):
        def getsockopt(self, *_: object) -> int:  # type: ignore[override]
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    with Silent() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        accepted = Silent(fileno=listener.accept()[0].detach())
        with accepted:
            assert listens(listener)
            assert not listens(accepted)
