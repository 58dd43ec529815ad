"""Where faults are made: a server, what it holds at rest, an application that notes how it ends.

A test has its :class:`Arena` do something bad, says what the client saw, and calls ``settle``: from
then on all must be as if nothing had happened, but for the log lines that it names.
"""

import asyncio
import contextlib
import contextvars
import io
import itertools
import logging
import os
import socket
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from _pytest.logging import LogCaptureHandler

import bide
from bide import wait
from bide.waiting.deadlines import Wheel
from tests.conftest import Serve
from tests.fault_proxy import Fault, FaultProxy
from tests.served import DEADLINE, Client, Closing, Environ, Gate, Log, Served, request, until

LEFT = "ClientDisconnected"
FRESH = "/fresh"
"""The path that every application here answers with ``fresh``, whatever else it does."""
MEET = "/meet"
PLAIN = [("Content-Type", "text/plain")]
VISIT: contextvars.ContextVar[int] = contextvars.ContextVar("VISIT", default=0)
ARENAS: "list[Arena]" = []
"""Those of the test that runs."""
LASTING = ("bide-in-thread", "CP Server Thread")
"""Threads that are the program's, not a server's, and stay; and those of another test's host."""


@dataclass(frozen=True)
class Footprint:
    """What a server and its program hold.

    Attributes:
        descriptors: how many are open in the program.
        threads: the names of all threads but those of ``in_thread``.
        tasks: tasks of the server's loop.
        timers: timers of the server's loop that are due some time.
        status: requests that run, wait or are queued, threads, and connections.
    """

    descriptors: int
    threads: tuple[str, ...]
    tasks: int
    timers: int
    status: bide.Status

    def is_within(self, before: "Footprint") -> bool:
        """Whether no more is held than before; what earlier tests have left may end meanwhile."""
        return (
            self.descriptors <= before.descriptors
            and not Counter(self.threads) - Counter(before.threads)
            and (self.tasks, self.timers, self.status)
            == (before.tasks, before.timers, before.status)
        )


def timers(loop: asyncio.AbstractEventLoop) -> int:
    """Count what is due some time, but for the one timer of all deadlines; on the loop."""
    scheduled = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
    return sum(not isinstance(_owner(each), Wheel) for each in scheduled)


def _owner(timer: Any) -> Any:
    return getattr(timer._callback, "__self__", None)


def footprint(served: Served) -> Footprint:
    """Return what is held now."""
    threads = sorted(each.name for each in threading.enumerate())
    return Footprint(
        len(os.listdir("/proc/self/fd")),
        tuple(each for each in threads if not each.startswith(LASTING)),
        served.call(lambda: len(asyncio.all_tasks())),
        served.call(timers, served.loop),
        served.status,
    )


class Kept:
    """What lives as long as a request's environ."""


class Watched(Closing):
    """An iterable that notes on which thread, and in which context, it was made and closed.

    Args:
        blocks: what it gives; a generator is thrown into and closed with it.
        closing: what ``close`` does beside that.
    """

    def __init__(self, blocks: Iterable[Any], closing: Callable[[], object] = lambda: None) -> None:
        super().__init__(blocks)
        self._closing = closing
        self.made = (threading.get_ident(), VISIT.get())
        self.left: list[tuple[int, int]] = []

    def throw(self, error: BaseException) -> Any:
        """Raise where the generator waits; an iterable of another kind just raises."""
        throw = getattr(self._blocks, "throw", None)
        if throw is None:
            raise error
        return throw(error)

    def close(self) -> None:
        """Note, and close what gives the blocks."""
        self.left.append((threading.get_ident(), VISIT.get()))
        try:
            if hasattr(self._blocks, "close"):
                self._blocks.close()
            self._closing()
        finally:
            super().close()


class Stage:
    """An application that notes how another one is called, and what is raised in it.

    Attributes:
        calls: the paths.
        raised: the names of what was raised in the call, or below :meth:`noting`.
        iterables: those that were made by :meth:`watched`.
        read: bytes of bodies that :func:`victim` has read.
        kept: for each request, what lives as long as its environ.
    """

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self._visits = itertools.count(1)
        self.meeting = threading.Barrier(1)
        self.calls: list[str] = []
        self.raised: list[str] = []
        self.iterables: list[Watched] = []
        self.read = 0
        self.kept: list[weakref.ref[Kept]] = []

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Answer a fresh request, or have the application answer and note what it raises."""
        path = environ["PATH_INFO"]
        if path in (FRESH, MEET):
            if path == MEET:
                self.meeting.wait(DEADLINE)
            start_response("200 OK", PLAIN)
            return [b"fresh"]
        self.calls.append(path)
        VISIT.set(next(self._visits))
        environ["test.kept"] = kept = Kept()
        self.kept.append(weakref.ref(kept))
        del kept
        environ["test.stage"] = self
        with self.noting():
            return self._application(environ, start_response)

    def watched(
        self, blocks: Iterable[Any], closing: Callable[[], object] = lambda: None
    ) -> Watched:
        """Make an iterable; ``settle`` sees that it was closed once, on its thread."""
        iterable = Watched(blocks, closing)
        self.iterables.append(iterable)
        return iterable

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is raised inside, and let it pass."""
        try:
            yield
        except BaseException as error:
            self.raised.append(type(error).__name__)
            raise


def stage_of(environ: Environ) -> Stage:
    stage: Stage = environ["test.stage"]
    return stage


def victim(environ: Environ, start_response: Any) -> Any:
    """Do what the path says, for as long as its client lets it."""
    stage = stage_of(environ)
    path = environ["PATH_INFO"]
    body = b""
    if path == "/reads":
        while block := environ["wsgi.input"].read(20):
            body += block
            stage.read += len(block)
    elif path == "/waits":
        wait(Gate().promise())
    start_response("200 OK", PLAIN)

    def blocks() -> Iterator[bytes]:
        with stage.noting():
            if path == "/begins":
                yield b"begun"
                wait(Gate().promise())
            for _ in range({"/writes": 1_000_000, "/much": 50}.get(path, 0)):
                yield b"x" * 65536
            yield b"%d" % len(body)

    return stage.watched(blocks())


class _Noting(io.RawIOBase):
    """A client's socket that tells a reset from an end."""

    def __init__(self, client: Client) -> None:
        self._sock = client.sock
        self.reset = False

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read; a reset is an end that is noted."""
        try:
            return int(self._sock.recv_into(buffer))
        except ConnectionResetError:
            self.reset = True
            return 0


class Viewer(Client):
    """A client that says in a few words what it saw."""

    def __init__(self, address: str, window: int = 0) -> None:
        try:
            super().__init__(address, window)
            self.reader.close()
            reset = False
        except ConnectionResetError:  # it came before connect() had returned
            self.sock, other = socket.socketpair()
            other.close()
            reset = True
        self._noting = _Noting(self)
        self._noting.reset = reset
        self.reader = io.BufferedReader(self._noting)

    def at_end(self) -> bool:
        """Wait for bytes, or for the end."""
        return not self.reader.peek(1)

    def view(self, method: str = "GET") -> str:
        """Sum up what comes: ``"500, goes on"``, ``"408, closed"``, ``"200 cut, reset"``.

        A connection goes on when it answers another request.
        """
        seen = []
        while not self.at_end():
            response = self.response(method)
            seen.append(str(response.status) if response.complete else f"{response.status} cut")
            if response.status == 503:
                assert response.header("Retry-After"), "503 without Retry-After"
            if response.complete and response.header("Connection") != "close":
                with contextlib.suppress(BrokenPipeError):  # it has closed its sending side
                    self.send(request(FRESH))
                if not self.at_end():
                    another = self.response()
                    if another.body == b"fresh":
                        return ", ".join([*seen, "goes on"])
                    seen.append(str(another.status))
        return ", ".join([*seen, "reset" if self._noting.reset else "closed"])


def close_arenas() -> None:
    """End what a test that failed has left open, so that it does not fail the next ones too."""
    while ARENAS:
        ARENAS.pop().close()


class Arena:
    """A server with an application that is made to suffer; ``settle`` is each test's last word.

    Attributes:
        stage: the application.
        log: what the server logs.
        served: the server, all its threads started.
    """

    def __init__(
        self, serve: Serve, log: Log, application: Callable[..., Any], **settings: Any
    ) -> None:
        # pytest's own handlers keep the records, whose tracebacks keep the requests.
        for name in ("bide", "asyncio"):
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                if isinstance(handler, LogCaptureHandler):
                    logger.removeHandler(handler)
        self.stage = Stage(application)
        self.log = log
        self.served = serve(self.stage, **{"threads": 2, **settings})
        self._opened = contextlib.ExitStack()
        ARENAS.append(self)
        self._start_threads()
        self._before = footprint(self.served)

    def _start_threads(self) -> None:
        number = self.served.status.threads_max
        self.stage.meeting = threading.Barrier(max(1, number))
        clients = [self.served.request(MEET) for _ in range(number)]
        for client in clients:
            assert client.response().complete
            client.close()
        served = self.served
        until(
            lambda: (
                served.status.connections == served.status.threads_busy == 0
                and served.call(timers, served.loop) == 1
            ),
            "the server does not come to rest, with the one timer that minds the time",
        )

    def close(self) -> None:
        """End the clients and the proxies, once."""
        self._opened.close()

    def proxy(
        self, up: Fault | None = None, down: Fault | None = None, window: int = 0
    ) -> FaultProxy:
        """Put a proxy before the server; it ends with :meth:`settle`."""
        return self._opened.enter_context(FaultProxy(self.served.address, up, down, window))

    def connect(self, proxy: FaultProxy | None = None, window: int = 0) -> Viewer:
        """Open a connection, to the proxy or the server; it ends with :meth:`settle`."""
        viewer = Viewer(self.served.address if proxy is None else proxy.address, window)
        self._opened.callback(viewer.close)
        return viewer

    def request(self, path: str = "/", proxy: FaultProxy | None = None, **options: Any) -> Viewer:
        """Open a connection and send a request; see :func:`tests.served.request`."""
        viewer = self.connect(proxy)
        viewer.send(request(path, **options))
        return viewer

    def settle(self, *lines: str) -> None:
        """Close the clients; check that a fresh request works, and all is as it was before.

        Args:
            lines: what was logged, each as ``"LEVEL text"``; that and nothing else.
        """
        self.close()
        fresh = self.served.get(FRESH)
        assert (fresh.status, fresh.body, fresh.complete) == (200, b"fresh", True)
        for line in lines:
            level, _, text = line.partition(" ")
            assert self.log.take(text).levelname == level
        try:
            until(lambda: footprint(self.served).is_within(self._before))
        except AssertionError:
            raise AssertionError(
                f"not as before: {self._before}, but {footprint(self.served)}; {self.log.lines()}"
            ) from None
        records = [each for each in self.log.records if each.name != "bide.access"]
        more = [each.getMessage() for each in records]
        # How many are refused is the matter of tests/serving/test_refusals.py.
        more = [each for each in more if not each.startswith("requests refused: ")]
        del records
        assert not more, f"more was logged than expected: {more[:5]}"
        until(lambda: not any(each() for each in self.stage.kept), "a request's environ is kept")
        for iterable in self.stage.iterables:
            assert iterable.left == [iterable.made], (
                "not closed once, on its thread, in its context"
            )
