"""Workers under load: reloads that lose nothing, an even load, memory that is shared.

    python -m soak.workers [RELOADS]

It runs wrk and several clients that keep their connections while the workers are reloaded again and
again, by 100 unless told otherwise, and while workers are killed; then it opens 1,000 connections
over 4 workers; then it measures the memory of 8 workers (PSS, in which shared pages count in parts)
with and without ``--preload``. It needs Linux and wrk. It ends with 1 if an aim is missed.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.live.processes import PROGRAM, Program

SOURCE = """
import os

DATA = [{"number": each, "name": f"product {each}"} for each in range(100_000)]

def app(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
SPREAD = 1.3
"""How many times the mean the worker with the most connections may have."""
SHARED = 0.5
"""How much of the memory without ``--preload`` the same workers may have with it."""
AFTER = 5.0
"""Seconds that a load goes on after the last reload."""


class Clients:
    """Clients that each use one connection again and again, and count what fails."""

    def __init__(self, address: str, number: int) -> None:
        self._address = address
        self._ended = threading.Event()
        self.answers = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(number)]
        for each in self._threads:
            each.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self._ended.is_set():
            try:
                connection.request("GET", "/")
                assert connection.getresponse().read()
                self.answers += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))
                connection.close()
            self._ended.wait(0.02)
        connection.close()

    def end(self) -> None:
        """End them."""
        self._ended.set()
        for each in self._threads:
            each.join()


def reload_under_load(directory: Path, reloads: int) -> bool:
    """Reload again and again under wrk and others; return whether no request failed."""
    program = Program([*PROGRAM, "shop:app", "-w", "2", "--bind", "127.0.0.1:0"], directory)
    try:
        address = program.serving()
        wrk = subprocess.Popen(
            ["wrk", "-t", "1", "-c", "16", "-d", "1h", f"http://{address}/"],
            stdout=subprocess.PIPE,
            text=True,
        )
        clients = Clients(address, 8)
        began = time.monotonic()
        for _ in range(reloads):
            program.signal(signal.SIGHUP)
            program.until("reloaded: all workers are new")
        took = time.monotonic() - began
        time.sleep(AFTER)
        wrk.send_signal(signal.SIGINT)
        out, _ = wrk.communicate()
        clients.end()
        requests = re.findall(r"(\d+) requests in", out)[0]
        errors = re.findall(r"(Socket errors: .*|Non-2xx.*)", out)
        print(f"{reloads} reloads in {took:.0f} s: wrk made {requests} requests, failed: {errors};")
        print(f"  8 clients made {clients.answers}, {len(clients.failures)} failed")
        for each in Counter(clients.failures).most_common(5):
            print(f"    {each}")
        return not errors and not clients.failures
    finally:
        program.close()


def kill_under_load(directory: Path) -> bool:
    """Kill workers under clients; return whether each was back within a second."""
    program = Program([*PROGRAM, "shop:app", "-w", "2", "--bind", "127.0.0.1:0"], directory)
    try:
        address = program.serving()
        clients = Clients(address, 8)
        slowest = 0.0
        for _ in range(5):
            pid = int(answer(address))
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            program.until("was killed by SIGKILL: it is replaced")
            program.until(" ready, ")
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(12)  # a worker that ends sooner counts as one that cannot start
        clients.end()
        print(f"5 workers killed: the slowest was back in {slowest:.2f} s;")
        print(f"  8 clients made {clients.answers} requests, {len(clients.failures)} failed")
        return slowest < 1.0
    finally:
        program.close()


def answer(address: str) -> str:
    """Return the number of the worker that has a new connection."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def spread(directory: Path) -> bool:
    """Open 1,000 connections over 4 workers; return whether they are spread evenly."""
    program = Program([*PROGRAM, "shop:app", "-w", "4", "--bind", "127.0.0.1:0"], directory)
    try:
        address = program.serving()
        found: Counter[str] = Counter()
        kept = []
        for _ in range(1000):
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("GET", "/")
            found[connection.getresponse().read().decode()] += 1
            kept.append(connection)
        for each in kept:
            each.close()
        most = max(found.values()) / (1000 / 4)
        print(
            f"1,000 connections over 4 workers: {sorted(found.values())}, {most:.2f} times the mean"
        )
        return len(found) == 4 and most <= SPREAD
    finally:
        program.close()


def memory(directory: Path) -> bool:
    """Measure 8 workers with and without ``--preload``; return whether they share enough."""
    sums = []
    for options in ([], ["--preload"]):
        command = [*PROGRAM, "shop:app", "-w", "8", "--bind", "127.0.0.1:0", *options]
        program = Program(command, directory)
        try:
            address = program.serving()
            for _ in range(200):
                answer(address)
            workers = {re.findall(r"\[worker \d, (\d+)\]", each)[0] for each in ready(program)}
            sums.append(sum(map(pss, workers)) / 1024)
        finally:
            program.close()
    ratio = sums[1] / sums[0]
    print(f"PSS of 8 workers: {sums[0]:.0f} MiB, preloaded {sums[1]:.0f} MiB ({ratio:.2f})")
    return ratio <= SHARED


def ready(program: Program) -> list[str]:
    """Return the lines of workers that are ready, of 8 of them."""
    while len(found := [each for each in program.lines if " ready, " in each]) < 8:
        program.until(" ready, ")
    return found


def pss(pid: str) -> int:
    """Return a process's proportional share of memory, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.findall(r"^Pss: +(\d+)", text, re.MULTILINE)[0])


def main() -> None:
    """Measure everything; exit with 1 if an aim is missed."""
    reloads = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "shop.py").write_text(SOURCE, encoding="utf-8")
        met = [
            spread(directory),
            memory(directory),
            kill_under_load(directory),
            reload_under_load(directory, reloads),
        ]
    sys.exit(not all(met))


if __name__ == "__main__":
    main()
