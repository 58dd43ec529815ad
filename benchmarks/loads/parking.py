"""Many requests at once, all of which wait: the memory of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException

from ..errors import RoundFailedError
from ..figures import KB_REQUEST, MEMORY, PARKED
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample

# Fewer than any server's queue of connections to accept.
_OPENING_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Park(Load):
    """So many requests at once, each of which waits so many seconds.

    Attributes:
        path: The path asked for; `?seconds=` is appended.
        count_path: Answers at once with the number of requests that wait.
        requests: How many.
        seconds: How long each waits: long enough to open all and to measure.
    """

    columns = (KB_REQUEST, MEMORY, PARKED)

    path: str
    count_path: str
    requests: int
    seconds: float

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"`GET {self.path}`, {self.requests:,} at once, each of which waits {self.seconds:g} s."
            " Memory (PSS) of all the server's processes before and while all of them wait."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Park the requests, measure, and read every answer.

        The server's memory is read before the first request and while all of them wait; right
        before and right after the second reading the server is asked how many wait. Where that is
        not all of them, the round has failed.
        """
        # Both views have run before the first reading: what they import or build once
        # belongs to no request.
        server.await_answer(f"{self.path}?seconds=0")
        server.await_answer(self.count_path)
        before_kb = server.memory_kb()
        with Meter(server, conditions) as meter:
            parked_kb, errors = asyncio.run(_park(server, self))
        return Sample(
            {
                KB_REQUEST: (parked_kb - before_kb) / self.requests,
                MEMORY: before_kb / 1024,
                PARKED: parked_kb / 1024,
            },
            errors,
            meter.foreign_share,
        )


async def _park(server: ServerProcess, load: Park) -> tuple[int, dict[str, int]]:
    opening = asyncio.Semaphore(_OPENING_AT_ONCE)
    path = f"{load.path}?seconds={load.seconds:g}"
    deadline = time.monotonic() + load.seconds
    requests = [
        asyncio.create_task(_request(server.port, path, 2 * load.seconds + 30.0, opening))
        for _ in range(load.requests)
    ]
    try:
        while (present := await asyncio.to_thread(_parked, server, load)) < load.requests:
            if time.monotonic() > deadline:
                raise RoundFailedError(
                    f"only {present} of {load.requests} requests were parked at once"
                )
            await asyncio.sleep(0.1)
        parked_kb = server.memory_kb()
        if (present := await asyncio.to_thread(_parked, server, load)) < load.requests:
            raise RoundFailedError(f"only {present} of {load.requests} were parked to the end")
        outcomes = await asyncio.gather(*requests)
    finally:
        for request in requests:
            request.cancel()
    return parked_kb, Counter(outcome for outcome in outcomes if outcome is not None)


def _parked(server: ServerProcess, load: Park) -> int:
    return count(server, load.count_path, load.seconds)


def count(server: ServerProcess, path: str, timeout: float) -> int:
    """Return the number that the application answers; wait for it so many seconds at most."""
    try:
        status, body = server.fetch(path, timeout)
    except (OSError, HTTPException) as error:
        raise RoundFailedError(f"did not answer {path}: {error}") from error
    if status != 200:
        raise RoundFailedError(f"answered {status} to {path}")
    return int(body)


async def _request(port: int, path: str, timeout: float, opening: asyncio.Semaphore) -> str | None:
    # None for an answer of 200, else the kind of the error.
    try:
        async with asyncio.timeout(timeout):
            async with opening:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                answer = await reader.read(-1)
            finally:
                writer.close()
    except TimeoutError:
        return "timeout"
    except OSError:
        return "connection"
    if not answer:
        return "unanswered"
    return None if answer.startswith(b"HTTP/1.1 200 ") else "status"
