"""Several workers: real processes that are replaced, killed and stopped, under clients."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from tests.failures import Failures, same
from tests.live.conftest import Start
from tests.live.processes import PROGRAM, Program, get
from tests.served import DEADLINE, Client, request, until
from tests.service_manager import HANDING_OVER, Manager

SOURCE = """
import os, subprocess, time, bide
from pathlib import Path

VERSION = "1"
IMPORTED_BY = str(os.getpid())

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [])
    if path == "/wait":
        yield b"begun"
        while not Path("open").exists():
            time.sleep(0.005)
        yield b" and finished"
    elif path == "/orphan":
        subprocess.run(["sh", "-c", "true & exec true"], check=True)
    elif path == "/imported":
        yield IMPORTED_BY.encode()
    elif path == "/worker":
        yield str(bide.status().worker).encode()
    elif path == "/version":
        yield VERSION.encode()
    else:
        yield str(os.getpid()).encode()

@bide.capable("async")
def on_loop(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(1000)
    return app(environ, start_response)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> Path:
    """Write the module ``mysite``; return its file."""
    path = tmp_path / "mysite.py"
    path.write_text(SOURCE)
    return path


def change(module: Path, version: str) -> None:
    """Change the application, so that an import sees it."""
    text = SOURCE.replace('VERSION = "1"', version)
    module.write_text(text)
    # A compiled module counts as new by its source's time in seconds, and its size.
    later = time.time() + len(version)
    os.utime(module, (later, later))


class Visitors:
    """Clients that use their connections again and again; in a ``with`` block.

    Args:
        address: the server's.
        number: how many there are.
    """

    def __init__(self, address: str, number: int = 4) -> None:
        self._host = address
        self._ended = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._visit) for _ in range(number)]

    def __enter__(self) -> "Visitors":
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        for each in self._threads:
            each.join(DEADLINE)
        same(self.failures, [])

    def _visit(self) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=DEADLINE)
        try:
            while not self._ended.is_set():
                connection.request("GET", "/")
                response = connection.getresponse()
                text = response.read().decode()
                assert response.status == 200
                self.answers[text] += 1
        except BaseException as error:
            self.failures.append(error)
        finally:
            connection.close()


def text_of(address: str, path: str = "/") -> str:
    """Return what a program answers."""
    response = get(address, path)
    assert response.complete
    return response.body.decode()


def answers(address: str, number: int, path: str = "/") -> set[str]:
    """Ask until there are so many different answers; return them."""
    found: set[str] = set()

    def enough() -> bool:
        found.add(text_of(address, path))
        return len(found) >= number

    until(enough)
    return found


GATED = """Path("importing").touch()
while not Path("gate").exists():
    time.sleep(0.005)
"""
"""Lines with which an import waits for a file."""


def holders(pid: int, path: Path) -> list[int]:
    """Return which processes of a server have a file open, by the supervisor's number."""
    found = []
    for process in [pid, *children_of(pid)]:
        with contextlib.suppress(OSError):  # one or the other may be gone
            for each in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{process}/fd/{each}") == str(path):
                        found.append(process)
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_workers_serve_are_named_and_finish_at_a_stop(start: Start, tmp_path: Path) -> None:
    """The supervisor imports nothing; requests in progress end; the file of a socket goes."""
    path = tmp_path / "bide.sock"
    program = start(
        "mysite:app", "--workers", "2", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}"
    )
    line = program.until(" ready, in up to 4 threads")
    assert re.search(r" INFO \[worker 1, \d+\] ready", line)
    line = program.until(" serving ")
    assert line.endswith(f", unix:{path}, with 2 workers")
    address = line.partition(" on http://")[2].split(",")[0]
    same(answers(address, 2, "/worker"), {"1", "2"})
    pids = answers(f"unix:{path}", 2)
    assert str(program.pid) not in pids
    busy = Client(address)
    busy.send(request("/wait"))
    busy.head()
    assert busy.chunk() == b"begun"
    program.signal(signal.SIGTERM)
    program.until(
        "stopping: finishing the requests of 2 workers, 30 s at most; "
        "a second signal to stop at once (SIGTERM)"
    )
    said = sorted(program.until("] stopping: ").partition("] ")[2] for _ in range(2))
    assert said[0].startswith("stopping: finishing ")
    assert said[0].endswith(", 30 s at most")
    until(lambda: not path.exists())
    (tmp_path / "open").touch()
    assert [busy.chunk(), busy.chunk()] == [b" and finished", b""]
    busy.close()
    assert program.wait() == 0
    assert program.lines[-1].endswith(" INFO stopped")
    with pytest.raises(ConnectionRefusedError):
        Client(address)


def test_a_reload_loses_no_request_and_one_that_fails_changes_nothing(
    start: Start, module: Path
) -> None:
    """Ten reloads under clients that keep their connections."""
    program = start("mysite:app", "-w", "2", "--bind", "127.0.0.1:0")
    address = program.serving()
    with Visitors(address) as visitors:
        for number in range(10):
            version = "2" + number * "."
            change(module, f'VERSION = "{version}"')
            program.signal(signal.SIGHUP)
            program.until("reloaded: all workers are new")
            until(lambda: text_of(address, "/version") == version)  # noqa: B023 - it is called here
        change(module, "VERSION = = a mistake")
        program.signal(signal.SIGHUP)
        program.until("the reload has failed, and the old workers go on: the new worker ")
        assert text_of(address, "/version") == "2........."
        assert any("SyntaxError" in each for each in program.lines)
    assert len(visitors.answers) > 2, "no worker was replaced"


def test_a_killed_worker_is_replaced_and_a_killed_supervisor_is_missed(
    start: Start, tmp_path: Path
) -> None:
    """Its workers finish what they have, and end."""
    program = start("mysite:app", "--workers", "2", "--bind", "127.0.0.1:0")
    address = program.serving()
    pid = int(text_of(address))
    os.kill(pid, signal.SIGKILL)
    program.until(f"(pid {pid}) was killed by SIGKILL: it is replaced")
    pids = {int(re.findall(r"\[worker \d, (\d+)\]", program.until(" ready, "))[0])}
    pids |= set(map(int, answers(address, 2)))
    same(len(pids - {pid}), 2)
    busy = Client(address)
    busy.send(request("/wait"))
    busy.head()
    assert busy.chunk() == b"begun"
    program.signal(signal.SIGKILL)
    for _ in pids:
        program.until("the supervisor has ended: this worker finishes, and ends too")
    (tmp_path / "open").touch()
    assert [busy.chunk(), busy.chunk()] == [b" and finished", b""]
    busy.close()
    until(lambda: all(gone(each) for each in pids))
    with pytest.raises(ConnectionRefusedError):
        Client(address)


def test_more_and_fewer_workers_lose_nothing(start: Start) -> None:
    """Sockets whose workers have gone are accepted from all the same."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", WEB_CONCURRENCY="2")
    address = program.serving()
    with Visitors(address):
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU, signal.SIGTTIN) * 5:
            program.signal(number)
            program.until(f"({number.name})")
        for _ in range(2):
            program.signal(signal.SIGTTIN)
            program.until("(SIGTTIN)")
        same(program.lines[-1].partition("INFO ")[2], "4 workers from now on (SIGTTIN)")
        for _ in range(4):
            program.signal(signal.SIGTTOU)
            program.until("(SIGTTOU)")
        assert program.lines[-1].endswith("there is only one worker: it is not ended (SIGTTOU)")
    # From here on every socket of the four is this one worker's.
    same(len({text_of(address) for _ in range(50)}), 1)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def test_what_cannot_start_is_told_once_and_ends_with_3(start: Start, module: Path) -> None:
    """With several workers, with one, and preloaded."""
    table = [
        (("--workers", "3"), "1 / 0", "ZeroDivisionError"),
        (("--workers", "1", "--preload"), "1 / 0", "ZeroDivisionError"),
        (
            ("--workers", "2", "--preload"),
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(999,), name='ticker', daemon=True).start()",
            "it has started: ticker. Start them in a function registered with bide.on_start",
        ),
    ]
    with Failures() as failures:
        for options, text, line in table:
            with failures.of(options):
                module.write_text(SOURCE + text + "\n")
                program = start("mysite:app", *options, "--bind", "127.0.0.1:0")
                same(program.wait(), 3)
                same(len([each for each in program.lines if line in each]), 1, program.lines)
                assert program.lines[-1].endswith("stopped: no worker could be started")


def test_a_worker_whose_loop_is_blocked_is_killed_and_its_stacks_are_told(start: Start) -> None:
    """And the next one serves."""
    program = start(
        *("mysite:on_loop", "--workers", "1", "--bind", "127.0.0.1:0", "--worker-timeout", "3")
    )
    address = program.serving()
    client = Client(address)
    client.send(request("/hang"))
    line = program.until("the event loop of worker 1 (pid ")
    assert "the worker is killed. What its threads do:" in line
    assert program.until('mysite.py", line ').endswith(" in on_loop")
    program.until("was killed by SIGKILL: it is replaced")
    program.until(" ready, ")
    assert text_of(address, "/version") == "1"
    client.close()


def test_a_worker_is_replaced_after_so_many_requests(start: Start) -> None:
    """Without a request that fails."""
    program = start(
        *("mysite:app", "--workers", "1", "--bind", "127.0.0.1:0"),
        *("--max-requests", "20", "--max-requests-jitter", "0"),
    )
    address = program.serving()
    with Visitors(address, 2) as visitors:
        line = program.until("worker 1 is replaced: it has served ")
        assert int(re.findall(r"served (\d+)", line)[0]) >= 20
        until(lambda: len(visitors.answers) >= 3)


def test_a_worker_is_replaced_when_it_has_too_much_memory(start: Start) -> None:
    """Measured three times in a row."""
    program = start("mysite:app", "-w", "1", "--max-rss", "1000", "--bind", "127.0.0.1:0")
    line = program.until("worker 1 is replaced: it has ")
    assert int(re.findall(r"has (\d+) bytes of memory", line)[0]) > 1000
    program.until(" ready, ")


def rotate(program: Program, directory: Path) -> None:
    """Rename the access log during an import, tell so, and wait until no process has the old."""
    until((directory / "importing").exists)
    old = directory / "old.log"
    (directory / "access.log").rename(old)
    # To all processes, as "systemctl kill" sends it; or, to some, by the supervisor.
    for each in (*children_of(program.pid), program.pid):
        os.kill(each, signal.SIGUSR1)
    until((directory / "access.log").exists)
    (directory / "gate").touch()
    until(lambda: not holders(program.pid, old), "a process still writes to the old file")


def test_preloaded_workers_are_forked_from_one_that_has_imported(
    start: Start, module: Path, tmp_path: Path
) -> None:
    """A reload imports again; the process with the application is replaced when it ends."""
    program = start(
        *("mysite:app", "--workers", "2", "--preload", "--bind", "127.0.0.1:0"),
        *("--access-log", "access.log"),
    )
    address = program.serving()
    pids = answers(address, 2)
    zygote = text_of(address, "/imported")
    assert zygote not in {*pids, str(program.pid)}
    with Visitors(address):
        change(module, f'VERSION = "22"\n{GATED}')
        program.signal(signal.SIGHUP)
        rotate(program, tmp_path)  # all of them: the process that still imports, too
        program.until("reloaded: all workers are new")
        until(lambda: text_of(address, "/version") == "22")
        until(lambda: gone(int(zygote)))
        change(module, "1 / 0 is a mistake")
        program.signal(signal.SIGHUP)
        program.until("the reload has failed, and the old workers go on: the application cannot")
    second = int(text_of(address, "/imported"))
    change(module, 'VERSION = "333"')
    os.kill(second, signal.SIGKILL)
    program.until(f"the process with the application (pid {second}) was killed by SIGKILL")
    # A worker that has to be started now waits for it.
    os.kill(int(text_of(address)), signal.SIGKILL)
    until(lambda: text_of(address, "/version") == "333")
    # One that cannot be made again does not stop the server: the workers serve.
    (third,) = map(int, answers(address, 2, "/imported") - {str(second)})
    change(module, "1 / 0 is another mistake")
    os.kill(third, signal.SIGKILL)
    program.until("has ended with exit code 1")
    change(module, 'VERSION = "4444"')
    program.signal(signal.SIGHUP)
    program.until("reloaded: all workers are new")
    until(lambda: text_of(address, "/version") == "4444")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


@pytest.fixture
def heirs() -> Iterator[list[int]]:
    """Return a list of processes to be ended after the test, which are not its children."""
    pids: list[int] = []
    yield pids
    for each in pids:
        if not gone(each):
            os.kill(each, signal.SIGKILL)


def test_a_new_version_takes_over_the_sockets(
    start: Start, module: Path, heirs: list[int], tmp_path: Path
) -> None:
    """One that fails changes nothing; else the old one ends, and no request is lost."""
    path = tmp_path / "bide.sock"
    program = start(
        "mysite:app", "--workers", "2", "--bind", "127.0.0.1:0", "--bind", f"unix:{path}"
    )
    address = program.serving()
    change(module, "1 / 0")
    program.signal(signal.SIGUSR2)
    program.until("the new version has ended: this one goes on")
    assert text_of(address, "/version") == "1"
    assert text_of(f"unix:{path}", "/version") == "1"
    change(module, 'VERSION = "22"')
    program.signal(signal.SIGTTIN)  # the new one has two workers for three sockets
    program.until(" ready, ")
    with Visitors(address) as visitors:
        program.signal(signal.SIGUSR2)
        new = int(program.until("the new version is started (SIGUSR2), pid ").rpartition(" ")[2])
        heirs.append(new)
        program.until(f"the new version serves (pid {new}): this one finishes")
        until(lambda: text_of(address, "/version") == "22")
        until(lambda: len(visitors.answers) > 2)
        until(lambda: gone(program.pid))
    same({text_of(address, "/version") for _ in range(40)}, {"22"})
    # One that is killed while the next one starts ends no socket of it.
    change(module, f'VERSION = "4444"\n{GATED}')
    workers = children_of(new)
    os.kill(new, signal.SIGUSR2)
    last = int(program.until("the new version is started (SIGUSR2), pid ").rpartition(" ")[2])
    heirs.append(last)
    program.until(f"(pid {last})")  # it has taken the sockets
    os.kill(new, signal.SIGKILL)
    until(lambda: all(map(gone, workers)))
    (tmp_path / "gate").touch()
    until(lambda: text_of(address, "/version") == "4444")
    assert text_of(f"unix:{path}", "/version") == "4444"
    os.kill(last, signal.SIGTERM)
    assert program.wait() == 0  # its pipe is the last one's, too: all of that have ended
    assert not path.exists()
    assert program.lines[-1].endswith(" INFO stopped")
    with pytest.raises(ConnectionRefusedError):
        Client(address)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Return one that is told of services."""
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_a_supervisor_is_the_service_for_all_its_workers(
    start: Start, manager: Manager, tmp_path: Path, module: Path
) -> None:
    """What systemd is told, the PID file, the logs that are opened anew, the drain's delay."""
    program = start(
        *("mysite:app", "--workers", "2", "--bind", "127.0.0.1:0", "--pid-file", "pid"),
        *("--ready", "/ready", "--drain-delay", "1000", "--access-log", "access.log"),
        NOTIFY_SOCKET=manager.address,
        WATCHDOG_USEC="1000000000",
    )
    address = program.serving()
    told = manager.hear_until("READY")
    assert told["STATUS"] == f"serving mysite:app on http://{address}, with 2 workers"
    assert (tmp_path / "pid").read_text() == f"{program.pid}\n"
    assert "WATCHDOG" in manager.hear_until("WATCHDOG")
    change(module, f'VERSION = "22"\n{GATED}')
    program.signal(signal.SIGHUP)
    manager.hear_until("RELOADING")
    rotate(program, tmp_path)  # while a worker boots
    manager.hear_until("READY")
    change(module, "1 / 0 is a mistake")
    logged = tmp_path / "access.log"
    logged.rename(tmp_path / "older.log")
    program.signal(signal.SIGHUP)
    manager.hear_until("RELOADING")
    manager.hear_until("READY")  # it is given up, and the workers that stay have a new file, too
    until(lambda: not holders(program.pid, tmp_path / "older.log"))
    until(lambda: text_of(address, "/logged") and "/logged" in logged.read_text())
    assert get(address, "/ready").status == 200
    until(lambda: len(children_of(program.pid)) == 2)
    # As systemd sends it: to all processes at once.
    pids = [*children_of(program.pid), program.pid]
    for each in pids:
        os.kill(each, signal.SIGTERM)
    for _ in pids:
        program.until("stopping in 1000 s: accepting until then (SIGTERM)")
    assert "EXTEND_TIMEOUT_USEC" in manager.hear_until("STOPPING")
    until(lambda: {get(address, "/ready").status for _ in range(10)} == {503})
    for each in pids:
        os.kill(each, signal.SIGTERM)
    assert program.wait() == 0
    assert not (tmp_path / "pid").exists()
    same([each for each in program.lines if "is replaced" in each or "stopped at" in each], [])


def test_a_restart_under_systemd_keeps_the_sockets_of_all_workers(
    start: Start, manager: Manager
) -> None:
    """Who connects meanwhile waits, on any of them."""
    options = ["mysite:app", "--workers", "2", "--bind", "127.0.0.1:0"]
    variables = {"NOTIFY_SOCKET": manager.address, "FDSTORE": "4"}
    first = start(*options, **variables)
    address = first.serving()
    manager.hear_until("READY")
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    same(len(manager.kept), 2)
    clients = [Client(address) for _ in range(20)]
    for each in clients:
        each.send(request("/worker"))
    second = start(
        *options,
        program=[sys.executable, "-c", HANDING_OVER, ",".join(map(str, manager.kept)), *PROGRAM],
        descriptors=manager.kept,
        LISTEN_FDNAMES="bide-listener:bide-listener",
        **variables,
    )
    assert {each.response().text for each in clients} <= {"1", "2"}
    for each in clients:
        each.close()
    assert second.serving() == address
    second.signal(signal.SIGTERM)
    assert second.wait() == 0


def test_a_socket_that_is_handed_over_is_shared_and_left_open(start: Start) -> None:
    """It is systemd's, which gives it to the next one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = start(
            *("mysite:app", "--workers", "2"),
            program=[sys.executable, "-c", HANDING_OVER, str(listener.fileno()), *PROGRAM],
            descriptors=[listener.fileno()],
        )
        address = program.serving()
        same(answers(address, 2, "/worker"), {"1", "2"})
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()


def test_a_signal_of_a_terminal_that_has_gone_is_ignored_under_nohup(start: Start) -> None:
    """By all processes: the supervisor, the one that has imported, and the worker."""
    program = start(
        *("mysite:app", "-w", "1", "--preload", "--bind", "127.0.0.1:0"),
        program=["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *PROGRAM],
    )
    program.serving()
    pids = [program.pid, *children_of(program.pid)]
    same([ignored(each) & 1 << signal.SIGHUP - 1 for each in pids], [1, 1, 1])
    program.signal(signal.SIGTERM)
    assert program.wait() == 0


def ignored(pid: int) -> int:
    """Return which signals a process ignores, a bit for each."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"SigIgn:\t([0-9a-f]+)", text)[0], 16)


def test_process_1_takes_the_ends_of_strangers(start: Start) -> None:
    """It is a container's first process; a stranger's end is not a worker's."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rpf", "true"], capture_output=True).returncode:
        pytest.skip("unshare is not allowed to make a container here")
    program = start(
        *("mysite:app", "--workers", "2", "--bind", "127.0.0.1:0"),
        program=[unshare, "-rpf", "--kill-child", *PROGRAM],
    )
    address = program.serving()
    assert any("starting 2 workers (pid 1)" in each for each in program.lines)
    for _ in range(5):
        assert text_of(address, "/orphan") == ""
    (first,) = children_of(program.pid)
    # Strangers that have not ended yet are children too, and one that has ended until it is reaped.
    until(lambda: len(children_of(first)) == 2, "not all strangers are reaped")
    os.kill(first, signal.SIGUSR2)
    program.until("SIGUSR2 is ignored: this is process 1, and the container would end with it")
    os.kill(first, signal.SIGTERM)
    assert program.wait() == 0
    assert not [each for each in program.lines if "replaced" in each]


def children_of(pid: int) -> list[int]:
    """Return a process's children."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
