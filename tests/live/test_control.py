"""The commands, and what servers answer on their control sockets: real processes."""

import contextlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bide.cli import main
from bide.errors import ControlError
from bide.seeing.client import ask, watch
from bide.serving.counters import DURATION
from tests.failures import Failures, same
from tests.live.blocking import SOURCE
from tests.live.conftest import Start
from tests.live.processes import PROGRAM, get
from tests.served import DEADLINE, Client, request, until


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``mysite``."""
    (tmp_path / "mysite.py").write_text(SOURCE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a runtime directory, for these processes and this one. Sockets have short paths."""
    short = Path(f"/tmp/bide-test-{os.getpid()}")
    short.symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    yield short
    short.unlink()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Run a command in this process, which is quicker; return its code, and its error."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return ended.value.code, capsys.readouterr().err.strip()


def visit(address: str, *paths: str) -> list[Client]:
    """Send a request for each path; the responses may never come."""
    clients = [Client(address) for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        client.send(request(path))
    return clients


def workers(path: Path) -> list[dict[str, Any]]:
    """Return the snapshots of a server's workers, once all of them answer in time."""
    told: dict[str, Any] = {}

    def all_answer() -> bool:
        told.update(ask(str(path), "status"))
        return not told["mute"]

    until(all_answer, "a worker stays mute")
    found: list[dict[str, Any]] = told["workers"]
    return found


def requests(path: Path) -> dict[str, dict[str, Any]]:
    """Return the requests of all workers by their targets."""
    return {each["target"]: each for worker in workers(path) for each in worker["requests"]}


def test_a_server_answers_at_the_path_that_it_is_told(start: Start, place: Path) -> None:
    """Its owner alone; another server cannot have the path, and it is gone with the server."""
    path = place / "here"
    first = start("mysite:app", "--bind", "127.0.0.1:0", "--control", str(path))
    first.serving()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = start("mysite:app", "--bind", "127.0.0.1:0", "--control", str(path))
    assert second.wait() == 1
    assert "is used by another server" in second.lines[-1]
    assert ask(str(path), "status")["pid"] == first.pid
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert not path.exists()


def test_a_server_whose_threads_are_all_blocked_answers(start: Start, place: Path) -> None:
    """And one whose event loop is: it says who blocks, and where."""
    path = place / "here"
    with Failures() as failures:
        for application in ("mysite:app", "mysite:on_loop"):
            with failures.of(application):
                program = start(
                    application,
                    *("--bind", "127.0.0.1:0", "--control", str(path), "--threads", "2"),
                    *("--limit-threads", "2"),
                    BIDE_BLOCKED_LOOP="0.01",
                    BIDE_BLOCKED_THREAD="0.01",
                )
                address = program.serving()
                clients = visit(address, "/wait", "/block", "/block")
                on_loop = application == "mysite:on_loop"

                def blocked(most: int = 1 if on_loop else 2) -> bool:
                    (worker,) = workers(path)
                    states = [each["state"] for each in worker["threads"]]
                    return states.count("blocked") >= most

                until(blocked)
                found = run("stacks", str(path))
                same(found.returncode, 0)
                assert "in request 0-" in found.stdout
                assert "threading.Event().wait()" in found.stdout
                for each in clients:
                    each.close()
                program.signal(signal.SIGKILL)
                program.wait()


def test_commands_show_a_request_and_stop_the_server(
    start: Start, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the server's name, which it has from its application; without one that is enough."""
    program = start("mysite:app", "--bind", "127.0.0.1:0", XDG_RUNTIME_DIR=str(place))
    path = place / "bide" / "mysite.sock"
    clients = visit(program.serving(), "/wait")
    until(lambda: requests(path).get("/wait", {}).get("state") == "waiting")
    shown = json.loads(run("status", "mysite").stdout)
    same([shown["name"], shown["pid"], shown["mute"]], ["mysite", program.pid, []])
    identity = shown["workers"][0]["requests"][0]["id"]
    stack = run("stacks", identity).stdout
    assert stack.startswith(
        f"request {identity} GET /wait: waiting for coroutine never, on bide-thread-1"
    )
    assert "bide.wait(never())" in stack
    with Failures() as failures:
        for arguments, line in {
            ("stacks", "0-99"): "bide: there is no request 0-99 in progress",
            ("reload",): "bide: it has no workers to replace: restart it for a new version",
            ("workers", "+1"): "bide: it has no workers: start it with --workers N",
            ("status", "other"): "bide: there is no server 'other'; there is: mysite",
        }.items():
            with failures.of(arguments):
                same(said(capsys, *arguments), (1, line))
        for arguments in (("workers",), ("workers", "x"), ("status", "a", "b"), ("stop", "--x")):
            with failures.of(arguments):
                same(said(capsys, *arguments)[0], 2)
    clients[0].close()
    same(run("stop").stdout, "it stops, as by SIGTERM\n")
    same(program.wait(), 0)
    assert not path.exists()
    same(said(capsys, "status")[0], 1)


def test_an_application_of_a_command_s_name_is_served(start: Start, tmp_path: Path) -> None:
    """It has a colon."""
    (tmp_path / "status.py").write_text(SOURCE)
    address = start("status:app", "--bind", "127.0.0.1:0", "--no-control").serving()
    same(get(address).status, 200)


def test_a_server_with_workers_is_looked_at_and_told(start: Start, place: Path) -> None:
    """All of its workers answer; they are replaced, more, fewer, and stopped."""
    path = place / "here"
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--workers", "2", "--control", str(path))
    clients = visit(program.serving(), "/wait")
    until(lambda: requests(path).get("/wait", {}).get("state") == "waiting")
    request = requests(path)["/wait"]
    same([each["worker"] for each in workers(path)], [1, 2])
    same(request["id"].partition("-")[0], str(number_of(path, "/wait")))
    assert "bide.wait(never())" in run("stacks", str(path), request["id"]).stdout
    clients[0].close()
    before = {each["pid"] for each in workers(path)}
    same(run("workers", str(path), "+1").stdout, "3 workers from now on\n")
    until(lambda: [each["worker"] for each in workers(path)] == [1, 2, 3])
    same(run("workers", str(path), "2").stdout, "2 workers from now on\n")
    until(lambda: {each["pid"] for each in workers(path)} == before)
    same(run("reload", str(path)).returncode, 0)
    until(lambda: len(workers(path)) == 2 and not before & {each["pid"] for each in workers(path)})
    os.kill(workers(path)[0]["pid"], signal.SIGKILL)
    until(lambda: ask(str(path), "status")["restarts"] == {"reload": 2, "died": 1})
    assert "error" in ask(str(path), "workers", "-2")
    same(run("stop", str(path)).returncode, 0)
    same(program.wait(), 0)
    assert not path.exists()


def number_of(path: Path, target: str) -> int:
    """Return the number of the worker that has a request."""
    (number,) = [
        each["worker"]
        for each in workers(path)
        if target in [request["target"] for request in each["requests"]]
    ]
    return int(number)


def test_a_worker_that_does_not_answer_is_named_and_others_are_shown(
    start: Start, place: Path
) -> None:
    """Until it answers again. A new version has the socket from when it serves."""
    path = place / "here"
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--workers", "2", "--control", str(path))
    program.serving()
    stopped = workers(path)[0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:

        def one_is_mute() -> bool:
            told = ask(str(path), "status")
            return [told["mute"], [each["worker"] for each in told["workers"]]] == [[1], [2]]

        until(one_is_mute)
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: [each["worker"] for each in workers(path)] == [1, 2])
    program.signal(signal.SIGUSR2)
    until(lambda: ask(str(path), "status")["pid"] != program.pid)
    program.until("INFO stopped")
    second = ask(str(path), "status")["pid"]
    ask(str(path), "stop")
    with contextlib.suppress(ControlError):  # it has ended before
        same({each["pid"] for each in watch(str(path), 0.1)} - {second}, set())
    until(lambda: not path.exists())
    with pytest.raises(ControlError, match="no server answers"):
        ask(str(path), "status")
    same(program.wait(), 0)


def test_what_workers_have_counted_never_falls(start: Start, place: Path) -> None:
    """Neither while one is mute nor when it is killed; at a reload nothing at all is lost."""
    path = place / "here"
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--workers", "1", "--control", str(path))
    address = program.serving()

    def served() -> float:
        told = ask(str(path), "status")
        counted = [told["ended"], *(each["counters"] for each in told["workers"])]
        return sum(sum(each.get(f"{DURATION}_bucket", {}).values()) for each in counted)

    def visit_more(number: int) -> None:
        for _ in range(number):
            same(get(address).status, 200)

    visit_more(3)
    until(lambda: served() == 3)
    first = workers(path)[0]["pid"]
    os.kill(first, signal.SIGSTOP)
    try:
        same(served(), 3)
    finally:
        os.kill(first, signal.SIGCONT)
    until(lambda: len(workers(path)) == 1)
    os.kill(first, signal.SIGKILL)
    until(lambda: [each["pid"] for each in workers(path)] not in ([first], []))
    same(served(), 3)
    second = workers(path)[0]["pid"]
    visit_more(2)  # nobody asks between this and the worker's end
    ask(str(path), "reload")
    until(lambda: not Path(f"/proc/{second}").exists())
    until(lambda: served() == 5)
