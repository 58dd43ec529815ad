"""One process's server: its listeners and connections, from start to stop.

Everything runs on the event loop that the server was started on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any, Unpack

from bide.applications.mounts import Mounts
from bide.applications.patched import refuse_patched, refuse_without_reactor
from bide.configuration import from_keywords
from bide.errors import RemoteProtocolError
from bide.exchange.call import Call
from bide.exchange.limits import Limits
from bide.exchange.messages import decoded
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.executors.choice import Executors
from bide.executors.monitor import Monitor
from bide.forks import give_up_each, give_up_loop, share, unshare
from bide.keywords import Keywords
from bide.native import FORM
from bide.protocols.http2.served import serves
from bide.serving.access_log import AccessLog, log_refusal
from bide.serving.arrival import Arrival
from bide.serving.connection import Connection
from bide.serving.counters import BLOCKED, count
from bide.serving.deadlines import Allowances, Look
from bide.serving.dispatcher import Make
from bide.serving.dispatchers import Dispatchers
from bide.serving.draining import Draining
from bide.serving.entrance import Entrance
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import access
from bide.serving.overdue import interval
from bide.serving.recording import recorded
from bide.serving.refusals import WAITED, Refusals
from bide.serving.requests import RequestStatus
from bide.serving.rounds import abort_all, mind_connections, retire_all
from bide.serving.securing import Securing
from bide.serving.status import Status, hide, show
from bide.serving.upgrades import Upgrading
from bide.settings import DEFAULT_ADDRESS, Settings
from bide.transports.acceptor import Acceptor
from bide.transports.addresses import NOTHING, parse_address
from bide.transports.contexts import Contexts
from bide.transports.handed_over import HandedOver
from bide.transports.poller import make_poller
from bide.waiting.cleanups import cleanup_time
from bide.waiting.loops import Mailbox, close_mailbox, open_mailbox
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application, Conversation

log = logging.getLogger("bide")


class Server(Upgrading):
    """Serves applications: ``async with Server(app, bind="127.0.0.1:0") as server:``.

    All methods are called on the thread of the loop that the server was started on, except
    ``status`` and ``requests``, which any thread may call. Leaving the block finishes the requests
    in progress, as SIGTERM does for the command line.

    Args:
        application: a WSGI or ASGI callable; ``"module:name"``; or :func:`bide.mount`'s result.
        settings: all settings at once. None: they come from ``options``, then from the variables
            ``BIDE_...`` of the environment, then from the defaults.
        name: what to call the application in the log.
        listeners: listening sockets to serve on, in place of ``bind``; the server closes them.
        handed_over: sockets that listen already. Addresses in ``bind`` use them if they match.
            The server serves on the others, too. ``bind`` may be empty then.
        make: makes the call of each request, instead of :class:`Conversation`.
        ended: called when a call has ended, on its thread, instead of Bide's access log.
        environ: keys for each environ. They replace Bide's own.
        strips: whether to hide headers that only proxies may send from the application, unless
            a trusted proxy has sent them.
        contexts: the certificates. None: read the files that the settings name.
        options: single settings by name, as in :class:`bide.Settings`.

    Raises:
        SettingError: a setting has a value that is not allowed, or a certificate cannot be used.
        LoadError: ``application`` is not an application, or cannot be imported.
        TypeError: there is no such option; or settings were given, and options too.
        BindError: on entering: the server cannot listen on an address.
        StartError: on entering: ``reactor`` is "twisted", and Twisted's reactor does not run on
            this loop; or gevent or eventlet has patched what the server needs.
    """

    def __init__(
        self,
        application: Application | Mounts | str,
        settings: Settings | None = None,
        *,
        name: str = "",
        listeners: Iterable[socket.socket] | None = None,
        handed_over: HandedOver = NOTHING,
        make: Make = Conversation,
        ended: Callable[[Call], None] | None = None,
        environ: dict[str, Any] | None = None,
        strips: bool = True,
        contexts: Contexts | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        self._given = listeners
        self.settings = from_keywords(settings, options, os.environ)
        mounts = Mounts.of(application).resolve(self.settings, name)
        self._connections: set[Connection | Arrival] = set()
        self._refusals = Refusals()
        self.tls = Securing(contexts or Contexts.of(self.settings))
        self.renew_certificates = self.tls.renew
        self._entrance = Entrance(
            self,
            self.settings,
            self._connections,
            self._refusals,
            self.tls.scheme,
            strips,
            lambda: self._acceptor.left(),
        )
        self._lifetime = Lifetime()
        self._ended = ended
        self._access: AccessLog | None = None
        self.dispatchers = Dispatchers(
            mounts,
            self.settings,
            lifetime=self._lifetime,
            refusals=self._refusals,
            connections=self._connections,
            clients=self._entrance.clients,
            make=make,
            environ=environ,
        )
        self.dispatcher = self.dispatchers.first
        self._handed_over = handed_over
        bind = self.settings.bind or (() if handed_over.enough else (DEFAULT_ADDRESS,))
        self._addresses = [parse_address(each) for each in bind]
        self.limits = Limits.of(self.settings)
        self.speaks_http2 = serves(self.settings)
        self.allowances = Allowances.of(self.settings)
        self.unsent_total = Total(self.settings.limit_unsent_total)
        self.unread_total = Total(self.settings.limit_unread_total)
        self.ready = decoded(self.settings.ready.encode())
        health = decoded(self.settings.health.encode())
        self.probes = tuple(each for each in (health, self.ready) if each)
        self.insecure = self._refusals.insecure
        self.cancels_half_closed = self.settings.half_close == "cancel"
        self.retiring = self.draining = False
        self._mailbox: Mailbox
        self._executors: Executors
        self._acceptor = Acceptor(
            self._entrance.connect,
            self.settings.limit_connections,
            self.settings.tcp_keepalive,
            partial(self._refusals.count, WAITED),
        )
        self._draining = Draining(
            self._acceptor,
            self.dispatchers,
            self._connections,
            self.settings.graceful_timeout,
            self.flush,
        )
        self._stopped = asyncio.Event()
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
        """The addresses on which it listens, in the form of ``--bind``."""
        return self._acceptor.addresses

    async def start(self) -> None:
        """Start to listen and serve; return when the ``on_start`` functions have ended."""
        refuse_patched()
        log.debug("Bide is %s", FORM)
        self.loop = asyncio.get_running_loop()
        settings = self.settings
        if settings.reactor == "twisted":
            refuse_without_reactor(self.loop)
        self._executors = Executors(
            self.loop,
            settings.threads,
            settings.queue,
            lambda: self.poller.wake(),
            settings.limit_threads,
        )
        if self._ended is None and access.isEnabledFor(logging.INFO):
            self._access = AccessLog(settings.access_format)
        ended = self._ended if self._access is None else self._access.ended
        self.dispatchers.open(self._executors, recorded(ended, settings))
        self.monitor = Monitor(
            self.loop,
            lambda: self._executors.hubs,
            lambda: self.dispatchers.in_progress,
            settings.blocked_loop,
            settings.blocked_thread,
            partial(count, BLOCKED),
        )
        async with contextlib.AsyncExitStack() as opened:  # and closed again when something fails
            opened.push_async_callback(self.dispatchers.release)
            if self._given is None:
                mode = int(settings.socket_mode, 8)
                self._acceptor.open(self._addresses, settings.backlog, mode, self._handed_over)
            else:
                self._acceptor.adopt(self._given)
            opened.callback(self._acceptor.close)
            self.poller = make_poller(self.loop, self.flush)
            opened.callback(self.poller.close)
            self.handshakes = self.tls.start()
            opened.callback(self.tls.close)
            self.monitor.start()
            opened.callback(self.monitor.stop)
            background_loop.lend(self.loop)
            opened.callback(background_loop.take_back, self.loop)
            await self._lifetime.start_alone()
            opened.pop_all()
        self._mailbox = open_mailbox(self.loop)
        self._acceptor.start(self.loop)
        self._ticked = monotonic()
        share(self, Server.after_fork)
        show(self, Server.status, Server.requests, lambda it: it.dispatchers.inside(it.monitor))
        self._tick()

    def after_fork(self) -> None:
        """Called in a forked child, where all of it is the parent's: give it up there."""
        give_up_each(self._connections, lambda each: each.after_fork())
        self._acceptor.after_fork()
        give_up_loop(self.loop)

    def stop_accepting(self) -> None:
        """Accept no more connections. Requests on open connections are still served."""
        self._acceptor.close()

    @property
    def acceptor(self) -> Acceptor:
        """What it accepts with, for a process that shares its sockets with others."""
        return self._acceptor

    def retire(self, ready: bool = False) -> None:
        """Say that the server will stop soon, and serve on until :meth:`stop`.

        Each response closes its connection from now on, so that clients and load balancers go
        elsewhere. Connections are accepted as before.

        Args:
            ready: whether ``--ready`` is not answered 503 yet: others go on at the same address.
        """
        if not self.retiring:
            self.retiring = not ready
            retire_all(self._connections)

    async def stop(self) -> None:
        """Stop: accept no more connections, let requests end in time, then cancel the rest.

        Requests have ``graceful_timeout`` seconds to end. Then they are cancelled, and have ten
        seconds to clean up. Code that runs even longer is left running, and named in the log. If
        this coroutine is cancelled, it waits no longer. A second call returns when the first has
        ended.
        """
        if self.draining:
            await self._stopped.wait()
            return
        self.retiring = self.draining = True
        self.dispatchers.begin_to_stop()
        try:
            try:
                await self._draining.finish()
            finally:
                abort_all(self._connections)
            left = self._draining.finish_by - self.loop.time()
            await self._lifetime.stop(max(left, cleanup_time.seconds))
        finally:
            self.loop.call_soon(self._end)  # after the transports' last callbacks
        await self._stopped.wait()
        await self.dispatchers.threads_ended()

    def _end(self) -> None:
        unshare(self)
        hide(self)
        if self._ticker is not None:
            self._ticker.cancel()
        if self.monitor is not None:
            self.monitor.stop()
        self.tls.close()
        self.poller.close()
        close_mailbox(self.loop)
        background_loop.take_back(self.loop)
        self.dispatchers.close()
        self._refusals.report(math.inf)
        self._stopped.set()

    def _tick(self) -> None:
        """Check the deadlines, every second or more often: no deadline has a timer of its own."""
        # First, so that the checks go on whatever fails.
        self._ticker = self.loop.call_later(self._interval, self._tick)
        now = monotonic()
        # The time in which the loop was blocked is not the clients' time.
        elapsed = min(now - self._ticked, 2 * self._interval)
        self._ticked = now
        self.mind_time(elapsed)

    def mind_time(self, elapsed: float, ahead: float = 0.0) -> None:
        """Check every deadline once. The server does so every second; tests call it themselves.

        Args:
            elapsed: seconds since the last check, which count as the clients' time.
            ahead: seconds to add to the age of each request; for tests.
        """
        # First: the checks of connections may queue more.
        self.dispatchers.mind_time(ahead)
        look = Look(elapsed, self.allowances, self.unsent_total, self._acceptor.crowded)
        connections = list(self._connections)
        if self.unsent_total.full:  # those that hold the most are given up first
            connections.sort(key=lambda each: each.held, reverse=True)
        mind_connections(self.loop, connections, self._connections, look, self.flush)
        self._entrance.clients.settle()
        self.tls.mind_time(elapsed)
        self._executors.recover()
        self.flush()  # for what no thread could be started for
        self._refusals.report(monotonic() + ahead)  # last: a log handler may fail

    @property
    def able(self) -> bool:
        """Whether requests can run: there is a thread for them, or one could be started."""
        return self.dispatchers.able

    # Connections --------------------------------------------------------------------------------

    def flush(self) -> None:
        """Begin the submitted calls; stop reading while the executor has plenty to do."""
        if self._executors.flush():
            self._mailbox.hold()
            self.poller.rest(self._mailbox.release)

    def connection_lost(self, connection: Connection) -> None:
        """Called when a connection has ended."""
        self._entrance.left(connection)

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Called when a malformed request is refused, or a connection ended for what it sends."""
        if error.ends or error.again:
            self._refusals.unanswered(error, client)
            return
        self._refusals.malformed(error, self.tls.scheme)
        if self._refusals.may_tell():
            log_refusal(error, client)
            if self._access is not None:
                self._access.refused(error, client)

    # Calls --------------------------------------------------------------------------------------

    def conversation(self, stream: Stream, make: Callable[..., Call] | None = None) -> Call | None:
        """Make a stream's conversation, to be held or submitted; None if it was refused."""
        if self._entrance.admission.looks:
            return self._entrance.admission.begin(self.dispatchers, stream, make)
        return self.dispatchers.begin(stream, None, make)

    def hold(self, conversation: Call, connection: Connection) -> None:
        """Called when a conversation is to be submitted once its body has come."""
        conversation.begun_by.hold(conversation, connection)

    def drop(self, conversation: Call) -> None:
        """End a held conversation without beginning it; its client, if there, is answered 503."""
        conversation.begun_by.drop(conversation)

    def submit(self, conversation: Call) -> None:
        """Submit a conversation to the executor; reject it when the queue is full."""
        self.dispatchers.submit(conversation)

    def status(self) -> Status:
        """Return the counts of this server; from any thread."""
        return self.dispatchers.status()

    def requests(self) -> tuple[RequestStatus, ...]:
        """Return the status of each request in progress, the oldest first; from any thread."""
        return self.dispatchers.requests()
