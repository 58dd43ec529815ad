"""The loop executor: conversations run on the event loop's own thread, and must not block it.

A conversation may run the loop a second time, inside its own call (nest_asyncio, debuggers). Jobs
that the loop would then begin or resume are put off until that conversation has ended or waits.
Else they would run on top of it, while the server is in the middle of its work for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent

from bide.executors.executor import Executor
from bide.executors.hub import Hub, Job
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Wait
from bide.waiting.waiter import Waiter


class LoopExecutor(Executor):
    """Runs jobs on the loop's thread; every method is called there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hub = Hub("the event loop", self._wake)
        self._later: list[tuple[Callable[[Any], None], Any]] = []

    @property
    def hubs(self) -> list[Hub]:
        """The one hub."""
        return [self._hub]

    def waiter(self) -> Waiter:
        """Make a new job's waiter, which parks in the hub."""
        return Waiter(self._loop, self._hub)

    def submit(self, job: Job) -> bool:
        """Run a job until it ends or waits. Return true: this executor refuses no job."""
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

    def _wake(self, wait: Wait) -> None:
        # Never resume at once: the promise may have fired inside a task's step, and the
        # conversation would run as if it were that task.
        if asyncio._get_running_loop() is self._loop:
            self._loop.call_soon(self._enter, self._hub.resume, wait)
        else:
            on_loop(self._loop, self._enter, self._hub.resume, wait)

    def stop(self) -> None:
        """End the idle greenlets, when every job has ended."""
        if not self._is_entered():  # else the running job's greenlet would soon be idle
            self._hub.close()
