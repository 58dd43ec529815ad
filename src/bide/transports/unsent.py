"""What waits for a client: references to the blocks that were written, never copies of them."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from typing import Final

from bide.exchange.totals import Total
from bide.waiting.outcome import Signal

PIECE: Final = 256 * 1024
"""Bytes that are handed to the system at once: the lock is held for no longer than that takes."""


def send_first(sock: socket.socket, blocks: Sequence[bytes]) -> int:
    """Send the first piece of some blocks together; return how many bytes the system took.

    Raises OSError as ``socket.send`` does, BlockingIOError where it takes none.
    """
    left = PIECE
    pieces = []
    for block in blocks:
        pieces.append(block if len(block) <= left else memoryview(block)[:left])
        left -= len(pieces[-1])
        if not left:
            break
    return sock.sendmsg(pieces)


class Unsent:
    """One connection's queue; under its transport's lock, but for a look at ``size`` or ``high``.

    Args:
        high_water: bytes from which on the application waits, until a quarter of it is left.
        total: where its bytes count together with those of other connections. All of them count,
            also those of an object that several connections refer to. While it is full, the
            application waits for each byte: its own client takes all, so that none waits for
            another's.

    Attributes:
        size: bytes that wait.
    """

    __slots__ = ("_blocks", "_high_water", "_room", "_total", "size")

    def __init__(self, high_water: int, total: Total) -> None:
        self._blocks: deque[bytes | memoryview] | None = None  # made at first need: it is large
        self._high_water = high_water
        self._total = total
        self._room: Signal | None = None
        self.size = 0

    @property
    def high(self) -> bool:
        """Whether so much waits that the application should wait, too."""
        return self.size > 0 and self.size >= self._most()

    def room(self) -> Signal:
        """Return what fires when little is left, or all is dropped."""
        if self._room is None:
            self._room = Signal()
        return self._room

    def _most(self) -> int:
        return 0 if self._total.full else self._high_water

    def add(self, blocks: Sequence[bytes], sent: int) -> None:
        """Queue some blocks, of which the first ``sent`` bytes were sent already."""
        if self._blocks is None:
            self._blocks = deque()
        added = -sent
        for block in blocks:
            added += len(block)
            if sent >= len(block):
                sent -= len(block)
            else:
                self._blocks.append(memoryview(block)[sent:] if sent else block)
                sent = 0
        self._count(added)

    def send(self, sock: socket.socket) -> None:
        """Send a piece of what waits, as far as the client takes it; raises as ``socket.send``."""
        blocks = self._blocks
        before = left = PIECE
        try:
            while left and blocks:
                block = blocks[0]
                piece = block if len(block) <= left else memoryview(block)[:left]
                sent = sock.send(piece)
                left -= sent
                if sent == len(block):
                    blocks.popleft()
                else:
                    blocks[0] = memoryview(block)[sent:]
                    if sent < len(piece):
                        break
        finally:
            self._count(left - before)
            if self.size <= self._most() // 4:
                self._fire()

    def clear(self) -> None:
        """Drop all of it."""
        self._blocks = None
        self._count(-self.size)
        self._fire()

    def _fire(self) -> None:
        if self._room is not None:
            signal, self._room = self._room, None
            signal.fire()

    def _count(self, size: int) -> None:
        if size:
            self.size += size
            self._total.add(size)
