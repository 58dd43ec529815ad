"""A response on its way into another server, the host, which frames and sends it.

The conversation, and threads that push, put blocks in; the host takes them out. What waits in
between is bounded.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from bide.errors import ClientDisconnected
from bide.exchange.channel import Channel
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.stream import ENDED, READY, Stream
from bide.settings import DEFAULTS
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.outcome import Signal
from bide.waiting.parking import runs_loop

UNSENT: Final = DEFAULTS.limit_unsent
"""Bytes that wait for the host before the application does."""


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Part:
    """Some of a response, in order.

    Attributes:
        head: its head, in the first part.
        blocks: blocks of its body, none of them empty.
        ended: whether this is all of it.
        cut: whether it ends here, though it is not complete.
        length: with the head, bytes of the whole body, also where no body is sent; None where it is
            not known, or must not be sent.
    """

    head: Head | None
    blocks: list[bytes]
    ended: bool
    cut: bool
    length: int | None = None


class HostChannel(Channel):
    """A stream's channel whose other end is a host; used from any thread.

    Args:
        peer: the two ends of the connection.
        ready: called when there is something to take; from any thread, under the lock.
        limit: bytes that may wait before the application does, as UNSENT.
        room_again: called when the body's window has room again, after it was full.

    Attributes:
        lock, peer: as a channel has.
        gone: set by the host when it takes no more.
    """

    def __init__(
        self,
        peer: Peer,
        ready: Callable[[], None],
        limit: int = UNSENT,
        room_again: Callable[[], None] = _nothing,
    ) -> None:
        self.lock = Lock()
        self.peer = peer
        self.gone = False
        self._ready = ready
        self._limit = limit
        self._room_again = room_again
        # Under the lock:
        self._head: Head | None = None
        self._blocks: list[bytes] = []
        self._waiting = 0  # bytes that the host has not sent on
        self._length: int | None = None
        self._state = ""
        self._room: Signal | None = None
        self._closed: Signal | None = None

    # The stream's -------------------------------------------------------------------------------

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Add a block, and before the first block the head; return false if the host is gone."""
        if self.gone:
            return False
        if stream.state == READY:
            self._head = stream.head
            if last and stream.head is not None and stream.head.length is None:
                unknown = stream.head.bodiless or (stream.bodiless and not block)
                self._length = None if unknown else len(block)
        if block and not stream.bodiless:
            self._blocks.append(block)
            self._waiting += len(block)
        if not last:  # else the end follows at once
            self._ready()
        return not self.gone  # it may have learnt that just now

    def room(self, stream: Stream) -> Signal | None:  # noqa: ARG002 - it is of one stream
        """Return what fires when the host has sent on all that waits; None below the limit."""
        # On a loop's thread code cannot wait for each block, so there a few may be ahead.
        limit = UNSENT if runs_loop() else self._limit
        with self.lock:
            if self._waiting < limit or self.gone:
                return None
            if self._room is None:
                self._room = Signal()
            return self._room

    def taken(self, stream: Stream) -> None:
        """Called when the application has read from a full body: tell the host to feed more."""
        stream.body.paused = False
        self._room_again()

    def ended(self, stream: Stream) -> None:
        """Tell the host that the response has ended."""
        with self.lock:
            self._state = stream.state
            self._ready()

    # The host's ---------------------------------------------------------------------------------

    def take(self) -> Part | None:
        """Take out the parts that wait; return None when there is nothing new."""
        with self.lock:
            head, self._head = self._head, None
            blocks, self._blocks = self._blocks, []
            state, self._state = self._state, ""
        if head is None and not blocks and not state:
            return None
        length = self._length if head is not None else None
        return Part(head, blocks, state == ENDED, bool(state) and state != ENDED, length)

    def sent(self, blocks: list[bytes]) -> None:
        """Called when the host has sent these blocks: the application may go on."""
        with self.lock:
            self._waiting -= sum(map(len, blocks))
            if self._waiting:
                return
            signal, self._room = self._room, None
        if signal is not None:
            signal.fire()

    def close(self) -> None:
        """Called when the client has left: refuse what comes, and end the waits for room."""
        with self.lock:
            self.gone = True
            self._blocks = []
            signals = (self._room, self._closed)
            self._room = self._closed = None
        for signal in signals:
            if signal is not None:
                signal.fire()

    def lose(self, stream: Stream, reason: str) -> ClientDisconnected:
        """Called when the client has left: take no more, and fail the body; on the loop.

        Return the error to cancel the conversation with.
        """
        gone = ClientDisconnected(reason)
        stream.gone = True
        self.close()
        stream.body.fail(gone)
        return gone

    def closed(self) -> Signal | None:
        """Return what fires when the host takes no more; None if it has closed; any thread."""
        with self.lock:
            if self.gone:
                return None
            if self._closed is None:
                self._closed = Signal()
            return self._closed


def request_of(environ: Mapping[str, Any]) -> Request:
    """Return the request of a WSGI host's environ."""
    root, path, query = (
        environ.get(key, "").encode("latin-1", "replace")
        for key in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
    )
    raw = quote(root + path, safe=string.punctuation.replace("%", "")).encode()
    request = Request(
        environ["REQUEST_METHOD"],
        raw + b"?" + query if query else raw,
        raw,
        query,
        environ.get("SERVER_PROTOCOL", "HTTP/1.0").removeprefix("HTTP/"),
        [],
    )
    request.root, request.path = root, path
    return request


def status_line(head: Head) -> str:
    """Return a head's status as PEP 3333 wants it: a code, a space, and a reason."""
    return f"{head.code:03d} {head.reason}"


holds_lock(
    HostChannel.room,
    HostChannel.ended,
    HostChannel.take,
    HostChannel.sent,
    HostChannel.close,
    HostChannel.closed,
)
