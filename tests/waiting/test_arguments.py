"""What is given to ``wait`` and its company by mistake: the error says what to write instead."""

import asyncio
import contextlib
import datetime
import io
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest

import bide
from bide.waiting.arguments import seconds

untyped: Any = bide
"""What type checkers would find is tried all the same."""


async def fetch() -> int:
    """Stand for an asynchronous library."""
    return 1


async def items() -> AsyncIterator[int]:
    """Stand for a stream of one."""
    yield 1


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[int]:
    """Stand for a connection."""
    yield 1


def work() -> Any:
    """Stand for what blocks."""


NOT_A_FUNCTION = "() calls a function, and was given a value of type int: write "


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (
            lambda: untyped.wait(fetch),
            "fetch is an async function, and not a promise: call it, wait(fetch())",
        ),
        (
            lambda: untyped.wait(items),
            "items is an async generator function: iterate(items()) takes its items",
        ),
        (
            lambda: untyped.wait(work),
            "work is a function, and not a promise: call it, wait(work()), if it returns one; "
            "if it blocks, write wait(in_thread(work))",
        ),
        (
            lambda: untyped.wait(work()),
            "None is not a promise: what was called has returned nothing, and is done; "
            "wait(in_thread(f, x)) waits for a function that blocks",
        ),
        (
            lambda: untyped.wait(items()),
            "async_generator is not a promise: wait for an awaitable, or for an object with "
            "add_done_callback and result, or with addCallback; iterate() takes an async iterable",
        ),
        (
            lambda: untyped.wait_all([fetch(), fetch()]),
            "list is not a promise: give several to wait_all, each by itself, wait_all(a, b) or "
            "wait_all(*promises)",
        ),
        (
            lambda: untyped.wait((fetch(), fetch())),
            "tuple is not a promise: give several to wait_all, each by itself, wait_all(a, b) or "
            "wait_all(*promises)",
        ),
        (
            lambda: untyped.wait_all(fetch(), fetch),
            "fetch is an async function, and not a promise: call it, wait(fetch())",
        ),
        (
            lambda: untyped.wait(fetch(), timeout="1"),
            "a timeout is a number of seconds, 0 or more, not '1', of type str",
        ),
        (
            lambda: untyped.wait_all(fetch(), timeout=datetime.timedelta(1)),
            "a timeout is a number of seconds, 0 or more, not datetime.timedelta(days=1), of type "
            "timedelta",
        ),
        (
            lambda: untyped.Event().wait("1"),
            "a timeout is a number of seconds, 0 or more, not '1', of type str",
        ),
        (
            lambda: untyped.limit(1, timeout="1"),
            "a timeout is a number of seconds, 0 or more, not '1', of type str",
        ),
        (lambda: untyped.limit("1"), "a limit's most is a whole number, not '1', of type str"),
        (
            lambda: untyped.Semaphore("1"),
            "a semaphore's value is a whole number, not '1', of type str",
        ),
        (lambda: untyped.Queue("1"), "a queue's maxsize is a whole number, not '1', of type str"),
        (
            lambda: untyped.in_thread(1),
            f"in_thread{NOT_A_FUNCTION}in_thread(f, x), not in_thread(f(x))",
        ),
        (lambda: untyped.spawn(1), f"spawn{NOT_A_FUNCTION}spawn(f, x), not spawn(f(x))"),
        (
            lambda: untyped.in_process(1),
            f"in_process{NOT_A_FUNCTION}in_process(f, x), not in_process(f(x))",
        ),
        (
            lambda: untyped.in_thread(fetch()),
            "in_thread() calls a function, and was given a coroutine: write wait(fetch())",
        ),
        (
            lambda: untyped.in_thread(fetch),
            "in_thread() calls a function that may block, and fetch is async: write wait(fetch())",
        ),
        (
            lambda: untyped.spawn(fetch()),
            "spawn() calls a function, and was given a coroutine: "
            "write spawn(lambda: wait(fetch()))",
        ),
        (
            lambda: untyped.in_process(fetch),
            "in_process() calls a function that may block, and fetch is async: "
            "give it a function that is not async",
        ),
        (
            lambda: untyped.iterate([1]),
            "iterate() takes an async iterable, not list: a plain for takes it",
        ),
        (
            lambda: untyped.iterate(items),
            "iterate() takes an async iterable, not function: call it, iterate(items())",
        ),
        (
            lambda: untyped.iterate(fetch()),
            "iterate() takes an async iterable, not coroutine: wait for it first, "
            "iterate(wait(...))",
        ),
        (
            lambda: untyped.using(session),
            "using() takes an async context manager, not function: call it, using(session())",
        ),
        (
            lambda: untyped.using(asyncio.TaskGroup),
            "using() takes an async context manager, not type: call it, using(TaskGroup())",
        ),
        (
            lambda: untyped.using(fetch()),
            "using() takes an async context manager, not coroutine: wait for it first, "
            "using(wait(...))",
        ),
        (
            lambda: untyped.using(io.StringIO()),
            "using() takes an async context manager, not StringIO: a plain with takes it",
        ),
        (
            lambda: untyped.on_start(1),
            "on_start() takes a function, which is called later, not a value of type int: "
            "write on_start(f), not on_start(f())",
        ),
        (
            lambda: untyped.on_stop(1),
            "on_stop() takes a function, which is called later, not a value of type int: "
            "write on_stop(f), not on_stop(f())",
        ),
    ],
)
def test_a_mistake_is_told_what_to_write_instead(mistake: Callable[[], Any], said: str) -> None:
    """At once, and no coroutine is left behind, which Python would warn about."""
    with pytest.raises(TypeError) as caught:
        mistake()
    assert str(caught.value) == said


def test_other_numbers_than_floats_are_seconds() -> None:
    """What compares and converts as one."""
    assert seconds(Decimal("0.5")) == 0.5
    with pytest.raises(ValueError, match="0 or more, not nan"):
        seconds(float("nan"))


def test_a_bare_decorator_is_told_its_argument() -> None:
    """``@capable`` above a function."""
    with pytest.raises(ValueError, match=r'write @capable\("async"\) above the application$'):
        untyped.capable(work)


def test_mount_takes_a_mapping() -> None:
    """Not an application alone."""
    with pytest.raises(bide.StartError, match=r'not function: write mount\(\{"/": app\}\)$'):
        untyped.mount(work)
