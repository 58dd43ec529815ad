"""The end of a lane that nobody has stopped: an asynchronous exception has come into its thread.

Decorators that limit a call's time raise it so (``PyThreadState_SetAsyncExc``). It may come late,
when their call waits or has ended, and then it meets the lane itself. What the lane was about may
be half done: so it takes no more jobs, another takes its place, and its own conversations end.

Another exception may come into that. So each step can be done anew when it was half done.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from bide.errors import ThreadEnded
from bide.executors.hub import Hub, job_of
from bide.waiting.outcome import Wait

if TYPE_CHECKING:
    from bide.executors.lane import Jobs, Lane

T = TypeVar("T")

log = logging.getLogger("bide")

TRIES: Final = 100
"""How often a step is tried: one that fails by itself must come to an end."""


def end_lane(lane: Lane, executor: Jobs, error: BaseException) -> None:
    """Have a lane replaced, and end what it has; on its thread, where that must happen."""
    lost = _insist(lane, lambda: executor.withdraw(lane))
    _insist(lane, lambda: _report(lane, error), 1)  # a log handler may fail each time
    _insist(lane, lambda: _end_taken(lane, lost is not False))
    hub = lane.hub
    if hub is not None:
        _insist(lane, lambda: _end_parked(lane, hub))
    _insist(lane, lambda: executor.leave(lane))


def _insist(lane: Lane, step: Callable[[], T], tries: int = TRIES) -> T | None:
    """Do a step, again when it is interrupted; return None where it never came to its end."""
    for _ in range(tries):
        try:
            return step()
        except BaseException:
            # Reported, unless the log is what it came into.
            with contextlib.suppress(BaseException):
                log.exception("%s was interrupted while it ended", _name(lane))
    return None


def _name(lane: Lane) -> str:
    return lane.name.removeprefix("bide-")


def _report(lane: Lane, error: BaseException) -> None:
    log.error(
        "%s was ended from outside and is replaced; %d waiting requests of it are ended",
        _name(lane),
        0 if lane.hub is None else lane.hub.parked,
        exc_info=error,
    )


def _end_taken(lane: Lane, lost: bool) -> None:
    """End a job that the lane has taken and not begun, unless another lane will take it."""
    taken = lane.taken
    parked = set() if lane.hub is None else {job_of(wait.parked) for wait in list(lane.hub.waits)}
    if lost and taken is not None and taken not in parked:
        taken.lost()
    lane.taken = None


def _end_parked(lane: Lane, hub: Hub) -> None:
    for wait in list(hub.waits):
        job = job_of(wait.parked)
        if job is not None:
            job.waiter.cancel(ThreadEnded("its thread was ended from outside"), firm=True)
        lane.queue.put(wait)  # its own word may have been taken out and lost; one more does no harm
    while hub.parked:
        item = lane.queue.get()
        if isinstance(item, Wait):
            hub.resume(item)
