"""HTTP/2, the way out: the channel of a connection's streams, and what is sent when.

Everything here may be called from any thread; the connection's lock is held while a frame is made
and written, since the tables of both sides' headers must agree. A thread sends its own data, as far
as the windows and the socket take it. What they do not take waits in the stream's queue, and the
loop sends it by urgency (RFC 9218) when the client has made room.
"""

from __future__ import annotations

import os
from typing import Final

from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from bide.exchange.limits import Limits
from bide.exchange.stream import CUT, OPEN, Stream
from bide.exchange.totals import Total
from bide.protocols.caught_up import CaughtUp
from bide.protocols.http2.exchange import Exchange
from bide.protocols.http2.guard import FRAME, Guard
from bide.protocols.http2.heads import fields_of, response_fields
from bide.protocols.http2.setup import WINDOW, new_connection
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.waiting.locks import holds_lock
from bide.waiting.outcome import Signal

LEAST: Final = 1024
"""Bytes for which a window is waited to open: small frames cost more than they bring."""
EARNING: Final = 256
"""Bytes of a frame for which a client may open its windows twice."""
EACH: Final = 1024
"""Bytes for which it may open them once more: HAProxy does so for each part that it has read."""
BATCH: Final = 64 * 1024
"""Bytes that are handed to the socket at once."""


class Sending(Protocol):
    """The channel of a connection's streams.

    Attributes:
        lock: the connection's.
        peer: its two ends.
        transport: where the bytes go.
        owner: the connection.
        limits: what a client may ask.
        h2: the state of the connection and its streams; under the lock.
        over: whether nothing more is sent; set under the lock.
        ending: whether it closes when nothing is in progress; set on the loop.
        frames_left: whether frames have come that are not taken yet; on the loop.
        draining: whether the server stops; set on the loop.
        deaf: whether the client has ended its side, and opens no window any more; set on the loop.
        guard: the client's allowances.
        unsent_total: what waits for all clients.
        exchanges: those in progress, by their streams; changed under the lock, read without it.
        numbers: the same, by their streams' numbers.
        waiting: those that have something to send; under the lock.
    """

    def __init__(self, transport: Transport, owner: Owner, limits: Limits, unsent: Total) -> None:
        self.lock = transport.lock
        self.peer = owner.peer
        self.transport = transport
        self.owner = owner
        self.limits = limits
        self.h2 = new_connection(limits)
        self.over = False
        self.sends_files = True  # by reading them: they need frames
        self.ending = False
        self.frames_left = False
        self.draining = False
        self.deaf = False
        self.unsent_total = unsent  # of all connections
        self.guard = Guard(2 * limits.head)
        self.exchanges: dict[Stream, Exchange] = {}
        self.numbers: dict[int, Exchange] = {}
        self.waiting: dict[Exchange, None] = {}  # those with something to send
        self._catching_up = False  # the loop is called when the socket takes more

    # The application's, from any thread ----------------------------------------------------------

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, and the head first if it was not sent; return false if the client is gone.

        Called under the lock.
        """
        exchange = self.exchanges.get(stream)
        if exchange is None or exchange.reset or self.over:
            return False
        size = len(block)
        if stream.bodiless:
            block = b""
        if stream.state is not OPEN:
            ends = last and not block and stream.trailers is None
            self._send_head(exchange, size, last, ends)
            if ends:
                self._sent(exchange)
                return self.write()
        if last:
            exchange.ending = True
            exchange.trailers = stream.trailers
        return self.push(exchange, block)

    def push(self, exchange: Exchange, block: bytes) -> bool:
        """Send a block behind what waits, and the end, if that is due; under the lock."""
        if exchange.queue.size or self.waiting:
            if block:
                exchange.queue.add((block,), 0)
            self.waiting[exchange] = None
            return self.pump()
        return self._send_now(exchange, block)

    def send_file(self, stream: Stream, descriptor: int, offset: int, count: int) -> int:
        """Read from a file, without the lock, and send that; as :meth:`Channel.send_file`.

        Raises EOFError when it ends before ``offset``, OSError when it cannot be read.
        """
        exchange = self.exchanges.get(stream)
        if exchange is None or exchange.reset or self.over:
            return -1
        if exchange.queue.high:
            return 0
        data = os.pread(descriptor, min(count, BATCH), offset)
        if not data:
            raise EOFError("the file is shorter than it was")
        with self.lock:
            return len(data) if self.send(stream, data, False) else -1

    def writable(self, stream: Stream) -> Signal:
        """Return what fires when the client has caught up."""
        room = self.room(stream)
        if room is None:
            room = Signal()
            room.fire()
        return room

    def _send_now(self, exchange: Exchange, block: bytes) -> bool:
        """Send what nothing stands before, as far as the client takes it; queue the rest."""
        at, size = 0, len(block)
        while at < size and self.transport.room() is None:
            piece = self._piece(exchange, size - at)
            if not piece:
                break
            ends = exchange.ending and at + piece == size and exchange.trailers is None
            data = block if piece == size else block[at : at + piece]
            self.h2.data(exchange.id, data, ends)
            self._earn(piece)
            at += piece
            if ends:
                self._sent(exchange)
            if not self.write():
                return False
        if at < size:
            exchange.queue.add((block,), at)
        elif exchange.ending and not exchange.sent:
            self._send_end(exchange)
        if exchange.waits:
            self.waiting[exchange] = None
            self._mind_socket()
        return self.write()

    def _piece(self, exchange: Exchange, rest: int) -> int:
        """Return how many bytes of the rest may be sent in a frame now."""
        window: int = self.h2.local_flow_control_window(exchange.id)
        if window < min(rest, LEAST, max(1, self.h2.remote_settings.initial_window_size // 2)):
            return 0
        return min(window, rest, FRAME)

    def is_shut(self, exchange: Exchange) -> bool:
        """Whether what waits of a response waits for a window; under the lock."""
        rest = exchange.queue.size
        return rest > 0 and not self._piece(exchange, rest)

    def _earn(self, piece: int) -> None:
        """Let the client open its windows for what was sent, unless that was next to nothing."""
        if piece >= EARNING:
            self.guard.updates.give(2 + piece // EACH)

    def _send_head(self, exchange: Exchange, size: int, last: bool, ends: bool) -> None:
        stream = exchange.stream
        head = stream.head
        assert head is not None
        if stream.expects_continue and not last and head.code < 300:
            stream.expects_continue = False
            self.h2.hint(exchange.id, [(b":status", b"100")])
        length = size if last and head.length is None and not head.bodiless else None
        if stream.trailers is not None or (stream.bodiless and not size):
            length = None
        self.h2.head(exchange.id, response_fields(head, length), ends)

    def _send_end(self, exchange: Exchange) -> None:
        """Send the end of a response of which nothing else is left."""
        if exchange.cut:
            self.reset(exchange, ErrorCodes.INTERNAL_ERROR)
            self.forget(exchange)
            return
        if exchange.trailers is None:
            self.h2.data(exchange.id, b"", True)
        else:
            self.h2.head(exchange.id, fields_of(exchange.trailers), True)
        self._sent(exchange)

    def _sent(self, exchange: Exchange) -> None:
        """Called when all of a response was sent; of a request that goes on, no more is wanted."""
        exchange.sent = True
        self.guard.answered += 1
        if not exchange.complete:
            self.reset(exchange, ErrorCodes.NO_ERROR)
        if exchange.over:
            self.forget(exchange)

    def inform(self, stream: Stream, fields: list[tuple[str, str]]) -> None:
        """Send headers ahead of the response's own (103)."""
        exchange = self.exchanges.get(stream)
        if exchange is not None and not (exchange.reset or self.over):
            self.h2.hint(exchange.id, [(b":status", b"103"), *fields_of(fields)])
            self.write()

    def room(self, stream: Stream) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        exchange = self.exchanges.get(stream)
        if exchange is None or not exchange.queue.high:
            return None
        with self.lock:
            return exchange.queue.room() if exchange.queue.high and not self.over else None

    def wanted(self, stream: Stream) -> None:
        """Send 100 Continue, once; as :meth:`Channel.wanted`."""
        with self.lock:
            exchange = self.exchanges.get(stream)
            if stream.asks_for_body() and exchange and not (exchange.reset or self.over):
                self.h2.hint(exchange.id, [(b":status", b"100")])
                self.write()

    def taken(self, stream: Stream) -> None:
        """Let the client send more in place of what the application has taken."""
        with self.lock:
            exchange = self.exchanges.get(stream)
            if exchange is None or exchange.complete or exchange.reset or self.over:
                stream.body.paused = False
                return
            body = stream.body
            due = body.fed - body.unread - exchange.credited
            if due >= self.half:
                exchange.credited += due
                body.paused = body.fed - exchange.credited >= self.half
                self.h2.increment_flow_control_window(due, exchange.id)
                self.write()

    @property
    def half(self) -> int:
        """Half of a stream's window, in bytes: so much is credited at once."""
        return max(WINDOW, self.limits.window) // 2

    def ended(self, stream: Stream) -> None:
        """Called when the response is complete, or cut."""
        with self.lock:
            exchange = self.exchanges.get(stream)
            if exchange is None or self.over:
                return
            exchange.over = True
            if stream.state is CUT and exchange.waits:  # what was given before goes first
                exchange.cut = exchange.ending = True
            elif stream.state is CUT:
                self.reset(exchange, ErrorCodes.INTERNAL_ERROR)
                self.write()
            if exchange.sent:
                self.forget(exchange)

    def reset(self, exchange: Exchange, code: ErrorCodes) -> None:
        """Reset a stream that is not closed; under the lock. What waits for it is dropped."""
        known = self.h2.streams.get(exchange.id)
        if known is not None and not known.closed:
            self.h2.reset_stream(exchange.id, code)
        exchange.drop()
        self.waiting.pop(exchange, None)

    def forget(self, exchange: Exchange) -> None:
        """Forget a stream of which nothing is left; under the lock."""
        if self.exchanges.pop(exchange.stream, None) is not None:
            self.numbers.pop(exchange.id, None)
            self.h2.forget(exchange.id)
            self.waiting.pop(exchange, None)
            self.owner.ended(exchange.stream)
            if exchange.tunnel is not None:
                self.owner.call_soon(exchange.tunnel.connection_lost)
            # The loop marks the end first, and then looks for exchanges: one of the two closes.
            if self.ending and not self.exchanges:
                self.owner.call_soon(self.close_idle)

    def close_idle(self) -> None:
        """Close if that is due and nothing is in progress; on the loop."""
        if self.ending and not (self.exchanges or self.frames_left):
            self.transport.close(linger=True)

    # What waits ----------------------------------------------------------------------------------

    def write(self) -> bool:
        """Hand to the socket what h2 has made; under the lock. Return whether it may take it."""
        data = self.h2.take()
        return not self.over if not data else self.transport.put(data)

    def pump(self) -> bool:
        """Send of what waits as much as the client takes, the most urgent first; under the lock."""
        size = 0
        while self.waiting and not self.over and self.transport.room() is None:
            chosen = None
            for exchange in sorted(self.waiting, key=lambda each: each.rank):
                rest = exchange.queue.size
                piece = self._piece(exchange, rest) if rest else 0
                if piece or not rest:
                    chosen = exchange
                    break
            if chosen is None:
                break
            self._send_piece(chosen, piece)
            size += piece
            if size >= BATCH:
                size = 0
                self.write()
        alive = self.write()
        self._mind_socket()
        return alive

    def _send_piece(self, exchange: Exchange, piece: int) -> None:
        if piece:
            data = exchange.take(piece)
            ends = exchange.ending and not (
                exchange.queue.size or exchange.trailers or exchange.cut
            )
            self.h2.data(exchange.id, data, ends)
            self._earn(piece)
            exchange.turn += exchange.incremental
            if ends:
                self._sent(exchange)
        elif exchange.ending and not exchange.sent:
            self._send_end(exchange)
        if not exchange.waits:
            self.waiting.pop(exchange, None)

    def _mind_socket(self) -> None:
        """Have the loop send on when the socket takes more; under the lock."""
        if self.waiting and not self._catching_up and not self.over:
            room = self.transport.room()
            if room is not None:
                self._catching_up = True
                room.listen(CaughtUp(self.owner, self._caught_up))
            elif self.deaf:
                self.owner.call_soon(self.end_shut)

    def end_shut(self) -> None:
        """End the streams that wait for a window which will never open; on the loop."""
        raise NotImplementedError

    def _caught_up(self) -> None:
        with self.lock:
            self._catching_up = False
            self.pump()

    # The connection's, on the loop ----------------------------------------------------------------

    def go_away(self, last: int, code: ErrorCodes, why: str = "") -> None:
        """Tell the client which stream is the last one; under the lock.

        Not by h2, which serves nothing more then.
        """
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=why.encode())
        self.write()
        self.transport.put(frame.serialize())

    @property
    def held(self) -> int:
        """Return the bytes that wait for the client's windows, of all streams."""
        return sum(each.queue.size for each in list(self.exchanges.values()))

    def unsent(self, stream: Stream | None) -> int | None:
        """Return the bytes that wait for the client; None when it is not behind."""
        if stream is None:
            return self.transport.queued if self.transport.behind else None
        exchange = self.exchanges.get(stream)
        return exchange.queue.size or None if exchange is not None else None


holds_lock(
    Sending.send_file,
    Sending.room,
    Sending.wanted,
    Sending.taken,
    Sending.ended,
    Sending._caught_up,
)
