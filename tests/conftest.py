"""What the tests over a real server are given; tests of single modules need none of it."""

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

from bide.serving import lifetime
from tests.fakes import Lane, ManualLoop
from tests.served import Application, Gate, Log, Served, happened

pytest_plugins = ["tests.progress"]

Serve = Callable[..., Served]

# How many examples properties are tried with. Every run of the tests takes `stable`: the same ones
# each time, so that a run is red for what was changed and nothing else. `make fuzz` takes `search`
# for new ones. Neither has a deadline: a busy machine fails no test.
settings.register_profile(
    "stable",
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search",
    settings.get_profile("stable"),
    max_examples=2000,
    derandomize=False,
    print_blob=True,
)
settings.load_profile("stable")


SLOW = (
    "clients",  # other people's
    "docs",  # programs of the pages
    "examples",
    "hosts",  # other people's servers
    "integrations/django_project",  # PostgreSQL
    "live",  # processes, hundreds of clients, hundreds of megabytes
    "soak",
    "test_pytest_plugin.py",  # whole suites
    "typing",  # type checkers, over all of the pages
)
"""What `make fast` leaves out, beside the contract under other people's servers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have an option to run a part of the tests."""
    parser.addoption(
        "--part",
        default="1/1",
        metavar="K/N",
        help="run the Kth of N parts of the tests: each test is in one part, always the same",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make fast` leaves out; keep the part that is asked for."""
    slow = tuple(f"tests/{each}" for each in SLOW)
    for item in items:
        if item.nodeid.startswith(slow):
            item.add_marker(pytest.mark.slow)
    number, parts = map(int, config.getoption("part").split("/"))
    mine: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (mine if crc32(item.nodeid.encode()) % parts == number - 1 else others).append(item)
    items[:] = mine
    if others:
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return for ``-n auto`` two processes for each core: half of a test's time is waiting."""
    return min(2 * (os.cpu_count() or 1), 16)


def pytest_configure() -> None:
    """Make SIGINT do what it does by default, in the programs of the tests too.

    A shell that runs the tests in the background ignores it for them, and what they start inherits
    that: nothing would end by Control-C.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the collector out of the making of a report.

    It parses the source of what failed. When a greenlet is collected in the midst of that, CPython
    3.11 raises SystemError ("AST constructor recursion depth mismatch"), and the run is over.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Keep what the imports have made from the collector.

    Tests that let it run, to see that nothing is left of a request, then take 2 ms and not 60.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logging_left_alone() -> Iterator[None]:
    """Take back what ``bide.serving.logs.configure`` does to this process."""
    hook, show, last = sys.unraisablehook, warnings.showwarning, logging.lastResort
    yield
    sys.unraisablehook, logging.lastResort = hook, last
    warnings.showwarning = show
    for name in ("bide", "bide.access", "asyncio", "concurrent.futures"):
        vars(logging.getLogger(name)).pop("relay", None)


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what one test's application has registered from the servers of the others."""
    monkeypatch.setattr(lifetime, "_starts", [])
    monkeypatch.setattr(lifetime, "_stops", [])


@pytest.fixture
def lane() -> Iterator[Lane]:
    """Return a lane on this thread; nothing may be left on its loop: no task, no timer."""
    lane = Lane(ManualLoop())
    yield lane
    lane.end()
    lane.loop.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Return a gate that nobody opens before the test's end."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def log() -> Iterator[Log]:
    """Return what Bide logs; a warning or error that the test has not taken fails it."""
    log = Log()
    log.open()
    yield log
    log.close()
    # How much is refused, and when it is said, is the matter of tests/serving/test_refusals.py.
    left = [each for each in log.lines(logging.WARNING) if " requests refused: " not in each]
    assert not left, f"not expected in the log: {left}"


@pytest.fixture
def serve(log: Log) -> Iterator[Serve]:
    """Return what starts servers, which are stopped after the test, all their requests ended."""
    servers: list[Served] = []

    def start(application: Application, **settings: Any) -> Served:
        served = Served(application, **settings)
        servers.append(served)
        return served

    yield start
    for served in servers:
        served.stop()
        status = served.status
        assert (status.running, status.waiting, status.queued) == (0, 0, 0)


@pytest.fixture(scope="session")
def reactor() -> Any:
    """Return Twisted's reactor, running in a thread of its own; it cannot be started twice."""
    from twisted.internet import reactor as module

    reactor: Any = module
    running = threading.Event()
    if not reactor.running:
        threading.Thread(
            target=reactor.run,
            kwargs={"installSignalHandlers": False},
            name="reactor",
            daemon=True,
        ).start()
    reactor.callFromThread(running.set)
    happened(running)
    return reactor


@pytest.fixture(scope="module")
def no_reactor() -> Iterator[None]:
    """Hide a reactor that other tests have started: this module's thread stands for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "twisted.internet.reactor", raising=False)
        yield
