"""What all connections hold together: an exact sum, whoever adds to it and when."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from bide.exchange.totals import Total


@pytest.mark.parametrize(
    ("bound", "used", "full"), [(10, 9, False), (10, 10, True), (10, 11, True), (0, 10**9, False)]
)
def test_total_is_full_from_its_bound_on(bound: int, used: int, full: bool) -> None:
    """A bound of 0 is none."""
    total = Total(bound)
    total.add(used)
    assert total.full is full
    total.add(-used)
    assert (total.used, total.full) == (0, False)


def test_total_is_exact_when_many_threads_add() -> None:
    """None of them waits for another, and none is forgotten."""
    total = Total(1)
    begin = threading.Barrier(8)

    def add(number: int) -> None:
        begin.wait()
        for _ in range(5000):
            total.add(number)
            total.add(-1)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total.used == 5000 * (sum(range(8)) - 8)


class Interrupted(deque[int]):
    """News in the middle of whose summing up a destructor of the same thread adds."""

    def __init__(self, total: Total) -> None:
        super().__init__()
        self.total: Total | None = total

    def popleft(self) -> int:
        """Take one, and let the destructor run first."""
        total, self.total = self.total, None
        if total is not None:
            total.add(5)
        return super().popleft()


def test_total_may_be_added_to_by_a_destructor_while_it_is_summed_up() -> None:
    """It does not wait for the thread that it runs on, and its news is not left for later."""
    total = Total(1)
    total._news = Interrupted(total)
    total.add(1)
    assert total.used == 6


def test_total_takes_news_that_come_when_another_has_just_summed_up() -> None:
    """After its last look, and before it lets others sum up: it looks once more."""
    total = Total(1)

    class Late:
        """A lock before whose release another adds."""

        def __init__(self) -> None:
            self.held = False
            self.acts = [lambda: total.add(5)]

        def acquire(self, blocking: bool) -> bool:
            """Try to take it."""
            if self.held:
                return False
            self.held = True
            return True

        def release(self) -> None:
            """Let the other thread act, and release the lock."""
            while self.acts:
                self.acts.pop()()
            self.held = False

    total._summing = Late()  # type: ignore[assignment]
    total.add(1)
    assert total.used == 6
