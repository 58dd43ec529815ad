"""The loop executor: conversations run on the event loop's own thread, and must not block it.

A conversation may enter the loop a second time (nest_asyncio, debuggers). What the loop then has to
begin or to resume is put off until that conversation has ended or waits: greenlets of others would
run on top of it, in the midst of what the server does for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import Any

from greenlet import getcurrent

from bide.executors.hub import Hub, Job
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Wait
from bide.waiting.waiter import Waiter


class LoopExecutor:
    """Runs jobs on the loop's thread; all of it is called there."""

    multithread = False
    queued = 0
    threads = 0
    threads_busy = 0
    threads_max = 0
    alive = False  # no thread of its own
    able = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hub = Hub("the event loop", self._wake)
        self._later: list[tuple[Callable[[Any], None], Any]] = []

    @property
    def hubs(self) -> list[Hub]:
        """The one hub; for the monitor."""
        return [self._hub]

    @property
    def waiting(self) -> int:
        """How many jobs are parked."""
        return self._hub.parked

    def waiter(self) -> Waiter:
        """Make a new job's waiter."""
        return Waiter(self._loop, self._hub)

    def submit(self, job: Job) -> bool:
        """Run a job until it ends or waits; true, for this executor refuses none."""
        self._enter(self._hub.run, job)
        return True

    def _enter(self, go: Callable[[Any], None], what: Any) -> None:
        if self._hub.running is not None and self._is_entered():
            self._later.append((go, what))
            return
        try:
            go(what)
        finally:
            if self._later:
                later, self._later = self._later, []
                for each in later:
                    self._loop.call_soon(self._enter, *each)

    def _is_entered(self) -> bool:
        """Whether the loop runs below a conversation."""
        return self._hub.running is not None and getcurrent() is not self._hub.main

    def flush(self) -> bool:
        """Nothing is held back here, and nothing is gained by a rest."""
        return False

    def recover(self) -> None:
        """Nothing is lost here."""

    def expire(self, age: float, jobs: Container[object]) -> list[Job]:  # noqa: ARG002 - an executor's signature
        """Nothing waits for a thread here."""
        return []

    def _wake(self, wait: Wait) -> None:
        # Never resume at once: the promise may have fired inside a task's step, and the
        # conversation would run as if it were that task.
        if asyncio._get_running_loop() is self._loop:
            self._loop.call_soon(self._enter, self._hub.resume, wait)
        else:
            on_loop(self._loop, self._enter, self._hub.resume, wait)

    def stop(self) -> None:
        """Drop the idle greenlets; when every job has ended."""
        if not self._is_entered():  # that one's would be among them, soon
            self._hub.close()
