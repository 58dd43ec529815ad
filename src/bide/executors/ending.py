"""The end of a lane that nobody has stopped: an asynchronous exception has come into its thread.

Decorators that limit a call's time raise it so (``PyThreadState_SetAsyncExc``). It may come late,
when their call waits or has ended, and then it meets the lane itself. What the lane was about may
be half done: so it takes no more jobs, another takes its place, and its own conversations end.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bide.errors import ThreadEnded
from bide.executors.hub import Hub, job_of
from bide.promises import Wait

if TYPE_CHECKING:
    from bide.executors.lane import Jobs, Lane

log = logging.getLogger("bide")


def end_lane(lane: Lane, executor: Jobs, error: BaseException) -> None:
    """Have a lane replaced, and end what it has; on its thread, where that must happen."""
    lost = executor.withdraw(lane)
    hub = lane.hub
    log.error(
        "%s was ended from outside and is replaced; %d waiting requests of it are ended",
        lane.name.removeprefix("bide-"),
        0 if hub is None else hub.parked,
        exc_info=error,
    )
    taken, lane.taken = lane.taken, None
    if hub is not None:
        parked = {job_of(wait.parked) for wait in list(hub.waits)}
        if lost and taken is not None and taken not in parked:
            taken.lost()
        del taken, parked
        while hub.parked:
            try:
                _end_parked(lane, hub)
            except BaseException:
                log.exception("%s was interrupted while it ended", hub.name)
    elif lost and taken is not None:
        taken.lost()
    executor.leave(lane)


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
