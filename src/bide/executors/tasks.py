"""The tasks executor: calls that are coroutines, each a task of the event loop."""

from __future__ import annotations

from bide.exchange.call import Call
from bide.executors.executor import Executor
from bide.executors.hub import Hub
from bide.waiting.times import Times


class TasksExecutor(Executor):
    """Begins calls that are tasks of the event loop; every method is called there."""

    @property
    def knows_counts(self) -> bool:
        """Not: each task's loop knows whether it waits."""
        return False

    @property
    def hubs(self) -> list[Hub]:
        """None: there are no greenlets."""
        return []

    def waiter(self) -> Times:
        """Make what counts a new call's time; its waits are its task's."""
        return Times()

    def submit(self, job: Call) -> bool:
        """Begin a call. Return true: this executor refuses none."""
        job.run()
        return True

    def stop(self) -> None:
        """Do nothing: every task has ended."""
