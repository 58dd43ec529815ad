"""The threads executor: lanes, each one thread with greenlets of its own, and one queue before all.

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
import bisect
import logging
import sys
import threading
from collections.abc import Callable, Container
from itertools import takewhile
from operator import attrgetter
from time import monotonic
from typing import Any, Final

from bide.executors import turns
from bide.executors.hub import Job
from bide.executors.lane import LOOK, STOP, Lane
from bide.executors.roster import Roster
from bide.waiting.locks import holds_lock
from bide.waiting.waiter import Waiter

log = logging.getLogger("bide")

PATIENCE: Final = 0.001
"""Seconds that a lane may run one job before another lane is woken for those behind it."""
QUEUE_PATIENCE: Final = 0.005
"""Seconds that a job may wait for a lane that is quick, before another one is woken."""
BLOCKED: Final = 0.02
"""Seconds without the processor after which a lane's job blocks, and another may be begun."""
PLENTY: Final = 4
"""Jobs in the queue that keep the lanes busy for a while."""


def nothing() -> None:
    """Do nothing; for where nobody is to be called."""


class ThreadsExecutor(Roster):
    """Runs jobs on lanes, started when first needed.

    ``submit``, ``expire`` and ``stop`` on the loop; what the lanes call, on theirs.
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
            threads: how many lanes may be at new jobs at a time, those that block aside. With one
                there is one lane, and no job runs beside another.
            queue: how many jobs may wait for a lane.
            serial: a lane takes no new job while one of its own is parked.
            rested: called on the loop when ``flush`` has let it rest, and the queue is empty.
            limit: how many lanes in all; never fewer than ``threads``.
            clock: returns monotonic seconds.
        """
        super().__init__(threads, limit, serial, clock)
        self.multithread = threads > 1
        self._loop = loop
        self._queue_limit = queue
        self._rested = rested
        self.resting = False  # set by the loop, cleared by the lane that empties the queue
        self._lock = threading.Lock()
        # On the loop:
        self._turns = False  # the interpreter's turns have been made short
        # Set by whoever wakes a lane, without a lock. If two mix, no harm is done:
        self._woken: Lane | None = None  # the last one that was woken
        self._woken_at = 0.0
        self._stopping = False

    @holds_lock
    def submit(self, job: Job) -> bool:
        """Queue a job, to be begun by the next ``flush``; return false when the queue is full."""
        with self._lock:
            if len(self._jobs) >= self._queue_limit and not self._has_room():
                return False
            self._jobs.append(job)
        return True

    def flush(self) -> bool:
        """Wake a lane for what has been submitted, unless one is quickly at it.

        Threads take turns at the interpreter's lock, and a turn costs more than a short request. So
        one lane is woken for all that came in one turn of the loop. Others are woken when it runs
        one job for longer than PATIENCE, or a job has waited for longer than QUEUE_PATIENCE; twice
        as many each time that was not enough. A lane that parks a job wakes another one itself.

        Return whether the lanes have plenty to do, so that the loop may rest before it brings more.
        ``rested`` is called when the queue is empty again.
        """
        jobs = len(self._jobs)
        if not jobs:
            return False
        if not self._quick():
            woken = self._wake_lanes(1)
            # Counted before the wake: the lane may have taken it since, and another may have come.
            if jobs == 1 and woken and not self._crowded:
                return False
        if self._lanes:  # else the system gives no thread, and the next flush tries again
            self._look_after(PATIENCE, 1)
        self.resting = jobs >= PLENTY
        return self.resting

    def _quick(self) -> bool:
        """Whether the lane that was woken last is awake, and not long at one job."""
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
            waited = self._clock() - self._jobs[0].started
        except IndexError:
            return
        if waited < QUEUE_PATIENCE and self._quick():
            self._look_after(PATIENCE, 1)
            return
        if self._begun >= self._threads:
            self._find_blocked()
        if self._wake_lanes(number):
            self._look_after(PATIENCE, number * 2)
        elif self._lanes and (self._empty or self._idle or len(self._lanes) < self.lanes_max):
            self._look_after(BLOCKED / 4, 1)  # another may begin jobs once a busy one blocks

    @holds_lock
    def _find_blocked(self) -> None:
        """Let others begin jobs in the place of the lanes whose jobs block."""
        now = self._clock()
        # Long enough for each lane that computes to have its turns at the interpreter's lock.
        window = max(BLOCKED, 4 * self._threads * sys.getswitchinterval())
        with self._lock:
            for lane in self._lanes:
                if lane.begun and not lane.coming and lane.blocks(now, window):
                    self._release(lane)

    @holds_lock
    def _wake_lanes(self, number: int) -> bool:
        """Wake lanes, or start new ones; return false when there are no more."""
        new = []
        woken = []
        if self._stopping:  # a new one would never be told to end
            return False
        with self._lock:
            for _ in range(min(number, len(self._jobs))):
                lane = self._choose()
                if lane is None:
                    break
                if isinstance(lane, Lane):
                    woken.append(lane)
                    continue
                new.append(self._new_lane())
        for lane in woken:
            lane.queue.put(LOOK)
        started = [lane for lane in new if self._start(lane)]
        if woken or started:
            self._woken_at = self._clock()
            self._woken = (woken or started)[-1]
            return True
        return bool(new) and bool(self._lanes) and self._wake_lanes(1)

    def _wake_another(self) -> None:
        """Wake a lane, or start one, for a job that a lane has left to others; on the loop."""
        self._asked = False
        if self._jobs and ((self._crowded and self._quick()) or not self._wake_lanes(1)):
            self._look_after(PATIENCE, 1)

    def waiter(self) -> Waiter:
        """Make a new job's waiter; the lane that takes the job sets its parking."""
        return Waiter(self._loop)

    @holds_lock
    def expire(self, age: float, jobs: Container[object]) -> list[Job]:
        """Take out those of ``jobs`` that have waited for a lane for ``age`` seconds."""
        before = self._clock() - age
        with self._lock:
            old = takewhile(lambda job: job.started <= before, self._jobs)
            expired = [job for job in old if job in jobs]
            for job in expired:
                self._jobs.remove(job)
        return expired

    @holds_lock
    def stop(self) -> None:
        """Tell the lanes to end, each after its last job; a blocked one ends with the process."""
        self._stopping = True
        with self._lock:
            lanes = list(self._lanes)
            short, self._turns = self._turns, False
        if short:
            turns.restore()
        for lane in lanes:
            lane.queue.put(STOP)

    def join(self, seconds: float) -> None:
        """Wait for the lanes to end, after ``stop``, for so many seconds at most."""
        deadline = self._clock() + seconds
        for lane in self._lanes:
            lane.thread.join(max(0.0, deadline - self._clock()))

    @holds_lock
    def _start(self, lane: Lane) -> bool:
        try:
            lane.thread.start()
            self._refused = 0.0
        except RuntimeError as error:
            # The system gives no more threads. What is in the queue waits for the lanes that there
            # are, or for the next try, and is answered 503 in the end.
            log.error("cannot start a thread: %s", error)
            with self._lock:
                self._lanes.remove(lane)
                self._coming -= 1
                self._release(lane)
                self._refused = self._clock()
            return False
        if not self._turns:
            self._turns = True
            turns.shorten()
        return True

    def recover(self) -> None:
        """Try again to have a lane, where there is none since the system refused the thread."""
        if not self.able:
            self._replace()

    @holds_lock
    def _replace(self) -> None:
        """Start a lane in the place of one that has ended, even if no job waits; on the loop."""
        self._asked = False  # the lane that ended may have asked, and never called
        if self._stopping:
            return
        with self._lock:
            if len(self._lanes) >= self.lanes_max:
                return
            lane = self._new_lane()
        self._start(lane)

    def _new_lane(self) -> Lane:
        lane = Lane(self, self._free_number())
        lane.begun = True
        bisect.insort(self._lanes, lane, key=attrgetter("number"))
        self._coming += 1
        self._begun += 1
        return lane

    # The lanes' ---------------------------------------------------------------------------------

    @holds_lock
    def next_job(self, lane: Lane) -> Job | None:
        """Return the lane's next job, or note that it is idle."""
        other = None
        end = False
        with self._lock:
            if lane.coming:
                self._has_come(lane)
            parked = lane.parked
            if parked > lane.noted:
                self._note_park()
            lane.noted = parked
            if not self._jobs:
                job: Job | None = None
            elif lane.begun and not parked:  # most: the next of a batch
                job = self._first_job(lane)
            else:
                job = self._take(lane)
            if job is not None:
                if self.resting and not self._jobs:
                    self.resting = False
                    end = True
            else:
                if lane.begun:
                    self._release(lane)
                if self._serial and parked:
                    return None
                if self._jobs:
                    other = self._another()
                self._goes_idle(lane, parked)
        if end:
            self._tell(self._rested)
        if other is not None:
            self._wake(other)
        return job

    @holds_lock
    def another_job(self, lane: Lane) -> Job | None:
        """Return a job for a lane that goes on anyway, if there is one for it."""
        if not self._jobs:  # read without the lock: to miss one does no harm
            return None
        other = None
        end = False
        with self._lock:
            self._has_come(lane)
            parked = lane.parked
            if parked > lane.noted:
                self._note_park()
            lane.noted = parked
            job = self._take(lane)
            if job is not None:
                if self.resting and not self._jobs:
                    self.resting = False
                    end = True
            elif self._jobs and not self._serial:
                self._release(lane)
                other = self._another()
        if end:
            self._tell(self._rested)
        if other is not None:
            self._wake(other)
        return job

    @holds_lock
    def busy(self, lane: Lane) -> None:
        """Called when a lane that was idle, or woken for a job, has something of its own to do."""
        with self._lock:
            if lane.idle:
                self._leaves_idle(lane)
                return
            # It has been woken for a job, and will not look soon. Another lane has to.
            self._has_come(lane)
            self._release(lane)
            other = self._another() if self._jobs else None
        if other is not None:
            self._wake(other)

    def _wake(self, lane: Lane | object) -> None:
        """Wake the lane that was chosen, or have one started."""
        if isinstance(lane, Lane):
            self._woken_at = self._clock()
            self._woken = lane
            lane.queue.put(LOOK)
        else:
            self._tell(self._wake_another)

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called on the loop, unless that has been closed."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    @holds_lock
    def withdraw(self, lane: Lane) -> bool:
        """Called when a lane ends by an error; return whether it has a job in hand."""
        with self._lock:
            taken = lane.taken is not None and not (self._jobs and self._jobs[0] is lane.taken)
            if not self._serial and lane in self._lanes:
                self._lanes.remove(lane)
            self._recount(lane)
            # The lane may have taken one from the idle ones, and not woken it yet.
            woken = [each for each in self._lanes if not each.idle and each is not lane]
        for each in woken:
            each.queue.put(LOOK)
        if not self._serial:
            self._tell(self._replace)
        return taken

    @holds_lock
    def leave(self, lane: Lane) -> None:
        """Called when a withdrawn lane has ended; a serial lane is replaced only now."""
        if self._serial:
            with self._lock:
                if lane in self._lanes:
                    self._lanes.remove(lane)
            self._tell(self._replace)
