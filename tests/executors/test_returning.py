"""Settled waits on their way back to their lanes."""

import asyncio
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from bide.executors.returning import ABREAST, AT_ONCE, SPATE, Returning
from bide.waiting.outcome import Wait
from tests.fakes import ManualLoop, Wakes


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """Return a loop that runs when the test says so."""
    loop = ManualLoop()
    yield loop
    loop.close()


def bring(loop: ManualLoop, returning: Returning, *inboxes: "SimpleQueue[object]") -> list[Wait]:
    """Have the loop settle a wait for each of these, in one turn."""
    waits = [Wait(Wakes()) for _ in inboxes]

    def settle() -> None:
        for inbox, wait in zip(inboxes, waits, strict=True):
            returning.bring(inbox, wait)

    loop.call_soon(settle)
    loop.turn()
    return waits


def taken(inbox: "SimpleQueue[object]") -> list[Any]:
    """Take what is in an inbox."""
    return [inbox.get() for _ in range(inbox.qsize())]


def test_a_few_waits_come_at_once(loop: ManualLoop) -> None:
    """Again and again, as long as they do not come close together."""
    returning = Returning(loop, loop.time)
    inbox: SimpleQueue[object] = SimpleQueue()
    for count in (1, AT_ONCE, 1, AT_ONCE):
        loop.now += SPATE * 2
        waits = bring(loop, returning, *[inbox] * count)
        assert taken(inbox) == waits
    assert not loop._ready  # type: ignore[attr-defined]


def test_a_spate_does_not_end_before_there_is_a_pause(loop: ManualLoop) -> None:
    """However many turns of the loop it takes."""
    returning = Returning(loop, loop.time)
    inbox: SimpleQueue[object] = SimpleQueue()
    loop.now += 1
    for count in (AT_ONCE, 1, 2):
        bring(loop, returning, *[inbox] * count)
        assert len(taken(inbox)) == (count if count == AT_ONCE else 0)
        loop.turn()
        assert len(taken(inbox)) == (0 if count == AT_ONCE else count)
        loop.now += SPATE / 2


def test_a_lane_gets_its_waits_together_and_a_few_lanes_in_a_turn(loop: ManualLoop) -> None:
    """But for the first waits, which do not know of the others; all come, in their order."""
    returning = Returning(loop, loop.time)
    lanes: list[SimpleQueue[object]] = [SimpleQueue() for _ in range(2 * ABREAST)]
    loop.now += 1
    waits = bring(loop, returning, *[lanes[0]] * AT_ONCE, *lanes, *lanes)
    first, waits = waits[:AT_ONCE], waits[AT_ONCE:]
    assert [taken(lane) for lane in lanes] == [first, *[[]] * (2 * ABREAST - 1)]
    each = [[waits[at], waits[at + len(lanes)]] for at in range(len(lanes))]
    loop.turn()
    assert [taken(lane) for lane in lanes] == [*each[:ABREAST], *[[]] * ABREAST]
    late = bring(loop, returning, lanes[0])  # behind the others
    assert [taken(lane) for lane in lanes] == [*[[]] * ABREAST, *each[ABREAST:]]
    loop.turn()
    assert taken(lanes[0]) == late


def test_what_is_on_its_way_comes_before_the_loop_may_turn_no_more(loop: ManualLoop) -> None:
    """A server that stops tells its executor."""
    returning = Returning(loop, loop.time)
    lanes: list[SimpleQueue[object]] = [SimpleQueue() for _ in range(2 * ABREAST)]
    loop.now += 1
    waits = bring(loop, returning, *lanes, *lanes)
    returning.bring_all()
    assert [taken(lane) for lane in lanes] == [
        [waits[at], waits[at + len(lanes)]] for at in range(len(lanes))
    ]


def test_what_another_thread_settles_comes_at_once(loop: ManualLoop) -> None:
    """However many: it has the interpreter's lock for a turn only."""
    returning = Returning(loop, loop.time)
    inbox: SimpleQueue[object] = SimpleQueue()
    waits = [Wait(Wakes()) for _ in range(3)]
    assert asyncio._get_running_loop() is None
    for wait in waits:
        returning.bring(inbox, wait)
    assert taken(inbox) == waits
