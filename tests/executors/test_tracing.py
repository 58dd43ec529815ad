"""What a request traces and profiles is that request, also while it waits beside others."""

import cProfile
import functools
import pstats
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from tests.fakes import Lane, ManualLoop
from tests.served import happened

Seen = list[tuple[str, str, int]]


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Return a hub on this thread; whatever traces the tests themselves is set back."""
    own = sys.gettrace(), sys.getprofile()
    lane = Lane(ManualLoop())
    yield lane
    lane.settle()
    lane.hub.close()
    lane.loop.close()
    sys.settrace(own[0])
    sys.setprofile(own[1])


def view(signal: Signal) -> None:
    """Wait between two calls."""
    helper()
    wait(signal)
    helper()


def helper() -> None:
    """Do something."""
    len(())


def other() -> None:
    """Another request."""
    helper()


def noting(seen: Seen) -> Callable[..., Any]:
    """Make a tracer that notes what happens in this module."""

    def tracer(frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code in (view.__code__, helper.__code__, other.__code__):
            seen.append((event, code.co_name, frame.f_lineno - code.co_firstlineno))
        return tracer

    return tracer


def traced(by: Callable[[Any], None], seen: Seen, signal: Signal) -> None:
    """Trace a view by ``sys.settrace`` or ``sys.setprofile``."""
    by(noting(seen))
    try:
        view(signal)
    finally:
        by(None)


def alone(by: Callable[[Any], None]) -> Seen:
    """Return what a tracer sees of a view that does not wait."""
    seen: Seen = []
    signal = Signal()
    signal.fire()
    traced(by, seen, signal)
    return seen


BY = pytest.mark.parametrize("by", [sys.settrace, sys.setprofile])


@BY
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_requests_that_wait_trace_their_own_lines_and_all_of_them(
    lane: Lane, by: Callable[[Any], None], order: tuple[int, int]
) -> None:
    """Two with tracers, one that begins between, and one that goes on between."""
    expected = alone(by)
    seen: list[Seen] = [[], []]
    signals = Signal(), Signal(), Signal()
    lane.begin(lambda: traced(by, seen[0], signals[0]))
    lane.begin(lambda: view(signals[2]))
    lane.begin(lambda: traced(by, seen[1], signals[1]))
    lane.begin(other)
    for number in order:
        signals[number].fire()
        lane.settle()
        signals[2].fire()
        lane.settle()
        lane.begin(other)
    assert seen == [expected, expected]


@BY
def test_a_request_is_traced_on_though_another_thread_is_traced_meanwhile(
    lane: Lane, by: Callable[[Any], None]
) -> None:
    """From Python 3.12 on the first thread that is traced marks the code that runs."""
    expected = alone(by)
    seen: Seen = []
    signal = Signal()
    begun, end = threading.Event(), threading.Event()

    def elsewhere() -> None:
        by(lambda *_: None)
        begun.set()
        happened(end)

    thread = threading.Thread(target=elsewhere)
    run = lane.begin(lambda: traced(by, seen, signal))
    thread.start()
    try:
        happened(begun)
        signal.fire()
        lane.settle()
    finally:
        end.set()
        thread.join()
    assert run.ended
    assert seen == expected


@BY
def test_what_traces_the_thread_traces_all_its_requests(
    lane: Lane, by: Callable[[Any], None]
) -> None:
    """A debugger or coverage, by ``threading.settrace``; also beside a request's own."""
    expected = alone(by)
    seen: Seen = []
    own: Seen = []
    signals = Signal(), Signal()
    by(noting(seen))
    first = lane.begin(lambda: view(signals[0]))
    lane.begin(lambda: traced(by, own, signals[1]))
    for signal in signals:
        signal.fire()
        lane.settle()
    by(None)
    assert first.ended
    assert seen == own == expected


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there cProfile is the whole process's")
def test_a_profile_counts_the_calls_of_its_request(lane: Lane) -> None:
    """With their callers, though two are made at once."""
    signals = Signal(), Signal()

    def profiled(signal: Signal) -> dict[Any, Any]:
        profile = cProfile.Profile()
        profile.enable()
        try:
            view(signal)
        finally:
            profile.disable()
        stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
        return {
            name: (calls, [caller for _, _, caller in callers])
            for (file, _, name), (calls, _, _, _, callers) in stats.items()
            if file == __file__
        }

    runs = [lane.begin(functools.partial(profiled, signal)) for signal in signals]
    lane.begin(other)
    for signal in reversed(signals):
        signal.fire()
        lane.settle()
    expected = {"view": (1, []), "helper": (2, ["view"])}
    assert [run.value for run in runs] == [expected, expected]
