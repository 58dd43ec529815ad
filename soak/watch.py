"""What the server holds, sampled from outside (`/proc`) and from inside (see `inside.py`)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ServerProcess

from .client import Connection
from .exchanges import WrongAnswerError, get
from .load import Tally

ZERO: Final = ("conversations", "parked", "queued", "connections", "present", "places")
"""What an idle server has none of."""
SAME: Final = ("descriptors", "threads", "lanes", "tasks", "timers", "uncollectable")
"""What an idle server has as many of as before."""
SAMPLES: Final = 40
"""How many are taken in each half of a run, whatever its size; fewer where the load is too fast."""
_SETTLING = 20.0  # seconds; what closes last lingers for two
_LOOK_OUT = 0.05  # seconds between two looks at whether the next sample is due
_LOOKS_APART = 0.25  # seconds; in which the last look's own connection is gone too

Sample = dict[str, float]


class Watch:
    """Watches one server; on the client's event loop."""

    def __init__(self, server: ServerProcess, tally: Tally) -> None:
        self.samples: list[Sample] = []
        self._server = server
        self._tally = tally
        self._proc = Path("/proc", str(server.processes()[0]))
        self._tokens = itertools.count()
        self._started = time.monotonic()

    @asynccontextmanager
    async def following(self, requests: int) -> AsyncIterator[None]:
        """Sample for the length of the block, which makes so many requests.

        At its beginning, and then each time that a fortieth of the requests is done, one at least.
        """
        await self._sample()
        task = asyncio.create_task(self._follow(max(requests / SAMPLES, 1.0)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _follow(self, step: float) -> None:
        while True:
            due = self._tally.done + step
            while self._tally.done < due:
                await asyncio.sleep(_LOOK_OUT)
            await self._sample()

    async def _sample(self) -> None:
        seen = await self._look(thorough=False)
        figures = {name: value for name, value in seen.items() if isinstance(value, int)}
        self.samples.append({**self._outside(), **figures})

    async def rest(self, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what the server holds once it is idle, and holds no more than `before`.

        Where that does not come in twenty seconds: what it holds then.
        """
        deadline = time.monotonic() + _SETTLING
        while True:
            seen = await self._look(thorough=False)
            await asyncio.sleep(_LOOKS_APART)
            seen |= self._outside()
            calm = not any(seen[name] for name in ZERO)
            back = before is None or all(seen[name] == before[name] for name in SAME)
            if (calm and back) or time.monotonic() > deadline:
                break
        seen = await self._look(thorough=True)
        await asyncio.sleep(_LOOKS_APART)
        return {**seen, **self._outside()}

    def _outside(self) -> Sample:
        # proc(5): VmRSS in kB.
        status = dict(
            line.split(":", 1) for line in (self._proc / "status").read_text().splitlines()
        )
        return {
            "seconds": time.monotonic() - self._started,
            "requests": self._tally.done,
            "departures": self._tally.departures.total(),
            "rss_kb": int(status["VmRSS"].split()[0]),
            "descriptors": len(os.listdir(self._proc / "fd")),
            "threads": int(status["Threads"]),
            "cpu_seconds": self._server.cpu_seconds(),
        }

    async def _look(self, *, thorough: bool) -> dict[str, Any]:
        token = f"l{next(self._tokens):08x}"
        async with asyncio.timeout(_SETTLING):
            connection = await Connection.open(self._server.port)
            try:
                await connection.send(get(f"/look/{token}/{thorough:d}", "Connection: close"))
                response = await connection.response()
                await connection.end()
            finally:
                connection.leave()
        if response.status != 200 or not response.complete:
            raise WrongAnswerError(f"{response.head[:60]!r} to a look inside")
        seen: dict[str, Any] = json.loads(response.body)
        if seen.pop("token") != token:
            raise WrongAnswerError("another look's answer")
        return seen
