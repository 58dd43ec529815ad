"""Promises of kinds that somebody has registered."""

import concurrent.futures
import gc
import os
import signal
import sys
import threading
import traceback
import types
import uuid
import weakref
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

import bide
from bide import promises
from bide.errors import ClientDisconnected
from bide.waiting import engines, registered
from bide.waiting.adapters import kind_of
from tests.fakes import Lane
from tests.served import DEADLINE, happened, until

# A type checker cannot see what is registered.
wait: Any = bide.wait
wait_all: Any = bide.wait_all

Future = concurrent.futures.Future


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    """Undo what a test registers."""
    before = dict(registered._registered)
    yield
    with registered._lock:
        registered._registered.clear()
        registered._registered.update(before)
        registered._found.clear()


class Job:
    """Of an engine; it is awaitable, too, by a loop that is not Bide's."""

    def __init__(self) -> None:
        self.future: Future[str] = Future()

    def __await__(self) -> Any:
        raise AssertionError("it was awaited")


def returned(future: Future[str], _: Job) -> Future[str]:
    """Return the future for any job."""
    return future


class SpecialJob(Job):
    """A kind of it."""


def test_a_registered_kind_comes_before_what_its_objects_look_like(lane: Lane) -> None:
    """Subclasses too; and when the wait ends early, what it was converted to is cancelled."""
    for kind in (Job, f"{__name__}.Job"):
        promises.register(kind, lambda job: job.future)
        jobs = [Job(), SpecialJob(), SpecialJob()]
        runs = [lane.begin(lambda job=job: wait(job)) for job in jobs]  # type: ignore[misc]
        both = lane.begin(lambda jobs=jobs: wait_all(*jobs[:2]))  # type: ignore[misc]
        runs[2].waiter.cancel(ClientDisconnected("the client has left"))
        for job in jobs[:2]:
            job.future.set_result("done")
        lane.settle()
        assert [run.value for run in runs[:2]] == ["done"] * 2
        assert both.value == ["done"] * 2
        assert jobs[2].future.cancelled()
        assert isinstance(runs[2].raised, ClientDisconnected)
        registered._registered.clear()
    lane.end()


def test_the_last_registration_counts_also_for_what_was_waited_for_before() -> None:
    """Outside a request, too."""
    for expected in ("first", "second"):
        future: Future[str] = Future()
        future.set_result(expected)
        promises.register(Job, partial(returned, future))
        assert wait(Job()) == expected


def test_what_a_conversion_raises_or_returns_wrongly_is_raised_where_it_is_waited_for() -> None:
    """With its cause, and for ever going round there is a word, too."""
    promises.register(Job, lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wait(Job())
    promises.register(Job, lambda _: 3)
    with pytest.raises(TypeError, match="int is not a promise"):
        wait(Job())
    promises.register(Job, lambda _: Job())
    with pytest.raises(TypeError, match="the conversion of Job returned the same kind again"):
        wait(Job())
    with pytest.raises(TypeError, match="a class or its full name, not 3"):
        promises.register(3, lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a function that converts, not 3"):
        promises.register(Job, 3)  # type: ignore[arg-type]


def test_of_several_one_that_cannot_be_converted_cancels_the_others() -> None:
    """Whatever had been begun for them."""
    jobs = [Job(), SpecialJob()]
    promises.register(Job, lambda job: job.future)
    promises.register(SpecialJob, lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wait_all(*jobs)
    assert jobs[0].future.cancelled()


def test_a_class_that_is_gone_is_forgotten() -> None:
    """Nothing keeps the classes of promises, for some are made for each request."""
    made: Any = type("Passing", (), {"__await__": Job.__await__})
    assert kind_of(made()) is not None
    reference = weakref.ref(made)
    del made
    gc.collect()
    assert reference() is None


class Task:
    """A result of Celery's, as far as a look at it goes."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.parent: Task | None = None
        self.is_ready = self.fails = False
        self.revoked = threading.Event()
        self.looked = threading.Event()

    def ready(self) -> bool:
        """Note the look."""
        self.looked.set()
        return self.is_ready

    def get(self) -> str:
        """Return what the task returned."""
        if self.fails:
            raise LookupError("the task has failed")
        return "done"

    def revoke(self) -> None:
        """Note that it was asked for."""
        self.revoked.set()


class Broken(Task):
    """One whose broker is gone."""

    def revoke(self) -> None:
        """Fail, as without a broker."""
        super().revoke()
        raise ConnectionError("there is no broker")


Task.__module__, Task.__qualname__ = "celery.result", "AsyncResult"


def test_a_result_of_celery_is_looked_at_until_it_is_there() -> None:
    """On one thread; its error is raised where it is waited for, and the others go on."""
    tasks = [Task() for _ in range(3)]
    tasks[1].fails = True
    values: list[Any] = []

    def wait_for(task: Task) -> None:
        try:
            values.append(wait(task, timeout=DEADLINE))
        except LookupError as error:
            values.append(str(error))

    threads = [threading.Thread(target=wait_for, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for task, thread in zip(tasks, threads, strict=True):
        assert task.looked.wait(DEADLINE)
        task.is_ready = True
        thread.join(DEADLINE)
    assert values == ["done", "the task has failed", "done"]
    assert [each.name for each in threading.enumerate()].count("bide-celery") == 1


class Crowd:
    """A ``ResultSet`` of Celery's, which has no id of its own."""

    def __init__(self, *tasks: Task) -> None:
        self.results = tasks
        self.revoked = threading.Event()

    def ready(self) -> bool:
        """Whether all are ready; note the looks."""
        return all(each.ready() for each in self.results)

    def get(self) -> list[str]:
        """Return what the tasks returned."""
        return [each.get() for each in self.results]

    def revoke(self) -> None:
        """Note that it was asked for."""
        self.revoked.set()


Crowd.__module__, Crowd.__qualname__ = "celery.result", "ResultSet"


def test_a_set_of_results_of_celery_is_waited_for_and_revoked_as_one_is(lane: Lane) -> None:
    """Two of the same tasks are the same."""
    task = Task()
    sets = [Crowd(task), Crowd(task)]
    runs = [lane.begin(lambda each=each: wait(each)) for each in sets]  # type: ignore[misc]
    for run in runs:
        assert task.looked.wait(DEADLINE)
        assert not any(each.revoked.is_set() for each in sets)
        run.waiter.cancel(ClientDisconnected("the client has left"))
        lane.settle()
    assert sets[1].revoked.wait(DEADLINE)
    assert not sets[0].revoked.is_set()
    task.is_ready = True
    assert wait(Crowd(task, task), DEADLINE) == ["done", "done"]
    lane.end()


class Leaving(Task):
    """One whose task has raised what ends a program."""

    def get(self) -> str:
        """Raise it."""
        raise SystemExit(3)


def test_a_task_of_celery_may_raise_anything() -> None:
    """It is the wait's, and the thread goes on."""
    task = Leaving()
    task.is_ready = True
    with pytest.raises(SystemExit):
        wait(task, DEADLINE)
    following = Task()
    following.is_ready = True
    assert wait(following, DEADLINE) == "done"


def test_a_result_of_celery_is_not_kept() -> None:
    """By the thread that has brought it: it may be large."""
    task = Task()
    task.is_ready = True
    wait(task, DEADLINE)
    reference = weakref.ref(task)
    del task
    until(lambda: reference() is None)


def test_what_was_given_while_celery_was_asked_is_taken_before_it_is_asked_again(
    lane: Lane,
) -> None:
    """However many wait: a task is revoked soon."""
    asked, go_on = threading.Event(), threading.Event()

    class Slow(Task):
        def ready(self) -> bool:
            asked.set()
            happened(go_on)
            return super().ready()

    slow, others = Slow(), [Task() for _ in range(5)]
    runs = [lane.begin(lambda: wait(slow))]
    happened(asked)
    runs += [lane.begin(lambda each=each: wait(each)) for each in others]  # type: ignore[misc]
    for run in runs:
        run.waiter.cancel(ClientDisconnected("the client has left"))
        lane.settle()
    go_on.set()
    for each in (slow, *others):
        assert each.revoked.wait(DEADLINE)
    assert not [each for each in others if each.looked.is_set()]
    lane.end()


def test_a_forked_child_waits_for_celery_by_itself() -> None:
    """Whatever its parent's threads were at; who waits there does not count here."""
    task = Task()
    kept = engines.Share(task.id)
    codes: list[int] = []
    with engines._counting, registered._lock:
        forked = threading.Thread(target=_fork_and_wait, args=(task, codes))
        forked.start()
        forked.join()
    kept.leave()
    assert codes == [0]


def _fork_and_wait(task: Task, codes: list[int]) -> None:
    child = os.fork()
    if not child:
        signal.alarm(int(DEADLINE))
        try:
            with pytest.raises(TimeoutError):
                wait(task, 0)
            os._exit(0 if task.revoked.wait(DEADLINE) else 1)
        except BaseException:
            traceback.print_exc()
        os._exit(2)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def test_a_result_of_celery_that_nobody_waits_for_is_revoked(lane: Lane) -> None:
    """Also where the broker is gone: then the thread goes on with the others."""
    for each in (Broken(), Task()):
        run = lane.begin(lambda each=each: wait(each))  # type: ignore[misc]
        assert each.looked.wait(DEADLINE)
        run.waiter.cancel(ClientDisconnected("the client has left"))
        lane.settle()
        assert each.revoked.wait(DEADLINE)
        assert isinstance(run.raised, ClientDisconnected)
    lane.end()


def test_a_result_of_celery_that_another_waits_for_is_not_revoked(lane: Lane) -> None:
    """Only when the last has left."""
    task = Task()
    runs = [lane.begin(lambda: wait(task)) for _ in range(2)]
    for number, run in enumerate(runs):
        assert task.looked.wait(DEADLINE)
        assert not task.revoked.is_set()
        run.waiter.cancel(ClientDisconnected("the client has left"))
        lane.settle()
        task.looked.clear()
        if number:
            assert task.revoked.wait(DEADLINE)
    lane.end()


def test_the_tasks_before_one_in_a_chain_of_celery_are_revoked_with_it(lane: Lane) -> None:
    """None that has ended, or that another waits for, nor what is before that."""
    for done, kept in ((None, None), (1, None), (None, 1)):
        chain = [Task() for _ in range(4)]
        for before, after in pairwise(chain):
            after.parent = before
        if done is not None:
            chain[done].is_ready = True
        share = None if kept is None else engines.Share(chain[kept].id)
        run = lane.begin(lambda it=chain[-1]: wait(it))  # type: ignore[misc]
        assert chain[-1].looked.wait(DEADLINE)
        run.waiter.cancel(ClientDisconnected("the client has left"))
        lane.settle()
        expected = chain if done is kept is None else chain[2:]
        for each in expected:
            assert each.revoked.wait(DEADLINE)
        following = Task()  # when it has been looked at, all that was given before has been done
        following.is_ready = True
        assert wait(following, DEADLINE) == "done"
        assert [each for each in chain if each.revoked.is_set()] == expected
        if share is not None:
            share.leave()
    lane.end()


class RemoteFuture:
    """A future of Dask's, whose task has ended; it has not called back."""

    key = "key"

    def __init__(self) -> None:
        self.client = self
        self.asked: list[str] = []
        self.callbacks: list[Callable[[Any], object]] = []

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        """Keep it."""
        self.callbacks.append(call)

    def done(self) -> bool:
        """It is."""
        return True

    def cancel(self) -> None:
        """Come too late."""

    def result(self) -> str:
        """Note on which thread it was asked for."""
        self.asked.append(threading.current_thread().name)
        return "done"


def test_a_result_of_dask_is_not_fetched_where_its_wait_ends_early(lane: Lane) -> None:
    """It may come over the network, for which a lane would stand still."""
    future = RemoteFuture()
    run = lane.begin(lambda: wait(engines.of_dask(future)))
    run.waiter.cancel(ClientDisconnected("the client has left"))
    lane.settle()
    assert isinstance(run.raised, ClientDisconnected)
    assert not future.asked
    thread = threading.Thread(target=lambda: future.callbacks[0](future), name="dask")
    thread.start()
    thread.join()
    assert set(future.asked) <= {"dask"}
    lane.end()


class Reference:
    """An ``ObjectRef`` of Ray."""

    def __init__(self, future: Future[str]) -> None:
        self._future = future

    def future(self) -> Future[str]:
        """Return the future of what it refers to."""
        return self._future


def test_a_task_of_ray_is_cancelled_with_the_wait(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be cancelled is only no longer waited for."""
    cancelled: list[Any] = []

    def cancel(reference: Any) -> None:
        cancelled.append(reference)
        if len(cancelled) > 1:
            raise TypeError("it was put, and not computed")

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(cancel=cancel))
    references = []
    for _ in range(2):
        future: Future[str] = Future()
        reference = Reference(future)
        references.append(reference)
        run = lane.begin(lambda it=reference: wait(engines.of_ray(it)))  # type: ignore[misc]
        run.waiter.cancel(ClientDisconnected("the client has left"))
        lane.settle()
        assert isinstance(run.raised, ClientDisconnected)
        assert future.cancelled()
    assert cancelled == references
    lane.end()


class FinishedLater:
    """A result of Django's tasks, which is finished at the third look."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def is_finished(self) -> bool:
        """Whether it was looked at three times."""
        return self.looks == 3

    async def arefresh(self) -> None:
        """Count the look."""
        self.looks += 1

    @property
    def return_value(self) -> str:
        """What the task returned."""
        return "done"


FinishedLater.__module__, FinishedLater.__qualname__ = "django.tasks.base", "TaskResult"


def test_a_task_of_django_is_looked_at_until_it_is_finished(lane: Lane) -> None:
    """Each look a little later than the one before."""
    result = FinishedLater()
    run = lane.begin(lambda: wait(result))
    for looks in range(3):
        lane.settle()
        assert not run.ended
        assert result.looks == looks
        lane.loop.advance(engines.FIRST * 1.5**looks)
    lane.settle()
    assert run.value == "done"
    lane.end()
