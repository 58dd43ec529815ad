"""What a server is doing, in numbers: for people, pages and health checks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot, taken without stopping anything, so its numbers may be a moment apart.

    Attributes:
        running: requests whose code runs now, or could.
        waiting: requests that wait, and hold no thread.
        queued: requests that wait for a thread.
        threads: threads that have been started for requests.
        threads_busy: threads that run a request's code now.
        threads_max: threads that may be started; 0 where all run on the event loop.
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
