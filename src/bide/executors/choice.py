"""The executors of one server: which there are, who uses them, and when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bide.capabilities import ExecutorName
from bide.executors.executor import Executor
from bide.executors.hub import Hub
from bide.executors.loop import LoopExecutor
from bide.executors.tasks import TasksExecutor
from bide.executors.threads import ThreadsExecutor, nothing


class Executors:
    """What runs the applications of one server, or of one host.

    Applications that run on the loop share one executor, and so do those whose calls are tasks.
    Those that run in threads share another:
    one pool of threads, with one queue before it. An application that can run one request at a time
    has a thread and a queue of its own.

    Everything is called on the loop, except where noted.

    Args:
        loop: where awaitables run.
        threads: lanes of the pool that may begin jobs at a time.
        queue: jobs that may wait for a lane.
        rested: as for :class:`ThreadsExecutor`.
        limit: lanes of the pool in all, as for :class:`ThreadsExecutor`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        queue: int,
        rested: Callable[[], None] = nothing,
        limit: int = 0,
    ) -> None:
        self.loop = loop
        self._threads = threads
        self._queue = queue
        self._rested = rested
        self._limit = limit
        self._shared: dict[ExecutorName, Executor] = {}
        self._users: dict[Executor, set[object]] = {}  # of each that has not ended

    def take(self, name: ExecutorName, user: object) -> Executor:
        """Return the executor with this name, made at first need; ``user`` must give it back."""
        executor = self._shared.get(name)
        if executor is None:
            executor = self._make(name)
            if name != "serial":
                self._shared[name] = executor
        self._users.setdefault(executor, set()).add(user)
        return executor

    def adopt(self, executor: Executor, user: object) -> Executor:
        """Return an executor that ``user`` has made for itself alone; it must give it back."""
        self._users[executor] = {user}
        return executor

    def _make(self, name: ExecutorName) -> Executor:
        if name == "loop":
            return LoopExecutor(self.loop)
        if name == "tasks":
            return TasksExecutor()
        serial = name == "serial"
        threads = 1 if serial else self._threads
        return ThreadsExecutor(self.loop, threads, self._queue, serial, self._rested, self._limit)

    def give_back(self, executor: Executor, user: object) -> bool:
        """Called when ``user`` has no more jobs for an executor; return whether that has ended it.

        An executor ends with its last user. From any thread, where it has threads of its own.
        """
        users = self._users.get(executor)
        if users is None:
            return False
        users.discard(user)
        if users:
            return False
        self._users.pop(executor, None)
        executor.stop()
        return True

    def shared(self, executor: Executor) -> bool:
        """Whether an executor has several users; from any thread."""
        return len(self._users.get(executor, ())) > 1

    def flush(self) -> bool:
        """Call ``flush`` of each executor; return whether the loop may rest now."""
        rest = False
        for executor in self._users:
            if executor.flush():
                rest = True
        return rest

    def recover(self) -> None:
        """Try again to start a thread, where there is none since the system refused it."""
        for executor in self._users:
            executor.recover()

    @property
    def hubs(self) -> list[Hub]:
        """The hubs of all executors; from any thread."""
        return [hub for executor in list(self._users) for hub in executor.hubs]
