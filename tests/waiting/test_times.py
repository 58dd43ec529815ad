"""Where the time of a call goes, by a clock that stands still unless the test moves it."""

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bide import iterate, using, wait
from bide.errors import ClientDisconnected
from bide.executors import hub
from bide.waiting import times
from bide.waiting.adapters import All
from bide.waiting.names import name_of_promise
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter, current_waiter
from tests.failures import Failures, same
from tests.fakes import Bare, Calling, HandClock, Lane, ManualLoop, Run, waiting_with_calls
from tests.served import until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """Time calls by a clock of the test's."""
    clock = HandClock()
    for module in (hub, times):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


def sums_of(run: Run, started: float) -> tuple[float, ...]:
    """Return a call's four sums, up to now."""
    return tuple(run.waiter.sums(started)[1])


def begin_after(lane: Lane, clock: HandClock, seconds: int, function: Any) -> tuple[Run, float]:
    """Begin a call that has been queued for so long."""
    started = clock.now
    clock.advance(seconds)
    return lane.begin(function), started


def test_a_call_that_has_not_begun_is_queued(clock: HandClock) -> None:
    """All of its time, until it is."""
    loop = ManualLoop()
    started = clock.now
    clock.advance(3)
    assert Waiter(loop).sums(started) == (None, (3, 0, 0, 0), False)
    loop.close()


def test_the_four_sums_of_a_call_are_what_it_did(lane: Lane, clock: HandClock) -> None:
    """At each moment, with two kinds of waits, and the end."""
    promise, client = Signal(), Signal()

    def view() -> None:
        clock.advance(2)
        wait(promise)
        clock.advance(5)
        waiter = current_waiter()
        assert waiter is not None
        waiter.wait_io(client)
        clock.advance(11)

    run, started = begin_after(lane, clock, 1, view)
    assert sums_of(run, started) == (1, 2, 0, 0)
    clock.advance(3)
    assert sums_of(run, started) == (1, 2, 3, 0), "it waits still"
    promise.fire()
    clock.advance(4)
    assert sums_of(run, started) == (1, 2, 7, 0), "until its thread comes to it"
    lane.go_on()
    clock.advance(8)
    assert sums_of(run, started) == (1, 7, 7, 8)
    client.fire()
    lane.go_on()
    assert run.ended
    assert sums_of(run, started) == (1, 18, 7, 8)


def test_what_others_of_the_thread_do_is_not_a_calls_own_time(lane: Lane, clock: HandClock) -> None:
    """They run while it waits, and the thread's last switch is another one's."""
    first, second = Signal(), Signal()

    def busy() -> None:
        wait(second)
        clock.advance(5)

    one, started = begin_after(lane, clock, 1, lambda: wait(first))
    other, _ = begin_after(lane, clock, 0, busy)
    first.fire()
    second.fire()
    lane.woken.reverse()
    lane.go_on()
    assert one.ended
    assert other.ended
    assert sums_of(one, started) == (1, 0, 5, 0)


def test_a_wait_that_does_not_stop_takes_no_time(lane: Lane, clock: HandClock) -> None:
    """Its result is there: nothing is stamped."""
    fired = Signal()
    fired.fire()

    def view() -> None:
        wait(fired)
        clock.advance(2)

    run, started = begin_after(lane, clock, 1, view)
    assert run.ended
    assert sums_of(run, started) == (1, 2, 0, 0)


def test_a_wait_within_a_wait_is_counted_once(lane: Lane, clock: HandClock) -> None:
    """Subscribing to a promise may wait itself; the outer one has not stopped yet."""
    inner, outer = Signal(), Bare()

    class Slow(Bare):
        """Waits before it takes a callback."""

        def addCallback(self, callback: Any) -> None:
            clock.advance(2)
            wait(inner)
            clock.advance(3)
            outer.addCallback(callback)

    run, started = begin_after(lane, clock, 1, lambda: wait(Slow()))
    clock.advance(4)
    inner.fire()
    lane.settle()
    assert sums_of(run, started) == (1, 5, 4, 0)
    clock.advance(6)
    outer.fire("value")
    lane.settle()
    assert run.value == "value"
    assert sums_of(run, started) == (1, 5, 10, 0)


def test_a_call_that_is_made_in_the_midst_of_a_wait_runs(lane: Lane, clock: HandClock) -> None:
    """And may wait; then the wait around it goes on."""
    outer, inner = Signal(), Signal()

    def work() -> None:
        clock.advance(3)
        wait(inner)
        clock.advance(5)

    callings: list[Calling] = []
    run, started = begin_after(lane, clock, 1, lambda: waiting_with_calls(callings, outer))
    clock.advance(13)
    callings[0].call(work)
    lane.settle()
    assert sums_of(run, started) == (1, 3, 13, 0)
    clock.advance(7)
    inner.fire()
    lane.settle()
    assert sums_of(run, started) == (1, 8, 20, 0)
    clock.advance(11)
    assert sums_of(run, started) == (1, 8, 31, 0)
    outer.fire()
    lane.settle()
    assert run.ended
    assert sums_of(run, started) == (1, 8, 31, 0)


def test_a_cancelled_wait_is_counted_up_to_its_end(lane: Lane, clock: HandClock) -> None:
    """And the clean-up's waits as any other."""
    promise, clean_up = Signal(), Signal()

    def view() -> None:
        try:
            wait(promise)
        finally:
            clock.advance(2)
            wait(clean_up)

    run, started = begin_after(lane, clock, 1, view)
    clock.advance(4)
    run.waiter.cancel(ClientDisconnected("the client has left"))
    lane.settle()
    clock.advance(8)
    assert sums_of(run, started) == (1, 2, 12, 0)
    clean_up.fire()
    lane.settle()
    assert isinstance(run.error, ClientDisconnected)
    assert sums_of(run, started) == (1, 2, 12, 0)


def test_a_wait_that_must_block_its_thread_is_a_wait(clock: HandClock) -> None:
    """The thread's parking reads no clock: this is read when the thread goes on."""
    loop = ManualLoop()
    waiter = Waiter(loop)
    started = waiter.begun = clock.now
    promise = Signal()
    sums: list[Any] = []

    def fulfil() -> None:
        until(lambda: waiter.sums(started)[0])
        clock.advance(4)
        sums.append(waiter.sums(started)[1])
        promise.fire()

    thread = threading.Thread(target=fulfil)
    thread.start()
    waiter.wait(promise)
    thread.join()
    clock.advance(1)
    assert sums == [(0, 0, 4, 0)]
    assert waiter.sums(started) == (None, (0, 1, 4, 0), True)
    loop.close()


def test_a_look_in_the_midst_of_a_switch_sees_the_time_before_it(
    lane: Lane, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on, and stops again, while another thread has read half of its clock."""
    first, second = Signal(), Signal()

    def view() -> None:
        wait(first)
        clock.advance(2)
        wait(second)

    run, started = begin_after(lane, clock, 1, view)
    clock.advance(4)
    switches: list[Callable[[], object]] = [first.fire, lane.go_on]

    def read() -> float:
        while switches:
            switches.pop(0)()
        return clock()

    with monkeypatch.context() as patched:
        patched.setattr(times, "monotonic", read)
        assert sums_of(run, started) == (1, 0, 6, 0), "its whole age, as it was before"
    assert sums_of(run, started) == (1, 2, 4, 0)
    second.fire()
    lane.go_on()


def test_a_wait_names_what_it_waits_for_while_it_does(lane: Lane, clock: HandClock) -> None:
    """And keeps it no longer, whoever keeps the wait."""

    class Result:
        """What was promised."""

    promise: asyncio.Future[Any] = lane.loop.create_future()
    promises = [promise]
    run = lane.begin(lambda: wait(promises.pop()) is not None)
    stopped = run.waiter.sums(clock.now)[0]
    assert stopped is not None
    assert stopped.promise is promise
    result = Result()
    there = weakref.ref(result)
    promise.set_result(result)
    del result, promise
    gc.disable()
    try:
        lane.settle()
        assert run.value
        assert not stopped.promise
        assert there() is None, "the wait keeps what it waited for"
    finally:
        gc.enable()


async def fetch() -> None:
    """Do nothing."""


async def events() -> AsyncIterator[int]:
    """Return one thing."""
    yield 1


class _Own(concurrent.futures.Future[int]):
    """A private kind of a public one."""


class _Bare:
    """One that is private, and inherits from nothing."""


def test_a_promise_has_a_name(lane: Lane) -> None:
    """As the application would call it; `wait_all` names some of its promises."""
    coroutine = fetch()

    async def inner() -> None: ...

    task = lane.loop.create_task(inner())
    named = [
        ("coroutine fetch", coroutine),
        ("task inner", task),
        ("async generator events", events()),
        ("Future", lane.loop.create_future()),
        ("Future", _Own()),
        ("Signal", Signal()),
        ("_Bare", _Bare()),
        ("nothing", All(())),
        ("all of Signal, coroutine fetch", All((Signal(), coroutine))),
        ("all of Signal, Signal, Signal, 2 more", All((Signal(),) * 5)),
    ]
    with Failures() as failures:
        for name, promise in named:
            with failures.of(name):
                same(name_of_promise(promise), name)
    coroutine.close()
    lane.settle()


def test_iterate_and_using_wait_for_what_they_are_given(lane: Lane, clock: HandClock) -> None:
    """Not for the calls that they make of it."""
    gate: asyncio.Future[Any] = lane.loop.create_future()

    async def several() -> AsyncIterator[Any]:
        yield await gate

    class Pool:
        """An async context manager."""

        async def __aenter__(self) -> None:
            await gate

        async def __aexit__(self, *_: object) -> None: ...

    def in_pool() -> None:
        with using(Pool()):
            pass

    runs = {
        "async generator several": lane.begin(lambda: list(iterate(several()))),
        "Pool": lane.begin(in_pool),
        "Future": lane.begin(lambda: wait(gate)),
    }
    lane.settle()
    with Failures() as failures:
        for name, run in runs.items():
            with failures.of(name):
                stopped = run.waiter.sums(clock.now)[0]
                assert stopped is not None
                same(name_of_promise(stopped.promise), name)
    gate.set_result(None)
    lane.settle()
    assert all(run.ended for run in runs.values())
