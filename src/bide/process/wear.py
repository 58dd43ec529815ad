"""When a worker is worn out: after so many requests, or when it has too much memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from bide.errors import StartError
from bide.serving.memory import STATM, resident
from bide.settings import Settings

SAMPLES: Final = 3
"""How many times in a row a worker has too much memory before it is replaced."""


class Wear:
    """Whether one worker is to be replaced.

    Args:
        settings: how many requests and how much memory it may have.
        chance: returns a number from 0 to 1, so that not all workers are replaced together.
        memory: returns the bytes that the process has.
    """

    def __init__(
        self,
        settings: Settings,
        chance: Callable[[], float] = random.random,
        memory: Callable[[], int] = resident,
    ) -> None:
        most, jitter = settings.max_requests, settings.max_requests_jitter
        spread = most // 10 if jitter < 0 else jitter
        self.requests = max(1, most + round(spread * (2 * chance() - 1))) if most else 0
        """After how many requests it is replaced; 0: after no number."""
        self._most_memory = settings.max_rss
        self._memory = memory
        self._over = 0

    def reason(self, requests: int) -> str:
        """Return why the worker is to be replaced; nothing if it is not. Called every second.

        Args:
            requests: how many it has begun.
        """
        if self.requests and requests >= self.requests:
            return f"it has served {requests} requests"
        if not self._most_memory:
            return ""
        memory = self._memory()
        self._over = self._over + 1 if memory > self._most_memory else 0
        if self._over < SAMPLES:
            return ""
        return f"it has {memory} bytes of memory"


def check_memory_is_known(settings: Settings) -> None:
    """Raise StartError for a limit of memory where the system does not say how much there is."""
    if settings.max_rss and not STATM.exists():
        raise StartError("--max-rss needs /proc, which this system does not have")
