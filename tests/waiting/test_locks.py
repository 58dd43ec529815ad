"""What stands in the way of a wait is found among the frames, and as well without them."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from bide import wait
from bide.waiting import parking
from bide.waiting.locks import LOOP, QUICK, SERVER, begins, holds_lock, is_clear, obstacle
from bide.waiting.outcome import Signal
from tests.failures import Failures, same
from tests.fakes import Lane


def look() -> tuple[str, bool]:
    """Return what the frames say, and whether nothing was seen without them."""
    return obstacle(sys._getframe(1)), QUICK and is_clear()


def in_a_generator() -> Any:
    """Look in a generator."""

    def run() -> Any:
        yield look()

    return next(run())


def called_by_c() -> Any:
    """Look in a function that C has called."""
    return next(map(lambda _: look(), "a"))  # noqa: C417 - it is C that calls


def in_a_coroutine() -> Any:
    """Look in a coroutine that no loop runs."""

    async def run() -> Any:
        return look()

    try:
        run().send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError


def in_an_async_generator() -> Any:
    """Look in an asynchronous generator."""

    async def run() -> Any:
        yield look()

    try:
        run().__anext__().send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError


def marked(function: Callable[[], Any] = look) -> Any:
    """Call a function, as one that holds a lock."""
    return function()


def conversation(function: Callable[[], Any] = look) -> Any:
    """Call a function, as the beginning of a conversation."""
    return function()


holds_lock(marked)
begins(conversation)

CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "in a function": (lambda: look(), ""),
    "in a generator": (in_a_generator, ""),
    "called by C": (called_by_c, ""),
    "in a coroutine": (in_a_coroutine, LOOP),
    "in an asynchronous generator": (in_an_async_generator, LOOP),
    "under a lock": (marked, SERVER),
    "under a lock, called by C": (lambda: marked(called_by_c), SERVER),
    "in a conversation that began under a lock": (lambda: marked(conversation), ""),
    "in a coroutine of a conversation": (lambda: conversation(in_a_coroutine), LOOP),
}


def test_nothing_is_overlooked_where_no_frame_is_made() -> None:
    """The quick look is as sharp where it is built; the pure form has none."""
    with Failures() as failures:
        for name, (function, found) in CASES.items():
            with failures.of(name):
                same(function(), (found, QUICK and not found))


@pytest.mark.skipif(not QUICK, reason="bide._locks is not built here")
def test_a_wait_makes_no_frame_objects(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would stay for as long as the request is parked."""

    def looks(_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(parking, "obstacle", looks)
    promise = Signal()
    run = lane.begin(lambda: wait(promise))
    promise.fire("value")
    lane.settle()
    assert run.value == "value"
