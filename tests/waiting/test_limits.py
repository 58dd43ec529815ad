"""Limits that park: so many at a time, so many wait, and more are refused."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import bide
from bide.errors import ClientDisconnected
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.fakes import Lane, Run
from tests.served import DEADLINE, Environ, Gate, until

GONE = ClientDisconnected("the client has left")


def shown(limit: bide.Limit) -> tuple[int, int, int]:
    """Return how many have it, wait for it, and were refused, as the status shows it."""
    (status,) = (each for each in bide.status().limits if each.name == limit.name)
    return status.taken, status.waiting, status.refused


def view(limit: bide.Limit, gate: bide.Event) -> Callable[[], str]:
    """Return a view that has the limit until a gate opens."""

    def has_it() -> str:
        with limit:
            gate.wait()
            return "done"

    return has_it


def test_as_many_as_it_says_have_it_as_many_wait_and_more_are_refused(lane: Lane) -> None:
    """Who came first is first."""
    gate = bide.Event()
    limit = bide.limit(2, waiting=3, name="two and three")
    runs = [lane.begin(view(limit, gate)) for _ in range(7)]
    assert shown(limit) == (2, 3, 2)
    assert [run.ended for run in runs] == [False] * 5 + [True] * 2
    assert all(isinstance(run.raised, bide.Overloaded) for run in runs[5:])
    gate.set()
    lane.settle()
    assert [run.value for run in runs[:5]] == ["done"] * 5
    assert shown(limit) == (0, 0, 2)
    lane.end()


@pytest.mark.parametrize("granted", [False, True])
def test_a_wait_that_is_too_long_is_refused_and_one_that_is_cancelled_is_not(
    lane: Lane, granted: bool
) -> None:
    """Neither takes a place with it, whatever comes first."""
    opens, opens_later = bide.Event(), bide.Event()
    limit = bide.limit(1, timeout=10.0, name=f"granted {granted}")
    first = lane.begin(view(limit, opens))
    late, gone, last = (lane.begin(view(limit, opens_later)) for _ in range(3))
    lane.loop.advance(9)
    if granted:  # the first leaves, and the second has it, though it has not gone on yet
        opens.set()
        lane.go_on()
        assert first.value == "done"
        assert shown(limit) == (1, 2, 0)
    gone.waiter.cancel(GONE)
    lane.loop.advance(2)
    lane.settle()
    assert late.ended is not granted
    assert isinstance(last.raised, bide.Overloaded)
    assert isinstance(gone.raised, ClientDisconnected)
    opens.set()
    opens_later.set()
    lane.settle()
    assert first.value == "done"
    if granted:
        assert late.value == "done"
    else:
        assert isinstance(late.raised, bide.Overloaded)
    assert shown(limit) == (0, 0, 1 if granted else 2)
    lane.end()


def test_with_no_time_and_no_room_to_wait_it_only_tries(lane: Lane) -> None:
    """Both say the same."""
    for limit in (bide.limit(1, waiting=0, name="none"), bide.limit(1, timeout=0, name="at once")):
        gate = bide.Event()
        first, second = (lane.begin(view(limit, gate)) for _ in range(2))
        assert isinstance(second.raised, bide.Overloaded)
        gate.set()
        lane.settle()
        assert first.value == "done"
    lane.end()


def test_outside_a_request_all_wait(lane: Lane) -> None:
    """Nobody could answer them: a thread blocks, whatever the limit says."""
    gate = bide.Event()
    limit = bide.limit(1, waiting=0, timeout=0, name="outside")
    run: Run = lane.begin(view(limit, gate))
    told: list[str] = []

    def script() -> None:
        with limit:
            told.append("has it")

    thread = threading.Thread(target=script)
    thread.start()
    until(lambda: shown(limit)[1] == 1)
    gate.set()
    lane.settle()
    thread.join(DEADLINE)
    assert told == ["has it"]
    assert run.value == "done"
    lane.end()


def test_it_is_for_functions_too_and_says_what_it_cannot_be_for() -> None:
    """A generator would run after the call."""
    limit = bide.limit(1)

    @limit
    def reports() -> str:
        return "done"

    assert reports() == "done"
    assert limit.name.endswith("reports")

    def blocks() -> object:
        yield b""

    async def items() -> object:
        yield b""

    for function in (blocks, items):
        with pytest.raises(TypeError, match="use `with limit:` in a generator"):
            limit(function)
    for wrong in ({"most": 0}, {"most": 1, "waiting": -1}, {"most": 1, "timeout": -1.0}):
        with pytest.raises(ValueError, match="more"):
            bide.limit(**wrong)


def test_a_limit_that_is_gone_is_not_shown() -> None:
    """Nothing keeps it."""
    limit = bide.limit(1, name="gone soon")
    assert shown(limit) == (0, 0, 0)
    del limit
    assert not [each for each in bide.status().limits if each.name == "gone soon"]


def test_a_forked_child_has_the_limits_that_were_made_before() -> None:
    """As a worker of a server that preloads has. Nobody there will give places back."""
    limit = bide.limit(1, name="before")
    with limit:
        child = os.fork()
        if not child:
            signal.alarm(int(DEADLINE))
            with contextlib.suppress(BaseException):
                found = [shown(limit)]
                with limit:
                    found.append(shown(limit))
                limit.__exit__(None, None, None)  # the block that has forked
                found.append(shown(limit))
                os._exit(0 if found == [(0, 0, 0), (1, 0, 0), (0, 0, 0)] else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert shown(limit) == (1, 0, 0)


def test_a_refused_request_is_answered_503(serve: Serve, gate: Gate) -> None:
    """Through what catches every Exception; and one whose response has begun is cut."""
    limit = bide.limit(1, waiting=1)

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        begins = environ["PATH_INFO"] == "/begins"
        if begins:
            start_response("200 OK", [])(b"begun")
        try:
            with limit:
                bide.wait(gate.promise())
        except Exception as error:  # as a framework does
            raise AssertionError from error
        if not begins:
            start_response("200 OK", [])
        return [b"done"]

    served = serve(application)
    first = [served.request("/") for _ in range(2)]
    until(lambda: shown(limit)[:2] == (1, 1))
    refused = served.get("/")
    assert (refused.status, refused.header("Retry-After")) == (503, "1")
    assert refused.text == "Too many requests wait for the same.\n"
    cut = served.get("/begins")
    assert (cut.status, cut.complete) == (200, False)
    gate.open()
    assert [client.response().text for client in first] == ["done"] * 2


@pytest.mark.parametrize("granted", [False, True])
def test_a_coroutine_shares_the_places_and_takes_none_with_it(granted: bool) -> None:
    """Who is cancelled gives its place back, whether it was granted just then or not."""
    limit = bide.limit(1)
    order: list[str] = []

    @limit
    async def coroutine(name: str) -> str:
        order.append(name)
        return name

    async def main() -> None:
        with limit:
            first, gone, last = (asyncio.create_task(coroutine(each)) for each in "abc")
            thread = threading.Thread(target=lambda: limit(lambda: order.append("thread"))())
            await asyncio.sleep(0)
            assert shown(limit)[:2] == (1, 3)
            thread.start()
            await asyncio.to_thread(until, lambda: shown(limit)[:2] == (1, 4))
            if not granted:
                first.cancel()
                gone.cancel()
                await asyncio.sleep(0)
        if granted:  # the first has it now, and has not gone on
            first.cancel()
            gone.cancel()
        assert await last == "c"
        await asyncio.to_thread(thread.join, DEADLINE)
        assert first.cancelled()
        assert gone.cancelled()

    asyncio.run(main())
    assert order == ["c", "thread"]
    assert shown(limit) == (0, 0, 0)
    assert coroutine.__name__ == "coroutine"


async def within(limit: bide.Limit) -> bytes:
    """Have the limit, as a coroutine."""
    async with limit:
        return b"within"


async def in_group(limit: bide.Limit) -> bytes:
    """Have the limit in a task of a group."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(within(limit))
    return await task


async def blocks(limit: bide.Limit) -> AsyncIterator[bytes]:
    """Have the limit for an asynchronous iterator."""
    async with limit:
        yield b"within"


def in_thread(limit: bide.Limit) -> bytes:
    """Have the limit in a thread of its own."""
    with limit:
        return b"within"


ELSEWHERE: dict[str, Callable[[bide.Limit], bytes]] = {
    "a coroutine": lambda limit: bide.wait(within(limit)),
    "several": lambda limit: bide.wait_all(within(limit), asyncio.sleep(0))[0],
    "a group": lambda limit: bide.wait(in_group(limit)),
    "a thread of the coroutine's": lambda limit: bide.wait(asyncio.to_thread(in_thread, limit)),
    "a thread": lambda limit: bide.wait(bide.in_thread(in_thread, limit)),
    "an iterator": lambda limit: next(iter(bide.iterate(blocks(limit)))),
}
"""How a view has something else take a place."""


@pytest.mark.parametrize("bound", ["waiting", "timeout"])
@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_what_a_view_waits_for_is_bound_as_the_view_is(
    serve: Serve, gate: Gate, executor: str, bound: str
) -> None:
    """By how many may wait, and by how long: its request is answered 503."""
    limits = {
        how: bide.limit(1, waiting=0) if bound == "waiting" else bide.limit(1, timeout=0.05)
        for how in ELSEWHERE
    }

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        _, how, what = environ["PATH_INFO"].split("/")
        limit = limits[how]
        if what == "has":
            with limit:
                start_response("200 OK", [])(b"has it")
                bide.wait(gate.promise())
            return []
        try:
            block = ELSEWHERE[how](limit)
        except Exception as error:  # as a framework does
            raise AssertionError from error
        start_response("200 OK", [])
        return [block]

    served = serve(application, executor=executor)
    with Failures() as failures:
        for how, limit in limits.items():
            with failures.of(how):
                path = how.replace(" ", "%20")
                same(served.get(f"/{path}/takes").body, b"within")
                holder = served.request(f"/{path}/has")
                until(lambda limit=limit: shown(limit) == (1, 0, 0))  # type: ignore[misc]
                refused = served.get(f"/{path}/takes")
                same((refused.status, refused.header("Retry-After")), (503, "1"))
                same(shown(limit), (1, 0, 1))
                holder.close()
    gate.open()


def test_outside_a_request_nothing_is_refused() -> None:
    """A coroutine, or a thread, waits until there is a place."""
    limit = bide.limit(1, waiting=0)
    with Failures() as failures:
        for how in ("a coroutine", "a thread"):
            with failures.of(how):
                limit.__enter__()
                found: list[bytes] = []
                thread = threading.Thread(
                    target=lambda how=how, found=found: found.append(ELSEWHERE[how](limit))
                )
                thread.start()
                until(lambda: shown(limit) == (1, 1, 0))
                limit.__exit__(None, None, None)
                thread.join(DEADLINE)
                same(found, [b"within"])
