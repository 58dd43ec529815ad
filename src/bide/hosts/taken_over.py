"""A host's connection taken over for a WebSocket: Bide's own protocol on the background loop.

gunicorn and Werkzeug put the client's socket into the environ. It is duplicated, and in the host's
descriptor's place comes one end of a pair of sockets. So what the host sends when the view has
returned goes to us, and tells how the view has ended. The host needs to know nothing of it, and the
view is written as under Bide; but it keeps its thread.

Methods are called on the loop, unless noted. What other threads ask goes to the loop in turn.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from bide.errors import ClientDisconnected
from bide.exchange.channel import Channel
from bide.exchange.handshake import fields_of_environ
from bide.exchange.limits import Limits
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.totals import UNBOUND
from bide.hosts.channel import request_of
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.protocols.websocket.connection import WebSocketProtocol
from bide.protocols.websocket.switching import answer_101
from bide.waiting.background import background_loop
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.outcome import Signal

TICK: Final = 1.0
"""Seconds between two looks at the clock of a WebSocket: pings, and the end of the closing."""


def take_over(environ: dict[str, Any], host: socket.socket) -> WebSocketProtocol:
    """Make a WebSocket of a host's request; the connection is taken over when it is accepted.

    On the host's thread.

    Args:
        environ: the request's, which has been checked.
        host: the client's socket.
    """
    taken = TakenOver(host, Peer(environ.get("wsgi.url_scheme", "http"), None, None))
    stream = Stream(request_of(environ), _Before(taken.transport.lock, taken.peer), 0)
    fields = fields_of_environ(environ)
    agree = partial(answer_101, taken.transport, fields["sec-websocket-key"])
    protocol = HostWebSocket(
        taken, stream, fields, taken.transport, taken, Limits(), UNBOUND, agree
    )
    taken.stream, taken.protocol = stream, protocol
    return protocol


class HostWebSocket(WebSocketProtocol):
    """A WebSocket that takes its connection from a host when it is accepted."""

    def __init__(self, taken: TakenOver, *args: Any) -> None:
        super().__init__(*args)
        self._taken = taken

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        """Answer 101; as :meth:`Messaging.accept`."""
        super().accept(subprotocol, headers)
        try:
            self._taken.transport.take()
        except OSError:
            raise ClientDisconnected("the client has left") from None


class _Before(Channel):
    """The channel of a stream whose connection is still the host's."""

    def __init__(self, lock: AbstractContextManager[Any], peer: Peer) -> None:
        self.lock = lock
        self.peer = peer


class TakenOver(Owner):
    """One connection of a host.

    Attributes:
        peer: its two ends.
        transport: what sends on it.
        stream: the request.
        protocol: the WebSocket.
    """

    stream: Stream
    protocol: Protocol

    def __init__(self, host: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.loop = background_loop.get()
        self.transport = HostTransport(self, host)
        self._told = False  # that the view has ended

    def ended(self, stream: Stream) -> None:
        """Do nothing: the stream is the WebSocket's; from any thread."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon; from any thread."""
        self.loop.call_soon_threadsafe(function)

    def switch(self, protocol: Protocol) -> None:  # noqa: ARG002 - there is one
        """Begin to look at the clock."""
        self.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        if not self.transport.lost:
            self.loop.call_later(TICK, self._tick)
            self.protocol.mind_time(TICK)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client's."""
        self.protocol.data_received(data)

    def eof_received(self) -> None:
        """Take the end of what the client sends."""
        self.protocol.eof_received()

    def connection_lost(self) -> None:
        """Tell the WebSocket that the connection has ended."""
        self.protocol.connection_lost()

    def view_ended(self, answer: bytes) -> None:
        """Called with the beginning of the host's response: the view has returned, or failed."""
        if self._told:
            return
        self._told = True
        if answer.startswith(b"HTTP/") and answer[9:10] == b"5":
            self.stream.cut()
        else:
            self.stream.leave()


class HostTransport(Transport):
    """Sends on a connection that it takes from the host with the first bytes; from any thread.

    Attributes:
        lock: guards the connection; the loop takes it, too.
        lost: whether the connection has ended.
    """

    def __init__(self, owner: TakenOver, host: socket.socket) -> None:
        self.lock: AbstractContextManager[Any] = Lock()
        self.lost = False
        self._owner = owner
        self._loop = owner.loop
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._limit = Limits().unsent
        self._posted = 0  # bytes on their way to the loop; under the lock
        self._full = False  # asyncio's transport has more than the limit
        self._room: Signal | None = None
        self._first = b""  # what is written before the connection is taken

    def write(self, data: bytes, *more: bytes) -> bool:
        """Queue bytes; return false when the client will never take them."""
        whole = b"".join((data, *more))
        with self.lock:
            if self._transport is None:
                self._first += whole
                return True
            if self.lost:
                return False
            self._posted += len(whole)
        self._loop.call_soon_threadsafe(self._send, whole)
        return True

    def take(self) -> None:
        """Take the host's connection, and send what was written before; not under the lock.

        Raises:
            OSError: the host has closed it.
        """
        host = self._host
        client = host.dup()
        client.setblocking(False)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(host.gettimeout())  # whether it blocks is the socket's, not the object's
        os.dup2(theirs.fileno(), host.fileno(), inheritable=False)
        theirs.close()
        asyncio.run_coroutine_threadsafe(self._connect(client, ours), self._loop).result()

    async def _connect(self, client: socket.socket, ours: socket.socket) -> None:
        connect = self._loop.connect_accepted_socket
        transport, _ = await connect(lambda: _Client(self, self._owner), client)
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(self._limit)
        with self.lock:
            self._transport = transport
        transport.write(self._first)
        await connect(lambda: _Answer(self._owner), ours)

    def _send(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        with self.lock:
            self._posted -= len(data)
        if not transport.is_closing():
            transport.write(data)
        self.look()

    def hold(self, full: bool) -> None:
        """Called when much waits for the client, and when it has taken enough."""
        self._full = full
        self.look()

    def look(self) -> None:
        """Let those go on that wait for the client, if it has caught up, or is gone."""
        if self.lost or not self.behind:
            room, self._room = self._room, None
            if room is not None:
                room.fire()

    def room(self) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        with self.lock:
            if self.lost or not self.behind:
                return None
            if self._room is None:
                self._room = Signal()
            room = self._room
        self.look()  # the loop may have looked before
        return room

    @property
    def queued(self) -> int:
        """Bytes on their way to the loop."""
        return self._posted

    @property
    def behind(self) -> bool:
        """Whether the client must take some before more should be sent."""
        return self._full or self._posted > self._limit

    def pause_reading(self) -> None:
        """Stop reading what the client sends."""
        self._soon(lambda transport: transport.pause_reading())

    def resume_reading(self) -> None:
        """Read again."""
        self._soon(lambda transport: transport.resume_reading())

    def close(self, linger: bool = False) -> None:  # noqa: ARG002 - asyncio drops what comes in
        """Send what is queued, then close."""
        self._soon(lambda transport: transport.close())

    def abort(self) -> None:
        """Reset the connection."""
        self._soon(lambda transport: transport.abort())

    def _soon(self, do: Callable[[asyncio.Transport], object]) -> None:
        """Do something with asyncio's transport, behind what has been written."""

        def doing() -> None:
            if self._transport is not None:
                do(self._transport)

        self._loop.call_soon_threadsafe(doing)


class _Client(asyncio.Protocol):
    """The client's side, as asyncio knows it."""

    def __init__(self, transport: HostTransport, owner: TakenOver) -> None:
        self._transport = transport
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        self._owner.data_received(data)

    def eof_received(self) -> bool:
        self._owner.eof_received()
        return True  # it is closed behind what is being written

    def pause_writing(self) -> None:
        self._transport.hold(True)

    def resume_writing(self) -> None:
        self._transport.hold(False)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - whatever it is
        self._transport.lost = True
        self._transport.look()
        self._owner.connection_lost()


class _Answer(asyncio.Protocol):
    """What the host sends, which nobody else reads."""

    def __init__(self, owner: TakenOver) -> None:
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        self._owner.view_ended(data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - as above
        self._owner.view_ended(b"")


holds_lock(HostTransport.write, HostTransport._connect, HostTransport._send, HostTransport.room)
