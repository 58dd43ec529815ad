"""The loop executor: conversations on the event loop's own thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.executors.loop import LoopExecutor
from bide.waiting.api import wait
from bide.waiting.outcome import Signal
from tests.fakes import ManualLoop, Run


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that runs when the test says so."""
    loop = ManualLoop()
    yield loop
    loop.settle()
    assert not asyncio.all_tasks(loop)
    loop.close()


@pytest.fixture
def executor(loop: ManualLoop) -> Iterator[LoopExecutor]:
    """Return an executor; all its jobs have ended when the test has."""
    executor = LoopExecutor(loop)
    yield executor
    loop.settle()
    assert executor.waiting == 0
    executor.stop()
    assert executor.hubs[0].idle == []


def begin(loop: ManualLoop, executor: LoopExecutor, function: Callable[[], Any]) -> Run:
    """Run a function as a conversation, begun on the loop."""
    run = Run(function, executor.waiter())
    loop.call_soon(executor.submit, run)
    loop.turn()
    return run


def test_a_job_runs_at_once_on_the_loops_thread(loop: ManualLoop, executor: LoopExecutor) -> None:
    """Until it ends or waits; none is refused, none queued, none held back."""
    run = Run(lambda: asyncio._get_running_loop(), executor.waiter())

    def submit() -> None:
        assert executor.submit(run)
        assert run.value is loop

    loop.call_soon(submit)
    loop.turn()
    assert run.ended
    assert executor.queued == 0
    assert executor.expire(0, [run]) == []
    assert executor.flush() is False


def test_a_wait_parks_and_the_loop_goes_on(loop: ManualLoop, executor: LoopExecutor) -> None:
    """It is resumed by a later turn."""
    signal = Signal()
    run = begin(loop, executor, lambda: wait(signal))
    assert executor.waiting == 1
    loop.call_soon(signal.fire, "value")
    loop.settle()
    assert run.value == "value"


def test_a_conversation_never_runs_inside_a_tasks_step(
    loop: ManualLoop, executor: LoopExecutor
) -> None:
    """A task fires its promise: what runs then must not pass for that task."""
    signal = Signal()
    run = begin(loop, executor, lambda: (wait(signal), asyncio.current_task(loop)))
    seen: list[bool] = []

    async def fire() -> None:
        signal.fire("value")
        seen.append(run.ended)

    loop.create_task(fire())
    loop.settle()
    assert seen == [False]
    assert run.value == ("value", None)


def test_a_promise_fired_in_another_thread_resumes_on_the_loop(
    loop: ManualLoop, executor: LoopExecutor
) -> None:
    """Only there."""
    signal = Signal()
    run = begin(loop, executor, lambda: (wait(signal), threading.get_ident()))
    thread = threading.Thread(target=signal.fire, args=["value"])
    thread.start()
    thread.join()
    assert not run.ended
    loop.settle()
    assert run.value == ("value", threading.get_ident())


def test_a_coroutine_and_its_conversation_take_turns(
    loop: ManualLoop, executor: LoopExecutor
) -> None:
    """On one thread, each in its own place."""

    async def twice() -> list[Any]:
        await asyncio.sleep(0)
        return [asyncio.current_task() is not None]

    run = begin(loop, executor, lambda: [wait(twice()), wait(twice())])
    loop.settle()
    assert run.value == [[True], [True]]


def test_the_executor_runs_one_thread_that_is_none_of_its_own(executor: LoopExecutor) -> None:
    """For the status, and ``wsgi.multithread``."""
    assert (executor.threads, executor.threads_busy, executor.threads_max) == (0, 0, 0)
    assert not executor.multithread
    (hub,) = executor.hubs
    assert hub.name == "the event loop"
    assert hub.thread == threading.get_ident()
