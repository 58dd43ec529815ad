"""A WebSocket whose other end is a host, which sends and receives whole messages.

The host takes out what the application sends, and puts in what the client sends. What waits in
between is bounded both ways. Until the application accepts, its stream is an ordinary one, on the
host's channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bide.errors import Cancelled, ClientDisconnected, WebSocketClosed
from bide.exchange.channel import Channel
from bide.exchange.handshake import switching
from bide.exchange.messaging import (
    BUSY,
    FAILED,
    LOST,
    NO_CODE,
    NORMAL,
    RESTART,
    TEXT,
    Message,
    Messaging,
    NextMessage,
    close_of,
    encoded,
    unframed,
)
from bide.exchange.stream import ENDED, Stream
from bide.hosts.channel import UNSENT, HostChannel
from bide.settings import DEFAULTS
from bide.waiting.locks import holds_lock
from bide.waiting.outcome import Signal

WINDOW: Final = DEFAULTS.limit_unread
"""Bytes of messages that wait for the application before the host is asked for no more."""
EACH: Final = 64
"""Bytes that each message counts beside its own."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The application has accepted.

    Attributes:
        subprotocol: the one that it has chosen.
        headers: of the answer.
    """

    subprotocol: str | None
    headers: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Closed:
    """The application has closed it, or Bide has; nothing comes after this."""

    code: int
    reason: str


Step = Accepted | Closed | str | bytes
"""What the host takes out, in order; text and bytes are messages."""


class HostMessaging(Channel, Messaging):
    """One WebSocket of a host; from any thread.

    Args:
        stream: the request, and the answer in place of accepting.
        channel: the stream's; its lock is this one's, too.
        fields: the request's headers, by their names in lower case.
        subprotocols: what the client offers.
        ready: called when there is something to take out; under the lock.
        room_again: called when messages may be put in again, after it was full.
    """

    def __init__(
        self,
        stream: Stream,
        channel: HostChannel,
        fields: Mapping[str, str],
        subprotocols: tuple[str, ...],
        ready: Callable[[], None],
        room_again: Callable[[], None],
    ) -> None:
        self.lock = channel.lock
        self.peer = channel.peer
        self.fields = fields
        self.subprotocols = subprotocols
        self.accepted = False
        self.over: tuple[int, str] | None = None
        self.told: Callable[[], object] | None = None
        self._stream = stream
        self._ready = ready
        self._room_again = room_again
        # Under the lock:
        self._steps: list[Step] = []
        self._unsent = 0  # bytes of messages that the host has not sent
        self._taken = 0  # those of them that it has taken
        self._room: Signal | None = None
        self._messages: deque[tuple[Message, int]] = deque()
        self._unread = 0  # what they count
        self._was_full = False
        self._next: NextMessage | None = None  # somebody waits for it

    # The application's --------------------------------------------------------------------------

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        """Have the host accept; as :meth:`Messaging.accept`."""
        head = switching(headers, subprotocol, self.subprotocols)
        with self.lock:
            if self.over is not None:
                raise ClientDisconnected("the client has left")
            self._stream.follow(head, self)
            self.accepted = True
            self._steps.append(Accepted(subprotocol, list(head.headers)))
            self._ready()

    def receive(self) -> Message | Signal:
        """Return the next message, or what to wait for."""
        with self.lock:
            if not self._messages:
                if self.over is not None:
                    raise WebSocketClosed(*self.over)
                if self._next is None:
                    self._next = NextMessage()
                return self._next
            message, size = self._messages.popleft()
            self._unread -= size
            self._look_for_room()
            return message

    def send_message(self, message: Message) -> Signal | None:
        """Have the host send a message."""
        opcode, data = encoded(message)
        with self.lock:
            if self.over is not None:
                raise WebSocketClosed(*self.over)
            self._put(opcode, data)
            return self.room()

    def send_encoded(self, frame: bytes) -> bool:
        """Have the host send what a frame has, unless the client is behind: then close it."""
        with self.lock:
            if self.over is not None or not self.accepted:
                return False
            if self._unsent >= UNSENT:
                self._finish(BUSY, "too slow")
                return False
            self._put(*unframed(frame))
            return True

    def room(self, stream: Stream | None = None) -> Signal | None:  # noqa: ARG002 - it is of one
        """Return what fires when the host has sent all that it has taken; None below the limit."""
        with self.lock:
            if self._unsent < UNSENT or self.over is not None:
                return None
            if self._room is None:
                self._room = Signal()
            return self._room

    def close(self, code: int, reason: str) -> None:
        """Have the host close it, and drop what has come."""
        with self.lock:
            self._drop()
            self._finish(code, reason)

    def broken_off(self, stream: Stream, why: Cancelled) -> None:  # noqa: ARG002 - there is one
        """Called when the view goes on no further: close it with the code that says why."""
        with self.lock:
            self._finish(*close_of(why))

    def ended(self, stream: Stream) -> None:
        """Called when the application has returned, or failed: close it, if it has not."""
        with self.lock:
            self._drop()
            if stream.state == ENDED:
                self._finish(NORMAL)
            else:
                self._finish(FAILED, "the application failed")

    # The host's ---------------------------------------------------------------------------------

    def take(self) -> list[Step]:
        """Take out what waits for the host."""
        with self.lock:
            steps, self._steps = self._steps, []
            self._taken = self._unsent
        return steps

    def sent(self) -> None:
        """Called when the host has sent all that it has taken: the application may go on."""
        with self.lock:
            self._unsent -= self._taken
            self._taken = 0
            if not self._unsent:
                self._fire_room()

    def must_pause(self) -> bool:
        """Return whether the host should put no more in, until it is told that there is room."""
        with self.lock:
            self._was_full = self._unread >= WINDOW and self.over is None
            return self._was_full

    def feed(self, message: Message) -> None:
        """Put in a message of the client's; it is dropped when the WebSocket has ended."""
        with self.lock:
            if self.over is None:
                size = len(message) + EACH
                self._messages.append((message, size))
                self._unread += size
                self._tell()

    def lose(self, code: int = LOST, reason: str = "") -> bool:
        """Called when the client has closed, or has gone; without effect once it has ended.

        Return whether the application has accepted. If it has not, it can no more.
        """
        with self.lock:
            if self.over is None:
                self._steps = []
                self._end(code or NO_CODE, reason)
            return self.accepted

    def drain(self) -> None:
        """Close it, if it is accepted: the client should come again."""
        with self.lock:
            self._finish(RESTART, "the server stops")

    # Under the lock -----------------------------------------------------------------------------

    def _put(self, opcode: int, data: bytes) -> None:
        self._steps.append(data.decode() if opcode == TEXT else data)
        self._unsent += len(data)
        self._ready()

    def _finish(self, code: int, reason: str = "") -> None:
        if self.over is None and self.accepted:
            self._steps.append(Closed(code, reason))
            self._end(code, reason)
            self._ready()

    def _end(self, code: int, reason: str) -> None:
        self.over = (code, reason)
        told, self.told = self.told, None
        if told is not None:
            told()
        self._tell()
        self._fire_room()
        self._look_for_room()

    def _tell(self) -> None:
        signal, self._next = self._next, None
        if signal is not None:
            signal.fire()

    def _fire_room(self) -> None:
        signal, self._room = self._room, None
        if signal is not None:
            signal.fire()

    def _look_for_room(self) -> None:
        """Tell the host, if it waits, that messages may be put in again, or that it has ended."""
        if self._was_full and (self._unread < WINDOW or self.over is not None):
            self._was_full = False
            self._room_again()

    def _drop(self) -> None:
        self._messages.clear()
        self._unread = 0
        self._look_for_room()


holds_lock(
    HostMessaging.accept,
    HostMessaging.receive,
    HostMessaging.send_message,
    HostMessaging.send_encoded,
    HostMessaging.room,
    HostMessaging.close,
    HostMessaging.broken_off,
    HostMessaging.ended,
    HostMessaging.take,
    HostMessaging.sent,
    HostMessaging.must_pause,
    HostMessaging.feed,
    HostMessaging.lose,
    HostMessaging.drain,
)
