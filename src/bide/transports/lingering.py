"""How long a closing connection is still read, whose client may yet send.

Numbers only: the transport tells of what comes, and of time.
"""

from __future__ import annotations

from typing import Final

MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes that are read and dropped so that a client, which sends all before it reads, gets its
answer."""
MOST_PERIODS: Final = 15
"""Time-outs for which a client that goes on sending is read: 30 s, where one is 2 s."""


class Lingering:
    """What one client has sent since its connection began to close; on the loop."""

    __slots__ = ("_bytes", "_moved", "_periods")

    def __init__(self) -> None:
        self._bytes = 0
        self._moved = True  # since the last period began
        self._periods = 0

    def take(self, size: int) -> bool:
        """Count ``size`` more bytes; whether more may come."""
        self._bytes += size
        self._moved = True
        return self._bytes < MOST_BYTES

    def goes_on(self) -> bool:
        """Begin a period, the first or another; whether there is one."""
        moved, self._moved = self._moved, False
        self._periods += 1
        return moved and self._periods <= MOST_PERIODS
