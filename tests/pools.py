"""Fixtures for tests of calls in other processes, which hold for modules that import them."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bide
from bide.waiting import processes, residents
from bide.waiting.process_bounds import bounds
from bide.waiting.process_pools import Pool
from bide.waiting.processes import ProcessPool
from bide.waiting.resident_pools import ResidentPool
from tests.served import happened, until

Make = Callable[..., ProcessPool]
Keep = Callable[..., bide.Resident]


@pytest.fixture
def pool_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return what makes a pool of so many processes, which end with the test."""
    pools: list[ProcessPool] = []

    def make(size: int, queue: int = 100) -> ProcessPool:
        monkeypatch.setattr(bounds, "processes", size)
        monkeypatch.setattr(bounds, "queue", queue)
        pools.append(ProcessPool())
        return pools[-1]

    yield make
    for pool in pools:
        _end(pool)


class Meeting:
    """Has the end of a call's outcome meet something else, in an order that the test says.

    Args:
        pool: whose worker has the outcome.
        monkeypatch: puts this into the pool, until :meth:`leave`.
        outcome_first: whether the outcome is taken before the test does its part.
    """

    def __init__(self, pool: Pool, monkeypatch: pytest.MonkeyPatch, *, outcome_first: bool) -> None:
        self._pool = pool
        self._monkeypatch = monkeypatch
        self._over = pool.over
        self._outcome_first = outcome_first
        self._ready = threading.Event()
        self._go_on = threading.Event()
        monkeypatch.setattr(pool, "over", self._held)

    def _held(self, worker: Any) -> bool:
        if self._outcome_first:
            mine = self._over(worker)
        self._ready.set()
        happened(self._go_on)
        return mine if self._outcome_first else self._over(worker)

    def await_outcome(self) -> None:
        """Return once the worker has it."""
        happened(self._ready)

    def leave(self) -> None:
        """Let the worker go on, and hold no other call up."""
        self._monkeypatch.setattr(self._pool, "over", self._over)
        self._go_on.set()


def _end(pool: Pool) -> None:
    pool.end()
    until(lambda: all(each.child is None for each in pool.workers), "a process is left")


@pytest.fixture
def own_pool(pool_of: Make, monkeypatch: pytest.MonkeyPatch) -> ProcessPool:
    """Return a pool that ``in_process`` has for the test."""
    pool = pool_of(2)
    monkeypatch.setattr(processes, "_pool", pool)
    monkeypatch.setattr(bounds, "counts", pool.counts)
    return pool


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keep]:
    """Return ``bide.resident``; what it has made ends with the test."""
    pools: list[ResidentPool] = []
    monkeypatch.setattr(residents, "_pools", pools)
    monkeypatch.setattr(bounds, "queue", 100)
    yield bide.resident
    for pool in pools:
        _end(pool)


def processes_of(kept: bide.Resident) -> ResidentPool:
    """Return the processes of a resident."""
    return kept._pool


def alive(number: int) -> bool:
    """Whether a process is there, and has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
