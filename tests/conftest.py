"""What the tests over a real server are given; tests of single modules need none of it."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serving import Application, Log, Served, happened

Serve = Callable[..., Served]


@pytest.fixture
def log() -> Iterator[Log]:
    """Give what Bide logs; a warning or error that the test has not taken fails it."""
    log = Log()
    log.open()
    yield log
    log.close()
    # How much is refused, and when it is said, is the matter of tests/test_refusals.py.
    left = [each for each in log.lines(logging.WARNING) if " requests refused: " not in each]
    assert not left, f"not expected in the log: {left}"


@pytest.fixture
def serve(log: Log) -> Iterator[Serve]:
    """Give what starts servers, which are stopped after the test, all their requests ended."""
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
    """Give Twisted's reactor, running in a thread of its own; it cannot be started twice."""
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
