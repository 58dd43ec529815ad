"""Lanes and the queue before them.

Where the order matters the lanes are never started: the test does what they do, and passes the
time. Where threads matter they are real, and everything is waited for by events.
"""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.executors.lane import Lane
from bide.executors.returning import AT_ONCE
from bide.executors.threads import PATIENCE, PLENTY, QUEUE_PATIENCE, ThreadsExecutor
from bide.waiting.api import wait
from bide.waiting.outcome import Signal, Wait
from tests.fakes import ManualLoop, Run, Seen, Wakes

TIMEOUT = 20.0
LONG = PATIENCE * 1.1


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that runs when the test says so."""
    loop = ManualLoop()
    yield loop
    loop.close()


# Played lanes --------------------------------------------------------------------------------


class PlayedLane(Lane):
    """A lane that is not a thread.

    Attributes:
        answer: says whether it blocks, in its place.
    """

    answer: Callable[[float, float], bool] | None = None

    def blocks(self, now: float, window: float) -> bool:
        """Ask the test, if it answers."""
        return super().blocks(now, window) if self.answer is None else self.answer(now, window)


class Played(ThreadsExecutor):
    """An executor whose lanes are not threads: the test does what they do."""

    def __init__(self, loop: ManualLoop, lanes: int, queue: int = 100, **options: Any) -> None:
        super().__init__(loop, lanes, queue, clock=loop.time, **options)
        self.loop = loop
        self.refuses_threads = False
        self.rested = 0

    def _new_lane(self) -> Lane:
        lane = PlayedLane(self, self.roster.free_number())
        self.roster.add(lane)
        return lane

    def _start(self, lane: Lane) -> bool:
        if self.refuses_threads:

            def refuse() -> None:
                raise RuntimeError("can't start new thread")

            lane.thread.start = refuse  # type: ignore[method-assign]
            return super()._start(lane)
        lane.hub = Seen(since=self.loop.now)
        return True

    def job(self, name: str = "job") -> Run:
        """Make a job, now."""

        def nothing() -> None:
            pass

        nothing.__name__ = name
        job = Run(nothing, self.waiter())
        job.started = self.loop.now
        return job

    def bring(self, *names: str) -> list[bool]:
        """Submit jobs in one turn of the loop; say which were taken."""
        taken = [self.submit(self.job(name)) for name in names]
        self.flush()
        return taken

    def lane(self, index: int) -> PlayedLane:
        """Return a lane by the order of its start."""
        lane = self.roster.lanes[index]
        assert isinstance(lane, PlayedLane)
        return lane

    def woken(self) -> list[int]:
        """Return the lanes that have been woken, and take that out of their queues."""
        found = []
        for index, lane in enumerate(self.roster.lanes):
            while not lane.queue.empty():
                lane.queue.get()
                found.append(index)
        return found

    def take(self, index: int) -> str | None:
        """Ask for a lane's next job; return its name, or None if the lane went idle."""
        lane = self.lane(index)
        job = self.next_job(lane)
        assert lane.hub is not None
        lane.hub.since = self.loop.now
        return None if job is None else job.describe()

    def idle(self, *parked: int) -> None:
        """Start lanes, and let them go idle, in order, with so many parked jobs each."""
        for index, count in enumerate(parked):
            self._wake_lanes_for_test()
            hub = self.lane(index).hub
            assert hub is not None
            hub.parked = count
        for index in range(len(parked)):
            assert self.take(index) is None
        self._woken = None

    def _wake_lanes_for_test(self) -> None:
        self.submit(self.job())
        self._wake_lanes(1)
        self.jobs.clear()


class TestPlayed:
    """The queue and the waking of lanes, in the test's time."""

    def test_no_lane_is_started_before_it_is_needed(self, loop: ManualLoop) -> None:
        """Nor when a job is only queued: the flush that follows starts it."""
        executor = Played(loop, lanes=4)
        assert executor.threads == 0
        executor.submit(executor.job())
        assert executor.threads == 0
        assert executor.queued == 1
        executor.flush()
        assert executor.threads == 1

    def test_settled_waits_come_back_when_it_stops(self, loop: ManualLoop) -> None:
        """The loop, which brings many in several turns, may turn no more."""
        executor = Played(loop, lanes=2)
        executor.idle(0, 0)
        waits = [Wait(Wakes()) for _ in range(AT_ONCE + 2)]

        def settle_and_stop() -> None:
            for each in waits:
                executor.returning.bring(executor.lane(0).queue, each)
            executor.stop()

        loop.call_soon(settle_and_stop)
        loop.turn()
        inbox = executor.lane(0).queue
        found = [inbox.get() for _ in range(inbox.qsize())]
        assert [each for each in found if each in waits] == waits

    def test_a_lane_takes_the_jobs_in_their_order(self, loop: ManualLoop) -> None:
        """And is idle when there is none."""
        executor = Played(loop, lanes=1)
        executor.bring("one", "two")
        assert [executor.take(0), executor.take(0), executor.take(0)] == ["one", "two", None]
        assert executor.queued == 0

    def test_an_idle_lane_is_woken_for_a_job(self, loop: ManualLoop) -> None:
        """No new one is started."""
        executor = Played(loop, lanes=4)
        executor.idle(0)
        executor.bring("one")
        assert executor.woken() == [0]
        assert executor.threads == 1
        assert executor.take(0) == "one"

    def test_one_lane_is_woken_for_all_that_came_at_once(self, loop: ManualLoop) -> None:
        """A turn at the interpreter's lock costs more than a short request."""
        executor = Played(loop, lanes=4)
        executor.idle(0, 0)
        executor.bring("one", "two", "three")
        assert executor.woken() == [1]

    def test_more_lanes_are_woken_while_the_one_that_was_is_long_at_a_job(
        self, loop: ManualLoop
    ) -> None:
        """Twice as many each time that was not enough."""
        executor = Played(loop, lanes=9)
        executor.bring(*"abcdefghijkl")
        assert executor.threads == 1
        assert executor.take(0) == "a"
        loop.advance(LONG)
        assert executor.threads == 2
        loop.advance(LONG)
        assert executor.threads == 4
        loop.advance(LONG)
        assert executor.threads == 8
        loop.advance(LONG)
        assert executor.threads == 9
        loop.advance(LONG)
        assert loop.timers == 0, "there are no more to wake: each looks when it has ended its job"

    def test_no_more_lanes_are_woken_while_one_is_quick(self, loop: ManualLoop) -> None:
        """It runs one short job after another."""
        executor = Played(loop, lanes=9)
        executor.bring("one", "two", "three")
        for name in ("one", "two", "three"):
            assert executor.take(0) == name
            loop.advance(PATIENCE / 2)
        loop.advance(LONG)
        assert executor.threads == 1
        assert loop.timers == 0

    def test_a_job_does_not_wait_long_for_a_quick_lane(self, loop: ManualLoop) -> None:
        """Others before it may be many."""
        executor = Played(loop, lanes=2)
        executor.bring(*"abcdefghijklmnopqrstuvwxyz")
        steps = 0
        while executor.threads == 1:
            executor.take(0)
            loop.advance(PATIENCE / 2)
            steps += 1
        assert QUEUE_PATIENCE <= steps * PATIENCE / 2 <= QUEUE_PATIENCE + 2 * PATIENCE

    def test_a_job_that_comes_while_a_lane_is_at_it_is_looked_after(self, loop: ManualLoop) -> None:
        """No lane is woken for it at once, and it is not forgotten when that lane blocks."""
        executor = Played(loop, lanes=4)
        executor.bring("one")
        assert executor.take(0) == "one"
        executor.bring("two")
        assert executor.threads == 1
        loop.advance(LONG)
        assert executor.threads == 2
        assert executor.take(1) == "two"

    def test_a_job_for_a_lane_that_blocks_since_long_wakes_another_at_once(
        self, loop: ManualLoop
    ) -> None:
        """It does not wait for patience."""
        executor = Played(loop, lanes=4)
        executor.bring("one")
        executor.take(0)
        loop.advance(PATIENCE * 10)
        executor.bring("two")
        assert executor.threads == 2

    def test_the_lane_with_the_fewest_parked_jobs_is_woken_first(self, loop: ManualLoop) -> None:
        """A new job may block them."""
        executor = Played(loop, lanes=3)
        executor.idle(5, 0, 3)
        executor.bring("one")
        assert executor.woken() == [1]
        assert executor.take(1) == "one"
        loop.advance(PATIENCE * 10)
        executor.bring("two")
        assert executor.woken() == [2]

    def test_of_equals_the_lane_that_went_idle_last_is_woken(self, loop: ManualLoop) -> None:
        """Which leaves the others asleep."""
        executor = Played(loop, lanes=3)
        executor.idle(1, 1, 1)
        executor.bring("one")
        assert executor.woken() == [2]

    def test_the_queue_is_bounded(self, loop: ManualLoop) -> None:
        """Beyond the lanes that could take a job, idle or not yet started."""
        executor = Played(loop, lanes=1, queue=2)
        assert executor.bring("one") == [True]
        assert executor.take(0) == "one"
        assert executor.bring("two", "three", "four") == [True, True, False]
        assert executor.queued == 2

    def test_without_a_queue_a_job_is_taken_when_a_lane_is_free_for_it(
        self, loop: ManualLoop
    ) -> None:
        """Also one that has not been started."""
        executor = Played(loop, lanes=2, queue=0)
        assert executor.bring("one", "two", "three") == [True, True, False]
        assert executor.take(0) == "one"
        loop.advance(LONG)
        assert executor.take(1) == "two"
        assert executor.bring("four") == [False]
        assert executor.take(0) is None
        assert executor.bring("four") == [True]

    def test_a_lane_ends_its_work_when_the_loop_is_no_more(self, loop: ManualLoop) -> None:
        """Nobody is to be told that the queue is empty, and the lane must not die of that."""
        executor = Played(loop, lanes=1)
        executor.bring(*["job"] * PLENTY)
        assert executor.resting
        loop.close()
        assert [executor.take(0) for _ in range(PLENTY)] == ["job"] * PLENTY
        assert executor.take(0) is None

    def test_a_lane_that_is_on_its_way_is_room_for_a_job(self, loop: ManualLoop) -> None:
        """It has been woken or started, and has not looked: three lanes take three jobs."""
        executor = Played(loop, lanes=3, queue=0)
        executor.idle(0)
        assert [executor.bring("job")[0] for _ in range(4)] == [True, True, True, False]
        executor.woken()
        assert executor.take(0) == "job"
        assert executor.bring("more") == [False], "that lane is busy now"
        loop.advance(LONG)
        assert executor.threads > 1
        assert executor.take(1) == "job"
        assert executor.take(1) == "job", "done with the first"
        assert executor.take(1) is None
        assert executor.bring("one", "two", "three") == [True, True, False]

    def test_jobs_that_waited_too_long_are_taken_out(self, loop: ManualLoop) -> None:
        """In order; the younger ones stay, and so do those that another waits for."""
        executor = Played(loop, lanes=1)
        executor.bring("running")
        executor.take(0)
        another = executor.job("another's")
        own = [executor.job(name) for name in ("old", "as old", "young")]
        executor.submit(another)
        executor.submit(own[0])
        executor.submit(own[1])
        loop.advance(20)
        own[2].started = loop.now
        executor.submit(own[2])
        assert executor.expire(21, own) == []
        assert executor.expire(20, own) == own[:2]
        assert executor.expire(20, own) == []
        assert executor.queued == 2
        assert executor.take(0) == "another's"
        assert executor.take(0) == "young"

    def test_taking_out_old_jobs_compares_none_with_the_others(self, loop: ManualLoop) -> None:
        """Each is looked at once, however many of another application's stand before it."""
        compared: list[object] = []

        class Compared(Run):
            __hash__ = Run.__hash__

            def __eq__(self, other: object) -> bool:
                compared.append(other)
                return self is other

        executor = Played(loop, lanes=1)
        jobs = [Compared(print, executor.waiter()) for _ in range(8)]
        for job in jobs:
            job.started = loop.now
            executor.submit(job)
        loop.advance(20)
        own = dict.fromkeys(jobs[4:])
        expired = executor.expire(20, own)
        assert (compared, len(expired), executor.queued) == ([], 4, 4)

    def test_a_serial_lane_takes_no_job_while_one_is_parked(self, loop: ManualLoop) -> None:
        """One request at a time, waits and all; it looks again when that has ended."""
        executor = Played(loop, lanes=1, serial=True)
        executor.bring("one", "two")
        assert executor.take(0) == "one"
        hub = executor.lane(0).hub
        assert hub is not None
        hub.parked = 1
        assert executor.take(0) is None
        assert executor.another_job(executor.lane(0)) is None
        loop.advance(PATIENCE * 10)
        assert executor.woken() == []
        hub.parked = 0
        assert executor.take(0) == "two"

    def test_a_lane_that_goes_on_takes_a_job_too(self, loop: ManualLoop) -> None:
        """If there is one; it does not become idle by asking."""
        executor = Played(loop, lanes=1)
        executor.bring("one")
        job = executor.another_job(executor.lane(0))
        assert job is not None
        assert job.describe() == "one"
        assert executor.another_job(executor.lane(0)) is None
        assert not executor.lane(0).idle

    def test_a_lane_that_is_busy_after_all_is_woken_no_more(self, loop: ManualLoop) -> None:
        """A settled wait woke it; the next job wakes another."""
        executor = Played(loop, lanes=4)
        executor.idle(0, 0)
        executor.busy(executor.lane(1))
        executor.bring("one")
        assert executor.woken() == [0]

    def test_a_wake_is_passed_on_by_a_lane_that_resumes_first(self, loop: ManualLoop) -> None:
        """Its queue held a settled wait before the word: what it resumes may block."""
        executor = Played(loop, lanes=2)
        executor.idle(0, 0)
        executor.bring("one")
        assert executor.woken() == [1]
        executor.busy(executor.lane(1))
        assert executor.woken() == [0]
        assert executor.take(0) == "one"

    def test_a_wake_is_passed_on_to_a_new_lane_where_none_is_idle(self, loop: ManualLoop) -> None:
        """Threads are started on the loop."""
        executor = Played(loop, lanes=2)
        executor.idle(0)
        executor.bring("one")
        assert executor.woken() == [0]
        executor.busy(executor.lane(0))
        loop.settle()
        assert executor.threads == 2
        assert executor.take(1) == "one"

    def test_a_wake_without_a_job_is_not_passed_on(self, loop: ManualLoop) -> None:
        """Another lane took the job meanwhile."""
        executor = Played(loop, lanes=2)
        executor.idle(0, 0)
        executor.bring("one")
        assert executor.take(0) == "one"
        executor.busy(executor.lane(1))
        loop.settle()
        assert executor.woken() == [1], "its own word only"

    def test_a_thread_that_cannot_be_started_is_logged_once_for_each_try(
        self, loop: ManualLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The job waits for another lane, or for the next try, or is taken out in the end."""
        executor = Played(loop, lanes=4)
        executor.refuses_threads = True
        executor.bring("one")
        loop.advance(1)
        assert [each.message for each in caplog.records] == [
            "cannot start a thread: can't start new thread"
        ]
        assert executor.threads == 0
        assert executor.queued == 1
        executor.refuses_threads = False
        executor.bring("two")
        assert executor.take(0) == "one"

    def test_a_thread_that_cannot_be_started_leaves_the_job_to_the_others(
        self, loop: ManualLoop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And the log is not flooded while they are busy."""
        executor = Played(loop, lanes=4)
        executor.bring("one")
        executor.take(0)
        executor.refuses_threads = True
        executor.bring("two", "three")
        for _ in range(100):
            loop.advance(LONG)
        assert len(caplog.records) < 4
        assert executor.take(0) == "two"

    def test_the_loop_may_rest_while_the_lanes_have_plenty(self, loop: ManualLoop) -> None:
        """And is told when the queue is empty."""
        told: list[bool] = []
        executor = Played(loop, lanes=1, rested=lambda: told.append(True))
        names = [str(number) for number in range(PLENTY)]
        for name in names[1:]:
            executor.submit(executor.job(name))
        assert executor.flush() is False
        executor.submit(executor.job(names[0]))
        assert executor.flush() is True
        for _ in names:
            loop.settle()
            assert told == []
            executor.take(0)
        loop.settle()
        assert told == [True]
        assert executor.flush() is False
        executor.take(0)
        loop.settle()
        assert told == [True]


# Real lanes ------------------------------------------------------------------------------------


class Threads:
    """An executor with real lanes, and a loop whose turns are the test's."""

    def __init__(self, loop: ManualLoop, lanes: int, queue: int = 1000, limit: int = 0) -> None:
        self.loop = loop
        self.executor = ThreadsExecutor(loop, lanes, queue, limit=limit)
        self.ended = threading.Condition()

    def begin(self, function: Callable[[], Any]) -> Run:
        """Run a function as a conversation on a lane."""

        def noted() -> Any:
            try:
                return function()
            finally:
                with self.ended:
                    self.ended.notify_all()

        run = Run(noted, self.executor.waiter())
        run.started = time.monotonic()
        assert self.executor.submit(run)
        self.executor.flush()
        return run

    def until(self, condition: Callable[[], object]) -> None:
        """Advance the loop's time until a condition is true."""
        step = threading.Event()
        for _ in range(int(TIMEOUT / 0.002)):
            if condition():
                return
            self.loop.advance(LONG)
            step.wait(0.002)
        raise AssertionError("this never came about")


@pytest.fixture
def lanes(loop: ManualLoop) -> Iterator[Callable[[int], Threads]]:
    """Return what makes executors; their lanes have ended when the test has."""
    made: list[Threads] = []

    def make(count: int) -> Threads:
        made.append(Threads(loop, count))
        return made[-1]

    yield make
    for each in made:
        each.executor.stop()
        each.executor.join(TIMEOUT)
        assert not any(lane.thread.is_alive() for lane in each.executor.roster.lanes)


def test_a_job_runs_on_a_lane(lanes: Callable[[int], Threads]) -> None:
    """Whose thread has a name that people can tell, and does not hold up the program's end."""
    threads = lanes(1)
    run = threads.begin(threading.current_thread)
    threads.until(lambda: run.ended)
    assert run.value.name == "bide-thread-1"
    assert run.value.daemon
    (hub,) = threads.executor.hubs
    assert hub.name == "bide-thread-1"
    assert hub.thread == run.value.ident


def test_a_parked_job_is_resumed_on_its_lane(lanes: Callable[[int], Threads]) -> None:
    """And meanwhile the lane runs others."""
    threads = lanes(1)
    signal = Signal()
    run = threads.begin(lambda: (threading.get_ident(), wait(signal), threading.get_ident()))
    threads.until(lambda: threads.executor.waiting == 1)
    other = threads.begin(threading.get_ident)
    threads.until(lambda: other.ended)
    signal.fire("value")
    threads.until(lambda: run.ended)
    before, value, after = run.value
    assert value == "value"
    assert before == after == other.value


def test_a_blocked_lane_holds_up_its_own_parked_jobs_only(
    lanes: Callable[[int], Threads],
) -> None:
    """Jobs that come go to others."""
    threads = lanes(2)
    release = threading.Event()
    blocked = threads.begin(lambda: release.wait(TIMEOUT))
    threads.until(lambda: threads.executor.threads_busy == 1)
    others = [threads.begin(threading.get_ident) for _ in range(3)]
    threads.until(lambda: all(each.ended for each in others))
    assert not blocked.ended
    release.set()
    threads.until(lambda: blocked.ended)
    assert threads.executor.threads == 2


def test_a_lane_survives_a_job_that_raises(
    lanes: Callable[[int], Threads], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged as ours."""
    threads = lanes(1)

    class Broken(Run):
        """Raises out of its run."""

        def run(self) -> None:
            raise SystemExit

    broken = Broken(print, threads.executor.waiter())
    broken.started = 0.0
    assert threads.executor.submit(broken)
    threads.executor.flush()
    after = threads.begin(threading.get_ident)
    threads.until(lambda: after.ended)
    assert [each.message for each in caplog.records] == ["internal error: a job raised"]


def test_stopping_ends_idle_lanes(lanes: Callable[[int], Threads]) -> None:
    """At once."""
    threads = lanes(2)
    runs = [threads.begin(threading.current_thread) for _ in range(2)]
    threads.until(lambda: all(each.ended for each in runs))
    threads.executor.stop()
    threads.executor.join(TIMEOUT)
    assert not any(each.value.is_alive() for each in runs)


def test_stopping_waits_for_parked_jobs(lanes: Callable[[int], Threads]) -> None:
    """The lane ends when its last one has."""
    threads = lanes(1)
    signal = Signal()
    run = threads.begin(lambda: (threading.current_thread(), wait(signal)))
    threads.until(lambda: threads.executor.waiting == 1)
    threads.executor.stop()
    threads.executor.join(0.01)
    assert threads.executor.roster.lanes[0].thread.is_alive()
    signal.fire("value")
    threads.executor.join(TIMEOUT)
    assert run.ended
    assert not run.value[0].is_alive()


def test_stopping_does_not_wait_for_a_blocked_thread(lanes: Callable[[int], Threads]) -> None:
    """``join`` gives up in time; the lane is a daemon."""
    threads = lanes(1)
    release = threading.Event()
    blocked = threads.begin(lambda: release.wait(TIMEOUT))
    threads.until(lambda: threads.executor.threads_busy == 1)
    threads.executor.stop()
    threads.executor.join(0.01)
    assert not blocked.ended
    release.set()
    threads.executor.join(TIMEOUT)
    assert blocked.ended


def test_an_idle_lane_keeps_nothing_of_its_last_job(lanes: Callable[[int], Threads]) -> None:
    """Neither one that ran through nor one that waited."""
    threads = lanes(1)
    signal = Signal()

    class Big:
        """What a request holds."""

    def waited() -> Any:
        big = Big()
        kept.append(weakref.ref(big))
        wait(signal)
        return None

    def ran() -> None:
        big = Big()
        kept.append(weakref.ref(big))

    kept: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        runs = [threads.begin(waited), threads.begin(ran)]
        threads.until(lambda: threads.executor.waiting == 1 and runs[1].ended)
        signal.fire()
        threads.until(lambda: runs[0].ended and threads.executor.roster.lanes[0].idle)
        kept += [weakref.ref(run) for run in runs]
        runs.clear()
        assert [each() for each in kept] == [None] * 4
    finally:
        gc.enable()


def test_many_jobs_of_many_threads_are_each_run_once(lanes: Callable[[int], Threads]) -> None:
    """With waits in between, on four lanes."""
    threads = lanes(4)
    signals = [Signal() for _ in range(200)]
    runs = [
        threads.begin(lambda number=number: wait(signals[number]))  # type: ignore[misc]
        for number in range(200)
    ]
    firing = threading.Thread(
        target=lambda: [signal.fire(number) for number, signal in enumerate(signals)]
    )
    firing.start()
    threads.until(lambda: all(run.ended for run in runs))
    firing.join()
    assert [run.value for run in runs] == list(range(200))
    assert threads.executor.queued == 0
    assert threads.executor.waiting == 0


def test_the_executor_says_whether_it_may_call_in_several_threads(loop: ManualLoop) -> None:
    """For ``wsgi.multithread``."""
    assert ThreadsExecutor(loop, 2, 1).multithread
    assert not ThreadsExecutor(loop, 1, 1).multithread
    assert ThreadsExecutor(loop, 7, 1).threads_max == 7


def test_the_first_lanes_keep_more_idle_greenlets(loop: ManualLoop) -> None:
    """They have all jobs where many park: there may be more lanes, but those have few."""
    threads = Threads(loop, 2, limit=64)
    promise = Signal()
    runs = [threads.begin(lambda: wait(promise)) for _ in range(3)]
    threads.until(lambda: threads.executor.waiting == 3)
    assert [hub.idle_most for hub in threads.executor.hubs] == [256, 256, 16]
    promise.fire()
    threads.until(lambda: all(run.ended for run in runs))
    threads.executor.stop()
    threads.executor.join(TIMEOUT)


def test_a_lane_counts_the_jobs_that_park_and_not_their_later_waits(
    lanes: Callable[[int], Threads],
) -> None:
    """A stream waits for each of its events."""
    threads = lanes(1)
    roster = threads.executor.roster
    signals = [Signal() for _ in range(3)]
    begun: list[Signal] = []

    def streams() -> None:
        for signal in signals:
            begun.append(signal)
            wait(signal)

    stream = threads.begin(streams)
    for number, signal in enumerate(signals, 1):
        threads.until(lambda: len(begun) == number and roster.lanes[0].idle)  # noqa: B023 - called now
        assert roster._parks == 1.0
        signal.fire()
    threads.until(lambda: stream.ended and roster.lanes[0].idle)
    assert roster._parks == 1.0
