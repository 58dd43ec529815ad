"""The server's numbers, and its requests in progress, as a stream: what the demo's page shows live.

Sampling runs on the event loop, and so does the line that shows the samples: threads may be
blocked. A viewer who is slow misses nothing, and gets the samples late, all at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 0.2
"""Between two looks at the server's numbers."""
HEARTBEAT_SECONDS = 1.0
"""How long the line is silent while nothing changes: proxies close connections that are."""
KEPT = 300
"""Samples that wait for a viewer that is held up: a minute's."""

Sample = list[float]
"""Unix time in seconds, and the numbers named by :data:`NAMES`."""
NAMES = ("running", "waiting", "queued", "threads_busy", "threads_max")
LISTED = 8
"""Requests that are shown one by one: the oldest."""
COLUMNS = ("method", "target", "state", "waits_for", "thread", "total", "running", "waiting")
"""What is shown of each; the times are seconds."""


@dataclass(frozen=True)
class News:
    """What a viewer has not seen yet.

    Attributes:
        samples: of the numbers, the oldest first; one when the viewer keeps up.
        requests: those listed, by the last sample, each with the values named by `COLUMNS`.
        more: how many there were beside them.
    """

    samples: list[Sample]
    requests: list[list[Any]]
    more: int


async def pulse(status: Callable[[], Any]) -> AsyncGenerator[News, None]:
    """Return every change of the server's numbers, and at least one sample for each heartbeat.

    It ends when the server stops; close it to end the sampling before.

    Args:
        status: as ``bide.status``: the numbers, and the requests in progress.
    """
    samples: deque[Sample] = deque(maxlen=KEPT)
    requests: Sequence[Any] = ()
    more = asyncio.Event()

    async def look() -> None:
        nonlocal requests
        last: list[float] = []
        due = 0.0
        while not (current := status()).stopping:
            now = time.time()
            numbers: list[float] = [getattr(current, name) for name in NAMES]
            if numbers != last or now >= due:
                last, due = numbers, now + HEARTBEAT_SECONDS
                samples.append([round(now, 3), *numbers])
                requests = sorted(current.requests, key=lambda each: each.total, reverse=True)
                more.set()
            await asyncio.sleep(SECONDS)

    looking = asyncio.create_task(look())
    looking.add_done_callback(lambda _: more.set())
    try:
        while True:
            await more.wait()
            more.clear()
            if looking.done():
                looking.result()  # if it failed, so does the viewer's line, and is not just silent
                return
            listed = [[getattr(each, name) for name in COLUMNS] for each in requests[:LISTED]]
            news = News(list(samples), listed, len(requests) - len(listed))
            samples.clear()
            yield news
    finally:
        looking.cancel()
