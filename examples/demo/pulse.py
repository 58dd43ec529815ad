"""The server's numbers as a stream: what the demo's live line shows.

Sampling runs on the event loop, beside the request that shows the samples. A viewer whose thread
is held up by blocking code therefore misses nothing: it gets the samples late, all at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
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


async def pulse(status: Callable[[], Any]) -> AsyncIterator[list[Sample]]:
    """Return every change of the server's numbers, and at least one sample for each heartbeat.

    Each item is a list, of one sample when the viewer keeps up. It ends when the server stops;
    close it to end the sampling before.
    """
    samples: deque[Sample] = deque(maxlen=KEPT)
    more = asyncio.Event()

    async def look() -> None:
        last: list[float] = []
        due = 0.0
        while not (current := status()).stopping:
            now = time.time()
            numbers: list[float] = [getattr(current, name) for name in NAMES]
            if numbers != last or now >= due:
                last, due = numbers, now + HEARTBEAT_SECONDS
                samples.append([round(now, 3), *numbers])
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
            batch = list(samples)
            samples.clear()
            yield batch
    finally:
        looking.cancel()
