"""Requests that take too long, and how often a server looks for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from bide.errors import RequestTimeout
from bide.exchange.call import Call
from bide.executors.hub import Hub
from bide.executors.monitor import stack_of
from bide.settings import Settings

log = logging.getLogger("bide")

TICK = 1.0
"""Seconds between two looks at the time, where no shorter time-out asks for more."""


def end_overdue(
    calls: Iterable[Call],
    before: float,
    hubs: list[Hub],
    release: Callable[[Call], None],
) -> None:
    """End the waits of calls that began before then, and name those whose code runs; once each.

    On the loop.

    Args:
        calls: those in progress.
        before: monotonic seconds.
        hubs: where they run.
        release: called with each that is ended; one whose body is still to come begins by that,
            and what it would read raises.
    """
    for call in calls:
        if call.started > before or call.expired:
            continue
        call.expired = True
        stack = stack_of(call, hubs)
        taken = monotonic() - call.started
        call.cancel(RequestTimeout(f"it has taken {taken:.1f} s"), firm=True)
        release(call)
        described = call.describe()
        if stack:
            log.warning("%s has taken %.1f s, and its code goes on:\n%s", described, taken, stack)
        else:
            log.warning("%s has taken %.1f s: its wait is ended", described, taken)


def interval(settings: Settings) -> float:
    """Choose how often to look at the time, in seconds: often enough for the shortest time-out."""
    timeouts = (
        settings.head_timeout,
        settings.idle_timeout,
        settings.queue_timeout,
        settings.request_timeout,
        settings.response_timeout,
    )
    shortest = min((each for each in timeouts if each), default=TICK)
    return max(0.05, min(TICK, shortest / 4))
