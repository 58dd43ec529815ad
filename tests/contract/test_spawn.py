"""``bide.spawn``: work beside requests, which waits and holds no thread."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

import bide
from bide import ServerStopping, wait
from bide.errors import BideError
from bide.waiting.futures import is_awaited
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import DEADLINE, Environ, Gate, Log, answering, happened, until

ASKED = contextvars.ContextVar("ASKED", default="nobody")


def test_work_goes_on_when_its_request_has_ended_and_holds_no_thread(serve: Serve) -> None:
    """Many pieces of it, beside a request on the one thread there is."""
    gate = Gate()
    ended: list[tuple[int, str]] = []

    def work(number: int) -> str:
        wait(gate.promise())
        ended.append((number, threading.current_thread().name))
        return f"work {number}"

    promises: list[Any] = []

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/spawn":
            promises.extend(bide.spawn(work, number) for number in range(20))
        return "done"

    served = serve(answering(answer), threads=1)
    assert served.get("/spawn").body == b"done"
    until(lambda: (served.status.waiting, served.status.threads_busy) == (20, 0))
    assert served.status.spawned == 20
    seen = [each for each in bide.status().requests if each.method == "spawn"]
    assert len(seen) == 20
    assert {each.target.rpartition(".")[2] for each in seen} == {"work"}
    assert {(each.state, each.waits_for) for each in seen} == {("waiting", "Future")}
    assert served.get("/").body == b"done"
    gate.open()
    assert [each.result(DEADLINE) for each in promises] == [f"work {n}" for n in range(20)]
    assert len(ended) == 20
    assert len({name for _, name in ended}) == 1  # all on the thread that the requests had
    until(lambda: served.status.spawned == 0)
    served.until_idle()


def test_a_request_waits_for_what_it_has_spawned(serve: Serve) -> None:
    """For its result, or its error; and what is spawned by that."""

    def inner() -> str:
        return "inner"

    def outer() -> str:
        return f"{wait(bide.spawn(inner))} of outer"

    spawned: list[Any] = []

    def fails() -> None:
        until(lambda: spawned and is_awaited(spawned[0]))
        raise ValueError("not today")

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/fails":
            spawned.append(bide.spawn(fails))
            try:
                wait(spawned[0])
            except ValueError as error:
                return str(error)
        return str(wait(bide.spawn(outer)))

    served = serve(answering(answer))
    assert served.get("/").body == b"inner of outer"
    assert served.get("/fails").body == b"not today"


def test_an_error_that_nobody_waits_for_is_logged(serve: Serve, log: Log) -> None:
    """SystemExit too: it ends the work alone."""
    errors = [ValueError("not today"), SystemExit("gone")]

    def fail() -> None:
        raise errors.pop()

    def answer(environ: Environ) -> str:
        bide.spawn(fail)
        return "done"

    served = serve(answering(answer))
    for kind in (SystemExit, ValueError):
        assert served.get().body == b"done"
        record = log.take("background work failed")
        assert record.exc_info
        assert record.exc_info[0] is kind
        assert "fail" in record.getMessage()
    served.until_idle()


def test_work_has_a_copy_of_its_request_s_context(serve: Serve) -> None:
    """What it sets is its own."""
    seen: list[str] = []

    def work(gate: Gate) -> None:
        seen.append(ASKED.get())
        ASKED.set("work")
        wait(gate.promise())
        seen.append(ASKED.get())

    def answer(environ: Environ) -> str:
        gate = Gate()
        ASKED.set("request")
        promise = bide.spawn(work, gate)
        gate.open()
        wait(promise)
        return ASKED.get()

    served = serve(answering(answer))
    assert served.get().body == b"request"
    assert seen == ["request", "work"]
    served.get()
    assert seen == ["request", "work"] * 2


def test_a_promise_that_is_cancelled_in_time_is_not_begun(serve: Serve) -> None:
    """The one thread is the request's until it ends."""
    begun: list[int] = []

    def answer(environ: Environ) -> str:
        promise = bide.spawn(begun.append, 1)
        assert promise.cancel()
        return "done"

    served = serve(answering(answer), threads=1)
    assert served.get().body == b"done"
    until(lambda: served.status.spawned == 0)
    assert begun == []


def test_there_is_a_bound(serve: Serve) -> None:
    """One more is refused, at its line."""
    gate = Gate()

    def answer(environ: Environ) -> str:
        try:
            bide.spawn(wait, gate.promise())
        except BideError as error:
            return str(error)
        return "done"

    served = serve(answering(answer), limit_spawned=2)
    assert [served.get().body for _ in range(2)] == [b"done"] * 2
    assert b"--limit-spawned" in served.get().body
    gate.open()
    until(lambda: served.status.spawned == 0)
    assert served.get().body == b"done"


def test_a_server_that_stops_lets_work_end_and_ends_daemons_with_the_last_request(
    serve: Serve, log: Log
) -> None:
    """A daemon is told while it waits, and may clean up; neither is a line in the log."""
    gate = Gate()
    told: list[str] = []

    def lasting() -> None:
        wait(gate.promise())
        told.append("lasting")

    def daemon() -> None:
        try:
            bide.Event().wait()
        except ServerStopping:
            told.append("daemon")
            raise

    def answer(environ: Environ) -> str:
        bide.spawn(lasting)
        bide.spawn(daemon, daemon=True)
        return "done"

    served = serve(answering(answer))
    assert served.get().body == b"done"
    served.until_waiting(2)
    served.tell_to_stop()
    assert served.status.waiting == 2
    gate.open()
    served.join(leaving=True)
    assert told == ["lasting", "daemon"]
    assert log.lines(logging.WARNING) == []


def test_work_that_does_not_end_in_time_is_cancelled(serve: Serve, log: Log) -> None:
    """As a request is."""
    told: list[BaseException] = []
    promises: list[Any] = []

    def endless() -> None:
        try:
            bide.Event().wait()
        except ServerStopping as error:
            told.append(error)
            raise

    def answer(environ: Environ) -> str:
        promises.append(bide.spawn(endless))
        return "done"

    served = serve(answering(answer), graceful_timeout=0.0)
    assert served.get().body == b"done"
    served.until_waiting(1)
    served.begin_stop()
    served.join(leaving=True)
    assert len(told) == 1
    assert isinstance(promises[0].exception(DEADLINE), ServerStopping)
    assert "endless" in log.take("background work has not ended in time").getMessage()


def test_outside_a_request_it_runs_on_the_server_s_threads(serve: Serve) -> None:
    """Called in ``on_start``, and in a thread that an application has."""
    where: list[str] = []
    gate = Gate()

    def work() -> None:
        wait(gate.promise())
        where.append(threading.current_thread().name)

    promises: list[Any] = []
    bide.on_start(lambda: promises.append(bide.spawn(work)))
    served = serve(answering(lambda environ: threading.current_thread().name))
    thread = threading.Thread(target=lambda: promises.append(bide.spawn(work)))
    thread.start()
    thread.join()
    served.until_waiting(2)
    gate.open()
    for each in promises:
        each.result(DEADLINE)
    threads = ("bide-thread-", "the server's loop")
    assert [each.startswith(threads) for each in where] == [True, True]


@pytest.mark.parametrize("executor", ["threads"])
def test_a_request_s_thread_goes_on_beside_work_that_computes(serve: Serve) -> None:
    """It begins on another."""
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        happened(go)

    def answer(environ: Environ) -> str:
        bide.spawn(work)
        happened(begun)
        return "done"

    served = serve(answering(answer), threads=2)
    assert served.get().body == b"done"
    go.set()
    until(lambda: served.status.spawned == 0)


@pytest.mark.parametrize("executor", ["threads"])
def test_a_child_that_work_has_forked_ends_with_the_work(serve: Serve) -> None:
    """Nothing of the server runs in it: the parent's promise has the parent's result."""
    children: list[int] = []
    ways = ["returns", "raises"]

    def work(way: str) -> str:
        child = os.fork()
        if not child:
            if way == "raises":
                raise LookupError("the child's")
            return "the child's"
        children.append(os.waitpid(child, 0)[1])
        return "the parent's"

    served = serve(answering(lambda environ: str(wait(bide.spawn(work, ways.pop(0))))))
    assert [served.get().body for _ in range(2)] == [b"the parent's"] * 2
    assert [os.waitstatus_to_exitcode(each) for each in children] == [0, 1]


def elsewhere(function: Callable[[], Any]) -> Any:
    """Call a function on a thread that is not a server's."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join(DEADLINE)
    return result[0]


def test_without_a_server_it_has_a_thread(log: Log) -> None:
    """Of its own, with the context of the call; its error is logged likewise."""
    ASKED.set("test")
    names: list[str] = []

    def work(word: str) -> str:
        names.append(threading.current_thread().name)
        return f"{word} {ASKED.get()}"

    def fail() -> None:
        raise ValueError("not today")

    with Failures() as failures:
        with failures.of("result"):
            same(bide.spawn(work, "hello").result(DEADLINE), "hello test")
        with failures.of("thread"):
            assert "work" in names[0]
        with failures.of("error"):
            promise = bide.spawn(fail)
            record = log.take("background work failed")
            assert "fail" in record.getMessage()
            assert isinstance(promise.exception(DEADLINE), ValueError)


@pytest.mark.parametrize("executor", ["serial"])
def test_an_application_that_runs_one_request_at_a_time_has_threads_for_it(serve: Serve) -> None:
    """Else it would hold up the next request."""

    @bide.capable("processes")
    def application(environ: Environ, start_response: Any) -> list[bytes]:
        name = wait(bide.spawn(lambda: threading.current_thread().name))
        start_response("200 OK", [("Content-Length", str(len(name)))])
        return [name.encode()]

    served = serve(application, executor="auto")
    assert b"bide-spawned" in served.get().body
