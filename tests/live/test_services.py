"""A server as a service: under systemd or what stands in for it, with a terminal and without."""

import os
import pty
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import PROGRAM, get
from tests.ports import free_port
from tests.served import Client, request
from tests.service_manager import HANDING_OVER, Manager

SOURCE = """
import os, subprocess, sys

LISTING = [sys.executable, "-c", "import os; print([k for k in os.environ if 'LISTEN' in k])"]

def app(environ, start_response):
    start_response("200 OK", [])
    return [subprocess.run(LISTING, stdout=subprocess.PIPE).stdout]
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``mysite``, whose application tells what its children see."""
    (tmp_path / "mysite.py").write_text(SOURCE)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Return one that is told of services."""
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_a_restart_under_systemd_refuses_nobody(
    start: Start, manager: Manager, tmp_path: Path
) -> None:
    """The listener is kept meanwhile. Each step is told; so is what SIGHUP asks for."""
    options = ["mysite:app", "--bind", "127.0.0.1:0", "--pid-file", "pid"]
    variables = {
        "NOTIFY_SOCKET": manager.address,
        "FDSTORE": "4",
        "WATCHDOG_USEC": "1000000000",
    }
    first = start(*options, **variables)
    address = first.serving()
    told = manager.hear_until("READY")
    assert told["STATUS"] == f"serving mysite:app on http://{address}, in up to 4 threads"
    assert (tmp_path / "pid").read_text() == f"{first.pid}\n"
    assert manager.hear() == {"WATCHDOG": "1"}
    before = time.monotonic_ns() // 1000
    first.signal(signal.SIGHUP)
    told = manager.hear_until("RELOADING")
    assert int(told["MONOTONIC_USEC"]) >= before
    assert manager.hear()["READY"] == "1"
    first.signal(signal.SIGTERM)
    assert "EXTEND_TIMEOUT_USEC" in manager.hear_until("STOPPING")
    assert first.wait() == 0
    assert not (tmp_path / "pid").exists()

    waiting = Client(address)
    waiting.send(request())
    (kept,) = manager.kept
    program = [sys.executable, "-c", HANDING_OVER, str(kept), *PROGRAM]
    second = start(
        *options, program=program, descriptors=[kept], LISTEN_FDNAMES="bide-listener", **variables
    )
    assert second.serving() == address
    assert waiting.response().text == "[]\n"
    waiting.close()
    second.signal(signal.SIGTERM)
    assert second.wait() == 0


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="needs systemd")
def test_a_server_is_started_by_its_first_client(start: Start) -> None:
    """The first client is served, on the socket that systemd has opened; no --bind is needed."""
    address = f"127.0.0.1:{free_port()}"
    activator = ["systemd-socket-activate", "--listen", address, "--setenv=BIDE_BLOCKED_THREAD=inf"]
    program = start("mysite:app", program=[*activator, *PROGRAM])
    program.until("Listening on")
    assert get(address).text == "[]\n"
    assert program.serving() == address
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_a_second_server_with_the_same_pid_file_is_refused(start: Start, tmp_path: Path) -> None:
    """In one line, and the file stays the first one's."""
    options = ["mysite:app", "--bind", "127.0.0.1:0", "--pid-file", "pid"]
    first = start(*options)
    first.serving()
    second = start(*options)
    assert second.wait() == 1
    (line,) = second.lines
    assert line.startswith(f"bide: the PID file {tmp_path}/pid is of process {first.pid}, which")
    assert (tmp_path / "pid").read_text() == f"{first.pid}\n"


@pytest.mark.skipif(not shutil.which("setsid"), reason="needs setsid")
def test_a_server_stops_when_its_terminal_is_gone(start: Start) -> None:
    """As when its window is closed: else it would go on unseen."""
    master, slave = pty.openpty()
    script = 'exec 0<>"$0"; exec "$@"'  # the first terminal that a session opens is its own
    program = start(
        *("mysite:app", "--bind", "127.0.0.1:0"),
        program=["setsid", "sh", "-c", script, os.ttyname(slave), *PROGRAM],
    )
    program.serving()
    os.close(slave)
    os.close(master)
    program.until("stopping: no requests are in progress; a second signal to stop at once (SIGHUP)")
    assert program.wait() == 0


def test_the_port_of_a_platform_is_listened_on(start: Start) -> None:
    """At all addresses, where no other is given."""
    port = free_port()
    program = start("mysite:app", PORT=str(port))
    program.serving()
    assert get(f"127.0.0.1:{port}").status == 200
    other = start("mysite:app", "--bind", "127.0.0.1:0", PORT=str(port))
    assert " on http://127.0.0.1:" in other.until(" serving ")
    wrong = start("mysite:app", PORT="http")
    assert wrong.wait() == 1
    assert wrong.lines == ["bide: PORT is 'http': it must be a port number"]
