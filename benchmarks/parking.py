"""A client that opens many requests at once, sees that all of them wait, and reads every answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from http.client import HTTPException

from .errors import RoundFailedError
from .processes import ServerProcess
from .scenarios import Park

# Fewer than any server's queue of connections to accept.
_OPENING_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ParkReport:
    """What became of the requests that were parked at once.

    Attributes:
        before_kb: The server's memory before the first of them.
        parked_kb: Its memory while all of them waited.
        answered: How many were answered with 200 in the end.
        errors: How many were not, by kind; empty where all were.
    """

    before_kb: int
    parked_kb: int
    answered: int
    errors: dict[str, int]


def park(server: ServerProcess, load: Park) -> ParkReport:
    """Park the requests of `load`, measure, and read every answer.

    The server's memory is read before the first request and while all of them wait; right before
    and right after the second reading the server is asked how many wait. Raises `RoundFailedError`
    where that is not all of them.
    """
    return asyncio.run(_park(server, load))


async def _park(server: ServerProcess, load: Park) -> ParkReport:
    before_kb = server.memory_kb()
    opening = asyncio.Semaphore(_OPENING_AT_ONCE)
    path = f"{load.path}?seconds={load.seconds:g}"
    deadline = time.monotonic() + load.seconds
    requests = [
        asyncio.create_task(_request(server.port, path, 2 * load.seconds + 30.0, opening))
        for _ in range(load.requests)
    ]
    try:
        while (present := await _count(server, load)) < load.requests:
            if time.monotonic() > deadline:
                raise RoundFailedError(
                    f"only {present} of {load.requests} requests were parked at once"
                )
            await asyncio.sleep(0.1)
        parked_kb = server.memory_kb()
        if (present := await _count(server, load)) < load.requests:
            raise RoundFailedError(f"only {present} of {load.requests} were parked to the end")
        outcomes = await asyncio.gather(*requests)
    finally:
        for request in requests:
            request.cancel()
    errors: dict[str, int] = {}
    for outcome in outcomes:
        if outcome is not None:
            errors[outcome] = errors.get(outcome, 0) + 1
    return ParkReport(before_kb, parked_kb, outcomes.count(None), errors)


async def _count(server: ServerProcess, load: Park) -> int:
    try:
        status, body = await asyncio.to_thread(server.fetch, load.count_path, load.seconds)
    except (OSError, HTTPException) as error:
        raise RoundFailedError(f"did not answer {load.count_path}: {error}") from error
    if status != 200:
        raise RoundFailedError(f"answered {status} to {load.count_path}")
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
