"""How many bytes all connections of a server hold together, against a bound."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final


class Total:
    """A sum that any thread may add to, also in a destructor: nothing here blocks.

    A thread that adds first writes its number down, and then tries to take the lock and sum up. The
    thread that has summed up checks once more when it has released the lock. So everything is in
    the sum at once, in whatever order threads come.

    Attributes:
        bound: what the sum should stay below; 0: there is no bound.
        used: the sum.
        full: whether the bound is reached. The sum may go beyond it.
    """

    __slots__ = ("_news", "_summing", "bound", "full", "used")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.used = 0
        self.full = False
        self._news: deque[int] = deque()
        self._summing = threading.Lock()  # only ever tried

    def add(self, size: int) -> None:
        """Add so many bytes, or take some away."""
        news = self._news
        news.append(size)
        while news and self._summing.acquire(False):
            try:
                while news:
                    self.used += news.popleft()
                    self.full = 0 < self.bound <= self.used
            finally:
                self._summing.release()


UNBOUND: Final = Total(0)
"""The total where nothing is bounded."""
