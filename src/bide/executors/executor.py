"""What every executor does: it decides on which thread a job runs, and so what waiting means."""

from __future__ import annotations

from collections.abc import Container

from bide.executors.hub import Hub, Job
from bide.waiting.waiter import Waiter


class Executor:
    """Runs jobs. What it counts is read from any thread; all else is called on the loop.

    The numbers here are those of an executor that has no threads of its own.

    Attributes:
        multithread: whether two jobs may run code at the same time.
        threads_max: threads that may begin jobs at a time.
    """

    multithread: bool = False
    threads_max: int = 0

    @property
    def hubs(self) -> list[Hub]:
        """The hubs that have been made."""
        raise NotImplementedError

    @property
    def waiting(self) -> int:
        """How many jobs are parked."""
        return sum(hub.parked for hub in self.hubs)

    @property
    def queued(self) -> int:
        """How many jobs wait for a thread."""
        return 0

    @property
    def threads(self) -> int:
        """How many threads have been started."""
        return 0

    @property
    def threads_busy(self) -> int:
        """How many threads run a job's code now."""
        return 0

    @property
    def alive(self) -> bool:
        """Whether a thread has not ended."""
        return False

    @property
    def able(self) -> bool:
        """Whether there is a thread, or none was refused when it was wanted; on the loop."""
        return True

    def waiter(self) -> Waiter:
        """Make a new job's waiter."""
        raise NotImplementedError

    def submit(self, job: Job) -> bool:
        """Take a job; return false when it is refused, since too many wait for a thread."""
        raise NotImplementedError

    def flush(self) -> bool:
        """Called after a batch of ``submit``; return whether the loop may rest before the next."""
        return False

    def expire(self, age: float, jobs: Container[object]) -> list[Job]:  # noqa: ARG002 - as above
        """Take out those of ``jobs`` that have waited for a thread for ``age`` seconds."""
        return []

    def recover(self) -> None:
        """Try again to have a thread, where there is none since it was refused."""

    def stop(self) -> None:
        """End, when every job has ended."""
        raise NotImplementedError
