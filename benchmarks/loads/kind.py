"""What every load is: it loads a started server once, and returns a sample."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from ..figures import Figure
from ..processes import ServerProcess, busy_seconds, own_seconds


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for every round of a run.

    Attributes:
        wrk: The path of wrk.
        server_cores: The cores on which servers run.
        client_cores: The cores on which clients run: others, or all of the server's.
        rounds: How many rounds.
        seconds: How long each loads a server.
        warm_up_seconds: How long each loads it before, unmeasured.
    """

    wrk: str
    server_cores: frozenset[int]
    client_cores: frozenset[int]
    rounds: int
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one round of one server.

    Attributes:
        figures: What was measured.
        errors: By kind, those of the warm-up too; kinds that did not occur are left out.
        foreign_share: The part of the server's cores, 0 to 1, that others took meanwhile.
    """

    figures: dict[Figure, float]
    errors: dict[str, int]
    foreign_share: float


class Load(ABC):
    """What is done to a server in a round.

    Attributes:
        columns: The figures that a sample has, in the order of the table.
    """

    columns: ClassVar[tuple[Figure, ...]]

    @abstractmethod
    def describe(self) -> str:
        """Return for the report what is done, in a sentence or two."""

    @abstractmethod
    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Load a server that has just been started.

        Raises `RoundFailedError` where it gave no figures.
        """


class Meter:
    """Reads the clocks around a `with` block: the server's CPU time, and its cores'.

    Leaving the block raises `RoundFailedError` where the server has ended meanwhile.

    Attributes:
        seconds: How long the block took, once it is left.
        cpu_seconds: The CPU time of the server's processes in it, user and system.
        foreign_share: The part of the server's cores, 0 to 1, that others took. Clients that
            share them do not count.
    """

    def __init__(self, server: ServerProcess, conditions: Conditions) -> None:
        self._server = server
        self._cores = conditions.server_cores
        self._shared = bool(conditions.server_cores & conditions.client_cores)
        self.seconds = self.cpu_seconds = self.foreign_share = 0.0

    def __enter__(self) -> Meter:
        self._before = self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        after = self._read()
        if error is not None:
            return
        self._server.check_alive()
        self.cpu_seconds, busy, self.seconds = (
            now - then for now, then in zip(after, self._before, strict=True)
        )
        foreign = max(0.0, busy - self.cpu_seconds)
        self.foreign_share = foreign / self.seconds / len(self._cores)

    def _read(self) -> tuple[float, float, float]:
        busy = sum(busy_seconds(core) for core in self._cores)
        if self._shared:
            busy -= own_seconds()
        return self._server.cpu_seconds(), busy, time.monotonic()


def p99(values: list[float]) -> float:
    """Return the value that 99 of 100 do not exceed."""
    return sorted(values)[int(len(values) * 0.99)]
