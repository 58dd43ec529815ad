"""A protocol, and what it stands between: the transport below it and the connection above."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from bide.errors import RemoteProtocolError
from bide.exchange.peer import Peer
from bide.exchange.stream import Channel, Stream
from bide.waiting.outcome import Signal

# What a client is waited for.
IDLE: Final = "idle"  # between requests
HEAD: Final = "head"  # a request has begun to come, or the rest of one that was answered comes
BODY: Final = "body"  # the application waits for more of a body
RESPONSE: Final = "response"  # the client has to take what was sent to it
WHOLE: Final = "whole"  # the whole of a response takes too long, however well it is taken


class Transport:
    """Where the bytes of responses go; from any thread, but where noted.

    Attributes:
        lock: guards the connection; reentrant.
    """

    __slots__ = ()

    lock: AbstractContextManager[Any]

    def write(self, data: bytes, *more: bytes) -> bool:
        """Send or queue, by reference; return false when the client will never take it."""
        raise NotImplementedError

    def room(self) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        raise NotImplementedError

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; return the bytes sent, 0 if the client is behind, -1 if it is gone.

        Never called under the lock: a disk may be slow.
        """
        raise NotImplementedError

    def writable(self) -> Signal:
        """Return what fires when the client takes bytes again, or is gone."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Leave what the client sends to the system; on the loop."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Read again."""
        raise NotImplementedError

    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close; with ``linger``, drop what still comes in first."""
        raise NotImplementedError

    def abort(self) -> None:
        """Reset the connection."""
        raise NotImplementedError

    def look(self) -> None:
        """Take what has come already; on the loop."""
        raise NotImplementedError

    @property
    def queued(self) -> int:
        """Bytes that wait for the client."""
        raise NotImplementedError

    @property
    def behind(self) -> bool:
        """Whether the client has to take some before it can be sent more."""
        raise NotImplementedError


class Receiver:
    """What a transport calls, on the loop."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Called with what the client has sent."""
        raise NotImplementedError

    def eof_received(self) -> None:
        """Called when the client will send no more; it may still read."""
        raise NotImplementedError

    def eof_ahead(self) -> None:
        """Called while reading is paused, when ``eof_received`` will follow what is unread."""
        raise NotImplementedError

    def connection_lost(self) -> None:
        """Called when the connection has ended: once, and last."""
        raise NotImplementedError


class Protocol(Channel):
    """What is spoken on a connection: bytes to streams, and streams to bytes.

    It is the channel of the streams that it makes, and writes to the connection's transport. It may
    be chosen when some bytes have come, and be replaced by :meth:`Owner.switch`. Everything here is
    called on the loop; what a channel does, from any thread.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Called with what the client has sent: begins streams, and feeds their bodies."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """Called when the client will send no more; it may still read.

        Return whether that has cut a request short. Close the transport when nothing is left to be
        answered, now or at the end of the last response.
        """
        raise NotImplementedError

    def connection_lost(self) -> None:
        """Called when the connection has ended; begin no stream any more."""
        raise NotImplementedError

    def drain(self) -> None:
        """Called when the server stops, again and again until the connection has ended.

        Serve what has come, then close the transport; at once where nothing has.
        """
        raise NotImplementedError

    def hand_over(self) -> bytes:
        """Called when another protocol takes over: do nothing with the transport any more.

        Return what has come and was not taken in.
        """
        raise NotImplementedError

    # What a connection asks when it looks at the time

    @property
    def awaits(self) -> str:
        """What the client is waited for, beside streams in progress: IDLE, HEAD, or "" for nothing.

        It is IDLE where the connection would be closed if nobody came, HEAD where a part of a
        message has come.
        """
        raise NotImplementedError

    def unsent(self, stream: Stream | None) -> int | None:
        """Return the bytes of a response that the client has to take; None when it is not behind.

        Without a stream: those that the transport holds.
        """
        raise NotImplementedError

    def announced(self, stream: Stream) -> bool:
        """Whether it is known how long the body of a stream will be."""
        raise NotImplementedError

    def timed_out(self, phase: str, stream: Stream | None) -> None:
        """Called when the client has no time left for what it is waited for.

        Args:
            phase: IDLE, HEAD, BODY, RESPONSE or WHOLE.
            stream: the one in progress that has to do with it; the connection goes on, if the
                protocol can go on without that.
        """
        raise NotImplementedError


class Owner(Receiver):
    """The connection, as far as a protocol knows it; on the loop, but where noted.

    Attributes:
        peer: the two ends of the connection.
    """

    __slots__ = ()

    peer: Peer

    def begin(self, stream: Stream) -> None:
        """Have a stream answered, whose head is complete and whose turn has come.

        Its response may have ended when this returns.
        """
        raise NotImplementedError

    def ended(self, stream: Stream) -> None:
        """Called when the connection goes on after a stream's response; from any thread."""
        raise NotImplementedError

    def refused(self, error: RemoteProtocolError) -> None:
        """Called when a request is refused that never becomes a stream."""
        raise NotImplementedError

    def upgrades(self, stream: Stream) -> bool:
        """Whether the protocol that a request asks for (``Upgrade``) may take over.

        If so, the protocol leaves alone what comes behind the request, until either its response
        has ended or :meth:`switch` was called.
        """
        raise NotImplementedError

    def switch(self, protocol: Protocol) -> None:
        """Have another protocol take over, and give it what has come and was not taken in."""
        raise NotImplementedError

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon; from any thread."""
        raise NotImplementedError
