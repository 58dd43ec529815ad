"""From any bytes to any structure: numbers, choices and pieces, drawn in order, never out of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Draws from bytes; when they have run out, everything drawn is zero, the first, or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def spent(self) -> bool:
        """Whether all bytes have been drawn."""
        return self._at >= len(self._data)

    def below(self, limit: int) -> int:
        """Draw a number from 0 to ``limit`` - 1, of 256 at most."""
        if self.spent:
            return 0
        self._at += 1
        return self._data[self._at - 1] % limit

    def choose(self, choices: Sequence[T]) -> T:
        """Draw one of them."""
        return choices[self.below(len(choices))]

    def rest(self) -> bytes:
        """Draw all that is left."""
        rest = self._data[self._at :]
        self._at = len(self._data)
        return rest


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut into pieces, none of them empty; each place is a 256th of the length."""
    cuts = sorted({0, len(data), *(place * len(data) // 256 for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]
