"""A lane: one thread with greenlets of its own, which asks its executor for jobs.

A settled wait comes back to its lane through the lane's queue. Some attributes of a lane belong to
its executor.

An asynchronous exception may be raised in a lane's thread, as decorators that limit a call's time
do (``PyThreadState_SetAsyncExc``). When it comes late, their call waits or has ended, and the
exception interrupts the lane itself, in the middle of any step. Then the lane takes no more jobs,
another lane takes its place, and its own jobs end. A second exception may interrupt that. So each
step of the end can be repeated when it was half done.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

from bide.compiling import mypyc_attr, take_interruption
from bide.errors import ThreadEnded
from bide.executors.executor import Executor
from bide.executors.hub import IDLE_WORKERS, Hub, Job, job_of
from bide.executors.processor import Usage
from bide.executors.returning import Returning
from bide.executors.shells import LaneName
from bide.waiting.outcome import Wait

T = TypeVar("T")

log = logging.getLogger("bide")

LOOK: Final = None
"""In a lane's queue: there may be a job."""
STOP: Final = object()
"""In a lane's queue: end when the last job has ended."""
_COMPILED: Final = not __file__.endswith(".py")

TRIES: Final = 100
"""How often a step of a lane's end is tried, so that a step that always fails is given up."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Jobs(Executor):
    """What lanes call on their executor, each on its own thread.

    Attributes:
        lanes_max: how many lanes there may be.
        returning: brings settled waits back to the lanes.
        jobs: those that wait for a lane; a lane reads without a lock whether there is one.
    """

    lanes_max: int
    returning: Returning
    jobs: deque[Job]

    def next_job(self, lane: Lane) -> Job | None:
        """Return the lane's next job; None if there is no job for it, and it is idle now."""
        raise NotImplementedError

    def another_job(self, lane: Lane) -> Job | None:
        """Return a job for a lane that is awake anyway; None if there is no job for it."""
        raise NotImplementedError

    def busy(self, lane: Lane) -> None:
        """Called when a lane that was idle, or woken for a job, must resume a job of its own."""
        raise NotImplementedError

    def withdraw(self, lane: Lane) -> bool:
        """Called when a lane ends by an error: it gets no more jobs.

        Return whether it has taken a job that no other lane will take.
        """
        raise NotImplementedError

    def leave(self, lane: Lane) -> None:
        """Called when a withdrawn lane has ended."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Lane:
    """One thread with its own greenlets.

    The thread is a daemon, so that a blocked one cannot hold up the end of the process.
    """

    def __init__(self, executor: Jobs, number: int) -> None:
        self.number = number  # in the order of their start, from 1
        self.name = f"bide-thread-{number}"
        self.thread = threading.Thread(target=self.run, name=LaneName(self.name), daemon=True)
        self.queue: SimpleQueue[object] = SimpleQueue()  # settled waits, LOOK and STOP
        self.hub: Hub | None = None
        self.taken: Job | None = None  # taken out of the queue, and not begun
        # Changed under the executor's lock; read without it, too:
        self.idle = False
        self.coming = True  # woken for a job or started, and has not asked for one yet
        self.begun = False  # at a new job or on its way to one, as far as that does not block
        self.count = 0  # parked jobs, when it went idle
        self.noted = 0  # parked jobs, when it last asked for a job
        self.limit = 0  # parked jobs with which it asks for a lane that has fewer
        self.has_parked = False  # the job that it took last has parked; on its thread
        self._executor = executor
        self._usage: Usage | None = None
        # By the loop: when the running job was begun or resumed, its processor time, and when read.
        self._seen = (0.0, 0.0, 0.0)

    @property
    def parked(self) -> int:
        """How many conversations of this lane wait; from any thread."""
        return 0 if self.hub is None else self.hub.parked

    def blocks(self, now: float, window: float) -> bool:
        """Whether the job that runs has used no processor time for ``window`` seconds; on the loop.

        Not so where the thread is ready to run, and waits for a processor on a busy machine. This
        compares with what an earlier call has found.
        """
        hub, usage = self.hub, self._usage
        if hub is None or hub.running is None or usage is None:
            return False
        stint, used, at = self._seen
        if stint == hub.since and now - at < window:
            return False
        # Where a thread's time cannot be read, a job that runs for so long counts as blocked.
        try:
            using = usage.used()
        except OSError:  # the thread has ended
            return False
        if stint == hub.since and using - used < (now - at) / 100:
            return not usage.is_ready()
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
        self._usage = Usage()
        # Where many jobs park, the first lanes have them all.
        lanes = executor.threads_max if self.number <= executor.threads_max else executor.lanes_max
        idle = min(max(16, 4 * IDLE_WORKERS // lanes), IDLE_WORKERS)
        queue = self.queue
        hub = self.hub = Hub(self.name, partial(executor.returning.bring, queue), idle)
        stopping = False
        while True:
            job = None
            if queue.empty():
                if stopping and not hub.parked:
                    break
                job = executor.next_job(self)
            if job is None:
                item = queue.get()
                if _COMPILED:
                    take_interruption()  # here, and not in the call that comes next
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
                if _COMPILED:
                    take_interruption()
                # One new job for each resumed one: neither kind starves the other. To miss a new
                # one does no harm: before the lane sleeps, it checks under the lock.
                if not executor.jobs:
                    continue
                job = executor.another_job(self)
                if job is None:
                    continue
            job.waiter.parking = hub
            hub.run(job)
            self.has_parked = hub.parked > self.noted
            self.taken = None
            if _COMPILED:
                take_interruption()
        hub.close()

    # The end of a lane that nobody has stopped ----------------------------------------------------

    def _end(self, error: BaseException) -> None:
        executor = self._executor
        lost = self._insist(lambda: executor.withdraw(self))
        self._insist(lambda: self._report(error), 1)  # a log handler may fail each time
        self._insist(lambda: self._end_taken(lost is not False))
        self._insist(self._end_parked)
        self._insist(lambda: executor.leave(self))

    def _insist(self, step: Callable[[], T], tries: int = TRIES) -> T | None:
        """Do a step, and again when it is interrupted; return None if no try came to its end."""
        for _ in range(tries):
            try:
                return step()
            except BaseException:
                # Reported, unless the exception has interrupted the log itself.
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
            # The wait may have been taken out of the queue and lost. Twice in it does no harm.
            self.queue.put(wait)
        while hub.parked:
            item = self.queue.get()
            if isinstance(item, Wait):
                hub.resume(item)
