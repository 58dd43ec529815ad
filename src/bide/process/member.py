"""A process as one of several workers: what it has from its supervisor, and does for it.

On the thread of the worker's event loop, after the fork.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import select
import signal
import socket
from _thread import start_new_thread
from collections.abc import Callable
from functools import partial
from time import sleep  # the system's, also where gevent patches the module later
from typing import Any, Final

from bide.applications.mounts import Mounts
from bide.process.asking import Answering
from bide.process.heartbeat import BEAT, Cells
from bide.process.instance import tell
from bide.process.leaving import allow
from bide.process.links import Link
from bide.process.listeners import SHARED
from bide.process.signals import Signals
from bide.process.wear import Wear
from bide.process.worker import Stop, how_all_run, reactor_of, start
from bide.serving.draining import finishing
from bide.serving.formatters import name_worker
from bide.serving.lines import reopen, start_threads
from bide.serving.numbering import be_worker
from bide.serving.server import Server
from bide.settings import Settings
from bide.transports.contexts import Contexts
from bide.waiting.cleanups import cleanup_time
from bide.wsgi.conversation import Application

log = logging.getLogger("bide")

STACKS: Final = int(getattr(signal, "SIGRTMIN", signal.SIGQUIT)) + hasattr(signal, "SIGRTMIN")
"""The signal with which a worker writes to standard error what its threads do."""
LAST_SECONDS: Final = 5.0
"""Seconds that a worker has to end, beyond those for its requests and for cleaning up."""
LINGER: Final = 5.0
"""Seconds that unused connections of a replaced worker stay open, for their next request."""
LOOK: Final = 0.05
"""Seconds after which a replaced worker looks whether all connections have ended."""
RENEW: Final = "renew"
RETIRE: Final = "retire"
STOP: Final = "stop"


def patience(settings: Settings) -> float:
    """Return how many seconds a worker may take to end."""
    # The time to clean up twice: that of requests, then that of the functions of ``on_stop``.
    return settings.graceful_timeout + 2 * cleanup_time.seconds + LINGER + LAST_SECONDS


class Member:
    """This process as a worker.

    Args:
        slot: the index of its slot.
        link: its end of the pair that it shares with the supervisor.
        cells: where it shows signs of life.
        cell: its own one of these.
        settle: called when the application has been imported; it may have configured logging.
        application: the one that was imported before the fork; None: it is still to be imported.

    Attributes:
        application: see there.
        settle: see there.
        contexts: the certificates, from before the fork: all workers resume the same sessions.
    """

    def __init__(
        self,
        slot: int,
        link: Link,
        cells: Cells,
        cell: int,
        settle: Callable[[], None],
        application: Any = None,
    ) -> None:
        self.application = application
        self.settle = settle
        self.contexts: Contexts | None = None
        self._number = slot + 1
        self._link = link
        self._cells = cells
        self._cell = cell
        self._held: dict[int, list[socket.socket]] = {}
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop = Stop()
        self._seconds = 0.0  # that requests may take at the end
        self._told = ""  # "retire" or "stop"
        self._keeps = False  # the sockets outlive the server: systemd has them, too
        self._wear: Wear | None = None
        self._answering: Answering | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, patience: float) -> None:
        """Become a process of its own: with threads, signals and a name.

        Args:
            patience: how many seconds it may go on when the supervisor has ended.
        """
        start_threads()
        name_worker(self._number)
        be_worker(self._number)
        faulthandler.register(STACKS, file=2, all_threads=True)
        start_new_thread(self._outlive, (patience,))

    def _outlive(self, patience: float) -> None:
        """End the process some time after its supervisor, even if the event loop is blocked."""
        watched = select.poll()
        watched.register(self._link, 0)  # for the end of the link, which is always told
        watched.poll()
        sleep(patience)
        os._exit(1)

    # Serving ------------------------------------------------------------------------------------

    async def serve(
        self, application: Application | Mounts, settings: Settings, name: str, signals: Signals
    ) -> None:
        """Serve until the supervisor says that it is enough, or has ended.

        Args:
            application: the callable, or several.
            settings: how to serve.
            name: what to call the application in the log.
            signals: entered before the application was imported.
        """
        loop = self._loop = asyncio.get_running_loop()
        server = self._server = Server(
            application,
            settings,
            name=name,
            listeners=(),
            environ={"wsgi.multiprocess": True},
            contexts=self.contexts,
        )
        self._seconds = settings.graceful_timeout
        self._wear = Wear(settings)
        server.dispatcher.lifetime.on_failure = partial(
            self._ask_to_end, f"{RENEW} its application cannot go on"
        )
        stopped = partial(self._ask_to_end, f"{RENEW} its reactor was stopped")
        twisted = reactor_of(settings, loop, stopped)
        # The delay is the supervisor's. But one more signal within it ends no process at once.
        with signals.attach(loop, self._signalled, settings.drain_delay, self._signalled):
            if not await start(server, self._stop):
                return
            if not self._stop.asked.is_set():  # else a signal came while it started
                self._ready()
                log.info("ready, %s", how_all_run(server, settings))
            try:
                await self._stop.asked.wait()
            finally:
                allow(settings.graceful_timeout)
                await self._finish()
                if self._answering is not None:
                    self._answering.finish()
                if twisted is not None:
                    await twisted.finish(settings.graceful_timeout)
                log.info("stopped")

    def _ready(self) -> None:
        """Obey the supervisor and tell it that the server serves; show signs of life.

        Not earlier: a server that fails to start closes its sockets for all workers.
        """
        self._loop.add_reader(self._link.fileno(), self._hear)
        self._hear()
        self._beat()
        self._link.send("ready")

    def _signalled(self, _: float = 0.0) -> None:
        """Called at a signal: the supervisor decides, for it may have had the same signal."""
        self._ask_to_end("signalled")

    def _ask_to_end(self, line: str) -> None:
        if self._timer is None or not self._link.open:
            self._stop.ask()  # it does not serve yet, or nobody decides
        else:
            self._link.send(line)

    async def _finish(self) -> None:
        """Stop the server, in the way that the supervisor has said.

        If it has said nothing, the sockets stay open, since other workers have them.
        """
        server = self._server
        assert server is not None
        if self._told == STOP:
            log.info("stopping: %s", finishing(server.dispatchers, self._seconds))
            await server.stop()
        else:
            await self._retire(LINGER if self._told == RETIRE else 0.0)

    async def _retire(self, seconds: float) -> None:
        """Stop the server, while other workers go on with its sockets.

        So there is time: a client that uses its connection again is told by the response to close
        it, and loses no request to a connection that closes when it sends one.
        """
        server = self._server
        assert server is not None
        server.acceptor.leave_open()
        server.stop_accepting()
        self._link.send("left")
        server.retire(ready=True)
        until = self._loop.time() + seconds
        while server.status().connections and self._loop.time() < until and not server.draining:
            await asyncio.sleep(LOOK)
        await server.stop()

    def _beat(self) -> None:
        self._timer = self._loop.call_later(BEAT, self._beat)
        self._cells.beat(self._cell)
        assert self._server is not None
        assert self._wear is not None
        reason = self._wear.reason(self._server.dispatchers.begun)
        if reason and self._link.open and not self._stop.asked.is_set():
            self._link.send(f"{RENEW} {reason}")

    def _hear(self) -> None:
        for words in self._link.receive():
            self._obey(*words)
        if not self._link.open:
            # Without a supervisor: what is in progress is finished.
            self._loop.remove_reader(self._link.fileno())
            if not self._stop.asked.is_set():
                log.warning("the supervisor has ended: this worker finishes, and ends too")
            self._end(STOP)

    def _obey(self, command: str, *words: str) -> None:
        server = self._server
        assert server is not None
        if command == "accept":
            self._accept(*map(int, words))
        elif command == "leave":
            server.acceptor.leave(self._held.pop(int(words[0]), ()))
        elif command == "keep":
            self._keeps = True
            server.acceptor.leave_open()
        elif command == "warn":
            server.retire()
        elif command == "reopen":
            reopen()
        elif command == "tell":
            self._tell()
        elif command in (RETIRE, STOP):
            self._end(command)

    def _accept(self, slot: int, number: int) -> None:
        assert self._server is not None
        try:
            sockets = self._held[slot] = self._link.take(number)
        except OSError as error:  # whoever takes its place, or another worker, gets them
            log.error("this worker cannot take over sockets: %s", error.strerror)
            self._link.send(f"{RENEW} it has no descriptors left")
            return
        shared = slot == SHARED
        ends = not (shared or self._keeps)
        self._server.acceptor.adopt(sockets, ends=ends, polite=shared)

    def _tell(self) -> None:
        try:
            (sock,) = self._link.take(1)
        except OSError as error:
            log.error("this worker cannot answer on the control socket: %s", error.strerror)
            return
        self._answering = Answering(sock, tell)
        self._answering.start()

    def _end(self, how: str) -> None:
        assert self._server is not None
        if self._stop.asked.is_set() and how == STOP:  # it may retire, which would take longer
            self._tasks.add(self._loop.create_task(self._server.stop()))
        self._told = how
        self._stop.ask()
