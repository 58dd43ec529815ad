"""Background work and the end of its server, in each order; on a loop that runs by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bide
from bide.errors import ServerStopping, ThreadEnded
from bide.executors.executor import Executor
from bide.executors.loop import LoopExecutor
from bide.executors.spawning import Spawned, Spawner
from bide.waiting.waiter import Waiter
from tests.fakes import ManualLoop
from tests.served import DEADLINE, Log


class Queue(Executor):
    """An executor whose jobs run when the test says so, if they were not taken out before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.jobs: list[Any] = []

    def waiter(self) -> Waiter:
        """Make a job's waiter."""
        return Waiter(self._loop)

    def submit(self, job: Any) -> bool:
        """Keep a job."""
        self.jobs.append(job)
        return True

    def expire(self, age: float, jobs: Any) -> list[Any]:
        """Take out those of ``jobs`` that have not been run."""
        expired = [each for each in self.jobs if each in jobs]
        self.jobs = [each for each in self.jobs if each not in jobs]
        return expired


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that is closed with the test."""
    loop = ManualLoop()
    yield loop
    loop.close()


def spawner_of(loop: ManualLoop, executor: Executor | None = None) -> Spawner:
    """Make one that is open; the test closes it."""
    spawner = Spawner(None, executor or LoopExecutor(loop), loop, 0, lambda: None)
    spawner.open()
    return spawner


def begin(spawner: Spawner, function: Callable[[], object], daemon: bool = False) -> Any:
    """Begin some work."""
    return spawner.begin(function, (), daemon)


def end(loop: ManualLoop, spawner: Spawner) -> None:
    """End all work."""
    task = loop.create_task(spawner.end())
    loop.settle()
    assert task.done()


def test_work_that_comes_to_a_server_that_has_ended_is_not_begun(loop: ManualLoop) -> None:
    """It was spawned before, and the loop had not seen it yet."""
    spawner = spawner_of(loop)
    begun: list[int] = []
    promise = begin(spawner, lambda: begun.append(1))
    spawner.close()
    loop.settle()
    assert isinstance(promise.exception(DEADLINE), ServerStopping)
    assert (begun, spawner.in_progress) == ([], 0)


def test_a_stop_comes_before_the_work_and_after_it(loop: ManualLoop) -> None:
    """Either way its wait raises; what a function has that does not wait is its result."""
    for first in (True, False):
        spawner = spawner_of(loop)
        waiting = begin(spawner, lambda: bide.Event().wait())
        quick = begin(spawner, lambda: "quick")
        if first:
            loop.settle()
        spawner.cancel()
        loop.settle()
        assert isinstance(waiting.exception(DEADLINE), ServerStopping)
        assert quick.result(DEADLINE) == "quick"
        end(loop, spawner)
        spawner.close()


def test_what_no_thread_has_taken_is_not_begun_when_the_server_stops(loop: ManualLoop) -> None:
    """Whether its promise was cancelled or not."""
    spawner = spawner_of(loop, executor := Queue(loop))
    promises = [begin(spawner, lambda: 1, daemon) for daemon in (False, True)]
    dropped = begin(spawner, lambda: 1)
    assert dropped.cancel()
    loop.settle()
    assert len(executor.jobs) == 3
    spawner.cancel()
    assert [type(each.exception(DEADLINE)) for each in promises] == [ServerStopping] * 2
    assert dropped.cancelled()
    end(loop, spawner)
    spawner.close()


def test_work_that_cannot_be_ended_does_not_keep_the_rest(
    loop: ManualLoop, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has begun and what has not; the log says so once for each."""
    for executor in (Queue(loop), None):
        spawner = spawner_of(loop, executor)
        promises = [begin(spawner, lambda: bide.Event().wait()) for _ in range(3)]
        loop.settle()
        first = spawner.jobs[0]
        step = "drop" if executor is not None else "cancel"
        done = getattr(Spawned, step)

        def fail(
            job: Spawned, *args: Any, first: Spawned = first, done: Any = done, **named: Any
        ) -> None:
            done(job, *args, **named)
            if job is first:
                raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(Spawned, step, fail)
            spawner.cancel()
        loop.settle()
        assert [type(each.exception(DEADLINE)) for each in promises] == [ServerStopping] * 3
        assert log.take("could not be told of its end").exc_info
        assert not log.records
        end(loop, spawner)
        spawner.close()


def test_a_daemon_is_ended_and_what_ends_meanwhile_is_seen(loop: ManualLoop) -> None:
    """By itself just before the stop looks, or by the stop."""
    for itself in (True, False):
        spawner = spawner_of(loop)
        event = bide.Event()
        promise = begin(spawner, event.wait, daemon=True)
        loop.settle()
        assert spawner.in_progress == 1
        if itself:
            event.set()
        end(loop, spawner)
        assert promise.done()
        assert isinstance(promise.exception(DEADLINE), ServerStopping) != itself
        assert spawner.in_progress == 0
        spawner.close()


def test_work_whose_thread_has_ended_has_an_error(loop: ManualLoop) -> None:
    """Before it had begun, and in the midst of it; at its end nothing is left to say."""
    spawner = spawner_of(loop, executor := Queue(loop))
    promises = [begin(spawner, lambda: 1) for _ in range(3)]
    loop.settle()
    unbegun, running, ended = executor.jobs
    assert isinstance(unbegun, Spawned)
    unbegun.lost()
    assert running.promise.set_running_or_notify_cancel()
    running.lost()
    thread = threading.Thread(target=ended.run)
    thread.start()
    thread.join(DEADLINE)
    ended.lost()
    assert [type(each.exception(DEADLINE)) for each in promises[:2]] == [ThreadEnded] * 2
    assert promises[2].result(DEADLINE) == 1
    assert spawner.in_progress == 0
    spawner.close()


def test_a_loop_that_is_closed_is_refused_at_the_line(loop: ManualLoop) -> None:
    """And nothing is left in progress."""
    spawner = spawner_of(loop)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        begin(spawner, lambda: 1)
    assert spawner.in_progress == 0
    spawner.close()
