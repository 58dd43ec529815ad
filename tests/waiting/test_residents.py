"""Objects in other processes: their calls, their streams, their ends, and what is left of them."""

from __future__ import annotations

import concurrent.futures
import functools
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import bide
from bide.errors import ProcessDied, ProcessesBusy, ResidentFailed
from bide.waiting import payloads, resident_pools
from bide.waiting.item_streams import ITEMS
from bide.waiting.payloads import NUMBER, receive
from bide.waiting.process_bounds import ProcessCounts, bounds
from tests.failures import Failures, same
from tests.pools import Keep, Meeting, alive, processes_of, resident
from tests.served import DEADLINE, happened, until
from tests.waiting import tame
from tests.waiting.heavy import Block
from tests.waiting.tame import Animal

__all__ = ["resident"]


def items(promise: Any) -> list[Any]:
    """Return all that a call streams."""
    return list(stream_of(promise))


def stream_of(promise: Any) -> Any:
    """Return the iterator of what a call streams."""
    return bide.iterate(promise, DEADLINE)


def value(promise: Any) -> Any:
    """Return what a call returns."""
    return promise.result(DEADLINE)


# Calls ------------------------------------------------------------------------------------------


def test_a_resident_is_made_once_and_keeps_what_it_has(resident: Keep) -> None:
    """Its methods return values and raise errors; so do coroutine functions, and it itself."""
    kept = resident(Animal)
    assert processes_of(kept).counts() == ProcessCounts()
    cases: dict[str, tuple[Any, Any]] = {
        "a value": (kept.add(1, two=2), 3),
        "a coroutine's": (kept.later(5), 5),
        "its own": (kept({"a": 1}), {"a": 1}),
        "what it keeps": (kept.calls(), 1),
    }
    errors: dict[str, tuple[Any, type[BaseException], str]] = {
        "its error": (kept.fail(), KeyError, "missing"),
        "one that cannot be pickled": (kept.fail("stubborn"), RuntimeError, "1 and 2"),
        "an exit": (kept.fail("exit"), SystemExit, "3"),
        "a result that cannot": (kept.fail("lock"), TypeError, "cannot pickle"),
        "no method": (kept.fly(), AttributeError, "no attribute 'fly'"),
        "no stream": (bide.in_thread(items, kept.add(1)), TypeError, "which is not a stream"),
    }
    with Failures() as failures:
        for what, (promise, expected) in cases.items():
            with failures.of(what):
                same(bide.wait(promise, DEADLINE), expected)
        for what, (promise, kind, text) in errors.items():
            with failures.of(what):
                error = promise.exception(DEADLINE)
                assert isinstance(error, kind)
                assert text in str(error)
    doubled = value(kept.double(Block(b"ab" * 100_000)))
    assert bytes(doubled.data) == b"ab" * 200_000
    status = bide.status().residents[0]
    assert (status.name, status.processes, status.restarts) == ("tests.waiting.tame.Animal", 1, 0)
    assert status.calls == 11
    assert status.memory > 1_000_000 or not Path("/proc").exists()


def test_so_many_processes_make_calls_beside_one_another(resident: Keep, tmp_path: Path) -> None:
    """Each has an object of its own; and no more calls wait than may."""
    kept = resident(Animal, processes=2)
    now = str(tmp_path / "now")
    begun = [tmp_path / "first", tmp_path / "second"]
    running = [kept.until(now, each.name, str(each)) for each in begun]
    until(lambda: all(each.exists() for each in begun))
    queued = [kept.process() for _ in range(2)]
    assert processes_of(kept).counts() == ProcessCounts(2, 2, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "queue", 2)
        with pytest.raises(ProcessesBusy, match=r"all 2 processes of .*tame\.Animal are"):
            kept.process()
    Path(now).touch()
    assert [value(each) for each in running] == ["first", "second"]
    assert {value(each) for each in queued} <= {
        each.child.number for each in processes_of(kept).workers if each.child is not None
    }


def test_what_cannot_be_is_told_at_the_line(resident: Keep) -> None:
    """And costs no process."""
    main = type("f", (), {"__module__": "__main__", "__name__": "f", "__call__": tame.grow})
    with pytest.raises(ValueError, match="move it into a module"):
        resident(main)
    with pytest.raises(ValueError, match="1 or more processes, not 0"):
        resident(Animal, processes=0)
    with pytest.raises(ValueError, match='"finish" or "kill", not \'stop\''):
        resident(Animal, cancel="stop")
    with pytest.raises(Exception, match=r"local object|pickle"):
        resident(lambda: None)
    kept = resident(Animal)
    with pytest.raises(TypeError, match="pickle"):
        kept.add(threading.Lock())
    with pytest.raises(AttributeError, match="_made"):
        kept._made()
    assert repr(kept) == "<bide.resident of tests.waiting.tame.Animal>"
    assert processes_of(kept).counts() == ProcessCounts()


# Streams ----------------------------------------------------------------------------------------


def test_what_a_method_streams_comes_item_by_item(resident: Keep) -> None:
    """From generators of both kinds; their errors come behind what they have streamed."""
    kept = resident(Animal)
    assert items(kept.count(1000)) == list(range(1000))
    assert items(kept.acount(1000)) == list(range(1000))
    assert items(kept.count(0)) == []
    assert items(bide.wait(kept.acount(2), DEADLINE)) == [0, 1]
    assert [len(each.data) for each in items(kept.count(3, "", 100_000))] == [100_000] * 3
    for made, error in {kept.fail_at(3): KeyError, kept.die_at(3): ProcessDied}.items():
        stream = stream_of(made)
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(error):
            next(stream)
    assert value(kept.add(1, 1)) == 2


@pytest.mark.parametrize("method", ["count", "acount"])
def test_a_stream_waits_for_its_reader_and_is_closed_when_that_leaves(
    resident: Keep, tmp_path: Path, method: str
) -> None:
    """Few items are made that nobody has asked for; the next call is made by the same process."""
    kept = resident(Animal)
    number = value(kept.process())
    told = tmp_path / "told"
    promise = getattr(kept, method)(10**9, str(told))
    stream = stream_of(promise)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    until(lambda: len(promise.result()._items._came) == ITEMS)
    stream.close()
    until(told.exists)
    assert 3 + ITEMS <= int(told.read_text()) <= 3 + ITEMS + 4
    assert value(kept.process()) == number


def test_a_stream_that_nobody_can_read_is_closed(resident: Keep, tmp_path: Path) -> None:
    """It was dropped before it began, or after; one that waits for its next item is cancelled."""
    kept = resident(Animal)
    kept.count(10**9)
    assert value(kept.add(1, 1)) == 2
    stream = value(kept.count(10**9))
    del stream
    assert value(kept.add(1, 2)) == 3
    told = tmp_path / "told"
    feed = stream_of(kept.feed(str(told)))
    assert next(feed) == 1
    feed.close()
    until(told.exists)
    assert value(kept.add(1, 3)) == 4


def test_an_item_that_cannot_be_loaded_ends_the_stream(
    resident: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its error; and the next call has its own answer."""
    kept = resident(Animal)
    value(kept.add(1))
    load = payloads.load

    def loaded(parts: Any) -> Any:
        item = load(parts)
        if item == 2:
            raise MemoryError
        return item

    monkeypatch.setattr(resident_pools, "load", loaded)
    stream = stream_of(kept.count(10**9))
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(MemoryError):
        next(stream)
    assert value(kept.add(1, 2)) == 3


# Cancellation -----------------------------------------------------------------------------------


def test_a_call_that_was_cancelled_goes_on_and_its_result_is_nobodys(
    resident: Keep, tmp_path: Path
) -> None:
    """One in the queue never begins; the next has its own answer, from the same process."""
    kept = resident(Animal)
    number = value(kept.process())
    now, begun = tmp_path / "now", tmp_path / "begun"
    running = kept.until(str(now), "late", str(begun))
    queued, last, calls = kept.add(1, 1), kept.process(), kept.calls()
    until(begun.exists)
    assert queued.cancel()
    assert running.cancel()
    assert running.cancel(), "it is cancelled"
    assert not concurrent.futures.wait([running, queued], 0).not_done
    assert processes_of(kept).counts() == ProcessCounts(1, 1, 2)
    now.touch()
    assert value(last) == number
    assert value(calls) == 1, "the one that ran"
    assert not last.cancel()


def test_a_call_that_was_cancelled_ends_with_its_process_by_kill(
    resident: Keep, tmp_path: Path
) -> None:
    """Also one that streams; that is not a failure, and the next call has a new process."""
    kept = resident(Animal, cancel="kill")
    first = value(kept.process())
    told = tmp_path / "told"
    running = kept.block(str(told))
    until(told.exists)
    assert running.cancel()
    second = value(kept.process())
    stream = stream_of(kept.count(10**9))
    next(stream)
    stream.close()
    third = value(kept.process())
    assert len({first, second, third}) == 3
    status = bide.status().residents[0]
    assert (status.restarts, status.failure) == (0, "")


@pytest.mark.parametrize("cancel", ["finish", "kill"])
@pytest.mark.parametrize("first", ["the cancellation", "the outcome"])
def test_an_outcome_and_a_cancellation_meet_in_any_order(
    resident: Keep, monkeypatch: pytest.MonkeyPatch, first: str, cancel: str
) -> None:
    """The next call has its own answer, and a process is ended only for the call that it makes."""
    kept = resident(Animal, cancel=cancel)
    pool = processes_of(kept)
    number = value(kept.process())
    meeting = Meeting(pool, monkeypatch, outcome_first=first == "the outcome")
    promise = kept.add(1, 1)
    meeting.await_outcome()
    assert promise.cancel(), "nobody has seen the result yet"
    meeting.leave()
    assert (value(kept.process()) == number) is (first == "the outcome" or cancel == "finish")
    assert not concurrent.futures.wait([promise], DEADLINE).not_done


@pytest.mark.parametrize("first", ["the cancellation", "the stream"])
def test_the_beginning_of_a_stream_and_a_cancellation_meet_in_any_order(
    resident: Keep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str
) -> None:
    """It is closed, and the next call has its own answer."""
    kept = resident(Animal)
    pool = processes_of(kept)
    ready, go_on = threading.Event(), threading.Event()
    begin = pool.stream

    def held(*args: Any) -> Any:
        if first == "the stream":
            begun = begin(*args)
        ready.set()
        happened(go_on)
        return begin(*args) if first == "the cancellation" else begun

    monkeypatch.setattr(pool, "stream", held)
    told = tmp_path / "told"
    promise = kept.count(10**9, str(told))
    happened(ready)
    assert promise.cancel()
    go_on.set()
    until(told.exists)
    assert value(kept.add(1, 2)) == 3
    assert not concurrent.futures.wait([promise], DEADLINE).not_done


def test_an_answer_of_another_call_is_nobodys(
    resident: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be; if it is all the same, its process is given up."""
    kept = resident(Animal)
    first = value(kept.process())

    def received(sock: Any) -> Any:
        kind, parts = receive(sock)
        if parts:  # not when the next process is ready
            parts[0][:] = NUMBER.pack(1)
        return kind, parts

    monkeypatch.setattr(resident_pools, "receive", received)
    error = kept.add(1, 1).exception(DEADLINE)
    monkeypatch.setattr(resident_pools, "receive", receive)
    assert str(error) == "call 2 was answered as call 1"
    assert value(kept.process()) != first


# Processes that end -----------------------------------------------------------------------------


def test_a_process_that_dies_is_an_error_of_its_call_alone(resident: Keep) -> None:
    """In the midst of its code, or of its answer, the next call has a new process; idle, too."""
    kept = resident(Animal)
    numbers = [value(kept.process())]
    for died, text in {
        kept.die: "the process that called die of tests.waiting.tame.Animal was killed by SIGKILL",
        kept.die_in_the_answer: "was killed by SIGKILL",
    }.items():
        running, queued = died(), kept.process()
        error = running.exception(DEADLINE)
        assert isinstance(error, ProcessDied)
        assert text in str(error)
        numbers.append(value(queued))
    os.kill(numbers[-1], signal.SIGKILL)
    numbers.append(value(kept.process()))
    assert len(set(numbers)) == 4
    assert bide.status().residents[0].restarts == 3


@pytest.mark.parametrize("cancel", ["finish", "kill"])
def test_processes_that_are_killed_at_any_moment_mix_no_answers_up(
    resident: Keep, monkeypatch: pytest.MonkeyPatch, cancel: str
) -> None:
    """Each call has its own answer, or was cancelled, or had a process that died."""
    monkeypatch.setattr(resident_pools, "FIRST_DELAY", 0.001)
    kept = resident(Animal, processes=2, cancel=cancel)
    chance = random.Random(15)
    kills = 0
    promises: list[Any] = []
    for number in range(300):
        promises.append(kept.double(Block(b"%d " % number * chance.choice((1, 5000)))))
        what = chance.random()
        if what < 0.1:
            chance.choice(promises).cancel()
        elif what < 0.15:
            child = chance.choice(processes_of(kept).workers).child
            if child is not None:
                kills += 1
                child.kill()
        elif what < 0.2:
            end = chance.randrange(40)
            stream = stream_of(kept.count(end))
            try:
                assert [each for each, _ in zip(stream, range(20), strict=False)] == [
                    *range(min(end, 20))
                ]
            except (ProcessDied, ResidentFailed):
                assert kills
            stream.close()
        if number % 50 == 49:
            concurrent.futures.wait(promises, DEADLINE)
    failed = 0
    for number, promise in enumerate(promises):
        if not promise.cancelled():
            error = promise.exception(DEADLINE)
            failed += error is not None
            assert error is None or isinstance(error, ProcessDied | ResidentFailed)
            assert error or set(bytes(promise.result().data).split()) == {b"%d" % number}
    assert failed < 300 - kills
    until(lambda: value_or_none(kept.add(1, 2)) == 3)


def value_or_none(promise: Any) -> Any:
    """Return what a call returns; none if it fails."""
    return None if promise.exception(DEADLINE) else promise.result()


class Delays(threading.Event):
    """The end of a pool, whose delays are noted, and are over when a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []
        self.over = threading.Semaphore(0)

    def until_asked(self, times: int) -> None:
        """Return once so many delays have begun."""
        until(lambda: len(self.asked) == times)

    def wait(self, timeout: float | None = None) -> bool:
        """Note a delay, and wait until it is over."""
        if timeout:
            self.asked.append(timeout)
            assert self.over.acquire(timeout=DEADLINE)
        return self.is_set()


def test_a_factory_that_fails_is_called_again_after_a_delay(resident: Keep, tmp_path: Path) -> None:
    """Calls that wait fail with it, and those that come meanwhile; then it serves."""
    food = tmp_path / "food"
    for factory, text in {
        tame.grow: r"tests.waiting.tame.grow has failed \(FileNotFoundError: no food\)",
        tame.die_young: r"has failed \(ProcessDied: its process was killed by SIGKILL\)",
    }.items():
        kept = resident(functools.partial(factory, str(food)))
        pool = processes_of(kept)
        delays = pool.ending = Delays()
        for number in range(7):
            waiting = [kept.add(1, 1), kept.add(1, 2)] if number == 0 else []
            delays.until_asked(number + 1)
            for promise in [*waiting, kept.add(1, 3)]:
                error = promise.exception(DEADLINE)
                assert isinstance(error, ResidentFailed)
                assert re.search(text, str(error))
                assert error.__cause__ is not None
            assert bide.status().residents[-1].failure in text
            if number == 6:
                food.touch()
            delays.over.release()
        same(delays.asked, [1, 2, 4, 8, 16, 30, 30])
        until(lambda: bide.status().residents[-1].processes == 1)
        assert value(kept.add(1, 4)) == 5
        assert bide.status().residents[-1].failure == ""
        food.unlink()


def test_a_process_that_ends_at_each_first_call_is_replaced_after_a_delay(resident: Keep) -> None:
    """One that has answered is replaced at once."""
    kept = resident(Animal)
    pool = processes_of(kept)
    delays = pool.ending = Delays()
    for _ in range(3):
        assert isinstance(kept.die().exception(DEADLINE), ProcessDied)
        delays.over.release()
    assert value(kept.add(1, 1)) == 2
    assert isinstance(kept.die().exception(DEADLINE), ProcessDied)
    assert value(kept.add(1, 1)) == 2
    assert delays.asked == [1, 2, 4]


def test_signals_and_forks_end_no_call(resident: Keep, tmp_path: Path) -> None:
    """The server answers the signals; what a call forks answers nothing."""
    kept = resident(Animal)
    number = value(kept.process())
    now = tmp_path / "now"
    going_on = kept.until(str(now), 7)
    for each in ("HUP", "INT", "TERM", "USR1", "USR2"):
        os.kill(number, getattr(signal, f"SIG{each}"))
    now.touch()
    assert value(going_on) == 7
    assert value(kept.fork()) == 0
    assert value(kept.process()) == number


def test_a_resident_that_is_closed_ends_its_processes_and_takes_no_more_calls(
    resident: Keep, tmp_path: Path
) -> None:
    """While it is idle, makes its object, runs a call, or streams; a second close does nothing."""
    told = tmp_path / "told"

    def idle(kept: bide.Resident) -> Any:
        value(kept.process())
        return None

    def running(kept: bide.Resident) -> Any:
        running, queued = kept.block(str(told)), kept.process()
        until(told.exists)
        return [running.result, queued.result]

    def streaming(kept: bide.Resident) -> Any:
        stream = stream_of(kept.count(10**9))
        next(stream)
        return [lambda: list(stream)]

    with Failures() as failures:
        for begin in (idle, running, streaming):
            with failures.of(begin.__name__):
                with resident(Animal) as kept:
                    late = begin(kept) or []
                    [worker] = processes_of(kept).workers
                    number = worker.child.number if worker.child else 0
                    assert alive(number)
                kept.close()
                for each in late:
                    with pytest.raises(concurrent.futures.CancelledError):
                        each()
                with pytest.raises(RuntimeError, match=r"Animal: its resident is closed"):
                    kept.process()
                until(lambda number=number: not alive(number), "a process is left")  # type: ignore[misc]
                same(bide.status().residents, ())
    making = resident(functools.partial(tame.grow, str(tmp_path / "never")))
    promise = making.process()
    until(lambda: processes_of(making).workers[0].child is not None)
    making.close()
    with pytest.raises(concurrent.futures.CancelledError):
        value(promise)
    until(lambda: processes_of(making).workers[0].child is None, "a process is left")


PROGRAM = """
import os, sys, threading
import bide
from tests.waiting.tame import Animal

kept = bide.resident(Animal)
promise = kept.block(sys.argv[1])
while not os.path.exists(sys.argv[1]):
    pass
if sys.argv[2] == "fork":
    child = os.fork()
    if not child:
        os._exit(kept.add(1, 1).result(20))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
elif sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["ends", "kill", "fork"])
def test_no_process_is_left_when_the_program_ends(tmp_path: Path, how: str) -> None:
    """By itself, or killed; a forked child has processes of its own."""
    told = tmp_path / "told"
    # Python 3.12 and later warn of a fork beside threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(told), how]
    done = subprocess.run(command, timeout=DEADLINE, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-9 if how == "kill" else 0, "")
    number = int(told.read_text())
    until(lambda: not alive(number), "a process is left")
