"""Other processes under load: half of the clients leave, processes are killed, nothing is left.

    python -m soak.processes [SECONDS [SEED]]

A server computes for its clients in three ways: the whole application in child processes,
``bide.in_process``, and ``bide.resident``; in two processes each. Two hundred clients ask at once,
for squares of numbers of their own, each of which takes 20 ms of computing. Half of them leave.
Meanwhile any process is killed at any moment. Whoever stays must have the answer to his own
question, or an error; and there may be no more errors than processes were killed. At the end
there must be as many processes, descriptors and files in shared memory as before. It needs Linux,
and ends with 1 if that is not so.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.live.processes import PROGRAM, Program, get
from tests.pools import alive
from tests.served import Client, request, until

SOURCE = """
import time
import bide

def square(number):
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    return number * number

class Squares:
    def of(self, number):
        return square(number)

squares = bide.resident(Squares, processes=2)

def answer(start_response, text):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(text).encode()]

@bide.capable("processes")
def whole(environ, start_response):
    return answer(start_response, square(int(environ["PATH_INFO"][1:])))

def calls(environ, start_response):
    kind, number = environ["PATH_INFO"][1:].split("-")
    if kind == "status":
        status = bide.status()
        of = status.residents
        busy = status.processes_busy + status.processes_queued + sum(e.busy + e.queued for e in of)
        return answer(start_response, status.running + status.waiting + status.queued + busy)
    call = bide.in_process(square, int(number)) if kind == "call" else squares.of(int(number))
    return answer(start_response, bide.wait(call))
"""
CLIENTS = 200
PLACES = ("/whole/", "/calls/call-", "/calls/resident-")


def tree(process: int) -> list[int]:
    """Return all processes below one."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            for each in task.read_text(encoding="ascii").split():
                found += [int(each), *tree(int(each))]
    return found


def computing(process: int) -> list[int]:
    """Return the processes that make calls: those below, which have no processes themselves."""
    return [each for each in tree(process) if not tree(each)]


def idle(address: str) -> bool:
    """Whether nothing is in progress but the question for that."""
    return get(address, "/calls/status-0").text == "1"


class Soak:
    """The rounds, and what came of them."""

    def __init__(self, program: Program, random: Random) -> None:
        self._program = program
        self._address = program.serving()
        self._random = random
        self._number = 0
        self._killed = 0
        self._counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def round(self, kills: int) -> None:
        """Have all clients ask, half of them leave, and some processes be killed."""
        random = self._random
        clients: dict[int, Client] = {}
        for _ in range(CLIENTS):
            self._number += 1
            client = clients[self._number] = Client(self._address)
            client.send(request(random.choice(PLACES) + str(self._number)))
        for number in random.sample(list(clients), CLIENTS // 2):
            clients.pop(number).close()
        stays = list(clients)
        at = set(random.sample(range(len(stays)), kills))
        for place, number in enumerate(stays):
            if place in at:
                self._kill()
            response = clients[number].response()
            clients[number].close()
            self._counts[f"answered {response.status}"] += 1
            if response.status == 200 and response.text != str(number * number):
                self.faults.append(f"{number} was answered {response.text}")

    def _kill(self) -> None:
        found = computing(self._program.pid)
        if found:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(found), signal.SIGKILL)
                self._killed += 1

    def warm(self) -> tuple[int, int, int]:
        """Have all be started that is kept; return what there is then."""
        self.round(0)
        return self.rest()

    def rest(self) -> tuple[int, int, int]:
        """Return how many processes, descriptors and files in shared memory there are at rest."""
        until(lambda: idle(self._address), "calls are left", seconds=60)
        for place in PLACES * 4:
            get(self._address, f"{place}1")  # what was killed when it was idle is replaced
        until(lambda: idle(self._address), "calls are left", seconds=60)
        pid = self._program.pid
        return (
            len(tree(pid)),
            len(os.listdir(f"/proc/{pid}/fd")),
            len(os.listdir("/dev/shm")),
        )

    def tell(self) -> str:
        """Return what there was, and note what should not have been."""
        counts = self._counts
        failed = sum(counts.values()) - counts["answered 200"]
        if failed > self._killed:
            self.faults.append(f"{failed} have failed, and {self._killed} processes were killed")
        told = ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
        return f"{self._number} have asked, {told}; {self._killed} processes were killed"


def main(seconds: float, seed: int) -> int:
    """Soak for so long; return the exit code."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "squares.py").write_text(SOURCE, encoding="utf-8")
        program = Program(
            [
                *(*PROGRAM, "/whole=squares:whole", "/calls=squares:calls"),
                *("--bind", "127.0.0.1:0", "--processes", "2", "--process-pool", "2"),
                *("--queue-timeout", "600", "--process-queue", "1000", "--request-timeout", "0"),
            ],
            Path(place),
        )
        try:
            soak = Soak(program, Random(seed))
            before = soak.warm()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                soak.round(kills=4)
            after = soak.rest()
            below = tree(program.pid)
            program.signal(signal.SIGTERM)
            code = program.wait()
        finally:
            program.close()
    print(soak.tell())
    names = ("processes", "descriptors", "files in shared memory")
    for name, had, has in zip(names, before, after, strict=True):
        print(f"{name}: {had} before, {has} after")
        if has > had:
            soak.faults.append(f"{name} are left")
    until(lambda: not any(map(alive, below)), "processes are left", seconds=30)
    if code:
        soak.faults.append(f"the server has ended with {code}")
    for fault in soak.faults:
        print(f"FAULT: {fault}")
    return int(bool(soak.faults))


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(float(given[0]) if given else 60.0, int(given[1]) if len(given) > 1 else 20260))
