"""Blocks of a response that come fast, held for a moment so that they leave together.

To send 64 blocks of 1 KiB one by one takes 33 µs of CPU and more; as one block, 8 µs. But a block
of a slow application must leave at once: PEP 3333 (Buffering and Streaming) allows a server to hold
a block only where another thread sends it meanwhile. So nothing is held unless many blocks have
come fast, and then the event loop soon sends what is held.

It knows no socket. Everything is called under the transport's lock.
"""

from __future__ import annotations

from typing import Final

SOON: Final = 0.001
"""Seconds: blocks that follow within them come fast; after them the loop sends held blocks."""
ALONE: Final = 16
"""How many fast blocks are sent one by one before the next ones are held."""
MOST: Final = 64 * 1024
"""Bytes that are held at most."""
BESIDE: Final = 64
"""Bytes that a block counts for beside its own, so that small blocks are bounded, too."""


class Gathering:
    """The blocks that one connection holds.

    Args:
        most: bytes from which they must be sent; at most MOST.

    Attributes:
        blocks: the blocks that are held, in order, with their framing.
        seen_to: whether the loop will check soon.
    """

    __slots__ = ("_fast", "_last", "_left", "_most", "blocks", "seen_to")

    def __init__(self, most: int) -> None:
        self._most = min(MOST, most)
        self._left = self._most
        self._fast = 0  # blocks that came fast, up to ALONE
        self._last = 0.0  # when the last one came, or what was held was sent
        self.blocks: list[bytes] = []
        self.seen_to = False

    def begins(self, now: float) -> bool:
        """Count a block, and return whether it may be held; called while none is held."""
        last, self._last = self._last, now
        if now - last > SOON:
            self._fast = 0
        if self._fast < ALONE:
            self._fast += 1
            return False
        self._left = self._most
        return True

    def add(self, before: bytes, block: bytes, behind: bytes) -> bool:
        """Hold a block with its framing; return whether more may follow before it is sent."""
        piece = (before, block, behind)  # made first: a destructor that runs here may write, too
        self.blocks += piece
        self._left -= len(block) + BESIDE
        return self._left > 0

    def take(self) -> bytes:
        """Take out what is held, as one block."""
        blocks: list[bytes] = []  # made first, as above
        blocks, self.blocks = self.blocks, blocks
        return b"".join(blocks)

    def sent(self, now: float) -> None:
        """Called when the held blocks were sent since they were many: the next comes fast, too."""
        self._last = now
