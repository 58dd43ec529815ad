"""What a promise is: the outcome of a wait, signals, and one adapter for each kind.

Races are forced by calling their halves in each order.
"""

import asyncio
import concurrent.futures
import contextvars
import gc
import inspect
import threading
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from twisted.internet import defer
from twisted.python.failure import Failure

from bide.waiting.adapters import (
    All,
    AllSubscription,
    SignalSubscription,
    TaskSubscription,
    adapter_for,
    discard,
    kind_of,
)
from bide.waiting.foreign import DeferredSubscription
from bide.waiting.futures import CallbackSubscription, FutureSubscription
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal, Subscription, Wait, settle_from
from tests.fakes import Bare, ManualLoop, Outcomes, Wakes
from tests.forms import needs_steps

TIMEOUT = 20.0

pytestmark = pytest.mark.usefixtures("no_reactor")


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that runs when the test says so."""
    loop = ManualLoop()
    yield loop
    loop.settle()
    loop.close()


def in_a_thread(function: Callable[[], object]) -> None:
    """Call a function in another thread, to its end."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def is_closed(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Return whether a coroutine has ended, or never will begin."""
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


# Wait ----------------------------------------------------------------------------------------


def test_a_wait_takes_the_first_outcome() -> None:
    """Later ones are ignored, whatever they are."""
    wait = Wait(Wakes())
    assert wait.settle("first")
    assert not wait.settle("second")
    assert not wait.settle(error=ValueError())
    assert not wait.settle(reason="timeout")
    assert (wait.value, wait.error, wait.reason) == ("first", None, "result")


def test_a_wait_settled_before_it_parks_wakes_nobody() -> None:
    """The waiting thread finds the outcome, and nothing is queued for it."""
    wakes = Wakes()
    wait = Wait(wakes)
    wait.settle("value")
    assert not wait.must_park()
    assert wakes.woken == []


def test_a_wait_settled_after_it_parks_wakes_once() -> None:
    """The waiting thread will be parked, or is already."""
    wakes = Wakes()
    wait = Wait(wakes)
    assert wait.must_park()
    wait.settle("value")
    wait.settle("again")
    assert wakes.woken == [wait]


def test_a_wait_parks_between_the_halves_of_settling() -> None:
    """Claimed but not handed over yet: who parks now is woken, and finds the whole outcome."""
    seen: list[bool] = []

    class Handover:
        """Lets the waiting thread ask whether to park, right before settling looks."""

        def acquire(self, blocking: bool) -> bool:
            wait._handover = lock
            seen.append(wait.must_park())
            return lock.acquire(blocking)

    wakes = Wakes()
    wait = Wait(wakes)
    lock = wait._handover
    handover: Any = Handover()
    wait._handover = handover
    wait.settle("value")
    assert seen == [True]
    assert wakes.woken == [wait]
    assert wait.value == "value"


def test_a_wait_has_its_outcome_before_it_wakes() -> None:
    """The waiting thread may run at once."""
    found = []

    class Looks(Wakes):
        """Looks at once."""

        def wake(self, wait: Wait) -> None:
            """Keep what there is."""
            found.append((wait.value, wait.error, wait.reason))

    wait = Wait(Looks())
    wait.must_park()
    error = ValueError()
    wait.settle(error=error)
    assert found == [(None, error, "result")]


# Signal --------------------------------------------------------------------------------------


def test_a_signal_fires_once() -> None:
    """The first outcome stays."""
    signal = Signal()
    fired = [signal.fired]
    assert signal.fire("first")
    fired.append(signal.fired)
    assert not signal.fire("second")
    assert not signal.fire(error=ValueError())
    assert fired == [False, True]
    assert signal.value == "first"
    assert signal.error is None


def test_a_signal_tells_who_listened_before_it_fired() -> None:
    """On the thread that fires."""
    signal = Signal()
    threads = []

    class Sink(Outcomes):
        """Notes its thread."""

        def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
            threads.append(threading.get_ident())
            return super().settle(value, error)

    first, second = Sink(), Sink()
    signal.listen(first)
    signal.listen(second)
    in_a_thread(lambda: signal.fire("value"))
    assert (first.value, second.value) == ("value", "value")
    assert threading.get_ident() not in threads


def test_a_signal_tells_who_listens_after_it_fired() -> None:
    """At once."""
    signal = Signal()
    error = ValueError()
    signal.fire(error=error)
    sink = Outcomes()
    signal.listen(sink)
    assert sink.error is error


@needs_steps
def test_a_signal_fired_while_one_begins_to_listen_tells_it_once() -> None:
    """Both sides look: the callback is there, and so is the outcome; one of them takes it."""
    signal = Signal()
    sink = Outcomes()

    class Racing(list[Any]):
        """Fires between the adding and the look."""

        def append(self, item: Any) -> None:
            super().append(item)
            signal.fire("value")

    signal._callbacks = Racing()
    signal.listen(sink)
    assert sink.value == "value"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_listened_to_while_it_fires_tells_once(when: str) -> None:
    """The other order: one listens just before it looks for callbacks, or just after."""
    sink = Outcomes()

    class Racing(Signal):
        """Is listened to around its delivery."""

        listens: list[str]

        def _deliver(self) -> None:
            if self.listens == ["before"]:
                self.listens.clear()
                self.listen(sink)
            super()._deliver()
            if self.listens == ["after"]:
                self.listens.clear()
                self.listen(sink)

    signal = Racing()
    signal.listens = [when]
    signal.fire("value")
    assert sink.value == "value"


def test_a_signal_that_fires_inside_its_own_delivery_is_ignored() -> None:
    """A callback may fire it again."""
    signal = Signal()

    class Again(Outcomes):
        """Fires it again."""

        def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
            assert not signal.fire("again")
            return super().settle(value, error)

    sink = Again()
    signal.listen(sink)
    signal.fire("value")
    assert sink.value == "value"


def test_a_forgotten_sink_is_told_nothing_and_not_kept() -> None:
    """It has its outcome from elsewhere."""
    signal = Signal()
    sink = Outcomes()
    signal.listen(sink)
    signal.forget(sink)
    signal.forget(sink)  # it may be gone already: it may be being told right now
    told, kept = sink.told, weakref.ref(sink)
    del sink
    assert kept() is None
    signal.fire("value")
    assert told == []


# on_loop -------------------------------------------------------------------------------------


def test_on_loop_calls_at_once_on_the_loop_and_soon_elsewhere(loop: ManualLoop) -> None:
    """Whatever is called is on the loop's thread."""
    called: list[str] = []
    on_loop(loop, called.append, "soon")
    assert called == []

    def on_the_loop() -> None:
        on_loop(loop, called.append, "now")
        called.append("after")

    loop.call_soon(on_the_loop)
    loop.settle()
    assert called == ["soon", "now", "after"]


# Kinds ---------------------------------------------------------------------------------------


class Waitable:
    """An object with ``__await__`` and nothing else."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.value


class DaskLike(concurrent.futures.Future[Any]):
    """Awaitable only by its own loop, and with ``add_done_callback``, as Dask's futures are."""

    def __await__(self) -> Generator[Any, None, Any]:
        raise AssertionError("not on this loop")


class Call(Waitable):
    """Awaitable, and with ``add_done_callback``, but without a result: as grpc.aio's calls are."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back nobody: it is awaited."""
        raise AssertionError("it is awaited")


class Both(Waitable):
    """Awaitable, and with ``addCallback``."""

    def addCallback(self, callback: Callable[[Any], Any]) -> None:
        """Call back nobody: it is awaited."""
        raise AssertionError("it is awaited")


class DeferredLike(Bare):
    """What somebody else has made after Twisted's, with failures, and awaitable by its own loop."""

    def addErrback(self, errback: Callable[[Any], Any]) -> None:
        """Call back with a failure."""

    def __await__(self) -> Generator[Any, None, Any]:
        raise AssertionError("not on this loop")


class Streaming:
    """With ``add_done_callback`` and without a result: as grpc.aio's calls that stream are."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back nobody: it is iterated over."""
        raise AssertionError("there is nothing to wait for")

    def __aiter__(self) -> Any:
        raise NotImplementedError


async def value_of(value: Any) -> Any:
    """Return a value after a turn of the loop."""
    await asyncio.sleep(0)
    return value


@types.coroutine
def generator_coroutine() -> Generator[Any, None, str]:
    """A coroutine in the old style."""
    yield from asyncio.sleep(0).__await__()
    return "old"


def test_every_kind_of_promise_has_its_adapter(loop: ManualLoop) -> None:
    """Awaitables first, but for those that only their own loop can await: they call back."""
    coroutine = value_of(1)
    old = generator_coroutine()
    assert kind_of(coroutine) is TaskSubscription
    assert kind_of(old) is TaskSubscription
    assert kind_of(Waitable()) is TaskSubscription
    assert kind_of(Call()) is TaskSubscription
    assert kind_of(Both()) is TaskSubscription
    assert kind_of(loop.create_future()) is FutureSubscription
    assert kind_of(concurrent.futures.Future()) is CallbackSubscription
    assert kind_of(DaskLike()) is CallbackSubscription
    assert kind_of(defer.Deferred()) is DeferredSubscription
    assert kind_of(Bare()) is DeferredSubscription
    assert kind_of(DeferredLike()) is DeferredSubscription
    assert kind_of(Signal()) is SignalSubscription
    assert kind_of(All(())) is AllSubscription
    coroutine.close()


@pytest.mark.parametrize(
    "thing",
    [1, b"bytes", "text", {}, object(), Bare, defer.Deferred, concurrent.futures.Future],
)
def test_what_is_no_promise_has_none(thing: Any) -> None:
    """The class of a promise is none either."""
    assert kind_of(thing) is None
    with pytest.raises(
        TypeError, match=f"{type(thing).__name__} is not a promise: wait for an await"
    ):
        adapter_for(thing)


def test_what_calls_back_without_a_result_is_refused_at_the_wait() -> None:
    """Whatever it called back with, there would be nothing to return."""
    with pytest.raises(
        TypeError, match=r"add_done_callback and result.*; iterate\(\) takes an async"
    ):
        adapter_for(Streaming())


def subscribed(promise: Any, loop: ManualLoop) -> tuple[Subscription, Outcomes]:
    """Listen to a promise."""
    outcomes = Outcomes()
    subscription = adapter_for(promise)(promise, outcomes)
    subscription.start(loop)
    return subscription, outcomes


# asyncio futures -----------------------------------------------------------------------------


def test_a_future_is_listened_to_on_its_own_loop(loop: ManualLoop) -> None:
    """Which may be another one than the server's."""
    other = ManualLoop()
    future = other.create_future()
    _, outcomes = subscribed(future, loop)
    loop.settle()
    other.settle()
    assert outcomes.told == []
    future.set_result("value")
    loop.settle()
    assert outcomes.told == []
    other.settle()
    assert outcomes.value == "value"
    other.close()


def test_a_future_that_fails_gives_its_error(loop: ManualLoop) -> None:
    """The same object."""
    future = loop.create_future()
    _, outcomes = subscribed(future, loop)
    loop.settle()
    error = ValueError("no")
    future.set_exception(error)
    loop.settle()
    assert outcomes.error is error


def test_a_future_that_is_done_needs_no_loop(loop: ManualLoop) -> None:
    """Its loop may have stopped for good, or be closed."""
    other = ManualLoop()
    done, failed = other.create_future(), other.create_future()
    done.set_result("value")
    failed.set_exception(ValueError("no"))
    other.close()
    assert subscribed(done, loop)[1].value == "value"
    assert isinstance(subscribed(failed, loop)[1].error, ValueError)


def test_a_cancelled_future_is_an_error(loop: ManualLoop) -> None:
    """The waiting line gets asyncio's own."""
    future = loop.create_future()
    _, outcomes = subscribed(future, loop)
    loop.settle()
    future.cancel()
    loop.settle()
    assert isinstance(outcomes.error, asyncio.CancelledError)


def test_cancelling_a_wait_cancels_the_future_on_its_loop(loop: ManualLoop) -> None:
    """As asyncio.wait_for does."""
    future = loop.create_future()
    subscription, _ = subscribed(future, loop)
    subscription.cancel()
    assert not future.cancelled()
    loop.settle()
    assert future.cancelled()


def test_cancelling_a_future_of_a_closed_loop_does_nothing() -> None:
    """Nothing is left to cancel it on."""
    loop = ManualLoop()
    future = loop.create_future()
    subscription, _ = subscribed(future, loop)
    loop.close()
    subscription.cancel()


# Coroutines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: value_of("one"), "one"),
        (lambda: Waitable("two"), "two"),
        (lambda: Call("three"), "three"),
        (generator_coroutine, "old"),
    ],
    ids=["coroutine", "awaitable", "call", "generator"],
)
def test_an_awaitable_runs_as_a_task_on_the_given_loop(
    loop: ManualLoop, make: Callable[[], Awaitable[Any]], value: Any
) -> None:
    """It has begun only when the loop runs."""
    _, outcomes = subscribed(make(), loop)
    assert outcomes.told == []
    loop.settle()
    assert outcomes.value == value


NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME")


def test_a_task_has_a_copy_of_the_waiting_context(loop: ManualLoop) -> None:
    """It sees what was set before; what it sets stays its own."""

    async def look() -> str:
        seen = NAME.get()
        NAME.set("the task's")
        return seen

    def request() -> Outcomes:
        NAME.set("the request's")
        _, outcomes = subscribed(look(), loop)
        loop.settle()
        assert NAME.get() == "the request's"
        return outcomes

    outcomes = contextvars.Context().run(request)
    assert outcomes.value == "the request's"


def test_a_task_that_fails_gives_its_error(loop: ManualLoop) -> None:
    """Whatever it raised."""

    async def fail() -> None:
        raise ValueError("no")

    _, outcomes = subscribed(fail(), loop)
    loop.settle()
    assert isinstance(outcomes.error, ValueError)


def test_cancelling_a_task_before_it_began_never_starts_it(loop: ManualLoop) -> None:
    """And Python has nothing to warn about: the coroutine is closed."""
    began = []

    async def begin() -> None:
        began.append(True)

    coroutine = begin()
    subscription, outcomes = subscribed(coroutine, loop)
    subscription.cancel()
    loop.settle()
    assert began == []
    assert isinstance(outcomes.error, asyncio.CancelledError)
    assert is_closed(coroutine)


def test_cancelling_a_task_that_runs_cancels_it(loop: ManualLoop) -> None:
    """It may clean up."""
    cleaned = []

    async def stay() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    subscription, outcomes = subscribed(stay(), loop)
    loop.settle()
    subscription.cancel()
    loop.settle()
    assert cleaned == [True]
    assert isinstance(outcomes.error, asyncio.CancelledError)


@pytest.mark.parametrize("make", [lambda: value_of(1), lambda: Waitable(1)])
def test_cancelling_a_task_that_was_never_asked_for_closes_it(
    loop: ManualLoop, make: Callable[[], Awaitable[Any]]
) -> None:
    """A subscription that is dropped before its start leaves no coroutine unawaited."""
    promise = make()
    subscription = TaskSubscription(promise, Outcomes())
    subscription.cancel()
    subscription.start(loop)
    loop.settle()
    del subscription, promise
    gc.collect()


def test_a_task_on_a_closed_loop_is_refused_and_closed() -> None:
    """RuntimeError at the waiting line, and no coroutine left unawaited."""
    loop = ManualLoop()
    loop.close()
    coroutine = value_of(1)
    subscription = TaskSubscription(coroutine, Outcomes())
    with pytest.raises(RuntimeError, match="closed"):
        subscription.start(loop)
    assert is_closed(coroutine)
    subscription.cancel()


def test_a_task_that_its_loop_was_closed_before_is_closed_when_it_is_cancelled() -> None:
    """It was on its way to the loop. One that has begun is not raised into: another thread's."""
    loop = ManualLoop()
    gate = asyncio.Event()

    async def begun() -> None:
        await gate.wait()

    running, waiting = begun(), value_of(1)
    first, _ = subscribed(running, loop)
    loop.settle()
    second, outcomes = subscribed(waiting, loop)
    task = next(iter(asyncio.all_tasks(loop)))
    loop.close()
    for each in (first, second):
        each.cancel()
    assert isinstance(outcomes.error, asyncio.CancelledError)
    assert is_closed(waiting)
    assert inspect.getcoroutinestate(running) == inspect.CORO_SUSPENDED
    task._log_destroy_pending = False  # type: ignore[attr-defined]


# concurrent.futures --------------------------------------------------------------------------


def test_a_concurrent_future_calls_back_on_the_thread_that_ends_it(loop: ManualLoop) -> None:
    """No loop is needed."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    _, outcomes = subscribed(future, loop)
    assert outcomes.told == []
    in_a_thread(lambda: future.set_result("value"))
    assert outcomes.value == "value"


def test_a_concurrent_future_that_is_done_tells_at_once(loop: ManualLoop) -> None:
    """Also its error."""
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    error = ValueError("no")
    future.set_exception(error)
    assert subscribed(future, loop)[1].error is error


def test_cancelling_a_concurrent_future_cancels_what_has_not_begun(loop: ManualLoop) -> None:
    """What runs already runs to its end."""
    pending: concurrent.futures.Future[str] = concurrent.futures.Future()
    subscribed(pending, loop)[0].cancel()
    assert pending.cancelled()
    running: concurrent.futures.Future[str] = concurrent.futures.Future()
    subscription, outcomes = subscribed(running, loop)
    running.set_running_or_notify_cancel()
    subscription.cancel()
    running.set_result("value")
    assert isinstance(outcomes.told[0][1], asyncio.CancelledError), "nobody waits for it any more"


def test_a_promise_with_callbacks_needs_no_cancel(loop: ManualLoop) -> None:
    """``add_done_callback`` is all that is asked of it."""

    class Plain:
        """Calls back at once."""

        def add_done_callback(self, callback: Callable[[Any], None]) -> None:
            callback(self)

        def result(self) -> str:
            return "value"

    subscription, outcomes = subscribed(Plain(), loop)
    assert outcomes.value == "value"
    subscription.cancel()


# addCallback ---------------------------------------------------------------------------------


def test_a_deferred_gives_its_value_and_passes_it_on(loop: ManualLoop) -> None:
    """Callbacks that are added later get it too."""
    deferred: defer.Deferred[str] = defer.Deferred()
    _, outcomes = subscribed(deferred, loop)
    later: list[str] = []
    deferred.addCallback(later.append)
    deferred.callback("value")
    assert outcomes.value == "value"
    assert later == ["value"]


def test_a_failed_deferred_gives_its_error_and_is_handled(loop: ManualLoop) -> None:
    """Twisted reports no unhandled error: later errbacks are not called."""
    deferred: defer.Deferred[str] = defer.Deferred()
    _, outcomes = subscribed(deferred, loop)
    error = ValueError("no")
    unhandled: list[Any] = []
    deferred.addErrback(unhandled.append)
    deferred.errback(error)
    assert outcomes.error is error
    assert unhandled == []


def test_a_deferred_that_has_fired_tells_at_once(loop: ManualLoop) -> None:
    """Where no reactor runs it is asked on this thread."""
    assert subscribed(defer.succeed("value"), loop)[1].value == "value"
    failed: defer.Deferred[None] = defer.fail(ValueError("no"))
    assert isinstance(subscribed(failed, loop)[1].error, ValueError)


def test_cancelling_a_deferred_calls_its_canceller(loop: ManualLoop) -> None:
    """And Twisted's error about it goes nowhere."""
    cancelled: list[Any] = []
    deferred: defer.Deferred[None] = defer.Deferred(cancelled.append)
    subscription, outcomes = subscribed(deferred, loop)
    subscription.cancel()
    assert cancelled == [deferred]
    assert isinstance(outcomes.error, defer.CancelledError)


def test_the_bare_object_of_2004_gives_its_value(loop: ManualLoop) -> None:
    """It has no errors, and no cancelling: a wait for it is just given up."""
    bare = Bare()
    _, outcomes = subscribed(bare, loop)
    subscription, given_up = subscribed(bare, loop)
    subscription.cancel()
    assert isinstance(given_up.error, asyncio.CancelledError)
    in_a_thread(lambda: bare.fire("value"))
    assert outcomes.value == "value"


def test_a_bare_object_that_fires_twice_is_believed_once(loop: ManualLoop) -> None:
    """The sink counts the first."""
    bare = Bare()
    wait = Wait(Wakes())
    adapter_for(bare)(bare, wait).start(loop)
    bare.fire("first")
    bare.fire("second")
    assert wait.value == "first"


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (
            Failure(ValueError("no")),  # type: ignore[no-untyped-call]
            ValueError,
            "no",
        ),
        (KeyError("bare"), KeyError, "bare"),
        ("text", RuntimeError, "failed with 'text'"),
    ],
    ids=["failure", "exception", "text"],
)
def test_whatever_an_errback_is_given_becomes_an_error(
    loop: ManualLoop, failure: Any, kind: type[BaseException], text: str
) -> None:
    """Twisted's Failure holds one; other libraries give the exception, or anything."""

    class Failing(Bare):
        """Has errbacks."""

        def __init__(self) -> None:
            super().__init__()
            self.errbacks: list[Callable[[Any], Any]] = []

        def addErrback(self, errback: Callable[[Any], Any]) -> None:
            self.errbacks.append(errback)

    promise = Failing()
    _, outcomes = subscribed(promise, loop)
    (errback,) = promise.errbacks
    errback(failure)
    assert isinstance(outcomes.error, kind)
    assert text in str(outcomes.error)


# Several -------------------------------------------------------------------------------------


def test_all_of_nothing_is_an_empty_list(loop: ManualLoop) -> None:
    """At once."""
    assert subscribed(All(()), loop)[1].value == []


def test_all_gives_the_results_in_the_order_of_the_promises(loop: ManualLoop) -> None:
    """Whatever the order in which they arrive."""
    first, second, third = Signal(), Bare(), loop.create_future()
    _, outcomes = subscribed(All((first, second, third)), loop)
    loop.settle()
    third.set_result(3)
    loop.settle()
    second.fire(2)
    second.fire("again")
    assert outcomes.told == []
    first.fire(1)
    assert outcomes.value == [1, 2, 3]


def test_all_gives_the_first_error_and_cancels_the_rest(loop: ManualLoop) -> None:
    """Also those that have not been started yet when the error came."""
    failed: concurrent.futures.Future[None] = concurrent.futures.Future()
    error = ValueError("no")
    failed.set_exception(error)
    pending: concurrent.futures.Future[None] = concurrent.futures.Future()
    began = []

    async def begin() -> None:
        began.append(True)

    _, outcomes = subscribed(All((pending, failed, begin())), loop)
    loop.settle()
    assert outcomes.told[0] == (None, error)
    assert pending.cancelled()
    assert began == []


def test_all_cancels_each_when_it_is_cancelled(loop: ManualLoop) -> None:
    """The promises that are done take no notice."""
    done, pending = loop.create_future(), loop.create_future()
    done.set_result("value")
    subscription, outcomes = subscribed(All((done, pending)), loop)
    loop.settle()
    subscription.cancel()
    loop.settle()
    assert done.result() == "value"
    assert pending.cancelled()
    assert isinstance(outcomes.error, asyncio.CancelledError)


def test_all_cancels_the_others_when_one_cannot_be_started(loop: ManualLoop) -> None:
    """Those before it and those after it; no coroutine is left unawaited."""

    class Broken(concurrent.futures.Future[Any]):
        """Refuses callbacks."""

        def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
            raise OSError("broken")

    before: concurrent.futures.Future[None] = concurrent.futures.Future()
    after = value_of(1)
    outcomes = Outcomes()
    subscription = AllSubscription(All((before, Broken(), after, Waitable())), outcomes)
    with pytest.raises(OSError, match="broken"):
        subscription.start(loop)
    loop.settle()
    assert before.cancelled()
    assert is_closed(after)
    del subscription
    gc.collect()


# The rest ------------------------------------------------------------------------------------


def test_discard_closes_coroutines_wherever_they_are() -> None:
    """Python would warn that they were never awaited; other promises are left as they are."""
    one, two = value_of(1), value_of(2)
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    discard(All((one, future, All((two,)))))
    assert is_closed(one)
    assert is_closed(two)
    assert not future.cancelled()
    discard(object())


def test_an_error_on_its_way_keeps_nothing_alive(loop: ManualLoop) -> None:
    """What a failed promise was raised through is not held by the error that it gave."""
    gc.disable()
    try:
        future = loop.create_future()
        future.set_exception(ValueError("no"))
        outcomes = Outcomes()
        settle_from(future, outcomes)
        kept = weakref.ref(outcomes), weakref.ref(future)
        del outcomes, future
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()
