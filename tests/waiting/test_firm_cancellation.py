"""Cancellations that end a wait for the request's own client too, in both orders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bide import ClientDisconnected, RequestTimeout, ServerStopping, wait
from bide.errors import Cancelled
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from bide.waiting.waiter import current_waiter
from tests.fakes import Lane, ManualLoop

GONE = ClientDisconnected("the client has closed the connection")


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Return a lane on the test's own thread."""
    loop = ManualLoop()
    yield Lane(loop)
    loop.close()


def wait_io(signal: Signal) -> Any:
    waiter = current_waiter()
    assert waiter is not None
    return waiter.wait_io(signal)


@pytest.mark.parametrize("kind", [ServerStopping, RequestTimeout])
def test_a_firm_cancellation_ends_a_wait_for_the_client(lane: Lane, kind: type[Cancelled]) -> None:
    """A client that takes nothing must not hold a stop or a deadline up."""
    run = lane.begin(lambda: wait_io(Signal()))
    run.waiter.cancel(kind("now"), firm=True)
    lane.settle()
    assert type(run.error) is kind


def test_a_firm_cancellation_before_the_wait_ends_it_at_once(lane: Lane) -> None:
    """The code ran when it came; what it waits for next is not waited for."""
    cleaning = Signal()

    def view() -> Any:
        waiter = current_waiter()
        assert waiter is not None
        waiter.cancel(ServerStopping("now"), firm=True)
        try:
            wait_io(Signal())
        except ServerStopping:
            return wait_io(cleaning)

    run = lane.begin(view)
    assert not run.ended
    cleaning.fire("clean")
    lane.settle()
    assert run.value == "clean"


def test_cleaning_up_waits_for_the_client_within_its_time(lane: Lane) -> None:
    """The cancellation is raised again when it is over."""

    def view() -> None:
        try:
            wait(Signal())
        finally:
            wait_io(Signal())

    run = lane.begin(view)
    run.waiter.cancel(ServerStopping("now"), firm=True)
    lane.settle()
    assert not run.ended
    lane.loop.advance(cleanup_time.seconds)
    lane.settle()
    assert type(run.error) is ServerStopping


def test_a_half_closed_client_that_was_spared_is_not_spared_by_a_stop(lane: Lane) -> None:
    """The first cancellation is the one that is raised; the later one only makes it firm."""
    run = lane.begin(lambda: wait_io(Signal()))
    run.waiter.cancel(GONE)
    lane.settle()
    assert not run.ended
    run.waiter.cancel(ServerStopping("now"), firm=True)
    lane.settle()
    assert type(run.error) is ClientDisconnected


def test_a_stop_that_was_first_stays_firm(lane: Lane) -> None:
    """The client's half-close, later, does not spare what comes."""

    def view() -> Any:
        waiter = current_waiter()
        assert waiter is not None
        waiter.cancel(ServerStopping("now"), firm=True)
        waiter.cancel(GONE)
        return wait_io(Signal())

    assert type(lane.begin(view).error) is ServerStopping


def test_a_wait_for_the_client_that_was_settled_first_has_its_result(lane: Lane) -> None:
    """The first claims the outcome; the cancellation is for the next wait."""
    signal = Signal()
    seen = []

    def view() -> None:
        seen.append(wait_io(signal))
        wait_io(Signal())

    run = lane.begin(view)
    signal.fire("room")
    run.waiter.cancel(RequestTimeout("late"), firm=True)
    lane.settle()
    assert seen == ["room"]
    assert type(run.error) is RequestTimeout


def test_code_that_swallows_every_cancellation_lets_others_run(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time to clean up over, each further try takes a turn of the loop."""
    tries: list[Cancelled] = []

    def stubborn() -> None:
        while len(tries) < 5:
            try:
                wait(Signal())
            except Cancelled as error:
                tries.append(error)

    monkeypatch.setattr(cleanup_time, "seconds", 0.0)
    run = lane.begin(stubborn)
    run.waiter.cancel(GONE)
    lane.settle()
    other = lane.begin(lambda: "answered")
    assert not run.ended
    assert other.value == "answered"
    for _ in range(5):
        lane.loop.advance(0.01)
        lane.settle()
    assert run.value is None
