"""Quick answers and a stream of events, beside views that hold a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from ..errors import RoundFailedError
from ..figures import COUNTS, EVENT_P99, QUICK_P50, QUICK_P99
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample, p99

_PAUSE = 0.005  # seconds between two quick requests
_SETTLED = 0.5  # seconds after which all the views are under way


@dataclass(frozen=True, slots=True)
class Beside(Load):
    """Quick requests, one after another, and a stream of events, beside views that hold a thread.

    The clocks of client and server are one: CLOCK_MONOTONIC.

    Attributes:
        path: What holds a thread; `?seconds=` is appended. It answers with how far it counted.
        views: How many of them do all the while.
    """

    columns = (QUICK_P50, QUICK_P99, EVENT_P99, COUNTS)

    path: str
    views: int

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"`GET /quick`, one after another, and `GET /events` while {self.views} clients wait"
            f" for `GET {self.path}`. The counts are how far the views that compute came."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Have the views hold their threads, and look for some seconds at what goes on beside."""
        server.await_answer("/quick")
        try:
            with Meter(server, conditions) as meter:
                quick_ms, late_ms, counted = asyncio.run(
                    _run(server.port, self, conditions.seconds)
                )
        except (OSError, ValueError, TimeoutError) as error:
            raise RoundFailedError(f"beside {self.path}: {error!r}") from error
        return Sample(
            {
                QUICK_P50: median(quick_ms),
                QUICK_P99: p99(quick_ms),
                EVENT_P99: p99(late_ms),
                COUNTS: counted / 1e6 / meter.seconds,
            },
            {},
            meter.foreign_share,
        )


async def _run(port: int, load: Beside, seconds: float) -> tuple[list[float], list[float], int]:
    # How long each quick request took and how late each event came, in ms, and the counts.
    quick: list[float] = []
    late: list[float] = []

    def hear(line: bytes) -> None:
        late.append((time.monotonic() - float(line)) * 1000.0)

    async with asyncio.timeout(10 * seconds + 60.0):
        holding = [
            asyncio.create_task(get(port, f"{load.path}?seconds={seconds + 2 * _SETTLED:g}"))
            for _ in range(load.views)
        ]
        await asyncio.sleep(_SETTLED)
        listening = asyncio.create_task(get(port, f"/events?seconds={seconds:g}", hear))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            asked = time.monotonic()
            await get(port, "/quick")
            quick.append((time.monotonic() - asked) * 1000.0)
            await asyncio.sleep(_PAUSE)
        await listening
        counted = sum(int(body) for body in await asyncio.gather(*holding))
    if not late:
        raise RoundFailedError("no event came")
    return quick, late, counted


async def get(port: int, path: str, hear: Callable[[bytes], None] | None = None) -> bytes:
    """Ask by HTTP/1.0, whose body has no chunks; return its last line, and `hear` each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RoundFailedError(f"answered {head[:20]!r} to {path}")
        body = b""
        while line := await reader.readline():
            if hear is not None:
                hear(line)
            body = line
        return body
    finally:
        writer.close()
