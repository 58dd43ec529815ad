"""A protocol's interface, and those of the transport below it and the connection above it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Final, NamedTuple

from bide.compiling import mypyc_attr
from bide.errors import RemoteProtocolError
from bide.exchange.channel import Channel
from bide.exchange.messages import Head
from bide.exchange.peer import Peer, Secured
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal

# What a client is waited for.
IDLE: Final = "idle"  # between requests
HEAD: Final = "head"  # a request has begun to come, or the rest of one that was answered comes
BODY: Final = "body"  # the application waits for more of a body
RESPONSE: Final = "response"  # the client has to take what was sent to it
WHOLE: Final = "whole"  # the whole of a response takes too long, however well it is taken

# What a connection speaks, for those who count: HTTP/1 before it has said anything.
HTTP1: Final = "http/1"
HTTP2: Final = "http/2"
WEBSOCKET: Final = "websocket"
NAMES: Final = (HTTP1, HTTP2, WEBSOCKET)

Agree = Callable[[Head, str, str | None], bool]
"""Writes the answer that accepts a WebSocket, under the lock; returns false if the client is gone.

It is called with the answer's head, with the extensions that are agreed, and the subprotocol.
"""


@mypyc_attr(allow_interpreted_subclasses=True)
class Transport:
    """Sends the bytes of responses; from any thread, except where noted.

    Attributes:
        lock: guards the connection; reentrant.
    """

    __slots__ = ()

    lock: AbstractContextManager[Any]

    def write(self, data: bytes, *more: bytes) -> bool:
        """Send or queue bytes, uncopied; return false when the client will never take them."""
        raise NotImplementedError

    def put(self, data: bytes, *more: bytes) -> bool:
        """Write, called under the lock."""
        return self.write(data, *more)

    def gather(self, block: bytes, before: bytes = b"", behind: bytes = b"") -> bool:
        """Write a block with its framing, called under the lock; it may be held for a moment.

        So blocks that come fast leave together. Whatever is written next goes behind them.
        """
        return self.put(before + block + behind)

    def flush(self) -> bool:
        """Send what ``gather`` holds; return false when the client will never take it."""
        return True

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
        """Stop reading what the client sends; on the loop."""
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
        """Read what has come already; on the loop."""
        raise NotImplementedError

    @property
    def queued(self) -> int:
        """Bytes that wait for the client."""
        raise NotImplementedError

    @property
    def behind(self) -> bool:
        """Whether the client must take some before more should be sent."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver:
    """What a transport calls, on the loop."""

    __slots__ = ()

    def secured(self, secured: Secured) -> None:
        """Called when a TLS handshake has ended well, before anything else.

        Args:
            secured: what TLS says of the connection.
        """

    def insecure(self, reason: str) -> None:
        """Called when a TLS handshake has failed; nothing but ``connection_lost`` follows.

        Args:
            reason: why, for people.
        """

    def waits(self) -> bool:
        """Whether somebody waits for what the client sends, and takes it as soon as it comes."""
        return False

    def data_received(self, data: bytes) -> None:
        """Called with bytes that the client has sent."""
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


@mypyc_attr(allow_interpreted_subclasses=True)
class Protocol(Channel):
    """A connection's protocol: bytes to streams, and streams to bytes.

    It is the channel of the streams that it makes, and writes to the connection's transport. It may
    be chosen when some bytes have come, and be replaced by :meth:`Owner.switch`. The methods here
    are called on the loop, the channel's from any thread.

    Attributes:
        name: what the connection speaks, one of NAMES.
    """

    __slots__ = ()

    name: ClassVar[str] = HTTP1

    def data_received(self, data: bytes) -> None:
        """Called with bytes from the client: begin streams, and feed their bodies."""
        raise NotImplementedError

    def eof_received(self) -> bool:
        """Called when the client will send no more; it may still read.

        Return whether that has cut a request short. Close the transport when nothing is left to be
        answered, now or at the end of the last response.
        """
        raise NotImplementedError

    def eof_ahead(self) -> None:
        """Called while reading is paused, when ``eof_received`` will follow what is unread."""
        return

    def connection_lost(self) -> None:
        """Called when the connection has ended; begin no stream any more."""
        raise NotImplementedError

    def retire(self) -> None:
        """Called when the server will stop soon: tell the client that the connection will end.

        It stays open until :meth:`drain`. A protocol that has no word for it does nothing.
        """
        return

    def drain(self) -> None:
        """Called when the server stops, again and again until the connection has ended.

        Serve what has come, then close the transport; at once where nothing has.
        """
        raise NotImplementedError

    def hand_over(self) -> bytes:
        """Called when another protocol takes over: do not use the transport any more.

        Return the bytes that have come and were not parsed.
        """
        raise NotImplementedError

    def after_fork(self) -> None:
        """Called in a forked child, whose connection is the parent's: hold no lock of that."""
        return

    def waits(self) -> bool:
        """Whether an application waits for what the client sends, and takes it as it comes."""
        return False

    def mind_time(self, elapsed: float) -> None:  # noqa: ARG002 - most have no clock
        """Called from time to time, with the seconds since the last call: for a clock of its own.

        That costs no timer. It comes once for every connection.
        """
        return

    # What a connection asks when it checks the deadlines

    @property
    def held(self) -> int:
        """Return the bytes that wait for the client, beside those that the transport holds."""
        return 0

    def endless(self, stream: Stream | None) -> bool:  # noqa: ARG002 - most send responses alone
        """Whether it sends for as long as it likes: ``response_timeout`` is not for it.

        Args:
            stream: on this one; None: on the connection.
        """
        return False

    @property
    def awaits(self) -> str:
        """What the client is waited for, beside streams in progress: IDLE, HEAD, or "" for nothing.

        IDLE: the connection may be closed if nothing comes. HEAD: a part of a message has come.
        """
        raise NotImplementedError

    def unsent(self, stream: Stream | None) -> int | None:
        """Return the bytes of a response that wait for the client; None when it is not behind.

        Without a stream: the bytes that the transport holds.
        """
        raise NotImplementedError

    def announced(self, stream: Stream) -> bool:
        """Whether it is known how long the body of a stream will be."""
        raise NotImplementedError

    def timed_out(self, phase: str, stream: Stream | None) -> None:
        """Called when the client has no time left for what it is waited for.

        Args:
            phase: IDLE, HEAD, BODY, RESPONSE or WHOLE.
            stream: the stream that it concerns. The connection goes on if the protocol can go on
                without that stream.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Owner(Receiver):
    """The connection, as far as a protocol knows it; on the loop, except where noted.

    Attributes:
        peer: the two ends of the connection.
    """

    __slots__ = ()

    peer: Peer

    def begin(self, stream: Stream, way: Way | None = None) -> None:
        """Called when a stream's head is complete and its turn has come: start its call.

        Its response may have ended when this returns.

        Args:
            stream: the request and its response.
            way: what another protocol may take over, if that is the stream alone.
        """
        raise NotImplementedError

    def ended(self, stream: Stream) -> None:
        """Called when the connection goes on after a stream's response; from any thread."""
        raise NotImplementedError

    def left(self, stream: Stream) -> None:
        """Called when the client has left one stream of several: end its call."""
        raise NotImplementedError

    def speaks_http2(self) -> bool:
        """Called when a client begins as one of HTTP/2 does: whether that is served here.

        If so, the protocol is to call :meth:`switch_to_http2`.
        """
        return False

    def switch_to_http2(self) -> None:
        """Switch to HTTP/2, which receives the bytes that were not parsed."""
        raise NotImplementedError

    def refused(self, error: RemoteProtocolError) -> None:
        """Called when a request is refused that never becomes a stream.

        Or when the connection is ended for what its client sends: the error says that.
        """
        raise NotImplementedError

    def upgrades(self, stream: Stream) -> bool:
        """Whether the protocol that a request asks for (``Upgrade``) may take over.

        If so, the protocol leaves alone what comes behind the request, until either its response
        has ended or :meth:`switch` was called.
        """
        raise NotImplementedError

    def switch(self, protocol: Protocol) -> None:
        """Switch to another protocol, which receives the bytes that were not parsed."""
        raise NotImplementedError

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon; from any thread."""
        raise NotImplementedError


class Way(NamedTuple):
    """What a WebSocket takes over: a connection, or one stream of it.

    Attributes:
        transport: sends on it.
        owner: the connection, or what stands for it on the stream.
        agree: writes the answer that accepts; None: it is that of HTTP/1.
    """

    transport: Transport
    owner: Owner
    agree: Agree | None = None
