"""An asynchronous exception comes into a lane's thread: it costs that lane's requests, and no more.

It is put where the test wants it: raised by what the lane calls, or by Python itself, as decorators
that limit a call's time have it do.
"""

import ctypes
import logging
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from bide.errors import ThreadEnded
from bide.executors.hub import Job
from bide.executors.lane import Lane
from bide.executors.threads import ThreadsExecutor
from bide.serving.dispatcher import Dispatcher
from bide.waiting.api import wait
from bide.waiting.outcome import Signal, Wait
from tests.conftest import Serve
from tests.executors.test_threads import Threads, lanes, loop  # noqa: F401 - fixtures
from tests.fakes import ManualLoop, Run
from tests.served import Environ, Gate, Log, Served, answering, happened, until

pytestmark = pytest.mark.skipif(
    sys.gettrace() is not None, reason="the exception would strike what traces (make coverage)"
)

Make = Callable[[int], Threads]


class Stray(BaseException):
    """What comes from outside."""


def strike(lane: Lane) -> None:
    """Make Python raise in a lane's thread, at its next bytecode."""
    assert lane.thread.ident is not None
    number = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(lane.thread.ident), ctypes.py_object(Stray)
    )
    assert number == 1


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Hear the log."""
    caplog.set_level(logging.INFO, "bide")
    return caplog


def parked(threads: Threads, promise: Any, caught: list[BaseException]) -> None:
    """Run a job that waits on the one lane, and keep what its wait raises."""

    def job() -> None:
        try:
            wait(promise)
        except BaseException as error:
            caught.append(error)

    before = threads.executor.waiting
    run = threads.begin(job)
    threads.until(lambda: threads.executor.waiting > before)
    assert not run.ended


def test_a_lane_that_is_struck_while_idle_is_replaced_and_its_parked_job_ended(
    lanes: Make,  # noqa: F811 - a fixture
    heard: pytest.LogCaptureFixture,
) -> None:
    """The exception comes when the lane wakes; the job that woke it runs on the new lane."""
    threads = lanes(1)
    promise, caught = Signal(), []  # type: tuple[Signal, list[BaseException]]
    parked(threads, promise, caught)
    (struck,) = threads.executor.roster.lanes
    threads.until(lambda: struck.idle)
    strike(struck)
    after = threads.begin(threading.current_thread)
    threads.until(lambda: after.ended and caught)
    assert after.value is not struck.thread
    assert type(caught[0]) is ThreadEnded
    assert struck not in threads.executor.roster.lanes
    struck.thread.join(20)
    assert not struck.thread.is_alive()
    (record,) = heard.records
    assert record.getMessage() == (
        "bide-thread-1 was ended from outside and is replaced; 1 waiting requests of it are ended"
    )
    assert record.exc_info is not None
    assert record.exc_info[0] is Stray


@pytest.mark.parametrize("point", ["before the queue", "after the queue"])
def test_a_job_that_the_lane_has_in_hand_is_lost_only_if_nobody_else_will_take_it(
    lanes: Make,  # noqa: F811 - a fixture
    point: str,
) -> None:
    """It is marked before it is taken out: in between it is still the queue's."""
    struck: list[Lane] = []

    class Striking(ThreadsExecutor):
        """Strikes the first lane that takes a job."""

        def next_job(self, lane: Lane) -> Job | None:
            if struck or not self.jobs:
                return super().next_job(lane)
            struck.append(lane)
            if point == "before the queue":
                lane.taken = self.jobs[0]
            else:
                super().next_job(lane)
            raise Stray

    threads = lanes(1)
    threads.executor = Striking(threads.loop, 1, 10)
    first = threads.begin(lambda: "first")
    threads.until(lambda: first.ended or first.was_lost)
    assert first.was_lost == (point == "after the queue")
    second = threads.begin(lambda: "second")
    threads.until(lambda: second.ended)


class Losing(SimpleQueue[Any]):
    """A lane's queue, which loses settled waits: it raises when it has taken one out."""

    def __init__(self, times: int) -> None:
        self.taken: list[Wait] = []
        self._times = times

    def get(self, *_: Any) -> Any:
        """Take one out."""
        item = super().get()
        if isinstance(item, Wait):
            self.taken.append(item)
            if len(self.taken) <= self._times:
                raise Stray
        return item


class Losers(ThreadsExecutor):
    """An executor whose first lane has a queue that loses settled waits."""

    def __init__(self, loop: ManualLoop, times: int) -> None:  # noqa: F811 - no fixture
        super().__init__(loop, 1, 10)
        self.lost = Losing(times)

    def _new_lane(self) -> Lane:
        lane = super()._new_lane()
        if not self.lost.taken:
            lane.queue = self.lost
        return lane


def test_a_wake_that_was_taken_out_and_lost_is_made_good(
    lanes: Make,  # noqa: F811 - a fixture
) -> None:
    """The outcome was there: the parked job has it, and not the error."""
    threads = lanes(1)
    threads.executor = executor = Losers(threads.loop, 1)
    promise = Signal()
    run = threads.begin(lambda: wait(promise))
    threads.until(lambda: threads.executor.waiting)
    promise.fire("the result")
    threads.until(lambda: run.ended)
    assert run.value == "the result"
    assert executor.lost.taken[0] is executor.lost.taken[1]


def test_a_lane_that_is_struck_again_while_it_ends_still_ends_its_jobs(
    lanes: Make,  # noqa: F811 - a fixture
    heard: pytest.LogCaptureFixture,
) -> None:
    """However often."""
    threads = lanes(1)
    threads.executor = Losers(threads.loop, 3)
    promise, caught = Signal(), []  # type: tuple[Signal, list[BaseException]]
    parked(threads, Signal(), caught)
    parked(threads, promise, [])
    promise.fire()
    threads.until(lambda: caught)
    assert [each.getMessage() for each in heard.records] == [
        "bide-thread-1 was ended from outside and is replaced; 2 waiting requests of it are ended",
        "bide-thread-1 was interrupted while it ended",
        "bide-thread-1 was interrupted while it ended",
    ]


@pytest.mark.parametrize("step", ["withdraw", "lost", "leave"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lane_that_is_struck_again_in_any_step_of_its_end_is_replaced(
    loop: ManualLoop,  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    when: str,
) -> None:
    """And the job that it had in hand is ended, as is the one that waits."""
    threads = Threads(loop, 1)
    again: list[str] = []

    def twice(real: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*args: Any) -> Any:
            if again:
                return real(*args)
            again.append(step)
            if when == "after":
                real(*args)
            raise Stray

        return struck

    taken: list[Job] = []

    class Striking(ThreadsExecutor):
        """Strikes the lane that has taken the first job, and that lane again as it ends."""

        def next_job(self, lane: Lane) -> Job | None:
            job = super().next_job(lane)
            if job is not None and not taken:
                taken.append(job)
                raise Stray
            return job

        def withdraw(self, lane: Lane) -> bool:
            real = super().withdraw
            return bool((twice(real) if step == "withdraw" else real)(lane))

        def leave(self, lane: Lane) -> None:
            real = super().leave
            (twice(real) if step == "leave" else real)(lane)

    threads.executor = Striking(loop, 1, 10, serial=True)
    if step == "lost":
        monkeypatch.setattr(Run, step, twice(Run.lost))
    first = threads.begin(lambda: "first")
    threads.until(lambda: first.was_lost)
    second = threads.begin(threading.current_thread)
    threads.until(lambda: second.ended)
    assert again == [step]
    (lane,) = threads.executor.roster.lanes
    assert second.value is lane.thread
    threads.executor.stop()
    threads.executor.join(20)


def test_a_serial_lane_is_replaced_when_its_last_job_has_ended(
    loop: ManualLoop,  # noqa: F811 - a fixture
) -> None:
    """Two at a time is what the application cannot have."""
    threads = Threads(loop, 1)
    threads.executor = ThreadsExecutor(loop, 1, 10, serial=True)
    cleaned, last = Signal(), []  # type: tuple[Signal, list[str]]

    def job() -> None:
        try:
            wait(Signal())
        finally:
            wait(cleaned)
            last.append("cleaned up")

    threads.begin(job)
    threads.until(lambda: threads.executor.waiting)
    (struck,) = threads.executor.roster.lanes
    threads.until(lambda: struck.queue.empty())
    strike(struck)
    struck.queue.put(None)
    second = threads.begin(lambda: last.append("second"))
    threads.until(lambda: struck.queue.empty() and struck.parked == 1)
    threads.executor.flush()
    assert last == []
    cleaned.fire()
    threads.until(lambda: second.ended)
    assert last == ["cleaned up", "second"]
    struck.thread.join(20)
    threads.executor.stop()
    threads.executor.join(20)


def test_an_executor_without_a_thread_says_so_until_it_has_one_again(
    loop: ManualLoop,  # noqa: F811 - a fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the health check; it tries again by itself, though no request comes."""
    executor = ThreadsExecutor(loop, 1, 10)
    able = [executor.able]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        executor._replace()
        able.append(executor.able)
        executor.recover()
        able.append(executor.able)
    executor.recover()
    able.append(executor.able)
    assert able == [True, False, False, True]
    assert executor.threads == 1
    executor.recover()
    assert executor.threads == 1
    executor.stop()
    executor.join(20)


def refuse(_: threading.Thread) -> None:
    """Start no thread, as the system does when it has none left."""
    raise RuntimeError("can't start new thread")


def lane_of(served: Served) -> Lane:
    """Return the server's one lane."""
    executor = served.server.dispatcher.executor
    assert isinstance(executor, ThreadsExecutor)
    (lane,) = executor.roster.lanes
    return lane


def test_a_servers_requests_on_the_lane_are_answered_and_others_go_on(
    serve: Serve, log: Log, gate: Gate
) -> None:
    """500 for those that waited there; the next is served; the health says ok."""

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/wait":
            wait(gate.promise())
        return "served"

    served = serve(answering(answer), threads=1, health="/health")
    waiting = [served.request("/wait") for _ in range(3)]
    served.until_waiting(3)
    lane = lane_of(served)
    until(lambda: lane.idle)
    strike(lane)
    assert served.get().text == "served"
    for client in waiting:
        assert client.response().status == 500
    assert served.get("/health").text == "ok\n"
    log.take(
        "bide-thread-1 was ended from outside and is replaced; 3 waiting requests of it are ended"
    )
    served.until_idle()


def test_the_health_says_when_no_thread_can_be_had(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that there is one again."""
    served = serve(answering(lambda _: "served"), threads=1, health="/health")
    assert served.get().text == "served"
    lane = lane_of(served)
    until(lambda: lane.idle)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        strike(lane)
        lane.queue.put(None)
        log.take("bide-thread-1 was ended from outside")
        log.take("cannot start a thread")
        response = served.get("/health")
        assert (response.status, response.text) == (503, "no thread can be started\n")
    until(lambda: served.get("/health").text == "ok\n")
    assert served.get().text == "served"
    log.records.clear()


def test_a_request_that_is_interrupted_at_its_end_is_ended_all_the_same(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection too: the exception came when the application's code was through."""
    real = Dispatcher.done
    struck = threading.Event()

    def done(dispatcher: Dispatcher, call: Any) -> None:
        if not struck.is_set():
            struck.set()
            raise Stray
        real(dispatcher, call)

    monkeypatch.setattr(Dispatcher, "done", done)
    served = serve(answering(lambda _: "served"), threads=1)
    assert served.get().text == "served"
    happened(struck)
    log.take("internal error: a job raised")
    served.until_idle()
    assert served.get().text == "served"
