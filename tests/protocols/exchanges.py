"""Requests, answers and the bytes of responses, for tests of whole exchanges over HTTP/1."""

from __future__ import annotations

from dataclasses import dataclass, field

from bide.exchange.stream import Stream
from tests.protocols.fakes import Answer, Client, connect

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
OLD_HEAD = b"HEAD / HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
OLD_KEPT_HEAD = b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Response:
    """What an application gives.

    Attributes:
        blocks: sent one by one.
        last: the block that comes with the end; None: the end comes alone.
    """

    blocks: tuple[bytes, ...] = ()
    last: bytes = b""
    status: str = "200 OK"
    headers: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, stream: Stream) -> None:
        """Answer a stream."""
        stream.start(self.status, self.headers)
        for block in self.blocks:
            stream.send(block)
        stream.end(self.last)


def exchange(request: bytes, answer: Answer) -> Client:
    """Send one request that is answered at once."""
    client = connect(answer)
    client.send(request)
    return client


def response(*fields: bytes, body: bytes = b"", status: bytes = b"200 OK") -> bytes:
    """Return a response with the headers that stand in every one, then ``fields``, then a body."""
    lines = [b"HTTP/1.1 " + status, *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


STAMP = (b"Date: now", b"Server: bide")
KEPT = b"Connection: keep-alive"
CLOSED = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"


def length(size: int) -> bytes:
    return b"Content-Length: %d" % size


FIVE = [("Content-Length", "5")]
WHOLE = Response(last=b"hello")
BLOCKS = Response((b"he", b"llo"))
NOTHING = Response()
NO_CONTENT = Response(status="204 No Content")
BLOCKS_LENGTH = Response((b"he", b"llo"), headers=FIVE)
HELLO_CHUNKS = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


def numbered(*names: bytes) -> bytes:
    """Return pipelined requests for some paths."""
    return b"".join(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % name for name in names)


def path_of(stream: Stream) -> None:
    """Answer with the path, in one piece."""
    stream.start("200 OK", [])
    stream.end(stream.request.path)


def bodies(client: Client) -> list[bytes]:
    """Return the body of each response, which came in a piece each."""
    return [piece.partition(b"\r\n\r\n")[2] for piece in client.transport.writes]


def post(size: int) -> bytes:
    """Return the head of a request with a body of that many bytes."""
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
