"""The threads of ``in_thread``: how many there are, and that none waits for another in vain."""

import asyncio
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide import in_thread, wait, wait_all
from bide.waiting.thread_pool import THREADS, ThreadPool, waiting_here
from tests.failures import Failures
from tests.served import DEADLINE, happened, until


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    """Return a pool of two threads; they end with the test."""
    pool = ThreadPool(2)
    before = set(threading.enumerate())
    yield pool
    pool._end()
    until(lambda: set(threading.enumerate()) <= before, "a thread has not ended")


def test_a_pool_runs_as_many_calls_at_a_time_as_it_may(pool: ThreadPool) -> None:
    """The others wait for a thread, in their order; threads that are free are used again."""
    opened, begun = threading.Event(), threading.Semaphore(0)
    threads, order = set(), []

    def call(number: int) -> None:
        threads.add(threading.get_ident())
        order.append(number)
        begun.release()
        happened(opened)

    promises = [pool.submit(call, number) for number in range(6)]
    assert all(begun.acquire(timeout=DEADLINE) for _ in range(2))
    assert sorted(order) == [0, 1]
    assert not begun.acquire(blocking=False)
    assert promises[5].cancel()
    assert not promises[0].cancel()
    opened.set()
    for promise in promises[:5]:
        promise.result(DEADLINE)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert len(threads) == 2


def test_a_thread_that_waits_leaves_its_place_and_one_ends_when_it_goes_on(
    pool: ThreadPool,
) -> None:
    """So no more than two run once all have been waited for, and both are there again."""
    inner, release = [threading.Event() for _ in range(4)], threading.Event()

    def wait_for(number: int) -> int:
        result = pool.submit(inner[number].set).result(DEADLINE)
        assert result is None
        with waiting_here():
            happened(release)
        return number

    before = threading.active_count()
    promises = [pool.submit(wait_for, number) for number in range(4)]
    for event in inner:
        happened(event, "a call within a call was never begun")
    release.set()
    assert [each.result(DEADLINE) for each in promises] == [0, 1, 2, 3]
    until(lambda: threading.active_count() - before <= 2, "a thread too many has stayed")
    gate = threading.Barrier(3)
    both = [pool.submit(gate.wait, DEADLINE) for _ in range(2)]
    gate.wait(DEADLINE)
    for each in both:
        each.result(DEADLINE)


class Backlog(deque[Any]):
    """One that calls somebody where a thread has found it empty, before the thread says so."""

    def __init__(self, found_empty: Callable[[], object]) -> None:
        super().__init__()
        self._found_empty = [found_empty]

    def popleft(self) -> Any:
        """Take the first call out."""
        try:
            return super().popleft()
        except IndexError:
            if self._found_empty:
                self._found_empty.pop()()
            raise


def test_a_call_that_comes_while_a_thread_turns_idle_is_not_forgotten() -> None:
    """The thread looks once more when it has said that it is idle."""
    pool, done = ThreadPool(1), threading.Event()
    pool._backlog = Backlog(lambda: pool.submit(done.set))
    pool.submit(int)
    happened(done)
    pool._end()


def test_a_call_that_comes_before_a_thread_leaves_its_place_is_begun(pool: ThreadPool) -> None:
    """It is the only one that waits then: whoever leaves looks for it."""
    gate, left, done = threading.Barrier(3), threading.Event(), threading.Event()

    def leave() -> None:
        gate.wait(DEADLINE)  # both threads run
        happened(left)  # and the call is in the backlog
        with waiting_here():
            happened(done)

    promises = [pool.submit(leave) for _ in range(2)]
    gate.wait(DEADLINE)
    pool.submit(done.set)
    left.set()
    for each in promises:
        each.result(DEADLINE)


def test_a_pool_that_gets_no_thread_says_so_and_forgets_the_call(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not run later behind the caller's back; the place is there for the next one."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in range(3):
            with pytest.raises(RuntimeError, match="can't start"):
                pool.submit(ran.append, number)
    pool.submit(ran.append, 3).result(DEADLINE)
    assert ran == [3]


def test_a_pool_that_has_ended_begins_nothing(pool: ThreadPool) -> None:
    """What was submitted before is done."""
    release, done = threading.Event(), threading.Event()
    for _ in range(2):
        pool.submit(happened, release)
    pool.submit(done.set)
    pool._end()
    with pytest.raises(RuntimeError, match="the program is ending"):
        pool.submit(done.set)
    assert not done.is_set()
    release.set()
    happened(done)


def test_calls_that_wait_for_calls_all_run_however_many() -> None:
    """More than there are threads, three deep; by ``wait``, ``wait_all`` and ``result``."""

    def when_all_run(
        begun: threading.Semaphore, opened: threading.Event, call: Callable[[int], int]
    ) -> int:
        begun.release()
        happened(opened)
        return call(3)

    def by_wait(depth: int) -> int:
        return int(wait(in_thread(by_wait, depth - 1), timeout=DEADLINE)) + 1 if depth else 0

    def by_wait_all(depth: int) -> int:
        calls = [in_thread(by_wait_all, depth - 1)] if depth else []
        return int(sum(wait_all(*calls, timeout=DEADLINE), int(depth > 0)))

    def by_result(depth: int) -> int:
        return in_thread(by_result, depth - 1).result(DEADLINE) + 1 if depth else 0

    def by_exception(depth: int) -> int:
        if not depth:
            return 0
        promise = in_thread(by_exception, depth - 1)
        assert promise.exception(DEADLINE) is None
        return promise.result() + 1

    async def by_task(depth: int) -> int:
        return await asyncio.wrap_future(in_thread(by_coroutine, depth - 1)) + 1

    def by_coroutine(depth: int) -> int:
        return int(wait(by_task(depth), timeout=DEADLINE)) if depth else 0

    with Failures() as failures:
        for call in (by_wait, by_wait_all, by_result, by_exception, by_coroutine):
            with failures.of(call.__name__):
                begun, opened = threading.Semaphore(0), threading.Event()
                promises = [
                    in_thread(when_all_run, begun, opened, call) for _ in range(THREADS + 8)
                ]
                for _ in range(THREADS):
                    assert begun.acquire(timeout=DEADLINE)
                opened.set()
                assert wait_all(*promises, timeout=DEADLINE) == [3] * (THREADS + 8)


ENDING = """
import atexit, threading, bide
opened = threading.Event()

def late():
    try:
        bide.in_thread(print, "never")
    except RuntimeError as error:
        print(error)

def call():
    opened.wait()
    print("done", flush=True)

atexit.register(late)
bide.in_thread(call)
threading._register_atexit(opened.set)
"""


def test_a_program_ends_when_its_calls_have_ended() -> None:
    """As with the standard library's pool; a call that comes later is refused."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "done\nthe program is ending: in_thread() starts no more calls\n"
