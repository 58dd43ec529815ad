"""Whatever the order of results, errors, timeouts and cancellations: each wait has one outcome.

The steps are Hypothesis's; the loop and its time are the test's. What must come out is told by a
model of a few lines.
"""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer

from bide import iterate, wait, wait_all
from bide.errors import ClientDisconnected
from bide.waiting.outcome import Signal
from tests.fakes import Bare, Lane, ManualLoop, Run

LIMIT = 5.0

STEPS = st.lists(
    st.sampled_from(["result", "error", "time", "cancel", "turn", "resume"]), max_size=12
)

pytestmark = pytest.mark.usefixtures("no_reactor")


class Failed(Exception):  # noqa: N818 - the promise's error
    """What a promise fails with."""


class Promised:
    """A promise of one kind, and how it is kept or broken; each of them at any time, often."""

    def __init__(self, kind: str, lane: Lane) -> None:
        loop = lane.loop
        self.kind = kind
        self.promise: Any
        future: Any
        if kind == "signal":
            signal = self.promise = Signal()
            self.keep: Callable[[Any], object] = signal.fire
            self.fail: Callable[[BaseException], object] = lambda error: signal.fire(error=error)
        elif kind == "bare":
            self.promise = Bare()
            self.keep = self.promise.fire
            self.fail = lambda error: None  # it knows no errors
        elif kind == "deferred":
            deferred: defer.Deferred[Any] = defer.Deferred()
            self.promise = deferred
            self.keep = lambda value: None if deferred.called else deferred.callback(value)
            self.fail = lambda error: None if deferred.called else deferred.errback(error)
        else:
            threads = kind == "concurrent"
            future = concurrent.futures.Future() if threads else loop.create_future()
            self.keep = lambda value: None if future.done() else future.set_result(value)
            self.fail = lambda error: None if future.done() else future.set_exception(error)
            self.promise = awaiting(future) if kind == "coroutine" else future
        self.future = None if kind in ("signal", "bare", "deferred") else future

    def forget(self) -> None:
        """Take notice of an error that nobody waited for, as asyncio wants it."""
        if isinstance(self.future, asyncio.Future) and self.future.done():
            self.future.cancelled() or self.future.exception()


async def awaiting(future: asyncio.Future[Any]) -> Any:
    """Await a future, in a coroutine."""
    return await future


KINDS = ["signal", "bare", "deferred", "concurrent", "future", "coroutine"]


@contextlib.contextmanager
def a_lane() -> Iterator[Lane]:
    """Return a lane; nothing may be left in the end: no task, no timer, nobody parked."""
    lane = Lane(ManualLoop())
    try:
        yield lane
        lane.end()
    finally:
        lane.loop.close()


def outcome(run: Run) -> Any:
    """Return the value, or the error's type."""
    return run.value if run.raised is None else type(run.raised)


class Told:
    """What a wait's outcome must be, in a few lines.

    The first of result and error counts, until the wait has been ended. A time-out ends it on the
    loop, or, where the promise is cancelled on the waiting thread, when that goes on, as with a
    cancellation. A loop's own future is asked on its loop, and a coroutine is told to end there.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.outcome: Any = None
        self.pending: Any = None  # why it is to end
        self.asked = False

    def said(self, outcome: Any) -> None:
        """Settle the promise with a result or an error."""
        if self.outcome is None:
            self.outcome = outcome

    def cancel(self) -> None:
        """Cancel the request."""
        self.pending = self.pending or ClientDisconnected

    def time(self) -> None:
        """Pass the time-out."""
        self.pending = self.pending or TimeoutError
        if self.kind not in ("bare", "concurrent"):
            self.said(self.pending)
        self.turn()

    def resume(self) -> None:
        """Run the waiting thread."""
        self.asked = self.pending is not None
        if self.asked and self.kind != "future":
            self.said(self.pending)

    def turn(self) -> None:
        """Run the loop."""
        if self.asked:
            self.said(self.pending)


@given(st.sampled_from(KINDS), STEPS)
def test_a_wait_has_one_outcome_the_first(kind: str, steps: list[str]) -> None:
    """Whatever comes later is ignored, in every order and interleaving."""
    with a_lane() as lane:
        promised = Promised(kind, lane)
        run = lane.begin(lambda: wait(promised.promise, LIMIT))
        lane.loop.settle()  # subscribed; the timer runs
        told = Told(kind)
        for number, step in enumerate([*steps, "time", "resume"]):
            if step == "result":
                promised.keep(number)
                told.said(number)
            elif step == "error" and kind != "bare":
                promised.fail(Failed())
                told.said(Failed)
            elif step == "cancel":
                run.waiter.cancel(ClientDisconnected())
                told.cancel()
            elif step == "time":
                lane.loop.advance(LIMIT)
                told.time()
            elif step == "turn":
                lane.loop.turn()
                told.turn()
            elif step == "resume":
                lane.go_on()
                told.resume()
            if kind in ("future", "coroutine") and step in ("result", "error"):
                lane.loop.settle()  # what a loop's own future tells, it tells by a later turn
        lane.settle()
        assert outcome(run) == told.outcome
        promised.forget()


@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    st.data(),
)
def test_wait_all_gives_all_results_in_order_or_the_first_error(
    kinds: list[str], data: st.DataObject
) -> None:
    """Over any mixture of kinds, kept and broken in any order."""
    with a_lane() as lane:
        order = data.draw(st.permutations(range(len(kinds))))
        fails = data.draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds)))
        before = data.draw(st.integers(0, len(kinds)))  # how many are done before the wait
        promised = [Promised(kind, lane) for kind in kinds]

        def do(index: int) -> bool:
            if fails[index] and kinds[index] != "bare":
                promised[index].fail(Failed(index))
                return True
            promised[index].keep(index)
            return False

        early = [index for index in order[:before] if kinds[index] != "bare"]
        for index in early:
            do(index)
        run = lane.begin(lambda: wait_all(*[each.promise for each in promised]))
        lane.settle()
        errors = [index for index in early if fails[index]]
        for index in [each for each in order if each not in early]:
            if do(index):
                errors.append(index)
            lane.settle()
        if not errors:
            assert run.value == list(range(len(kinds)))
        else:
            assert isinstance(run.error, Failed)
            (failed,) = run.error.args
            # Of those that had failed before the wait it is the first one that was asked.
            assert failed == errors[0] or (failed in early and fails[failed])
        for each in promised:
            each.forget()


ITEMS = st.lists(
    st.one_of(
        st.tuples(st.just("yield"), st.integers()),
        st.tuples(st.just("sleep"), st.integers(0, 3)),
        st.tuples(st.just("raise"), st.just(0)),
    ),
    max_size=8,
)


async def playing(items: list[tuple[str, int]], notes: list[str]) -> AsyncIterator[int]:
    """Yield, sleep and raise, as told."""
    try:
        for what, number in items:
            if what == "yield":
                yield number
            elif what == "sleep":
                await asyncio.sleep(number)
            else:
                raise Failed
    finally:
        notes.append("closed")


@given(ITEMS, st.integers(0, 8))
def test_iterate_gives_what_async_for_gives(items: list[tuple[str, int]], most: int) -> None:
    """The same items and the same error, left early or not; and the iterable is closed."""

    async def natively() -> tuple[list[int], bool]:
        got: list[int] = []
        source = playing(items, [])
        try:
            async for item in source:
                got.append(item)
                if len(got) > most:
                    break
        except Failed:
            return got, True
        return got, False

    def ordinarily() -> tuple[list[int], bool]:
        got: list[int] = []
        try:
            for item in iterate(playing(items, notes)):
                got.append(item)
                if len(got) > most:
                    break
        except Failed:
            return got, True
        return got, False

    notes: list[str] = []
    with a_lane() as lane:
        run = lane.begin(ordinarily)
        task = lane.loop.create_task(natively())
        for _ in range(30):
            lane.settle()
            lane.loop.advance(1)
        lane.settle()
        assert run.value == task.result()
        assert notes == ["closed"]
        lane.loop.create_task(lane.loop.shutdown_asyncgens())
