"""Plain ASGI: a stream of events, each of which says when it was due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .computing import EVENT_SECONDS

HEADERS = [(b"content-type", b"text/plain")]


async def stream(
    scope: dict[str, Any],
    receive: Any,
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Send one event after another, for so many seconds as the query says."""
    assert scope["type"] == "http"
    seconds = float(scope["query_string"].partition(b"=")[2] or 0)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    end = time.monotonic() + seconds
    while (due := time.monotonic() + EVENT_SECONDS) < end:
        await asyncio.sleep(EVENT_SECONDS)
        block = b"%.6f\n" % due
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
