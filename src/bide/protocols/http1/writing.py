"""HTTP/1.1 and 1.0, the way out: how responses are framed, and how a connection goes on after one.

One response is sent at a time. Everything here may be called from any thread; what writes a piece
of a response holds the connection's lock, but for pieces of files.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from bide.errors import LocalProtocolError, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import CUT, ENDED, READY, Stream
from bide.protocols.http1.syntax import encode_head, stamp
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

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, the head before it where it was not sent; return false if nobody takes it.

        Called under the lock. Head and first block go in one piece, and so do last block and end.
        """
        data = self._encode_head(stream, len(block), last) if stream.state == READY else b""
        framing = self._framing
        if framing == _CHUNKED:
            if len(block) >= _LARGE:
                end = b"\r\n" + _LAST_CHUNK if last else b"\r\n"
                return self.transport.write(b"%b%x\r\n" % (data, len(block)), block, end)
            if block:
                data = b"%b%x\r\n%b\r\n" % (data, len(block), block)
            if last:
                data += _LAST_CHUNK
        elif framing != _NONE:
            if data and len(block) >= _LARGE:
                return self.transport.write(data, block)
            data = data + block if data else block
        return self.transport.write(data) if data else True

    def _encode_head(self, stream: Stream, size: int, last: bool) -> bytes:
        head = stream.head
        request = stream.request
        assert head is not None
        if stream.expects_continue and not last and head.code < 300:
            # The application goes on, and may read later, when 100 can no longer be sent. A client
            # that is told 300 or more sends no body (RFC 9110 section 10.1.1).
            stream.expects_continue = False
            self.transport.write(_CONTINUE)
        # With ``expects_continue``: nobody can tell whether the client will send the body.
        persistent = request.persistent and not (
            self.draining
            or head.closes
            or stream.body.failed
            or stream.expects_continue
            or self._remains_too_much(stream)
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
        # Formatting with ``%`` would cost a third more.
        return encode_head(head) + stamp(head.dated, head.served) + length + end

    def room(self, stream: Stream) -> Signal | None:  # noqa: ARG002 - one at a time is sent
        """Return what fires when the client has caught up; None when it is not behind."""
        return self.transport.room()

    def send_file(self, stream: Stream, *part: int) -> int:  # noqa: ARG002 - as above
        """Send from a file, of a response of known length; as :meth:`Channel.send_file`."""
        return self.transport.send_file(*part)

    def writable(self, stream: Stream) -> Signal:  # noqa: ARG002 - as above
        """Return what fires when the client takes bytes again."""
        return self.transport.writable()

    @holds_lock
    def wanted(self, stream: Stream) -> None:
        """Send 100 Continue, once (RFC 9110 section 10.1.1).

        Raises:
            LocalProtocolError: the response has begun without it, so the body would never come.
        """
        with self.lock:
            if stream.expects_continue:
                if stream.head_sent:
                    raise LocalProtocolError(
                        "the response has begun, and the client has not been told to send its body "
                        "(Expect: 100-continue): read wsgi.input before the answer"
                    )
                stream.expects_continue = False
                self.transport.write(_CONTINUE)

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
