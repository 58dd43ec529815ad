"""Attacks over HTTP/2 on a real server, and what another client notices of them.

    python -m soak.http2 [ATTACK …]

Each attack of :mod:`soak.http2_attacks`, or those that are named, is made again and again for five
seconds, by two connections at a time, from processes of their own. Beside it a client asks on a
connection of its own. Printed are the server's CPU seconds, the most memory that it has used, and
that client's p99 and its slowest answer. The server has one core; the attackers have the others,
where they yield to that client (``nice``), so that it only waits for the server. Before that come
the same without an attack, and with two processes that compute and send nothing.
Ends with 1 if an answer of that client was missing or wrong, or if the server has grown by more
than 150 MB. It needs Linux.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from soak.http2_attacks import ATTACKS, SOURCE
from tests.http2_clients import Client, get
from tests.live.processes import PROGRAM, Program

SECONDS = 5.0
ATTACKERS = 2
GROWTH = 150
COMPUTING = "only computing"
PAUSE = 0.005
"""Seconds between two requests of the other client."""
TICKS = os.sysconf("SC_CLK_TCK")


def attack(name: str, address: str, seconds: float) -> None:
    """Attack for so long, one connection after the other; in a process of its own."""
    os.nice(19)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if name == COMPUTING:
            continue
        # The server may end a connection at any point, also while the next one is made.
        with contextlib.suppress(OSError), Client(address) as client:
            ATTACKS[name].run(client)


def cpu(process: int) -> float:
    """Return the seconds of processor time that a process has used."""
    text = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / TICKS


def _pin(process: int, cores: set[int]) -> None:
    """Have all threads of a process run on these cores; what it starts later does, too."""
    for thread in os.listdir(f"/proc/{process}/task"):
        os.sched_setaffinity(int(thread), cores)


def most_memory(process: int) -> int:
    """Return the most megabytes that it has used."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) // 1024


class Other:
    """The client that only wants its answers, for some seconds.

    Attributes:
        times: how long each took, in seconds, sorted.
        wrong: answers that were missing or wrong.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self.times: list[float] = []
        self.wrong = 0
        end = time.monotonic() + seconds
        with Client(address) as client:
            while time.monotonic() < end and not client.closed:
                before = time.monotonic()
                answer = client.ask(get(b"/other"))
                self.times.append(time.monotonic() - before)
                self.wrong += answer.body != b"x" * 10
                time.sleep(PAUSE)
        self.times.sort()

    @property
    def told(self) -> str:
        """Its p99 and its slowest answer."""
        p99 = self.times[int(len(self.times) * 0.99)]
        return f"p99 {p99 * 1000:7.1f} ms, slowest {self.times[-1] * 1000:7.1f} ms"


def measure(name: str) -> bool:
    """Make an attack, or none, on a new server; print what it cost; return if all is well."""
    with tempfile.TemporaryDirectory() as place:
        Path(place, "attacked.py").write_text(SOURCE, encoding="utf-8")
        arguments = ["attacked:app", "--bind", "127.0.0.1:0", "--access-log", "off"]
        cores = os.sched_getaffinity(0)
        program = Program([*PROGRAM, *arguments], Path(place))
        try:
            if len(cores) > 1:
                _pin(program.pid, {max(cores)})
                os.sched_setaffinity(0, cores - {max(cores)})  # and the attackers
            address = program.serving()
            Other(address, 0.5)
            begun, memory = cpu(program.pid), most_memory(program.pid)
            attackers: list[BaseProcess] = []
            if name:
                spawn = multiprocessing.get_context("spawn")
                arguments_of = (name, address, SECONDS)
                for _ in range(ATTACKERS):
                    attackers.append(spawn.Process(target=attack, args=arguments_of))
                    attackers[-1].start()
            other = Other(address, SECONDS)
            used, most = cpu(program.pid) - begun, most_memory(program.pid)
            for each in attackers:
                each.kill()
                each.join()
        finally:
            program.close()
            os.sched_setaffinity(0, cores)
    print(
        f"{name or 'no attack':20} CPU {used:5.2f} s of {SECONDS:.0f}, memory {memory} to {most} "
        f"MB, {len(other.times):4} answers, {other.wrong} wrong, {other.told}",
        flush=True,
    )
    return other.wrong == 0 and most - memory <= GROWTH


def main(names: list[str]) -> int:
    """Make the attacks of these names, or all; return the exit code."""
    unknown = set(names) - set(ATTACKS)
    if unknown:
        print(f"no such attack: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
        return 2
    well = [measure(name) for name in ("", COMPUTING, *(names or ATTACKS))]
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
