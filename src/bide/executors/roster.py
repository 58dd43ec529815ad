"""The lanes of an executor, the jobs that wait, and which lane gets a job.

It only counts and chooses; the executor wakes and starts lanes. Everything is called under the
executor's lock. What is read without the lock may be a moment old.

The rules, in this order:

- At most ``threads`` lanes are at new jobs at a time. A lane whose job blocks, as the loop has
  found, does not count. Nor does a lane that has been resumed.
- A job is begun on a lane that has nothing parked, or on a new lane, as long as there is one.
- Else it is begun on the idle lane with the fewest parked jobs, since it may block them.
- A lane that is awake takes job after job without asking, as long as it has nothing parked.
- While many jobs park each second, they are kept to the first ``threads`` lanes: a switch to
  another thread for each would cost more than a wait does.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Container
from operator import attrgetter
from typing import Final

from bide.compiling import mypyc_attr
from bide.executors.hub import Job
from bide.executors.lane import Lane

START_PAUSE: Final = 1.0
"""Seconds before the next try when the system has refused a thread, where there are other lanes."""
PARKS: Final = 500.0
"""Jobs that may park in a second while each new one still has a lane of its own."""
PARKS_AT_ONCE: Final = 256
"""How many more may park at once; twice as many after a pause."""
NEW: Final = object()
"""In place of a lane: a new one must be started."""

_count = attrgetter("count")
_number = attrgetter("number")


@mypyc_attr(allow_interpreted_subclasses=True)
class Roster:
    """The lanes of an executor, and the jobs that wait for one.

    A lane may be ended from outside in the middle of any step. So a lane's own flags are set before
    what is counted of them, and ``withdraw`` counts anew.

    Args:
        threads: how many lanes may be at new jobs at a time.
        limit: how many lanes in all; never fewer than ``threads``. With one thread there is one.
        serial: a lane takes no new job while one of its own is parked.
        clock: returns monotonic seconds.

    Attributes:
        jobs: the jobs that wait for a lane, the oldest first.
        lanes: all lanes, in the order of their numbers.
        lanes_max: how many lanes there may be.
        coming: lanes that have been woken or started, and have not asked for a job yet.
        begun: lanes at a new job or on their way to one, without those that block.
        crowded: so many jobs park that new ones are kept to the first lanes.
        refused: when the system has refused a thread, in monotonic seconds; 0 once one started.
    """

    def __init__(self, threads: int, limit: int, serial: bool, clock: Callable[[], float]) -> None:
        self.lanes_max = 1 if threads == 1 else max(threads, limit)
        self._threads = threads
        self._serial = serial
        self._clock = clock
        self.jobs: deque[Job] = deque()
        self.lanes: list[Lane] = []
        # Idle lanes, in the order in which they went idle:
        self._empty: dict[Lane, None] = {}  # with nothing parked
        self._idle: dict[Lane, None] = {}  # with parked jobs
        self.coming = 0
        self.begun = 0
        self.refused = 0.0
        self.crowded = False
        self._taker: Lane | None = None  # which lane has last set its ``taken``
        self._parks = 0.0  # jobs that have parked, less PARKS for each second up to _parked_at
        self._cool_at = float(PARKS_AT_ONCE)  # the value of _parks at which to count anew
        self._parked_at = clock()

    # Jobs -----------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether one more job would find a lane without waiting for one."""
        lanes = len(self._empty) + len(self._idle) + self.lanes_max - len(self.lanes)
        return len(self.jobs) < self.coming + min(lanes, self._threads - self.begun)

    def expire(self, before: float, jobs: Container[object]) -> list[Job]:
        """Remove and return those of ``jobs`` made by the time ``before``, in monotonic seconds."""
        queue = self.jobs
        expired: list[Job] = []
        others: list[Job] = []
        while queue and queue[0].started <= before:
            job = queue.popleft()
            (expired if job in jobs else others).append(job)
        queue.extendleft(reversed(others))
        return expired

    # What a lane does -----------------------------------------------------------------------------

    def take(self, lane: Lane) -> Job | None:
        """Return a job for a lane that asks; None if there is none that this lane should get."""
        if lane.coming:
            lane.coming = False
            self.coming -= 1
        hub = lane.hub
        parked = 0 if hub is None else hub.parked
        lane.noted = parked
        if lane.has_parked:
            lane.has_parked = False
            self._parks += 1.0
            if self._parks >= self._cool_at:
                self._cool()
        jobs = self.jobs
        if not jobs:
            return None
        # Most lanes are at the next of a batch, and need not ask.
        if (parked or not lane.begun) and not self._may_take(lane, parked):
            return None
        # The job is first noted as taken, then taken out. So a lane that is ended in between loses
        # no job. The lane that takes the job next clears that note.
        job = jobs[0]
        taker = self._taker
        if taker is not lane:
            if taker is not None and taker.taken is job:
                taker.taken = None
            self._taker = lane
        lane.taken = job
        jobs.popleft()
        return job

    def _may_take(self, lane: Lane, parked: int) -> bool:
        if parked and self._serial:
            return False
        if not lane.begun and self.begun >= self._threads:
            return False
        if parked and self._is_better(lane, parked):
            return False
        if not lane.begun:
            lane.begun = True
            self.begun += 1
        return True

    def _is_better(self, lane: Lane, parked: int) -> bool:
        """Whether another lane should get the job, since this one has parked jobs."""
        if self.crowded:
            if lane.number <= self._threads:
                return False
            # It was woken since none of the first lanes was idle. It goes on until one is.
            return not lane.begun or self._first_idle() is not None
        if self._empty or self._may_start():
            return True
        if not self._idle:
            return False
        if not lane.queue.empty():  # some of its own jobs can go on, and the new one may block them
            return True
        if parked > lane.limit:
            fewest = min(map(_count, self._idle))
            if fewest < parked:
                return True
            lane.limit = _limit(fewest)
        return False

    def go_idle(self, lane: Lane) -> Lane | object | None:
        """Note that a lane that got no job is idle; return the lane to wake instead, if any."""
        if lane.begun:
            lane.begun = False
            self.begun -= 1
        parked = lane.noted
        if parked and self._serial:
            return None
        other = self._another() if self.jobs else None
        lane.idle = True
        lane.count = parked
        if parked:
            self._idle[lane] = None
        else:
            self._empty[lane] = None
        return other

    def go_on(self, lane: Lane) -> Lane | object | None:
        """Note that a lane that got no job goes on; return the lane to wake instead, if any."""
        if self._serial or not self.jobs:
            return None
        self.discount(lane)
        return self._another()

    def busy(self, lane: Lane) -> Lane | object | None:
        """Note that a lane resumes a job of its own; return the lane to wake instead, if any."""
        if lane.idle:
            lane.idle = False
            if lane.count:
                del self._idle[lane]
            else:
                del self._empty[lane]
            return None
        # It has been woken for a job, and will not ask for it soon. Another lane must.
        if lane.coming:
            lane.coming = False
            self.coming -= 1
        self.discount(lane)
        return self._another()

    def discount(self, lane: Lane) -> None:
        """Allow another lane to begin a job in the place of this one."""
        if lane.begun:
            lane.begun = False
            self.begun -= 1

    def discount_blocked(self, now: float, window: float) -> None:
        """If no lane may begin a job, allow others in the place of lanes whose jobs block."""
        if self.begun >= self._threads:
            for lane in self.lanes:
                if lane.begun and not lane.coming and lane.blocks(now, window):
                    self.discount(lane)

    # Which lane is woken --------------------------------------------------------------------------

    def choose(self) -> Lane | object | None:
        """Choose the lane to wake for a job; NEW if one must be started; None if none may begin."""
        if not self.jobs or self.begun >= self._threads:
            return None
        lane = self._first_idle() if self.crowded and self._is_crowded() else None
        if lane is None:
            # First a lane with nothing parked. Then the lane with the fewest parked jobs, since a
            # new job may block them. Of equals the one that ran last: the others stay asleep.
            if self._empty:
                lane = next(reversed(self._empty))
            elif self._may_start():
                return NEW
            elif self._idle:
                lane = min(reversed(self._idle), key=_count)
            else:
                return None
        self._note_woken(lane)
        return lane

    def _another(self) -> Lane | object | None:
        """Choose a lane for a job that was left to others, unless enough are on their way."""
        if self.coming >= len(self.jobs):
            return None
        if not self.crowded:
            return self.choose()
        if self.begun >= self._threads:
            return None
        first = self._first_idle()
        if first is None:
            return NEW
        self._note_woken(first)
        return first

    def _note_woken(self, lane: Lane) -> None:
        lane.idle = False
        count = lane.count
        if count:
            del self._idle[lane]
        else:
            del self._empty[lane]
        lane.limit = _limit(count) if count else 0
        lane.coming = lane.begun = True
        self.coming += 1
        self.begun += 1

    def _first_idle(self) -> Lane | None:
        """Return the idle one of the first lanes that has the fewest parked jobs, if any is."""
        first = [
            lane
            for lane in self.lanes[: self._threads]  # in the order of their numbers
            if lane.idle and lane.number <= self._threads
        ]
        return min(reversed(first), key=_count, default=None)

    def _may_start(self) -> bool:
        lanes = len(self.lanes)
        if lanes >= self.lanes_max:
            return False
        return not (lanes and self.refused and self._clock() - self.refused < START_PAUSE)

    @property
    def spare(self) -> bool:
        """Whether there are lanes, and one is idle or one more is allowed."""
        lanes = len(self.lanes)
        return lanes > 0 and (bool(self._empty or self._idle) or lanes < self.lanes_max)

    def _is_crowded(self) -> bool:
        self._cool()
        return self.crowded

    def _cool(self) -> None:
        now = self._clock()
        parks = self._parks - (now - self._parked_at) * PARKS
        self._parked_at = now
        # Bounded, so that being crowded is soon over.
        self._parks = min(max(0.0, parks), 2.0 * PARKS_AT_ONCE)
        if parks >= PARKS_AT_ONCE:
            self.crowded = True
            self._cool_at = self._parks + 16.0  # reading the clock for each job would cost too much
        else:
            self._cool_at = float(PARKS_AT_ONCE)
            if parks < PARKS_AT_ONCE / 2:
                self.crowded = False

    # Which lanes there are ------------------------------------------------------------------------

    def free_number(self) -> int:
        """Return the least number that no lane has."""
        numbers = {lane.number for lane in self.lanes}
        return next(number for number in range(1, len(numbers) + 2) if number not in numbers)

    def add(self, lane: Lane) -> None:
        """Add a new lane, which will ask for a job."""
        lane.begun = True
        bisect.insort(self.lanes, lane, key=_number)
        self.coming += 1
        self.begun += 1

    def refuse(self, lane: Lane) -> None:
        """Remove a new lane for which the system has no thread."""
        self.lanes.remove(lane)
        self.coming -= 1
        self.discount(lane)
        self.refused = self._clock()

    def withdraw(self, gone: Lane) -> tuple[bool, list[Lane]]:
        """Called when a lane was ended: it gets no more jobs. Count anew after its half-done step.

        Return whether it has taken a job, not begun, and which lanes to wake: it may have noted a
        lane as woken, and not woken it.
        """
        in_hand = gone.taken is not None and not (self.jobs and self.jobs[0] is gone.taken)
        if not self._serial:
            self.remove(gone)
        gone.coming = gone.begun = gone.idle = False
        known = [lane for lane in (*self._empty, *self._idle) if lane.idle]
        self._empty = {lane: None for lane in known if not lane.count}
        self._idle = {lane: None for lane in known if lane.count}
        self.coming = sum(lane.coming for lane in self.lanes)
        self.begun = sum(lane.begun for lane in self.lanes)
        return in_hand, [lane for lane in self.lanes if not lane.idle and lane is not gone]

    def remove(self, gone: Lane) -> None:
        """Remove a lane that has ended, if it is still there."""
        if gone in self.lanes:
            self.lanes.remove(gone)


def _limit(fewest: int) -> int:
    """Return how many jobs a lane may have parked before its next job goes to one that has fewer.

    Some more than the fewest: a switch to another lane costs a turn at the interpreter's lock.
    """
    return fewest + (fewest >> 3)
