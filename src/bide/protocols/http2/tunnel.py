"""One stream of HTTP/2 that a WebSocket takes over (RFC 8441): to that it is a whole connection.

What is sent goes into the stream's queue, and its end is that of the stream. What the client sends
is credited as it is taken: while reading is paused the client may send one window more, which is
kept here. The WebSocket's own code is the same as over HTTP/1.

Everything here is called on the loop, unless noted. The lock is the connection's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from h2.errors import ErrorCodes

from bide.exchange.messages import Head
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http2.exchange import Exchange
from bide.protocols.http2.heads import response_fields
from bide.protocols.http2.sending import Sending
from bide.protocols.interfaces import Owner, Protocol, Transport, Way
from bide.waiting.locks import holds_lock
from bide.waiting.outcome import Signal

LINGER: Final = 5.0
"""Seconds for which the client's end of the stream is waited for, when this side has ended."""
URGENCY: Final = 2
"""A message goes before the responses of its connection, if the client does not say otherwise."""


class Tunnel(Transport):
    """A stream as the transport of a WebSocket; its methods as of a transport, from any thread.

    Args:
        http2: the connection's protocol.
        exchange: the stream.
        unread: the total of what waits for all applications.

    Attributes:
        lock: the connection's.
        way: what the WebSocket is given.
        accepted: whether there is a WebSocket; under the lock.
    """

    def __init__(self, http2: Sending, exchange: Exchange, unread: Total) -> None:
        self.lock = http2.lock
        self.way = Way(self, _StreamOwner(http2, self), self._agree)
        self.accepted = False
        self._http2 = http2
        self._exchange = exchange
        self._unread = unread
        self._protocol: Protocol | None = None  # from the switch on
        self._paused = False  # set under the lock
        self._kept = bytearray()  # what has come, and is not to be read yet
        self._due = 0  # bytes that were taken, or dropped, and are not credited yet
        self._eof = False  # the client has ended its side
        self._eof_told = False
        self._lost = False  # both sides have ended, and that was told
        self._lingered = 0.0
        exchange.urgency, exchange.incremental = URGENCY, True

    # The handshake, under the lock ----------------------------------------------------------------

    def accept(self) -> None:
        """Called when it is accepted: from now on the WebSocket is told how it ends."""
        exchange = self._exchange
        self.accepted = True
        exchange.complete = True  # so that the end of what is sent resets nothing
        exchange.over = self._eof
        if exchange.reset:
            self._http2.forget(exchange)

    def _agree(self, head: Head, extensions: str, subprotocol: str | None) -> bool:
        """Answer 200; return false when the client is gone."""
        exchange, http2 = self._exchange, self._http2
        if exchange.reset:
            return False
        head.code, head.reason = 200, "OK"
        fields = response_fields(head, None)
        if extensions:
            fields.append((b"sec-websocket-extensions", extensions.encode("latin-1")))
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        http2.h2.head(exchange.id, fields)
        return http2.write()

    def switch(self, protocol: Protocol) -> None:
        """Give what has come, and what comes, to the WebSocket."""
        self._protocol = protocol
        if self._lost:
            protocol.connection_lost()
            return
        self._deliver()
        if self._http2.draining:
            protocol.drain()

    # In -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes, size: int) -> None:
        """Take what the client has sent; ``size`` counts its padding, too."""
        if self._exchange.ending:  # nothing more is wanted
            return
        self._due += size - len(data)
        if self._protocol is None or self._paused or self._kept:
            self._kept += data
            self._unread.add(len(data))
        else:
            self._give(self._protocol, data)

    def eof_received(self) -> None:
        """Take the end of what the client sends."""
        exchange = self._exchange
        self._eof = True
        with self.lock:
            exchange.over = self.accepted
            if self.accepted and exchange.sent:
                self._http2.forget(exchange)
                return
        if self._protocol is not None:
            self._tell_end(self._protocol)

    def _tell_end(self, protocol: Protocol) -> None:
        if self._kept or self._paused:
            protocol.eof_ahead()
        elif not self._eof_told:
            self._eof_told = True
            protocol.eof_received()

    def connection_lost(self) -> None:
        """Tell the WebSocket that its connection has ended, behind what came before; once."""
        if self._lost:
            return
        self._lost = True
        if self.accepted:  # its call is told nothing
            self._http2.owner.ended(self._exchange.stream)
        data = self._take()
        if self._protocol is not None:
            if data:
                self._protocol.data_received(data)
            self._protocol.connection_lost()

    def _give(self, protocol: Protocol, data: bytes) -> None:
        self._due += len(data)
        protocol.data_received(data)
        self._credit()

    def _credit(self) -> None:
        """Let the client send more, half a window at a time."""
        http2, exchange = self._http2, self._exchange
        with self.lock:
            ended = self._eof or exchange.ending or exchange.reset or http2.over
            if self._due >= http2.half and not (self._paused or ended):
                http2.h2.increment_flow_control_window(self._due, exchange.id)
                self._due = 0
                http2.write()

    def _take(self) -> bytes:
        """Take what is kept."""
        data = bytes(self._kept)
        self._kept.clear()
        self._unread.add(-len(data))
        return data

    def _deliver(self) -> None:
        """Give what is kept to the WebSocket, unless it has paused again meanwhile."""
        protocol = self._protocol
        if protocol is None or self._paused or self._lost:
            return
        data = self._take()
        if data:
            self._give(protocol, data)
        else:
            self._credit()
        if self._eof:
            self._tell_end(protocol)

    # The clock, and the server's end --------------------------------------------------------------

    def drain(self) -> None:
        """Close it, if it is a WebSocket: the server stops."""
        if self._protocol is not None:
            self._protocol.drain()

    def mind_time(self, elapsed: float) -> None:
        """Let the WebSocket look at its clock; reset a stream that the client does not end."""
        exchange, http2 = self._exchange, self._http2
        lingers = self.accepted and exchange.sent
        if self._protocol is not None:
            self._protocol.mind_time(elapsed)
        with self.lock:
            if lingers and not exchange.reset:
                self._lingered += elapsed
                if self._lingered >= LINGER:
                    http2.reset(exchange, ErrorCodes.NO_ERROR)
                    http2.write()
                    http2.forget(exchange)

    def after_fork(self) -> None:
        """Called in a forked child: drop the client, which is the parent's."""
        if self._protocol is not None:
            self._protocol.after_fork()

    # The WebSocket's ------------------------------------------------------------------------------

    def write(self, data: bytes, *more: bytes) -> bool:
        """Send or queue bytes; return false when the client will never take them."""
        with self.lock:
            return self.put(data, *more)

    def put(self, data: bytes, *more: bytes) -> bool:
        """Write, called under the lock."""
        exchange = self._exchange
        if exchange.reset or exchange.ending or self._http2.over:
            return False
        return self._http2.push(exchange, b"".join((data, *more)) if more else data)

    def room(self) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        return self._http2.room(self._exchange.stream)

    @property
    def queued(self) -> int:
        """Bytes that wait for the client."""
        return self._exchange.queue.size

    @property
    def behind(self) -> bool:
        """Whether bytes wait for the client, or the end does."""
        return self._exchange.waits

    def pause_reading(self) -> None:
        """Credit nothing more, and keep what still comes."""
        self._paused = True

    def resume_reading(self) -> None:
        """Read again, on the loop."""
        self._paused = False
        self._http2.owner.call_soon(self._deliver)

    def look(self) -> None:
        """Do nothing: what has come was read."""

    def close(self, linger: bool = False) -> None:  # noqa: ARG002 - it always does, in mind_time
        """Send what is queued, then the end of the stream; drop what still comes."""
        with self.lock:
            exchange, http2 = self._exchange, self._http2
            if not (exchange.ending or exchange.reset or http2.over):
                exchange.ending = True
                http2.push(exchange, b"")

    def abort(self) -> None:
        """Reset the stream."""
        with self.lock:
            http2 = self._http2
            if not http2.over:
                http2.reset(self._exchange, ErrorCodes.CANCEL)
                http2.write()
                http2.forget(self._exchange)


class _StreamOwner(Owner):
    """A connection, as the WebSocket on one of its streams knows it.

    Attributes:
        peer: its two ends.
    """

    def __init__(self, http2: Sending, tunnel: Tunnel) -> None:
        self.peer = http2.peer
        self._http2 = http2
        self._tunnel = tunnel

    def ended(self, stream: Stream) -> None:  # noqa: ARG002 - there is one
        """Called when it is accepted, under the lock.

        To the connection the stream is still in progress: its client has deadlines.
        """
        self._tunnel.accept()

    def switch(self, protocol: Protocol) -> None:
        """Give the stream to the WebSocket."""
        self._tunnel.switch(protocol)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon; from any thread."""
        self._http2.owner.call_soon(function)


holds_lock(
    Tunnel.eof_received,
    Tunnel._credit,
    Tunnel.mind_time,
    Tunnel.write,
    Tunnel.close,
    Tunnel.abort,
)
