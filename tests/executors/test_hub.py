"""The greenlets of one thread: pooled, each job in a context of its own, parked and resumed."""

import contextvars
import gc
import threading
import weakref
from typing import Any

import greenlet
import pytest

from bide.executors.hub import IDLE_WORKERS, Hub, Job, job_of
from bide.executors.shells import WorkerGreenlet
from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from bide.waiting.waiter import current_waiter
from tests.fakes import Lane, ManualLoop
from tests.served import until


def test_a_job_runs_to_its_end_in_a_greenlet_of_the_hub(lane: Lane) -> None:
    """On the hub's thread, with its waiter at hand."""
    run = lane.begin(lambda: (greenlet.getcurrent(), threading.get_ident(), current_waiter()))
    worker, thread, waiter = run.value
    assert isinstance(worker, WorkerGreenlet)
    assert thread == lane.hub.thread == threading.get_ident()
    assert waiter is run.waiter


def test_an_ended_job_leaves_its_greenlet_for_the_next(lane: Lane) -> None:
    """A new greenlet costs more than ten times what a pooled one does."""
    first = lane.begin(greenlet.getcurrent).value
    assert lane.begin(greenlet.getcurrent).value is first


def test_a_parked_job_keeps_its_greenlet(lane: Lane) -> None:
    """Another job has another one, until both have ended."""
    signal = Signal()
    greenlets: list[Any] = []

    def view() -> None:
        greenlets.append(greenlet.getcurrent())
        wait(signal)
        greenlets.append(greenlet.getcurrent())

    one, other = lane.begin(view), lane.begin(view)
    assert lane.hub.parked == 2
    signal.fire()
    lane.settle()
    assert one.ended
    assert other.ended
    assert len(set(greenlets)) == 2
    assert len(lane.hub.idle) == 2


def test_each_job_has_a_context_of_its_own(lane: Lane) -> None:
    """What the one before it set is not there, nor what runs beside it sets."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    def view() -> str | None:
        before = name.get(None)
        name.set("the job's")
        return before

    token = name.set("the thread's")
    assert lane.begin(view).value is None
    assert lane.begin(view).value is None
    assert name.get() == "the thread's"
    name.reset(token)


def test_an_ended_job_is_not_kept_by_its_greenlet(lane: Lane) -> None:
    """Nor is what it left in its context."""

    class Session:
        """What an application keeps for a request."""

    session: contextvars.ContextVar[Session] = contextvars.ContextVar("session")
    kept: list[weakref.ref[Session]] = []

    def view() -> None:
        session.set(Session())
        kept.append(weakref.ref(session.get()))

    gc.collect()
    gc.disable()
    try:
        job = weakref.ref(lane.begin(view))
        assert job() is None
        assert [each() for each in kept] == [None]
    finally:
        gc.enable()


def test_a_job_that_raises_is_logged_and_the_greenlet_goes_on(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    """A job answers for its own errors: one that comes here is ours, and the thread lives."""
    lost: list[BaseException] = []

    class Broken(Job):
        """Raises."""

        def __init__(self, error: BaseException) -> None:
            self.waiter = lane.begin(lambda: current_waiter()).value
            self.started = 0.0
            self.error = error

        def run(self) -> None:
            raise self.error

        def describe(self) -> str:
            return "broken"

        def lost(self) -> None:
            lost.append(self.error)

    for error in (ValueError("no"), SystemExit(1), KeyboardInterrupt(), greenlet.GreenletExit()):
        caplog.clear()
        lane.hub.run(Broken(error))
        (record,) = caplog.records
        assert record.message == "internal error: a job raised"
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        assert lost.pop() is error, "nobody has ended what it was about"
    assert lane.hub.running is None
    assert lane.begin(lambda: "fine").value == "fine"
    assert len(lane.hub.idle) == 1


def test_the_hub_says_what_runs_and_since_when(lane: Lane) -> None:
    """For the monitor, which looks from its own thread."""
    seen: list[Any] = []

    def view() -> None:
        running = lane.hub.running
        job = job_of(running)
        seen.append((running is greenlet.getcurrent(), job.describe() if job else "", lane.hub))
        before = lane.hub.since
        wait(signal)
        seen.append((lane.hub.since >= before, job_of(lane.hub.running) is job))

    signal = Signal()
    lane.begin(view)
    assert lane.hub.running is None, "it is parked"
    signal.fire()
    lane.settle()
    assert lane.hub.running is None
    assert seen == [(True, "view", lane.hub), (True, True)]


def test_the_job_of_a_librarys_greenlet_is_that_of_the_one_above_it(lane: Lane) -> None:
    """And outside of a hub there is none."""

    def view() -> str:
        inner = greenlet.greenlet(lambda: job_of(greenlet.getcurrent()))
        job = inner.switch()
        return str(job.describe())

    assert lane.begin(view).value == "view"
    assert job_of(greenlet.getcurrent()) is None
    assert job_of(None) is None


def test_no_more_than_so_many_idle_greenlets_are_kept(lane: Lane) -> None:
    """A thousand requests that waited at once do not leave a thousand greenlets."""
    signal = Signal()
    for _ in range(IDLE_WORKERS + 10):
        lane.begin(lambda: wait(signal))
    assert lane.hub.parked == IDLE_WORKERS + 10
    signal.fire()
    lane.settle()
    assert len(lane.hub.idle) == IDLE_WORKERS


def test_closing_ends_the_idle_greenlets(lane: Lane) -> None:
    """Each of them."""
    signal = Signal()
    workers = []

    def view() -> None:
        workers.append(greenlet.getcurrent())
        wait(signal)

    for _ in range(3):
        lane.begin(view)
    signal.fire()
    lane.settle()
    lane.hub.close()
    assert lane.hub.idle == []
    assert [worker.dead for worker in workers] == [True] * 3


def test_a_hub_goes_on_below_any_greenlet_of_its_thread() -> None:
    """The loop that calls it may itself run in a library's greenlet, and in another one later."""
    woken: list[Any] = []
    hub = Hub("test", woken.append)
    lane = Lane(ManualLoop())
    lane.hub = hub
    signal = Signal()
    runs: list[Any] = []
    greenlet.greenlet(lambda: runs.append(lane.begin(lambda: wait(signal)))).switch()
    assert hub.parked == 1
    signal.fire("value")
    hub.resume(*woken)
    assert runs[0].value == "value"
    hub.close()
    lane.loop.close()


def test_a_closed_hub_refers_to_nothing_of_its_thread() -> None:
    """Else greenlet looks through all objects of the process when the thread has ended."""
    kept: list[Any] = []

    def work() -> None:
        lane = Lane(ManualLoop())
        signal = Signal()
        lane.begin(lambda: wait(signal))
        signal.fire()
        lane.settle()
        kept.extend((lane.hub, weakref.ref(greenlet.getcurrent())))
        lane.hub.close()
        lane.loop.close()

    gc.disable()  # what is freed here is freed without it
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        until(lambda: kept[1]() is None, "the thread's greenlet has been kept")
    finally:
        gc.enable()
