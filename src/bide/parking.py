"""How a thread of control stops until its wait is settled, and how that blocks its thread."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from typing import Protocol

from greenlet import getcurrent, greenlet

from bide.errors import WaitError
from bide.home import Blocked, home_loop
from bide.locks import obstacle
from bide.promises import Wait
from bide.thread_pool import waiting_here


class Parking(Protocol):
    """How a thread of control stops until its wait is settled.

    Attributes:
        since: when the one that runs now went on, in monotonic seconds.
    """

    since: float

    def park(self, wait: Wait) -> None:
        """Return once ``wait`` is settled or interrupted, or earlier; on the waiting thread."""

    def wake(self, wait: Wait) -> None:
        """Let ``park`` return; from any thread."""


class ThreadParking:
    """Parks by blocking the thread; one object for each wait.

    Args:
        blocked: whose wait it is. Once the loop that it needs has been taken back, it is cancelled.
    """

    __slots__ = ("_blocked", "_turnstile")

    since = math.inf  # it has the thread to itself: no others go on

    def __init__(self, blocked: Blocked) -> None:
        self._blocked = blocked
        self._turnstile = threading.Lock()
        self._turnstile.acquire()

    def park(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Block this thread, until the loop's server has stopped at the latest."""
        blocked = self._blocked
        try:
            home_loop.block(blocked)
            with waiting_here():
                self._turnstile.acquire()
        finally:
            home_loop.unblock(blocked)

    def wake(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Let the thread go on."""
        with contextlib.suppress(RuntimeError):  # it has been let already
            self._turnstile.release()


def refuse_under_lock() -> None:
    """Raise WaitError where a lock is held that others need for a wait to end; see bide.locks."""
    found = obstacle(sys._getframe(1))
    running: greenlet | None = getcurrent()
    # A library may run below the conversation in a greenlet of its own: each has its own frames.
    while not found and running is not None and getattr(running, "waiter", None) is None:
        running = running.parent
        if running is not None and running.parent is not None:
            found = obstacle(running.gr_frame)
    if found:
        raise WaitError(found)
