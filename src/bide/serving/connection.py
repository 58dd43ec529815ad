"""One connection: where its socket, its protocol, its streams' calls and their time meet.

It knows no protocol: the server chooses the first one, and a protocol may have another take over. A
protocol begins streams, one or several at a time; each is given to the server as a call, at once or
when its body has come.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.interfaces import RESPONSE, WHOLE, Owner, Protocol, Transport
from bide.serving.deadlines import Deadlines, Look
from bide.transports.poller import Poller
from bide.transports.tcp import SocketTransport
from bide.wsgi.conversation import Conversation

log = logging.getLogger("bide")

_GIVEN_UP: Final = {
    RESPONSE: "a client that takes too little is given up: %s",
    WHOLE: "a client that takes too long is given up: %s",
}


class Serving:
    """The server, as far as a connection knows it; on the loop.

    Attributes:
        loop: the event loop.
        poller: says which sockets are ready.
        limits: what a client may ask.
        unsent_total: what waits for all clients.
        unread_total: what waits for all applications.
        health: the path that is answered without the application; empty for none.
        cancels_half_closed: whether a client that sends no more has left.
        draining: whether the server stops.
    """

    loop: asyncio.AbstractEventLoop
    poller: Poller
    limits: Limits
    unsent_total: Total
    unread_total: Total
    health: bytes
    cancels_half_closed: bool
    draining: bool

    @property
    def able(self) -> bool:
        """Whether there is a thread for requests, or could be one."""
        raise NotImplementedError

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the protocol that a connection begins with."""
        raise NotImplementedError

    def upgrades(self, stream: Stream) -> bool:
        """Whether a request may change its connection's protocol; as :meth:`Owner.upgrades`."""
        raise NotImplementedError

    def conversation(self, stream: Stream) -> Conversation:
        """Make a stream's conversation."""
        raise NotImplementedError

    def hold(self, conversation: Conversation, connection: Connection) -> None:
        """Count a conversation that is to be submitted when its body has come."""
        raise NotImplementedError

    def submit(self, conversation: Conversation) -> None:
        """Have a conversation run, or reject it."""
        raise NotImplementedError

    def drop(self, conversation: Conversation) -> None:
        """End a conversation that was held, and whose client has left."""
        raise NotImplementedError

    def flush(self) -> None:
        """Let the executor begin what was submitted; the poller does after a batch."""
        raise NotImplementedError

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Called when a request is refused for what it is."""
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
        "_protocol",
        "_serving",
        "_streams",
        "_transport",
        "peer",
    )

    def __init__(self, serving: Serving, sock: socket.socket, peer: Peer) -> None:
        self._serving = serving
        self.peer = peer
        self._transport = SocketTransport(
            sock,
            serving.poller,
            self,
            serving.limits.unsent,
            serving.limits.linger,
            serving.unsent_total,
            serving.unread_total,
        )
        self._protocol = serving.protocol(self._transport, self)
        # In progress, each with its call. Added to on the loop, taken from on any thread; single
        # operations only.
        self._streams: dict[Stream, Conversation] = {}
        self._held: dict[Stream, Conversation] = {}  # those whose bodies are still to come
        self._deadlines = Deadlines()

    def start(self) -> None:
        """Begin to read."""
        self._transport.start()

    # The transport's ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in what has come, and begin what can begin."""
        try:
            self._protocol.data_received(data)
        except Exception:
            log.exception("internal error while parsing a request: the connection is closed")
            self._transport.abort()
        if self._held:
            self._submit_due()

    def eof_received(self) -> None:
        """Called when the client will send no more: end the waits, if so configured."""
        short = self._protocol.eof_received()
        # Looked at once: on its lane one may be ending meanwhile.
        calls = list(self._streams.values())
        if short or self._serving.cancels_half_closed:
            for call in calls:
                call.cancel(ClientDisconnected("the client has closed the connection"))
        self._submit_due()

    def eof_ahead(self) -> None:
        """Called when the client's end stands behind what the application has not read."""
        if self._serving.cancels_half_closed:
            for call in list(self._streams.values()):
                call.cancel(ClientDisconnected("the client has closed the connection"))

    def connection_lost(self) -> None:
        """Called when the client is gone: whatever a request does next with it raises."""
        self._protocol.connection_lost()
        for stream, call in list(self._streams.items()):
            gone = ClientDisconnected("the client has left")
            stream.gone = True
            stream.body.fail(gone)
            call.cancel(gone)
            if stream in self._held:
                self.drop_held(stream)
        self._streams.clear()
        self._serving.connection_lost(self)

    # The protocol's -----------------------------------------------------------------------------

    def begin(self, stream: Stream) -> None:
        """Give a stream to the server, or keep it until its body has come."""
        serving = self._serving
        self._deadlines.begun = True
        if serving.health and stream.request.path == serving.health:
            self._answer_health(stream)
            return
        # First the mark: on a lane it may end before submit returns.
        call = self._streams[stream] = serving.conversation(stream)
        if stream.body.complete or stream.expects_continue or _is_due(stream):
            serving.submit(call)
        else:
            self._held[stream] = call
            serving.hold(call, self)

    def ended(self, stream: Stream) -> None:
        """Called when a response has ended; from any thread."""
        self._streams.pop(stream, None)

    def refused(self, error: RemoteProtocolError) -> None:
        """Called when a request is refused."""
        self._serving.refused(error, self.peer.client_host)

    def upgrades(self, stream: Stream) -> bool:
        """Whether a request may change the protocol."""
        return self._serving.upgrades(stream)

    def switch(self, protocol: Protocol) -> None:
        """Have another protocol take over, with the streams in progress and what was not read."""
        data = self._protocol.hand_over()
        self._protocol = protocol
        for stream in list(self._streams):
            stream.switch(protocol)
        if data:
            self.data_received(data)
        self._transport.resume_reading()
        if self._serving.draining:
            protocol.drain()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon; from any thread."""
        loop = self._serving.loop
        if asyncio._get_running_loop() is loop:
            loop.call_soon(self._call, function)
        else:
            loop.call_soon_threadsafe(self._call, function)

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception:
            log.exception("internal error on a connection: it is closed")
            self._transport.abort()
        self._serving.flush()

    def _submit_due(self) -> None:
        for stream in list(self._held):
            if _is_due(stream):
                self.submit_held(stream)

    def _answer_health(self, stream: Stream) -> None:
        """Answer whether the server serves, which needs no thread."""
        if stream.request.method not in ("GET", "HEAD"):
            status, text, more = "405 Method Not Allowed", b"", [("Allow", "GET, HEAD")]
        elif self._serving.draining:
            status, text, more = "503 Service Unavailable", b"stopping\n", []
        elif not self._serving.able:
            status, text, more = "503 Service Unavailable", b"no thread can be started\n", []
        else:
            status, text, more = "200 OK", b"ok\n", []
        stream.start(status, [("Content-Type", "text/plain"), ("Cache-Control", "no-store"), *more])
        try:
            stream.end(text)
        except ClientDisconnected:
            stream.cut()

    # The server's -------------------------------------------------------------------------------

    @property
    def _client(self) -> str:
        return self.peer.client_host or "on a Unix socket"

    def after_fork(self) -> None:
        """Give the connection up in a forked child: its client is the parent's."""
        self._transport.after_fork()

    @property
    def held(self) -> int:
        """Bytes that wait for the client."""
        return self._transport.queued

    @property
    def sending(self) -> bool:
        """Whether the client has more to take of what was sent to it."""
        return self._transport.behind

    def drain(self) -> None:
        """Close when idle, or before half a request; else after what is in progress."""
        self._protocol.drain()

    def submit_held(self, stream: Stream) -> None:
        """Begin the call of a stream that waits for its body, with what has come of that."""
        self._serving.submit(self._held.pop(stream))

    def drop_held(self, stream: Stream) -> None:
        """End the call of a stream that waits for its body, without beginning it."""
        self._serving.drop(self._held.pop(stream))

    def mind_time(self, look: Look) -> None:
        """Called from time to time: end what the client has no time left for."""
        protocol, deadlines = self._protocol, self._deadlines
        for phase, stream in deadlines.look(look, protocol, list(self._streams), self._held):
            if phase in _GIVEN_UP:
                log.info(_GIVEN_UP[phase], self._client)
            protocol.timed_out(phase, stream)
        if self._held:
            self._submit_due()
            for stream in list(self._held):
                # Chunks may be a conversation: whoever sends them waits for an answer to each.
                if deadlines.looks(stream) >= 2 and not protocol.announced(stream):
                    self.submit_held(stream)

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()


def _is_due(stream: Stream) -> bool:
    """Whether what the application would read first has come: no lane need wait for it."""
    body = stream.body
    return body.complete or body.full or body.failed
