"""An event loop in a thread of its own, and Bide's server on it, for the time of a test."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar, Unpack

from bide.applications.mounts import Mounts
from bide.errors import BideError
from bide.keywords import Keywords
from bide.serving.server import Server
from bide.serving.status import Status
from bide.waiting.cleanups import cleanup_time
from bide.wsgi.conversation import Application

T = TypeVar("T")

START: Final = 10.0
"""Seconds that a loop or a server may take to start; as many are added to its time to stop."""


def stop_seconds() -> float:
    """Return the seconds that a loop or a server may take to stop, beyond its own deadlines."""
    return START + cleanup_time.seconds


class LoopThread:
    """An event loop that runs in a daemon thread, from ``start`` to ``stop``.

    Called from any other thread.
    """

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
        """Start the thread; return once the loop runs."""
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
        """Run a coroutine on the loop; return its result, or raise its error.

        Raises:
            BideError: it has not ended within ``seconds``.
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
        self._thread.join(stop_seconds())
        if self._thread.is_alive():
            raise BideError("the event loop's thread has not ended: something blocks it")


class LiveServer:
    """Bide on a free port of this machine: ``with LiveServer(app) as server:``.

    Without ``with``, call ``start`` and ``stop``, as in ``setUpClass`` and ``tearDownClass``. It
    can be started once. Any thread may use it, except the application's.

    Args:
        application: the WSGI or ASGI callable; or several, from :func:`bide.mount`.
        settings: as for :class:`bide.Server`, with other defaults: ``bind`` is a free port of
            127.0.0.1, and ``graceful_timeout`` is 2 seconds.

    Attributes:
        app: the application.
        address: where it listens once it has started, as for ``--bind``; the first of several.

    Raises:
        SettingError, LoadError: as :class:`bide.Server` does.
        BindError: on starting: the server cannot listen on the address.
    """

    def __init__(self, application: Application | Mounts, **settings: Unpack[Keywords]) -> None:
        self.app = application
        for_a_test: Keywords = {"bind": "127.0.0.1:0", "graceful_timeout": 2.0, **settings}
        self._server = Server(application, **for_a_test)
        self.address = ""
        self._thread = LoopThread("bide-live-server")

    def start(self) -> None:
        """Listen and serve; return when it serves."""
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
        self._thread.call(self._server.stop(), grace + stop_seconds())
        self._thread.stop()

    def __enter__(self) -> LiveServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL to put before a path: ``http://127.0.0.1:PORT``, or ``https://`` with TLS."""
        return f"{self._server.tls.scheme}://{self.address}"

    @property
    def port(self) -> int:
        """The port; raises ValueError for a Unix socket, which has none."""
        return int(self.address.rpartition(":")[2])

    def status(self) -> Status:
        """Return the server's counts; from any thread."""
        return self._server.status()

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return f"{self.url}{path}"
