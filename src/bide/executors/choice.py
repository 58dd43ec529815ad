"""The executor that a decision asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bide.capabilities import ExecutorName
from bide.executors.executor import Executor
from bide.executors.loop import LoopExecutor
from bide.executors.threads import ThreadsExecutor, nothing


def make_executor(
    name: ExecutorName,
    loop: asyncio.AbstractEventLoop,
    threads: int,
    queue: int,
    rested: Callable[[], None] = nothing,
    limit: int = 0,
) -> Executor:
    """Make an executor by its name in a :class:`Decision`; on the loop.

    Args:
        name: the executor's.
        loop: where awaitables run.
        threads: lanes that may begin jobs at a time; ``serial`` has one.
        queue: jobs that may wait for a lane.
        rested: as for :class:`ThreadsExecutor`.
        limit: lanes in all, as for :class:`ThreadsExecutor`.
    """
    if name == "loop":
        return LoopExecutor(loop)
    serial = name == "serial"
    return ThreadsExecutor(loop, 1 if serial else threads, queue, serial, rested, limit)
