"""What a server is doing, in numbers: for people, pages and health checks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from bide.executors.executor import Executor


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot, taken without stopping anything, so its numbers may be a moment apart.

    Attributes:
        running: requests whose code runs now, or could.
        waiting: requests that wait, and hold no thread; those too whose bodies are still to come.
        queued: requests that wait for a thread.
        threads: threads that have been started for requests, those of waiting ones among them.
        threads_busy: threads that run a request's code now, or block in it.
        threads_max: threads that may begin requests at a time; 0 where all run on the event loop.
        connections: open connections.
        stopping: whether the server stops: streams without an end should come to one.
    """

    running: int
    waiting: int
    queued: int
    threads: int
    threads_busy: int
    threads_max: int
    connections: int
    stopping: bool


def snapshot(
    executor: Executor,
    in_progress: Collection[object],
    connections: int,
    stopping: bool,
    held: int = 0,
) -> Status:
    """Take a snapshot of requests in progress, and of their executor; from any thread.

    ``held`` of these requests wait for their bodies, and the executor has not seen them.
    """
    waiting = executor.waiting_of(in_progress) + held
    queued = executor.queued_of(in_progress)
    return Status(
        running=max(0, len(in_progress) - waiting - queued),
        waiting=waiting,
        queued=queued,
        threads=executor.threads,
        threads_busy=executor.threads_busy,
        threads_max=executor.threads_max,
        connections=connections,
        stopping=stopping,
    )
