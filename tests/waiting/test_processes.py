"""Calls in other processes: their outcomes, their ends, and what is left of them."""

from __future__ import annotations

import concurrent.futures
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bide
from bide.errors import ProcessDied, ProcessesBusy
from bide.waiting import children, processes
from bide.waiting.payloads import CALL, dump, load, receive, send
from bide.waiting.process_bounds import ProcessCounts, bounds
from bide.waiting.processes import ProcessPool, in_process
from tests.failures import Failures, same
from tests.pools import Make, Meeting, alive, own_pool, pool_of
from tests.served import DEADLINE, happened, until
from tests.waiting import heavy
from tests.waiting.heavy import Block

__all__ = ["own_pool", "pool_of"]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Return the path of a file that a process writes."""
    return tmp_path / "told"


def call(pool: ProcessPool, function: Callable[..., Any], *args: Any) -> Any:
    """Make a call, and return its promise."""
    return pool.submit(function, args, {})


def result(pool: ProcessPool, function: Callable[..., Any], *args: Any) -> Any:
    """Make a call, and return its result."""
    return call(pool, function, *args).result(DEADLINE)


def blocked(pool: ProcessPool, told: Path) -> tuple[Any, int]:
    """Have a call that never ends begin; return its promise, and its process."""
    promise = call(pool, heavy.block, str(told))
    until(told.exists)
    return promise, int(told.read_text())


# What passes ------------------------------------------------------------------------------------


def test_a_message_of_many_parts_passes_a_socket_and_its_memory_is_not_copied() -> None:
    """Large ones stand beside the pickle; they come in pieces."""
    value = [Block(bytearray([number % 256]) * number * 100) for number in range(200)]
    parts = dump(value)
    assert len(parts) == 201
    assert len(parts[0]) < 10_000
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=send, args=(ours, CALL, parts))
        thread.start()
        kind, came = receive(theirs)
        thread.join()
        assert kind == CALL
        loaded = load(came)
        same([bytes(each.data) for each in loaded], [bytes(each.data) for each in value])
        loaded[3].data[0] = 7
        assert came[4][0] == 7, "it was copied"
        ours.sendall(b"\1\0")
        ours.close()
        with pytest.raises(EOFError):
            receive(theirs)


def test_a_call_returns_its_value_or_raises_its_error(pool_of: Make) -> None:
    """With what was given; an error has the traceback of the other process."""
    pool = pool_of(1)
    assert pool.submit(heavy.add, (1,), {"two": 2}).result(DEADLINE) == 3
    doubled = result(pool, heavy.double, Block(b"ab" * 100_000))
    assert bytes(doubled.data) == b"ab" * 200_000
    cases = {
        "error": (KeyError, "'missing'"),
        "stubborn": (RuntimeError, "StubbornError, which cannot be pickled: 1 and 2"),
        "exit": (SystemExit, "3"),
        "value": (TypeError, "cannot pickle '_thread.lock' object"),
    }
    with Failures() as failures:
        for what, (expected, text) in cases.items():
            with failures.of(what):
                error = call(pool, heavy.fail, what).exception(DEADLINE)
                same((type(error), str(error)), (expected, text))
                assert "Traceback" in error.__notes__[0]
    assert result(pool, heavy.process) == result(pool, heavy.process)


def test_what_cannot_be_sent_is_told_at_the_line(pool_of: Make) -> None:
    """And costs no process."""
    pool = pool_of(1)
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        call(pool, heavy.process, threading.Lock())
    with pytest.raises(Exception, match="local object"):
        call(pool, lambda: None)
    main = type("f", (), {"__module__": "__main__", "__name__": "f", "__call__": heavy.process})
    with pytest.raises(ValueError, match="move it into a module"):
        in_process(main)
    assert pool.counts() == ProcessCounts()


def test_a_wait_blocks_where_there_is_no_server(own_pool: ProcessPool) -> None:
    """And ``bide.status()`` tells of the processes."""
    assert bide.wait(bide.in_process(heavy.add, 1, two=1), DEADLINE) == 2
    until(lambda: bide.status().processes_busy == 0)
    assert own_pool.counts() == ProcessCounts(1)
    assert bide.status().processes == 1


# Ends -------------------------------------------------------------------------------------------


def test_a_process_that_dies_is_an_error_of_its_call_alone(pool_of: Make, told: Path) -> None:
    """In the midst of its code, or of its answer; another call goes on, and the next is served."""
    pool = pool_of(2)
    going_on = call(pool, heavy.until, str(told), 7)
    cases: dict[str, tuple[Any, str]] = {
        "kill": (
            (heavy.die,),
            "the process that called tests.waiting.heavy.die was killed by SIGKILL",
        ),
        "crash": ((heavy.die, signal.SIGSEGV), "was killed by SIGSEGV"),
        "exit": ((heavy.leave, 3), "has ended with exit code 3"),
        "half an answer": ((heavy.die_in_the_answer,), "was killed by SIGKILL"),
    }
    with Failures() as failures:
        for what, (made, text) in cases.items():
            with failures.of(what):
                error = call(pool, *made).exception(DEADLINE)
                assert isinstance(error, ProcessDied)
                assert text in str(error)
                same(result(pool, heavy.add, 1, 2), 3)
    told.touch()
    assert going_on.result(DEADLINE) == 7


def test_what_a_call_forks_is_not_its_process(pool_of: Make, told: Path) -> None:
    """It answers nothing, it holds no call, and signals end it."""
    pool = pool_of(1)
    assert result(pool, heavy.come_back_forked) == 0
    assert result(pool, heavy.add, 1, 2) == 3
    error = call(pool, heavy.die_with_a_fork, str(told)).exception(DEADLINE)
    told.touch()
    assert isinstance(error, ProcessDied)
    assert result(pool, heavy.end_others) == [-signal.SIGTERM] * 2


def test_signals_to_all_processes_of_a_server_end_no_call(pool_of: Make, told: Path) -> None:
    """The server answers them; a program that a call starts is not deaf to them."""
    pool = pool_of(1)
    number = result(pool, heavy.process)
    going_on = call(pool, heavy.until, str(told), 7)
    for each in ("HUP", "INT", "TERM", "USR1", "USR2"):
        os.kill(number, getattr(signal, f"SIG{each}"))
    told.touch()
    assert going_on.result(DEADLINE) == 7
    assert result(pool, heavy.process) == number


def test_a_process_that_dies_before_it_has_begun_a_call_costs_nothing(pool_of: Make) -> None:
    """It was idle, or has just received it: another one makes the call."""
    pool = pool_of(1)
    idle = result(pool, heavy.process)
    os.kill(idle, signal.SIGKILL)
    second = result(pool, heavy.process)
    received = result(pool, heavy.die_at_the_next_call)
    assert second == received != idle
    assert result(pool, heavy.process) not in (idle, received)


def test_processes_that_are_killed_at_any_moment_mix_no_answers_up(pool_of: Make) -> None:
    """Each call has its own answer, or was cancelled, or had a process that died."""
    pool = pool_of(2)
    chance = random.Random(36)
    kills = 0
    promises: list[Any] = []
    for number in range(300):
        promises.append(call(pool, heavy.double, Block(b"%d " % number * chance.choice((1, 5000)))))
        what = chance.random()
        if what < 0.1:
            chance.choice(promises).cancel()
        elif what < 0.2:
            child = chance.choice(pool.workers).child
            if child is not None:
                kills += 1
                child.kill()
        if number % 50 == 49:
            concurrent.futures.wait(promises, DEADLINE)
    died = 0
    for number, promise in enumerate(promises):
        if not promise.cancelled():
            error = promise.exception(DEADLINE)
            died += isinstance(error, ProcessDied)
            assert error is None or isinstance(error, ProcessDied)
            assert error or set(bytes(promise.result().data).split()) == {b"%d" % number}
    assert died <= kills
    assert result(pool, heavy.add, 1, 2) == 3


def test_an_answer_that_finds_no_memory_is_not_the_next_ones(
    pool_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left unread, and its process is given up with it."""
    pool = pool_of(1)
    came = 0

    def received(sock: socket.socket) -> Any:
        nonlocal came
        came += 1
        if came == 2:  # the answer; the first says that the call has begun
            raise MemoryError
        return receive(sock)

    monkeypatch.setattr(processes, "receive", received)
    assert isinstance(call(pool, heavy.add, 1, 1).exception(DEADLINE), MemoryError)
    assert result(pool, heavy.add, 2, 2) == 4


def test_processes_that_cannot_be_started_are_told(
    pool_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends at once, and a program that is not there."""
    pool = pool_of(1)
    for program, text in {
        "/bin/false": "has ended with exit code 1",
        "/none": "cannot be start",
    }.items():
        monkeypatch.setattr(children, "get_executable", lambda program=program: program)
        error = call(pool, heavy.process).exception(DEADLINE)
        assert text in str(error)
    monkeypatch.undo()


def test_a_cancelled_call_is_ended_and_its_process_too(pool_of: Make, told: Path) -> None:
    """One in the queue never begins; the next has a new process."""
    pool = pool_of(1)
    promise, number = blocked(pool, told)
    queued, last = call(pool, heavy.die), call(pool, heavy.process)
    assert pool.counts() == ProcessCounts(1, 1, 2)
    assert queued.cancel()
    assert pool.counts() == ProcessCounts(1, 1, 1)
    assert promise.cancel()
    assert promise.cancel(), "it is cancelled"
    assert not concurrent.futures.wait([promise, queued], 0).not_done
    assert last.result(DEADLINE) != number
    assert not alive(number)
    assert not last.cancel()


@pytest.mark.usefixtures("own_pool")
def test_a_wait_whose_time_is_over_ends_its_call(told: Path) -> None:
    """And the process is free for another."""
    with pytest.raises(TimeoutError):
        bide.wait(in_process(heavy.block, str(told)), 0.001)
    assert bide.wait(in_process(heavy.add, 1, 1), DEADLINE) == 2


@pytest.mark.parametrize("first", ["the cancellation", "the outcome"])
def test_an_outcome_and_a_cancellation_meet_in_any_order(
    pool_of: Make, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """The next call has its own answer, and a process is ended only for the call that it makes."""
    pool = pool_of(1)
    number = result(pool, heavy.process)
    meeting = Meeting(pool, monkeypatch, outcome_first=first == "the outcome")
    promise = call(pool, heavy.add, 1, 1)
    meeting.await_outcome()
    assert promise.cancel(), "nobody has seen the result yet"
    meeting.leave()
    after = result(pool, heavy.process)
    assert promise.cancelled()
    until(lambda: not concurrent.futures.wait([promise], 0).not_done)
    assert (after == number) is (first == "the outcome")


def test_a_cancellation_while_the_process_is_started_ends_the_call(
    pool_of: Make, monkeypatch: pytest.MonkeyPatch, told: Path
) -> None:
    """There is nothing to be killed yet, and nothing may be begun."""
    pool = pool_of(1)
    starting, go_on = threading.Event(), threading.Event()
    popen = subprocess.Popen

    def start(*args: Any, **kwargs: Any) -> Any:
        starting.set()
        happened(go_on)
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", start)
    promise = call(pool, heavy.until, str(told), 1)
    happened(starting)
    assert promise.cancel()
    go_on.set()
    assert result(pool, heavy.add, 2, 2) == 4


def test_what_waits_for_a_thread_that_cannot_be_started_is_told(
    pool_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other thread would come for it; and the next call has one again."""
    pool = pool_of(1)
    queued: list[Any] = []

    def start(_: threading.Thread) -> None:
        queued.append(call(pool, heavy.add, 1, 1))
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        call(pool, heavy.add, 1, 1)
    monkeypatch.undo()
    monkeypatch.setattr(bounds, "processes", 1)
    with pytest.raises(RuntimeError, match="can't start"):
        queued[0].result(DEADLINE)
    assert result(pool, heavy.add, 1, 1) == 2
    assert pool.counts() == ProcessCounts(1)


def test_so_many_calls_wait_and_no_more(pool_of: Make, told: Path) -> None:
    """Then another is refused at the line."""
    pool = pool_of(1, queue=1)
    first = call(pool, heavy.until, str(told), 1)
    second = call(pool, heavy.add, 1, 1)
    with pytest.raises(
        ProcessesBusy, match="all 1 processes of in_process are busy, and 1 calls wait"
    ):
        call(pool, heavy.add, 1, 2)
    told.touch()
    assert (first.result(DEADLINE), second.result(DEADLINE)) == (1, 2)


PROGRAM = """
import os, sys, threading
import bide
from tests.waiting import heavy

promise = bide.in_process(heavy.block, sys.argv[1])
while not os.path.exists(sys.argv[1]):
    pass
if sys.argv[2] == "fork":
    child = os.fork()
    if not child:
        own = bide.in_process(heavy.add, 1, 1).result(20)
        os._exit(own)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
elif sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["ends", "kill", "fork"])
def test_no_process_is_left_when_the_program_ends(told: Path, how: str) -> None:
    """By itself, or killed; a forked child has processes of its own."""
    # Python 3.12 and later warn of a fork beside threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(told), how]
    done = subprocess.run(command, timeout=DEADLINE, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-9 if how == "kill" else 0, "")
    number = int(told.read_text())
    until(lambda: not alive(number), "a process is left")
