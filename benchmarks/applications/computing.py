"""Plain WSGI: a view that computes, one that sleeps, a quick one, and a stream of events.

Each event says when it was due. Outside Bide `wait` blocks the thread, so any server runs it.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from bide import wait

EVENT_SECONDS = 0.01


def compute(seconds: float) -> bytes:
    """Count for so long, and say how far it came."""
    end = time.monotonic() + seconds
    counted = 0
    while time.monotonic() < end:
        for _ in range(200):
            counted += 1
    return b"%d\n" % counted


def events(seconds: float) -> Iterator[bytes]:
    """Send one event after another, each with the time at which its wait should have ended."""
    end = time.monotonic() + seconds
    while (due := time.monotonic() + EVENT_SECONDS) < end:
        wait(asyncio.sleep(EVENT_SECONDS))
        yield b"%.6f\n" % due


def app(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    seconds = float(environ["QUERY_STRING"].partition("=")[2] or 0)
    if environ["PATH_INFO"] == "/compute":
        return [compute(seconds)]
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(seconds)
        return [b"0\n"]
    if environ["PATH_INFO"] == "/events":
        return events(seconds)
    return [b"quick\n"]
