"""The conversation that code runs in, as far as waiting needs it: its waiter.

An executor puts the waiter on the conversation's greenlet. Nothing here makes one, or waits: what
only asks whether there is a conversation needs no more than this.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

from bide.waiting.foreign import runs_greenlets

if TYPE_CHECKING:
    from bide.waiting.waiter import Waiter


def current_waiter() -> Waiter | None:
    """Return the waiter of the conversation that this code runs in; None outside.

    The greenlet's parents are searched, since a library may run below the conversation in a
    greenlet of its own (SQLAlchemy's asyncio bridge does).
    """
    running: greenlet | None = getcurrent()
    while running is not None:
        waiter: Waiter | None = getattr(running, "waiter", None)
        if waiter is not None:
            return waiter
        parent = running.parent
        # gevent's hub runs everybody's greenlets: its parent is just the one that needed it first.
        if parent is not None and runs_greenlets(running.gr_frame or sys._getframe()):
            return None
        running = parent
    return None


def look() -> None:
    """Raise the cancellation of the request that this code runs in, as :meth:`Waiter.look`."""
    waiter = current_waiter()
    if waiter is not None:
        waiter.look()
