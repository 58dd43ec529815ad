"""Which lane is given a job: on played lanes, whose jobs park and block as the test says."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bide.executors.lane import LOOK
from bide.executors.processor import Usage
from bide.executors.roster import PARKS, PARKS_AT_ONCE, START_PAUSE
from bide.executors.threads import BLOCKED, PATIENCE, ThreadsExecutor
from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from tests.executors.test_threads import Played
from tests.fakes import Busy, ManualLoop, Run
from tests.served import DEADLINE, happened, until


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that runs when the test says so."""
    loop = ManualLoop()
    yield loop
    loop.close()


class Site(Played):
    """Played lanes that do what they are told: each job parks, or ends, or blocks."""

    def woken_now(self) -> list[int]:
        """Return the lanes that have been woken, or have just been started."""
        self.loop.settle()
        return [index for index, lane in enumerate(self.roster.lanes) if lane.coming]

    def park(self, index: int) -> str | None:
        """Take a lane's next job, which parks; return its name."""
        name = self.take(index)
        if name is not None:
            self._hub(index).parked += 1
            self.lane(index).has_parked = True
        return name

    def block(self, index: int) -> str | None:
        """Take a lane's next job, which does not end."""
        name = self.take(index)
        self._hub(index).running = Busy()
        return name

    def _hub(self, index: int) -> Any:
        hub = self.lane(index).hub
        assert hub is not None
        return hub

    def counts(self) -> list[int]:
        """Return how many jobs each lane has parked."""
        return [lane.parked for lane in self.roster.lanes]

    def park_all(self) -> None:
        """Let every woken lane take and park its jobs, until nothing happens."""
        for _ in range(10_000):
            coming = self.woken_now()
            if not coming:
                if self.queued == 0:
                    return
                self.loop.advance(PATIENCE * 1.1)
                continue
            for index in coming:
                self.woken()
                while self.park(index) is not None:
                    pass
        raise AssertionError("it never came to rest")


def test_jobs_that_park_get_a_lane_each_though_they_come_at_once(loop: ManualLoop) -> None:
    """While one may be started, none is begun where something is parked."""
    site = Site(loop, 4, limit=64)
    site.bring(*["job"] * 40)
    site.park_all()
    assert site.counts() == [1] * 40
    site.bring("one more")
    (new,) = site.woken_now()
    assert site.lane(new).parked == 0


def test_jobs_that_do_not_park_are_one_lane_s(loop: ManualLoop) -> None:
    """The saving of decision 5: it takes one after another, and nobody else is woken."""
    site = Site(loop, 4, limit=64)
    site.bring(*["job"] * 40)
    assert [site.take(0) for _ in range(41)] == ["job"] * 40 + [None]
    assert (site.threads, site.woken_now()) == (1, [])


def test_an_empty_lane_is_woken_rather_than_one_with_parked_jobs(loop: ManualLoop) -> None:
    """Though that one ran last."""
    site = Site(loop, 3, limit=3)
    site.idle(0, 1, 0)
    site.bring("job")
    assert site.woken() == [2]
    assert site.block(2) == "job"
    loop.advance(PATIENCE * 2)
    site.bring("job")
    assert site.woken() == [0]
    assert site.block(0) == "job"
    loop.advance(PATIENCE * 2)
    site.bring("job")
    assert site.woken() == [1], "there is no other"


def test_a_lane_that_has_parked_passes_the_wake_on_to_an_empty_one(loop: ManualLoop) -> None:
    """Rather than taking the next job itself."""
    site = Site(loop, 2, limit=2)
    site.idle(0, 0)
    site.bring("one", "two", "three")
    assert site.woken() == [1]
    assert site.park(1) == "one"
    assert site.take(1) is None
    assert site.lane(1).idle
    assert site.woken() == [0]
    assert site.take(0) == "two"
    assert site.take(0) == "three", "nothing is parked there"


def test_a_lane_that_goes_on_takes_no_job_while_another_is_empty(loop: ManualLoop) -> None:
    """It has resumed one, and has others."""
    site = Site(loop, 2, limit=2)
    site.idle(2, 0)
    site.busy(site.lane(0))
    site.submit(site.job("job"))
    assert site.another_job(site.lane(0)) is None
    assert site.woken() == [1]
    assert site.take(1) == "job"


def test_a_lane_that_goes_on_takes_a_job_when_no_other_is_idle(loop: ManualLoop) -> None:
    """Neither kind starves the other."""
    site = Site(loop, 2, limit=2)
    site.idle(2, 2)
    for index in range(2):
        site.busy(site.lane(index))
        site.lane(index).queue.put(object())  # more of its own is ready
    site.submit(site.job("job"))
    assert site.another_job(site.lane(0)) is not None


def test_a_lane_of_which_parked_jobs_are_ready_leaves_a_new_one_to_an_idle_lane(
    loop: ManualLoop,
) -> None:
    """The new one may block them; whoever is idle has none that is ready."""
    site = Site(loop, 2, limit=2)
    site.idle(1, 5)
    site.busy(site.lane(0))
    site.lane(0).queue.put(object())
    site.submit(site.job("job"))
    assert site.another_job(site.lane(0)) is None
    assert site.woken() == [0, 1], "the first is what is ready"


def test_when_every_lane_has_parked_jobs_they_are_evenly_spread(loop: ManualLoop) -> None:
    """Nearly: a lane takes one more for each eight that the emptiest has, and saves a switch."""
    site = Site(loop, 4, limit=4)
    site.bring(*["job"] * 40)
    site.park_all()
    assert sum(site.counts()) == 40
    assert max(site.counts()) - min(site.counts()) <= 2
    for _ in range(40):
        site.bring("job")
        site.park_all()
    assert sum(site.counts()) == 80
    assert max(site.counts()) - min(site.counts()) <= 1


def test_no_more_than_so_many_are_at_new_jobs_at_a_time(loop: ManualLoop) -> None:
    """Though more lanes might be started: threads that compute only wait for one another."""
    site = Site(loop, 2, limit=8)
    site.bring(*["job"] * 6)
    computing = []
    for _ in range(50):
        for index in site.woken_now():
            assert site.block(index) == "job"
            computing.append(index)
            site.lane(index).answer = lambda now, window: False
        loop.advance(BLOCKED)
    assert (computing, site.threads, site.queued) == ([0, 1], 2, 4)
    assert site.take(0) == "job", "the next is for one that has ended its own"


def test_others_begin_in_the_place_of_those_that_block(loop: ManualLoop) -> None:
    """Up to the limit; then what is left is for those that end."""
    site = Site(loop, 2, limit=4)
    site.bring(*["job"] * 6)
    asked: list[float] = []

    def blocks(now: float, window: float) -> bool:
        asked.append(window)
        return True

    for _ in range(50):
        for index in site.woken_now():
            assert site.block(index) == "job"
            site.lane(index).answer = blocks
        loop.advance(BLOCKED)
    assert (site.threads, site.queued) == (4, 2)
    assert min(asked) >= BLOCKED
    assert loop.timers == 0, "there is nobody to wake"
    assert site.take(3) == "job"


def test_without_a_queue_there_is_room_in_the_place_of_those_that_block(loop: ManualLoop) -> None:
    """As the queue's places are counted, too."""
    site = Site(loop, 1, queue=0)
    assert site.lanes_max == 1
    site = Site(loop, 2, queue=0, limit=3)
    assert site.bring("one", "two", "three") == [True, True, False]


def test_a_lane_with_parked_jobs_is_taken_when_no_thread_can_be_had(
    loop: ManualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, and nothing else is tried for a while."""
    site = Site(loop, 4, limit=8)
    site.idle(1)
    site.refuses_threads = True
    site.bring("one", "two")
    assert site.woken() == [0]
    assert [site.park(0), site.park(0)] == ["one", "two"]
    assert len(caplog.records) == 1
    site.refuses_threads = False
    loop.advance(START_PAUSE * 1.1)
    site.take(0)
    site.bring("three")
    assert site.threads == 2


def test_many_that_park_a_second_are_kept_to_the_first_lanes(loop: ManualLoop) -> None:
    """A switch for each would cost more than the wait; when they are fewer, they have lanes again.

    The others go on with what they have, and take nothing new.
    """
    site = Site(loop, 2, queue=1000, limit=1000)
    site.bring(*["job"] * (PARKS_AT_ONCE + 50))
    site.park_all()
    counts = site.counts()
    assert counts[2:] == [1] * (len(counts) - 2)
    assert len(counts) <= PARKS_AT_ONCE + 3
    before = site.threads
    site.bring(*["job"] * 20)
    site.park_all()
    assert site.threads == before
    assert sum(site.counts()[:2]) > 20
    late = site.lane(before - 1)
    site.busy(late)
    site.submit(site.job("job"))
    assert site.another_job(late) is None
    site.park_all()
    loop.advance(2 * PARKS_AT_ONCE / PARKS)
    site.bring("job")
    assert site.threads == before + 1


def test_jobs_that_park_are_counted_though_others_end_meanwhile(loop: ManualLoop) -> None:
    """Each lane has as many parked as before when it asks again."""
    site = Site(loop, 1)
    site.bring("one that stays parked")
    assert site.park(0) is not None
    for _ in range(PARKS_AT_ONCE):
        site.bring("job")
        assert site.park(0) == "job"
        site._hub(0).parked -= 1  # another one has been resumed, and has ended
    assert site.take(0) is None
    assert site.roster.crowded


def test_jobs_of_blocked_first_lanes_are_not_forgotten_while_many_park(loop: ManualLoop) -> None:
    """Another lane is woken for them, though it is none of the first."""
    site = Site(loop, 2, queue=1000, limit=1000)
    site.bring(*["job"] * (PARKS_AT_ONCE + 50))
    site.park_all()
    for index in range(2):
        site.busy(site.lane(index))
        site.lane(index).begun = False
    site.bring("late")
    for _ in range(20):
        loop.advance(PATIENCE * 1.1)
        coming = site.woken_now()
        if coming:
            break
    assert coming[0] >= 2
    assert site.take(coming[0]) == "late"


# Real lanes, and the time of real threads --------------------------------------------------------


def compute(release: list[bool]) -> None:
    while not release:
        sum(range(1000))


@pytest.mark.parametrize("computes", [False, True])
def test_a_lane_that_computes_is_told_from_one_that_blocks(
    loop: ManualLoop, computes: bool
) -> None:
    """By its processor time."""
    executor = ThreadsExecutor(loop, 2, 10)
    signal, release = Signal(), list[bool]()
    lock = threading.Event()
    run = Run((lambda: compute(release)) if computes else lock.wait, executor.waiter())
    assert executor.submit(run)
    executor.flush()
    try:
        (lane,) = executor.roster.lanes
        until(lambda: lane.hub is not None and lane.hub.running is not None)
        begun = time.monotonic()
        assert not lane.blocks(begun, 0.5), "the first look only notes"
        assert not lane.blocks(begun + 0.4, 0.5)
        usage, used = lane._usage, lane._seen[1]
        assert usage is not None
        if computes:
            until(lambda: usage.used() - used > 0.1)
        else:
            until(lambda: not usage.is_ready())
        assert lane.blocks(begun + 1.0, 0.5) is not computes
    finally:
        release.append(True)
        lock.set()
        signal.fire()
        executor.stop()
        executor.join(DEADLINE)
    assert not lane.blocks(begun + 100, 0.5), "nothing runs there any more"


def test_a_lane_that_is_given_no_processor_does_not_block(loop: ManualLoop) -> None:
    """It waits for one, as on a busy machine; to begin another job would make that worse."""
    site = Site(loop, 2)
    site.bring("job")
    assert site.block(0) == "job"
    lane = site.lane(0)
    ready = True
    usage: Any = SimpleNamespace(used=lambda: 1.0, is_ready=lambda: ready)
    lane._usage = usage
    assert not lane.blocks(100.0, 0.5), "the first look only notes"
    assert not lane.blocks(100.6, 0.5), "it could run"
    ready = False
    assert lane.blocks(100.7, 0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not known")
def test_a_thread_that_sleeps_is_told_from_one_that_is_ready() -> None:
    """By the state that the system tells of it."""
    found: list[Usage] = []
    release = threading.Event()

    def sleeps() -> None:
        found.append(Usage())
        release.wait(DEADLINE)

    sleeper = threading.Thread(target=sleeps)
    sleeper.start()
    try:
        until(lambda: found and not found[0].is_ready())
        assert Usage().is_ready(), "its own thread runs"
    finally:
        release.set()
        sleeper.join()
    until(lambda: not found[0].is_ready(), "it does not end")  # a moment after join returns


@pytest.mark.parametrize("first", ["word", "wait"])
def test_a_lane_resumes_what_is_ready_before_the_job_that_it_was_woken_for(
    loop: ManualLoop, first: str
) -> None:
    """The job may block, and so may what is resumed: another lane has it, if there is one."""
    executor = ThreadsExecutor(loop, 2, 10)
    signal, resumed, release = Signal(), threading.Event(), threading.Event()
    on: dict[str, str] = {}

    def waits() -> None:
        wait(signal)
        on["resumed"] = threading.current_thread().name
        resumed.set()
        happened(release)

    def new() -> None:
        on["new"] = threading.current_thread().name

    waiting, job = Run(waits, executor.waiter()), Run(new, executor.waiter())
    try:
        assert executor.submit(waiting)
        executor.flush()
        (lane,) = executor.roster.lanes
        until(lambda: lane.idle and lane.parked)
        with executor._lock:  # it can neither look nor go on before both words are there
            executor.jobs.append(job)
            executor.roster._note_woken(lane)
            if first == "word":
                lane.queue.put(LOOK)
                signal.fire()
            else:
                signal.fire()
                lane.queue.put(LOOK)
        happened(resumed)

        def ended() -> bool:
            loop.settle()
            return job.ended

        until(ended)
        assert on["new"] != on["resumed"]
    finally:
        release.set()
        executor.stop()
        executor.join(DEADLINE)


# A lane is ended by an exception from outside, at the worst moment -------------------------------


class Stray(BaseException):
    """What comes from outside."""


@pytest.mark.parametrize("point", ["half left", "left", "before the word"])
def test_a_lane_that_another_was_about_to_wake_does_not_sleep_for_ever(
    loop: ManualLoop, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The one that chose it is ended between taking it from the idle ones and waking it."""

    class Striking(dict[Any, None]):
        def __delitem__(self, lane: Any) -> None:
            if point == "left":
                super().__delitem__(lane)
            raise Stray

    def struck(*_: Any) -> None:
        raise Stray

    site = Site(loop, 2, limit=2)
    site.idle(0, 0)
    asleep, ended = site.lane(0), site.lane(1)
    site.bring("first", "second")
    assert site.woken() == [1]
    assert site.park(1) == "first"
    with monkeypatch.context() as patch:
        if point == "before the word":
            patch.setattr(Site, "_wake", struck)
        else:
            site.roster._empty = Striking(site.roster._empty)
        with pytest.raises(Stray):
            site.take(1)
    site.withdraw(ended)
    assert site.woken() == [0]
    assert site.take(0) == "second"
    assert site.take(0) is None
    assert asleep.idle
    roster = site.roster
    assert (list(roster._empty), list(roster._idle)) == ([asleep], [])
    assert (roster.coming, roster.begun) == (0, 0)


@pytest.mark.parametrize("first", ["the other lane", "the end"])
def test_a_job_that_a_lane_noted_and_did_not_take_is_the_next_lane_s(
    loop: ManualLoop, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Whichever comes first, its being taken by another or the withdrawal: it is not lost."""

    class Struck(deque[Any]):
        def popleft(self) -> Any:
            raise Stray

    site = Site(loop, 2, limit=2)
    site.idle(0, 0)
    noting = site.lane(1)
    site.bring("job")
    jobs, site.roster.jobs = site.roster.jobs, Struck(site.roster.jobs)
    with pytest.raises(Stray):
        site.take(1)
    site.roster.jobs = jobs
    assert noting.taken is jobs[0]
    taken = []
    if first == "the other lane":
        taken.append(site.take(0))
    assert not site.withdraw(noting)
    if first == "the end":
        taken.append(site.take(0))
    assert taken == ["job"]


def test_a_lane_in_the_place_of_another_has_its_number(loop: ManualLoop) -> None:
    """So the first ones are the first by number and by order; and a name is one lane's."""
    site = Site(loop, 2, limit=2)
    site.idle(0, 0)
    site.withdraw(site.lane(0))
    loop.settle()
    assert [lane.number for lane in site.roster.lanes] == [1, 2]
    assert site.take(0) is None
    site.withdraw(site.lane(0))
    site.roster._threads = 1
    assert site.roster._first_idle() is None, "the second is not the first, though it is alone"
    loop.settle()
    assert site.take(0) is None
    assert site.roster._first_idle() is site.lane(0)


def test_no_lane_is_started_once_they_have_been_told_to_end(loop: ManualLoop) -> None:
    """It would never be told."""
    site = Site(loop, 2)
    site.bring("one", "two")
    site.stop()
    loop.advance(1.0)
    site.bring("three")
    loop.advance(1.0)
    assert (site.threads, loop.timers) == (1, 0)
