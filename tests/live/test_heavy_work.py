"""Work in other processes, at its size: what arrays cost, and what many clients leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.live.conftest import Start
from tests.live.processes import get
from tests.pools import alive
from tests.served import DEADLINE, Client, request, until

ROOT = Path(__file__).parent.parent.parent

ARRAY = """
import json, sys
import bide
from tests.waiting.heavy import Block
from tests.waiting.tame import Animal

here, there = Animal(), bide.resident(Animal)
block = Block(bytearray(b"x") * int(sys.argv[1]))
before = here.begin_peak(), there.begin_peak().result()
answer = there.same(block).result()
assert bytes(answer.data[-3:]) == b"xxx" and len(answer.data) == len(block.data)
print(json.dumps([here.peak() - before[0], there.peak().result() - before[1]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_array_to_a_resident_and_back_is_two_copies() -> None:
    """One there, and one here. ``ARRAY_BYTES=500000000`` and ``-s`` show another size."""
    size = int(os.environ.get("ARRAY_BYTES", "64000000"))
    done = subprocess.run(
        [sys.executable, "-c", ARRAY, str(size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    here, there = json.loads(done.stdout)
    print(f"{size / 1e6:.0f} MB: {here / 1e6:.1f} MB more here, {there / 1e6:.1f} there")
    assert 0.9 * size < here < 1.1 * size
    assert 0.9 * size < there < 1.1 * size


SQUARES = """
import os
import bide

def square(number):
    while not os.path.exists("now"):
        pass
    return number * number

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"][1:]
    if path == "status":
        status = bide.status()
        counts = status.processes, status.processes_busy, status.processes_queued, status.waiting
        return [repr(counts).encode()]
    return [str(bide.wait(bide.in_process(square, int(path)))).encode()]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_clients_that_leave_what_computes_leave_nothing(start: Start, tmp_path: Path) -> None:
    """The others have their answers, a quick request too; no process or descriptor is left."""
    (tmp_path / "squares.py").write_text(SQUARES)
    program = start("squares:application", "--bind", "127.0.0.1:0", "--process-pool", "2")
    address = program.serving()

    def is_at(*counts: int) -> bool:
        return get(address, "/status").text == repr(counts)

    (tmp_path / "now").touch()
    clients = ask(address, 8)  # starts all that is kept: threads and processes
    assert [each.response().text for each in clients.values()] == [str(n * n) for n in clients]
    close_all(clients.values())
    until(lambda: is_at(2, 0, 0, 0))
    before = descriptors_of(program.pid)  # one more while the status's is closed
    (tmp_path / "now").unlink()
    clients = ask(address, 40)
    until(lambda: is_at(2, 2, 38, 40))
    close_all([clients.pop(number) for number in range(0, 40, 2)])
    until(lambda: is_at(2, 2, 18, 20))
    (tmp_path / "now").touch()
    assert [each.response().text for each in clients.values()] == [str(n * n) for n in clients]
    close_all(clients.values())
    until(lambda: is_at(2, 0, 0, 0))
    until(lambda: descriptors_of(program.pid) <= before, "descriptors are left")
    children = children_of(program.pid)
    assert len(children) == 2
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    until(lambda: not any(alive(each) for each in children), "a process is left")


WHOLE = """
import os
import bide

with open("imports", "a") as file:
    file.write("imported\\n")
print("imported")

@bide.capable("processes")
def squares(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"][1:]
    if path == "pids":
        print("asked")
        return [f"{os.getpid()} {os.getppid()}".encode()]
    with open("calls", "a") as file:
        file.write(path + " ")
    while not os.path.exists("now"):
        pass
    return [str(int(path) ** 2).encode()]

def status(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    status = bide.status()
    return [repr((status.threads_busy, status.queued)).encode()]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_clients_that_leave_a_whole_application_in_processes_leave_nothing(
    start: Start, tmp_path: Path
) -> None:
    """Half of 200 leave: what of them has not begun never does; the others have their answers."""
    (tmp_path / "squares.py").write_text(WHOLE)
    program = start(
        *("/=squares:squares", "/status=squares:status"),
        *("--processes", "2", "--bind", "127.0.0.1:0", "--threads", "1", "--queue-timeout", "100"),
    )
    address = program.serving()

    def is_at(*counts: int) -> bool:
        return get(address, "/status").text == repr(counts)

    (tmp_path / "now").touch()
    clients = ask(address, 8)
    assert [each.response().text for each in clients.values()] == [str(n * n) for n in clients]
    close_all(clients.values())
    until(lambda: is_at(1, 0))  # the status's own
    nursery, *_ = children_of(program.pid)
    processes = children_of(nursery)
    assert len(processes) == 2
    before = descriptors_of(program.pid), os.listdir("/dev/shm")
    (tmp_path / "now").unlink()
    (tmp_path / "calls").unlink()
    clients = ask(address, 200)
    until(lambda: is_at(3, 198))
    close_all([clients.pop(number) for number in range(0, 200, 2)])
    until(lambda: is_at(3, 99))
    (tmp_path / "now").touch()
    assert [each.response().text for each in clients.values()] == [str(n * n) for n in clients]
    close_all(clients.values())
    until(lambda: is_at(1, 0))
    begun = {int(each) for each in (tmp_path / "calls").read_text().split()}
    assert begun >= set(range(1, 200, 2))
    assert len(begun) <= 101
    until(lambda: descriptors_of(program.pid) <= before[0], "descriptors are left")
    assert os.listdir("/dev/shm") == before[1]
    assert children_of(nursery) == processes
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    until(lambda: not any(alive(each) for each in (nursery, *processes)), "a process is left")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_worker_has_processes_of_its_own_which_end_with_it(
    start: Start, tmp_path: Path
) -> None:
    """However a worker ends; the application is imported once, and what it prints is there once."""
    (tmp_path / "squares.py").write_text(WHOLE)
    program = start(
        *("squares:squares", "--processes", "1", "--workers", "2", "--preload"),
        *("--bind", "127.0.0.1:0"),
        PYTHONUNBUFFERED="",
    )
    address = program.serving()

    def both() -> set[tuple[int, ...]]:
        """Return the process of each worker, and what has started it."""
        found: set[tuple[int, ...]] = set()

        def complete() -> bool:
            found.add(tuple(map(int, get(address, "/pids").text.split())))
            return len(found) == 2

        until(complete)
        return found

    found = both()
    killed, *_ = found
    worker = parent_of(killed[1])
    os.kill(worker, signal.SIGKILL)
    program.until("was killed by SIGKILL")
    until(lambda: not any(alive(each) for each in killed), "a process is left")
    found = both()
    assert killed not in found
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    until(lambda: not any(alive(each) for pair in found for each in pair), "a process is left")
    assert (tmp_path / "imports").read_text() == "imported\n"
    assert program.output.count("imported") == 1
    assert "asked" in program.output


def ask(address: str, number: int) -> dict[int, Client]:
    """Ask for the squares of so many numbers; return who waits for which."""
    clients = {each: Client(address) for each in range(number)}
    for each, client in clients.items():
        client.send(request(f"/{each}"))
    return clients


def close_all(clients: Iterable[Client]) -> None:
    """Have clients leave."""
    for each in clients:
        each.close()


def descriptors_of(process: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{process}/fd"))


def parent_of(process: int) -> int:
    """Return the process that has started a process."""
    stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    return int(stat.rpartition(")")[2].split()[1])


def children_of(process: int) -> list[int]:
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text(encoding="ascii").split()]
