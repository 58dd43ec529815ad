"""A stream of events alone, and beside views that block."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..errors import RoundFailedError
from ..figures import EVENT_ALONE_P99, EVENT_P99, LATER, REQUESTS
from ..processes import ServerProcess
from .beside import get
from .kind import Conditions, Load, Meter, Sample, p99

_SETTLED = 0.5  # seconds after which all the views are under way


@dataclass(frozen=True, slots=True)
class Stream(Load):
    """A stream of events, half of the time alone and half of it beside clients of a blocking view.

    The clocks of client and server are one: CLOCK_MONOTONIC.

    Attributes:
        stream: The path of the stream; `?seconds=` is appended.
        path: The path of the view.
        clients: How many ask for it, each again and again.
    """

    columns = (EVENT_ALONE_P99, EVENT_P99, LATER, REQUESTS)

    stream: str
    path: str
    clients: int

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"`GET {self.stream}` alone, and then while {self.clients} clients ask for"
            f" `GET {self.path}` again and again. The requests are those."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Listen to the stream alone for some seconds, and for as many beside the view."""
        server.await_answer(self.path)
        seconds = conditions.seconds
        try:
            alone = asyncio.run(_alone(server.port, self, seconds))
            server.await_idle()
            with Meter(server, conditions) as meter:
                beside, answered, asked_for = asyncio.run(_beside(server.port, self, seconds))
        except (OSError, ValueError, TimeoutError, ExceptionGroup) as error:
            raise RoundFailedError(f"beside {self.path}: {error!r}") from error
        return Sample(
            {
                EVENT_ALONE_P99: p99(alone),
                EVENT_P99: p99(beside),
                LATER: p99(beside) / p99(alone),
                REQUESTS: answered / asked_for,
            },
            {},
            meter.foreign_share,
        )


async def _alone(port: int, load: Stream, seconds: float) -> list[float]:
    late: list[float] = []

    def hear(line: bytes) -> None:
        if b"." in line:  # uvicorn sends chunks to HTTP/1.0, too, with lines of their sizes
            late.append((time.monotonic() - float(line)) * 1000.0)

    async with asyncio.timeout(10 * seconds + 60.0):
        await get(port, f"{load.stream}?seconds={seconds:g}", hear)
    if not late:
        raise RoundFailedError("no event came")
    return late


async def _beside(port: int, load: Stream, seconds: float) -> tuple[list[float], int, float]:
    # How late each event came, in ms; how many requests were answered, and in which time.
    answered = 0
    over = asyncio.Event()

    async def ask() -> None:
        nonlocal answered
        while not over.is_set():
            await get(port, load.path)
            answered += 1

    async with asyncio.TaskGroup() as group:
        began = time.monotonic()
        for _ in range(load.clients):
            group.create_task(ask())
        await asyncio.sleep(_SETTLED)
        try:
            late = await _alone(port, load, seconds)
        finally:
            over.set()
    return late, answered, time.monotonic() - began
