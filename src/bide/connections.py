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
from typing import Any, Protocol

from bide.conversation import Conversation
from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.protocols.http1 import HTTP1
from bide.protocols.sides import Limits
from bide.stream import Stream
from bide.transports.poller import Poller
from bide.transports.tcp import SocketTransport

log = logging.getLogger("bide")

PIPELINE = 16
"""Requests that may wait on one connection before it is read no further."""


class Serving(Protocol):
    """The server, as far as a connection knows it."""

    loop: asyncio.AbstractEventLoop
    poller: Poller
    limits: Limits
    cancels_half_closed: bool
    draining: bool

    def conversation(self, stream: Stream, environ: dict[str, Any]) -> Conversation:
        """Make a stream's conversation. On the loop."""

    def submit(self, conversation: Conversation) -> None:
        """Have it run, or reject it. On the loop."""

    def flush(self) -> None:
        """Let the executor begin what was submitted. On the loop; the poller does after a batch."""

    def connection_lost(self, connection: Connection) -> None:
        """Know that a connection has ended. On the loop."""


class Connection:
    """One client's connection; on the loop, but for ``ended``."""

    __slots__ = (
        "_begun",
        "_behind",
        "_conversation",
        "_half_closed",
        "_protocol",
        "_queue",
        "_seen",
        "_serving",
        "_since",
        "_stream",
        "_transport",
        "_turn",
        "environ",
    )

    def __init__(self, serving: Serving, sock: socket.socket, environ: dict[str, Any]) -> None:
        self._serving = serving
        self.environ = environ
        self._transport = SocketTransport(sock, serving.poller, self)
        self._protocol = HTTP1(self._transport, self, serving.limits)
        self._queue: list[Stream | RemoteProtocolError] = []  # short, and mostly empty
        self._turn = [True]  # the token; empty while a response is being made
        self._conversation: Conversation | None = None
        self._stream: Stream | None = None
        self._half_closed = False
        self._behind = False  # to be told when the client has caught up
        # For the looks once a second, which keep the time off the way of each request:
        self._begun = True  # a request since the last look
        self._seen = (False, False, 0)  # what the last look saw
        self._since = 0.0  # the first look that saw this

    def start(self) -> None:
        """Begin to read."""
        self._transport.start()

    # The transport's ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse, and begin what can begin."""
        try:
            self._protocol.receive_data(data)
        except Exception:
            log.exception("internal error while parsing a request: the connection is closed")
            self._transport.abort()
            return
        if len(self._queue) >= PIPELINE:
            self._transport.pause_reading()

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
        self._stream = self._conversation = None
        self._serving.connection_lost(self)

    # The protocol's -----------------------------------------------------------------------------

    def begin(self, stream: Stream) -> None:
        """Begin a stream at once when none is before it, else queue it."""
        self._begun = True
        if not self._queue and self._turn and not self._transport.queued:
            self._turn.pop()  # the loop alone takes it
            self._converse(stream)
        else:
            self._queue.append(stream)
            self._advance()

    def refuse(self, error: RemoteProtocolError) -> None:
        """Queue the answer to a request that cannot be served."""
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
            if len(self._queue) == PIPELINE // 2:
                self._transport.resume_reading()
            if isinstance(item, RemoteProtocolError):
                self._protocol.answer_refusal(item)
                return
            self._converse(item)
        last = self._half_closed or self._serving.draining
        if self._turn and last and not self._protocol.receiving:
            self._transport.close()

    def _converse(self, stream: Stream) -> None:
        # First the marks: on a lane it may end before submit returns.
        self._stream = stream
        conversation = self._conversation = self._serving.conversation(stream, self.environ)
        self._serving.submit(conversation)

    # The server's -------------------------------------------------------------------------------

    @property
    def _client(self) -> str:
        return str(self.environ["REMOTE_ADDR"]) or "on a Unix socket"

    @property
    def sending(self) -> bool:
        """Whether the client has more to take of what was sent to it."""
        return self._transport.behind

    def drain(self) -> None:
        """Close when idle, or before half a request; else after the response in progress."""
        self._protocol.draining = True
        if self._turn and not self._queue:
            self._transport.close(linger=self._protocol.receiving)

    def mind_time(self, now: float, head_timeout: float, idle_timeout: float) -> None:
        """End a connection that has been idle, or has sent half a head, for too long.

        Idle is also a client that takes nothing of what was sent to it, or sends nothing of a body
        that the application waits for. All in seconds; called about once a second, which is how
        exact it is.
        """
        protocol, stream = self._protocol, self._stream
        busy = not self._turn or bool(self._queue)
        # Grows with each byte that the client takes of a response, or sends of a body.
        moved = (protocol.fed if busy else 0) - self._transport.queued
        if stream is not None:
            moved += stream.sent
        seen = (busy, protocol.receiving, moved)
        if self._begun or seen != self._seen:
            self._begun = False
            self._seen = seen
            self._since = now
            return
        waited = now - self._since
        if self._transport.behind:
            if waited >= idle_timeout:
                log.info("a client that takes nothing is given up: %s", self._client)
                self._transport.abort()
        elif protocol.awaits_body if busy else protocol.receiving:
            if waited >= (idle_timeout if busy else head_timeout):
                protocol.refuse(RemoteProtocolError("the request took too long", 408))
        elif not busy and waited >= idle_timeout:
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()
