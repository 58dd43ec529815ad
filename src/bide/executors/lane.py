"""A lane: one thread with greenlets of its own, which asks its executor for jobs.

A wait that is settled comes back to its lane by the lane's queue. A lane also holds what its
executor notes of it.

An asynchronous exception may come into a lane's thread. Decorators that limit a call's time raise
it so (``PyThreadState_SetAsyncExc``). It may come late, when their call waits or has ended, and
then it meets the lane itself, whose work may be half done. So the lane takes no more jobs, another
takes its place, and its own jobs end. A second exception may come into that. So each step of the
end can be done anew when it was half done.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeVar

from bide.errors import ThreadEnded
from bide.executors.executor import Executor
from bide.executors.hub import IDLE_WORKERS, Hub, Job, job_of
from bide.executors.shells import LaneName
from bide.waiting.outcome import Wait

T = TypeVar("T")

log = logging.getLogger("bide")

LOOK: Final = None
"""The word to a lane that there may be a job."""
STOP: Final = object()
"""The word to a lane to end, when its last job has."""
TRIES: Final = 100
"""How often a step of an end is tried: one that fails by itself must come to an end."""

_thread_clock = getattr(time, "pthread_getcpuclockid", None)  # macOS has none


class Jobs(Executor):
    """An executor that has lanes, as they call it; each on its own thread.

    Attributes:
        lanes_max: how many lanes there may be.
    """

    lanes_max: int

    def next_job(self, lane: Lane) -> Job | None:
        """Return the lane's next job, or note that it is idle."""
        raise NotImplementedError

    def another_job(self, lane: Lane) -> Job | None:
        """Return a job for a lane that goes on anyway, if there is one for it."""
        raise NotImplementedError

    def busy(self, lane: Lane) -> None:
        """Called when a lane that was idle, or woken for a job, has something of its own to do."""
        raise NotImplementedError

    def withdraw(self, lane: Lane) -> bool:
        """Called when a lane ends by an error: it gets no more jobs.

        Return whether it has a job in hand, which no other lane will take.
        """
        raise NotImplementedError

    def leave(self, lane: Lane) -> None:
        """Called when a withdrawn lane has ended."""
        raise NotImplementedError


class Lane:
    """One thread with its own greenlets.

    The thread is a daemon, so that a blocked one cannot hold up the end of the process.
    """

    def __init__(self, executor: Jobs, number: int) -> None:
        self.number = number  # in the order of their start, from 1
        self.name = f"lane-{number}"
        self.thread = threading.Thread(
            target=self.run, name=LaneName(f"bide-{self.name}"), daemon=True
        )
        self.queue: SimpleQueue[object] = SimpleQueue()  # settled waits, LOOK and STOP
        self.hub: Hub | None = None
        self.taken: Job | None = None  # it has been taken out of the queue, and not begun
        # Changed under the executor's lock; read without it, too:
        self.idle = False
        self.coming = True  # woken for a job or started, and has not looked
        self.begun = False  # at a new job or on its way to one, as far as that does not block
        self.count = 0  # parked jobs, when it went idle
        self.noted = 0  # parked jobs, when it last asked for a job
        self.limit = 0  # parked jobs with which it asks for a lane that has fewer
        self._executor = executor
        self._clock: int | None = None  # of the processor time of this thread
        # By the loop: what it was at, with which processor time, and when.
        self._seen = (0.0, 0.0, 0.0)

    @property
    def parked(self) -> int:
        """How many conversations of this lane wait; from any thread."""
        return 0 if self.hub is None else self.hub.parked

    def blocks(self, now: float, window: float) -> bool:
        """Whether the job that runs has used no processor time for ``window`` seconds; on the loop.

        It is called again and again, and compares with what it found before.
        """
        hub = self.hub
        if hub is None or hub.running is None:
            return False
        stint, used, at = self._seen
        if stint == hub.since and now - at < window:
            return False
        # Where a thread's time cannot be read, whatever runs for so long is taken for blocked.
        try:
            using = 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return False
        if stint == hub.since and using - used < (now - at) / 100:
            return True
        self._seen = (hub.since, using, now)
        return False

    def run(self) -> None:
        """Run jobs until stopped, or until an error from outside ends the lane; on its thread."""
        try:
            self._live()
        except BaseException as error:  # noqa: BLE001 - it is reported, and the lane is replaced
            self._end(error)

    def _live(self) -> None:
        """Resume settled waits first, then begin a new job; until stopped."""
        executor = self._executor
        if _thread_clock is not None:
            self._clock = _thread_clock(threading.get_ident())
        idle = max(16, 4 * IDLE_WORKERS // executor.lanes_max)
        hub = self.hub = Hub(self.name, self._wake, min(idle, IDLE_WORKERS))
        queue = self.queue
        stopping = False
        while True:
            if queue.empty():
                if stopping and not hub.parked:
                    break
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

    # The end of a lane that nobody has stopped ----------------------------------------------------

    def _end(self, error: BaseException) -> None:
        executor = self._executor
        lost = self._insist(lambda: executor.withdraw(self))
        self._insist(lambda: self._report(error), 1)  # a log handler may fail each time
        self._insist(lambda: self._end_taken(lost is not False))
        self._insist(self._end_parked)
        self._insist(lambda: executor.leave(self))

    def _insist(self, step: Callable[[], T], tries: int = TRIES) -> T | None:
        """Do a step, again when it is interrupted; return None where it never came to its end."""
        for _ in range(tries):
            try:
                return step()
            except BaseException:
                # Reported, unless the log is what it came into.
                with contextlib.suppress(BaseException):
                    log.exception("%s was interrupted while it ended", self.name)
        return None

    def _report(self, error: BaseException) -> None:
        log.error(
            "%s was ended from outside and is replaced; %d waiting requests of it are ended",
            self.name,
            self.parked,
            exc_info=error,
        )

    def _end_taken(self, lost: bool) -> None:
        """End a job that was taken and not begun, unless another lane will take it."""
        taken = self.taken
        waits = [] if self.hub is None else list(self.hub.waits)
        if lost and taken is not None and taken not in {job_of(wait.parked) for wait in waits}:
            taken.lost()
        self.taken = None

    def _end_parked(self) -> None:
        hub = self.hub
        if hub is None:
            return
        for wait in list(hub.waits):
            job = job_of(wait.parked)
            if job is not None:
                job.waiter.cancel(ThreadEnded("its thread was ended from outside"), firm=True)
            # It may have been taken out of the queue and lost. A second one does no harm.
            self.queue.put(wait)
        while hub.parked:
            item = self.queue.get()
            if isinstance(item, Wait):
                hub.resume(item)
