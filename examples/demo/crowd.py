"""A thousand clients in one coroutine: what the demo's third button sends to its own server.

Plain asyncio streams, one connection for each request. It knows nothing of Flask or of Bide, and
holds no thread: the demo waits for it as for any other promise.
"""

import asyncio
import json
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONNECTING = 50
"""How many may be connecting at once, so that the listener's backlog is never full."""
SPARE_FILES = 200
"""Open files that the process needs beside the connections of the crowd."""


class AskError(Exception):
    """The server answered with another status than 200, or not at all."""


@dataclass(frozen=True)
class Report:
    """What became of a crowd's requests.

    Attributes:
        answered: how many there were; all of them were answered.
        seconds: from the first request to the last answer.
        threads: how many different threads the answers name.
        most: the greatest number that ``count`` gave meanwhile.
    """

    answered: int
    seconds: float
    threads: int
    most: int


def crowd_size(wanted: int) -> int:
    """Return how many requests this process can make to itself, at most ``wanted``.

    Each takes two open files, one at either end. The soft limit is raised for it, as far as the
    system allows.
    """
    needed = 2 * wanted + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (soft - SPARE_FILES) // 2))


async def ask(host: str, port: int, path: str, gate: asyncio.Semaphore) -> Any:
    """Return the JSON at ``path``; raises ``AskError`` and ``OSError``."""
    async with gate:
        reader, writer = await asyncio.open_connection(host, port)
    try:
        name = f"[{host}]" if ":" in host else host
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, _, _ = head.partition(b"\r\n")
    if status.split()[1:2] != [b"200"]:
        raise AskError(status.decode("latin-1") or "no answer")
    return json.loads(body)


async def send_crowd(
    host: str, port: int, path: str, size: int, count: Callable[[], int]
) -> Report:
    """Ask for ``path`` ``size`` times at once, and look at ``count`` meanwhile.

    ``count`` is looked at whenever one is answered, while the others still wait. The first failure
    cancels the rest and is raised, in an ``ExceptionGroup``.
    """
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(CONNECTING)
    counted: list[int] = []

    async def one() -> Any:
        answer = await ask(host, port, path, gate)
        counted.append(count())
        return answer

    began = loop.time()
    async with asyncio.TaskGroup() as clients:
        asked = [clients.create_task(one()) for _ in range(size)]
    return Report(
        answered=len(asked),
        seconds=loop.time() - began,
        threads=len({task.result()["thread"] for task in asked}),
        most=max(counted),
    )
