"""The load: sessions of requests and departures between them, from one process, in one plan.

The plan is drawn by dice with a fixed seed, so that every run asks the same, in about the same
order. Workers take from it what is next; those that stall have tasks of their own beside them, so
that they hold nobody up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from random import Random

from . import departures, exchanges
from .client import BrokenAnswerError, Connection
from .departures import Departure
from .exchanges import Asked, WrongAnswerError, check

WORKERS = 40
STALLED = 256
"""How many clients may stall at once."""
_PATIENCE = 60.0  # seconds for a session or a departure: far beyond every deadline of the server
_LONGEST_SESSION = 60
_EXAMPLES = 20
_HOPELESS = 1000  # so much wrong, and the rest is not tried
_SEED = 2004  # so that two runs ask the same
# Each kind as often as it is to be drawn.
_REQUESTS = [kind for kind, number in exchanges.KINDS.items() for _ in range(number)]
_DEPARTURES = [kind for kind, number in departures.KINDS.items() for _ in range(number)]
_BRISK = [kind for kind in _DEPARTURES if kind not in departures.STALLS]


@dataclass(slots=True)
class Tally:
    """What has been done so far, by kind, and what went wrong."""

    requests: Counter[str] = field(default_factory=Counter)
    departures: Counter[str] = field(default_factory=Counter)
    failures: int = 0  # of the application, on purpose
    wrong: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    done: int = 0  # requests answered, for the course of the run

    def note(self, kind: str, error: BaseException) -> None:
        """Note what went wrong with a kind of request or departure."""
        self.wrong[f"{kind}: {type(error).__name__}"] += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{kind}: {type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Session:
    """Requests on one connection, in groups; those of a group are sent at once."""

    groups: tuple[tuple[tuple[str, Asked], ...], ...]


Job = Session | Departure


def plan(
    requests: int, leaving: int, serials: Iterator[int], dice: Random, stalls: bool = True
) -> Iterator[Job]:
    """Draw so many requests, in sessions, and so many departures evenly between them."""
    leavers = _DEPARTURES if stalls else _BRISK
    made = left = 0
    while made < requests or left < leaving:
        if made < requests:
            size = min(dice.randrange(1, _LONGEST_SESSION), requests - made)
            session = _draw_session(size, serials, dice)
            made += sum(len(group) for group in session.groups)
            yield session
        due = leaving if made >= requests else made * leaving // requests
        while left < due:
            left += 1
            yield dice.choice(leavers)


def _draw_session(size: int, serials: Iterator[int], dice: Random) -> Session:
    groups: list[tuple[tuple[str, Asked], ...]] = []
    group: list[tuple[str, Asked]] = []
    for _ in range(size):
        kind = dice.choice(_REQUESTS)
        asked = kind(f"t{next(serials):08x}", dice)
        group.append((kind.__name__, asked))
        # In one request of eight the next one is not waited for: pipelined.
        if asked.last or len(asked.parts) > 1 or dice.random() < 0.875:
            groups.append(tuple(group))
            group = []
        if asked.last:
            break
    if group:
        groups.append(tuple(group))
    return Session(tuple(groups))


class Load:
    """Runs plans against a server; without `stalls` nobody takes longer than a moment."""

    def __init__(self, port: int, stalls: bool = True) -> None:
        self.tally = Tally()
        self._port = port
        self._stalling = stalls
        self._stalls: set[asyncio.Task[None]] = set()
        self._serials = itertools.count()
        self._dice = Random(_SEED)

    async def run(self, requests: int, leaving: int) -> None:
        """Make so many requests and departures; returns when all of them have ended.

        Where far too much goes wrong, it returns early.
        """
        jobs = plan(requests, leaving, self._serials, self._dice, self._stalling)
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(jobs))
        if self._stalls:
            await asyncio.wait(self._stalls)

    async def _work(self, jobs: Iterator[Job]) -> None:
        for job in jobs:
            if self.tally.wrong.total() >= _HOPELESS:
                return
            if isinstance(job, Session):
                await self._attempt("session", self._converse(job))
                continue
            token = f"d{next(self._serials):08x}"
            leaving = self._attempt(job.__name__, self._depart(job, token))
            if job not in departures.STALLS:
                await leaving
                continue
            while len(self._stalls) >= STALLED:
                await asyncio.wait(self._stalls, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(leaving)
            self._stalls.add(task)
            task.add_done_callback(self._stalls.discard)

    async def _attempt(self, name: str, job: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await job
        except (WrongAnswerError, BrokenAnswerError, OSError, TimeoutError) as error:
            self.tally.note(name, error)

    async def _depart(self, kind: Departure, token: str) -> None:
        await departures.depart(self._port, kind, token, self._dice)
        self.tally.departures[kind.__name__] += 1

    async def _converse(self, session: Session) -> None:
        connection = await Connection.open(self._port)
        tally = self.tally
        try:
            for group in session.groups:
                parts = [part for _, asked in group for part in asked.parts]
                if len(group) > 1 and all(len(asked.parts) == 1 for _, asked in group):
                    parts = [b"".join(parts)]
                for part in parts:
                    await connection.send(part)
                    if len(parts) > 1:
                        await asyncio.sleep(0)
                for name, asked in group:
                    await check(connection, asked)
                    tally.requests[name] += 1
                    tally.failures += asked.failures
                    tally.done += 1
        finally:
            connection.leave()
