"""Threads for the blocking calls of requests that run on the event loop.

asgiref alone has one thread for the calls of all. Here are a few; each request has all of its calls
made by the same one, with connections of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bide.integrations.django.request_executor import Desk

CLERKS = 8
"""How many threads at most."""


class _Here(threading.local):
    desk: Desk | None = None


_here = _Here()


def served_here() -> Desk | None:
    """Give the desk whose call this thread makes; None where it makes none."""
    return _here.desk


class Clerk:
    """One thread; all but its calls is on the event loop's thread.

    Attributes:
        requests: how many it serves.
    """

    def __init__(self, number: int) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"bide-django-{number}")
        self.requests = 0

    def call(self, desk: Desk, function: Callable[[], None]) -> None:
        """Make a call for a request, on the clerk's thread."""
        _here.desk = desk
        try:
            function()
        finally:
            _here.desk = None

    def leave(self, desk: Desk) -> None:
        """Know that a request has ended; what it has kept on the clerk's thread is given back."""
        self.requests -= 1
        self.executor.submit(self._end, desk)

    def _end(self, desk: Desk) -> None:
        # Looked at here: calls of a request that was left may have come to their turn since.
        if desk.held is not None:
            desk.held.end()


_clerks: list[Clerk] = []


def clerk_for(desk: Desk) -> Callable[[Callable[[], None]], object]:
    """Give what makes calls for a request: by the clerk that serves the fewest, from its first."""
    mine: list[Clerk] = []

    def submit(function: Callable[[], None]) -> object:
        if not mine:
            mine.append(_choose())
            mine[0].requests += 1
            desk.ends.append(lambda: mine[0].leave(desk))
        return mine[0].executor.submit(mine[0].call, desk, function)

    return submit


def _choose() -> Clerk:
    idle = [each for each in _clerks if not each.requests]
    if not idle and len(_clerks) < CLERKS:
        _clerks.append(Clerk(len(_clerks) + 1))
        return _clerks[-1]
    return min(idle or _clerks, key=lambda each: each.requests)


def dismiss() -> None:
    """End the threads, each when it has made its calls; no request may be in progress."""
    while _clerks:
        _clerks.pop().executor.shutdown()
