"""Plain WSGI: server-sent events to every client that listens, as Bide's guide writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bide import wait

from .listeners import EVENT, HEARTBEAT, HEARTBEAT_SECONDS, Listeners

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

listeners = Listeners[asyncio.Queue[bytes]]()


def stream() -> Iterator[bytes]:
    news: asyncio.Queue[bytes] = asyncio.Queue()
    with listeners.listening(news):
        yield EVENT
        while True:
            try:
                yield wait(news.get(), timeout=HEARTBEAT_SECONDS)
            except TimeoutError:
                yield HEARTBEAT


async def tell() -> None:
    listeners.publish(EVENT)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return stream()
    wait(tell())  # asyncio's queues belong to the event loop
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"published\n"]
