"""What tests of child processes share with the applications there, and look at from outside."""

from __future__ import annotations

import mmap
import os

from bide.children.executor import ProcessesExecutor
from tests.served import Served, until

PLAIN = [("Content-Type", "text/plain")]
BLOCK = b"x" * 65536


class Shared:
    """Numbers that a test and its application's processes share."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 64)

    def __getitem__(self, name: str) -> int:
        return int.from_bytes(self._map[self._at(name) : self._at(name) + 8])

    def __setitem__(self, name: str, value: int) -> None:
        self._map[self._at(name) : self._at(name) + 8] = value.to_bytes(8)

    @staticmethod
    def _at(name: str) -> int:
        return 8 * ("begun", "gate", "caught", "count", "pid").index(name)

    def await_gate(self) -> None:
        """Block the process until the test has opened the gate."""
        until(lambda: self["gate"])


def children(served: Served) -> ProcessesExecutor:
    """Return the executor."""
    executor = served.server.dispatcher.executor
    assert isinstance(executor, ProcessesExecutor)
    return executor


def gone(pid: int) -> bool:
    """Whether a process has ended, and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
