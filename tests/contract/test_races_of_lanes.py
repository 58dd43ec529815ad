"""Every race of the threads executor, forced: each order of its halves, called by hand.

A lane is a thread; most tests here call what it would call and never start it. Those that start
lanes hold them by events.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.executors import hub
from bide.executors.lane import LOOK, Lane
from bide.executors.threads import ThreadsExecutor
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter
from tests.served import DEADLINE, happened, until


class Act(hub.Job):
    """A job that a test can see begin, and hold."""

    def __init__(self, executor: ThreadsExecutor, act: Callable[["Act"], object]) -> None:
        self.waiter: Waiter = executor.waiter()
        self.started = time.monotonic()
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.thread = 0
        self._act = act

    def run(self) -> None:
        """Note the thread, and do what the test says."""
        self.thread = threading.get_ident()
        self.begun.set()
        self._act(self)
        self.ended.set()

    def describe(self) -> str:
        """Name it."""
        return "a job of the tests"

    def lost(self) -> None:
        """Nothing is left to end."""


def nothing(job: Act) -> None:
    pass


def held(release: threading.Event) -> Callable[[Act], object]:
    """Block the thread until ``release`` is set."""
    return lambda job: happened(release)


def parked(signal: Signal) -> Callable[[Act], object]:
    """Park until ``signal`` fires."""
    return lambda job: job.waiter.wait(signal)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return a loop that runs only when the test says so."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def turn(loop: asyncio.AbstractEventLoop, event: threading.Event) -> None:
    """Run the loop until an event is set."""

    async def watch() -> None:
        async with asyncio.timeout(DEADLINE):
            while not event.is_set():
                await asyncio.sleep(0.001)

    loop.run_until_complete(watch())


class Lanes:
    """An executor whose lanes are never started: the test plays them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int, **options: Any) -> None:
        self.executor = ThreadsExecutor(loop, threads, **{"queue": 10, **options})
        self.lanes = [Lane(self.executor, number) for number in range(threads)]
        self.executor.roster.lanes = list(self.lanes)

    def job(self) -> Act:
        """Make a job."""
        return Act(self.executor, nothing)

    def words(self, lane: int) -> list[object]:
        """Take what a lane has been told."""
        words = []
        queue = self.lanes[lane].queue
        while not queue.empty():
            words.append(queue.get())
        return words


def test_a_job_submitted_before_a_lane_looks_is_found_by_the_look(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The lane was about to go idle: its look comes after, under the same lock."""
    lanes = Lanes(loop, 1)
    job = lanes.job()
    assert lanes.executor.submit(job)
    lanes.executor.flush()
    assert lanes.words(0) == []
    assert lanes.executor.next_job(lanes.lanes[0]) is job


def test_a_job_submitted_after_a_lane_looked_wakes_it(loop: asyncio.AbstractEventLoop) -> None:
    """The lane has noted that it is idle, and sleeps."""
    lanes = Lanes(loop, 1)
    assert lanes.executor.next_job(lanes.lanes[0]) is None
    job = lanes.job()
    assert lanes.executor.submit(job)
    lanes.executor.flush()
    assert lanes.words(0) == [LOOK]
    assert lanes.executor.next_job(lanes.lanes[0]) is job


def test_a_woken_lane_that_was_resumed_first_passes_the_wake_on(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """A settled wait overtook the word in its queue, and what it resumes may block for long."""
    lanes = Lanes(loop, 2)
    for lane in lanes.lanes:
        assert lanes.executor.next_job(lane) is None
    job = lanes.job()
    assert lanes.executor.submit(job)
    lanes.executor.flush()
    assert (lanes.words(0), lanes.words(1)) == ([], [LOOK])
    lanes.executor.busy(lanes.lanes[1])
    assert lanes.words(0) == [LOOK]
    assert lanes.executor.next_job(lanes.lanes[0]) is job


def test_an_idle_lane_that_is_resumed_is_not_woken_for_a_job(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """It left the idle ones before the job came."""
    lanes = Lanes(loop, 2)
    for lane in lanes.lanes:
        assert lanes.executor.next_job(lane) is None
    lanes.executor.busy(lanes.lanes[1])
    assert lanes.executor.submit(lanes.job())
    lanes.executor.flush()
    assert (lanes.words(0), lanes.words(1)) == ([LOOK], [])


def test_a_woken_lane_finds_that_another_one_took_the_job(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Each job is taken once; the late lane goes idle and can be woken again."""
    lanes = Lanes(loop, 2)
    first, second = lanes.lanes
    assert lanes.executor.next_job(second) is None
    job = lanes.job()
    assert lanes.executor.submit(job)
    lanes.executor.flush()
    assert lanes.executor.another_job(first) is job
    assert lanes.executor.next_job(second) is None
    assert lanes.executor.submit(lanes.job())
    lanes.executor.flush()
    assert lanes.words(1) == [LOOK, LOOK]


def test_of_a_batch_each_job_gets_a_lane_though_the_first_blocks(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """One lane is woken for all that came at once; the next when that was not enough."""
    executor = ThreadsExecutor(loop, 3, queue=10)
    release = threading.Event()
    jobs = [Act(executor, held(release)) for _ in range(3)]
    try:
        for job in jobs:
            assert executor.submit(job)
        executor.flush()
        for job in jobs:
            turn(loop, job.begun)
        assert len({job.thread for job in jobs}) == 3
    finally:
        release.set()
        executor.stop()
        executor.join(DEADLINE)


def test_a_job_gets_a_new_lane_when_the_woken_one_is_resumed_and_blocks(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """No other lane is idle to pass the wake on to, but one more may be started."""
    executor = ThreadsExecutor(loop, 2, queue=10)
    release, signal, late = threading.Event(), Signal(), threading.Event()

    def park_then_block(job: Act) -> None:
        job.waiter.wait(signal)
        late.set()
        happened(release)

    waiting, job = Act(executor, park_then_block), Act(executor, nothing)
    try:
        assert executor.submit(waiting)
        executor.flush()
        happened(waiting.begun)
        lane = executor.roster.lanes[0]
        until(lambda: lane.idle)
        # The lane is held before it can look, as if it had been woken and not yet had its turn:
        # its queue gets the settled wait first, then the word.
        with executor._lock:
            signal.fire()
            executor.jobs.append(job)
            executor.roster._note_woken(lane)
            lane.queue.put(LOOK)
        happened(late)
        turn(loop, job.begun)
        assert job.thread != waiting.thread
    finally:
        release.set()
        executor.stop()
        executor.join(DEADLINE)
    happened(waiting.ended)
