"""HTTP/1.1 and 1.0 (RFC 9112): one connection's bytes to streams, and streams to bytes.

Parsing is httptools' (llhttp). Around it stand the checks on the wire that it is looser about, the
limits, and the framing of responses. No sockets, no threads, no event loop: bytes come in by
``receive_data``, on the loop; responses go to a transport, from any thread, under its lock.

Invariants:

- After a client's error no further byte of the connection is parsed.
- llhttp is fed so that a feed never goes beyond the end of a message: a head up to its empty line,
  a body of known length up to that, a chunked one in pieces that end with an empty line. So every
  head begins at a known byte, where it can be checked and limited.
- One response is sent at a time; the owner begins the streams in order.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import httptools

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.promises import Signal
from bide.protocols.http1_syntax import (
    HOPELESS,
    check_coding,
    check_host,
    encode_head,
    split_request_line,
    split_target,
    stamp,
    tokens,
    without_trailing_blanks,
)
from bide.stream import CUT, ENDED, READY, Head, Request, Stream


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server's memory; all in bytes but the number of fields."""

    request_line: int = 8 * 1024
    head: int = 64 * 1024
    fields: int = 100
    window: int = 64 * 1024
    """How much of a body waits for the application before the connection is read no further."""
    framing: int = 4 * 1024
    """How much a chunked body's sizes, extensions and trailers may take beyond their due."""
    discard: int = 256 * 1024
    """How much of a body that the application left unread is read to keep the connection."""


class Transport(Protocol):
    """Where the bytes of responses go; any thread."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Reentrant."""

    def write(self, data: bytes) -> bool:
        """Send or queue; false when the client is gone."""

    def room(self) -> Signal | None:
        """Give what fires when the client has caught up; None when it is not behind."""

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; give the bytes sent, 0 if the client is behind, -1 if it is gone."""

    def writable(self) -> Signal:
        """Give what fires when the client takes bytes again, or is gone."""

    def pause_reading(self) -> None:
        """Take no more from the client for now."""

    def resume_reading(self) -> None:
        """Take from the client again."""

    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close; with ``linger``, drop what still comes in first."""

    def abort(self) -> None:
        """Reset the connection."""


class Owner(Protocol):
    """Who owns the connection: begins streams in order, one after another."""

    def begin(self, stream: Stream) -> None:
        """Take a new stream, whose head is complete; on the loop."""

    def refuse(self, error: RemoteProtocolError) -> None:
        """Call :meth:`HTTP1.answer_refusal` when it is its turn; on the loop."""

    def ended(self, stream: Stream) -> None:
        """Know that the connection is free for the next stream; any thread."""


_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_EMPTY_LINE: Final = b"\r\n\r\n"
_FRAMING_DUE: Final = 128
"""Bytes of framing that each block of a chunked body may bring: far more than any client needs."""
_NOTHING: Final = bytearray()  # never written to; most connections need no other

# How a response's end is told to the client (RFC 9112 section 6.3).
_NONE: Final = "none"
_LENGTH: Final = "length"
_CHUNKED: Final = "chunked"
_CLOSE: Final = "close"

# Header names that mean something here, looked up as they were sent; bounded.
_MEANINGS: Final[dict[bytes, bytes]] = {}
_MEANT: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}
)


class HTTP1:
    """One connection. ``receive_data`` and ``eof_received`` on the loop; the rest says so."""

    __slots__ = (
        "_buffer",
        "_complete",
        "_doubled",
        "_excess",
        "_framing",
        "_headers",
        "_limits",
        "_meant",
        "_owner",
        "_parser",
        "_persistent",
        "_remaining",
        "_stream",
        "_tail",
        "draining",
        "lock",
        "stopped",
        "transport",
    )

    def __init__(self, transport: Transport, owner: Owner, limits: Limits) -> None:
        self.lock = transport.lock
        self.transport = transport
        self.stopped = False  # nothing more is parsed; by the loop
        self.draining = False  # each response is the connection's last; by the loop
        self._owner = owner
        self._limits = limits
        self._parser: httptools.HttpRequestParser | None = self._new_parser()
        # The request that is coming in.
        self._buffer: bytearray = _NOTHING  # a head that is not complete
        self._stream: Stream | None = None  # whose body is coming
        self._remaining: int | None = None  # of a body of known length; None: it is chunked
        self._tail = b""  # the last bytes of a chunked body, where an empty line may have begun
        self._excess = 0  # bytes of a chunked body's framing beyond their due
        self._headers: list[tuple[bytes, bytes]] = []
        self._meant: dict[bytes, bytes] = {}
        self._doubled = False  # there are two Hosts
        self._complete = False  # llhttp has seen the end of the message
        # The response that is going out.
        self._framing = _NONE
        self._persistent = False

    # In: on the loop ---------------------------------------------------------------------------

    @property
    def receiving(self) -> bool:
        """Whether a request has begun to come and is not complete."""
        return self._stream is not None or bool(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client: begins streams, and feeds the body of the last one."""
        while data and not self.stopped:
            if self._stream is None:
                data = self._receive_head(data)
            elif self._remaining is None:
                data = self._receive_chunked(data)
            else:
                data = self._receive_counted(data)
        if self._stream is not None:
            self._mind_window(self._stream)

    def eof_received(self) -> bool:
        """Take the end of what the client sends; true if that cut a request short."""
        self.stopped = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.body.fail(ClientDisconnected("the client left before its request was complete"))
        short = stream is not None or bool(self._buffer)
        self._buffer = _NOTHING
        return short

    def close(self) -> None:
        """Drop the parser, which refers to this object; when the connection ends."""
        self.stopped = True
        self._parser = None

    def _receive_head(self, data: bytes) -> bytes:
        if self._buffer:
            data = self._gather(data)
        start = 0
        while data.startswith(b"\r\n", start):  # RFC 9112 section 2.2: ignore empty lines before
            start += 2
        if start:
            data = data[start:]
        end = data.find(_EMPTY_LINE) + 4
        if end < 4:
            if data:
                self._buffer = bytearray(data)
                self._check_incomplete(0)
            return b""
        if end == len(data):
            self._begin(data)
            return b""
        self._begin(data[:end])
        return data[end:]

    def _gather(self, data: bytes) -> bytes:
        """Add to a head that came in pieces; give all of it once its end has come, else nothing."""
        buffer = self._buffer
        scanned = len(buffer)
        buffer += data
        if buffer.startswith(b"\r\n") or buffer.find(_EMPTY_LINE, max(0, scanned - 3)) >= 0:
            self._buffer = _NOTHING
            return bytes(buffer)
        self._check_incomplete(scanned)
        return b""

    def _check_incomplete(self, scanned: int) -> None:
        """Refuse at once what cannot become a good head, instead of waiting for its end."""
        head = self._buffer
        line_end = head.find(b"\r\n", 0, self._limits.request_line + 2)
        # The last byte may be the CR of the line's end.
        line = line_end if line_end >= 0 else len(head) - head.endswith(b"\r")
        if self._too_long(line, len(head)):
            return
        try:
            if line_end >= 0:
                split_request_line(bytes(head[:line_end]))
            # From the byte before, where a CR may stand whose LF came now.
            if HOPELESS.search(head, max(0, scanned - 1)):
                raise RemoteProtocolError("a control character or a bare LF in the head")
        except RemoteProtocolError as error:
            self.refuse(error)

    def _too_long(self, line: int, head: int) -> bool:
        if line > self._limits.request_line:
            self.refuse(RemoteProtocolError("the request line is too long", 414))
        elif head > self._limits.head:
            self.refuse(RemoteProtocolError("the head of the request is too long", 431))
        return self.stopped

    def _begin(self, head: bytes) -> None:
        """Parse a complete head; its stream is the owner's, or it is refused."""
        end = head.find(b"\r\n")
        if self._too_long(end, len(head)):
            return
        self._headers = []
        self._meant = {}
        self._complete = False
        try:
            method, target, version = split_request_line(head[:end])
            if b" \r\n" in head or b"\t\r\n" in head:
                head = without_trailing_blanks(head)
            self._parse(head)
            stream = self._make(method, target, version)
        except RemoteProtocolError as error:
            self.refuse(error)
            return
        if stream.request.has_body:
            self._stream = stream
            if self._complete:
                self._parse(self._plain_head())
        elif not stream.request.persistent:
            self.stopped = True
        self._owner.begin(stream)

    def _make(self, method: str, target: bytes, version: str) -> Stream:
        """Make the stream of a head that llhttp has parsed; raises RemoteProtocolError."""
        headers = self._headers
        meant = self._meant
        if len(headers) > self._limits.fields:
            raise RemoteProtocolError(
                f"the request has more than {self._limits.fields} headers", 431
            )
        if method == "CONNECT":
            raise RemoteProtocolError("this is no proxy: CONNECT is not served", 405)
        host = meant.get(b"host")
        if host is not None:
            if self._doubled:
                raise RemoteProtocolError("the request has two Host headers")
            check_host(host)
        elif version == "1.1":
            raise RemoteProtocolError("the request has no Host header")
        path, query, authority = split_target(method, target)
        if authority is not None:
            headers = [each for each in headers if each[0].lower() != b"host"]
            headers.append((b"Host", authority))
        request = Request(method, target, path, query, version, headers)
        if len(meant) <= (host is not None):  # nothing but Host means anything
            request.persistent = version == "1.1"
            return Stream(request, self, 0)
        connection = tokens(meant.get(b"connection", b""))
        request.persistent = b"close" not in connection and (
            version == "1.1" or b"keep-alive" in connection
        )
        coding = meant.get(b"transfer-encoding")
        length = int(meant.get(b"content-length", b"0"))  # llhttp took nothing but digits
        if coding is not None:
            if version != "1.1":
                raise RemoteProtocolError("Transfer-Encoding came with HTTP/1.0")
            check_coding(coding)
        request.has_body = coding is not None or length > 0
        self._remaining = None if coding is not None else length
        self._tail = b""
        self._excess = 0
        stream = Stream(request, self, self._limits.window if request.has_body else 0)
        expect = meant.get(b"expect")
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                raise RemoteProtocolError("the only expectation known here is 100-continue", 417)
            stream.expects_continue = request.has_body
        return stream

    def _receive_counted(self, data: bytes) -> bytes:
        size = self._remaining
        assert size is not None
        self._remaining = max(0, size - len(data))
        self._feed_body(data[:size])
        return data[size:]

    def _receive_chunked(self, data: bytes) -> bytes:
        # A chunked message ends with an empty line, and nothing before its end overlaps that one.
        window = self._tail + data
        end = window.find(_EMPTY_LINE)
        if end < 0:
            self._tail = window[-3:]
            self._feed_body(data)
            return b""
        end += 4 - len(self._tail)
        self._tail = b""
        self._feed_body(data[:end])
        return data[end:]

    def _feed_body(self, data: bytes) -> None:
        self._complete = False
        stream = self._stream
        assert stream is not None
        self._excess += len(data)
        try:
            self._parse(data)
            self._excess = max(0, self._excess)
            if self._excess > self._limits.framing:
                raise RemoteProtocolError("the body has more framing than data")
        except RemoteProtocolError as error:
            self.refuse(error)
            return
        if self._complete:
            self._stream = None
            stream.body.finish()
            if not stream.request.persistent:
                self.stopped = True

    def _plain_head(self) -> bytes:
        """Give a head that announces the same body without an Upgrade, for a parser of its own.

        Beside an Upgrade httptools takes no body for one, so that it would pass for a request.
        """
        if self._remaining is None:
            return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % self._remaining

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Which request is the last is decided here: llhttp hears it from trailers and from
        # Proxy-Connection too.
        parser.set_dangerous_leniencies(lenient_keep_alive=True)
        return parser

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded here (RFC 9110 section 7.8 lets a server ignore it). This parser
            # takes the message for complete, with a body or without; the next one is plain HTTP.
            self._parser = self._new_parser()
        except httptools.HttpParserCallbackError:
            raise  # an error of our own
        except httptools.HttpParserInvalidMethodError:
            status = 400 if HOPELESS.search(data) else 501  # as if it had come in pieces
            raise RemoteProtocolError("the method is not known here", status) from None
        except httptools.HttpParserError as error:
            raise RemoteProtocolError(f"the request is malformed: {error}") from None

    def refuse(self, error: RemoteProtocolError) -> None:
        """Parse no further; answer with the error, or fail the body in which it came."""
        self.stopped = True
        stream, self._stream = self._stream, None
        if stream is not None:
            # First the failure, then a look at the response: one that ends does it the other way.
            stream.body.fail(error)
            if stream.state == ENDED:
                self.transport.close(linger=True)
        else:
            self._owner.refuse(error)

    def _mind_window(self, stream: Stream) -> None:
        full = stream.body.full
        if not full:
            return
        # First the mark, then a second look: the reader looks for the mark after it has taken.
        stream.body.paused = True
        self.transport.pause_reading()
        if not stream.body.full:
            self.taken(stream)

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and what it means; trailers are checked by llhttp and dropped."""
        if self._stream is not None:
            return
        self._headers.append((name, value))
        meaning = _MEANINGS.get(name)
        if meaning is None:
            meaning = _meaning(name)
        if meaning:
            meant = self._meant
            if meaning in meant:
                self._doubled = self._doubled or meaning == b"host"
                value = b"%b,%b" % (meant[meaning], value)
            meant[meaning] = value

    def on_body(self, data: bytes) -> None:
        """Feed the body's window."""
        stream = self._stream
        assert stream is not None
        stream.expects_continue = False  # RFC 9110 section 10.1.1: it comes without being asked
        self._excess -= len(data) + _FRAMING_DUE
        body = stream.body
        body.feed(data)
        if body.discarding and body.unread > self._limits.discard:
            self.stopped = True
            self.transport.close(linger=True)

    def on_message_complete(self) -> None:
        """Note the end of a message."""
        self._complete = True

    # Out: on any thread ------------------------------------------------------------------------

    def prepare(self, head: Head) -> None:
        """Encode a head's fields; raises LocalProtocolError for what would split the response."""
        head.fields = encode_head(head)

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, with the head before it where it was not sent; false: the client is gone.

        Under the lock. Head and first block go in one piece, and so do last block and end.
        """
        data = self._encode_head(stream, len(block), last) if stream.state == READY else b""
        framing = self._framing
        if framing == _CHUNKED:
            if block:
                data = b"%b%x\r\n%b\r\n" % (data, len(block), block)
            if last:
                data += _LAST_CHUNK
        elif framing != _NONE:
            data = data + block if data else block
        return self.transport.write(data) if data else True

    def _encode_head(self, stream: Stream, size: int, last: bool) -> bytes:
        head = stream.head
        request = stream.request
        assert head is not None
        # A body that was announced, asked for and never wanted may come or not: who can tell?
        persistent = request.persistent and not (
            self.draining or stream.body.failed or stream.expects_continue
        )
        length = b""
        if stream.bodiless:
            self._framing = _NONE
            # HEAD: what GET would give; a body that is empty here may not be so there.
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
        return b"%b%b%b%b" % (head.fields, stamp(head.dated, head.served), length, end)

    def room(self) -> Signal | None:
        """Give what fires when the client has caught up; None when it is not behind."""
        return self.transport.room()

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file, of a response of known length; as :meth:`Channel.send_file`."""
        return self.transport.send_file(descriptor, offset, count)

    def writable(self) -> Signal:
        """Give what fires when the client takes bytes again."""
        return self.transport.writable()

    def wanted(self, stream: Stream) -> None:
        """Send 100 Continue, once, unless the response has begun (RFC 9110 section 10.1.1)."""
        with self.lock:
            if stream.expects_continue and not stream.head_sent:
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
            self._owner.ended(stream)
        elif stream.state == CUT and self._framing == _CLOSE:
            # Its end is the connection's end: only a reset shows that it is not complete.
            self.transport.abort()
        elif (
            stream.state == CUT
            or not self._persistent
            or stream.body.failed
            or self._remains_too_much(stream)
        ):
            self.transport.close(linger=not complete)
        else:
            stream.body.discard()
            self.taken(stream)
            self._owner.ended(stream)

    def _remains_too_much(self, stream: Stream) -> bool:
        # A look from another thread: it decides between two good ends, so it may be a bit old.
        remaining = None if stream.body.complete else self._remaining
        return remaining is not None and remaining > self._limits.discard

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


def _meaning(name: bytes) -> bytes:
    meaning = name.lower()
    if meaning not in _MEANT:
        meaning = b""
    if len(_MEANINGS) < 1024 and len(name) <= 64:
        _MEANINGS[name] = meaning
    return meaning
