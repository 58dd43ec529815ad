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

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn, Protocol, TypeVar

import httptools

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.promises import Signal
from bide.protocols.http1_syntax import (
    HOPELESS,
    check_host,
    check_request_line,
    date_line,
    encode_fields,
    split_target,
    status_line,
    tokens,
)
from bide.stream import CUT, READY, Head, Request, Stream


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server's memory; all in bytes but the number of fields."""

    request_line: int = 8 * 1024
    head: int = 64 * 1024
    fields: int = 100
    window: int = 64 * 1024
    """How much of a body waits for the application before the connection is read no further."""
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


T = TypeVar("T")

SERVER_LINE: Final = b"Server: bide\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"

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

    def __init__(self, transport: Transport, owner: Owner, limits: Limits) -> None:
        self.lock = transport.lock
        self.transport = transport
        self.stopped = False  # nothing more is parsed; by the loop
        self.draining = False  # each response is the connection's last; by the loop
        self._owner = owner
        self._limits = limits
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        # The request that is coming in.
        self._buffer = bytearray()  # a head that is not complete
        self._stream: Stream | None = None  # whose body is coming
        self._remaining: int | None = None  # of a body of known length; None: it is chunked
        self._tail = b""  # the last bytes of a chunked body, where an empty line may have begun
        self._begun: Stream | None = None  # made by this feed, not yet the owner's
        self._error: RemoteProtocolError | None = None  # raised in a callback of this feed
        self._version = "1.1"
        self._clear_head()
        # The response that is going out.
        self._framing = _NONE
        self._persistent = False

    def _clear_head(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._meant: dict[bytes, bytes] = {}

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
                size = self._remaining
                self._remaining = max(0, size - len(data))
                data, rest = data[:size], data[size:]
                self._feed(data)
                data = rest
        self._mind_window()

    def eof_received(self) -> bool:
        """Take the end of what the client sends; true if that cut a request short."""
        self.stopped = True
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.body.fail(ClientDisconnected("the client left before its request was complete"))
        return stream is not None or bool(self._buffer)

    def close(self) -> None:
        """Drop the parser, which refers to this object; when the connection ends."""
        self.stopped = True
        self._parser = None

    def _receive_head(self, data: bytes) -> bytes:
        buffer = self._buffer
        scanned = len(buffer)
        head: bytes | bytearray = data
        if scanned:
            buffer += data
            head = buffer
        while head.startswith(b"\r\n"):  # RFC 9112 section 2.2: ignore empty lines before it
            head = head[2:]
            scanned = 0
        end = head.find(b"\r\n\r\n", max(0, scanned - 3))
        if end < 0:
            self._buffer = bytearray(head) if head is not buffer else buffer
            self._check_incomplete(scanned)
            return b""
        end += 4
        line_end = head.find(b"\r\n")
        if self._too_long(line_end, end):
            return b""
        if end == len(head):
            head, rest = bytes(head), b""
        else:
            head, rest = bytes(head[:end]), bytes(head[end:])
        if scanned or buffer:
            self._buffer = bytearray()
        line = head[:line_end]
        try:
            check_request_line(line)
        except RemoteProtocolError as error:
            self.refuse(error)
            return b""
        self._version = "1.1" if line.endswith(b"1") else "1.0"
        self._feed(head)
        return rest

    def _check_incomplete(self, scanned: int) -> None:
        """Refuse at once what cannot become a good head, instead of waiting for its end."""
        head = self._buffer
        line_end = head.find(b"\r\n", 0, self._limits.request_line + 2)
        if self._too_long(line_end if line_end >= 0 else len(head), len(head)):
            return
        # From the byte before, where a CR may stand whose LF came now.
        if HOPELESS.search(head, max(0, scanned - 1)):
            self.refuse(RemoteProtocolError("a control character or a bare LF in the head"))
        elif line_end >= 0:
            try:
                check_request_line(bytes(head[:line_end]))
            except RemoteProtocolError as error:
                self.refuse(error)

    def _too_long(self, line: int, head: int) -> bool:
        if line > self._limits.request_line:
            self.refuse(RemoteProtocolError("the request line is too long", 414))
        elif head > self._limits.head:
            self.refuse(RemoteProtocolError("the head of the request is too long", 431))
        return self.stopped

    def _receive_chunked(self, data: bytes) -> bytes:
        # A chunked message ends with an empty line, and nothing before its end overlaps that one.
        window = self._tail + data
        end = window.find(b"\r\n\r\n")
        if end < 0:
            self._tail = window[-3:]
            self._feed(data)
            return b""
        end += 4 - len(self._tail)
        self._tail = b""
        self._feed(data[:end])
        return data[end:]

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing is upgraded here (RFC 9110 section 7.8 lets a server ignore it); the message
            # is complete, and the next one is plain HTTP.
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            if self._error is None and isinstance(error, httptools.HttpParserCallbackError):
                raise  # an error of our own
            self.refuse(self._error or _explain(error))
        stream, self._begun = self._begun, None
        if stream is not None and self._error is None:
            self._owner.begin(stream)

    def refuse(self, error: RemoteProtocolError) -> None:
        """Parse no further; answer with the error, or fail the body in which it came."""
        self.stopped = True
        self._error = error
        stream, self._stream = self._stream, None
        if stream is not None and stream is not self._begun:
            stream.body.fail(error)
        else:
            self._owner.refuse(error)

    def _mind_window(self) -> None:
        stream = self._stream
        if stream is None:
            return
        full = stream.body.full
        if not full:
            return
        # First the mark, then a second look: the reader looks for the mark after it has taken.
        stream.body.paused = True
        self.transport.pause_reading()
        if not stream.body.full:
            self.taken(stream)

    # httptools' callbacks; an exception here ends the feed

    def on_url(self, target: bytes) -> None:
        """Keep the request target."""
        self._target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and what it means; trailers are checked by llhttp and dropped."""
        if self._stream is not None:
            return
        if value.endswith((b" ", b"\t")):
            value = value.rstrip(b" \t")  # RFC 9112 section 5.1; llhttp leaves it on
        self._headers.append((name, value))
        meaning = _MEANINGS.get(name)
        if meaning is None:
            meaning = name.lower()
            if meaning not in _MEANT:
                meaning = b""
            if len(_MEANINGS) < 1024:
                _MEANINGS[name] = meaning
        if meaning:
            meant = self._meant
            if meaning not in meant:
                meant[meaning] = value
            elif meaning == b"host":
                self._fail("the request has two Host headers")
            else:
                meant[meaning] += b"," + value

    def on_headers_complete(self) -> None:
        """Make the stream, or refuse."""
        parser = self._parser
        assert parser is not None
        method = parser.get_method().decode("ascii")
        headers = self._headers
        meant = self._meant
        version = self._version
        if len(headers) > self._limits.fields:
            self._fail(f"the request has more than {self._limits.fields} headers", 431)
        if method == "CONNECT":
            self._fail("this is no proxy: CONNECT is not served", 405)
        host = meant.get(b"host")
        if host is None:
            if version == "1.1":
                self._fail("the request has no Host header")
        else:
            self._checked(check_host, host)
        path, query, authority = self._checked(split_target, method, self._target)
        if authority is not None:
            headers = [each for each in headers if each[0].lower() != b"host"]
            headers.append((b"Host", authority))
        coding = meant.get(b"transfer-encoding")
        length = int(meant.get(b"content-length", b"0"))  # llhttp took nothing but digits
        if coding is not None:
            if version != "1.1":
                self._fail("Transfer-Encoding came with HTTP/1.0")
            if coding.lower() != b"chunked":
                self._fail("the only transfer coding known here is chunked", 501)
        connection = tokens(meant[b"connection"]) if b"connection" in meant else ()
        persistent = b"close" not in connection and (
            version == "1.1" or b"keep-alive" in connection
        )
        has_body = coding is not None or length > 0
        request = Request(method, self._target, path, query, version, headers, has_body, persistent)
        stream = Stream(request, self, self._limits.window)
        expect = meant.get(b"expect")
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                self._fail("the only expectation known here is 100-continue", 417)
            stream.expects_continue = has_body
        self._remaining = None if coding is not None else length
        self._tail = b""
        self._stream = self._begun = stream

    def on_body(self, data: bytes) -> None:
        """Feed the body's window."""
        stream = self._stream
        assert stream is not None
        stream.expects_continue = False  # RFC 9110 section 10.1.1: it comes without being asked
        body = stream.body
        body.feed(data)
        if body.discarding and body.fed > self._limits.discard:
            self.stopped = True
            self.transport.close(linger=True)

    def on_message_complete(self) -> None:
        """End the body; the next byte is the next request's, if there may be one."""
        stream = self._stream
        assert stream is not None
        stream.body.finish()
        self._stream = None
        self._clear_head()
        if not stream.request.persistent:
            self.stopped = True

    def _checked(self, check: Callable[..., T], *args: Any) -> T:
        try:
            return check(*args)
        except RemoteProtocolError as error:
            self._error = error
            raise

    def _fail(self, message: str, status: int = 400) -> NoReturn:
        self._error = RemoteProtocolError(message, status)
        raise self._error

    # Out: on any thread ------------------------------------------------------------------------

    def prepare(self, head: Head) -> None:
        """Encode a head's fields; raises LocalProtocolError for what would split the response."""
        status_line(head)
        head.fields = encode_fields(head)

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, with the head before it where it was not sent; false: the client is gone.

        Under the lock. Head and first block go in one piece, and so do last block and end.
        """
        data = b""
        if stream.state == READY:
            data = self._encode_head(stream, len(block), last)
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
            self.draining or self._error is not None or stream.expects_continue
        )
        parts = [status_line(head), head.fields]
        if not head.dated:
            parts.append(date_line())
        if not head.served:
            parts.append(SERVER_LINE)
        if head.bodiless:
            self._framing = _NONE
        elif request.method == "HEAD":
            self._framing = _NONE
            if last and size and head.length is None:
                parts.append(b"Content-Length: %d\r\n" % size)
        elif head.length is not None:
            self._framing = _LENGTH
        elif last:
            self._framing = _LENGTH
            parts.append(b"Content-Length: %d\r\n" % size)
        elif request.version == "1.1":
            self._framing = _CHUNKED
            parts.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self._framing = _CLOSE
            persistent = False
        if not persistent:
            parts.append(b"Connection: close\r\n")
        elif request.version == "1.0":
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        self._persistent = persistent
        return b"".join(parts)

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
        if stream.state == CUT:
            if self._framing == _CLOSE:
                # Its end is the connection's end: only a reset shows that it is not complete.
                self.transport.abort()
            else:
                self.transport.close(linger=not stream.body.complete)
        elif not self._persistent or self._remains_too_much(stream):
            self.transport.close(linger=not stream.body.complete)
        else:
            if not stream.body.complete:
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
            b"HTTP/1.1 %d %b\r\n%b%bContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (
                error.status,
                HTTPStatus(error.status).phrase.encode("ascii"),
                date_line(),
                SERVER_LINE,
                len(text),
                text,
            )
        )
        self.transport.close(linger=True)


def _explain(error: httptools.HttpParserError) -> RemoteProtocolError:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return RemoteProtocolError("the method is not known here", 501)
    return RemoteProtocolError(f"the request is malformed: {error}")
