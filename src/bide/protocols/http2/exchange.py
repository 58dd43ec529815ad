"""One stream of an HTTP/2 connection: what waits to be sent on it, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bide.errors import ClientDisconnected
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.exchange.unsent import Unsent
from bide.protocols.interfaces import Owner

if TYPE_CHECKING:
    from bide.protocols.http2.tunnel import Tunnel

URGENCY: Final = 3
"""That of a response for which the client has named none (RFC 9218 section 4.1)."""


class Exchange:
    """A stream by its number, with its queue; under the connection's lock, except where noted.

    Attributes:
        id: its number.
        stream: the request and its response.
        queue: bytes of the response that wait for the client's windows.
        urgency: 0 to 7; the lowest is sent first.
        incremental: whether it is sent in turns with others of its urgency.
        turn: grows with each piece that is sent, where that is in turns.
        ending: whether all of the response has been given.
        trailers: what is to be sent behind it.
        sent: whether all of it has been sent, or the stream was reset.
        reset: whether the stream was reset, by either side.
        cut: whether it is to be reset behind what waits: the response was broken off.
        over: whether the application has ended the response.
        length: bytes that the request's body is to have; None: it does not say. On the loop.
        complete: whether the request has come whole; set on the loop.
        frames: how many frames with bytes of the body have come. On the loop.
        credited: bytes of the body that the client may send in place of those that were taken.
        tunnel: what a WebSocket takes over, where the request asks for one.
    """

    __slots__ = (
        "complete",
        "credited",
        "cut",
        "ending",
        "frames",
        "id",
        "incremental",
        "length",
        "over",
        "queue",
        "reset",
        "sent",
        "stream",
        "trailers",
        "tunnel",
        "turn",
        "urgency",
    )

    def __init__(
        self, number: int, stream: Stream, length: int | None, high_water: int, total: Total
    ) -> None:
        self.id = number
        self.stream = stream
        self.length = length
        self.queue = Unsent(high_water, total)
        self.urgency = URGENCY
        self.incremental = False
        self.turn = 0
        self.ending = False
        self.trailers: list[tuple[str, str]] | None = None
        self.sent = False
        self.reset = False
        self.cut = False
        self.over = False
        self.complete = False
        self.frames = 0
        self.credited = 0
        self.tunnel: Tunnel | None = None

    @property
    def rank(self) -> tuple[int, int, int]:
        """Return what it is sorted by among those that wait: the lowest is sent first."""
        return self.urgency, self.turn, self.id

    @property
    def answered(self) -> bool:
        """Whether all of the response was sent, or was given when the client left."""
        return self.sent and (self.ending or not self.reset)

    @property
    def waits(self) -> bool:
        """Whether something of the response waits to be sent."""
        return not self.sent and (self.queue.size > 0 or self.ending)

    def take(self, most: int) -> bytes:
        """Take the first bytes that wait, at most so many; they are sent now."""
        left, parts = most, []
        for block in self.queue.piece():
            parts.append(block if len(block) <= left else memoryview(block)[:left])
            left -= len(parts[-1])
            if not left:
                break
        data = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        self.queue.taken(len(data))
        return data

    def end(self, owner: Owner, why: ClientDisconnected) -> None:
        """End its call, since the connection ends; on the loop, without the lock."""
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel.connection_lost()
        if not self.complete:
            self.stream.body.fail(why)
        if tunnel is None or not tunnel.accepted:
            owner.left(self.stream)

    def drop(self) -> None:
        """Drop what waits: nothing more is sent; who waits to write goes on."""
        self.sent = self.reset = True
        self.queue.clear()
