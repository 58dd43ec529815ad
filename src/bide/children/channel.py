"""A response on its way from a child to the server, which sends it to the client."""

from __future__ import annotations

import pickle
from collections import deque
from typing import Final, Protocol

from bide.children.frames import CUT, DONE, END, HEAD, MORE, PIECE, SEND, WANTED, WINDOW
from bide.exchange.channel import Channel
from bide.exchange.messages import Head
from bide.exchange.peer import Peer
from bide.exchange.stream import CUT as IS_CUT
from bide.exchange.stream import READY, Stream
from bide.settings import DEFAULTS
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.outcome import Signal

UNSENT: Final = DEFAULTS.limit_unsent
"""Bytes that may wait for the client before the application does."""


class Send(Protocol):
    """Sends a frame; from any thread."""

    def __call__(self, kind: int, call: int, payload: bytes | memoryview = b"") -> None:
        """Send it."""


class ChildChannel(Channel):
    """A stream's channel whose other end is the server; used from any thread.

    What the server has no room for waits here, uncopied. The thread that hears of room sends it.

    Args:
        peer: the two ends of the connection.
        call: the number of the call.
        send: sends a frame.

    Attributes:
        lock, peer: as a channel has.
    """

    def __init__(self, peer: Peer, call: int, send: Send) -> None:
        self.lock = Lock()
        self.peer = peer
        self._call = call
        self._send = send
        # Under the lock:
        self._gone = False
        self._pieces: deque[tuple[int, memoryview]] = deque()
        self._held = 0  # bytes in them
        self._on_way = 0  # bytes that were sent, and that the client has not taken
        self._room: Signal | None = None
        self._finished = False

    # The stream's -------------------------------------------------------------------------------

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Send a block, and before the first block the head; return false if the client is gone."""
        if self._gone:
            return False
        length = None
        if stream.state == READY:
            head = stream.head
            assert head is not None
            if last and head.length is None and not head.bodiless:
                # All of the body is here. One of no bytes to a HEAD request says nothing of it.
                length = None if stream.bodiless and not block else len(block)
            self._send(HEAD, self._call, pickle.dumps((*_parts(head), length)))
        if stream.bodiless:
            block = b""
        view = memoryview(block)
        for at in range(0, len(block), PIECE):
            ends = last and at + PIECE >= len(block)
            self._pieces.append((END if ends else SEND, view[at : at + PIECE]))
        if not block:
            self._pieces.append((END if last else SEND, view))
        self._held += len(block)
        self._pump()
        return True

    def _pump(self) -> None:
        """Send what there is room for; under the lock."""
        pieces = self._pieces
        while pieces and self._on_way + len(pieces[0][1]) <= WINDOW:
            kind, piece = pieces.popleft()
            self._held -= len(piece)
            self._on_way += len(piece)
            self._send(kind, self._call, piece)
        if self._finished and not pieces:
            self._finished = False
            self._send(DONE, self._call)

    def room(self, stream: Stream) -> Signal | None:  # noqa: ARG002 - it is of one stream
        """Return what fires when the client has caught up; None when it is not behind."""
        with self.lock:
            if self._gone or self._held + self._on_way < UNSENT:
                return None
            if self._room is None:
                self._room = Signal()
            return self._room

    def wanted(self, stream: Stream) -> None:
        """Ask for a body that the client does not send unasked."""
        with self.lock:
            if stream.asks_for_body():
                self._send(WANTED, self._call)

    def taken(self, stream: Stream) -> None:
        """Ask for more of the body, which has room again."""
        stream.body.paused = False
        self._send(MORE, self._call)

    def ended(self, stream: Stream) -> None:
        """Tell the server that the response was cut; its end it has been told."""
        with self.lock:
            if stream.state is IS_CUT:
                self._drop()
                self._send(CUT, self._call)

    # The child's --------------------------------------------------------------------------------

    def taken_by_client(self, size: int) -> None:
        """Called when the client has taken so many bytes."""
        with self.lock:
            self._on_way -= size
            self._pump()
            if self._held + self._on_way >= UNSENT:
                return
            signal, self._room = self._room, None
        if signal is not None:
            signal.fire()

    def finish(self) -> None:
        """Called when the call has ended: tell the server, once it has all of the response."""
        with self.lock:
            self._finished = True
            self._pump()

    def close(self) -> None:
        """Called when the client is gone: drop what waits for it."""
        with self.lock:
            self._gone = True
            self._drop()
            self._pump()
            signal, self._room = self._room, None
        if signal is not None:
            signal.fire()

    def _drop(self) -> None:
        self._pieces.clear()
        self._held = 0


def _parts(head: Head) -> tuple[str, list[tuple[str, str]]]:
    """Return status and headers, as an application gives them."""
    headers = list(head.headers)
    if head.connection:
        headers.append(("Connection", head.connection))
    return f"{head.code:03d} {head.reason}", headers


holds_lock(
    ChildChannel.room,
    ChildChannel.wanted,
    ChildChannel.ended,
    ChildChannel.taken_by_client,
    ChildChannel.finish,
    ChildChannel.close,
)
