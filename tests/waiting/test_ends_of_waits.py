"""What a wait gives when it is ended: the outcome that its promise really had, in every order.

The hub's loop runs when the test says so, and so each race is forced in both orders.
"""

import asyncio
import concurrent.futures
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from twisted.internet import defer

from bide import iterate, using, wait, wait_all
from bide.errors import Cancelled, ClientDisconnected, RequestTimeout, ServerStopping
from bide.waiting import waiter
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from bide.waiting.waiter import current_waiter
from tests.fakes import Bare, Lane, Run

GONE = ClientDisconnected("the client has left")
KINDS = pytest.mark.parametrize("kind", [ClientDisconnected, RequestTimeout, ServerStopping])

pytestmark = pytest.mark.usefixtures("no_reactor")


def leave(kind: type[Cancelled] = ClientDisconnected) -> None:
    """Cancel the conversation that this is called in, while its code runs."""
    here = current_waiter()
    assert here is not None
    here.cancel(kind("now"), firm=kind is not ClientDisconnected)


async def after(turns: int, function: Callable[[], Any]) -> Any:
    """Call a function after some turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return function()


# A result that is there wins -----------------------------------------------------------------


@pytest.mark.parametrize("end", ["time-out", "cancellation"])
@pytest.mark.parametrize("first", ["item", "end"])
def test_no_item_of_a_queue_is_lost_between_the_end_of_a_wait_and_its_thread(
    lane: Lane, end: str, first: str
) -> None:
    """It is returned, or it is still in the queue; the thread goes on only after both."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    got: list[str] = []
    run = lane.begin(lambda: got.append(wait(queue.get(), 5)))
    lane.loop.settle()

    def put() -> None:
        queue.put_nowait("item")
        lane.loop.settle()

    def over() -> None:
        if end == "time-out":
            lane.loop.advance(5)
        else:
            run.waiter.cancel(GONE)
            lane.loop.settle()

    for each in (put, over) if first == "item" else (over, put):
        each()
    lane.settle()
    assert got + list(queue._queue) == ["item"]  # type: ignore[attr-defined]
    if first == "item" or end == "cancellation":
        assert got == ["item"], "it was there when the end was carried out"
    else:
        assert isinstance(run.error, TimeoutError)


@pytest.mark.parametrize("first", ["item", "end"])
def test_no_item_is_lost_when_the_time_is_over_while_the_cancelling_is_on_its_way(
    lane: Lane, first: str
) -> None:
    """The thread has seen the cancellation; the timer comes before what the thread has posted."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    got: list[str] = []
    run = lane.begin(lambda: got.append(wait(queue.get(), 5)))
    lane.loop.settle()
    run.waiter.cancel(GONE)
    lane.go_on()
    posted = lane.loop.hold()
    lane.loop.advance(5)
    for each in ("item", "end") if first == "item" else ("end", "item"):
        if each == "item":
            queue.put_nowait("item")
        else:
            posted()
        lane.loop.settle()
    lane.settle()
    assert got + list(queue._queue) == ["item"]  # type: ignore[attr-defined]
    if first == "item":
        assert got == ["item"], "it was there when the end was carried out"
    else:
        assert isinstance(run.error, ClientDisconnected)


@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_task_that_has_a_result_in_spite_of_being_cancelled_gives_it(
    lane: Lane, end: str
) -> None:
    """It had acquired what it was made for; the next wait raises."""
    seen: list[str] = []

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "acquired"

    def view() -> None:
        seen.append(wait(stubborn(), 5))
        wait(Signal(), 5)

    run = lane.begin(view)
    lane.settle()
    run.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
    lane.settle()
    assert seen == ["acquired"]
    lane.loop.advance(5)
    lane.settle()
    assert type(run.error) is (TimeoutError if end == "time-out" else ClientDisconnected)


@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_task_that_fails_as_it_is_cancelled_gives_its_own_error(lane: Lane, end: str) -> None:
    """It says what went wrong."""

    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("could not be ended")

    run = lane.begin(lambda: wait(failing(), 5))
    lane.settle()
    run.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
    lane.settle()
    assert isinstance(run.error, ValueError)


@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_task_that_never_ends_is_waited_for_no_longer_than_its_time(lane: Lane, end: str) -> None:
    """Half of the time to clean up; the other half is the application's."""
    release = asyncio.Event()

    async def never() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    run = lane.begin(lambda: wait(never(), 5))
    lane.settle()
    run.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
    lane.settle()
    assert not run.ended
    lane.loop.advance(cleanup_time.seconds / 2)
    lane.settle()
    assert type(run.error) is (TimeoutError if end == "time-out" else ClientDisconnected)
    release.set()


@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_deferred_that_fires_as_it_is_cancelled_gives_its_result(lane: Lane, end: str) -> None:
    """A canceller may call back."""
    run = lane.begin(lambda: wait(defer.Deferred(lambda each: each.callback("value")), 5))
    lane.settle()
    run.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
    lane.settle()
    assert run.value == "value"


@pytest.mark.parametrize(
    "make", [Signal, Bare, concurrent.futures.Future], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_promise_that_fires_before_it_is_asked_has_its_result(
    lane: Lane, make: Callable[[], Any], end: str
) -> None:
    """It is asked where it is cancelled: a concurrent one on the waiting thread."""
    promise = make()
    run = lane.begin(lambda: wait(promise, 5))
    lane.settle()
    run.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
    getattr(promise, "set_result" if hasattr(promise, "set_result") else "fire")("value")
    lane.settle()
    if make is Signal and end == "time-out":
        assert isinstance(run.error, TimeoutError), "a signal was asked on the loop"
    else:
        assert run.value == "value"


def test_a_call_in_a_thread_that_runs_is_given_up_and_keeps_its_result(lane: Lane) -> None:
    """It cannot be cancelled; whoever has the promise still has the result."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    run = lane.begin(lambda: wait(future, 5))
    lane.settle()
    lane.loop.advance(5)
    lane.settle()
    assert isinstance(run.error, TimeoutError)
    future.set_result("value")
    assert future.result() == "value"


def test_a_promise_that_is_done_gives_its_result_to_a_request_that_was_cancelled(
    lane: Lane,
) -> None:
    """The cancellation is told by the next wait."""
    done = lane.loop.create_future()
    done.set_result("value")
    seen: list[str] = []

    def view() -> None:
        leave()
        seen.append(wait(done))
        wait(Signal())

    assert type(lane.begin(view).error) is ClientDisconnected
    assert seen == ["value"]


def test_wait_all_gives_all_results_if_all_have_one_in_spite_of_the_time_out(lane: Lane) -> None:
    """Each member is asked."""

    async def stubborn(value: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return value

    run = lane.begin(lambda: wait_all(stubborn(1), stubborn(2), timeout=5))
    lane.settle()
    lane.loop.advance(5)
    lane.settle()
    assert run.value == [1, 2]


@KINDS
def test_an_item_that_came_as_the_request_was_cancelled_is_given_by_iterate(
    lane: Lane, kind: type[Cancelled]
) -> None:
    """And the iterable is closed."""
    items: list[int] = []
    closed: list[bool] = []
    ready = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            await ready.wait()
            yield 1
            yield 2
        finally:
            closed.append(True)

    def view() -> None:
        items.extend(iterate(numbers()))

    run = lane.begin(view)
    lane.settle()
    ready.set()
    lane.loop.settle()  # the item is there, and the thread has not gone on
    run.waiter.cancel(kind("now"), firm=True)
    lane.settle()
    assert items == [1]
    assert type(run.error) is kind
    assert closed == [True]


# A clean-up always runs ----------------------------------------------------------------------


@KINDS
def test_using_is_left_when_the_request_was_cancelled_while_its_code_ran(
    lane: Lane, kind: type[Cancelled]
) -> None:
    """The wait of leaving is the first after it: it leaves, and the next wait raises."""
    lock, other = asyncio.Lock(), asyncio.Lock()

    def view() -> None:
        with using(other), using(lock):
            leave(kind)
        wait(Signal())

    run = lane.begin(view)
    lane.settle()
    assert not lock.locked()
    assert not other.locked()
    assert type(run.error) is kind


@KINDS
@pytest.mark.parametrize("fails", [False, True])
def test_a_finally_that_waits_runs_to_its_end(
    lane: Lane, kind: type[Cancelled], fails: bool
) -> None:
    """On both of its ways; its coroutine is begun, and not interrupted."""
    released: list[bool] = []

    def view() -> None:
        try:
            leave(kind)
            if fails:
                raise ValueError
        finally:
            wait(after(3, lambda: released.append(True)))
        wait(Signal())

    run = lane.begin(view)
    lane.settle()
    assert released == [True]
    assert type(run.error) is (ValueError if fails else kind)


@KINDS
def test_a_finally_that_already_waits_is_not_interrupted(lane: Lane, kind: type[Cancelled]) -> None:
    """The cancellation comes in the midst of it, and is raised by the next wait."""
    gate = asyncio.Event()
    released: list[bool] = []

    async def release() -> None:
        await gate.wait()
        released.append(True)

    def view() -> None:
        try:
            pass
        finally:
            wait(release())
        wait(Signal())

    run = lane.begin(view)
    lane.settle()
    run.waiter.cancel(kind("now"), firm=True)
    lane.settle()
    assert not run.ended
    gate.set()
    lane.settle()
    assert released == [True]
    assert type(run.error) is kind


def test_a_clean_up_that_already_waits_is_bounded(lane: Lane) -> None:
    """By the time to clean up, from the cancellation on."""

    def view() -> None:
        try:
            pass
        finally:
            wait(asyncio.Event().wait())

    run = lane.begin(view)
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    lane.loop.advance(cleanup_time.seconds + 0.1)
    lane.settle()
    assert type(run.error) is ClientDisconnected


def test_a_generator_that_is_closed_cleans_up(lane: Lane) -> None:
    """Its ``finally:`` is on the way of GeneratorExit."""
    released: list[bool] = []

    def blocks() -> Iterator[int]:
        try:
            yield 1
        finally:
            wait(after(2, lambda: released.append(True)))

    def view() -> None:
        iterator = blocks()
        next(iterator)
        leave()
        iterator.close()  # type: ignore[attr-defined]

    assert lane.begin(view).raised is None or released
    lane.settle()
    assert released == [True]


def test_a_manager_is_left_on_the_loop_when_no_time_is_left(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for it is refused, and it is done all the same."""
    lock = asyncio.Lock()

    def view() -> None:
        with using(lock):
            monkeypatch.setattr(cleanup_time, "seconds", 0.0)
            leave()

    run = lane.begin(view)
    lane.settle()
    lane.loop.advance(waiter.TURN)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert not lock.locked()


def test_what_is_no_clean_up_is_not_begun(lane: Lane) -> None:
    """After the ``finally:``, and in the body of a ``with``: there the cancellation is told."""
    begun: list[bool] = []

    class Plain:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            wait(after(1, lambda: begun.append(False)))

    def view() -> None:
        try:
            leave()
        finally:
            pass
        with Plain():
            wait(after(0, lambda: begun.append(True)))

    run = lane.begin(view)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert begun == [False], "only leaving is a clean-up"


@pytest.mark.parametrize("resists", [False, True])
def test_what_was_entered_as_the_request_was_cancelled_is_left(lane: Lane, resists: bool) -> None:
    """Entered and left, or never acquired: the block is not run."""
    lock = asyncio.Lock()
    ran: list[bool] = []

    class Slow:
        async def __aenter__(self) -> None:
            await lock.acquire()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not resists:
                    lock.release()
                    raise

        async def __aexit__(self, *_: object) -> None:
            lock.release()

    def view() -> None:
        with using(Slow()):
            ran.append(True)

    run = lane.begin(view)
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert not ran
    assert not lock.locked()


# Promises that misbehave ---------------------------------------------------------------------


def test_a_wait_inside_a_subscription_leaves_the_outer_one_to_be_cancelled(lane: Lane) -> None:
    """``add_done_callback`` is the application's code, and may wait."""
    inner = Signal()

    class Nested(concurrent.futures.Future[Any]):
        def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
            wait(inner)

    run = lane.begin(lambda: wait(Nested()))
    inner.fire()
    lane.settle()
    assert not run.ended
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected


def test_a_cancellation_inside_a_subscription_ends_the_outer_wait(lane: Lane) -> None:
    """It came while the inner one waited, which told it, and the code took it."""

    class Nested(concurrent.futures.Future[Any]):
        def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
            try:
                wait(Signal())
            except ClientDisconnected:
                pass

    run = lane.begin(lambda: wait(Nested()))
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected


def test_a_task_factory_that_fails_raises_at_the_wait(lane: Lane) -> None:
    """The request does not hang, and the coroutine is closed."""

    def factory(*_: Any, **__: Any) -> Any:
        raise OSError("no more tasks")

    lane.loop.set_task_factory(factory)
    alone = lane.begin(lambda: wait(after(0, int)))
    pending: Any = Signal()
    together = lane.begin(lambda: wait_all(after(0, int), pending))
    entering = lane.begin(lambda: using(asyncio.Lock()).__enter__())
    lane.settle()
    for run in (alone, together, entering):
        assert isinstance(run.error, OSError)
    lane.loop.set_task_factory(None)


def test_a_task_factory_is_not_called_inside_of_a_conversation(lane: Lane) -> None:
    """One that is eager takes the first step: a wait in it would park within the task."""
    waiters: list[Any] = []

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        waiters.append(current_waiter())
        return asyncio.Task(coro, loop=loop, **options)

    lane.loop.set_task_factory(factory)
    runs: list[Run] = []
    lane.loop.call_soon(lambda: runs.append(lane.begin(lambda: wait(after(0, lambda: "value")))))
    lane.settle()
    assert runs[0].value == "value"
    assert waiters == [None]
    lane.loop.set_task_factory(None)


class Breaking(concurrent.futures.Future[Any]):
    """A promise whose cancel raises."""

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Never call back."""

    def cancel(self) -> bool:
        """Fail."""
        raise OSError("cannot be cancelled")


@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_promise_whose_cancel_raises_ends_its_wait_all_the_same(
    lane: Lane, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other members are cancelled, and the log tells of it."""
    before, behind = lane.loop.create_future(), lane.loop.create_future()
    run = lane.begin(lambda: wait_all(before, Breaking(), behind, timeout=5))
    lane.settle()
    with caplog.at_level(logging.ERROR, "bide"):
        run.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
        lane.settle()
    assert type(run.error) is (TimeoutError if end == "time-out" else ClientDisconnected)
    assert before.cancelled()
    assert behind.cancelled()
    assert "a promise failed when it was cancelled" in caplog.text


def test_a_future_whose_cancel_raises_ends_its_wait_all_the_same(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    """On its loop, where nobody would see the error."""

    class Breaks(asyncio.Future[Any]):
        def cancel(self, msg: Any = None) -> bool:
            raise OSError("cannot be cancelled")

    run = lane.begin(lambda: wait(Breaks(loop=lane.loop), 5))
    lane.settle()
    with caplog.at_level(logging.ERROR, "bide"):
        lane.loop.advance(5)
        lane.settle()
    assert isinstance(run.error, TimeoutError)
    assert "a promise failed when it was cancelled" in caplog.text


# What others share ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["task", "future", "concurrent", "deferred"])
@pytest.mark.parametrize("end", ["time-out", "cancellation"])
def test_a_promise_that_others_wait_for_goes_on(lane: Lane, make: str, end: str) -> None:
    """One leaves, the other gets the result."""
    source: Any = lane.loop.create_future()
    fire: Callable[[Any], object] = source.set_result
    promise: Any = source
    if make == "task":
        promise = lane.loop.create_task(_result_of(source))
    elif make == "concurrent":
        promise = concurrent.futures.Future()
        fire = promise.set_result
    elif make == "deferred":
        promise = defer.Deferred()
        fire = promise.callback
    leaving = lane.begin(lambda: wait(promise, 5 if end == "time-out" else None))
    staying = lane.begin(lambda: wait(promise))
    lane.settle()
    leaving.waiter.cancel(GONE) if end == "cancellation" else lane.loop.advance(5)
    lane.settle()
    assert leaving.ended
    assert not staying.ended
    fire("value")
    lane.settle()
    assert staying.value == "value"


async def _result_of(future: asyncio.Future[Any]) -> Any:
    return await future


@pytest.mark.parametrize("other", ["await", "gather", "shield", "wait"])
def test_a_task_that_a_coroutine_awaits_goes_on(lane: Lane, other: str) -> None:
    """Also below gather, shield or wait of asyncio's."""
    source = lane.loop.create_future()
    task = lane.loop.create_task(_result_of(source))

    async def awaiting() -> Any:
        if other == "await":
            return await task
        if other == "gather":
            return (await asyncio.gather(task))[0]
        if other == "shield":
            return await asyncio.shield(task)
        await asyncio.wait([task])
        return task.result()

    staying = lane.begin(lambda: wait(awaiting()))
    lane.settle()
    leaving = lane.begin(lambda: wait(task))
    lane.settle()
    leaving.waiter.cancel(GONE)
    lane.settle()
    source.set_result("value")
    lane.settle()
    assert type(leaving.error) is ClientDisconnected
    assert staying.value == "value"


def test_the_last_one_that_waits_for_a_task_cancels_it(lane: Lane) -> None:
    """Bookkeeping, such as a set's ``discard``, does not wait."""
    task = lane.loop.create_task(asyncio.Event().wait())
    kept = {task}
    task.add_done_callback(kept.discard)
    runs = [lane.begin(lambda: wait(task)) for _ in range(2)]
    lane.settle()
    for run in runs:
        assert not task.done()
        run.waiter.cancel(GONE)
        lane.settle()
    assert task.cancelled()
    assert not kept


def test_a_coroutine_is_its_waits_own(lane: Lane) -> None:
    """Whatever it awaits, it is cancelled itself; what is shielded in it goes on."""
    source = lane.loop.create_future()
    task = lane.loop.create_task(_result_of(source))

    async def shielded() -> Any:
        return await asyncio.shield(task)

    run = lane.begin(lambda: wait(shielded()))
    lane.settle()
    run.waiter.cancel(GONE)
    lane.settle()
    assert type(run.error) is ClientDisconnected
    assert not task.done()
    source.set_result("value")
    lane.settle()
    assert task.result() == "value"
