"""How often a client may do what costs the server more than the client."""

from __future__ import annotations


class Bucket:
    """An allowance that is used up, and fills again with time; on one thread at a time.

    Args:
        burst: how many are allowed at once; so many are in it at first.
        rate: how many are added each second, up to ``burst``.
    """

    __slots__ = ("_burst", "_left", "_rate")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = float(burst)
        self._rate = rate
        self._left = self._burst

    def take(self, count: int = 1) -> bool:
        """Take so many; return whether there were as many."""
        self._left -= count
        return self._left >= 0

    def give(self, count: float) -> None:
        """Add so many, up to the burst."""
        self._left = min(self._burst, self._left + count)

    def refill(self, elapsed: float) -> None:
        """Add what some seconds bring."""
        self.give(elapsed * self._rate)
