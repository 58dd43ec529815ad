"""Threads for the blocking calls of requests that run on the event loop.

asgiref by itself has one thread for the thread-sensitive calls of all requests. Here there are a
few threads. All calls of a request are made on the same one, with connections of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

WORKER_THREADS: Final = 8
"""How many threads there are at most."""


class WorkerThread:
    """One thread. Everything here is called on the event loop's thread.

    Attributes:
        executor: makes calls on the thread.
        requests: how many requests make their calls here.
    """

    def __init__(self, number: int) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"bide-django-{number}")
        self.requests = 0


_threads: list[WorkerThread] = []


def choose() -> WorkerThread:
    """Return an idle thread; else a new one; at the limit, the one that serves the fewest."""
    idle = [each for each in _threads if not each.requests]
    if not idle and len(_threads) < WORKER_THREADS:
        _threads.append(WorkerThread(len(_threads) + 1))
        return _threads[-1]
    return min(idle or _threads, key=lambda each: each.requests)


def dismiss() -> None:
    """End the threads, each after its last call; called when no request is in progress."""
    while _threads:
        _threads.pop().executor.shutdown()
