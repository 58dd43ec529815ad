"""A client that asks for quick answers and hears a stream of events while other views compute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import RoundFailedError
from .processes import ServerProcess
from .scenarios import Beside

_PAUSE = 0.005  # seconds between two quick requests
_SETTLED = 0.5  # seconds after which all computing views compute


@dataclass(frozen=True, slots=True)
class BesideReport:
    """What was seen beside the views that compute.

    Attributes:
        quick_ms: How long each quick request took, in milliseconds.
        late_ms: How long after its time each event came, in milliseconds.
        counted: How far the computing views came.
    """

    quick_ms: list[float]
    late_ms: list[float]
    counted: int


def run_beside(server: ServerProcess, load: Beside, seconds: float) -> BesideReport:
    """Have `load.computing` views compute, and look for so many seconds at what goes on beside.

    The clocks of client and server are one: CLOCK_MONOTONIC. Raises `RoundFailedError` where
    anything is not answered.
    """
    try:
        return asyncio.run(_run(server.port, load, seconds))
    except (OSError, ValueError, TimeoutError) as error:
        raise RoundFailedError(f"beside computing views: {error!r}") from error


async def _run(port: int, load: Beside, seconds: float) -> BesideReport:
    quick: list[float] = []
    late: list[float] = []

    def hear(line: bytes) -> None:
        late.append((time.monotonic() - float(line)) * 1000.0)

    async with asyncio.timeout(10 * seconds + 60.0):
        computing = [
            asyncio.create_task(_get(port, f"/compute?seconds={seconds + 2 * _SETTLED:g}"))
            for _ in range(load.computing)
        ]
        await asyncio.sleep(_SETTLED)
        listening = asyncio.create_task(_get(port, f"/events?seconds={seconds:g}", hear))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            asked = time.monotonic()
            await _get(port, "/quick")
            quick.append((time.monotonic() - asked) * 1000.0)
            await asyncio.sleep(_PAUSE)
        await listening
        counted = sum(int(body) for body in await asyncio.gather(*computing))
    if not late:
        raise RoundFailedError("no event came")
    return BesideReport(quick, late, counted)


async def _get(port: int, path: str, hear: Callable[[bytes], None] | None = None) -> bytes:
    # HTTP/1.0: the body is what comes up to the end, without chunks.
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
