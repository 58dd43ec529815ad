"""The status page of real servers: live whatever they do, and ended with them."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.failures import Failures
from tests.live.blocking import SOURCE
from tests.live.conftest import Start
from tests.live.processes import Program
from tests.ports import free_port
from tests.served import DEADLINE, Client, request, until

TOKEN = "correct-horse-battery"


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> None:
    """Write the module ``mysite``."""
    (tmp_path / "mysite.py").write_text(SOURCE)


class Shown:
    """A server with a status page.

    Attributes:
        program: the server.
        address: where that serves.
        url: the page's.
    """

    def __init__(self, start: Start, *arguments: str, **variables: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        status = self.url.removeprefix("http://")
        self.program: Program = start(
            *arguments, "--bind", "127.0.0.1:0", "--status", status, "--control", "off", **variables
        )
        self.address = self.program.serving()

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Ask the page; while its process starts, its socket has the request."""
        return httpx.get(self.url + path, headers=headers, timeout=DEADLINE, trust_env=False)

    @property
    def seen(self) -> dict[str, Any]:
        """The instance."""
        found: dict[str, Any] = self.get("/status.json").json()
        return found

    def states(self) -> list[str]:
        """Return the states of all requests."""
        return sorted(
            each["state"] for worker in self.seen["workers"] for each in worker["requests"]
        )

    def page(self) -> int:
        """Return the number of the page's process: the only child besides the workers."""
        workers = {each["pid"] for each in self.seen["workers"]}
        (found,) = set(children(self.program.pid)) - workers
        return found


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(each)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for each in (task / "children").read_text().split()
    ]


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def visit(address: str, *paths: str) -> list[Client]:
    clients = [Client(address) for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        client.send(request(path))
    return clients


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_it_is_live_while_all_lanes_are_blocked(start: Start) -> None:
    """And says which they are, and what they delay."""
    shown = Shown(
        start,
        "mysite:app",
        "--threads=2",
        "--limit-threads=2",
        "--blocked-thread=0.05",
        BIDE_BLOCKED_THREAD="",
    )
    clients = visit(shown.address, "/wait")
    until(lambda: shown.states() == ["waiting"])
    clients += visit(shown.address, "/block", "/block", "/wait")
    until(lambda: shown.states() == ["queued", "running", "running", "waiting"])
    stream = httpx.stream("GET", shown.url + "/events", timeout=DEADLINE, trust_env=False)
    with stream as response:
        blocked = 0
        came = events(response)
        while blocked < 2:
            threads = next(came)["threads"]
            blocked = sum(each["state"] == "blocked" for each in threads)
        assert {each["runs"] for each in threads if each["state"] == "blocked"} == {"GET /block"}
        assert sum(each["waiting"] for each in threads if each["state"] == "blocked") == 1
    for each in clients:
        each.close()


def test_it_is_live_while_the_event_loop_is_blocked(start: Start) -> None:
    """Which is told, too."""
    shown = Shown(
        start, "mysite:on_loop", "--executor=loop", "--blocked-loop=0.05", BIDE_BLOCKED_LOOP=""
    )
    (client,) = visit(shown.address, "/block")

    def blocked() -> bool:
        (loop,) = shown.seen["workers"][0]["threads"]
        return bool(loop["name"] == "the event loop" and loop["state"] == "blocked")

    until(blocked)
    assert shown.get("/").status_code == 200
    assert shown.get("/health").status_code == 200
    client.close()


def test_a_supervisor_answers_for_its_workers(start: Start) -> None:
    """Also while their event loops are blocked; and the page lives on when they do not."""
    shown = Shown(start, "mysite:on_loop", "--executor=loop", "--workers=2")
    until(lambda: len(shown.seen["workers"]) == 2)
    assert [each["worker"] for each in shown.seen["workers"]] == [1, 2]
    clients = visit(shown.address, *["/block"] * 8)  # wherever the system sends them
    until(lambda: "running" in shown.states())
    page = shown.page()
    victim = shown.seen["workers"][0]["pid"]
    os.kill(victim, signal.SIGKILL)
    shown.program.until("it is replaced")
    until(lambda: [each["pid"] for each in shown.seen["workers"]].count(victim) == 0)
    until(lambda: len(shown.seen["workers"]) == 2)
    assert shown.page() == page
    workers = [each["pid"] for each in shown.seen["workers"]]
    shown.program.signal(signal.SIGKILL)
    until(lambda: not lives(page))
    for pid in workers:  # they would have had their time to finish
        os.kill(pid, signal.SIGKILL)
    for each in clients:
        each.close()


def test_it_is_started_again_when_it_dies_and_ended_with_its_server(start: Start) -> None:
    """However it or the server ends. With workers or without, nothing else of theirs is its own."""
    with Failures() as failures:
        for workers in ((), ("--workers=1",)):
            with failures.of(str(workers)):
                shown = Shown(start, "mysite:app", "--pid-file=pid", *workers)
                until(lambda: len(shown.seen["workers"]) == 1)  # noqa: B023 - it is called here
                first = shown.page()
                assert {each.partition(":")[0] for each in descriptors(first)} <= {
                    "pipe",
                    "socket",
                    "/dev/null",
                    "anon_inode",
                }
                assert port(shown.address) not in listening(first)
                assert port(shown.url) in listening(first)
                os.kill(first, signal.SIGKILL)
                line = shown.program.until("it is started again")
                assert "was killed by SIGKILL" in line
                second = shown.page()  # the socket had the request meanwhile
                assert second != first
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                    os.kill(second, number)  # as a terminal and a service manager do to all
                assert shown.page() == second
                shown.program.signal(signal.SIGTERM)
                assert shown.program.wait() == 0
                until(lambda: not lives(second))  # noqa: B023


def test_a_fork_of_the_application_does_not_keep_it(start: Start) -> None:
    """It ends with the server that it shows, and not with that one's children."""
    shown = Shown(start, "mysite:app")
    page = shown.page()
    (client,) = visit(shown.address, "/fork")
    fork = int(shown.program.until("forked ").split()[-1])
    try:
        shown.program.signal(signal.SIGKILL)
        until(lambda: not lives(page))
        assert lives(fork)
    finally:
        os.kill(fork, signal.SIGKILL)
        client.close()


def test_a_token_lets_it_be_shown_to_others_and_is_shown_to_nobody(start: Start) -> None:
    """Without one, the server does not start."""
    refused = start("mysite:app", "--bind", "127.0.0.1:0", "--status", "0.0.0.0:0")
    assert refused.wait() == 1
    assert refused.lines[-1].startswith("bide: ")
    assert "which other machines can reach" in refused.lines[-1]
    shown = Shown(start, "mysite:app", BIDE_STATUS_TOKEN=TOKEN)
    assert shown.get("/status.json").status_code == 401
    assert shown.get("/status.json", Authorization=f"Bearer {TOKEN}").status_code == 200
    for pid in (shown.program.pid, *children(shown.program.pid)):
        assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
    printed = start("--print-settings", BIDE_STATUS_TOKEN=TOKEN, BIDE_STATUS="127.0.0.1:0")
    assert printed.wait() == 0
    assert not any(TOKEN in each for each in printed.output)
    assert "# status_token is not shown  # BIDE_STATUS_TOKEN" in printed.output


def descriptors(pid: int) -> set[str]:
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed since
            found.add(os.readlink(each))
    return found


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def listening(pid: int) -> set[int]:
    """Return the ports that a process listens on."""
    inodes = {each[8:-1] for each in descriptors(pid) if each.startswith("socket:[")}
    rows = [each.split() for each in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes
    }
