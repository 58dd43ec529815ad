"""How long a closing connection is still read, since its client may yet send.

Only bytes and time are counted here; the transport handles the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes that are read and dropped so that a client, which sends all before it reads, gets its
answer."""
MOST_PERIODS: Final = 15
"""Periods for which a client is read that goes on sending, or has not taken all that was sent.

That is 30 s, where one is 2 s."""


class Lingering:
    """What one client sends while its connection closes; on the loop.

    Args:
        loop: the event loop.
        seconds: a period; a client that sends nothing in one is not read any longer.
        over: called at the end of the last period, unless :meth:`stop` was called.
        under_way: whether the system still holds some of what was sent: who takes that slowly
            is read on.
    """

    __slots__ = (
        "_bytes",
        "_loop",
        "_moved",
        "_over",
        "_periods",
        "_seconds",
        "_timer",
        "_under_way",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        over: Callable[[], None],
        under_way: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._over = over
        self._under_way = under_way
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
        """Called when the connection has ended: stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_period(self) -> None:
        moved, self._moved = self._moved, False
        self._periods += 1
        if self._periods <= MOST_PERIODS and (moved or self._under_way()):
            self._timer = self._loop.call_later(self._seconds, self._next_period)
        else:
            self._timer = None
            self._over()
