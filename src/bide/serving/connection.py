"""One connection: where its socket, its protocol, its streams' calls and their time meet.

It knows no protocol: the server chooses the first one, and a protocol may switch to another. A
protocol begins streams, one or several at a time. Each is passed to the server as a call, at once
or when its body has come.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from bide.compiling import mypyc_attr
from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.call import Call
from bide.exchange.limits import Limits
from bide.exchange.peer import Peer, Secured
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.interfaces import IDLE, RESPONSE, WHOLE, Owner, Protocol, Transport, Way
from bide.serving.deadlines import Deadlines, Look
from bide.serving.probes import answer_probe
from bide.transports.connected import CLOSED
from bide.transports.handshakes import Handshakes
from bide.transports.poller import Poller
from bide.transports.streaming import Streaming
from bide.transports.tcp import SocketTransport
from bide.transports.tls import TLSTransport
from bide.waiting.each import NOT_TOLD, to_each
from bide.waiting.loops import on_loop

log = logging.getLogger("bide")

MOMENT: Final = 0.5
"""Seconds after its handshake in which a client sends its request, also to a server that stops."""

_NONE_HELD: Final[dict[Stream, Call]] = {}  # never changed; most connections need no other
_SLOW: Final = "a client is too slow in its handshake, and is disconnected: %s"
_GIVEN_UP: Final = {
    RESPONSE: "a client that reads too slowly is disconnected: %s",
    WHOLE: "a client that takes too long is disconnected: %s",
}


@mypyc_attr(allow_interpreted_subclasses=True)
class Serving:
    """The server, as far as a connection knows it; on the loop.

    Attributes:
        loop: the event loop.
        poller: says which sockets are ready.
        limits: what a client may ask.
        unsent_total: what waits for all clients.
        unread_total: what waits for all applications.
        probes: the paths that ask whether the server lives, and whether it is ready.
        ready: which of them asks the latter; empty for none.
        cancels_half_closed: whether a client that sends no more has left.
        retiring: whether the server will stop soon, or stops.
        draining: whether it stops.
        speaks_http2: whether HTTP/2 is served.
        handshakes: makes the handshakes of TLS; None: clients speak in clear.
        insecure: called with why a handshake has failed, and with which client.
    """

    loop: asyncio.AbstractEventLoop
    poller: Poller
    limits: Limits
    unsent_total: Total
    unread_total: Total
    probes: tuple[bytes, ...]
    ready: bytes
    cancels_half_closed: bool
    retiring: bool
    draining: bool
    speaks_http2: bool = False
    handshakes: Handshakes | None = None
    insecure: Callable[[str], None]

    @property
    def able(self) -> bool:
        """Whether requests can run: there is a thread for them, or one could be started."""
        raise NotImplementedError

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the protocol that a connection begins with."""
        raise NotImplementedError

    def http2(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the protocol of a connection whose client speaks HTTP/2, where that is served."""
        raise NotImplementedError

    def upgrades(self, stream: Stream) -> bool:
        """Whether a request may change its connection's protocol; as :meth:`Owner.upgrades`."""
        raise NotImplementedError

    def conversation(self, stream: Stream) -> Call | None:
        """Make a stream's conversation; None if it was refused, and is answered."""
        raise NotImplementedError

    def offered(self, stream: Stream, way: Way) -> Call | None:  # noqa: ARG002
        """Make the conversation of a stream that another protocol may take over."""
        return self.conversation(stream)

    def hold(self, conversation: Call, connection: Connection) -> None:
        """Called when a conversation waits for its body; it will be submitted or dropped."""
        raise NotImplementedError

    def submit(self, conversation: Call) -> None:
        """Submit a conversation to the executor; reject it when the queue is full."""
        raise NotImplementedError

    def drop(self, conversation: Call) -> None:
        """End a conversation that was held, and whose client has left."""
        raise NotImplementedError

    def flush(self) -> None:
        """Flush the executor, which begins the submitted calls; the poller calls this."""
        raise NotImplementedError

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Called when a malformed request is refused."""
        raise NotImplementedError

    def connection_lost(self, connection: Connection) -> None:
        """Called when a connection has ended."""
        raise NotImplementedError


class Connection(Owner):
    """One client's connection; on the loop, but for ``ended`` and ``call_soon``.

    Attributes:
        peer: its two ends.
    """

    __slots__ = (
        "_deadlines",
        "_held",
        "_new_until",
        "_protocol",
        "_serving",
        "_shaking",
        "_streams",
        "_transport",
        "_upgrading",
        "peer",
    )

    def __init__(self, serving: Serving, sock: socket.socket, peer: Peer) -> None:
        self._serving = serving
        self.peer = peer
        self._transport = _transport(serving, sock, self)
        self._shaking = serving.handshakes is not None
        self._new_until = 0.0  # by the loop's clock; 0: it is new no more
        self._protocol = serving.protocol(self._transport, self)
        # In progress, each with its call. Added to on the loop, taken from on any thread; single
        # operations only.
        self._streams: dict[Stream, Call] = {}
        self._held = _NONE_HELD  # those whose bodies are still to come
        self._deadlines = Deadlines()
        self._upgrading: Stream | None = None  # the last one that may change the protocol

    def start(self) -> None:
        """Begin to read."""
        self._transport.start()

    # The transport's ----------------------------------------------------------------------------

    def secured(self, secured: Secured) -> None:
        """Called when the client's handshake is over: keep what TLS says."""
        self.peer.tls = secured
        if secured.alpn == "h2":
            self._protocol = self._serving.http2(self._transport, self)
        self._shaking = False
        self._new_until = self._serving.loop.time() + MOMENT

    def insecure(self, reason: str) -> None:
        """Called when the handshake has failed."""
        self._shaking = False
        self._serving.insecure(f"{reason} ({self._client})")

    def waits(self) -> bool:
        """Whether an application waits for what the client sends."""
        return self._protocol.waits()

    def data_received(self, data: bytes) -> None:
        """Called with bytes from the client: parse them, and begin the streams that can begin."""
        try:
            self._protocol.data_received(data)
        except Exception:  # of ours: nothing that comes after it can be told apart
            log.exception("internal error while parsing a request: the connection is closed")
            self._transport.abort()
        self._submit_due()

    def eof_received(self) -> None:
        """Called when the client will send no more: end the waits, if so configured."""
        short = self._protocol.eof_received()
        if short or self._serving.cancels_half_closed:
            to_each(self._streams.values(), _half_closed, NOT_TOLD)
        self._submit_due()

    def eof_ahead(self) -> None:
        """Called when the client has ended, behind bytes that the application has not read yet."""
        self._protocol.eof_ahead()
        if self._serving.cancels_half_closed:
            to_each(self._streams.values(), _half_closed, NOT_TOLD)

    def connection_lost(self) -> None:
        """Called when the client is gone: whatever a request does next with it raises."""
        try:
            self._protocol.connection_lost()
        finally:
            to_each(self._streams.items(), lambda each: self._leave(*each), NOT_TOLD)
            self._streams.clear()
            self._serving.connection_lost(self)

    # The protocol's -----------------------------------------------------------------------------

    def begin(self, stream: Stream, way: Way | None = None) -> None:
        """Submit a stream's call to the server, or hold it until its body has come."""
        serving = self._serving
        self._deadlines.begun = True
        if serving.probes and stream.request.path in serving.probes:
            answer_probe(serving, stream)
            return
        if stream is self._upgrading:
            way = Way(self._transport, self)
        call = serving.conversation(stream) if way is None else serving.offered(stream, way)
        if call is None:
            return
        self._streams[stream] = call  # noted first: on a lane it may end before submit returns
        body = stream.body
        if body.due or stream.expects_continue or not call.needs_body:
            serving.submit(call)
        else:
            if self._held is _NONE_HELD:
                self._held = {}
            self._held[stream] = call
            serving.hold(call, self)

    def ended(self, stream: Stream) -> None:
        """Called when a response has ended; from any thread."""
        self._streams.pop(stream, None)

    def left(self, stream: Stream) -> None:
        """Called when the client has left one stream: whatever its request does with it raises."""
        if (call := self._streams.get(stream)) is not None:
            self._leave(stream, call)

    def _leave(self, stream: Stream, call: Call) -> None:
        gone = ClientDisconnected("the client has left")
        stream.gone = True
        stream.body.fail(gone)
        call.cancel(gone)
        if stream in self._held:
            self.drop_held(stream)

    def speaks_http2(self) -> bool:
        """Whether a client that begins as one of HTTP/2 does is served."""
        return self._serving.speaks_http2

    def switch_to_http2(self) -> None:
        """Switch to HTTP/2."""
        self.switch(self._serving.http2(self._transport, self))

    def refused(self, error: RemoteProtocolError) -> None:
        """Called when a request is refused."""
        self._serving.refused(error, self.peer.client_host)

    def upgrades(self, stream: Stream) -> bool:
        """Whether a request may change the protocol."""
        self._upgrading = stream if self._serving.upgrades(stream) else None
        return self._upgrading is not None

    def switch(self, protocol: Protocol) -> None:
        """Switch to another protocol, with the streams in progress and the unread bytes."""
        data = self._protocol.hand_over()
        self._protocol = protocol
        if self._transport.state is CLOSED:  # its end was told to the protocol before
            protocol.connection_lost()
            return
        for stream in list(self._streams):
            stream.switch(protocol)
        self._transport.resume_reading()
        if data:
            self.data_received(data)  # behind that: the protocol may stop reading
        if self._serving.draining:
            protocol.drain()
        elif self._serving.retiring:
            protocol.retire()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon; from any thread."""
        loop = self._serving.loop
        if asyncio._get_running_loop() is loop:
            loop.call_soon(self._call, function)
        else:
            on_loop(loop, self._call, function)

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception:  # of ours, or of a log handler that the program has added
            log.exception("internal error on a connection: it is closed")
            self._transport.abort()
        self._submit_due()  # what came before may have been taken only now
        self._serving.flush()

    def _submit_due(self) -> None:
        for stream in list(self._held) if self._held else ():
            if stream.body.due:
                self.submit_held(stream)

    # The server's -------------------------------------------------------------------------------

    @property
    def _client(self) -> str:
        return self.peer.client_host or "on a Unix socket"

    def after_fork(self) -> None:
        """Called in a forked child: drop the connection, which is the parent's."""
        self._protocol.after_fork()
        self._transport.after_fork()

    @property
    def speaks(self) -> str:
        """The name of its protocol: one of ``bide.protocols.interfaces.NAMES``; from any thread."""
        return self._protocol.name

    @property
    def held(self) -> int:
        """Bytes that wait for the client."""
        return self._transport.queued + self._protocol.held

    @property
    def sending(self) -> bool:
        """Whether the client has more to take of what was sent to it."""
        return self._transport.behind or self._transport.under_way or self._protocol.held > 0

    def retire(self) -> None:
        """Make each response from now on the connection's last."""
        self._protocol.retire()

    def drain(self) -> None:
        """Close when idle, or before half a request; else after what is in progress."""
        if self._shaking:
            return
        if self._new_until and self._protocol.awaits == IDLE:
            if self._serving.loop.time() < self._new_until:
                return
            self._new_until = 0.0
        self._protocol.drain()

    def submit_held(self, stream: Stream) -> None:
        """Begin the call of a stream that waits for its body, with what has come of that."""
        self._serving.submit(self._held.pop(stream))

    def drop_held(self, stream: Stream) -> None:
        """End the call of a stream that waits for its body, without beginning it."""
        self._serving.drop(self._held.pop(stream))

    def mind_time(self, look: Look) -> None:
        """Called from time to time: end what the client has taken too long for."""
        protocol, deadlines = self._protocol, self._deadlines
        if self._shaking:
            if deadlines.shaking(look):
                log.info(_SLOW, self._client)
                self._transport.close()
            return
        protocol.mind_time(look.elapsed)
        for phase, stream in deadlines.look(look, protocol, list(self._streams), self._held):
            if phase in _GIVEN_UP:
                log.info(_GIVEN_UP[phase], self._client)
            protocol.timed_out(phase, stream)
        if self._held:
            self._submit_due()
            for stream in list(self._held):
                # Chunks may be a conversation: the client may wait for an answer to each.
                if deadlines.looks(stream) >= 2 and not protocol.announced(stream):
                    self.submit_held(stream)

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()


def _half_closed(call: Call) -> None:
    call.cancel(ClientDisconnected("the client has closed the connection"))


def _transport(serving: Serving, sock: socket.socket, connection: Connection) -> Streaming:
    """Make a connection's transport."""
    limits, handshakes = serving.limits, serving.handshakes
    rest = (limits.unsent, limits.linger, serving.unsent_total, serving.unread_total)
    if handshakes is None:
        return SocketTransport(sock, serving.poller, connection, *rest)
    return TLSTransport(handshakes, sock, serving.poller, connection, *rest)
