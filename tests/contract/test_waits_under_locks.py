"""Nothing waits while a lock is held that others need: such a wait is refused, and all goes on.

Each case is put into the very moment: what the server calls while it holds its lock drops an
object, or lets a weak reference go, whose code waits.
"""

import gc
import io
import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from greenlet import greenlet

import bide
from bide import wait
from bide.errors import WaitError
from bide.executors.threads import ThreadsExecutor
from bide.waiting.locks import COLLECTOR, LOGGING, SERVER, Lock, holds_lock
from tests.conftest import Serve
from tests.served import DEADLINE, Environ, Gate, Served, answering, until


@pytest.fixture
def ignored(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """Keep what Python ignores: the errors of destructors and callbacks."""
    found: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: found.append(each.exc_value))
    return found


class Waits:
    """An object whose destructor waits."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __del__(self) -> None:
        wait(self._gate.promise())


class Plain:
    """An object that a weak reference may have."""


def by_destructor(gate: Gate) -> None:
    """Drop an object."""
    Waits(gate)


def by_callback(gate: Gate) -> None:
    """Drop an object that a weak reference watches."""
    thing = Plain()
    kept = weakref.ref(thing, lambda _: wait(gate.promise()))
    del thing
    del kept


def by_collector(gate: Gate) -> None:
    """Make the garbage collector call a destructor."""
    thing: Any = Waits(gate)
    thing.cycle = thing
    del thing
    gc.collect()


WAYS = pytest.mark.parametrize("way", [by_destructor, by_callback, by_collector])


class Meddling:
    """A connection's socket in whose ``send`` something happens: the lock is held then."""

    def __init__(self, sock: Any, act: Callable[[], object]) -> None:
        self._sock = sock
        self._act = act

    def send(self, data: bytes) -> int:
        """Call the function, and send."""
        self._act()
        return int(self._sock.send(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def meddle(served: Served, act: Callable[[], object]) -> None:
    """Make the ``send`` of the server's one connection call a function."""
    (connection,) = served.connections
    transport = connection._transport
    transport.socket = Meddling(transport.socket, act)  # type: ignore[assignment]


def refusal(errors: list[BaseException | None], words: str) -> None:
    """Check that one wait was refused, with these words."""
    (error,) = errors
    assert isinstance(error, WaitError)
    assert str(error) == words


@WAYS
def test_what_interrupts_a_send_cannot_wait_under_the_connections_lock(
    serve: Serve, gate: Gate, ignored: list[BaseException | None], way: Callable[[Gate], None]
) -> None:
    """The response is sent, and the loop goes on: it would have come for the lock, for ever."""
    served = serve(answering(lambda _: "served"))
    client = served.request()
    assert client.response().text == "served"
    meddle(served, lambda: way(gate))
    client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    assert client.response().text == "served"
    refusal(ignored, COLLECTOR if way is by_collector else SERVER)
    assert served.get().text == "served"
    served.until_idle()


class Jobs(deque[Any]):
    """A queue of jobs in whose ``popleft`` something happens: the executor's lock is held then."""

    act: Callable[[], object]

    def popleft(self) -> Any:
        """Call the function, and take a job."""
        self.act()
        return super().popleft()


@WAYS
@pytest.mark.parametrize("executor", ["threads"])
def test_what_interrupts_a_lane_cannot_wait_under_the_executors_lock(
    serve: Serve,
    gate: Gate,
    ignored: list[BaseException | None],
    executor: str,
    way: Callable[[Gate], None],
) -> None:
    """There is no request yet; the loop submits under the same lock."""
    served = serve(answering(lambda _: "served"), threads=1)
    assert served.get().text == "served"
    own = served.server.dispatcher.executor
    assert isinstance(own, ThreadsExecutor)
    jobs = Jobs()
    jobs.act = lambda: way(gate)
    own.jobs = own.roster.jobs = jobs
    assert served.get().text == "served"
    refusal(ignored, COLLECTOR if way is by_collector else SERVER)


class Waiting(logging.Handler):
    """A handler that waits for each record."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def emit(self, record: logging.LogRecord) -> None:
        """Wait."""
        wait(self._gate.promise())


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return the application's logger."""
    logger = logging.getLogger("tests.waits_under_locks")
    logger.propagate = False
    yield logger
    logger.handlers = []


def test_a_log_handler_cannot_wait_and_its_lock_is_free_again(
    serve: Serve, gate: Gate, logger: logging.Logger
) -> None:
    """The request that logs is told so; a coroutine on the loop logs by the same handler."""
    handler = Waiting(gate)
    logger.addHandler(handler)

    async def logs() -> None:
        logger.warning("from a coroutine")

    def answer(environ: Environ) -> str:
        try:
            if environ["PATH_INFO"] == "/coroutine":
                wait(logs())
            else:
                logger.warning("from a view")
        except WaitError as error:
            return str(error)
        return "it has waited"

    served = serve(answering(answer))
    assert served.get("/view").text == LOGGING
    assert handler.lock is not None
    assert handler.lock.acquire(timeout=DEADLINE)
    handler.lock.release()
    assert served.get("/coroutine").text == LOGGING
    assert served.get("/view").text == LOGGING


def may_wait(serve: Serve, gate: Gate, logger: logging.Logger, handler: logging.Handler) -> None:
    """See that a request whose line comes to a handler waits for the gate, and goes on."""
    logger.addHandler(handler)

    def answer(_: Environ) -> str:
        logger.warning("a line")
        return "logged"

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    gate.open()
    assert client.response().text == "logged"


def test_a_log_filter_may_wait(serve: Serve, gate: Gate, logger: logging.Logger) -> None:
    """No lock is held there."""

    def passes(_: logging.LogRecord) -> bool:
        wait(gate.promise())
        return False

    handler = logging.StreamHandler(io.StringIO())
    handler.addFilter(passes)
    may_wait(serve, gate, logger, handler)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there every handler must have a lock")
def test_a_log_handler_without_a_lock_may_wait(
    serve: Serve, gate: Gate, logger: logging.Logger
) -> None:
    """It needs none."""

    class Unlocked(Waiting):
        def createLock(self) -> None:
            self.lock = None

    may_wait(serve, gate, logger, Unlocked(gate))


def test_a_destructor_in_the_applications_own_code_may_wait(serve: Serve) -> None:
    """No lock is held there either."""
    gate = Gate()

    def answer(_: Environ) -> str:
        by_destructor(gate)
        return "dropped"

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    gate.open()
    assert client.response().text == "dropped"


def test_a_wait_in_a_librarys_greenlet_sees_the_locks_above_it(serve: Serve, gate: Gate) -> None:
    """The frames of the conversation end where the greenlet begins."""

    def under_a_lock(function: Callable[[], str]) -> str:
        with Lock():
            return str(greenlet(function).switch())

    holds_lock(under_a_lock)

    def waits() -> str:
        try:
            wait(gate.promise())
        except WaitError as error:
            return str(error)
        return "it has waited"

    served = serve(answering(lambda _: under_a_lock(waits)))
    assert served.get().text == SERVER


def test_the_collector_goes_on_when_it_has_refused(
    serve: Serve, gate: Gate, ignored: list[BaseException | None]
) -> None:
    """A parked collection would be the last one of the process."""

    def answer(_: Environ) -> str:
        by_collector(gate)
        thing: Any = Plain()
        thing.cycle = thing
        watch = weakref.ref(thing)
        del thing
        gc.collect()
        return "collected" if watch() is None else "kept"

    assert serve(answering(answer)).get().text == "collected"
    refusal(ignored, COLLECTOR)


@WAYS
def test_a_thread_of_its_own_is_refused_where_it_holds_the_lock_too(
    gate: Gate, ignored: list[BaseException | None], way: Callable[[Gate], None]
) -> None:
    """Outside a request a wait blocks: it would do so under the lock."""

    def under_a_lock() -> None:
        with Lock():
            way(gate)

    holds_lock(under_a_lock)

    thread = threading.Thread(target=under_a_lock)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    refusal(ignored, COLLECTOR if way is by_collector else SERVER)


def test_a_coroutine_whose_wait_is_refused_is_closed() -> None:
    """Python would warn of it, else."""

    async def never() -> None:
        raise AssertionError

    def under_a_lock() -> None:
        with Lock():
            bide.wait(never())

    holds_lock(under_a_lock)

    with pytest.raises(WaitError):
        under_a_lock()
    gc.collect()


def test_writes_of_a_refused_wait_reach_nobody(serve: Serve, gate: Gate) -> None:
    """What waits for its client is refused as well: the client is behind, and the lock held."""
    told: list[str] = []
    block = b"x" * (1 << 20)

    def under_a_lock(write: Callable[[bytes], object]) -> None:
        try:
            with Lock():
                while True:
                    write(block)
        except WaitError as error:
            told.append(str(error))

    holds_lock(under_a_lock)

    def application(_: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        under_a_lock(write)
        return []

    served = serve(application)
    client = served.request()
    until(lambda: told)
    assert told == [SERVER]
    client.close()
