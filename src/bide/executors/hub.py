"""The greenlets of one thread: pooled workers that run jobs, park in a wait, and are resumed.

A new greenlet costs more than ten times what a pooled one does. So a job that ends leaves its
greenlet for the next. Each job runs in a context of its own from start to end. The hub knows
nothing of requests.

All of it is called on one thread, except ``wake``, which may be called from any.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from collections.abc import Callable
from sys import getprofile, gettrace
from time import monotonic

from greenlet import getcurrent, greenlet

from bide.compiling import mypyc_attr
from bide.exchange.call import Call
from bide.executors.shells import WorkerGreenlet
from bide.executors.tracing import put_away
from bide.forks import came_back
from bide.waiting.outcome import Wait
from bide.waiting.parking import Parking
from bide.waiting.thread_locals import apart, begin, kept, own, wait_apart
from bide.waiting.waiter import Waiter

log = logging.getLogger("bide")

IDLE_WORKERS = 256
"""How many greenlets of ended jobs one thread keeps for the next."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Job(Call):
    """A call that runs in a greenlet of a hub.

    Attributes:
        waiter: where the job waits; its parking is the hub.
    """

    __slots__ = ("waiter",)

    waiter: Waiter

    def lost(self) -> None:
        """Called when the job cannot be run to its end; has no effect after the end."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """Called in a child that the job's code has forked: drop the job, which is the parent's."""
        raise NotImplementedError


class Worker:
    """Runs one job after another, in a greenlet of its own.

    Attributes:
        job: the current one; None while the worker is idle.
    """

    __slots__ = ("_hub", "job")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.job: Job | None = None

    def work(self, here: WorkerGreenlet) -> None:
        """Run the current job, and then each later one; in ``here``, its greenlet."""
        hub = self._hub
        while True:
            job = self.job
            assert job is not None
            here.waiter = job.waiter
            try:
                if kept:
                    own(job.run)
                else:
                    job.run()
            except BaseException:  # noqa: BLE001 - it is reported, and the thread lives
                # A job handles its own errors. What comes here is an error of Bide's, or of a log
                # handler that the program has added, or an asynchronous exception.
                _report()
                job.lost()
            self.job = here.waiter = job = None
            # The next job brings its own context. This one holds what the application kept there.
            here.gr_context = None
            if len(hub.idle) >= hub.idle_most:
                return
            hub.idle.append(here)
            main = hub.main
            assert main is not None
            main.switch()

    def after_fork(self, here: greenlet) -> None:
        """Called in a forked child: give the job up, and run no other.

        When the worker's greenlet ends, the child ends.

        Args:
            here: the worker's greenlet, which has forked.
        """
        job = self.job
        if job is None:
            return
        root = here
        while root.parent is not None:
            root = root.parent
        # Its old parent greenlet has the parent's queue, and would go on as the server.
        self._hub.main = here.parent = greenlet(came_back, root)
        self.job = None
        job.after_fork()


def _report() -> None:
    try:
        log.exception("internal error: a job raised")
    except BaseException:  # noqa: BLE001 - the log itself fails
        with contextlib.suppress(OSError, ValueError):  # nobody reads, or it is closed
            traceback.print_exc()


@mypyc_attr(allow_interpreted_subclasses=True)
class Hub(Parking):
    """The greenlets of one thread, each either running, parked or idle."""

    def __init__(
        self, name: str, wake: Callable[[Wait], None], idle_most: int = IDLE_WORKERS
    ) -> None:
        """Make a hub, on its thread.

        Args:
            name: its name in the log and the status.
            wake: what :meth:`wake` calls.
            idle_most: how many greenlets of ended jobs it keeps.
        """
        self.name = name
        self.idle_most = idle_most
        self._wake = wake
        self.thread = threading.get_ident()
        self.main: greenlet | None = None  # that which runs the others, while the hub is in use
        self.idle: list[WorkerGreenlet] = []
        self.waits: set[Wait] = set()  # those of the parked jobs
        # Read by the monitor and the status from their own threads:
        self.parked = 0
        self.running: greenlet | None = None
        self.since = 0.0  # monotonic seconds at which ``running`` was switched to
        self.trace = gettrace()  # the thread's own, not a request's
        self.profile = getprofile()

    def run(self, job: Job) -> None:
        """Run a job in a greenlet; return when it has ended or waits."""
        self.main = getcurrent()
        running = self.idle.pop() if self.idle else WorkerGreenlet(Worker(self))
        running.worker.job = job
        self.trace, self.profile = gettrace(), getprofile()
        self.since = job.waiter.begun = monotonic()
        self.running = running
        if kept:
            apart(running.switch)
        else:
            running.switch()
        self.running = None

    def resume(self, wait: Wait) -> None:
        """Continue a parked job; return when it has ended or waits again."""
        parked = wait.parked
        if parked is None:
            return  # the job has gone on meanwhile
        self.main = getcurrent()
        self.trace, self.profile = gettrace(), getprofile()
        self.since = monotonic()
        self.running = parked
        if kept:
            apart(parked.switch)
        else:
            parked.switch()
        self.running = None

    def park(self, wait: Wait) -> None:
        """Park the running greenlet until ``wait`` is resumed; the thread runs others meanwhile."""
        main = self.main
        assert main is not None
        wait.parked = getcurrent()
        self.waits.add(wait)
        self.parked += 1
        bring_back = None
        if gettrace() is not self.trace or getprofile() is not self.profile:
            bring_back = put_away(self.trace, self.profile)
        try:
            if kept:
                wait_apart(main.switch)
            else:
                main.switch()
                if kept:  # state was registered meanwhile
                    begin()
        finally:
            self.parked -= 1
            self.waits.discard(wait)
            wait.parked = None
            if bring_back is not None:
                bring_back()

    def wake(self, wait: Wait) -> None:
        """Schedule :meth:`resume` of a settled wait on the hub's thread; from any thread."""
        self._wake(wait)

    def close(self) -> None:
        """End the idle greenlets; on the hub's thread, when no job is left."""
        while self.idle:
            idle = self.idle.pop()
            idle.parent = getcurrent()
            idle.throw()
        # For a thread's own greenlet that outlives the thread, greenlet searches all objects of the
        # process, in the middle of whatever the main thread does then.
        self.main = None


def job_of(running: greenlet | None) -> Job | None:
    """Return the job of a greenlet, or of the nearest of its parents that has one.

    From any thread.
    """
    while running is not None:
        job: Job | None = getattr(running, "job", None)
        if job is not None:
            return job
        running = running.parent
    return None
