"""HTTP/2 (RFC 9113): one connection, from its beginning to its end; on the loop.

The way in is :mod:`bide.protocols.http2.receiving`, the way out
:mod:`bide.protocols.http2.sending`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import monotonic
from typing import ClassVar, Final

from h2.errors import ErrorCodes

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.exchange.totals import UNBOUND, Total
from bide.forks import give_up_each
from bide.protocols.http2.exchange import Exchange
from bide.protocols.http2.receiving import LAST, Receiving
from bide.protocols.http2.tunnel import Tunnel
from bide.protocols.interfaces import BODY, HEAD, IDLE, Owner, Transport
from bide.protocols.interfaces import HTTP2 as NAME
from bide.waiting.each import NOT_TOLD, to_each
from bide.waiting.locks import holds_lock

SETTLE: Final = 0.5
"""Seconds in which a client hears that no new requests are wanted, and its last ones come."""


class HTTP2(Receiving):
    """One connection of a client that speaks HTTP/2.

    Args:
        transport, owner, limits, unread, unsent: as there.
        clock: returns monotonic seconds.
    """

    name: ClassVar[str] = NAME

    def __init__(
        self,
        transport: Transport,
        owner: Owner,
        limits: Limits,
        unread: Total = UNBOUND,
        unsent: Total = UNBOUND,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(transport, owner, limits, unread, unsent, clock)
        self._retired: float | None = None  # when the client was told that the connection will end

    def eof_received(self) -> bool:
        """Serve what has come, then close; return whether a request was cut short."""
        short = False

        def end(exchange: Exchange) -> None:
            nonlocal short
            tunnel = exchange.tunnel
            if tunnel is not None and tunnel.accepted:
                tunnel.eof_received()
                self.owner.ended(exchange.stream)  # its WebSocket was told, and not its call
            elif not exchange.complete:
                short = True
                exchange.stream.body.fail(
                    ClientDisconnected("the client left before its request was complete")
                )

        to_each(self.numbers.values(), end, NOT_TOLD)
        self.ending = self.deaf = True
        self.end_shut()
        self.close_idle()
        return short

    def end_shut(self) -> None:
        """End the streams that wait for a window: a client that has ended its side opens none."""
        if self.transport.room() is not None:
            return  # the socket may take more first
        with self.lock:
            shut = [each for each in self.waiting if self.is_shut(each)]
            for exchange in shut:
                self.reset(exchange, ErrorCodes.CANCEL)
            self.write()
        for exchange in shut:
            self.leave(exchange)

    def connection_lost(self) -> None:
        """Take in, and send, nothing more."""
        dropped = self.drop_all()
        tunnels = [each.tunnel for each in dropped if each.tunnel is not None]
        to_each(tunnels, lambda each: each.connection_lost(), NOT_TOLD)

    def retire(self) -> None:
        """Tell the client that the connection will end, and serve what still comes."""
        if self.greeted and self._retired is None and not self.over:
            self._retired = self.clock()
            with self.lock:
                self.go_away(LAST, ErrorCodes.NO_ERROR)

    def drain(self) -> None:
        """Close after what is in progress, and after a moment in which the last requests come."""
        self.draining = True
        to_each(self._tunnels(), lambda each: each.drain(), NOT_TOLD)
        if not self.greeted:
            self.transport.close()
            return
        self.retire()
        if self._retired is None or self.over:
            return
        if not self.ending and self.clock() - self._retired >= SETTLE:
            self.ending = True
            with self.lock:
                self.last = self.h2.highest_inbound_stream_id
                self.go_away(self.last, ErrorCodes.NO_ERROR)
        self.close_idle()

    def hand_over(self) -> bytes:
        """No other protocol takes over a connection of HTTP/2."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """Called in a forked child, where the lock may be held: nothing more is sent there."""
        self.lock = nullcontext()
        self.over = True
        give_up_each(self._tunnels(), lambda each: each.after_fork())

    def waits(self) -> bool:
        """Whether an application waits for more of a body."""
        return any(each.stream.body.awaited for each in self.numbers.values())

    def mind_time(self, elapsed: float) -> None:
        """Fill the client's allowances, credit what was taken, and go on with the end."""
        self.guard.refill(elapsed)
        if self.greeted and not self.over:
            with self.lock:
                self.credit()
                self.write()
        for tunnel in self._tunnels():
            tunnel.mind_time(elapsed)
        if self.draining:
            self.drain()

    def _tunnels(self) -> list[Tunnel]:
        """Return the streams that WebSockets have taken over, or may."""
        return [each.tunnel for each in list(self.numbers.values()) if each.tunnel is not None]

    def endless(self, stream: Stream | None) -> bool:
        """Whether a stream is a WebSocket's."""
        exchange = None if stream is None else self.exchanges.get(stream)
        return exchange is not None and exchange.tunnel is not None and exchange.tunnel.accepted

    @property
    def awaits(self) -> str:
        """What the client is waited for, beside streams in progress."""
        if self.guard.in_block:
            return HEAD
        return "" if self.exchanges else IDLE

    def announced(self, stream: Stream) -> bool:
        """Whether it is known how long the body of a stream will be."""
        exchange = self.exchanges.get(stream)
        return exchange is None or exchange.length is not None

    def timed_out(self, phase: str, stream: Stream | None) -> None:
        """End a stream, or the connection, whose client has no time left."""
        exchange = self.exchanges.get(stream) if stream is not None else None
        if exchange is not None:
            if phase == BODY:
                self.fail_body(exchange, RemoteProtocolError("the request took too long", 408))
                return
            with self.lock:
                self.reset(exchange, ErrorCodes.CANCEL)
                self.write()
            self.leave(exchange)
        elif phase in (IDLE, HEAD) and self.greeted:
            with self.lock:
                self.go_away(self.h2.highest_inbound_stream_id, ErrorCodes.NO_ERROR)
            self.end_all(ClientDisconnected("the connection took too long"))
            self.transport.close(linger=True)
        elif phase == IDLE:
            self.transport.close()
        else:
            self.transport.abort()


holds_lock(
    HTTP2.mind_time,
    HTTP2.end_shut,
    HTTP2.retire,
    HTTP2.drain,
    HTTP2.timed_out,
)
