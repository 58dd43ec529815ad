"""One connection: where its socket, its protocol, its conversations and an executor meet.

Streams are begun one at a time, in order. What the loop and a lane share is who may begin the next
one: a single token in a list. The loop first queues a stream and then tries to take the token; an
ending response first puts the token back and then looks at the queue. So one of the two begins it,
and never both.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Protocol

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http1.reading import HTTP1
from bide.serving.client_time import BODY, HEAD, IDLE, RESPONSE, ClientTime
from bide.settings import Settings
from bide.transports.poller import Poller
from bide.transports.tcp import SocketTransport
from bide.wsgi.conversation import Conversation

log = logging.getLogger("bide")


class Serving(Protocol):
    """The server, as far as a connection knows it."""

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

    def conversation(self, stream: Stream) -> Conversation:
        """Make a stream's conversation. On the loop."""

    def hold(self, conversation: Conversation, connection: Connection) -> None:
        """Count a conversation that is to be submitted when its body has come. On the loop."""

    def submit(self, conversation: Conversation) -> None:
        """Have it run, or reject it. On the loop."""

    def drop(self, conversation: Conversation) -> None:
        """End one that was held, and whose client has left. On the loop."""

    def flush(self) -> None:
        """Let the executor begin what was submitted. On the loop; the poller does after a batch."""

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Called when a request is refused for what it is. On the loop."""

    def connection_lost(self, connection: Connection) -> None:
        """Know that a connection has ended. On the loop."""


class Connection:
    """One client's connection; on the loop, but for ``ended``."""

    __slots__ = (
        "_begun",
        "_behind",
        "_body_looks",
        "_conversation",
        "_half_closed",
        "_protocol",
        "_queue",
        "_serving",
        "_stream",
        "_time",
        "_transport",
        "_turn",
        "peer",
    )

    def __init__(self, serving: Serving, sock: socket.socket, peer: Peer) -> None:
        self._serving = serving
        self.peer = peer
        limits = serving.limits
        self._transport = SocketTransport(
            sock,
            serving.poller,
            self,
            limits.unsent,
            limits.linger,
            serving.unsent_total,
            serving.unread_total,
        )
        self._protocol = HTTP1(self._transport, self, limits, serving.unread_total)
        self._queue: list[Stream | RemoteProtocolError] = []  # short, and mostly empty
        self._turn = [True]  # the token; empty while a response is being made
        self._conversation: Conversation | None = None
        self._stream: Stream | None = None
        self._half_closed = False
        self._body_looks = (
            0  # looks at the time, and one, since the conversation waits for its body
        )
        self._behind = False  # to be told when the client has caught up
        self._begun = False  # a request since the last look at the time
        self._time = ClientTime()

    def start(self) -> None:
        """Begin to read."""
        self._transport.start()

    # The transport's ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse, and begin what can begin."""
        self._parse(self._protocol.receive_data, data)
        if self._body_looks and self._is_due():
            self.submit_held()
        if self._queue and self.full:
            self._transport.pause_reading()

    def _parse(self, parse: Callable[..., None], *data: bytes) -> None:
        try:
            parse(*data)
        except Exception:
            log.exception("internal error while parsing a request: the connection is closed")
            self._transport.abort()

    def eof_received(self) -> None:
        """Half-closed: cancel the wait in progress, if so configured; close if nothing is left."""
        self._half_closed = True
        short = self._protocol.eof_received()
        # Looked at once: on its lane it may be ending meanwhile.
        stream, conversation = self._stream, self._conversation
        if stream is None and not self._queue:
            self._transport.close()
        elif conversation is not None and (short or self._serving.cancels_half_closed):
            conversation.cancel(ClientDisconnected("the client has closed the connection"))
        if self._body_looks and self._is_due():
            self.submit_held()

    def eof_ahead(self) -> None:
        """Half-closed, behind what the application has not read: its wait is cancelled now."""
        conversation = self._conversation
        if conversation is not None and self._serving.cancels_half_closed:
            conversation.cancel(ClientDisconnected("the client has closed the connection"))

    def connection_lost(self) -> None:
        """Gone: whatever the request does next with its client raises."""
        self._queue.clear()
        self._protocol.eof_received()
        self._protocol.close()
        stream, conversation = self._stream, self._conversation
        if stream is not None:
            gone = ClientDisconnected("the client has left")
            stream.gone = True
            stream.body.fail(gone)
            if conversation is not None:
                conversation.cancel(gone)
                if self._body_looks:
                    self.drop_held()
        self._stream = self._conversation = None
        self._serving.connection_lost(self)

    # The protocol's -----------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether as many requests wait as may."""
        return len(self._queue) >= self._serving.limits.pipeline

    def begin(self, stream: Stream) -> None:
        """Begin a stream at once when none is before it, else queue it."""
        if not self._queue and self._turn and not self._transport.queue.size:
            self._turn.pop()  # the loop alone takes it
            self._converse(stream)
        else:
            self._queue.append(stream)
            self._advance()

    def refuse(self, error: RemoteProtocolError) -> None:
        """Queue the answer to a request that cannot be served."""
        self._serving.refused(error, self.peer.client_host)
        self._queue.append(error)
        self._advance()

    def ended(self, stream: Stream) -> None:  # noqa: ARG002 - Owner's signature
        """Go on with the next stream, on the loop; from any thread."""
        self._stream = self._conversation = None
        self._turn.append(True)
        if self._queue or self._half_closed or self._serving.draining:
            if asyncio._get_running_loop() is self._serving.loop:
                self._serving.loop.call_soon(self._go_on)
            else:
                self._serving.loop.call_soon_threadsafe(self._go_on)

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:  # noqa: ARG002
        """Know that the client has caught up, or is gone (a signal's word); from any thread."""
        self._serving.loop.call_soon_threadsafe(self._go_on)
        return True

    def _go_on(self) -> None:
        self._behind = False
        self._advance()
        self._serving.flush()

    def _advance(self) -> None:
        while self._queue:
            if self._behind or not self._turn:
                return  # the client's catching up, or the response in progress, goes on from here
            room = self._transport.room()
            if room is not None:  # else whoever asks and takes nothing would fill the memory
                self._behind = True
                room.listen(self)
                return
            self._turn.pop()
            item = self._queue.pop(0)
            if len(self._queue) == self._serving.limits.pipeline // 2:
                self._parse(self._protocol.read_on)
                if not self.full:
                    self._transport.resume_reading()
            if isinstance(item, RemoteProtocolError):
                self._protocol.answer_refusal(item)
                return
            self._converse(item)
        last = self._half_closed or self._serving.draining
        if self._turn and last and not self._protocol.receiving:
            self._transport.close(linger=True)

    def _converse(self, stream: Stream) -> None:
        # First the marks: on a lane it may end before submit returns.
        self._begun = True
        self._stream = stream
        health = self._serving.health
        if health and stream.request.path == health:
            self._answer_health(stream)
            return
        conversation = self._conversation = self._serving.conversation(stream)
        if stream.body.complete or stream.expects_continue or self._is_due():
            self._body_looks = 0
            self._serving.submit(conversation)
        else:
            self._body_looks = 1
            self._serving.hold(conversation, self)

    def _is_due(self) -> bool:
        """Whether what the application would read first has come: no lane need wait for it."""
        stream = self._stream
        return stream is not None and (
            stream.body.complete or stream.body.full or stream.body.failed
        )

    def _answer_health(self, stream: Stream) -> None:
        """Say that the server lives, which needs no thread."""
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
        """Close when idle, or before half a request; else after the response in progress.

        A request that has come is served, though nobody has read it yet.
        """
        if not self._protocol.draining:
            self._protocol.draining = True
            self._transport.look()
        if self._turn and not self._queue:
            self._transport.close(linger=self._protocol.receiving)

    def submit_held(self) -> None:
        """Have the conversation that waits for its body begin, with what has come of it."""
        self._body_looks = 0
        assert self._conversation is not None
        self._serving.submit(self._conversation)

    def drop_held(self) -> None:
        """End the conversation that waits for its body without beginning it."""
        self._body_looks = 0
        assert self._conversation is not None
        self._serving.drop(self._conversation)

    def mind_time(self, elapsed: float, settings: Settings, crowded: bool) -> None:
        """End the connection when its client has no time left; see :class:`ClientTime`.

        Called from time to time, which is how exact it is.

        Args:
            elapsed: seconds since the last call.
            settings: the allowances.
            crowded: whether others wait for this connection to end.
        """
        protocol, stream, time = self._protocol, self._stream, self._time
        behind = self._transport.behind
        if self._begun:
            self._begun = False
            time.begin()
        if settings.response_timeout:
            responding = behind or (stream is not None and stream.head_sent)
            if time.spent_on_response(elapsed, responding) >= settings.response_timeout:
                log.info("a client that takes too long is given up: %s", self._client)
                self._transport.abort()
                return
        if behind:
            phase = RESPONSE
        elif not self._turn or self._queue:
            if self._body_looks:
                self._body_looks += 1
                # Chunks may be a conversation: whoever sends them waits for an answer to each.
                if self._body_looks > 2 and protocol.remaining is None:
                    self.submit_held()
            elif not protocol.awaits_body:
                time.worked = True
                return  # it is the application's time; the client's goes on where it was
            phase = BODY
        else:
            phase = HEAD if protocol.receiving or protocol.head_begun else IDLE
        taken = (0 if stream is None else stream.sent) - self.held
        full = self._serving.unsent_total.full
        if time.goes_on(elapsed, phase, settings, protocol.fed, taken, self.held, full, crowded):
            return
        if phase is RESPONSE:
            log.info("a client that takes too little is given up: %s", self._client)
            self._transport.abort()
        elif phase is IDLE:
            self._transport.close()
        else:
            protocol.refuse(RemoteProtocolError("the request took too long", 408))
            if self._body_looks and self._is_due():
                self.submit_held()

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()
