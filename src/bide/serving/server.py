"""One process's server: its listeners and connections, from start to stop.

Everything runs on the event loop that the server was started on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any

from bide.applications.patched import refuse_patched
from bide.errors import RemoteProtocolError, StartError
from bide.exchange.call import Call
from bide.exchange.limits import Limits
from bide.exchange.messages import decoded
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.executors.choice import Executors
from bide.executors.monitor import Monitor
from bide.forks import give_up_loop, share, unshare
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.serving.connection import Connection, Serving
from bide.serving.deadlines import Allowances, Look
from bide.serving.dispatcher import Dispatcher, Make
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import access
from bide.serving.logs import log_access, log_refusal
from bide.serving.overdue import interval
from bide.serving.refusals import WAITED, Refusals, refused
from bide.serving.requests import RequestStatus
from bide.serving.status import Status, hide, show
from bide.settings import Settings
from bide.transports.acceptor import Acceptor
from bide.transports.addresses import parse_address
from bide.transports.poller import make_poller
from bide.waiting.loops import Mailbox, close_mailbox, open_mailbox
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application, Conversation

log = logging.getLogger("bide")


class Server(Serving):
    """Serves one WSGI application: ``async with Server(app, bind="127.0.0.1:0") as server:``.

    All methods are for the thread of the loop that it was started on, but for ``status``. Leaving
    the block finishes the requests in progress, as SIGTERM does for the command line.

    Args:
        application: the WSGI callable.
        settings: how to serve.
        name: what to call the application in the log.
        listeners: listening sockets to serve on, in place of ``bind``; the server closes them.
        make: makes the call of each request, in place of :class:`Conversation`.
        ended: called when a call has ended, on its thread, in place of Bide's access log.
        environ: keys for each environ, in place of Bide's own.
        options: single settings by name, as in :class:`Settings`.

    Raises:
        SettingError: a setting with a value it cannot have.
        LoadError: what was given is no WSGI application.
        BindError: on entering: an address cannot be listened on.
        StartError: on entering: ``reactor`` is Twisted's, and that is not on this loop; or gevent
            or eventlet has patched what the server needs.
    """

    def __init__(
        self,
        application: Application,
        settings: Settings | None = None,
        *,
        name: str = "",
        listeners: Iterable[socket.socket] | None = None,
        make: Make = Conversation,
        ended: Callable[[Call], None] | None = None,
        environ: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._given = listeners
        self.settings = settings if settings is not None else Settings(**options)
        self._connections: set[Connection] = set()
        self._refusals = Refusals()
        self._lifetime = Lifetime()
        self._ended = ended
        self._access = ""  # the form of the access log's lines; empty: it is not written
        self.dispatcher = Dispatcher(
            application,
            self.settings,
            name=name,
            lifetime=self._lifetime,
            refusals=self._refusals,
            connections=self._connections,
            make=make,
            environ=environ,
        )
        self._addresses = [parse_address(each) for each in self.settings.bind]
        self.limits = Limits.of(self.settings)
        self.allowances = Allowances.of(self.settings)
        self.unsent_total = Total(self.settings.limit_unsent_total)
        self.unread_total = Total(self.settings.limit_unread_total)
        self.health = decoded(self.settings.health.encode())
        self.cancels_half_closed = self.settings.half_close == "cancel"
        self.draining = False
        self._mailbox: Mailbox
        self._executors: Executors
        self._acceptor = Acceptor(
            self._connect,
            self.settings.limit_connections,
            self.settings.tcp_keepalive,
            partial(self._refusals.count, WAITED),
        )
        self._stopped = asyncio.Event()
        self._finish_by = 0.0  # by the loop's clock, once it stops
        self.monitor: Monitor | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._ticked = 0.0  # monotonic seconds
        self._interval = interval(self.settings)

    # Life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, each as it may be written for ``--bind``."""
        return self._acceptor.addresses

    async def start(self) -> None:
        """Listen and serve; returns when the ``on_start`` functions have ended."""
        refuse_patched()
        self.loop = asyncio.get_running_loop()
        settings = self.settings
        reactor = sys.modules.get("twisted.internet.reactor")
        if settings.reactor == "twisted" and (
            getattr(reactor, "_asyncioEventloop", None) is not self.loop
        ):
            raise StartError(
                "Twisted's reactor is not on this event loop: bide.run and the command line put it "
                "there, or your program does by asyncioreactor.install"
            )
        self._executors = Executors(
            self.loop,
            settings.threads,
            settings.queue,
            lambda: self.poller.wake(),
            settings.limit_threads,
        )
        if self._ended is None and access.isEnabledFor(logging.INFO):
            self._access = settings.access_format
        self.dispatcher.open(
            self._executors, partial(log_access, self._access) if self._access else self._ended
        )
        self.monitor = Monitor(
            self.loop,
            lambda: self._executors.hubs,
            lambda: self.dispatcher.in_progress,
            settings.blocked_loop,
            settings.blocked_lane,
        )
        with contextlib.ExitStack() as opened:  # and closed again when something fails
            if self._given is None:
                self._acceptor.open(self._addresses, settings.backlog, int(settings.socket_mode, 8))
            else:
                self._acceptor.adopt(self._given)
            opened.callback(self._acceptor.close)
            self.poller = make_poller(self.loop, self.flush)
            opened.callback(self.poller.close)
            self.monitor.start()
            opened.callback(self.monitor.stop)
            background_loop.lend(self.loop)
            opened.callback(background_loop.take_back, self.loop)
            await self._lifetime.start()
            opened.pop_all()
        self._mailbox = open_mailbox(self.loop)
        self._acceptor.start(self.loop)
        self._ticked = monotonic()
        share(self)
        show(self)
        self._tick()

    def after_fork(self) -> None:
        """Called in a forked child, where all of it is the parent's: give it up there."""
        for connection in list(self._connections):
            connection.after_fork()
        self._acceptor.after_fork()
        give_up_loop(self.loop)

    def stop_accepting(self) -> None:
        """Accept no more connections; requests that come on those that there are, are served."""
        self._acceptor.close()

    async def stop(self) -> None:
        """Finish: accept no more, let requests end in time, then cancel those that wait.

        Requests have ``graceful_timeout`` seconds to end by themselves, and some more to clean up
        once they are cancelled. Code that still runs then is left running, and named in the log.
        When this is cancelled, it waits for nothing more. A second call returns when the first one
        has ended.
        """
        if self.draining:
            await self._stopped.wait()
            return
        self.draining = self.dispatcher.stopping = True
        try:
            try:
                await self._finish()
            finally:
                for connection in list(self._connections):
                    connection.abort()
            await self._lifetime.stop(
                max(self._finish_by - self.loop.time(), self.dispatcher.cleanup_seconds)
            )
        finally:
            self.loop.call_soon(self._end)  # after the transports' last callbacks
        await self._stopped.wait()
        await self.dispatcher.threads_ended()

    async def _finish(self) -> None:
        self._finish_by = self.loop.time() + self.settings.graceful_timeout
        while not self._acceptor.accept_waiting() and self.loop.time() < self._finish_by:
            # No descriptor is left for them: idle connections make room, and those that end.
            self.loop.call_soon(self._drain)
            await asyncio.sleep(0.01)
        self._acceptor.close()
        # Not in this task's own step: what begins now would run as if it were the task.
        self.loop.call_soon(self._drain)
        await asyncio.sleep(0)
        dispatcher = self.dispatcher
        if not await dispatcher.all_ended(self.settings.graceful_timeout):
            number = dispatcher.cancel()
            log.warning("%d requests have not ended in time: they are cancelled", number)
            if not await dispatcher.all_ended(dispatcher.cleanup_seconds):
                for connection in list(self._connections):
                    connection.abort()  # which ends those that hang on their own clients
                await dispatcher.all_ended(1.0)
                dispatcher.name_left()
        await self._flush()

    def _end(self) -> None:
        unshare(self)
        hide(self)
        if self._ticker is not None:
            self._ticker.cancel()
        if self.monitor is not None:
            self.monitor.stop()
        self.poller.close()
        close_mailbox(self.loop)
        background_loop.take_back(self.loop)
        self.dispatcher.close()
        self._refusals.report(math.inf)
        self._stopped.set()

    async def _flush(self) -> None:
        """Wait while clients take what is queued for them; for other connections a second."""
        soon = self.loop.time() + 1.0
        while self._connections:
            now = self.loop.time()
            sending = any(each.sending for each in self._connections)
            if now >= soon and not (sending and now < self._finish_by):
                break
            self._drain()
            await asyncio.sleep(0.01)

    def _drain(self) -> None:
        for connection in list(self._connections):
            connection.drain()
        self.flush()

    def _tick(self) -> None:
        """Look at the time, every second or more often: no deadline has a timer of its own."""
        # First, so that the looks go on whatever fails.
        self._ticker = self.loop.call_later(self._interval, self._tick)
        now = monotonic()
        # What was not looked at, the loop being blocked, is not the clients' time.
        elapsed = min(now - self._ticked, 2 * self._interval)
        self._ticked = now
        self.mind_time(elapsed)

    def mind_time(self, elapsed: float, ahead: float = 0.0) -> None:
        """Look at every deadline once. The server does so every second, and tests do when they say.

        Args:
            elapsed: seconds since the last look, which clients have used.
            ahead: seconds to add to the age of each request; for tests.
        """
        # First: the looks at connections may queue more.
        self.dispatcher.mind_time(ahead)
        look = Look(elapsed, self.allowances, self.unsent_total, self._acceptor.crowded)
        connections = list(self._connections)
        if self.unsent_total.full:  # those that hold the most are given up first
            connections.sort(key=lambda each: each.held, reverse=True)
        for connection in connections:
            connection.mind_time(look)
        self._refusals.report(monotonic() + ahead)
        self._executors.recover()
        self.flush()  # for what no thread could be started for

    @property
    def able(self) -> bool:
        """Whether there is a thread for requests, or could be one."""
        return self.dispatcher.executor.able

    # Connections --------------------------------------------------------------------------------

    def _connect(
        self,
        sock: socket.socket,
        server: tuple[str, int] | None,
        client: tuple[str, int] | None,
    ) -> None:
        connection = Connection(self, sock, Peer("http", server, client))
        self._connections.add(connection)
        connection.start()

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the protocol that a connection begins with."""
        return HTTP1(transport, owner, self.limits, self.unread_total)

    def upgrades(self, stream: Stream) -> bool:  # noqa: ARG002 - none is known
        """Whether a request may change its connection's protocol."""
        return False

    def flush(self) -> None:
        """Begin what was submitted; while the executor has plenty to do, bring it nothing more."""
        if self._executors.flush():
            self._mailbox.hold()
            self.poller.rest(self._mailbox.release)

    def connection_lost(self, connection: Connection) -> None:
        """Called when a connection has ended."""
        self._connections.discard(connection)
        self._acceptor.left()

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Called when a request was not begun for what it is."""
        self._refusals.count(refused(error.status))
        if self._refusals.may_tell():
            log_refusal(error, client, self._access)

    # Calls --------------------------------------------------------------------------------------

    def conversation(self, stream: Stream) -> Conversation:
        """Make a stream's conversation, to be held or submitted."""
        return self.dispatcher.begin(stream)

    def hold(self, conversation: Conversation, connection: Connection) -> None:
        """Called when a conversation is to be submitted once its body has come."""
        self.dispatcher.hold(conversation, connection)

    def drop(self, conversation: Conversation) -> None:
        """End one that was held without beginning it; where there still is a client, by a 503."""
        self.dispatcher.drop(conversation)

    def submit(self, conversation: Conversation) -> None:
        """Have it run, or reject it."""
        self.dispatcher.submit(conversation)

    def status(self) -> Status:
        """Take a snapshot; from any thread."""
        return self.dispatcher.status()

    def requests(self) -> tuple[RequestStatus, ...]:
        """Look at each request in progress; from any thread."""
        return self.dispatcher.requests()
