"""The deadlines of waits: who is told of them, how late they may be, and their hand-overs."""

import asyncio
import concurrent.futures
import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from bide import wait
from bide.errors import ClientDisconnected
from bide.waiting.cleanups import cleanup_time
from bide.waiting.deadlines import FINENESS, FINEST, rounded_up, wheel_of
from bide.waiting.outcome import Signal
from tests.failures import Failures
from tests.fakes import Lane, ManualLoop, Run
from tests.forms import needs_steps


def test_only_a_timeout_before_all_others_is_told_to_the_loop(lane: Lane) -> None:
    """A lane's thread and the loop's take turns, and a turn costs more than a quick request."""
    signals = [Signal() for _ in range(4)]
    told = []
    for signal, seconds in zip(signals, (5, 5, 7, 2), strict=True):
        lane.begin(partial(wait, signal, seconds))
        told.append(len(lane.loop._ready))  # type: ignore[attr-defined]
        lane.loop.settle()
    for signal in signals:
        signal.fire()
    lane.go_on()
    assert told == [1, 0, 0, 1]
    assert not lane.loop._ready, "a wait that is over tells the loop nothing"  # type: ignore[attr-defined]
    assert lane.loop.timers == 1, "one for all of them"


@pytest.mark.parametrize("when", ["before the loop", "after the loop"])
def test_a_wait_that_is_over_leaves_nothing_behind(lane: Lane, when: str) -> None:
    """Though its time-out is to come: the loop has come to it, or comes to it now."""
    promise = concurrent.futures.Future[str]()
    kept: Any = weakref.ref(promise)
    run = lane.begin(lambda: wait(kept(), 5))
    if when == "after the loop":
        lane.loop.settle()
    promise.set_result("value")
    del promise
    lane.go_on()
    lane.loop.settle()
    assert run.value == "value"
    gc.collect()
    assert kept() is None
    assert lane.loop.timers == (1 if when == "after the loop" else 0)
    lane.loop.advance(5)
    assert lane.loop.timers == 0


def test_a_deadline_is_never_early_and_little_late() -> None:
    """Whatever the time, and however long the wait."""
    with Failures() as failures:
        for now in (0.0, 1.0, 1234.5678, 4_000_000.125, 1e9 + 1 / 3):
            for seconds in (0.0, 1e-9, 0.001, 0.1, 0.3, 1.0, 4.999, 15.0, 86_400.0, 1e9, 1e300):
                with failures.of(f"{seconds} s from {now}"):
                    late = rounded_up(now, seconds) - (now + seconds)
                    assert 0 <= late <= max(FINEST, seconds / FINENESS)
                    assert seconds or not late
    assert rounded_up(0.0, float("inf")) == float("inf")


def test_deadlines_of_one_length_share_moments() -> None:
    """A thousand in a second, of 15 seconds each, have a few."""
    assert len({rounded_up(1000 + each / 1000, 15) for each in range(1000)}) <= 9


def test_a_timer_that_comes_too_soon_ends_nothing(lane: Lane) -> None:
    """A loop's clock and its timers need not agree."""
    run = lane.begin(lambda: wait(Signal(), 5))
    lane.loop.settle()
    (timer,) = lane.loop._scheduled  # type: ignore[attr-defined]
    lane.loop.now += 4.99
    timer._run()
    lane.settle()
    assert not run.ended
    lane.loop.advance(0.01)
    lane.settle()
    assert type(run.error) is TimeoutError


def test_a_timeout_that_is_over_before_the_promise_is_asked_for_ends_the_wait(lane: Lane) -> None:
    """The loop comes to both in one turn, since it was late."""
    signal, future = Signal(), lane.loop.create_future()
    lane.begin(lambda: wait(signal, 5))
    lane.loop.settle()  # its timer
    lane.loop.now += 4
    run = lane.begin(lambda: wait(future, 1))
    lane.loop.advance(2)
    lane.settle()
    assert type(run.error) is TimeoutError
    assert future.cancelled()
    signal.fire()
    lane.settle()


# The hand-overs ---------------------------------------------------------------------------------


class Moments(dict[float, Any]):
    """A wheel's, in whose steps the loop comes in between."""

    def __init__(self) -> None:
        self.before: dict[str, Callable[[], object]] = {}

    def _come(self, step: str) -> None:
        function = self.before.pop(step, None)
        if function is not None:
            function()

    def setdefault(self, at: float, moment: Any = None) -> Any:
        """Find a moment, or make it; and then be interrupted."""
        found = super().setdefault(at, moment)
        self._come("the deadline is put in")
        return found

    def get(self, at: float, default: Any = None) -> Any:
        """Look for a moment, which may be interrupted."""
        if at in self:
            self._come("it is looked whether the moment is still to come")
        return super().get(at, default)


@needs_steps
@pytest.mark.parametrize(
    "step",
    [
        "the deadline is put in",
        "it is looked whether the moment is still to come",
    ],
)
def test_a_deadline_whose_moment_is_just_over_is_not_lost(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The loop takes all of that moment while another one is put there."""
    moments = Moments()
    monkeypatch.setattr(wheel_of(lane.loop), "_moments", moments)
    first = lane.begin(lambda: wait(Signal(), 5))
    lane.loop.settle()
    moments.before[step] = lambda: lane.loop.advance(7)
    second = lane.begin(lambda: wait(Signal(), 6 if step == "the deadline is put in" else 5))
    lane.settle()
    assert not moments.before
    assert [type(each.error) for each in (first, second)] == [TimeoutError, TimeoutError]


class Looked(dict[float, Any]):
    """A wheel's moments; something happens as the loop looks at all of them, or takes one."""

    def __init__(self, moments: dict[float, Any]) -> None:
        super().__init__(moments)
        self.before: list[Callable[[], object]] = []
        self.after: list[Callable[[], object]] = []
        self.taken: list[Callable[[], object]] = []

    def __iter__(self) -> Iterator[float]:
        _call_all(self.before)
        looked = list(self.keys())
        _call_all(self.after)
        return iter(looked)

    def pop(self, at: float) -> Any:  # type: ignore[override]
        """Take a moment."""
        taken = super().pop(at)
        _call_all(self.taken)
        return taken


def _call_all(functions: list[Callable[[], object]]) -> None:
    while functions:
        functions.pop()()


@pytest.fixture
def looked(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> Looked:
    """Put the moments of the lane's loop there."""
    wheel = wheel_of(lane.loop)
    looked = Looked(wheel._moments)
    monkeypatch.setattr(wheel, "_moments", looked)
    return looked


def elsewhere(function: Callable[[], object]) -> Callable[[], None]:
    """Return what calls a function as on another thread than the loop's."""

    def call() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(asyncio, "_get_running_loop", lambda: None)
            function()

    return call


@pytest.mark.parametrize("when", ["before it looks", "after it has looked"])
def test_a_deadline_that_is_put_in_while_the_timer_is_set_has_one_that_comes(
    lane: Lane, looked: Looked, when: str
) -> None:
    """The loop looks what is next, and another thread puts in what comes after this one."""
    signal = Signal()
    lane.begin(lambda: wait(signal, 5))
    lane.loop.settle()
    signal.fire()  # the timer comes all the same
    lane.go_on()
    runs: list[Run] = []
    come = elsewhere(lambda: runs.append(lane.begin(lambda: wait(Signal(), 7))))
    (looked.before if when == "before it looks" else looked.after).append(come)
    lane.loop.advance(5)
    lane.loop.advance(7)
    lane.settle()
    assert [type(run.error) for run in runs] == [TimeoutError]


def test_a_promise_that_is_asked_as_its_deadline_is_taken_has_its_time(
    lane: Lane, looked: Looked
) -> None:
    """The cancellation has set another time, which counts."""
    asked = []

    async def resists() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            asked.append(lane.loop.now)
            await asyncio.sleep(cleanup_time.of_promise * 0.9)
        return "a result in spite of all"

    run = lane.begin(lambda: wait(resists(), 5))
    lane.loop.settle()

    def cancel() -> None:
        run.waiter.cancel(ClientDisconnected("gone"))
        lane.go_on()

    looked.taken.append(elsewhere(cancel))
    lane.loop.advance(5)
    lane.settle()
    assert (len(asked), run.ended) == (1, False)
    lane.loop.advance(cleanup_time.of_promise * 0.95)
    lane.settle()
    assert run.value == "a result in spite of all"


def test_a_wheel_does_not_keep_its_loop() -> None:
    """A program may make many loops, as tests do."""
    loop = ManualLoop()
    lane = Lane(loop)
    signal = Signal()
    lane.begin(lambda: wait(signal, 5))
    loop.settle()
    signal.fire()
    lane.end()
    kept = weakref.ref(loop)
    loop.close()
    del loop, lane
    gc.collect()
    assert kept() is None
