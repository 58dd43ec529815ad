"""What is done to many connections: in parts, and to each whatever fails on another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bide.exchange.totals import Total
from bide.serving.deadlines import Allowances, Look
from bide.serving.rounds import AT_ONCE, abort_all, drain_all, mind_connections, retire_all
from tests.failures import Failures, same
from tests.served import Log


def test_the_loop_has_its_turns_while_many_connections_are_checked() -> None:
    """Each once, in order; one that ends meanwhile is left alone."""
    told: list[Any] = []
    present: set[Any] = set()

    class Idle:
        def __init__(self, number: int) -> None:
            self.number = number

        def mind_time(self, look: Look) -> None:
            told.append(self.number)
            if self.number == 1:
                present.remove(connections[AT_ONCE])

    connections: list[Any] = [Idle(number) for number in range(2 * AT_ONCE + 1)]
    present.update(connections)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        look = Look(1.0, Allowances(1.0, 1.0), Total(0))
        mind_connections(loop, connections, present, look, lambda: told.append("flush"))
        for _ in range(3):
            told.append("turn")
            await asyncio.sleep(0)

    asyncio.run(run())
    first, second = list(range(AT_ONCE)), list(range(AT_ONCE + 1, 2 * AT_ONCE))
    parts = [*first, "flush", "turn", *second, "flush", "turn", 2 * AT_ONCE, "flush", "turn"]
    assert told == parts


def test_a_connection_on_which_something_fails_is_reset_and_the_others_have_their_turns(
    log: Log,
) -> None:
    """In checks, while the server retires, drains and ends; the log says so each time."""

    class One:
        def __init__(self, number: int, fails: bool) -> None:
            self.number, self.fails = number, fails
            self.reset = False

        def done(self, *_: Look) -> None:
            told.append(self.number)
            if self.fails:
                raise ZeroDivisionError

        mind_time = retire = drain = done

        def abort(self) -> None:
            if not self.reset:
                self.reset = True
                if aborts:
                    self.done()

    def mind(connections: list[Any]) -> None:
        async def run() -> None:
            loop = asyncio.get_running_loop()
            look = Look(1.0, Allowances(1.0, 1.0), Total(0))
            mind_connections(loop, connections, connections, look, lambda: told.append("flush"))
            await asyncio.sleep(0)

        asyncio.run(run())

    first = [0, 1, 2]
    parts = [*range(AT_ONCE), "flush", AT_ONCE, AT_ONCE + 1, "flush"]
    cases: list[tuple[Callable[[list[Any]], object], list[Any]]] = [
        (mind, parts),
        (retire_all, first),
        (drain_all, first),
        (abort_all, first),
    ]
    with Failures() as failures:
        for do, expected in cases:
            with failures.of(do.__name__):
                told: list[Any] = []
                aborts = do is abort_all
                size = sum(each != "flush" for each in expected)
                connections = [One(number, number in (1, AT_ONCE)) for number in range(size)]
                do(connections)
                same(told, expected)
                failing = [each.number for each in connections if each.fails]
                reset = range(size) if aborts else failing
                same([each.number for each in connections if each.reset], [*reset])
                for _ in failing:
                    same(log.take("internal error on a connection").exc_info is not None, True)
                same(log.records, [])
