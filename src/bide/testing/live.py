"""An event loop in a thread of its own, and Bide's server on it, for the time of a test."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from bide.errors import BideError
from bide.serving.server import Server
from bide.serving.status import Status
from bide.waiting.cleanups import cleanup_time
from bide.wsgi.conversation import Application

T = TypeVar("T")

START: Final = 10.0
"""Seconds that a loop or a server may take to start."""
STOP: Final = 2 * cleanup_time.seconds
"""Seconds beyond its own deadlines that one may take to stop."""


class LoopThread:
    """An event loop that runs in a daemon thread, from ``start`` to ``stop``; any other thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def ident(self) -> int:
        """The thread's identity, once it has started."""
        assert self._thread.ident is not None
        return self._thread.ident

    def start(self) -> None:
        """Start the thread; returns once the loop runs."""
        self._thread.start()
        if not self._running.wait(START):
            raise BideError("the event loop's thread has not started")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._hold())

    async def _hold(self) -> None:
        self._running.set()
        await self._ended.wait()

    def call(self, coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
        """Run a coroutine on the loop, and return what it does.

        Raises:
            BideError: it has not ended in so many seconds.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # its own
            future.cancel()
            raise BideError(
                f"the event loop has not done its work within {seconds:g} s: something blocks it"
            ) from None

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(STOP)
        if self._thread.is_alive():
            raise BideError("the event loop's thread has not ended: something blocks it")


class LiveServer:
    """Bide on a free port of the loopback: ``with LiveServer(app) as server:``.

    ``start`` and ``stop`` are for those that have no ``with``, as in ``setUpClass``. It may be
    started once. All of it may be used from any thread but the application's.

    Args:
        application: the WSGI callable.
        settings: as for :class:`bide.Server`. Other than there, ``bind`` is a free port of
            127.0.0.1, and requests have 2 s to end by themselves when it stops.

    Attributes:
        app: the application.
        address: where it listens once it has started, as for ``--bind``; the first of several.

    Raises:
        SettingError, LoadError: as :class:`bide.Server` does.
        BindError: on starting.
    """

    def __init__(self, application: Application, **settings: Any) -> None:
        self.app = application
        self._server = Server(
            application, **{"bind": "127.0.0.1:0", "graceful_timeout": 2.0, **settings}
        )
        self.address = ""
        self._thread = LoopThread("bide-live-server")

    def start(self) -> None:
        """Listen and serve; returns when it does."""
        self._thread.start()
        try:
            self._thread.call(self._server.start(), START)
        except BaseException:
            self._thread.stop()
            raise
        self.address = self._server.addresses[0]

    def stop(self) -> None:
        """Stop as SIGTERM does: when it returns, requests, threads and sockets have ended."""
        grace = self._server.settings.graceful_timeout
        self._thread.call(self._server.stop(), grace + STOP)
        self._thread.stop()

    def __enter__(self) -> LiveServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What to put before a path: ``http://127.0.0.1:PORT``."""
        return f"http://{self.address}"

    @property
    def port(self) -> int:
        """The port; raises ValueError for a Unix socket, which has none."""
        return int(self.address.rpartition(":")[2])

    def status(self) -> Status:
        """Take a snapshot of what it is doing."""
        return self._server.status()

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return f"{self.url}{path}"
