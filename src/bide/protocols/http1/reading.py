"""HTTP/1.1 and 1.0 (RFC 9112): one connection's bytes to streams, and streams to bytes.

Heads are parsed by :mod:`bide.protocols.http1.heads`, chunked bodies by
:mod:`bide.protocols.http1.chunked`; the way out is :mod:`bide.protocols.http1.writing`. Here stand
the limits, and what comes when. No sockets, no threads, no event loop: bytes come in by
``data_received``, on the loop.

It is always in one of the states of :mod:`bide.protocols.http1.states`; only ``_move`` changes it.

Invariants:

- After a client's error no further byte of the connection is parsed.
- The parser is never given a byte beyond the end of a message, so every head begins at a known
  byte, where it can be checked and limited.
- Streams are begun in order, each before the next head is parsed. What came of its body with its
  head is there when a stream is begun: the application need not wait for it.
"""

from __future__ import annotations

from typing import Final

from bide.compiling import mypyc_attr
from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.exchange.stream import ENDED, Stream
from bide.exchange.totals import UNBOUND, Total
from bide.native import parse
from bide.protocols.http1.chunked import Chunked
from bide.protocols.http1.heads import HeadParser
from bide.protocols.http1.pipeline import Pipeline
from bide.protocols.http1.states import (
    CHUNKED,
    CHUNKS,
    COUNTED,
    END,
    GO_ON,
    HEAD,
    HELD,
    HOLD,
    IDLE,
    LENGTH,
    MOVES,
    PART,
    STOP,
    STOPPED,
    WHOLE,
)
from bide.protocols.http1.syntax import (
    HOPELESS,
    body_too_large,
    name_other,
    skip_empty_lines,
    split_request_line,
)
from bide.protocols.interfaces import Owner, Transport

_EMPTY_LINE: Final = b"\r\n\r\n"
_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\n"
"""What clients of HTTP/2 begin with, so that others refuse it (RFC 9113 section 3.4)."""
_NOTHING: Final = bytearray()  # never written to; most connections need no other


@mypyc_attr(allow_interpreted_subclasses=True)
class HTTP1(Pipeline):
    """One connection: its way in, and with its bases its order and its way out."""

    __slots__ = (
        "_blank",
        "_buffer",
        "_chunked",
        "_held",
        "_line",
        "_parser",
        "_stream",
        "_unread",
        "state",
    )

    def __init__(
        self, transport: Transport, owner: Owner, limits: Limits, unread: Total = UNBOUND
    ) -> None:
        super().__init__(transport, owner, limits)
        self._unread = unread  # of all connections' bodies
        self.state = IDLE  # by the loop
        self._parser = HeadParser(limits)
        self._buffer: bytearray = _NOTHING  # in HEAD: what has come of it
        self._blank = -1  # bytes of empty lines since the last head; negative before all
        self._line = -1  # bytes of its request line; -1 while that is not complete
        self._held = b""  # in HELD: what has come
        self._stream: Stream | None = None  # in COUNTED and CHUNKED: whose body is coming
        self._chunked: Chunked | None = None  # in CHUNKED: reads that body

    def _move(self, event: str) -> None:
        """Change the state. A KeyError is a bug: the event does not belong to it."""
        self.state = MOVES[self.state, event]

    def _stop(self) -> Stream | None:
        """Parse no further; return the stream whose body was coming, if one was."""
        stream, self._stream = self._stream, None
        self._chunked = None
        self._buffer = _NOTHING
        self._held = b""
        if self.state is not STOPPED:
            self._move(STOP)
        return stream

    # In: on the loop ---------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether nothing more is parsed."""
        return self.state is STOPPED

    @property
    def receiving(self) -> bool:
        """Whether a request has begun to come and is not complete."""
        return self._stream is not None or self.state is HEAD

    @property
    def head_begun(self) -> bool:
        """Whether anything has come since the last head and its body, but for one empty line."""
        return self.state is HEAD or self._blank > 2

    def announced(self, stream: Stream) -> bool:  # noqa: ARG002 - only the last one is incomplete
        """Whether it is known how long the body that is coming will be."""
        return self.remaining is not None

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client: begins streams, and feeds the body of the last one."""
        if self.state is HEAD:
            data = self._gather(data)
        size = len(data)
        at = 0  # what stands before it has been taken; to slice it off each time would be quadratic
        while at < size:
            state = self.state
            if state is IDLE:
                if at and self.full:
                    self._move(HOLD)
                else:
                    at = self._receive_head(data, at)
            elif state is COUNTED or state is CHUNKED:
                at = self._receive_body(data, at)
            else:
                if state is HELD:
                    self._held += data[at:]
                    self.transport.pause_reading()  # reading may have been resumed
                break
        if self._stream is not None:
            self._mind_window(self._stream)

    def waits(self) -> bool:
        """Whether the application waits for more of the body that is coming."""
        return self._stream is not None and self._stream.body.awaited

    def read_on(self) -> None:
        """Take what was held, if anything was."""
        if self.state is HELD:
            self._move(GO_ON)
            data, self._held = self._held, b""
            self.data_received(data)

    def eof_received(self) -> bool:
        """Take the end of what the client sends; return whether that cut a request short."""
        short = self._break_off()
        self.half_close()
        return short

    def connection_lost(self) -> None:
        """Take in, and begin, nothing more."""
        self.leave()
        self._break_off()
        self._parser.close()

    def hand_over(self) -> bytes:
        """Return what has come and was not taken in, for another protocol."""
        data = bytes(self._buffer) + self._held
        self.connection_lost()
        return data

    def _break_off(self) -> bool:
        short = self.receiving
        stream = self._stop()
        if stream is not None:
            stream.body.fail(ClientDisconnected("the client left before its request was complete"))
        return short

    def _receive_head(self, data: bytes, at: int) -> int:
        """Take a head, and what came with it of its body; return where that ends."""
        parser = self._parser
        plain = None if parse is None else parse(data, at, self.limits)
        if plain is not None:
            end = plain[0]
            request: Request | None = parser.take(data[at:end], plain)
        else:
            if data.startswith(b"\r\n", at):  # RFC 9112 section 2.2: ignore empty lines before
                self._blank -= at
                at = skip_empty_lines(data, at)
                self._blank += at
            end = data.find(_EMPTY_LINE, at) + 4
            if end < 4:
                self._take_part(data, at)
                return len(data)
            if self._blank < 0 and data.startswith(_HTTP2, at) and self.owner.speaks_http2():
                self._move(HOLD)
                self._held = data[at:]
                self.owner.switch_to_http2()
                return len(data)
            request = self._parse_head(data[at:end])
        if request is None:
            return end
        self._blank = 0
        if request.has_body:
            stream = self._expect_body(request)
        else:
            if not request.persistent:
                self._stop()
            stream = Stream(request, self, 0)
        if parser.upgrades and self._may_upgrade(stream):
            self._move(HOLD)
            self._held = data[end:]
            self.begin_upgrade(stream)
            return len(data)
        if self._stream is not None and end < len(data):
            end = self._receive_body(data, end)
        self.begin(stream)
        return end

    def _take_part(self, data: bytes, at: int) -> None:
        """Keep the beginning of a head, if anything of it has come."""
        if at < len(data):
            self._move(PART)
            self._buffer = bytearray(data[at:])
            self._line = -1
            self._check_incomplete(0)

    def _may_upgrade(self, stream: Stream) -> bool:
        """Whether a request without a body may change the protocol (RFC 9110 section 7.8)."""
        return (
            self.state is IDLE and stream.request.version == "1.1" and self.owner.upgrades(stream)
        )

    def _gather(self, data: bytes) -> bytes:
        """Add to a head that came in pieces; return all of it at its end, and nothing before."""
        buffer = self._buffer
        scanned = len(buffer)
        buffer += data
        if buffer.startswith(b"\r\n") or buffer.find(_EMPTY_LINE, max(0, scanned - 3)) >= 0:
            self._move(WHOLE)
            self._buffer = _NOTHING
            return bytes(buffer)
        self._check_incomplete(scanned)
        return b""

    def _check_incomplete(self, scanned: int) -> None:
        """Refuse at once what cannot become a good head, instead of waiting for its end."""
        head = self._buffer
        if self._blank < 0 and len(head) < len(_HTTP2) and _HTTP2.startswith(bytes(head)):
            return  # it may be
        complete = self._line
        if complete < 0:
            # From the byte before, where a CR may stand whose LF came now.
            complete = head.find(b"\r\n", max(0, scanned - 1), self.limits.request_line + 2)
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
        if line > self.limits.request_line:
            self.refuse(RemoteProtocolError("the request line is too long", 414), seen)
        elif head > self.limits.head:
            self.refuse(RemoteProtocolError("the head of the request is too long", 431), seen)
        return self.state is STOPPED

    def _parse_head(self, head: bytes) -> Request | None:
        """Parse a complete head; return None when it is refused."""
        end = head.find(b"\r\n")
        if not self._too_long(end, len(head), head):
            try:
                return self._parser.parse(head, end)
            except RemoteProtocolError as error:
                self.refuse(error, head)
        return None

    def _expect_body(self, request: Request) -> Stream:
        """Make the stream of a request whose body is to come."""
        parser = self._parser
        stream = self._stream = Stream(request, self, self.limits.window, self._unread)
        stream.expects_continue = parser.expects_continue
        self.remaining = parser.length
        if parser.length is None:
            self._chunked = Chunked(self.limits)
            self._move(CHUNKS)
        else:
            self._move(LENGTH)
        return stream

    def _receive_body(self, data: bytes, at: int) -> int:
        """Take what has come of the body; return where that ends."""
        try:
            if self._chunked is not None:
                return self._receive_chunked(self._chunked, data, at)
            return self._receive_counted(data, at)
        except RemoteProtocolError as error:
            self.refuse(error)
            return len(data)

    def _receive_counted(self, data: bytes, at: int) -> int:
        remaining = self.remaining
        assert remaining is not None
        end = min(len(data), at + remaining)
        block = data[at:end]
        self.remaining = remaining = remaining - (end - at)
        self._parser.feed(block)
        self._take_data(block)
        if not remaining:
            self._finish_body()
        return end

    def _receive_chunked(self, chunked: Chunked, data: bytes, at: int) -> int:
        size = len(data)
        while at < size and self.state is CHUNKED:
            at = chunked.receive(data, at)
            if chunked.block:
                self._take_data(chunked.block)
            elif chunked.trailers:
                self._parser.feed(chunked.trailers)
                if chunked.done:
                    self._finish_body()
        return at

    def _take_data(self, block: bytes) -> None:
        """Feed the body's window; raises RemoteProtocolError when the body is too large."""
        stream = self._stream
        assert stream is not None
        stream.expects_continue = False  # RFC 9110 section 10.1.1: it comes without being asked
        body = stream.body
        body.feed(block)
        if body.fed > self.limits.body > 0:
            raise body_too_large(self.limits.body)
        if body.discarding and body.unread > self.limits.discard:
            self._stop()
            body.fail(ClientDisconnected("too much of the body was left unread"))
            self.transport.close(linger=True)

    def _finish_body(self) -> None:
        stream = self._stream
        if stream is None:
            return  # too much of it was left unread
        self._stream = self._chunked = None
        self._move(END)
        stream.body.finish()
        if not stream.request.persistent:
            self._stop()

    def refuse(self, error: RemoteProtocolError, head: bytes = b"") -> None:
        """Parse no further; answer with the error, or fail the body in which it came."""
        begun = head or self._buffer
        if self._stream is None:
            error = name_other(error, begun)
        error.show(begun)
        stream = self._stop()
        if stream is not None:
            # First mark the failure, then check the response. A response that ends first marks
            # that, then checks for a failure. So one of the two closes.
            stream.body.fail(error)
            if stream.state == ENDED:
                self.transport.close(linger=True)
        else:
            self.answer(error)

    def _mind_window(self, stream: Stream) -> None:
        full = stream.body.full
        if not full:
            return
        # First the mark, then a second check. The reader first takes, then checks for the mark. So
        # one of the two resumes.
        stream.body.paused = True
        self.transport.pause_reading()
        if not stream.body.full:
            self.taken(stream)
