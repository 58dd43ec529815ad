"""One run: a server is started, warmed up, and loaded in two halves.

Before, between and after them it is let come to rest, and looked at idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import ServerProcess, find_free_port, start
from benchmarks.servers import Server

from .application import CROWD, LANES
from .client import Connection
from .departures import HEAD_TIMEOUT, IDLE_TIMEOUT, REQUEST_TIMEOUT, RESPONSE_TIMEOUT
from .exchanges import HEALTH, LIMIT_BODY, Asked, check, get
from .load import Load, Tally
from .watch import Sample, Watch

EXECUTORS = ("threads", "loop")
IN_THREAD_POOL = 32
"""Threads that Bide keeps for `in_thread`, at most."""
_WARM_UP = 5  # of so many requests of the run, one before it
_MOST_WARM_UP = 50_000

_COMMAND = (
    # malloc counts what a thread's cache keeps as in use, and 64 threads fill theirs for long.
    "env GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1"
    " {scripts}/bide {application} --bind 127.0.0.1:{port} --log-level warning"
    f" --threads {LANES} --limit-body {LIMIT_BODY} --health {HEALTH}"
)
_DEADLINES = {
    "head-timeout": HEAD_TIMEOUT,
    "idle-timeout": IDLE_TIMEOUT,
    "request-timeout": REQUEST_TIMEOUT,
    "response-timeout": RESPONSE_TIMEOUT,
}
_FAR = 30  # times as long, where nobody is to meet a deadline: none does on a slow machine


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked.

    Attributes:
        requests: How many are to be answered, after the warm-up.
        departures: How many are to leave, likewise.
        stalls: Whether some of those that leave stall first, until the server ends them.
    """

    requests: int
    departures: int
    stalls: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found.

    Attributes:
        executor: Where the application ran.
        command: How the server was started.
        size: What was to be asked.
        samples: The course under load, from the end of the warm-up.
        before: What the idle server held after the warm-up, by type too.
        half: What it held, idle again, after half the run.
        after: What it held after all of it.
        tally: What was made, the warm-up included.
        warmed: What of it was the warm-up.
    """

    executor: str
    command: str
    size: Size
    samples: list[Sample]
    before: dict[str, Any]
    half: dict[str, Any]
    after: dict[str, Any]
    tally: Tally
    warmed: tuple[int, int]


def run(executor: str, size: Size, cores: Collection[int]) -> Result:
    """Soak a server of its own, bound to these cores.

    Raises `benchmarks.errors.RoundFailedError` where the server does not start, or ends.
    """
    server = Server("bide", executor, ("bide",), _command(executor, size.stalls))
    port = find_free_port()
    argv = server.argv("soak.application:app", port)
    with start(argv, port, cores) as process:
        process.await_answer(HEALTH)
        try:
            return asyncio.run(_soak(process, executor, argv, size))
        finally:
            process.check_alive()


def _command(executor: str, stalls: bool) -> str:
    times = 1 if stalls else _FAR
    deadlines = [f"--{name} {seconds * times}" for name, seconds in _DEADLINES.items()]
    return " ".join([_COMMAND, *deadlines, "--executor", executor])


async def _soak(process: ServerProcess, executor: str, argv: list[str], size: Size) -> Result:
    load = Load(process.port, size.stalls)
    watch = Watch(process, load.tally)
    await _ask(process.port, f"/warm/start/{IN_THREAD_POOL}", b"warm start")
    await _crowd(process.port)
    warm_up = min(size.requests // _WARM_UP, _MOST_WARM_UP)
    await load.run(warm_up, size.departures * warm_up // size.requests)
    before = await watch.rest()
    warmed = (load.tally.requests.total(), load.tally.departures.total())
    halves = (size.requests // 2, size.departures // 2)
    async with watch.following(halves[0]):
        await load.run(*halves)
    half = await watch.rest(before)
    async with watch.following(halves[0]):
        await load.run(size.requests - halves[0], size.departures - halves[1])
    return Result(
        executor=executor,
        command=" ".join([*argv[:2], "bide", *argv[3:]]),
        size=size,
        samples=watch.samples,
        before=before,
        half=half,
        after=await watch.rest(before),
        tally=load.tally,
        warmed=warmed,
    )


async def _crowd(port: int) -> None:
    # Every lane, and as many conversations at once as the load may ever have, whose greenlets are
    # kept: none of them is to come later, and look like growth.
    await asyncio.gather(*[_ask(port, f"/crowd/{n:04}/0", b"crowd %04d" % n) for n in range(CROWD)])


async def _ask(port: int, path: str, answer: bytes) -> None:
    connection = await Connection.open(port)
    try:
        await connection.send(get(path))
        await check(connection, Asked((), 200, answer))
    finally:
        connection.leave()
