"""The threads executor: lanes, each one thread with greenlets of its own, and one queue before all.

Jobs are never bound to a lane before it takes them: they wait in one queue, and lanes are woken. So
a lane that turns out to be busy passes its wake on, and no job stands behind a blocked one.

Invariant: when a job is queued, then no lane is idle and no other may be started; or a lane has
been woken and will look; or ``flush`` is to come, or a look of the loop's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final

from bide.executors.ending import end_lane
from bide.executors.hub import Hub, Job
from bide.locks import holds_lock
from bide.promises import Wait
from bide.waiter import Waiter

log = logging.getLogger("bide")

_STOP: Final = object()
PATIENCE: Final = 0.001
"""Seconds that a lane may run one job before another lane is woken for those behind it."""
QUEUE_PATIENCE: Final = 0.005
"""Seconds that a job may wait for a lane that is quick, before another one is woken."""
PLENTY: Final = 4
"""Jobs in the queue with which the lanes are busy for a while."""

_LOOK: Final = None  # there may be a job


def nothing() -> None:
    """Do nothing, where nobody is to be told."""


class ThreadsExecutor:
    """Runs jobs on up to ``threads`` lanes, started when first needed.

    ``submit``, ``expire`` and ``stop`` on the loop; what the lanes call, on theirs.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        queue: int,
        serial: bool = False,
        rested: Callable[[], None] = nothing,
    ) -> None:
        """Make the executor; no thread is started yet.

        Args:
            loop: the server's, where awaitables run.
            threads: how many lanes at most.
            queue: how many jobs may wait for a lane.
            serial: a lane takes no new job while one of its own is parked; with one thread,
                one job at a time.
            rested: called on the loop when ``flush`` has let it rest, and the queue is empty.
        """
        self.multithread = threads > 1
        self.threads_max = threads
        self._loop = loop
        self._queue_limit = queue
        self._serial = serial
        self._rested = rested
        self.resting = False  # set by the loop, cleared by the lane that empties the queue
        self._lock = threading.Lock()
        # Under the lock:
        self._jobs: deque[Job] = deque()
        self._lanes: list[Lane] = []
        self._idle: list[Lane] = []  # the last one went idle last
        self._coming = 0  # lanes that have been woken or started, and have not looked yet
        # On the loop:
        self._woken: Lane | None = None  # the last one
        self._woken_at = 0.0
        self._looking = False  # a look is due
        self._refused = False  # the last thread could not be started
        self._stopping = False

    @property
    def hubs(self) -> list[Hub]:
        """The hubs of the lanes that have started; for the monitor."""
        return [lane.hub for lane in list(self._lanes) if lane.hub is not None]

    @property
    def waiting(self) -> int:
        """How many jobs are parked."""
        return sum(hub.parked for hub in self.hubs)

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
        """How many lanes run code now."""
        return sum(hub.running is not None for hub in self.hubs)

    @property
    def alive(self) -> bool:
        """Whether a lane has not ended."""
        return any(lane.is_alive() for lane in self._lanes)

    @property
    def able(self) -> bool:
        """Whether there is a lane, or none was refused when it was wanted; on the loop."""
        return bool(self._lanes) or not self._refused

    @holds_lock
    def submit(self, job: Job) -> bool:
        """Queue a job, to be begun by the next ``flush``; false when the queue is full."""
        with self._lock:
            if len(self._jobs) >= self._queue_limit and not self._has_room():
                return False
            self._jobs.append(job)
        return True

    def flush(self) -> bool:
        """Wake a lane for what has been submitted, unless one is quickly at it.

        Threads take turns at the interpreter's lock, and a turn costs more than a short request. So
        one lane is woken for all that came in one turn of the loop, and others when it runs one job
        for longer than PATIENCE, or a job has waited for longer than QUEUE_PATIENCE; twice as many
        each time that was not enough.

        Gives true when the lanes have plenty to do, so that the loop may rest before it brings
        more: ``rested`` is then called once they have not.
        """
        jobs = len(self._jobs)
        if not jobs:
            return False
        if not self._quick():
            self._wake_lanes(1)
            if jobs == 1:  # asked before: the lane may have taken it, and another come
                return False
        if not self._looking:
            self._looking = True
            self._loop.call_later(PATIENCE, self._look, 1)
        self.resting = jobs >= PLENTY
        return self.resting

    def _quick(self) -> bool:
        """Say whether the lane that was woken last is awake, and not long at one job."""
        lane = self._woken
        if lane is None or lane.idle:
            return False
        since = self._woken_at if lane.hub is None else max(self._woken_at, lane.hub.since)
        return monotonic() - since < PATIENCE

    def _look(self, number: int) -> None:
        self._looking = False
        try:
            waited = monotonic() - self._jobs[0].started
        except IndexError:
            return
        if waited < QUEUE_PATIENCE and self._quick():
            number = 1
        elif self._wake_lanes(number):
            number *= 2
        else:
            return
        self._looking = True
        self._loop.call_later(PATIENCE, self._look, number)

    @holds_lock
    def _wake_lanes(self, number: int) -> bool:
        """Wake lanes, or start new ones; false when there are no more."""
        new = []
        woken = []
        with self._lock:
            for _ in range(min(number, len(self._jobs))):
                lane = self._take_idle()
                if lane is not None:
                    woken.append(lane)
                elif len(self._lanes) < self.threads_max:
                    lane = Lane(self, len(self._lanes) + 1)
                    self._lanes.append(lane)
                    new.append(lane)
                    self._coming += 1
        for lane in woken:
            lane.queue.put(_LOOK)
        new = [lane for lane in new if self._start(lane)]
        if woken or new:
            self._woken = (woken or new)[-1]
            self._woken_at = monotonic()
        return bool(woken or new)

    def _has_room(self) -> bool:
        # Under the lock.
        free = len(self._idle) + self._coming + self.threads_max - len(self._lanes)
        return len(self._jobs) < free

    def waiter(self) -> Waiter:
        """Make a new job's waiter; its lane gives it the parking."""
        return Waiter(self._loop)

    @holds_lock
    def expire(self, age: float) -> list[Job]:
        """Take out the jobs that have waited for a lane for longer than ``age`` seconds."""
        expired = []
        before = monotonic() - age
        with self._lock:
            while self._jobs and self._jobs[0].started <= before:
                expired.append(self._jobs.popleft())
        return expired

    @holds_lock
    def stop(self) -> None:
        """End the lanes, each when its last job has ended; a blocked one ends with the process."""
        self._stopping = True
        with self._lock:
            lanes = list(self._lanes)
        for lane in lanes:
            lane.queue.put(_STOP)

    def join(self, seconds: float) -> None:
        """Wait for the lanes to end, after ``stop``, for so many seconds at most."""
        deadline = monotonic() + seconds
        for lane in self._lanes:
            lane.join(max(0.0, deadline - monotonic()))

    @holds_lock
    def _start(self, lane: Lane) -> bool:
        try:
            lane.start()
            self._refused = False
        except RuntimeError as error:
            # The system gives no more threads. What is queued waits for those that there are, or
            # for the next try, and is answered 503 in the end.
            self._refused = True
            log.error("cannot start a thread: %s", error)
            with self._lock:
                self._lanes.remove(lane)
                self._coming -= 1
            return False
        return True

    def _take_idle(self) -> Lane | None:
        # Under the lock. The fewest parked conversations first, since a new job may block them;
        # of equals the one that ran last, which leaves the others asleep.
        idle = self._idle
        if not idle:
            return None
        best = len(idle) - 1
        fewest = idle[best].parked
        for index in range(best, -1, -1):
            if not fewest:
                break
            if idle[index].parked < fewest:
                best, fewest = index, idle[index].parked
        lane = idle.pop(best)
        lane.idle = False
        lane.coming = True
        self._coming += 1
        return lane

    def recover(self) -> None:
        """Try again to have a lane, where there is none since it was refused; on the loop."""
        if not self.able:
            self._replace()

    @holds_lock
    def _replace(self) -> None:
        if self._stopping:
            return
        with self._lock:
            if len(self._lanes) >= self.threads_max:
                return
            lane = Lane(self, len(self._lanes) + 1)
            self._lanes.append(lane)
            self._coming += 1
        self._start(lane)

    # The lanes' ---------------------------------------------------------------------------------

    @holds_lock
    def next_job(self, lane: Lane) -> Job | None:
        """Give a lane its next job, or note that it is idle."""
        with self._lock:
            self._has_come(lane)
            if self._serial and lane.parked:
                return None
            if self._jobs:
                job = lane.taken = self._jobs[0]
                self._jobs.popleft()
                end = self.resting and not self._jobs
                if end:
                    self.resting = False
            else:
                lane.idle = True
                self._idle.append(lane)
                return None
        if end:
            self._tell(self._rested)
        return job

    @holds_lock
    def another_job(self, lane: Lane) -> Job | None:
        """Give a lane that goes on anyway a job, if there is one."""
        if not self._jobs or (self._serial and lane.parked):  # a look: missing one is no harm
            return None
        with self._lock:
            self._has_come(lane)
            if not self._jobs:
                return None
            job = lane.taken = self._jobs[0]
            self._jobs.popleft()
            end = self.resting and not self._jobs
            if end:
                self.resting = False
        if end:
            self._tell(self._rested)
        return job

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called on the loop, unless that is no more."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _has_come(self, lane: Lane) -> None:
        # Under the lock.
        if lane.coming:
            lane.coming = False
            self._coming -= 1

    @holds_lock
    def busy(self, lane: Lane) -> None:
        """Know that a lane that was idle has something of its own to do."""
        with self._lock:
            if lane.idle:
                lane.idle = False
                self._idle.remove(lane)
                return
            # It has been woken for a job, and will not look soon: let another one.
            self._has_come(lane)
            other = self._take_idle() if self._jobs else None
            more = bool(self._jobs) and len(self._lanes) < self.threads_max
        if other is not None:
            other.queue.put(_LOOK)
        elif more:
            self._tell(self._wake_lanes, 1)

    @holds_lock
    def withdraw(self, lane: Lane) -> bool:
        """Give a lane that ends no more jobs; whether it has one that nobody else will take."""
        with self._lock:
            self._has_come(lane)
            if lane.idle:
                lane.idle = False
                self._idle.remove(lane)
            taken = lane.taken is not None and not (self._jobs and self._jobs[0] is lane.taken)
            if not self._serial and lane in self._lanes:
                self._lanes.remove(lane)
        if not self._serial:
            self._tell(self._replace)
        return taken

    @holds_lock
    def leave(self, lane: Lane) -> None:
        """Called when a withdrawn lane has ended: a serial one is replaced now, not beside it."""
        if self._serial:
            with self._lock:
                self._lanes.remove(lane)
            self._tell(self._replace)


class Lane(threading.Thread):
    """One thread with its own greenlets.

    Runs as a daemon, so that a blocked one cannot hold up the end of the process.
    """

    def __init__(self, executor: ThreadsExecutor, number: int) -> None:
        super().__init__(name=f"bide-lane-{number}", daemon=True)
        self.queue: SimpleQueue[object] = SimpleQueue()  # settled waits, and words to the lane
        self.hub: Hub | None = None
        self.taken: Job | None = None  # it has been taken out of the queue, and not begun
        self.idle = False  # under the executor's lock; the loop looks without it
        self.coming = True  # under the executor's lock
        self._executor = executor

    @property
    def parked(self) -> int:
        """How many conversations of this lane wait; a look from any thread."""
        return 0 if self.hub is None else self.hub.parked

    def run(self) -> None:
        """Run what there is; until stopped, or until something from outside ends it."""
        try:
            self._live()
        except BaseException as error:  # noqa: BLE001 - it is reported, and the lane is replaced
            end_lane(self, self._executor, error)

    def _live(self) -> None:
        """Run settled waits first, then a new job; until stopped."""
        hub = self.hub = Hub(self.name.removeprefix("bide-"), self._wake)
        queue = self.queue
        executor = self._executor
        stopping = False
        while not (stopping and not hub.parked and queue.empty()):
            if queue.empty():
                job = executor.next_job(self)
                if job is not None:
                    self._begin(job)
                    continue
                item = queue.get()
                if item is not _LOOK:
                    executor.busy(self)
            else:
                item = queue.get()
            if item is _STOP:
                stopping = True
                continue
            if isinstance(item, Wait):
                hub.resume(item)
                del item
            # One new job for each that went on: neither kind starves the other. And one for the
            # word that there is one, before a wait that was settled since: it may block for long.
            job = executor.another_job(self)
            if job is not None:
                self._begin(job)
        hub.close()

    def _begin(self, job: Job) -> None:
        hub = self.hub
        assert hub is not None
        job.waiter.parking = hub
        hub.run(job)
        self.taken = None

    def _wake(self, wait: Wait) -> None:
        self.queue.put(wait)
