"""The same events with blocking queues; where a server patches them, they wait in greenlets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from .listeners import EVENT, HEARTBEAT, HEARTBEAT_SECONDS, Listeners

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

listeners = Listeners["SimpleQueue[bytes]"]()


def stream() -> Iterator[bytes]:
    news: SimpleQueue[bytes] = SimpleQueue()
    with listeners.listening(news):
        yield EVENT
        while True:
            try:
                yield news.get(timeout=HEARTBEAT_SECONDS)
            except Empty:
                yield HEARTBEAT


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return stream()
    listeners.publish(EVENT)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"published\n"]
