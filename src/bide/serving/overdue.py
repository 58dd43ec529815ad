"""Requests that take too long, and how often a server checks for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from bide.errors import RequestTimeout
from bide.exchange.call import Call
from bide.exchange.stream import SWITCHED
from bide.executors.hub import Hub
from bide.executors.monitor import stack_of
from bide.settings import Settings
from bide.waiting.each import to_each

log = logging.getLogger("bide")

TICK = 1.0
"""Seconds between two checks of deadlines, where no shorter time-out needs more."""


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

    def end(call: Call) -> None:
        if call.started <= before and not call.expired and call.stream.state is not SWITCHED:
            call.expired = True
            _end(call, stack_of(call, hubs), release)

    to_each(calls, end, "internal error: a request that takes too long could not be ended")


def _end(call: Call, stack: str, release: Callable[[Call], None]) -> None:
    taken = monotonic() - call.started
    call.cancel(RequestTimeout(f"it has taken {taken:.1f} s"), firm=True)
    release(call)
    described = call.describe()
    if stack:
        log.warning("%s has taken %.1f s, and its code goes on:\n%s", described, taken, stack)
    else:
        log.warning("%s has taken %.1f s: its wait is ended", described, taken)


def interval(settings: Settings) -> float:
    """Return the seconds between two checks of deadlines, for the shortest time-out."""
    timeouts = (
        settings.head_timeout,
        settings.idle_timeout,
        settings.queue_timeout,
        settings.request_timeout,
        settings.response_timeout,
    )
    shortest = min((each for each in timeouts if each), default=TICK)
    return max(0.05, min(TICK, shortest / 4))
