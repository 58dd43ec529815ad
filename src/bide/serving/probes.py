"""Requests that ask whether the server lives, or is ready: answered without a thread."""

from __future__ import annotations

from typing import Protocol

from bide.errors import ClientDisconnected
from bide.exchange.stream import Stream


class Probed(Protocol):
    """What is asked about.

    Attributes:
        ready: the path of the question whether it is ready; empty for none.
        retiring: whether the server will stop soon, or stops.
        able: whether requests can run.
    """

    ready: bytes
    retiring: bool

    @property
    def able(self) -> bool:
        """Whether requests can run."""


def answer_probe(server: Probed, stream: Stream) -> None:
    """Answer 200 or 503; on the loop.

    A server lives until its process ends: what kills one that does not live must not kill one that
    finishes its requests.
    """
    if stream.request.method not in ("GET", "HEAD"):
        status, text, more = "405 Method Not Allowed", b"", [("Allow", "GET, HEAD")]
    elif server.retiring and stream.request.path == server.ready:
        status, text, more = "503 Service Unavailable", b"stopping\n", []
    elif not server.able:
        status, text, more = "503 Service Unavailable", b"no thread can be started\n", []
    else:
        status, text, more = "200 OK", b"ok\n", []
    stream.start(status, [("Content-Type", "text/plain"), ("Cache-Control", "no-store"), *more])
    try:
        stream.end(text)
    except ClientDisconnected:
        stream.cut()
