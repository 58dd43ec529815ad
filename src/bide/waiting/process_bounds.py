"""How many processes ``in_process`` may have, and what all children do; without loading them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

ATTEMPTS: Final = 3
"""How many children may end before one begins a call."""


class ProcessCounts(NamedTuple):
    """What the processes of ``in_process`` do.

    Attributes:
        processes: how many of its processes have been started.
        busy: calls that run now.
        queued: calls that wait for a process.
    """

    processes: int = 0
    busy: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class ResidentStatus:
    """The numbers of a ``bide.resident`` of this process.

    Attributes:
        name: the name of its factory.
        processes: how many of its processes have been started.
        busy: calls that run now.
        queued: calls that wait for a process.
        calls: calls that have ended, since the start.
        restarts: processes that have ended for another reason than a cancellation.
        memory: bytes of memory that its processes use; 0 if the system has no ``/proc``.
        failure: why its factory fails now; empty if it does not.
    """

    name: str
    processes: int
    busy: int
    queued: int
    calls: int
    restarts: int
    memory: int
    failure: str


class ProcessBounds:
    """The bounds of this process's pool; set by a server that starts, read at each call.

    Attributes:
        processes: how many there may be; 0: as many as processors.
        queue: how many calls may wait for one.
        counts: returns what they do; from any thread.
        residents: returns the status of each resident, the oldest first; from any thread.
    """

    def __init__(self) -> None:
        self.processes = 0
        self.queue = 100
        self.counts: Callable[[], ProcessCounts] = ProcessCounts
        self.residents: Callable[[], tuple[ResidentStatus, ...]] = tuple


bounds: Final = ProcessBounds()
"""Those of this process."""
