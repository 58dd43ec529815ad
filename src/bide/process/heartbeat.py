"""Signs of life of the workers, in memory that they share with their supervisor.

Each worker counts up in a cell of its own, from its event loop. The supervisor looks whether the
count has changed. No clock is compared, so a supervisor that was stopped itself, with its
container or its machine, blames nobody for that time.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

BEAT: Final = 1.0
"""Seconds between two signs of life."""
CELLS: Final = 2048
"""How many processes can be watched at a time."""
_COUNT: Final = struct.Struct("Q")


class Cells:
    """The cells of all workers; made before any of them is forked."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, CELLS * _COUNT.size)
        self._free = list(range(CELLS - 1, -1, -1))

    def take(self) -> int:
        """Return a free cell."""
        return self._free.pop()

    def give_back(self, cell: int) -> None:
        """Let another worker have a cell; its worker has ended."""
        self._free.append(cell)

    def beat(self, cell: int) -> None:
        """Count up; called by the one process that has the cell."""
        _COUNT.pack_into(self._memory, cell * _COUNT.size, self.count(cell) + 1)

    def count(self, cell: int) -> int:
        """Return the count."""
        return int(_COUNT.unpack_from(self._memory, cell * _COUNT.size)[0])


class Pulse:
    """How long one worker's count has not changed, by the time between the supervisor's looks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.silence = 0.0

    def look(self, count: int, elapsed: float) -> float:
        """Look at the count; return the seconds in which it has not changed.

        Args:
            count: the count now.
            elapsed: seconds since the last look. More than two beats are not counted: then the
                supervisor itself did not run, and the worker may not have run either.
        """
        if count != self._count:
            self._count, self.silence = count, 0.0
        else:
            self.silence += min(elapsed, 2 * BEAT)
        return self.silence
