"""The states of a worker's place, and what is to be done when something happens there.

A server with N workers has N slots. A slot is always in one of these states; ``MOVES`` has every
move::

                start               ready               renew
      empty <----------> booting ------------> serving <------> replacing
        ^       failed      ^                   |  ^ ready, failed  |
        +-------------------|-------- lost -----+                   |
                            +------------------------ lost ---------+
                                  each of them --close--> unused --open--> empty

:mod:`bide.process.fleet` makes the moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

EMPTY: Final = "empty"
"""There is no worker; one is started when it is due."""
BOOTING: Final = "booting"
"""There is no worker yet; one imports the application."""
SERVING: Final = "serving"
"""A worker serves."""
REPLACING: Final = "replacing"
"""A worker serves, and the one that takes its place imports the application."""
UNUSED: Final = "unused"
"""There is no worker, and none is to be started."""

START: Final = "start"
"""It is time to start a worker."""
READY: Final = "ready"
"""The worker that booted is ready."""
FAILED: Final = "failed"
"""The worker that booted has ended."""
LOST: Final = "lost"
"""The worker that served has ended."""
RENEW: Final = "renew"
"""The worker is to be replaced."""
CLOSE: Final = "close"
"""There are to be fewer workers."""
OPEN: Final = "open"
"""There are to be more workers."""

MOVES: Final = {
    (EMPTY, START): (BOOTING, ("boot",)),
    (EMPTY, CLOSE): (UNUSED, ()),
    (BOOTING, READY): (SERVING, ("promote",)),
    (BOOTING, FAILED): (EMPTY, ("back_off",)),
    (BOOTING, CLOSE): (UNUSED, ("abandon",)),
    (SERVING, LOST): (EMPTY, ("restart",)),
    (SERVING, RENEW): (REPLACING, ("boot",)),
    (SERVING, CLOSE): (UNUSED, ("retire",)),
    (REPLACING, READY): (SERVING, ("retire", "promote")),
    (REPLACING, FAILED): (SERVING, ("keep",)),
    (REPLACING, LOST): (BOOTING, ("forget",)),
    (REPLACING, CLOSE): (UNUSED, ("retire", "abandon")),
    (UNUSED, OPEN): (EMPTY, ("reopen",)),
}
"""By state and event: the next state, and what is done, in order."""

LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts to start a worker that fails, at most."""


def pause(failures: int) -> float:
    """Return after how many seconds something is tried again that has failed so often in a row."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE) if failures > 0 else 0.0


@dataclass(eq=False, slots=True)
class Worker:
    """One process that serves, will serve, or has served.

    Attributes:
        slot: the index of its slot.
        began: when it was started, or became ready.
        ending: whether it was told to end.
        deadline: when it is killed.
        late: when it is said that it takes long to be ready.
        leaves_at: when it is replaced, for it was sent a signal, unless all of them stop before.
        accepts: the slots whose sockets it accepts from.
        accepting: whether it accepts connections, or may: until it has said that it does not.
        fate: what it is called if it ends without being told to: ``died``, or ``blocked`` if it is
            killed for that.
    """

    slot: int
    began: float
    ending: bool = False
    deadline: float = inf
    late: float = inf
    leaves_at: float = inf
    accepts: set[int] = field(default_factory=set)
    accepting: bool = True
    fate: str = "died"

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"worker {self.slot + 1}"


class Hands:
    """Does what a :class:`Fleet` has decided."""

    def boot(self, slot: int) -> Worker:
        """Start a worker; return it at once."""
        raise NotImplementedError

    def accept(self, worker: Worker, slot: int) -> None:
        """Tell a worker to accept from a slot's sockets; before it is ready, too."""
        raise NotImplementedError

    def leave(self, worker: Worker, slot: int) -> None:
        """Tell a worker to accept no more from a slot's sockets, from which another one does."""
        raise NotImplementedError

    def retire(self, worker: Worker) -> None:
        """Tell a worker to finish and end, while others accept from its sockets."""
        raise NotImplementedError

    def stop(self, worker: Worker) -> None:
        """Tell a worker to accept what has connected, to close its sockets, to finish and end."""
        raise NotImplementedError

    def kill(self, worker: Worker) -> None:
        """End a worker at once."""
        raise NotImplementedError


@dataclass(eq=False, slots=True)
class Slot:
    """A place for one worker.

    Attributes:
        state: see the module.
        worker: the one that serves.
        coming: the one that boots.
        past: those that have been told to end, and have not ended.
        due: when the next worker may be started.
        failures: how many workers in a row have failed.
        wanted: why its worker is to be replaced; empty: it is not.
        reason: why it is being replaced.
    """

    state: str = UNUSED
    worker: Worker | None = None
    coming: Worker | None = None
    past: list[Worker] = field(default_factory=list)
    due: float = 0.0
    failures: int = 0
    wanted: str = ""
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether its worker is ready and not to be replaced, and the ones before have left."""
        if any(each.accepting for each in self.past):
            return False
        return self.state == UNUSED or (self.state == SERVING and not self.wanted)

    def workers(self) -> Iterator[Worker]:
        """Return all its processes."""
        if self.worker is not None:
            yield self.worker
        if self.coming is not None:
            yield self.coming
        yield from self.past
