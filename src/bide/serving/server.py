"""One process's server: listeners, connections, conversations, and their end.

Everything runs on the event loop that the server was started on, but for what conversations do on
their executor's threads; those call ``done``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import sys
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

from bide.applications.loading import check
from bide.applications.patched import refuse_patched
from bide.capabilities import Decision, decide, name_of
from bide.errors import RemoteProtocolError, ServerStopping, StartError
from bide.exchange.limits import Limits
from bide.exchange.messages import decoded
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.executors.choice import make_executor
from bide.executors.executor import Executor
from bide.executors.monitor import Monitor
from bide.forks import give_up_loop, share, unshare
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.serving.connection import Connection, Serving
from bide.serving.deadlines import Allowances, Look
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import access
from bide.serving.logs import log_access, log_broken_off, log_refusal
from bide.serving.overdue import end_overdue, interval
from bide.serving.refusals import QUEUE_FULL, QUEUE_TIMEOUT, STOPPING, WAITED, Refusals, refused
from bide.serving.status import Status, snapshot
from bide.settings import Settings
from bide.transports.acceptor import Acceptor
from bide.transports.addresses import parse_address
from bide.transports.poller import make_poller
from bide.waiting.loops import Mailbox, close_mailbox, open_mailbox
from bide.waiting.waiter import CLEANUP_SECONDS, background_loop
from bide.wsgi.conversation import Application, Conversation
from bide.wsgi.environ import server_environ

log = logging.getLogger("bide")


class Server(Serving):
    """Serves one WSGI application: ``async with Server(app, bind="127.0.0.1:0") as server:``.

    All methods are for the thread of the loop that it was started on, but for ``status``. Leaving
    the block finishes the requests in progress, as SIGTERM does for the command line.

    Args:
        application: the WSGI callable.
        settings: how to serve; or give single settings by name, as in :class:`Settings`.
        name: what to call the application in the log.
        listeners: listening sockets to serve on, in place of ``bind``; the server closes them.

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
        **options: Any,
    ) -> None:
        self._given = listeners
        self.settings = settings if settings is not None else Settings(**options)
        self.name = name or name_of(application)
        check(application, self.name)
        self.application = application
        self.decision: Decision = decide(application, self.settings.executor)
        self._addresses = [parse_address(each) for each in self.settings.bind]
        self.limits = Limits.of(self.settings)
        self.allowances = Allowances.of(self.settings)
        self.unsent_total = Total(self.settings.limit_unsent_total)
        self.unread_total = Total(self.settings.limit_unread_total)
        self.health = decoded(self.settings.health.encode())
        self.cancels_half_closed = self.settings.half_close == "cancel"
        self.draining = False
        self._mailbox: Mailbox
        self._executor: Executor
        self._environ: dict[str, Any] = {}
        self._refusals = Refusals()
        self._acceptor = Acceptor(
            self._connect,
            self.settings.limit_connections,
            self.settings.tcp_keepalive,
            partial(self._refusals.count, WAITED),
        )
        self._connections: set[Connection] = set()
        # Added to on the loop, taken from on any thread; single operations only.
        self._conversations: set[Conversation] = set()
        self._held: dict[Conversation, Connection] = {}  # whose bodies are still to come
        self._finished, self._stopped = asyncio.Event(), asyncio.Event()
        self._lifetime = Lifetime()
        self.state = self._lifetime.state
        self._finish_by = 0.0  # by the loop's clock, once it stops
        self.monitor: Monitor | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._ticked = 0.0  # monotonic seconds
        self._interval = interval(self.settings)
        self._access = False

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
        self._executor = make_executor(
            self.decision.executor,
            self.loop,
            settings.threads,
            settings.queue,
            lambda: self.poller.wake(),
            settings.limit_threads,
        )
        self._environ = server_environ(self._executor.multithread)
        self._access = access.isEnabledFor(logging.INFO)
        self.monitor = Monitor(
            self.loop,
            lambda: self._executor.hubs,
            lambda: len(self._conversations),
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
        self._tick()

    def after_fork(self) -> None:
        """Give all of it up, in a forked child."""
        for conversation in list(self._conversations):
            conversation.stream.after_fork()
        for connection in list(self._connections):
            connection.after_fork()
        self._acceptor.after_fork()
        give_up_loop(self.loop)

    async def stop(self) -> None:
        """Finish: accept no more, let requests end in time, then cancel those that wait.

        Requests have ``graceful_timeout`` seconds to end by themselves, and some more to clean up
        once they are cancelled. Code that still runs then is left behind, and said so. When this
        is cancelled, it waits for nothing more. A second call returns when the first one has ended.
        """
        if self.draining:
            await self._stopped.wait()
            return
        self.draining = True
        try:
            try:
                await self._finish()
            finally:
                for connection in list(self._connections):
                    connection.abort()
            await self._lifetime.stop(max(self._finish_by - self.loop.time(), CLEANUP_SECONDS))
        finally:
            self.loop.call_soon(self._end)  # after the transports' last callbacks
        await self._stopped.wait()
        # Not by a thread of the loop's own pool: the application may have blocked them all.
        deadline = self.loop.time() + CLEANUP_SECONDS
        while self._executor.alive and not self._conversations and self.loop.time() < deadline:
            await asyncio.sleep(0.002)

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
        if not await self._all_done(self.settings.graceful_timeout):
            self._reject_queued(0.0, STOPPING)
            waiting = list(self._conversations)
            log.warning("%d requests have not ended in time: they are cancelled", len(waiting))
            for conversation in waiting:
                if conversation in self._held:
                    self._held[conversation].drop_held(conversation.stream)
                else:
                    conversation.cancel(ServerStopping("the server stops"), firm=True)
            if not await self._all_done(CLEANUP_SECONDS):
                for connection in list(self._connections):
                    connection.abort()  # which ends those that hang on their own clients
                await self._all_done(1.0)
                for conversation in list(self._conversations):
                    log.error("left running: %s", conversation.describe())
        await self._flush()

    def _end(self) -> None:
        unshare(self)
        if self._ticker is not None:
            self._ticker.cancel()
        if self.monitor is not None:
            self.monitor.stop()
        self.poller.close()
        close_mailbox(self.loop)
        background_loop.take_back(self.loop)
        self._executor.stop()
        self._refusals.report(math.inf)
        self._stopped.set()

    async def _all_done(self, seconds: float) -> bool:
        deadline = self.loop.time() + seconds
        await asyncio.sleep(0)  # one that has ended may have left a pipelined one to be begun
        while self._conversations:
            self._finished.clear()
            if not self._conversations:  # ended before the mark was cleared
                break
            left = deadline - self.loop.time()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._finished.wait(), left)
            except TimeoutError:
                return not self._conversations
        return True

    async def _flush(self) -> None:
        """Let clients take what is queued for them while there is time; all else has a moment."""
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
        """Mind the time, once in a while: deadlines cost no timers of their own."""
        # First: whatever fails, time goes on.
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
            ahead: seconds that a test is ahead of the clock, by which requests are the older.
        """
        settings = self.settings
        # First: the looks may queue more.
        self._reject_queued(settings.queue_timeout - ahead, QUEUE_TIMEOUT)
        look = Look(elapsed, self.allowances, self.unsent_total, self._acceptor.crowded)
        connections = list(self._connections)
        if self.unsent_total.full:  # until it is no more, those that hold the most are given up
            connections.sort(key=lambda each: each.held, reverse=True)
        for connection in connections:
            connection.mind_time(look)
        if settings.request_timeout:
            before = monotonic() + ahead - settings.request_timeout
            end_overdue(list(self._conversations), before, self._executor.hubs, self._held)
        self._refusals.report(monotonic() + ahead)
        self._executor.recover()
        self.flush()  # for what no thread could be started for

    def _reject_queued(self, age: float, kind: str) -> None:
        """Answer requests that have waited for a thread for so many seconds."""
        for job in self._executor.expire(age):
            assert isinstance(job, Conversation)
            self._refusals.count(kind)
            try:
                job.reject(1)
            except Exception:  # the access log's, for example; the others get their answers
                log.exception("internal error: a request could not be rejected")

    @property
    def able(self) -> bool:
        """Whether there is a thread for requests, or could be one."""
        return self._executor.able

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
        """Let the executor begin what was submitted; with plenty to do, bring it no more yet."""
        if self._executor.flush():
            self._mailbox.hold()
            self.poller.rest(self._mailbox.release)

    def connection_lost(self, connection: Connection) -> None:
        """Know that a connection has ended."""
        self._connections.discard(connection)
        self._acceptor.left()

    # Conversations ------------------------------------------------------------------------------

    def conversation(self, stream: Stream) -> Conversation:
        """Make a stream's conversation."""
        return Conversation(self, stream, self._environ, self._executor.waiter())

    def hold(self, conversation: Conversation, connection: Connection) -> None:
        """Count a conversation that is to be submitted when its body has come."""
        self._conversations.add(conversation)
        self._held[conversation] = connection

    def drop(self, conversation: Conversation) -> None:
        """End one that was held without beginning it; where there still is a client, by a 503."""
        del self._held[conversation]
        conversation.reject(1)

    def submit(self, conversation: Conversation) -> None:
        """Have it run, or reject it."""
        self._held.pop(conversation, None)
        self._conversations.add(conversation)
        if not self._executor.submit(conversation):
            self._refusals.count(QUEUE_FULL)
            conversation.reject(1)

    def refused(self, error: RemoteProtocolError, client: str) -> None:
        """Called when a request was not begun for what it is."""
        self._refusals.count(refused(error.status))
        if self._refusals.may_tell():
            log_refusal(error, client, self._access)

    def done(self, conversation: Conversation) -> None:
        """Know that a conversation has ended; from its thread."""
        self._conversations.discard(conversation)
        body = conversation.stream.body
        if body.failed and isinstance(body.error, RemoteProtocolError):
            self._refusals.count(refused(body.error.status))
            if self._refusals.may_tell():
                log_broken_off(conversation, body.error)
        # One that was left running may end when its server, and the loop, are no more.
        if self.draining and not self._conversations and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._finished.set)
        if self._access:
            log_access(conversation)

    def status(self) -> Status:
        """Take a snapshot; from any thread."""
        in_progress, connections = self._conversations, len(self._connections)
        return snapshot(self._executor, in_progress, connections, self.draining, len(self._held))
