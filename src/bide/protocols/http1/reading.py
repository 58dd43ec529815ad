"""HTTP/1.1 and 1.0 (RFC 9112): one connection's bytes to streams, and streams to bytes.

Parsing is httptools' (llhttp). Around it stand the checks on the wire that it is looser about, and
the limits; the way out is :mod:`bide.protocols.http1.writing`. No sockets, no threads, no event
loop: bytes come in by ``receive_data``, on the loop.

Invariants:

- After a client's error no further byte of the connection is parsed.
- llhttp is fed so that a feed never goes beyond the end of a message: a head up to its empty line,
  a body of known length up to that, of a chunked one the trailers alone, up to their empty line. So
  every head begins at a known byte, where it can be checked and limited.
- The owner begins the streams in order, one after another.
"""

from __future__ import annotations

from typing import Final

import httptools

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.exchange.stream import ENDED, Stream
from bide.exchange.totals import UNBOUND, Total
from bide.protocols.http1.chunked import Chunked
from bide.protocols.http1.syntax import (
    CLOSES,
    HOPELESS,
    KEEPS_ALIVE,
    MEANINGS,
    PARSED,
    STAND_IN,
    check_coding,
    check_host,
    join_repeated,
    meaning_of,
    plain_head,
    skip_empty_lines,
    split_request_line,
    split_target,
    without_trailing_blanks,
)
from bide.protocols.http1.writing import Responses
from bide.protocols.interfaces import Owner, Transport

_EMPTY_LINE: Final = b"\r\n\r\n"
_NOTHING: Final = bytearray()  # never written to; most connections need no other


class HTTP1(Responses):
    """One connection. ``receive_data`` and ``eof_received`` on the loop; the rest says so."""

    __slots__ = (
        "_blank",
        "_buffer",
        "_chunked",
        "_complete",
        "_headers",
        "_held",
        "_line",
        "_meant",
        "_parser",
        "_repeated",
        "_stream",
        "_unread",
        "stopped",
    )

    def __init__(
        self, transport: Transport, owner: Owner, limits: Limits, unread: Total = UNBOUND
    ) -> None:
        super().__init__(transport, owner, limits)
        self._unread = unread  # of all connections' bodies
        self.stopped = False  # nothing more is parsed; by the loop
        self._parser: httptools.HttpRequestParser | None = self._new_parser()
        # The request that is coming in.
        self._buffer: bytearray = _NOTHING  # a head that is not complete
        self._blank = 0  # bytes of empty lines since the last head
        self._line = -1  # bytes of its request line; -1 while that is not complete
        self._held = b""  # what came when the owner was full
        self._stream: Stream | None = None  # whose body is coming
        self._chunked: Chunked | None = None  # reads that body; None for one of known length
        self._headers: list[tuple[bytes, bytes]] = []
        self._meant: dict[bytes, bytes] = {}
        self._repeated: list[tuple[bytes, bytes]] = []  # of what means something, in order
        self._complete = False  # llhttp has seen the end of the message

    # In: on the loop ---------------------------------------------------------------------------

    @property
    def receiving(self) -> bool:
        """Whether a request has begun to come and is not complete."""
        return self._stream is not None or bool(self._buffer)

    @property
    def head_begun(self) -> bool:
        """Whether anything has come since the last head and its body, but for one empty line."""
        return bool(self._buffer) or self._blank > 2

    @property
    def awaits_body(self) -> bool:
        """Whether the application waits for more of the body that is coming."""
        return self._stream is not None and self._stream.body.awaited

    @property
    def fed(self) -> int:
        """Bytes that have come of that body; 0 when none is coming."""
        return 0 if self._stream is None else self._stream.body.fed

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client: begins streams, and feeds the body of the last one."""
        if self._buffer and not self.stopped:
            data = self._gather(data)
        at = 0  # what stands before it has been taken; slicing that off would cost its square
        while at < len(data) and not self.stopped:
            if self._stream is None:
                if at and self._owner.full:
                    self._held = data[at:]
                    return
                at = self._receive_head(data, at)
            elif self._chunked is not None:
                at = self._receive_chunked(self._chunked, data, at)
            else:
                at = self._receive_counted(data, at)
        if self._stream is not None:
            self._mind_window(self._stream)

    def read_on(self) -> None:
        """Take what was left since the owner was full."""
        data, self._held = self._held, b""
        self.receive_data(data)

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

    def _receive_head(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):  # RFC 9112 section 2.2: ignore empty lines before
            self._blank -= at
            at = skip_empty_lines(data, at)
            self._blank += at
        end = data.find(_EMPTY_LINE, at) + 4
        if end < 4:
            if at < len(data):
                self._buffer = bytearray(data[at:])
                self._line = -1
                self._check_incomplete(0)
            return len(data)
        self._begin(data[at:end])
        return end

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
        complete = self._line
        if complete < 0:
            # From the byte before, where a CR may stand whose LF came now.
            complete = head.find(b"\r\n", max(0, scanned - 1), self._limits.request_line + 2)
        # The last byte may be the CR of the line's end.
        line = complete if complete >= 0 else len(head) - head.endswith(b"\r")
        if self._too_long(line, len(head)):
            return
        try:
            if complete != self._line:
                self._line = complete
                split_request_line(bytes(head[:complete]))
            if HOPELESS.search(head, max(0, scanned - 1)):
                raise RemoteProtocolError("a control character or a bare LF in the head")
        except RemoteProtocolError as error:
            self.refuse(error)

    def _too_long(self, line: int, head: int, seen: bytes = b"") -> bool:
        if line > self._limits.request_line:
            self.refuse(RemoteProtocolError("the request line is too long", 414), seen)
        elif head > self._limits.head:
            self.refuse(RemoteProtocolError("the head of the request is too long", 431), seen)
        return self.stopped

    def _begin(self, head: bytes) -> None:
        """Parse a complete head; its stream is the owner's, or it is refused."""
        end = head.find(b"\r\n")
        if self._too_long(end, len(head), head):
            return
        self._blank = 0
        self._headers = []
        self._meant = {}
        self._repeated = []
        self._complete = False
        try:
            method, target, version = split_request_line(head[:end])
            # Counted before each is made an object of: its line, and the empty one, are no headers.
            fields = self._limits.fields
            if len(head) > 4 * fields and head.count(b"\r\n") - 2 > fields:
                raise RemoteProtocolError(f"the request has more than {fields} headers", 431)
            if b" \r\n" in head or b"\t\r\n" in head:
                head = without_trailing_blanks(head)
            # llhttp has a list of its own, and rules for some.
            self._parse(head if method in PARSED else STAND_IN + head[len(method) :])
            stream = self._make(method, target, version)
        except RemoteProtocolError as error:
            self.refuse(error, head)
            return
        if stream.request.has_body:
            self._stream = stream
            if self._complete:
                # Beside an Upgrade httptools takes no body for one, so that it would pass for a
                # request: a parser of its own takes it.
                self._parse(plain_head(self.remaining))
        elif not stream.request.persistent:
            self.stopped = True
        self._owner.begin(stream)

    def _make(self, method: str, target: bytes, version: str) -> Stream:
        """Make the stream of a head that llhttp has parsed; raises RemoteProtocolError."""
        headers = self._headers
        meant = self._meant
        if method == "CONNECT":
            raise RemoteProtocolError("this is no proxy: CONNECT is not served", 405)
        if self._repeated:
            join_repeated(meant, self._repeated)
        host = meant.get(b"host")
        if host is not None:
            check_host(host)
        elif version == "1.1":
            raise RemoteProtocolError("the request has no Host header")
        path, query, authority = split_target(method, target)
        if authority is not None:
            headers = [each for each in headers if each[0].lower() != b"host"]
            headers.append((b"Host", authority))
        request = Request(method, target, path, query, version, headers)
        request.persistent = version == "1.1"
        if len(meant) <= (host is not None):  # nothing but Host means anything
            return Stream(request, self, 0)
        connection = meant.get(b"connection", b"")
        kept = request.persistent or KEEPS_ALIVE.search(connection) is not None
        request.persistent = kept and CLOSES.search(connection) is None
        coding = meant.get(b"transfer-encoding")
        length = int(meant.get(b"content-length", b"0"))  # llhttp took nothing but digits
        if length > self._limits.body > 0:
            raise self._too_large()
        if coding is not None:
            if version != "1.1":
                raise RemoteProtocolError("Transfer-Encoding came with HTTP/1.0")
            check_coding(coding)
        request.has_body = coding is not None or length > 0
        self.remaining = None if coding is not None else length
        self._chunked = None if coding is None else Chunked(self._limits)
        window = self._limits.window if request.has_body else 0
        stream = Stream(request, self, window, self._unread)
        expect = meant.get(b"expect")
        if expect is not None and version == "1.1":
            if expect.lower() != b"100-continue":
                raise RemoteProtocolError("the only expectation known here is 100-continue", 417)
            stream.expects_continue = request.has_body
        return stream

    def _receive_counted(self, data: bytes, at: int) -> int:
        size = self.remaining
        assert size is not None
        end = min(len(data), at + size)
        self.remaining = size - (end - at)
        self._complete = False
        try:
            self._parse(data[at:end])
            if self._complete:
                self._finish_body()
        except RemoteProtocolError as error:
            self.refuse(error)
        return end

    def _receive_chunked(self, chunked: Chunked, data: bytes, at: int) -> int:
        try:
            at = chunked.receive(data, at, self)
            if chunked.done:
                self._finish_body()
        except RemoteProtocolError as error:
            self.refuse(error)
        return at

    def _finish_body(self) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        stream.body.finish()
        if not stream.request.persistent:
            self.stopped = True

    def take_data(self, block: bytes) -> None:
        """Feed the body's window; refuses a body that is too large."""
        stream = self._stream
        assert stream is not None
        stream.expects_continue = False  # RFC 9110 section 10.1.1: it comes without being asked
        body = stream.body
        body.feed(block)
        if body.fed > self._limits.body > 0:
            raise self._too_large()
        if body.discarding and body.unread > self._limits.discard:
            self.stopped = True
            self.transport.close(linger=True)

    def take_trailers(self, block: bytes) -> None:
        """Have llhttp check them, behind the head of a chunked body."""
        self._parse(block)

    def _too_large(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"the request's body is longer than {self._limits.body} bytes", 413
        )

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
        except httptools.HttpParserError as error:
            raise RemoteProtocolError(f"the request is malformed: {error}") from None

    def refuse(self, error: RemoteProtocolError, head: bytes = b"") -> None:
        """Parse no further; answer with the error, or fail the body in which it came."""
        error.show(head or self._buffer)
        self.stopped, self._buffer, self._held = True, _NOTHING, b""
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
        meaning = MEANINGS.get(name)
        if meaning is None:
            meaning = meaning_of(name)
        if meaning:
            meant = self._meant
            if meaning in meant:
                self._repeated.append((meaning, value))
            else:
                meant[meaning] = value

    def on_body(self, data: bytes) -> None:
        """Take a piece of a body of known length, which is not too large: its head said so."""
        self.take_data(data)

    def on_message_complete(self) -> None:
        """Note the end of a message."""
        self._complete = True
