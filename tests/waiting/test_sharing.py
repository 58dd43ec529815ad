"""The guide's table of what is the request's, the thread's and the process's, row by row.

One request sets something and waits; another one on its thread, and another thread, look at it.
"""

import contextlib
import contextvars
import decimal
import io
import locale
import os
import random
import re
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from bide import in_thread, per_request, wait
from bide.waiting.outcome import Signal
from bide.waiting.thread_locals import kept
from tests.docs.snippets import text_of
from tests.failures import Failures, same
from tests.fakes import Lane, ManualLoop
from tests.served import DEADLINE

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="")
LOCAL = threading.local()
LOCK: Any = threading.RLock()
RANDOM = random.Random(7).getstate()

Block = Callable[[], AbstractContextManager[Any]]
Look = Callable[[], Any]


def mask() -> set[Any]:
    """Return the thread's signal mask."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def set_mask(signals: Any) -> None:
    """Set the signal mask."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def umask() -> int:
    """Return the mask, which can only be read by setting it."""
    was = os.umask(0o77)
    os.umask(was)
    return was


def row(look: Look, put: Callable[[Any], object], value: Any) -> tuple[Block, Look]:
    """Make a row of something that is set, and set back."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        before = look()
        put(value)
        try:
            yield
        finally:
            put(before)

    return block, look


def precision() -> int:
    """Return the precision of Decimal's context."""
    return decimal.getcontext().prec


ROWS: dict[str, tuple[Block, Look]] = {
    "contextvars.ContextVar": row(VARIABLE.get, VARIABLE.set, "set"),
    "decimal.getcontext()": row(
        precision, lambda value: setattr(decimal.getcontext(), "prec", value), 7
    ),
    "decimal.localcontext()": (lambda: decimal.localcontext(prec=7), precision),
    "threading.local": row(
        lambda: getattr(LOCAL, "name", ""), lambda value: setattr(LOCAL, "name", value), "set"
    ),
    "threading.RLock": (lambda: LOCK, lambda: LOCK._is_owned()),
    "signal.pthread_sigmask()": row(mask, set_mask, {signal.SIGUSR2}),
    "warnings.catch_warnings()": (warnings.catch_warnings, lambda: id(warnings.filters)),
    "contextlib.redirect_stdout()": (
        lambda: contextlib.redirect_stdout(io.StringIO()),
        lambda: id(sys.stdout),
    ),
    "contextlib.redirect_stderr()": (
        lambda: contextlib.redirect_stderr(io.StringIO()),
        lambda: id(sys.stderr),
    ),
    "locale.setlocale()": row(
        lambda: locale.setlocale(locale.LC_CTYPE),
        lambda value: locale.setlocale(locale.LC_CTYPE, value),
        "C" if locale.setlocale(locale.LC_CTYPE) != "C" else "C.UTF-8",
    ),
    "os.chdir()": row(os.getcwd, os.chdir, "/"),
    "contextlib.chdir()": (lambda: contextlib.chdir("/"), os.getcwd),
    "os.umask()": row(umask, os.umask, 0o70),
    "os.environ": row(
        lambda: os.environ.get("SHARED_IN_TESTS", ""),
        lambda value: os.environ.__setitem__("SHARED_IN_TESTS", value),
        "set",
    ),
    "sys.setrecursionlimit()": row(sys.getrecursionlimit, sys.setrecursionlimit, 1234),
    "random.seed()": row(random.getstate, random.setstate, RANDOM),
    "socket.setdefaulttimeout()": row(socket.getdefaulttimeout, socket.setdefaulttimeout, 1234.0),
    "sys.setswitchinterval()": row(sys.getswitchinterval, sys.setswitchinterval, 0.004),
}
NAMES: dict[str, Look] = {
    "threading.get_ident()": threading.get_ident,
    "threading.current_thread()": threading.current_thread,
}


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Return a hub on this thread, and take back what is registered meanwhile."""
    before = list(kept)
    lane = Lane(ManualLoop())
    yield lane
    lane.hub.close()
    lane.loop.close()
    kept[:] = before


def whose(lane: Lane, block: Block, look: Look) -> str:
    """Return who sees what a request has set while it waits; the request always sees it."""
    fires = Signal()

    def view() -> bool:
        with block():
            seen = look()
            wait(fires)
            return bool(seen == look() != here)

    def seen_now() -> tuple[Any, Any]:
        return lane.begin(look).value, in_thread(look).result(DEADLINE)

    here, there = seen_now()
    run = lane.begin(view)
    here_now, there_now = seen_now()
    fires.fire()
    lane.settle()
    assert run.value, "the request did not find what it had set"
    if there_now != there:
        return "the process's"
    return "the thread's" if here_now != here else "the request's"


def handled(lane: Lane) -> tuple[bool, BaseException | None]:
    """Return whether a request handles its exception after a wait, and what another handles."""
    fires = Signal()

    def view() -> bool:
        try:
            raise ValueError("the request's")
        except ValueError as error:
            wait(fires)
            return sys.exception() is error

    run = lane.begin(view)
    other: BaseException | None = lane.begin(sys.exception).value
    fires.fire()
    lane.settle()
    return bool(run.value), other


def owners() -> dict[str, str]:
    """Read the guide's table: whose each thing is."""
    text = text_of("docs/guide.md").partition("### What is the thread's")[2].partition("\n**")[0]
    rows = re.findall(r"^\| (.+?) \| (the \w+'s) \|", text, re.MULTILINE)
    return {name: owner for names, owner in rows for name in re.findall("`([^`]+)`", names)}


def test_each_thing_is_whose_the_guide_says(lane: Lane) -> None:
    """Every row of its table; one that it has not is not tried."""
    told = owners()
    assert set(told) == {*ROWS, *NAMES, "sys.exception()"}
    with Failures() as failures:
        for name, (block, look) in ROWS.items():
            with failures.of(name):
                same(whose(lane, block, look), told[name])
        for name, look in NAMES.items():
            with failures.of(name):
                same(told[name], "the thread's")
                same(lane.begin(look).value, look())
                assert in_thread(look).result(DEADLINE) != look()
        with failures.of("sys.exception()"):
            same(told["sys.exception()"], "the request's")
            same(handled(lane), (True, None))


def test_what_is_registered_is_the_request_s(lane: Lane) -> None:
    """As the guide says, of the thread's: a local, and what a getter and a setter stand for."""
    per_request(LOCAL)
    per_request(mask, set_mask)
    for name in ("threading.local", "signal.pthread_sigmask()"):
        assert whose(lane, *ROWS[name]) == "the request's"
