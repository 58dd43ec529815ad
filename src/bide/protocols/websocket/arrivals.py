"""Whole messages of one WebSocket, until they are taken; and plain frames, which are read here.

Almost every frame of a client is a message of its own, short and not compressed. Of such a one
little can be wrong, and it is read in one step. Whatever is not *plain and certain* is left to the
strict way: :class:`bide.protocols.websocket.frames.Frames`, which would take this one, too, and
understand the same. No locks: who calls it holds the connection's.
"""

from __future__ import annotations

from typing import Final

from bide.exchange.messaging import Message

try:
    from websockets.speedups import apply_mask
except ImportError:  # it is built without its part in C
    from websockets.utils import apply_mask

FRAGMENT: Final = 64
"""Bytes that each fragment of a message counts beside its data: what it takes at least."""


class Arrivals:
    """The messages that wait, and whether the next byte begins a frame that may be plain.

    Attributes:
        messages: those that have come, each with what it counts.
        waiting: what they count together.
        between: whether all that has come is whole messages, and more of them are kept.
    """

    __slots__ = ("_limit", "between", "messages", "waiting")

    def __init__(self, limit: int) -> None:
        """Make it; ``limit`` is the bytes of a message."""
        self._limit = limit
        # A list: an empty deque takes 760 bytes, and few wait, for a full window is 1,024 of them.
        self.messages: list[tuple[Message, int]] = []
        self.waiting = 0
        self.between = True

    def add(self, message: Message, size: int) -> None:
        """Keep a message that counts so much."""
        self.messages.append((message, size))
        self.waiting += size

    def pop(self) -> tuple[Message, int]:
        """Take the message that has waited longest, with what it counts; there is one."""
        taken = self.messages.pop(0)
        self.waiting -= taken[1]
        return taken

    def clear(self) -> int:
        """Drop the messages that wait; return what they have counted."""
        waiting = self.waiting
        self.messages.clear()
        self.waiting = 0
        return waiting

    def take(self, data: bytes, at: int) -> int:
        """Take the frame that begins there, if it is plain; return where it ends, else 0.

        It is whole, a whole message (FIN, and text or binary), not compressed (no RSV1), masked,
        of 65,535 bytes at most and no more than may be.
        """
        end = len(data)
        if end - at < 6:
            return 0
        first = data[at]
        if first != 0x81 and first != 0x82:
            return 0
        size = data[at + 1] - 0x80
        at += 2
        if size == 126:
            if end - at < 6:
                return 0
            size = data[at] << 8 | data[at + 1]
            at += 2
        elif size < 0 or size == 127:
            return 0
        start = at + 4
        if end - start < size or size > self._limit:
            return 0
        end = start + size
        content = apply_mask(data[start:end], data[at:start])
        if first == 0x82:
            self.add(content, size + FRAGMENT)
            return end
        try:
            self.add(content.decode("utf-8"), size + FRAGMENT)
        except UnicodeDecodeError:  # the strict way fails the connection
            return 0
        return end
