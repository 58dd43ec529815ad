"""How a thread of control stops until its wait is settled, and how that blocks its thread."""

from __future__ import annotations

import contextlib
import math
import threading
from typing import Protocol

from bide.promises import Wait


class Parking(Protocol):
    """How a thread of control stops until its wait is settled.

    Attributes:
        since: when the one that runs now went on, in monotonic seconds.
    """

    since: float

    def park(self, wait: Wait) -> None:
        """Return once ``wait`` is settled or interrupted, or earlier; on the waiting thread."""

    def wake(self, wait: Wait) -> None:
        """Let ``park`` return; from any thread."""


class ThreadParking:
    """Parks by blocking the thread; one object for each wait."""

    __slots__ = ("_turnstile",)

    since = math.inf  # it has the thread to itself: no others go on

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._turnstile.acquire()

    def park(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Block this thread."""
        self._turnstile.acquire()

    def wake(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Let the thread go on."""
        with contextlib.suppress(RuntimeError):  # it has been let already
            self._turnstile.release()
