"""How long a closing connection is still read, whose client may yet send.

It keeps count and time; what happens to the socket is the transport's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes that are read and dropped so that a client, which sends all before it reads, gets its
answer."""
MOST_PERIODS: Final = 15
"""Periods for which a client that goes on sending is read: 30 s, where one is 2 s."""


class Lingering:
    """What one client sends while its connection closes; on the loop.

    Args:
        loop: the event loop.
        seconds: a period; a client that sends nothing in one is not read any longer.
        over: called at the end of the last period, unless :meth:`stop` was called.
    """

    __slots__ = ("_bytes", "_loop", "_moved", "_over", "_periods", "_seconds", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, over: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._over = over
        self._bytes = 0
        self._moved = True  # since the last period began
        self._periods = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin the first period."""
        self._next_period()

    def take(self, size: int) -> bool:
        """Count ``size`` more bytes; return whether more may come."""
        self._bytes += size
        self._moved = True
        return self._bytes < MOST_BYTES

    def stop(self) -> None:
        """Forget the time: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_period(self) -> None:
        moved, self._moved = self._moved, False
        self._periods += 1
        if moved and self._periods <= MOST_PERIODS:
            self._timer = self._loop.call_later(self._seconds, self._next_period)
        else:
            self._timer = None
            self._over()
