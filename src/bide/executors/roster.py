"""Which lanes there are, and which of them is given a job.

All of it is called under the executor's lock. Only the numbers are read without, from any thread.

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

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from bide.executors.hub import Hub, Job
from bide.executors.lane import Jobs, Lane

START_PAUSE: Final = 1.0
"""Seconds before the next try when the system has refused a thread, where there are other lanes."""
PARKS: Final = 500.0
"""Jobs that may park in a second while each new one still has a lane of its own."""
PARKS_AT_ONCE: Final = 256
"""How many more may park at once; twice as many after a pause."""
NEW: Final = object()
"""In place of a lane: one that is to be started."""

_count = attrgetter("count")


class Roster(Jobs):
    """The lanes of an executor, and the jobs that wait for one.

    Args:
        threads: how many lanes may be at new jobs at a time.
        limit: how many lanes in all; never fewer than ``threads``. With one thread there is one.
        serial: a lane takes no new job while one of its own is parked.
        clock: returns monotonic seconds.
    """

    def __init__(self, threads: int, limit: int, serial: bool, clock: Callable[[], float]) -> None:
        self.threads_max = threads
        self.lanes_max = 1 if threads == 1 else max(threads, limit)
        self._threads = threads
        self._serial = serial
        self._clock = clock
        self._jobs: deque[Job] = deque()
        self._lanes: list[Lane] = []
        # Idle lanes, in the order in which they went idle:
        self._empty: dict[Lane, None] = {}  # with nothing parked
        self._idle: dict[Lane, None] = {}  # with parked jobs
        self._coming = 0  # lanes that have been woken or started, and have not looked yet
        self._begun = 0  # lanes at a new job or on their way to one, without those that block
        self._taker: Lane | None = None  # which lane has last set its ``taken``
        self._asked = False  # the loop has been asked to start a lane
        self._looking = False  # the loop will check the queue; set by the loop
        self._refused = 0.0  # when the system refused a thread, in monotonic seconds
        self._parks = 0.0  # jobs that have parked, less PARKS for each second up to _parked_at
        self._cool_at = float(PARKS_AT_ONCE)  # the value of _parks at which to count anew
        self._parked_at = clock()
        self._crowded = False  # so many jobs park that they are kept to the first lanes

    @property
    def hubs(self) -> list[Hub]:
        """The hubs of the lanes that have started."""
        return [lane.hub for lane in list(self._lanes) if lane.hub is not None]

    @property
    def queued(self) -> int:
        """How many jobs wait for a lane."""
        return len(self._jobs)

    @property
    def threads(self) -> int:
        """How many lanes have started."""
        return len(self._lanes)

    @property
    def threads_busy(self) -> int:
        """How many lanes run a job's code now."""
        return sum(hub.running is not None for hub in self.hubs)

    @property
    def alive(self) -> bool:
        """Whether a lane has not ended."""
        return any(lane.thread.is_alive() for lane in self._lanes)

    @property
    def able(self) -> bool:
        """Whether there is a lane, or none was refused when it was wanted; on the loop."""
        return bool(self._lanes) or not self._refused

    def _has_room(self) -> bool:
        lanes = len(self._empty) + len(self._idle) + self.lanes_max - len(self._lanes)
        return len(self._jobs) < self._coming + min(lanes, self._threads - self._begun)

    def _may_start(self) -> bool:
        lanes = len(self._lanes)
        if lanes >= self.lanes_max:
            return False
        return not (lanes and self._refused and self._clock() - self._refused < START_PAUSE)

    def _choose(self) -> Lane | object | None:
        """Choose the lane for a new job; NEW for one that the loop is to start."""
        if self._begun >= self._threads:
            return None
        lane = self._first_idle() if self._crowded and self._is_crowded() else None
        if lane is not None:
            return self._taken(lane)
        if not self._empty and self._may_start():
            return NEW
        return self._take_idle()

    def _first_idle(self) -> Lane | None:
        """Find which of the first lanes is idle, and has the fewest parked jobs."""
        first = [
            lane
            for lane in self._lanes[: self._threads]  # in the order of their numbers
            if lane.idle and lane.number <= self._threads
        ]
        return min(reversed(first), key=_count, default=None)

    def _take_idle(self) -> Lane | None:
        # First one with nothing parked. Then the one with the fewest, since a new job may block
        # them. Of equals the one that ran last, which leaves the others asleep.
        if self._empty:
            return self._taken(next(reversed(self._empty)))
        if self._idle:
            return self._taken(min(reversed(self._idle), key=_count))
        return None

    def _taken(self, lane: Lane) -> Lane:
        self._leaves_idle(lane)
        lane.limit = _limit(lane.count)
        lane.coming = lane.begun = True
        self._coming += 1
        self._begun += 1
        return lane

    def _take(self, lane: Lane) -> Job | None:
        """Return a job for a lane, if there is one and no other lane is better for it."""
        if not self._jobs or (self._serial and lane.parked):
            return None
        if not lane.begun and self._begun >= self._threads:
            return None
        if lane.parked and not self._serial and self._is_better(lane):
            return None
        if not lane.begun:
            lane.begun = True
            self._begun += 1
        return self._first_job(lane)

    def _first_job(self, lane: Lane) -> Job:
        # First noted as taken, then taken out. A lane that is ended in between has lost no job; the
        # lane that takes the job next clears its note.
        job = self._jobs[0]
        if self._taker is not None and self._taker.taken is job:
            self._taker.taken = None
        self._taker = lane
        lane.taken = job
        self._jobs.popleft()
        return job

    def _is_better(self, lane: Lane) -> bool:
        """Whether another lane should have the job, since this one has parked ones."""
        if self._crowded:
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
        if lane.parked > lane.limit:
            fewest = min(map(_count, self._idle))
            if fewest < lane.parked:
                return True
            lane.limit = _limit(fewest)
        return False

    def _another(self) -> Lane | object | None:
        """Choose a lane for a job that was left to others, unless enough are on their way."""
        if self._coming >= len(self._jobs) or self._begun >= self._threads:
            return None
        if self._crowded:
            first = self._first_idle()
            if first is None and self._looking:
                return None
            lane = NEW if first is None else self._taken(first)
        else:
            lane = self._choose()
        if lane is NEW:
            if self._asked:
                return None
            self._asked = True
        return lane

    def _note_park(self) -> None:
        """Count a job that a lane has parked since it was last here."""
        self._parks += 1.0
        if self._parks >= self._cool_at:
            self._cool()

    def _is_crowded(self) -> bool:
        self._cool()
        return self._crowded

    def _cool(self) -> None:
        now = self._clock()
        parks = self._parks - (now - self._parked_at) * PARKS
        self._parked_at = now
        # Bounded, so that being crowded is soon over.
        self._parks = min(max(0.0, parks), 2.0 * PARKS_AT_ONCE)
        if parks >= PARKS_AT_ONCE:
            self._crowded = True
            self._cool_at = self._parks + 16.0  # reading the clock for each job would cost too much
        else:
            self._cool_at = float(PARKS_AT_ONCE)
            if parks < PARKS_AT_ONCE / 2:
                self._crowded = False

    def _release(self, lane: Lane) -> None:
        if lane.begun:
            lane.begun = False
            self._begun -= 1

    def _has_come(self, lane: Lane) -> None:
        if lane.coming:
            lane.coming = False
            self._coming -= 1

    def _recount(self, gone: Lane) -> None:
        """Count anew: a lane that was ended may have left the counts half done."""
        gone.coming = gone.begun = gone.idle = False
        known = [lane for lane in (*self._empty, *self._idle) if lane.idle]
        self._empty = {lane: None for lane in known if not lane.count}
        self._idle = {lane: None for lane in known if lane.count}
        self._coming = sum(lane.coming for lane in self._lanes)
        self._begun = sum(lane.begun for lane in self._lanes)

    def _free_number(self) -> int:
        numbers = {lane.number for lane in self._lanes}
        return next(number for number in range(1, len(numbers) + 2) if number not in numbers)

    def _goes_idle(self, lane: Lane, parked: int) -> None:
        lane.idle = True
        lane.count = parked
        (self._idle if parked else self._empty)[lane] = None

    def _leaves_idle(self, lane: Lane) -> None:
        lane.idle = False
        del (self._idle if lane.count else self._empty)[lane]


def _limit(fewest: int) -> int:
    """Return how many jobs a lane may have parked before its next job goes to one that has fewer.

    Some more than the fewest: a switch to another lane costs a turn at the interpreter's lock.
    """
    return fewest + (fewest >> 3)
