"""Looking after the workers' event loops, by their signs of life: who shows none is killed."""

from __future__ import annotations

import logging
from math import inf
from time import monotonic
from typing import Final

from bide.process.crew import Crew
from bide.process.heartbeat import BEAT

log = logging.getLogger("bide")

STACKS_SECONDS: Final = 1.0
"""Seconds in which a worker without signs of life writes what its threads do."""


class Watch:
    """Looks at the signs of life of all workers.

    Args:
        crew: the workers.
        timeout: seconds without signs of life after which a worker is killed; 0: none is.

    Attributes:
        fresh: whether all workers have shown signs of life of late.
    """

    def __init__(self, crew: Crew, timeout: float) -> None:
        self.fresh = True
        self._crew = crew
        self._timeout = timeout
        self._looked = monotonic()

    @property
    def next_due(self) -> float:
        """When a worker is to be killed next, in monotonic seconds; infinite: none is."""
        return min((each.kill_at for each in self._crew.processes.values()), default=inf)

    def look(self) -> None:
        """Look, if it is time to."""
        now = monotonic()
        elapsed = now - self._looked
        if elapsed < BEAT and self.next_due > now:
            return
        self._looked = now
        fresh = True
        for process in self._crew.processes.values():
            if process.kill_at <= now:
                process.kill_at = inf
                process.kill()
            worker = process.worker
            assert worker is not None
            if process.pulse is None or worker.ending:
                continue
            silence = process.pulse.look(self._crew.count(process), elapsed)
            fresh = fresh and silence < 3 * BEAT
            if self._timeout and silence >= self._timeout:
                log.error(
                    "the event loop of %s has been blocked for %d s: the worker is killed. "
                    "What its threads do:",
                    process.name,
                    silence,
                )
                worker.fate = "blocked"
                process.show_stacks()
                process.pulse = None
                process.kill_at = now + STACKS_SECONDS
        self.fresh = fresh
