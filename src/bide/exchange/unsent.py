"""What waits for a client: references to the blocks that were written, never copies of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from bide.exchange.totals import Total
from bide.waiting.outcome import Signal

Block = bytes | memoryview

PIECE: Final = 256 * 1024
"""Bytes that are handed to the system at once: the lock is held for no longer than that takes."""
MOST_PIECES: Final = 64
"""Blocks that are handed to the system at once. All systems take more of them."""
SMALL: Final = 4096
"""Bytes of a block that is cheaper copied into one with its neighbours than handed over by itself.

64 KiB in blocks of 100 bytes: joined 12 µs, by ``sendmsg`` 32, one by one 311. In blocks of 1 to
4 KiB the first two take the same.
"""
JOINED: Final = 64 * 1024
"""Bytes that small blocks are joined to."""


def first_piece(blocks: Iterable[Block]) -> list[Block]:
    """Return the beginning of some blocks, as much as is handed to the system at once; uncopied."""
    left = PIECE
    pieces: list[Block] = []
    for block in blocks:
        size = len(block)
        if size >= left:
            pieces.append(block if size == left else memoryview(block)[:left])
            break
        pieces.append(block)
        if len(pieces) == MOST_PIECES:
            break
        left -= size
    return pieces


class Unsent:
    """One connection's queue; under its transport's lock, except to read ``size`` or ``high``.

    Args:
        high_water: bytes from which on the application waits, until a quarter of it is left.
        total: where its bytes count together with those of other connections. All of them count,
            also those of an object that several connections refer to. While it is full, the
            application waits for each byte: its own client takes all, so that none waits for
            another's.

    Attributes:
        high_water, total: as given.
        size: bytes that wait.
    """

    __slots__ = ("_blocks", "_room", "high_water", "size", "total")

    def __init__(self, high_water: int, total: Total) -> None:
        self._blocks: deque[Block] | None = None  # made at first need: it is large
        self.high_water = high_water
        self.total = total
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
        return 0 if self.total.full else self.high_water

    def add(self, blocks: Sequence[bytes], sent: int) -> int:
        """Queue some blocks, of which the first ``sent`` bytes were sent; return what waits now."""
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
        return self.size

    def piece(self) -> list[Block]:
        """Return what to send next of what waits; small blocks are joined."""
        blocks = self._blocks
        assert blocks
        if len(blocks) > 1 and len(blocks[0]) < SMALL:
            small: list[Block] = []
            left = JOINED
            while left > 0 and blocks and len(blocks[0]) < SMALL:
                small.append(blocks.popleft())
                left -= len(small[-1])
            blocks.appendleft(b"".join(small))
        return first_piece(blocks)

    def taken(self, size: int) -> None:
        """Drop the first bytes, which were sent; let the application go on if little is left."""
        blocks = self._blocks
        assert blocks is not None
        left = size
        while left:
            block = blocks[0]
            if left < len(block):
                blocks[0] = memoryview(block)[left:]
                break
            left -= len(block)
            blocks.popleft()
        self._count(-size)
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
            self.total.add(size)
