"""HTTP/2 (RFC 9113): one connection's frames to streams, and streams to frames.

The package h2 keeps the state of the connection and its streams; around it stand Bide's limits, and
the checks of heads. Frames are counted by :mod:`bide.protocols.http2.guard` first, and taken one by
one, for a moment in each turn of the loop, so that other connections have theirs. What has come at
once is taken in before any of it begins, so that a request that is reset in the same breath costs
the application nothing (CVE-2023-44487).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http1.chunked import CHUNK_DUE
from bide.protocols.http1.syntax import body_too_large
from bide.protocols.http2.exchange import Exchange
from bide.protocols.http2.guard import (
    BROKEN_RULE,
    GOAWAY,
    HEADER_BLOCK,
    PRIORITY_UPDATE,
    UNREAD_REPLIES,
    AbuseError,
    Frame,
)
from bide.protocols.http2.heads import RequestHead, as_upgrade, check_field, priority_of
from bide.protocols.http2.refusing import refuse_request, refuse_stream
from bide.protocols.http2.sending import Sending
from bide.protocols.http2.setup import CONNECTION_WINDOW, STREAMS, WINDOW
from bide.protocols.http2.tunnel import Tunnel
from bide.protocols.interfaces import Owner, Transport
from bide.protocols.websocket.served import served
from bide.waiting.each import NOT_TOLD, to_each
from bide.waiting.locks import holds_lock

LAST: Final = 2**31 - 1
"""The number of the last stream, while that is not known yet (RFC 9113 section 6.8)."""
WHY: Final = 200
"""Characters that the log and the client are told of why a connection ends."""
TURN: Final = 0.002
"""Seconds for which a connection's frames are taken in one turn: 64 KiB of heads may take 0.2 s."""
REPLIES: Final = 64 * 1024
"""Bytes of replies that wait beside what responses may have: who reads none of them is cut off."""


class Receiving(Sending):
    """A connection's way in, and with its base its way out; on the loop.

    Args:
        transport, owner, limits, unsent: as there.
        unread: the total of all connections' bodies.
        clock: returns monotonic seconds.

    Attributes:
        greeted: whether both sides have begun to speak.
        last: the number of the last stream that is served.
    """

    def __init__(
        self,
        transport: Transport,
        owner: Owner,
        limits: Limits,
        unread: Total,
        unsent: Total,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(transport, owner, limits, unsent)
        self.clock = clock
        self._unread = unread
        self.greeted = False
        self._starting: list[Exchange] = []  # have come, and are to begin
        self._uncredited = 0  # bytes of the connection's window that were taken
        self.last = LAST  # the number of the last stream that is served

    # In: on the loop ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take frames from the client: begin streams, and feed their bodies."""
        if self.over:
            return
        if not self.greeted:
            self._greet()
        begins, data = self.guard.preface(data)
        self.guard.feed(data)
        self._take_turn(begins)

    def _take_turn(self, begins: bytes = b"") -> None:
        """Take frames, as many as one turn of the loop has time for; then begin what has come."""
        try:
            if begins:
                with self.lock:
                    self.h2.receive_data(begins)
            self.frames_left = self._take_frames()
            self._answer()
        except AbuseError as abuse:
            self._give_up(ErrorCodes.ENHANCE_YOUR_CALM, abuse.reason, str(abuse))
        except ProtocolError as error:
            code = ErrorCodes(error.error_code)
            # One that is not a rule's, but a limit's: of the size of a head, once it is decoded.
            bomb = code is ErrorCodes.ENHANCE_YOUR_CALM
            self._give_up(code, HEADER_BLOCK if bomb else BROKEN_RULE, str(error))
        if self.frames_left and not self.over:
            self.transport.pause_reading()
            self.owner.call_soon(self._go_on)
            return
        starting, self._starting = self._starting, []
        for exchange in starting:
            if not exchange.reset:
                tunnel = exchange.tunnel
                self.owner.begin(exchange.stream, None if tunnel is None else tunnel.way)

    def _go_on(self) -> None:
        """Take the frames that were left for this turn of the loop."""
        if not self.over:
            self._take_turn()
            if not (self.frames_left or self.over):
                self.transport.resume_reading()

    def _take_frames(self) -> bool:
        """Take the frames that have come; return whether some are left for the loop's next turn."""
        until = self.clock() + TURN
        while (frame := self.guard.next()) is not None:
            if frame.kind == GOAWAY:
                self.ending = True  # h2 would send nothing more
            elif frame.kind == PRIORITY_UPDATE:
                self._reorder(frame)
            else:
                with self.lock:
                    events = self.h2.receive(frame)
                    self._note(events)
                for event in events:
                    handle = _HANDLERS.get(type(event))
                    if handle is not None:
                        handle(self, event)
            if self.clock() >= until:
                return self.guard.left > 0
        return False

    def _answer(self) -> None:
        """Send what the frames that were taken ask for."""
        with self.lock:
            self.credit()
            self.write()
            if self.waiting:
                self.pump()
            if self.transport.queued > self.limits.unsent + REPLIES + CONNECTION_WINDOW:
                raise AbuseError(UNREAD_REPLIES, "it reads no replies")
        self.close_idle()

    def _note(self, events: Iterable[Event]) -> None:
        """Take in what other threads must know before they send again; under the lock."""
        for event in events:
            if type(event) is StreamReset:
                exchange = self.numbers.get(event.stream_id)
                if exchange is not None:
                    exchange.drop()
                    self.waiting.pop(exchange, None)
            elif type(event) is StreamEnded:
                exchange = self.numbers.get(event.stream_id)
                if exchange is not None:
                    exchange.complete = True

    def _greet(self) -> None:
        """Send the server's preface."""
        self.greeted = True
        with self.lock:
            self.h2.initiate_connection()
            self.h2.increment_flow_control_window(CONNECTION_WINDOW - WINDOW)
            self.write()

    def _begin_request(self, event: RequestReceived) -> None:
        number = event.stream_id
        ended = event.stream_ended is not None
        late = number > self.last
        if late or (len(self.exchanges) >= STREAMS and self._crowded()):
            refuse_stream(self, number, late)
            return
        try:
            head = RequestHead(event.headers or (), ended, self.limits)
            if head.protocol and not (head.protocol == "websocket" and served()):
                raise RemoteProtocolError("the protocol that is asked for is not served", 501)
        except RemoteProtocolError as error:
            bodiless = (b":method", b"HEAD") in (event.headers or ())
            # A head of a thousand fields is decoded before it is refused: a table that changes with
            # each of them takes milliseconds.
            self.guard.count_reset(1 + len(event.headers or ()) // self.limits.fields)
            refuse_request(self, number, ended, error, bodiless)
            return
        # The client may send more: see WINDOW.
        window = 0 if ended or head.protocol else self.limits.window
        stream = Stream(head.request, self, window, self._unread)
        stream.expects_continue = head.expects_continue
        exchange = Exchange(number, stream, head.length, self.limits.unsent, self.unsent_total)
        exchange.complete = ended
        if head.protocol:
            as_upgrade(head.request)
            stream.expects_continue = False
            exchange.tunnel = Tunnel(self, exchange, self._unread)
            if ended:
                exchange.tunnel.eof_received()
        if head.priority:
            exchange.urgency, exchange.incremental = priority_of(head.priority)
        with self.lock:
            self.exchanges[stream] = exchange
            self.numbers[number] = exchange
        self._starting.append(exchange)

    def _crowded(self) -> bool:
        """Whether there are as many streams as may be.

        One whose response was sent counts no more for its client, which may have begun another
        before the application's thread has come to its end here.
        """
        exchanges = list(self.exchanges.values())
        busy = sum(not each.answered for each in exchanges)
        return busy >= STREAMS or len(exchanges) >= 2 * STREAMS

    def _take_data(self, event: DataReceived) -> None:
        size = event.flow_controlled_length or 0
        self._uncredited += size
        exchange = self.numbers.get(event.stream_id)
        if exchange is None or exchange.reset:
            return
        block = event.data or b""
        if exchange.tunnel is not None:
            exchange.tunnel.data_received(bytes(block), size)
            return
        body = exchange.stream.body
        padding = size - len(block)
        if padding:
            exchange.credited -= padding  # nobody takes it: it is credited with what is taken
        if not block or body.failed:
            return
        exchange.stream.expects_continue = False
        exchange.frames += 1
        body.feed(bytes(block))
        if exchange.length is not None and body.fed > exchange.length:
            self._break_body(exchange, RemoteProtocolError("the body is longer than it says"))
        elif body.fed > self.limits.body > 0:
            self.fail_body(exchange, body_too_large(self.limits.body))
        elif exchange.frames > self.limits.chunks + body.fed // CHUNK_DUE:
            self.fail_body(exchange, RemoteProtocolError("the body has too many small chunks"))
        elif body.fed - exchange.credited >= self.half:
            # First the mark, then a second check, as in HTTP/1: one of the two credits.
            body.paused = True
            if not body.full:
                self.taken(exchange.stream)

    def _end_body(self, event: StreamEnded) -> None:
        exchange = self.numbers.get(event.stream_id)
        if exchange is not None and exchange.tunnel is not None:
            exchange.tunnel.eof_received()
        if exchange is None or not exchange.stream.request.has_body:
            return
        body = exchange.stream.body
        if exchange.length is not None and body.fed != exchange.length and not body.failed:
            error = RemoteProtocolError("the body is shorter than its Content-Length")
            self._break_body(exchange, error)
        else:
            body.finish()

    def fail_body(self, exchange: Exchange, error: RemoteProtocolError) -> None:
        """Have the application's reads raise; its answer is sent all the same."""
        if not exchange.stream.body.failed:
            exchange.stream.body.fail(error)

    def _break_body(self, exchange: Exchange, error: RemoteProtocolError) -> None:
        """End a stream whose body is not what its head says (RFC 9113 section 8.1.1)."""
        self.guard.count_reset()
        self.fail_body(exchange, error)
        with self.lock:
            self.reset(exchange, ErrorCodes.PROTOCOL_ERROR)
        self.leave(exchange)

    def _take_trailers(self, event: TrailersReceived) -> None:
        exchange = self.numbers.get(event.stream_id)
        if exchange is None:
            return
        try:
            for name, value in event.headers or ():
                check_field(name, value)  # they are dropped, as in HTTP/1
        except RemoteProtocolError as error:
            self._break_body(exchange, error)

    def _take_reset(self, event: StreamReset) -> None:
        if not event.remote_reset:  # h2 has reset it for what the client has sent
            self.guard.count_reset()
        exchange = self.numbers.get(event.stream_id)
        if exchange is not None:
            self.leave(exchange)

    def leave(self, exchange: Exchange) -> None:
        """The client has left a stream, or was told to: end its call, or never begin it."""
        if exchange in self._starting:
            self._starting.remove(exchange)
            with self.lock:
                self.forget(exchange)
            return
        if exchange.tunnel is not None:
            with self.lock:  # it may just be accepted
                if exchange.tunnel.accepted:
                    self.forget(exchange)
                    return
        self.owner.left(exchange.stream)
        # The application may have ended the response before.
        with self.lock:
            if exchange.over:
                self.forget(exchange)

    def _reorder(self, frame: Frame) -> None:
        """Take a PRIORITY_UPDATE (RFC 9218 section 7.1)."""
        if len(frame.data) < 13 or frame.stream:
            return
        number = int.from_bytes(frame.data[9:13], "big") & 0x7FFFFFFF
        with self.lock:
            exchange = self.numbers.get(number)
            if exchange is not None:
                exchange.urgency, exchange.incremental = priority_of(frame.data[13:])

    def credit(self) -> None:
        """Let the client send more, whatever each stream may: one that stalls stops no other.

        While all connections hold as much as they may, only in place of what was taken. On the
        loop, under the lock.
        """
        due = self._uncredited
        if self._unread.full:
            due -= sum(each.stream.body.unread for each in self.exchanges.values())
        left = CONNECTION_WINDOW - self._uncredited
        if due >= min(CONNECTION_WINDOW // 2, max(1, left)):
            self.h2.increment_flow_control_window(due)
            self._uncredited -= due

    def _give_up(self, code: ErrorCodes, reason: str, why: str) -> None:
        """Tell the client why its connection ends, and end it."""
        why = why[:WHY]  # h2's may have all that the client has sent in it
        error = RemoteProtocolError(why)
        error.ends = reason
        self.owner.refused(error)
        with self.lock:
            self.h2.drop()
            self.go_away(self.h2.highest_inbound_stream_id, code, why)
        self._starting.clear()
        self.end_all(ClientDisconnected(f"the connection was ended: {why}"))
        self.transport.close(linger=True)

    def end_all(self, why: ClientDisconnected) -> None:
        """End the calls of all that is in progress; nothing more is sent."""
        to_each(self.drop_all(), lambda each: each.end(self.owner, why), NOT_TOLD)

    def drop_all(self) -> list[Exchange]:
        """Drop all that is in progress; return it."""
        with self.lock:
            self.over = True
            exchanges = list(self.exchanges.values())
            for exchange in exchanges:
                exchange.drop()
            for each in (self.waiting, self.exchanges, self.numbers):
                each.clear()
        return exchanges


_HANDLERS: Final[dict[type, Callable[[Receiving, Any], None]]] = {
    RequestReceived: Receiving._begin_request,
    DataReceived: Receiving._take_data,
    StreamEnded: Receiving._end_body,
    TrailersReceived: Receiving._take_trailers,
    StreamReset: Receiving._take_reset,
}


holds_lock(
    Receiving._take_turn,
    Receiving._take_frames,
    Receiving._answer,
    Receiving._greet,
    Receiving._begin_request,
    Receiving._break_body,
    Receiving.leave,
    Receiving._reorder,
    Receiving._give_up,
    Receiving.drop_all,
)
