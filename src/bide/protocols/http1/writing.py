"""HTTP/1.1 and 1.0, the way out: how responses are framed, and how a connection goes on after one.

One response is sent at a time. Everything here may be called from any thread; what writes a piece
of a response holds the connection's lock, but for pieces of files.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from bide.compiling import mypyc_attr
from bide.errors import RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import CUT, ENDED, OPEN, Stream
from bide.native import encode
from bide.protocols.http1.syntax import stamp
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.waiting.locks import holds_lock
from bide.waiting.outcome import Signal

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"

_LARGE: Final = 16 * 1024
"""Bytes of a block that is not copied to stand in one piece with its framing."""

# How a response's end is told to the client (RFC 9112 section 6.3).
_NONE: Final = "none"
_LENGTH: Final = "length"
_CHUNKED: Final = "chunked"
_CLOSE: Final = "close"


@mypyc_attr(allow_interpreted_subclasses=True)
class Responses(Protocol):
    """The channel of a connection's streams.

    Attributes:
        lock: the connection's.
        peer: its two ends.
        transport: where the bytes go.
        owner: the connection.
        limits: what a client may ask.
        draining: whether each response is the connection's last; set by the loop.
        remaining: bytes that a request's body of known length still has to come; None when that
            is not known. By the loop.
    """

    __slots__ = (
        "_framing",
        "_persistent",
        "_size",
        "_size_line",
        "draining",
        "limits",
        "lock",
        "owner",
        "peer",
        "remaining",
        "transport",
    )

    sends_files = True

    def __init__(self, transport: Transport, owner: Owner, limits: Limits) -> None:
        self.lock = transport.lock
        self.peer = owner.peer
        self.transport = transport
        self.draining = False
        self.remaining: int | None = None
        self.owner = owner
        self.limits = limits
        # Of the response that is going out:
        self._framing = _NONE
        self._persistent = False
        self._size = 0  # of the last chunk that went out without a head, and its first line
        self._size_line = b""

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, and the head first if it was not sent; return false if the client is gone.

        Called under the lock. Head and first block go in one piece, and so do last block and end.
        What stands between them may be gathered.
        """
        size = len(block)
        if stream.state is OPEN:
            framing = self._framing
            if last:
                return self._send_last(stream, block, size)
            if framing is _CHUNKED:
                if size != self._size:
                    self._size = size
                    self._size_line = b"%x\r\n" % size
                if size < _LARGE:
                    return self.transport.gather(block, self._size_line, b"\r\n")
                return self.transport.put(self._size_line, block, b"\r\n")
            if framing is _NONE:
                return True
            return self.transport.gather(block) if size < _LARGE else self.transport.put(block)
        data = self._encode_head(stream, size, last)
        end = b""
        if self._framing is _NONE:
            block = b""
        elif self._framing is _CHUNKED and size:
            data = b"%b%x\r\n" % (data, size)
            end = b"\r\n"
        if size >= _LARGE and block:
            return self.transport.put(data, block, end)
        return self.transport.put(data + block + end)

    def _send_last(self, stream: Stream, block: bytes, size: int) -> bool:
        if self._framing is _CHUNKED:
            end = _LAST_CHUNK if stream.trailers is None else _end_with(stream.trailers)
            if not block:
                return self.transport.put(end)
            line = b"%x\r\n" % size
            if size >= _LARGE:
                return self.transport.put(line, block, b"\r\n" + end)
            return self.transport.put(line + block + b"\r\n" + end)
        if self._framing is _NONE or not block:
            return self.transport.flush()
        return self.transport.put(block)

    def _encode_head(self, stream: Stream, size: int, last: bool) -> bytes:
        head = stream.head
        request = stream.request
        assert head is not None
        if stream.expects_continue and not last and head.code < 300:
            # The application goes on, and may read later, when 100 can no longer be sent. A client
            # that is told 300 or more sends no body (RFC 9110 section 10.1.1).
            stream.expects_continue = False
            self.transport.put(_CONTINUE)
        # With ``expects_continue``, it is not known whether the client will send the body.
        persistent = request.persistent and not (
            self.draining
            or head.closes
            or stream.body.failed
            or stream.expects_continue
            or (not stream.body.complete and self._remains_too_much(stream))
        )
        length = b""
        if stream.bodiless:
            self._framing = _NONE
            # For HEAD the length that GET would have. An empty body here may not be empty there.
            if last and size and head.length is None and not head.bodiless:
                length = b"Content-Length: %d\r\n" % size
        elif head.length is not None:
            self._framing = _LENGTH
        elif last:
            self._framing = _LENGTH
            length = b"Content-Length: %d\r\n" % size
        elif request.version == "1.1":
            self._framing = _CHUNKED
            length = b"Transfer-Encoding: chunked\r\n"
        else:
            self._framing = _CLOSE
            persistent = False
        self._persistent = persistent
        if not persistent:
            end = b"Connection: close\r\n\r\n"
        elif request.version == "1.1":
            end = b"\r\n"
        else:
            end = b"Connection: keep-alive\r\n\r\n"
        dated = stamp(head.dated, head.served)
        return encode(head.code, head.reason, head.headers, dated, length, end)

    def inform(self, stream: Stream, fields: list[tuple[str, str]]) -> None:
        """Send headers ahead of the response's own; never to HTTP/1.0 (RFC 9110 section 15.2)."""
        if stream.request.version == "1.1":
            self.transport.put(encode(103, "Early Hints", fields, b"", b"", b"\r\n"))

    def room(self, stream: Stream) -> Signal | None:  # noqa: ARG002 - one at a time is sent
        """Return what fires when the client has caught up; None when it is not behind."""
        return self.transport.room()

    def send_file(self, stream: Stream, *part: int) -> int:  # noqa: ARG002 - as above
        """Send from a file, of a response of known length; as :meth:`Channel.send_file`."""
        return self.transport.send_file(*part)

    def writable(self, stream: Stream) -> Signal:  # noqa: ARG002 - as above
        """Return what fires when the client takes bytes again."""
        return self.transport.writable()

    def wanted(self, stream: Stream) -> None:
        """Send 100 Continue, once (RFC 9110 section 10.1.1).

        Raises:
            LocalProtocolError: the response has begun without it, so the body would never come.
        """
        with self.lock:
            if stream.asks_for_body():
                self.transport.put(_CONTINUE)

    def taken(self, stream: Stream) -> None:
        """Read the connection again: the window has room."""
        stream.body.paused = False
        self.transport.resume_reading()

    def ended(self, stream: Stream) -> None:
        """Go on to the next request, or close."""
        complete = stream.body.complete
        if stream.state == ENDED and self._persistent and complete:
            self.next(stream)
        elif stream.state == CUT and self._framing == _CLOSE:
            # It ends where the connection ends: only a reset shows that it is incomplete.
            self.transport.abort()
        elif (
            stream.state == CUT
            or not self._persistent
            or stream.body.failed
            or self._remains_too_much(stream)
        ):
            # Linger also when all has come: one byte more from the client would reset the
            # connection, and what is on its way would be lost (RFC 9112 section 9.6).
            self.transport.close(linger=True)
        else:
            stream.body.discard()
            self.taken(stream)
            self.next(stream)

    def next(self, stream: Stream) -> None:
        """Called when the connection goes on after a response; from any thread."""
        raise NotImplementedError

    def _remains_too_much(self, stream: Stream) -> bool:
        # Looked at from another thread. Both ends are right, so it may be slightly out of date.
        remaining = None if stream.body.complete else self.remaining
        return remaining is not None and remaining > self.limits.discard

    def answer_refusal(self, error: RemoteProtocolError) -> None:
        """Answer a request that cannot be served, and close; when it is its turn, on the loop."""
        text = f"{error}\n".encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n%bContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (
                error.status,
                HTTPStatus(error.status).phrase.encode("ascii"),
                stamp(False, False),
                len(text),
                text,
            )
        )
        self.transport.close(linger=True)


def _end_with(trailers: list[tuple[str, str]]) -> bytes:
    """Return the last chunk, and the trailers behind it (RFC 9112 section 7.1.2)."""
    lines = [f"{name}: {value}\r\n" for name, value in trailers]
    return b"0\r\n%b\r\n" % "".join(lines).encode("latin-1")


holds_lock(Responses.wanted)
