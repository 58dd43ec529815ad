"""WebSocket (RFC 6455) on a connection that HTTP/1 has handed over: frames to messages and back.

It is made for a request that asks for it, and takes over when the application accepts. Over HTTP/2
its connection is one stream. The loop parses; any thread sends. It imports no sockets, threads or
asyncio.

Invariants:

- One lock, the connection's, guards the state, the messages that wait, and each write. A second one
  is held from the compressing of a message until its frame is written, so frames leave in the order
  in which they were compressed; the loop never takes that one.
- Once ``over`` is set nothing but control frames is written, and nothing that comes is kept.
- What waits for the application is bounded, see :class:`Inbox`.
- Nothing is read while bytes wait to be parsed. The loop parses those before, as soon as the
  application has taken enough, or the end has come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final

from websockets.protocol import OPEN

from bide.compiling import mypyc_attr
from bide.errors import Cancelled, ClientDisconnected, WebSocketClosed
from bide.exchange.handshake import subprotocols_of, switching
from bide.exchange.limits import Limits
from bide.exchange.messaging import (
    BUSY,
    FAILED,
    LOST,
    NO_CODE,
    NORMAL,
    RESTART,
    Message,
    NextMessage,
    close_of,
    encoded,
    framed,
)
from bide.exchange.stream import ENDED, Stream
from bide.exchange.totals import Total
from bide.protocols.caught_up import CaughtUp
from bide.protocols.interfaces import RESPONSE, WEBSOCKET, Agree, Owner, Protocol, Transport
from bide.protocols.websocket.frames import LEAST, Frames
from bide.protocols.websocket.inbox import Inbox
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.outcome import Signal

PING: Final = 20.0
"""Seconds between two pings; one that nothing has answered until the next ends the connection."""
CLOSING: Final = 5.0
"""Seconds for which the client's close frame is waited for, when this side has sent one."""


@mypyc_attr(allow_interpreted_subclasses=True)
class WebSocketProtocol(Protocol):
    """One WebSocket: the protocol of its connection, the channel of its stream, its messages.

    It is a :class:`Messaging`, too.

    Attributes:
        fields, subprotocols, accepted, told: as there.
        over: the close code and reason that are told, once it has ended; None before.
    """

    name: ClassVar[str] = WEBSOCKET

    def __init__(
        self,
        stream: Stream,
        fields: Mapping[str, str],
        transport: Transport,
        owner: Owner,
        limits: Limits,
        unread: Total,
        agree: Agree,
    ) -> None:
        """Make it for a request, whose headers have been checked."""
        self.lock: AbstractContextManager[Any] = transport.lock
        self.peer = owner.peer
        self.fields = fields
        self.subprotocols = subprotocols_of(fields)
        self.accepted = False
        self.over: tuple[int, str] | None = None
        self.told: Callable[[], object] | None = None
        self._sending: AbstractContextManager[Any] = Lock()
        self._stream = stream
        self._transport = transport
        self._owner = owner
        self._agree = agree
        # Under the lock:
        self._frames = Frames(limits.message, limits.deflate)
        self._inbox = Inbox(self._frames, limits.window, unread)
        self._next: NextMessage | None = None  # somebody waits for it
        self._paused = False
        self._catching_up = False
        self._parsing_on = False  # the loop will parse what is kept
        self._lost = False  # the connection has ended, and what came before is not parsed
        # Of the clock; on the loop:
        self._clock = 0.0
        self._pinged = False
        self._heard = False

    # The application's, from any thread ----------------------------------------------------------

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        """Answer that it is accepted, and have the loop switch the connection's protocol."""
        head = switching(headers, subprotocol, self.subprotocols)
        extensions = self._frames.negotiate(self.fields.get("sec-websocket-extensions", ""))
        with self.lock:
            self._stream.follow(head, self)
            self.accepted = True
            # From now on the end of the connection is told here, and not to the application's wait.
            self._owner.ended(self._stream)
            if self._stream.gone or not self._agree(head, extensions, subprotocol):
                self._end(LOST)
                raise ClientDisconnected("the client has left")
        self._owner.call_soon(self._switch)

    def _switch(self) -> None:
        self._owner.switch(self)

    def receive(self) -> Message | Signal:
        """Return the next message, or what to wait for."""
        with self.lock:
            message = self._inbox.pop()
            if message is not None:
                if self._paused:
                    self._mind_reading(False)
                return message
            if self.over is not None:
                raise WebSocketClosed(*self.over)
            if self._next is None:
                self._next = NextMessage()
            return self._next

    def send_message(self, message: Message) -> Signal | None:
        """Send a message."""
        opcode, data = encoded(message)
        if len(data) >= LEAST and self._frames.deflates:
            with self._sending:
                self._send(self._frames.encoded(opcode, data))
        else:
            self._send(framed(opcode, data))
        return self._transport.room()

    def _send(self, frame: bytes) -> None:
        with self.lock:
            if self.over is None and not self._transport.put(frame):
                self._end(LOST)
            if self.over is not None:
                raise WebSocketClosed(*self.over)

    def send_encoded(self, frame: bytes) -> bool:
        """Send one whole frame, unless the client is behind: then close with 1013."""
        with self.lock:
            if self.over is not None or not self.accepted:
                return False
            if self._transport.room() is not None:
                self._finish(BUSY, "too slow")
                return False
            return self._transport.put(frame)

    def room(self, stream: Stream | None = None) -> Signal | None:  # noqa: ARG002
        """Return what fires when the client has caught up; None when it is not behind."""
        return self._transport.room()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and drop what has come."""
        with self.lock:
            self._finish(code, reason)
            self._drop()

    def broken_off(self, stream: Stream, why: Cancelled) -> None:  # noqa: ARG002 - there is one
        """Called when the view goes on no further: close it with the code that says why."""
        with self.lock:
            self._finish(*close_of(why))

    def ended(self, stream: Stream) -> None:
        """Called when the application has returned, or failed: close, if it has not."""
        with self.lock:
            if stream.state == ENDED:
                self._finish(NORMAL)
            else:
                self._finish(FAILED, "the application failed")
            self._drop()

    # The connection's, on the loop ----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take frames: messages, and those that are answered here."""
        with self.lock:
            self._heard = True
            self._parse(data)

    def eof_received(self) -> bool:
        """Take the end of what the client sends: there will be no close frame."""
        with self.lock:
            self._frames.receive_eof()
            self._closed()
            self._flush()
            self._transport.close()
        return False

    def eof_ahead(self) -> None:
        """Tell the application that the connection ends, behind what is not read yet."""
        with self.lock:
            self._tell_end()

    def connection_lost(self) -> None:
        """Tell the application that the connection has ended, behind what came before."""
        with self.lock:
            if self._inbox.kept and self.over is None:
                self._lost = True
                self._tell_end()
            else:
                self._inbox.end()
                self._end(LOST)

    def drain(self) -> None:
        """Close with 1012, once: the client should come again."""
        with self.lock:
            self._finish(RESTART, "the server stops")

    def mind_time(self, elapsed: float) -> None:
        """Ping a client that is silent, and end one that does not answer."""
        with self.lock:
            self._clock += elapsed
            if self.over is not None:
                if self._clock >= CLOSING:
                    self._transport.close()
            elif self._paused or self._transport.behind:
                self._clock = 0.0  # its answer would not be read, or the ping has not left
                self._pinged = False
            elif self._clock >= PING:
                self._clock = 0.0
                if self._pinged and not self._heard:
                    self._finish(FAILED, "no answer to a ping")
                    self._transport.close()
                else:
                    self._pinged, self._heard = True, False
                    self._frames.send_ping(b"")
                    self._flush()

    def endless(self, stream: Stream | None) -> bool:  # noqa: ARG002 - there is one
        """Return true."""
        return True

    @property
    def awaits(self) -> str:
        """Nothing: pings find out whether the client is there."""
        return ""

    def unsent(self, stream: Stream | None) -> int | None:  # noqa: ARG002 - there is one
        """Return the bytes that wait for the client; None when it is not behind."""
        return self._transport.queued if self._transport.behind else None

    def announced(self, stream: Stream) -> bool:  # noqa: ARG002 - as above
        """Return true: there is no body."""
        return True

    def timed_out(self, phase: str, stream: Stream | None) -> None:  # noqa: ARG002 - as above
        """Reset the connection of a client that takes too little."""
        if phase == RESPONSE:
            self._transport.abort()

    def after_fork(self) -> None:
        """Called in a forked child: it has no client, and the lock may be held."""
        self.lock = self._sending = nullcontext()
        self.over = (LOST, "")
        self._inbox.kept = b""  # else the parent's loop would be asked to parse it

    # Under the lock -------------------------------------------------------------------------------

    def _parse(self, data: bytes = b"") -> None:
        """Parse what has come, as far as it may wait, and tell who waits for it."""
        inbox, frames = self._inbox, self._frames
        inbox.take(data)
        if frames.state is not OPEN:
            self._closed()
        elif inbox.messages:
            self._tell()
        if self._lost and not inbox.kept:
            inbox.end()
            self._end(LOST)
        answered = bool(frames.writes) and self._flush()
        if answered or self._paused or self._catching_up or inbox.kept or inbox.full:
            self._mind_reading(answered)

    def _parse_on(self) -> None:
        """Called on the loop when the application has taken enough."""
        with self.lock:
            self._parsing_on = False
            self._parse()

    def _finish(self, code: int, reason: str = "") -> None:
        """Send a close frame, if it is not over."""
        if self.over is None and self.accepted:
            self._end(code, reason)
            self._frames.send_close(code, reason)
            self._flush()
            if self._paused:  # the client's close frame may be among what is kept
                self._mind_reading(False)

    def _closed(self) -> None:
        """Take over how the frames have ended: by the client, by its mistake, or by nothing."""
        frames = self._frames
        close = frames.close_sent if frames.close_rcvd is None else frames.close_rcvd
        if close is None:
            self._end(LOST)
        else:
            self._end(int(close.code), close.reason)

    def _end(self, code: int, reason: str = "") -> None:
        """Set the end, once, and tell who waits."""
        if self.over is None:
            self.over = (code or NO_CODE, reason)
            self._frames.drop()
            self._clock = 0.0
        self._tell_end()
        self._tell()

    def _tell_end(self) -> None:
        told, self.told = self.told, None
        if told is not None:
            told()

    def _tell(self) -> None:
        signal, self._next = self._next, None
        if signal is not None:
            signal.fire()

    def _flush(self) -> bool:
        """Write what the frames have to say; return whether they had."""
        writes = self._frames.data_to_send()
        if not writes:
            return False
        # At once: else a read of short pings would make ten thousand calls of the system.
        data = b"".join(writes)
        if data:
            self._transport.put(data)
        if not writes[-1]:  # the end
            self._transport.close(linger=True)
        return True

    def _drop(self) -> None:
        """Drop what waits: nobody will read it."""
        self._inbox.clear()
        if self._paused:
            self._mind_reading(False)

    def _mind_reading(self, answered: bool) -> None:
        """Stop reading where much waits for the application, or for who answers no answers."""
        stop = self._inbox.full
        if answered or self._catching_up:
            room = self._transport.room()
            if room is not None:  # else a client that pings and reads nothing fills the memory
                stop = True
                if not self._catching_up:
                    self._catching_up = True
                    room.listen(CaughtUp(self._owner, self.caught_up))
        if stop or self._inbox.kept:
            self._paused = True
            self._transport.pause_reading()
            if not stop and not self._parsing_on:
                self._parsing_on = True
                self._owner.call_soon(self._parse_on)
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()

    def caught_up(self) -> None:
        """Called when a client has taken enough; on the loop."""
        with self.lock:
            self._catching_up = False
            self._mind_reading(True)


holds_lock(
    WebSocketProtocol.accept,
    WebSocketProtocol.receive,
    WebSocketProtocol.send_message,
    WebSocketProtocol._send,
    WebSocketProtocol.send_encoded,
    WebSocketProtocol.close,
    WebSocketProtocol.broken_off,
    WebSocketProtocol.ended,
    WebSocketProtocol.data_received,
    WebSocketProtocol.eof_received,
    WebSocketProtocol.eof_ahead,
    WebSocketProtocol.connection_lost,
    WebSocketProtocol.drain,
    WebSocketProtocol.mind_time,
    WebSocketProtocol._parse_on,
    WebSocketProtocol.caught_up,
)
