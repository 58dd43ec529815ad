"""Threads for the blocking calls of requests that run on the event loop.

asgiref alone has one thread for the thread-sensitive calls of all requests. Here are a few; each
request has all of its calls made by the same one, with connections of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

WORKER_THREADS: Final = 8
"""How many threads at most."""


class WorkerThread:
    """One thread; all but its calls is on the event loop's thread.

    Attributes:
        executor: makes calls on the thread.
        requests: how many requests have their calls made here.
    """

    def __init__(self, number: int) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"bide-django-{number}")
        self.requests = 0


_threads: list[WorkerThread] = []


def choose() -> WorkerThread:
    """Return the thread that serves the fewest requests; a new one before one serves two."""
    idle = [each for each in _threads if not each.requests]
    if not idle and len(_threads) < WORKER_THREADS:
        _threads.append(WorkerThread(len(_threads) + 1))
        return _threads[-1]
    return min(idle or _threads, key=lambda each: each.requests)


def dismiss() -> None:
    """End the threads, each when it has made its calls; no request may be in progress."""
    while _threads:
        _threads.pop().executor.shutdown()
