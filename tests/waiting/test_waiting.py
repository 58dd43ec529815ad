"""Waiting in ordinary code: in a hub on the test's own thread, and outside of one.

The hub's loop runs when the test says so, and its time passes when the test says so; so each order
of result, timeout and cancellation is the test's choice.
"""

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import greenlet
import pytest

from bide import in_thread, iterate, using, wait, wait_all
from bide.errors import Cancelled, ClientDisconnected, ServerStopping, WaitError
from bide.waiting import parking, waiter
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from bide.waiting.waiter import (
    Waiter,
    background_loop,
    current_waiter,
    waiter_here,
)
from tests.fakes import Bare, HandClock, Lane, ManualLoop
from tests.forms import needs_steps

TIMEOUT = 20.0
GONE = ClientDisconnected("the client has left")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """Return the clock by which a cancelled request has its last seconds."""
    clock = HandClock()
    monkeypatch.setattr(waiter, "monotonic", clock)
    return clock


async def value_of(value: Any) -> Any:
    """Return a value after a turn of the loop."""
    await asyncio.sleep(0)
    return value


async def never() -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


class Waitable:
    """An object with ``__await__`` and nothing else."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "waited"


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Call a function in another thread, to its end."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result(TIMEOUT)


# In a conversation: results ------------------------------------------------------------------


def test_a_wait_parks_the_conversation_and_not_the_thread(lane: Lane) -> None:
    """It goes on at that line, with the result."""
    signal = Signal()
    run = lane.begin(lambda: ("got", wait(signal)))
    assert not run.ended
    assert lane.hub.parked == 1
    signal.fire("value")
    assert not run.ended, "it is resumed by its own thread"
    lane.go_on()
    assert run.value == ("got", "value")


def test_a_promise_that_fired_before_the_wait_does_not_park(lane: Lane) -> None:
    """Nothing is queued for the thread."""
    signal = Signal()
    signal.fire("value")
    assert lane.begin(lambda: wait(signal)).value == "value"
    assert lane.woken == []


def test_a_promise_that_fires_inside_the_subscription_does_not_park(lane: Lane) -> None:
    """The outcome is there when the conversation would park."""

    class Eager(Bare):
        """Calls back at once."""

        def addCallback(self, callback: Callable[[Any], Any]) -> None:
            callback("value")

    assert lane.begin(lambda: wait(Eager())).value == "value"
    assert lane.woken == []


def test_a_thousand_fired_promises_in_a_row_need_no_more_stack(lane: Lane) -> None:
    """Nor does one that fires inside the subscription."""

    class Eager(Bare):
        """Calls back at once, and says how deep the stack is."""

        def addCallback(self, callback: Callable[[Any], Any]) -> None:
            callback(depth())

    def depth() -> int:
        import sys

        frame, count = sys._getframe(), 0
        while frame.f_back is not None:
            frame, count = frame.f_back, count + 1
        return count

    assert len({lane.begin(lambda: wait(Eager())).value for _ in range(3)}) == 1
    run = lane.begin(lambda: {wait(Eager()) for _ in range(1000)})
    assert len(run.value) == 1


def test_an_error_is_raised_at_the_line_that_waits(lane: Lane) -> None:
    """The promise's own."""
    signal = Signal()
    error = ValueError("no")

    def view() -> ValueError | None:
        try:
            wait(signal)
        except ValueError as caught:
            return caught
        return None

    run = lane.begin(view)
    signal.fire(error=error)
    lane.go_on()
    assert run.value is error


def test_a_promise_that_fires_after_the_end_of_its_request_is_ignored(lane: Lane) -> None:
    """Nobody is woken."""
    bare = Bare()
    run = lane.begin(lambda: wait(bare))
    bare.fire("value")
    lane.go_on()
    bare.fire("again")
    assert run.value == "value"
    assert lane.woken == []


def test_a_promise_fired_in_another_thread_resumes_on_its_own(lane: Lane) -> None:
    """The thread that fires only tells."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    run = lane.begin(lambda: (wait(future), threading.get_ident()))
    in_a_thread(lambda: future.set_result("value"))
    lane.go_on()
    assert run.value == ("value", threading.get_ident())


def test_context_variables_are_the_same_before_and_after_a_wait(lane: Lane) -> None:
    """Other conversations of the thread have their own."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    def view(mine: str, signal: Signal) -> str:
        name.set(mine)
        wait(signal)
        return name.get()

    first, second = Signal(), Signal()
    one = lane.begin(lambda: view("one", first))
    two = lane.begin(lambda: view("two", second))
    second.fire()
    first.fire()
    lane.settle()
    assert (one.value, two.value) == ("one", "two")
    assert name.get(None) is None


def test_a_coroutine_runs_on_the_loop_with_the_requests_context(lane: Lane) -> None:
    """A copy of it."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def look() -> str:
        await asyncio.sleep(0)
        return name.get()

    def view() -> str:
        name.set("the request's")
        seen: str = wait(look())
        return seen

    run = lane.begin(view)
    lane.settle()
    assert run.value == "the request's"


def test_a_conversation_on_the_loop_waits_there(lane: Lane) -> None:
    """The loop goes on, and resumes it."""
    runs = []
    lane.loop.call_soon(lambda: runs.append(lane.begin(lambda: wait(value_of("value")))))
    lane.loop.turn()
    assert lane.hub.parked == 1
    lane.settle()
    assert runs[0].value == "value"


def test_below_a_foreign_loop_a_wait_blocks_the_thread(lane: Lane) -> None:
    """Were it to park, the thread's next conversation would find that loop running."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    entered = threading.Event()

    async def foreign() -> str:
        entered.set()
        result: str = wait(future)
        return result

    def fire() -> None:
        assert entered.wait(TIMEOUT)
        future.set_result("value")

    thread = threading.Thread(target=fire)
    thread.start()
    run = lane.begin(lambda: asyncio.run(foreign()))
    assert run.value == "value", "it has ended without being resumed"
    assert lane.woken == []
    thread.join()


def test_a_wait_below_a_librarys_own_greenlet_parks_the_conversation(lane: Lane) -> None:
    """As under SQLAlchemy's bridge; the library's greenlet goes on after it."""
    signal = Signal()

    def view() -> Any:
        inner = greenlet.greenlet(lambda: ("inner", wait(signal)))
        return inner.switch()

    run = lane.begin(view)
    assert lane.hub.parked == 1
    signal.fire("value")
    lane.go_on()
    assert run.value == ("inner", "value")


def test_current_waiter_is_the_conversations(lane: Lane) -> None:
    """And none outside."""
    run = lane.begin(current_waiter)
    assert run.value is run.waiter
    assert current_waiter() is None


# Timeouts ------------------------------------------------------------------------------------


def test_a_wait_that_takes_too_long_raises_and_cancels(lane: Lane) -> None:
    """TimeoutError, the built-in one."""
    future = lane.loop.create_future()
    run = lane.begin(lambda: wait(future, 5))
    lane.settle()
    lane.loop.advance(4.9)
    assert lane.woken == []
    lane.loop.advance(0.2)
    lane.settle()
    assert type(run.error) is TimeoutError
    assert str(run.error) == "no result within 5 s"
    assert future.cancelled()


@pytest.mark.parametrize("first", ["result", "timeout"])
def test_the_first_of_result_and_timeout_counts(lane: Lane, first: str) -> None:
    """Before the conversation is resumed the other one comes, and is ignored."""
    signal = Signal()
    run = lane.begin(lambda: wait(signal, 5))
    lane.settle()
    if first == "result":
        signal.fire("value")
        lane.loop.advance(5)
    else:
        lane.loop.advance(5)
        signal.fire("value")
    assert len(lane.woken) == 1
    lane.settle()
    if first == "result":
        assert run.value == "value"
    else:
        assert isinstance(run.error, TimeoutError)


def test_a_timeout_of_nothing_takes_what_is_there(lane: Lane) -> None:
    """And waits for nothing else."""
    signal = Signal()
    signal.fire("value")
    assert lane.begin(lambda: wait(signal, 0)).value == "value"
    late = lane.begin(lambda: wait(Signal(), 0))
    lane.loop.advance(0)
    lane.settle()
    assert isinstance(late.error, TimeoutError)


@pytest.mark.parametrize("timeout", [-1, float("nan"), -0.001])
def test_a_timeout_that_is_none_is_refused(lane: Lane, timeout: float) -> None:
    """The coroutine is closed, not forgotten, and so is what would have awaited the awaitable."""
    run = lane.begin(lambda: wait(value_of(1), timeout))
    assert isinstance(run.error, ValueError)
    assert "a timeout is a number of seconds, 0 or more" in str(run.error)
    assert isinstance(lane.begin(lambda: wait(Waitable(), timeout)).error, ValueError)
    gc.collect()


@pytest.mark.parametrize("timeout", [0, 0.0, False, Fraction(0), Decimal(0)])
def test_a_timeout_is_a_number_of_any_kind(lane: Lane, timeout: Any) -> None:
    """Whatever compares with zero, and makes a float."""
    late = lane.begin(lambda: wait(Signal(), timeout))
    lane.loop.advance(0)
    lane.settle()
    assert isinstance(late.error, TimeoutError)


def test_a_timeout_that_is_no_number_is_refused(lane: Lane) -> None:
    """By the comparison's own TypeError."""
    timeout: Any = "5"
    assert isinstance(lane.begin(lambda: wait(value_of(1), timeout)).error, TypeError)
    gc.collect()


def test_what_is_no_promise_is_refused(lane: Lane) -> None:
    """At the line that waits."""
    run = lane.begin(lambda: wait("text"))  # type: ignore[call-overload]
    assert isinstance(run.error, TypeError)
    assert str(run.error).startswith("str is not a promise: wait for an awaitable")


# Cancellation --------------------------------------------------------------------------------


def test_cancelling_ends_the_wait_in_progress(lane: Lane) -> None:
    """By raising at its line; the promise is cancelled."""
    future = lane.loop.create_future()
    run = lane.begin(lambda: wait(future))
    run.waiter.cancel(GONE)
    assert run.waiter.cancelled
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert str(run.error) == "the client has left"
    assert run.error is not GONE, "each one has a traceback of its own"
    assert future.cancelled()


def test_cancelling_running_code_ends_its_next_wait(lane: Lane) -> None:
    """Code that runs is not interrupted; the promise is cancelled as if it had been waited for."""
    future = lane.loop.create_future()
    done = []

    def view() -> None:
        waiter = current_waiter()
        assert waiter is not None
        waiter.cancel(GONE)
        done.append(True)
        wait(future)

    run = lane.begin(view)
    assert done == [True]
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert future.cancelled()


def test_a_coroutine_that_a_cancelled_request_waits_for_never_begins(lane: Lane) -> None:
    """And is closed; so is what would have awaited an awaitable."""
    began = []

    async def begin() -> None:
        began.append(True)

    def view() -> None:
        cancel_here()
        wait(begin())

    def other() -> None:
        cancel_here()
        wait(Waitable())

    for each in (view, other):
        assert type(lane.begin(each).error) is ClientDisconnected
    lane.settle()
    gc.collect()
    assert began == []


def cancel_here() -> None:
    """Cancel the conversation that this is called in."""
    waiter = current_waiter()
    assert waiter is not None
    waiter.cancel(GONE)


@needs_steps
def test_cancelling_between_the_publication_and_the_look_counts_once(lane: Lane) -> None:
    """The wait is published, then looks for a cancellation; cancelled in between it raises."""

    class Racing(Waiter):
        """Is cancelled between the two."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "current" and value is not None:
                self.cancel(GONE)

    raised = []
    signal = Signal()

    def view() -> None:
        waiter = Racing(lane.loop, lane.hub)
        for _ in range(2):  # the second one is cleaning up, and may wait
            try:
                waiter.wait(signal, 3)
            except BaseException as error:
                raised.append(type(error))

    lane.begin(view)
    lane.settle()
    assert raised == [ClientDisconnected]
    signal.fire()
    lane.settle()
    assert raised == [ClientDisconnected]


@pytest.mark.parametrize("first", ["result", "cancellation"])
def test_the_first_of_result_and_cancellation_counts(lane: Lane, first: str) -> None:
    """A result that is there when it is carried out is returned; the next wait raises."""
    signal = Signal()
    after = Signal()
    seen = []

    def view() -> None:
        seen.append(wait(signal))
        wait(after)

    run = lane.begin(view)
    if first == "result":
        signal.fire("value")
        run.waiter.cancel(GONE)
    else:
        run.waiter.cancel(GONE)
        signal.fire("value")
    lane.settle()
    assert seen == ["value"]
    assert type(run.error) is ClientDisconnected


@pytest.mark.parametrize("first", ["timeout", "cancellation"])
def test_the_first_of_timeout_and_cancellation_counts(lane: Lane, first: str) -> None:
    """Each has its own exception."""
    run = lane.begin(lambda: wait(Signal(), 5))
    lane.settle()
    if first == "timeout":
        lane.loop.advance(5)
        run.waiter.cancel(GONE)
    else:
        run.waiter.cancel(GONE)
        lane.loop.advance(5)
    lane.settle()
    assert type(run.error) is (TimeoutError if first == "timeout" else ClientDisconnected)


def test_the_first_cancellation_counts(lane: Lane) -> None:
    """A client that leaves while the server stops changes nothing."""
    run = lane.begin(lambda: wait(Signal()))
    run.waiter.cancel(ServerStopping("the server stops"))
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ServerStopping


def test_a_cancellation_is_no_exception_for_applications() -> None:
    """``except Exception`` must not swallow it."""
    assert not issubclass(Cancelled, Exception)


def test_a_cancelled_request_may_wait_to_clean_up(lane: Lane, clock: HandClock) -> None:
    """In ``finally:``, for a result that comes in time."""
    cleaning = Signal()
    cleaned = []

    def view() -> None:
        try:
            wait(Signal())
        finally:
            cleaned.append(wait(cleaning))

    run = lane.begin(view)
    run.waiter.cancel(GONE)
    lane.settle()
    assert not run.ended
    cleaning.fire("clean")
    lane.settle()
    assert cleaned == ["clean"]
    assert type(run.error) is ClientDisconnected


def test_cleaning_up_is_bounded_for_all_waits_together(lane: Lane, clock: HandClock) -> None:
    """After that each wait raises the cancellation again."""
    raised = []

    def view() -> None:
        for _ in range(4):
            try:
                wait(Signal())
            except ClientDisconnected as error:
                raised.append(str(error))

    run = lane.begin(view)
    run.waiter.cancel(GONE)
    lane.settle()
    assert len(raised) == 1
    lane.loop.advance(cleanup_time.seconds - 0.5)
    lane.settle()
    assert len(raised) == 1
    clock.now += cleanup_time.seconds
    lane.loop.advance(1)
    lane.go_on()
    for _ in range(2):
        assert not run.ended, "others have a turn first: code that swallows it must not spin"
        lane.settle()
        lane.loop.advance(waiter.TURN)
        lane.settle()
    assert len(raised) == 4, "the time is over: the other two do not wait for their promises"
    assert run.ended


def test_the_seconds_to_clean_up_begin_when_the_cancellation_is_raised(
    lane: Lane, clock: HandClock
) -> None:
    """Not when it is made: the code may run for a while before it learns of it."""
    cleaning = Signal()

    def view() -> Any:
        cancel_here()
        clock.now += cleanup_time.seconds * 2
        try:
            wait(Signal())
        except ClientDisconnected:
            return wait(cleaning)

    run = lane.begin(view)
    cleaning.fire("clean")
    lane.settle()
    assert run.value == "clean"


def test_a_timeout_while_cleaning_up_is_a_timeout(lane: Lane, clock: HandClock) -> None:
    """Where it is the shorter one."""

    def view() -> str:
        try:
            wait(Signal())
        except ClientDisconnected:
            try:
                wait(Signal(), 1)
            except TimeoutError:
                return "timeout"
        return "none"

    run = lane.begin(view)
    run.waiter.cancel(GONE)
    lane.settle()
    lane.loop.advance(1)
    lane.settle()
    assert run.value == "timeout"


def test_a_wait_for_the_connection_is_ended_by_the_connection_only(lane: Lane) -> None:
    """A client that has sent everything may still read."""
    signal = Signal()

    def view() -> Any:
        waiter = current_waiter()
        assert waiter is not None
        return waiter.wait_io(signal)

    run = lane.begin(view)
    run.waiter.cancel(GONE)
    lane.settle()
    assert not run.ended
    signal.fire(error=ClientDisconnected("closed"))
    lane.settle()
    assert str(run.error) == "closed"


# Ended from outside, and leaks -----------------------------------------------------------------


def test_a_conversation_that_is_ended_while_parked_cancels_its_promise(lane: Lane) -> None:
    """And is not resumed by what comes later, when its greenlet may run another one."""
    parked = []
    future = lane.loop.create_future()

    def view() -> None:
        parked.append(greenlet.getcurrent())
        wait(future, 60)

    run = lane.begin(view)
    lane.hub.main = greenlet.getcurrent()
    parked[0].throw(greenlet.GreenletExit)
    assert isinstance(run.error, greenlet.GreenletExit)
    other = lane.begin(lambda: wait(Signal(), 60))  # in the same greenlet, from the pool
    lane.loop.settle()
    assert future.cancelled()
    for each in lane.woken:
        lane.hub.resume(each)
    assert not other.ended
    other.waiter.cancel(GONE)
    lane.woken.clear()
    lane.hub.resume(other.waiter.current)  # type: ignore[arg-type]
    assert other.ended


def test_an_error_and_its_request_are_gone_without_the_collector(lane: Lane) -> None:
    """No cycle holds what a wait's error was raised through: environ, session, rows."""

    class Big:
        """What a request holds."""

    kept: list[weakref.ref[Big]] = []

    def failing(promise: Callable[[], Any]) -> Callable[[], str]:
        def view() -> str:
            big = Big()
            kept.append(weakref.ref(big))
            try:
                wait(promise())
            except ValueError:
                return "handled"
            return "no error"

        return view

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    def failed() -> concurrent.futures.Future[None]:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_exception(ValueError("no"))
        return future

    def several() -> str:
        big = Big()
        kept.append(weakref.ref(big))
        try:
            wait_all(fail(), value_of(1))
        except ValueError:
            return "handled"
        return "no error"

    def iterating() -> str:
        big = Big()
        kept.append(weakref.ref(big))
        try:
            list(iterate(failing_numbers()))
        except ValueError:
            return "handled"
        return "no error"

    async def failing_numbers() -> AsyncIterator[int]:
        yield 1
        raise ValueError("no")

    gc.collect()
    gc.disable()
    try:
        for view in (failing(fail), failing(failed), several, iterating):
            run = lane.begin(view)
            lane.settle()
            assert run.value == "handled"
            del run
        assert [each() for each in kept] == [None] * 4
    finally:
        gc.enable()


# Several -------------------------------------------------------------------------------------


def test_wait_all_gives_the_results_in_order(lane: Lane) -> None:
    """Started together, of any kind."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    bare = Bare()
    run = lane.begin(lambda: wait_all(value_of("one"), bare, future))
    lane.settle()
    future.set_result("three")
    bare.fire("two")
    lane.settle()
    assert run.value == ["one", "two", "three"]


def test_wait_all_of_nothing_is_nothing(lane: Lane) -> None:
    """Without waiting."""
    assert lane.begin(wait_all).value == []


def test_wait_all_raises_the_first_error_and_cancels_the_rest(lane: Lane) -> None:
    """Without waiting for them."""
    slow = lane.loop.create_future()
    failing: Any = Signal()
    run = lane.begin(lambda: wait_all(slow, failing))
    failing.fire(error=ValueError("no"))
    lane.settle()
    assert isinstance(run.error, ValueError)
    assert slow.cancelled()


def test_wait_all_has_one_timeout_for_all(lane: Lane) -> None:
    """All of them are cancelled by it, also those that are done."""
    slow = lane.loop.create_future()
    run = lane.begin(lambda: wait_all(value_of(1), slow, timeout=5))
    lane.settle()
    lane.loop.advance(5)
    lane.settle()
    assert isinstance(run.error, TimeoutError)
    assert slow.cancelled()


def test_wait_all_refuses_what_is_no_promise_before_it_starts_any(lane: Lane) -> None:
    """Coroutines among them are closed."""
    began = []

    async def begin() -> None:
        began.append(True)

    run = lane.begin(lambda: wait_all(begin(), "text"))  # type: ignore[call-overload]
    assert isinstance(run.error, TypeError)
    lane.settle()
    gc.collect()
    assert began == []


# iterate -------------------------------------------------------------------------------------


async def numbers(count: int, notes: list[Any]) -> AsyncIterator[int]:
    """Count, and note in which task, and that it ended."""
    notes.append(asyncio.current_task())
    try:
        for number in range(count):
            await asyncio.sleep(0)
            yield number
    finally:
        notes.append(asyncio.current_task())
        notes.append("closed")


def test_iterate_gives_the_items(lane: Lane) -> None:
    """In one task, from the first to the end."""
    notes: list[Any] = []
    run = lane.begin(lambda: list(iterate(numbers(3, notes))))
    lane.settle()
    assert run.value == [0, 1, 2]
    assert notes[0] is notes[1]
    assert notes[2] == "closed"


def test_an_iteration_that_is_left_early_closes_the_iterable(lane: Lane) -> None:
    """There, in its task, without waiting for it."""
    notes: list[Any] = []

    def view() -> int:
        for number in iterate(numbers(3, notes)):
            return number
        return -1

    run = lane.begin(view)
    while not run.ended:
        lane.loop.turn()
        lane.go_on()
    assert "closed" not in notes, "nobody has waited for it"
    lane.settle()
    assert notes[0] is notes[1]
    assert notes[2] == "closed"


def test_an_iteration_whose_request_is_cancelled_closes_the_iterable(lane: Lane) -> None:
    """Where it waits."""
    notes: list[Any] = []

    async def stuck() -> AsyncIterator[int]:
        try:
            await never()
            yield 1
        finally:
            notes.append("closed")

    run = lane.begin(lambda: list(iterate(stuck())))
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert notes == ["closed"]


def test_an_iterations_timeout_is_for_each_item(lane: Lane) -> None:
    """The iterable is closed by it."""
    notes: list[Any] = []

    async def slowing() -> AsyncIterator[int]:
        try:
            for seconds in (3, 3, 9):
                await asyncio.sleep(seconds)
                yield seconds
        finally:
            notes.append("closed")

    items: list[int] = []

    def view() -> None:
        items.extend(iterate(slowing(), timeout=5))

    run = lane.begin(view)
    for _ in range(4):
        lane.settle()
        lane.loop.advance(3)
    lane.settle()
    assert items == [3, 3]
    assert isinstance(run.error, TimeoutError)
    assert notes == ["closed"]


def test_an_iterables_error_is_raised_at_the_loop(lane: Lane) -> None:
    """The items before it have been given."""

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise ValueError("no")

    items: list[int] = []

    def view() -> None:
        items.extend(iterate(failing()))

    run = lane.begin(view)
    lane.settle()
    assert items == [1]
    assert isinstance(run.error, ValueError)


def test_iterate_takes_an_iterator_without_aclose(lane: Lane) -> None:
    """``async for`` asks for no more."""

    class Countdown:
        """Counts down."""

        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    run = lane.begin(lambda: list(iterate(Countdown())))
    lane.settle()
    assert run.value == [2, 1, 0]
    left_early = lane.begin(lambda: next(iter(iterate(Countdown()))))
    lane.settle()
    assert left_early.value == 2


def test_iterate_refuses_what_is_no_async_iterable() -> None:
    """At the call, not at the first item."""
    thing: Any = [1, 2]
    with pytest.raises(TypeError, match="takes an async iterable, not list"):
        iterate(thing)


def test_an_iteration_that_never_begins_makes_no_task(lane: Lane) -> None:
    """And leaves nothing to close."""
    notes: list[Any] = []
    lane.begin(lambda: iterate(numbers(1, notes)))
    gc.collect()
    lane.settle()
    assert notes == []


def test_an_iteration_whose_task_is_cancelled_between_items_does_not_hang(lane: Lane) -> None:
    """By a timeout inside the iterable, around its yield: what ``async for`` would be given."""
    notes: list[Any] = []

    async def timed() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(5):
                for number in range(3):
                    yield number
        finally:
            notes.append("closed")

    pause = Signal()

    def view() -> None:
        for _ in iterate(timed()):
            wait(pause)

    run = lane.begin(view)
    lane.settle()
    lane.loop.advance(6)
    assert notes == ["closed"]
    pause.fire()
    lane.settle()
    assert isinstance(run.error, asyncio.CancelledError)


# using ---------------------------------------------------------------------------------------


@asynccontextmanager
async def resource(notes: list[Any]) -> AsyncIterator[str]:
    """Note what happens, and in which task."""
    await asyncio.sleep(0)
    notes.append(asyncio.current_task())
    try:
        yield "resource"
    except ValueError as error:
        notes.append(error)
        raise
    finally:
        await asyncio.sleep(0)
        notes.append(asyncio.current_task())


def test_using_enters_and_leaves_in_one_task(lane: Lane) -> None:
    """And gives what the manager gives."""
    notes: list[Any] = []

    def view() -> str:
        with using(resource(notes)) as value:
            wait(value_of(None))
            return value

    run = lane.begin(view)
    lane.settle()
    assert run.value == "resource"
    assert len(notes) == 2
    assert notes[0] is notes[1]


def test_using_gives_the_manager_the_blocks_error(lane: Lane) -> None:
    """Which is raised, unless the manager takes it."""
    notes: list[Any] = []
    error = ValueError("no")

    def view() -> None:
        with using(resource(notes)):
            raise error

    run = lane.begin(view)
    lane.settle()
    assert run.error is error
    assert notes[1] is error


def test_a_manager_may_take_the_blocks_error(lane: Lane) -> None:
    """By returning true."""

    class Taking:
        """Takes all errors."""

        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, kind: object, error: object, trace: object) -> bool:
            return True

    def view() -> str:
        with using(Taking()):
            raise ValueError("no")
        return "went on"  # type: ignore[unreachable]

    run = lane.begin(view)
    lane.settle()
    assert run.value == "went on"


def test_a_manager_that_cannot_be_entered_raises_at_the_with(lane: Lane) -> None:
    """It is not left."""

    class Broken:
        """Cannot be entered."""

        async def __aenter__(self) -> None:
            raise ValueError("no")

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError("it was never entered")

    def view() -> None:
        with using(Broken()):
            raise AssertionError

    run = lane.begin(view)
    lane.settle()
    assert isinstance(run.error, ValueError)


class Entering:
    """A manager that takes its time, and may resist its cancelling."""

    def __init__(self, resists: bool) -> None:
        self.resists = resists
        self.notes: list[str] = []

    async def __aenter__(self) -> str:
        try:
            await never()
        except asyncio.CancelledError:
            if not self.resists:
                raise
        self.notes.append("entered")
        return "value"

    async def __aexit__(self, *_: object) -> None:
        self.notes.append("left")


@pytest.mark.parametrize("resists", [False, True])
def test_a_manager_is_left_if_it_was_entered_after_the_request_gave_up(
    lane: Lane, resists: bool
) -> None:
    """Whoever gives up waiting cannot know."""
    manager = Entering(resists)

    def view() -> None:
        with using(manager):
            raise AssertionError

    run = lane.begin(view)
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert manager.notes == (["entered", "left"] if resists else [])


def test_a_cancelled_request_leaves_its_managers(lane: Lane, clock: HandClock) -> None:
    """The cancellation is the block's error."""
    notes: list[Any] = []

    def view() -> None:
        with using(resource(notes)):
            wait(Signal())

    run = lane.begin(view)
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert len(notes) == 2


def test_a_task_group_whose_task_fails_meanwhile_raises_at_its_end(lane: Lane) -> None:
    """It cancels the task that it was entered in, which is between two calls then."""
    pause = Signal()

    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("no")

    def view() -> None:
        with using(asyncio.TaskGroup()) as group:
            wait(started(group, fail))
            wait(pause)

    async def started(group: asyncio.TaskGroup, function: Callable[[], Any]) -> None:
        group.create_task(function())

    run = lane.begin(view)
    lane.settle()
    lane.loop.advance(2)
    pause.fire()
    lane.settle()
    assert isinstance(run.error, ExceptionGroup)
    assert [str(each) for each in run.error.exceptions] == ["no"]


def test_a_timeout_around_a_block_raises_at_its_end(lane: Lane) -> None:
    """Ordinary code cannot be interrupted; that it took too long is told all the same."""
    pause = Signal()

    @asynccontextmanager
    async def limited() -> AsyncIterator[None]:
        async with asyncio.timeout(5):
            yield

    def view() -> None:
        with using(limited()):
            wait(pause)

    run = lane.begin(view)
    lane.settle()
    lane.loop.advance(6)
    pause.fire()
    lane.settle()
    assert isinstance(run.error, TimeoutError)


def test_a_blocks_error_goes_before_a_cancelling_that_its_manager_took(lane: Lane) -> None:
    """The manager took its own cancelling, not that error."""

    class Scope:
        """Cancels its task, and takes that."""

        async def __aenter__(self) -> asyncio.Task[Any] | None:
            return asyncio.current_task()

        async def __aexit__(self, kind: object, error: object, trace: object) -> bool:
            return isinstance(error, asyncio.CancelledError)

    def view() -> None:
        with using(Scope()) as task:
            assert task is not None
            lane.loop.call_soon(task.cancel)
            wait(value_of(None))
            raise ValueError("the block's")

    run = lane.begin(view)
    lane.settle()
    assert str(run.error) == "the block's"


# Outside a conversation --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coroutine", "awaitable", "concurrent", "bare", "signal"])
def test_outside_a_request_a_wait_blocks_the_thread(kind: str) -> None:
    """The same code runs under every server, in a script and in a shell."""
    if kind == "coroutine":
        assert wait(value_of("waited")) == "waited"
    elif kind == "awaitable":
        assert wait(Waitable()) == "waited"
    elif kind == "concurrent":
        assert wait(in_thread(str, "waited")) == "waited"
    else:
        promise: Any = Bare() if kind == "bare" else Signal()
        threading.Timer(0.01, promise.fire, ["waited"]).start()
        assert wait(promise) == "waited"


def test_outside_a_request_awaitables_share_one_loop_in_one_thread() -> None:
    """What one of them made there, the next can use."""

    async def where() -> tuple[Any, int]:
        return asyncio.get_running_loop(), threading.get_ident()

    here = wait(where())
    assert here == wait(where())
    assert here == in_a_thread(lambda: wait(where()))
    assert here[1] != threading.get_ident()


def test_outside_a_request_a_wait_has_its_timeout() -> None:
    """The coroutine is cancelled."""
    cancelled = threading.Event()

    async def stay() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        wait(stay(), 0.01)
    assert cancelled.wait(TIMEOUT)


def test_outside_a_request_the_company_works_too() -> None:
    """``wait_all``, ``iterate`` and ``using``."""
    notes: list[Any] = []
    assert list(wait_all(value_of(1), in_thread(int, "2"))) == [1, 2]
    assert list(iterate(numbers(3, notes))) == [0, 1, 2]
    with using(resource(notes)) as value:
        assert value == "resource"


def test_on_a_thread_that_runs_a_loop_a_wait_is_an_error() -> None:
    """It would stop that loop; the message says what to do. The coroutine is closed."""

    async def main() -> None:
        with pytest.raises(WaitError, match=r"use `await` here, or wait in a thread"):
            wait(value_of(1))
        with pytest.raises(WaitError):
            wait_all(value_of(1), value_of(2))
        assert await asyncio.to_thread(lambda: wait(value_of("in a thread"))) == "in a thread"

    asyncio.run(main())
    gc.collect()


def test_waiter_here_gives_one_that_blocks_where_there_is_none() -> None:
    """A new one each time; it belongs to nobody."""
    assert waiter_here().parking is None
    assert waiter_here() is not waiter_here()


def test_a_waiting_thread_that_is_interrupted_cancels_its_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C in a script: nobody waits for it any more."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parking, "waiting_here", interrupted)  # right before it blocks
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    with pytest.raises(KeyboardInterrupt):
        wait(future)
    assert future.cancelled()


def test_a_promise_that_refuses_its_subscription_raises_at_the_wait() -> None:
    """Its own error."""

    class Broken(concurrent.futures.Future[Any]):
        """Refuses callbacks."""

        def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        wait(Broken())


def test_a_wait_on_a_loop_that_is_closed_raises(lane: Lane) -> None:
    """As at the end of a program."""
    closed = ManualLoop()
    closed.close()
    waiter = Waiter(closed)
    with pytest.raises(RuntimeError, match="closed"):
        waiter.wait(value_of(1))
    with pytest.raises(RuntimeError, match="closed"):
        waiter.wait(Signal(), 5)
    gc.collect()


def test_a_server_lends_its_loop_while_it_runs() -> None:
    """So that what requests and their threads share lives on one loop."""

    async def main() -> None:
        own = asyncio.get_running_loop()

        async def where() -> Any:
            return asyncio.get_running_loop()

        background_loop.lend(own)
        try:
            assert await asyncio.to_thread(lambda: wait(where())) is own
        finally:
            background_loop.take_back(own)
        assert await asyncio.to_thread(lambda: wait(where())) is not own

    asyncio.run(main())


def test_a_loop_that_was_lent_and_does_not_run_is_not_used() -> None:
    """Nothing would ever happen on it."""
    loop = ManualLoop()
    background_loop.lend(loop)
    try:
        assert wait(value_of("value")) == "value"
    finally:
        background_loop.take_back(loop)
        loop.close()


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    """It has the objects of its parent, and none of the threads."""
    wait(value_of(None))
    wait(in_thread(int))
    child = os.fork()
    if not child:
        code = 1
        try:
            if list(wait_all(value_of(1), in_thread(int, "2"), timeout=TIMEOUT)) == [1, 2]:
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# in_thread -----------------------------------------------------------------------------------


def test_in_thread_calls_in_another_thread_with_this_context() -> None:
    """A copy of it."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    def look(*args: int, **kwargs: int) -> tuple[Any, ...]:
        seen = name.get()
        name.set("changed")
        return seen, threading.get_ident() != here, args, kwargs

    here = threading.get_ident()
    name.set("mine")
    assert wait(in_thread(look, 1, function=2)) == ("mine", True, (1,), {"function": 2})
    assert name.get() == "mine"


def test_in_thread_gives_the_functions_error() -> None:
    """At the line that waits."""
    with pytest.raises(ValueError, match="invalid literal"):
        wait(in_thread(int, "no number"))
