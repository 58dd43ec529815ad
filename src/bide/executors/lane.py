"""A lane: one thread with greenlets of its own, which asks its executor for jobs.

What it waits in comes back to it by its queue. The executor's bookkeeping of it stands in it too.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import Final, Protocol

from bide.executors.ending import end_lane
from bide.executors.hub import IDLE_WORKERS, Hub, Job
from bide.waiting.outcome import Wait

LOOK: Final = None
"""The word to a lane that there may be a job."""
STOP: Final = object()
"""The word to a lane to end, when its last job has."""

_thread_clock = getattr(time, "pthread_getcpuclockid", None)  # macOS has none


class Jobs(Protocol):
    """The executor, as far as a lane knows it; called on the lane's thread."""

    lanes_max: int

    def next_job(self, lane: Lane) -> Job | None:
        """Return the lane's next job, or note that it is idle."""

    def another_job(self, lane: Lane) -> Job | None:
        """Return a job for a lane that goes on anyway, if there is one for it."""

    def busy(self, lane: Lane) -> None:
        """Called when a lane that was idle, or woken for a job, has something of its own to do."""

    def withdraw(self, lane: Lane) -> bool:
        """Give a lane that ends no more jobs; whether it has one that nobody else will take."""

    def leave(self, lane: Lane) -> None:
        """Called when a withdrawn lane has ended."""


class _Name(str):
    """A lane's name; quoted, it says what to write.

    asyncio's error of a thread without a loop quotes it ("There is no current event loop in thread
    …"), as ``asyncio.gather`` and ``ensure_future`` raise it here. Libraries catch that, and make a
    loop of their own: so it must stay, and be asyncio's.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return (
            f"{super().__repr__()} (beside the event loop: write wait_all(f(), g()) for "
            "asyncio.gather(f(), g()), and begin tasks in a coroutine)"
        )


class Lane(threading.Thread):
    """One thread with its own greenlets.

    Runs as a daemon, so that a blocked one cannot hold up the end of the process.
    """

    def __init__(self, executor: Jobs, number: int) -> None:
        super().__init__(name=f"bide-lane-{number}", daemon=True)
        self.number = number  # in the order of their start, from 1
        self.queue: SimpleQueue[object] = SimpleQueue()  # settled waits, and words to the lane
        self.hub: Hub | None = None
        self.taken: Job | None = None  # it has been taken out of the queue, and not begun
        # Under the executor's lock; it is looked at without it.
        self.idle = False
        self.coming = True  # woken for a job or started, and has not looked
        self.begun = False  # at a new job or on its way to one, as far as that does not block
        self.count = 0  # parked jobs, when it went idle
        self.noted = 0  # parked jobs, when it last asked for a job
        self.limit = 0  # parked jobs with which it asks for a lane that has fewer
        self._executor = executor
        self._clock: int | None = None  # of the processor time of this thread
        self._seen = (0.0, 0.0, 0.0)  # what it was at, with which processor time, and when; loop's

    @property
    def name(self) -> str:
        """What the log and asyncio call it."""
        return _Name(super().name)

    @name.setter
    def name(self, name: str) -> None:
        threading.Thread.name.fset(self, name)  # type: ignore[attr-defined]

    @property
    def parked(self) -> int:
        """How many conversations of this lane wait; a look from any thread."""
        return 0 if self.hub is None else self.hub.parked

    def blocks(self, now: float, window: float) -> bool:
        """Whether what runs here had no processor for ``window`` seconds since an earlier look."""
        hub = self.hub
        if hub is None or hub.running is None:
            return False
        stint, used, at = self._seen
        if stint == hub.since and now - at < window:
            return False
        # Where a thread's time cannot be told, whatever runs for so long is taken for blocked.
        try:
            using = 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return False
        if stint == hub.since and using - used < (now - at) / 100:
            return True
        self._seen = (hub.since, using, now)
        return False

    def run(self) -> None:
        """Run what there is; until stopped, or until something from outside ends it."""
        try:
            self._live()
        except BaseException as error:  # noqa: BLE001 - it is reported, and the lane is replaced
            end_lane(self, self._executor, error)

    def _live(self) -> None:
        """Run settled waits first, then a new job; until stopped."""
        executor = self._executor
        if _thread_clock is not None:
            self._clock = _thread_clock(threading.get_ident())
        idle = max(16, 4 * IDLE_WORKERS // executor.lanes_max)
        hub = self.hub = Hub(self.name.removeprefix("bide-"), self._wake, min(idle, IDLE_WORKERS))
        queue = self.queue
        stopping = False
        while not (stopping and not hub.parked and queue.empty()):
            if queue.empty():
                job = executor.next_job(self)
                if job is not None:
                    self._begin(job)
                    continue
            item = queue.get()
            if item is LOOK:
                continue
            if self.idle or self.coming:
                executor.busy(self)
            if item is STOP:
                stopping = True
                continue
            assert isinstance(item, Wait)
            hub.resume(item)
            del item
            # One new job for each that went on: neither kind starves the other.
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
