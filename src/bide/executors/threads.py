"""The threads executor: lanes, each one thread with greenlets of its own, and one queue for all.

No job is bound to a lane before the lane takes it. Jobs wait in one queue, and lanes are woken to
look there. A lane that turns out to be busy wakes another in its place. So no job stands behind a
blocked one.

A job that waits stays on its lane, and stands still when that lane blocks. So there are more lanes
than may begin jobs at a time, and a job is begun on a lane that has nothing parked, as long as
there is one or one may be started: :mod:`bide.executors.roster`, docs/decisions/0010-more-lanes.md.

Invariant: while a job is in the queue, one of these is true:

- No lane is idle, and no other may be started.
- As many lanes as may be are at a new job. Each looks into the queue when that has ended or parked.
- A lane has been woken, and will look into the queue.
- The loop will call ``flush``, or check the queue itself (``_look_after``).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Container
from time import monotonic
from typing import Any, Final

from bide.compiling import mypyc_attr
from bide.executors import turns
from bide.executors.hub import Hub, Job
from bide.executors.lane import LOOK, STOP, Jobs, Lane
from bide.executors.returning import Returning
from bide.executors.roster import Roster
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.waiter import Waiter

log = logging.getLogger("bide")

PATIENCE: Final = 0.001
"""Seconds that a lane may run one job before another lane is woken for those behind it."""
QUEUE_PATIENCE: Final = 0.005
"""Seconds that a job may wait for a lane that is quick, before another one is woken."""
BLOCKED: Final = 0.02
"""Seconds without processor time after which a lane's job counts as blocked."""
PLENTY: Final = 4
"""Jobs in the queue that keep the lanes busy for a while."""


def nothing() -> None:
    """Do nothing; the default of a callback."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ThreadsExecutor(Jobs):
    """Runs jobs on lanes, started when first needed.

    It owns the lock, starts and wakes the lanes, and checks them on the loop. Its roster counts and
    chooses.

    ``submit``, ``expire`` and ``stop`` are called on the loop; what lanes call, on their threads.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        queue: int,
        serial: bool = False,
        rested: Callable[[], None] = nothing,
        limit: int = 0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make the executor; no thread is started yet.

        Args:
            loop: the server's, where awaitables run.
            threads: how many lanes may run new jobs at a time; blocked ones do not count. With 1
                there is one lane, and no two jobs run at the same time.
            queue: how many jobs may wait for a lane.
            serial: a lane takes no new job while one of its own is parked.
            rested: called on the loop when ``flush`` has let it rest, and the queue is empty again.
            limit: how many lanes in all; never fewer than ``threads``.
            clock: returns monotonic seconds.
        """
        self.roster = roster = Roster(threads, limit, serial, clock)
        self.jobs = roster.jobs
        self.lanes_max = roster.lanes_max
        self.threads_max = threads
        self.multithread = threads > 1
        self._serial = serial
        self._clock = clock
        self._loop = loop
        self._queue_limit = queue
        self._rested = rested
        self.resting = False  # set by the loop, cleared by the lane that empties the queue
        self.returning = Returning(loop, clock)
        self._lock = Lock()
        # On the loop:
        self._turns = False  # the interpreter's turns have been made short
        self._looking = False  # the queue will be checked
        # Set without a lock by the thread that wakes a lane. If two mix, no harm is done:
        self._asked = False  # the loop has been asked to start a lane
        self._woken: Lane | None = None  # the last one that was woken
        self._woken_at = 0.0
        self._stopping = False

    @property
    def hubs(self) -> list[Hub]:
        """The hubs of the lanes that have started."""
        return [lane.hub for lane in list(self.roster.lanes) if lane.hub is not None]

    @property
    def queued(self) -> int:
        """How many jobs wait for a lane."""
        return len(self.jobs)

    @property
    def threads(self) -> int:
        """How many lanes have started."""
        return len(self.roster.lanes)

    @property
    def threads_busy(self) -> int:
        """How many lanes run a job's code now."""
        return sum(hub.running is not None for hub in self.hubs)

    @property
    def alive(self) -> bool:
        """Whether the thread of any lane still runs."""
        return any(lane.thread.is_alive() for lane in list(self.roster.lanes))

    @property
    def able(self) -> bool:
        """Whether it can run jobs. Not so if it has no lane since the system refused the thread."""
        return bool(self.roster.lanes) or not self.roster.refused

    def waiter(self) -> Waiter:
        """Make a new job's waiter; the lane that takes the job sets its parking."""
        return Waiter(self._loop)

    def submit(self, job: Job) -> bool:
        """Queue a job, to be begun by the next ``flush``; return false when the queue is full."""
        jobs = self.jobs
        with self._lock:
            if len(jobs) >= self._queue_limit and not self.roster.has_room():
                return False
            jobs.append(job)
        return True

    def add(self, job: Job) -> None:
        """Queue a job, however many wait; as ``submit``."""
        with self._lock:
            self.jobs.append(job)

    def flush(self) -> bool:
        """Wake a lane for the submitted jobs, unless one that is awake will soon take them.

        Threads take turns at the interpreter's lock, and a turn costs more than a short request. So
        one lane is woken for all that came in one turn of the loop. Others are woken when it runs
        one job for longer than PATIENCE, or a job has waited for longer than QUEUE_PATIENCE; twice
        as many each time that was not enough. A lane that parks a job wakes another one itself.

        Return whether the lanes have plenty to do, so that the loop may rest before it brings more.
        ``rested`` is called when the queue is empty again.
        """
        jobs = len(self.jobs)
        if not jobs:
            return False
        if not self._quick():
            woken = self._wake_one()
            # Counted before the wake: the lane may have taken it since, and another may have come.
            if jobs == 1 and woken and not self.roster.crowded:
                return False
        if self.roster.lanes:  # else the system gives no thread, and the next flush tries again
            self._look_after(PATIENCE, 1)
        self.resting = jobs >= PLENTY
        return self.resting

    def _quick(self) -> bool:
        """Whether the lane that was woken last is awake, and its job has not run for long."""
        lane = self._woken
        if lane is None or lane.idle:
            return False
        since = self._woken_at if lane.hub is None else max(self._woken_at, lane.hub.since)
        return self._clock() - since < PATIENCE

    def _look_after(self, seconds: float, number: int) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(seconds, self._look, number)

    def _look(self, number: int) -> None:
        self._looking = False
        if self._stopping:
            return
        try:
            waited = self._clock() - self.jobs[0].started
        except IndexError:
            return
        if waited < QUEUE_PATIENCE and self._quick():
            self._look_after(PATIENCE, 1)
            return
        self._discount_blocked()
        if self._wake_lanes(number):
            self._look_after(PATIENCE, number * 2)
        elif self.roster.spare:
            self._look_after(BLOCKED / 4, 1)  # another may begin jobs once a busy one blocks

    def _discount_blocked(self) -> None:
        """Allow other lanes to begin jobs in the place of those whose jobs block."""
        now = self._clock()
        # Long enough for each lane that computes to have its turns at the interpreter's lock.
        window = max(BLOCKED, 4 * self.threads_max * sys.getswitchinterval())
        with self._lock:
            self.roster.discount_blocked(now, window)

    def _wake_lanes(self, number: int) -> bool:
        """Wake lanes, or start new ones; return false when there are no more."""
        for count in range(number):
            if not self._wake_one():
                return count > 0
        return True

    def _wake_one(self) -> bool:
        """Wake a lane for a job, or start one; return false when there is none."""
        if self._stopping:  # a new one would never be told to end
            return False
        with self._lock:
            chosen = self.roster.choose()
            if chosen is None:
                return False
            lane = chosen if isinstance(chosen, Lane) else self._new_lane()
        if lane is chosen:
            lane.queue.put(LOOK)
        elif not self._start(lane):
            return bool(self.roster.lanes) and self._wake_one()
        self._woken_at = self._clock()
        self._woken = lane
        return True

    def _wake_another(self) -> None:
        """Wake a lane, or start one, for a job that a lane has left to others; on the loop."""
        self._asked = False
        if self.jobs and ((self.roster.crowded and self._quick()) or not self._wake_one()):
            self._look_after(PATIENCE, 1)

    def expire(self, age: float, jobs: Container[object]) -> list[Job]:
        """Remove and return those of ``jobs`` that have waited for a lane for ``age`` seconds."""
        before = self._clock() - age
        with self._lock:
            return self.roster.expire(before, jobs)

    def stop(self) -> None:
        """Tell the lanes to end, each after its last job; a blocked one ends with the process."""
        self._stopping = True
        self.returning.bring_all()
        with self._lock:
            lanes = list(self.roster.lanes)
            short, self._turns = self._turns, False
        if short:
            turns.restore()
        for lane in lanes:
            lane.queue.put(STOP)

    def join(self, seconds: float) -> None:
        """Wait for the lanes to end, after ``stop``, for so many seconds at most."""
        deadline = self._clock() + seconds
        for lane in list(self.roster.lanes):
            lane.thread.join(max(0.0, deadline - self._clock()))

    def _start(self, lane: Lane) -> bool:
        try:
            lane.thread.start()
            self.roster.refused = 0.0
        except RuntimeError as error:
            # The system gives no more threads. What is in the queue waits for the lanes that there
            # are, or for the next try, and is answered 503 in the end.
            log.error("cannot start a thread: %s", error)
            with self._lock:
                self.roster.refuse(lane)
            return False
        if not self._turns:
            self._turns = True
            turns.shorten()
        return True

    def recover(self) -> None:
        """Try again to start a lane, where there is none since the system refused the thread."""
        if not self.able:
            self._replace()

    def _replace(self) -> None:
        """Start a lane in the place of one that has ended, even if no job waits; on the loop."""
        self._asked = False  # the lane that ended may have asked, and never called
        if self._stopping:
            return
        with self._lock:
            if len(self.roster.lanes) >= self.lanes_max:
                return
            lane = self._new_lane()
        self._start(lane)

    def _new_lane(self) -> Lane:
        lane = Lane(self, self.roster.free_number())
        self.roster.add(lane)
        return lane

    # Called by the lanes ------------------------------------------------------------------------

    def next_job(self, lane: Lane) -> Job | None:
        """Return the lane's next job; None if there is no job for it, and it is idle now."""
        roster = self.roster
        with self._lock:
            job = roster.take(lane)
            other = roster.go_idle(lane) if job is None else None
        if other is not None:
            self._wake(other)
        elif self.resting and not self.jobs:
            self._end_rest()
        return job

    def another_job(self, lane: Lane) -> Job | None:
        """Return a job for a lane that is awake anyway; None if there is no job for it."""
        roster = self.roster
        with self._lock:
            job = roster.take(lane)
            other = roster.go_on(lane) if job is None else None
        if other is not None:
            self._wake(other)
        elif self.resting and not self.jobs:
            self._end_rest()
        return job

    def busy(self, lane: Lane) -> None:
        """Called when a lane that was idle, or woken for a job, must resume a job of its own."""
        with self._lock:
            other = self.roster.busy(lane)
        if other is not None:
            self._wake(other)

    def _end_rest(self) -> None:
        """Called when the queue is empty: call ``rested`` on the loop."""
        self.resting = False
        self._tell(self._rested)

    def _wake(self, lane: Lane | object) -> None:
        """Wake the chosen lane, or ask the loop to start a new one, unless it will check soon."""
        if isinstance(lane, Lane):
            self._woken_at = self._clock()
            self._woken = lane
            lane.queue.put(LOOK)
        elif not self._asked and not (self._looking and self.roster.crowded):
            self._asked = True
            self._tell(self._wake_another)

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Schedule a function to be called on the loop, unless that has been closed."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def withdraw(self, lane: Lane) -> bool:
        """Called when a lane ends by an error; return whether it has taken a job, not begun."""
        with self._lock:
            in_hand, woken = self.roster.withdraw(lane)
        for each in woken:
            each.queue.put(LOOK)
        if not self._serial:
            self._tell(self._replace)
        return in_hand

    def leave(self, lane: Lane) -> None:
        """Called when a withdrawn lane has ended; a serial lane is replaced only now."""
        if self._serial:
            with self._lock:
                self.roster.remove(lane)
            self._tell(self._replace)


holds_lock(
    ThreadsExecutor.submit,
    ThreadsExecutor.add,
    ThreadsExecutor._discount_blocked,
    ThreadsExecutor._wake_one,
    ThreadsExecutor.expire,
    ThreadsExecutor.stop,
    ThreadsExecutor._start,
    ThreadsExecutor._replace,
    ThreadsExecutor.next_job,
    ThreadsExecutor.another_job,
    ThreadsExecutor.busy,
    ThreadsExecutor.withdraw,
    ThreadsExecutor.leave,
)
