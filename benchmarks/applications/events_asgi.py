"""The same events as plain ASGI, written for asyncio alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .listeners import EVENT, HEARTBEAT, HEARTBEAT_SECONDS, Listeners

Send = Callable[[dict[str, Any]], Awaitable[None]]

listeners = Listeners[asyncio.Queue[bytes]]()


async def stream(send: Send) -> None:
    news: asyncio.Queue[bytes] = asyncio.Queue()
    with listeners.listening(news):
        text = EVENT
        while True:
            await send({"type": "http.response.body", "body": text, "more_body": True})
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    text = await news.get()
            except TimeoutError:
                text = HEARTBEAT


async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
    kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if scope["path"] == "/events":
        await stream(send)
    listeners.publish(EVENT)
    await send({"type": "http.response.body", "body": b"published\n"})
