"""How a thread of control stops until its wait is settled, and how that blocks its thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
from typing import Final

from greenlet import getcurrent, greenlet

from bide.compiling import mypyc_attr
from bide.errors import WaitError
from bide.waiting.background import Blocked, background_loop
from bide.waiting.foreign import runs_reactor
from bide.waiting.locks import LOOP, PINS, QUICK, is_clear, obstacle
from bide.waiting.outcome import Wait
from bide.waiting.thread_pool import waiting_here

_INTERPRETED: Final = __file__.endswith(".py")  # compiled functions have no frames


@mypyc_attr(allow_interpreted_subclasses=True)
class Parking:
    """How a thread of control stops until its wait is settled.

    Attributes:
        since: when the one that runs now went on, in monotonic seconds.
        name: the thread's, for people.
    """

    __slots__ = ("name", "since")

    since: float
    name: str

    def park(self, wait: Wait) -> None:
        """Return once ``wait`` is settled or interrupted, or earlier; on the waiting thread."""
        raise NotImplementedError

    def wake(self, wait: Wait) -> None:
        """Let ``park`` return; from any thread."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class ThreadParking(Parking):
    """Parks by blocking the thread; one object for each wait.

    Args:
        blocked: whose wait it is. Once the loop that it needs has been taken back, it is cancelled.
    """

    __slots__ = ("_blocked", "_turnstile")

    def __init__(self, blocked: Blocked) -> None:
        self.since = math.inf  # it has the thread to itself: no others go on
        self.name = ""  # whose waits block has no other parking to be looked for in
        self._blocked = blocked
        self._turnstile = threading.Lock()
        self._turnstile.acquire()

    def park(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Block this thread, until the loop's server has stopped at the latest."""
        blocked = self._blocked
        try:
            background_loop.block(blocked)
            with waiting_here():
                self._turnstile.acquire()
        finally:
            background_loop.unblock(blocked)

    def wake(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Let the thread go on."""
        with contextlib.suppress(RuntimeError):  # it has been let already
            self._turnstile.release()


def refuse_under_lock(frames: int = 1) -> str:
    """Raise WaitError where a lock is held that others need for a wait to end.

    Return why a wait must not let others run on this thread, though it may block it; else "".

    Args:
        frames: how many of those that it is called from are the wait's own, and hold none. Not
            counted where this module is compiled.
    """
    try:
        found = obstacle(sys._getframe(frames if _INTERPRETED else 0))
    except ValueError:  # a greenlet begins with the wait
        found = ""
    running: greenlet | None = getcurrent()
    # A library may run below the conversation in a greenlet of its own: each has its own frames.
    while getattr(running, "waiter", None) is None:
        running = running.parent if running is not None else None
        if running is None:
            break
        if running.parent is not None and (not found or found in PINS):
            found = obstacle(running.gr_frame) or found
    if found and found not in PINS:
        raise WaitError(found)
    return found


def pinned(loop: asyncio.AbstractEventLoop, frames: int = 2) -> str:
    """Return why others must not run on this thread during a wait; empty where they may.

    An import and a running event loop are the thread's, not the greenlet's.

    Args:
        loop: the server's.
        frames: how many of those that it is called from are the wait's own.
    """
    if QUICK and is_clear() and getattr(getcurrent(), "waiter", None) is not None:
        why = ""
    else:
        why = refuse_under_lock(frames + 1)
    if not why and asyncio._get_running_loop() not in (None, loop):
        return LOOP
    return why


def runs_loop() -> bool:
    """Whether this thread runs asyncio's or Twisted's loop: it must not be blocked."""
    return asyncio._get_running_loop() is not None or runs_reactor()


def must_turn(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs what waits may need: the server's loop, or Twisted's reactor."""
    return (
        asyncio._get_running_loop() is loop
        or getattr(loop, "_thread_id", None) == threading.get_ident()
        or runs_reactor()
    )
