"""An actor: one task on the loop that makes calls in turn for ordinary code."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.waiting.actor import Actor, Call, CallSubscription
from bide.waiting.adapters import adapter_for
from bide.waiting.outcome import Subscription
from tests.fakes import ManualLoop, Outcomes


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that runs when the test says so, and ends with no task left."""
    loop = ManualLoop()
    yield loop
    loop.settle()
    assert not asyncio.all_tasks(loop), "a task was never ended"
    loop.close()


def asked(call: Call, loop: ManualLoop) -> tuple[Subscription, Outcomes]:
    """Make a call."""
    outcomes = Outcomes()
    subscription = adapter_for(call)(call, outcomes)
    subscription.start(loop)
    return subscription, outcomes


def made(actor: Actor, loop: ManualLoop, function: Callable[..., Any], *args: Any) -> Any:
    """Make a call, to its end; return its result or raise its error."""
    _, outcomes = asked(actor.call(function, *args), loop)
    loop.settle()
    ((value, error),) = outcomes.told
    if error is not None:
        raise error
    return value


async def current_task() -> Any:
    """Return the task that this runs in."""
    return asyncio.current_task()


async def echo(*args: Any) -> Any:
    """Return what is given, after a turn of the loop."""
    await asyncio.sleep(0)
    return args


async def never() -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


def test_a_call_is_a_promise_of_the_result(loop: ManualLoop) -> None:
    """Made with its arguments."""
    actor = Actor()
    assert isinstance(adapter_for(actor.call(echo)), type)
    assert made(actor, loop, echo, 1, 2) == (1, 2)
    actor.leave(None)


def test_all_calls_are_made_in_one_task(loop: ManualLoop) -> None:
    """Which is why there is an actor."""
    actor = Actor()
    assert made(actor, loop, current_task) is made(actor, loop, current_task)
    actor.leave(None)


def test_calls_have_the_context_in_which_the_actor_was_made(loop: ManualLoop) -> None:
    """A copy of it, the same for all of them."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("the request's")
    actor = Actor()
    name.set("set later")

    async def change() -> str:
        seen = name.get()
        name.set("the task's")
        return seen

    assert made(actor, loop, change) == "the request's"
    assert made(actor, loop, change) == "the task's"
    assert name.get() == "set later"
    actor.leave(None)


def test_calls_that_queue_are_made_in_order(loop: ManualLoop) -> None:
    """One after another."""
    actor = Actor()
    order: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        order.append(number)

    for number in range(3):
        asked(actor.call(note, number), loop)
    actor.leave(None)
    loop.settle()
    assert order == [0, 1, 2]


def test_an_error_belongs_to_its_call(loop: ManualLoop) -> None:
    """The next call is made all the same."""

    async def fail() -> None:
        raise ValueError("no")

    actor = Actor()
    with pytest.raises(ValueError, match="no"):
        made(actor, loop, fail)
    assert made(actor, loop, echo, 1) == (1,)
    actor.leave(None)


def test_leaving_makes_one_last_call_in_the_task(loop: ManualLoop) -> None:
    """For an ``aclose``, which must run where the iteration did."""
    actor = Actor()
    task = made(actor, loop, current_task)
    last: list[Any] = []

    async def close() -> None:
        last.append(asyncio.current_task())

    actor.leave(close)
    loop.settle()
    assert last == [task]
    assert task.done()


def test_leaving_an_actor_that_was_never_asked_does_nothing() -> None:
    """There is no task."""
    called: list[Any] = []

    async def close() -> None:
        called.append(True)

    Actor().leave(close)
    assert called == []


def test_leaving_when_the_loop_is_closed_does_nothing() -> None:
    """Nothing can be called there."""
    loop = ManualLoop()
    actor = Actor()
    asked(actor.call(echo), loop)
    actor.leave(None)
    loop.settle()
    loop.close()
    actor.leave(None)


def test_cancelling_a_call_cancels_it_where_it_waits(loop: ManualLoop) -> None:
    """The actor lives on, for those that clean up, and is not cancelled itself."""
    actor = Actor()
    subscription, outcomes = asked(actor.call(never), loop)
    loop.settle()
    subscription.cancel()
    loop.settle()
    assert isinstance(outcomes.error, asyncio.CancelledError)
    task = made(actor, loop, current_task)
    assert task.cancelling() == 0
    actor.leave(None)


def test_a_call_that_resists_its_cancelling_goes_on(loop: ManualLoop) -> None:
    """What it returns then is its outcome; the next call is not cancelled."""
    actor = Actor()

    async def resist() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "resisted"

    subscription, outcomes = asked(actor.call(resist), loop)
    loop.settle()
    subscription.cancel()
    loop.settle()
    assert outcomes.value == "resisted"
    assert made(actor, loop, echo, 1) == (1,)
    actor.leave(None)


def test_a_call_that_is_cancelled_before_its_turn_is_never_made(loop: ManualLoop) -> None:
    """The one before it is not touched."""
    actor = Actor()
    hold = loop.create_future()

    async def held() -> Any:
        return await hold

    made_calls: list[Any] = []

    async def note() -> None:
        made_calls.append(True)

    _, first = asked(actor.call(held), loop)
    second, _ = asked(actor.call(note), loop)
    loop.settle()
    second.cancel()
    loop.settle()
    hold.set_result("value")
    loop.settle()
    assert first.value == "value"
    assert made_calls == []
    actor.leave(None)


def test_a_call_that_is_cancelled_as_its_result_comes_is_cancelled(loop: ManualLoop) -> None:
    """The result is there, and the task has not seen it yet; the actor lives on uncancelled."""
    actor = Actor()
    hold: asyncio.Future[str] = loop.create_future()

    async def held() -> str:
        return await hold

    subscription, outcomes = asked(actor.call(held), loop)
    loop.settle()
    loop.call_soon(subscription.cancel)
    hold.set_result("value")
    loop.settle()
    assert isinstance(outcomes.error, asyncio.CancelledError)
    assert made(actor, loop, echo, 1) == (1,)
    actor.leave(None)


def test_a_call_that_is_cancelled_after_its_result_has_that(loop: ManualLoop) -> None:
    """The cancelling comes too late, for this call and for the next."""
    actor = Actor()
    subscription, outcomes = asked(actor.call(echo, 1), loop)
    loop.settle()
    subscription.cancel()
    assert outcomes.value == (1,)
    assert made(actor, loop, echo, 2) == (2,)
    actor.leave(None)


def test_an_actor_stays_on_the_loop_of_its_first_call(loop: ManualLoop) -> None:
    """Where waits happen may change between two calls, as when a server starts or stops."""
    actor = Actor()
    made(actor, loop, echo)
    other = ManualLoop()
    _, outcomes = asked(actor.call(echo, 1), other)
    loop.settle()
    assert outcomes.value == (1,)
    other.close()
    actor.leave(None)


# Cancelled between two calls -------------------------------------------------------------------


def test_an_actor_cancelled_between_calls_answers_the_next_one(loop: ManualLoop) -> None:
    """Its task has ended, and whoever calls it must not wait for ever."""
    actor = Actor()
    task = made(actor, loop, current_task)
    task.cancel()
    loop.settle()
    assert task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        made(actor, loop, echo)
    actor.leave(never)


def test_a_call_that_came_with_the_cancelling_is_answered(loop: ManualLoop) -> None:
    """Queued already when the task learns that it is cancelled."""
    actor = Actor()
    task = made(actor, loop, current_task)
    _, outcomes = asked(actor.call(echo), loop)
    loop.call_soon(task.cancel)
    loop.settle()
    assert isinstance(outcomes.error, asyncio.CancelledError)


def test_an_abandoned_actor_closes_what_it_holds_in_its_task(loop: ManualLoop) -> None:
    """As a cancelled coroutine would leave its ``async with``."""
    closed: list[Any] = []

    async def abandoned(error: BaseException) -> bool:
        closed.append((asyncio.current_task(), type(error)))
        return False

    actor = Actor(abandoned)
    task = made(actor, loop, current_task)
    task.cancel()
    loop.settle()
    assert closed == [(task, asyncio.CancelledError)]
    assert task.cancelled()


def test_the_error_of_an_abandoned_actor_is_the_next_calls(loop: ManualLoop) -> None:
    """What closing raised takes the place of the cancelling."""

    async def abandoned(error: BaseException) -> bool:
        raise ValueError("closing failed")

    actor = Actor(abandoned)
    made(actor, loop, current_task).cancel()
    loop.settle()
    with pytest.raises(ValueError, match="closing failed"):
        made(actor, loop, echo)


def test_a_cancelling_that_was_taken_is_no_error(loop: ManualLoop) -> None:
    """A scope that cancelled for itself takes it, as ``__aexit__`` says by returning true."""

    async def abandoned(error: BaseException) -> bool:
        return True

    actor = Actor(abandoned)
    made(actor, loop, current_task).cancel()
    loop.settle()
    assert made(actor, loop, echo) is False


def test_a_loop_that_ends_ends_its_actors() -> None:
    """``asyncio.run`` cancels all tasks, and must not wait for one that swallows it."""
    actor = Actor()

    async def run() -> None:
        outcomes = Outcomes()
        CallSubscription(actor.call(echo), outcomes).start(asyncio.get_running_loop())
        while not outcomes.told:
            await asyncio.sleep(0)

    asyncio.run(run())


def test_an_error_of_a_call_keeps_nothing_alive(loop: ManualLoop) -> None:
    """What failed is not held by the error in a cycle."""

    async def fail() -> None:
        raise ValueError("no")

    actor = Actor()
    gc.collect()
    gc.disable()
    try:
        subscription, outcomes = asked(actor.call(fail), loop)
        loop.settle()
        assert isinstance(outcomes.error, ValueError)
        kept = weakref.ref(outcomes)
        del subscription, outcomes
        assert kept() is None
    finally:
        gc.enable()
    actor.leave(None)
