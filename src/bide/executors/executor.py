"""What every executor does: it decides on which thread a job runs, and so what waiting means."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from bide.compiling import mypyc_attr
from bide.executors.hub import Hub, Job
from bide.waiting.times import Times


@mypyc_attr(allow_interpreted_subclasses=True)
class Executor:
    """Runs jobs. Its counts may be read from any thread; everything else is called on the loop.

    The counts here are those of an executor that has no threads of its own.

    Attributes:
        multithread: whether two jobs may run code at the same time.
        threads_max: threads that may begin jobs at a time.
    """

    multithread: bool = False
    threads_max: int = 0

    @property
    def knows_counts(self) -> bool:
        """Whether ``waiting`` and ``queued`` are known without a look at each job."""
        return True

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
        """Whether any of its threads still runs."""
        return False

    @property
    def able(self) -> bool:
        """Whether it can run jobs. Not so if it has no thread since the system refused one."""
        return True

    def waiter(self) -> Times:
        """Make what counts a new job's time, and where it waits, if its waits need one."""
        raise NotImplementedError

    def submit(self, job: Any) -> bool:
        """Take a job of its kind; return false when it is refused: too many wait for a thread."""
        raise NotImplementedError

    def add(self, job: Any) -> None:
        """Take a job that is not refused, however many wait for a thread."""
        self.submit(job)

    def flush(self) -> bool:
        """Called after a batch of ``submit``; return whether the loop may rest before the next."""
        return False

    def expire(self, age: float, jobs: Container[object]) -> list[Job]:  # noqa: ARG002 - as above
        """Remove and return those of ``jobs`` that have waited for a thread for ``age`` seconds."""
        return []

    def recover(self) -> None:
        """Try again to start a thread, where there is none since the system refused it."""

    def begin_to_stop(self) -> None:
        """Called when the server begins to stop, and its requests have time to end."""

    def stop(self) -> None:
        """End when every job has ended."""
        raise NotImplementedError
