"""One application's conversations on a loop that is somebody else's.

What :class:`bide.Server` does between its connections and its executor, for hosts that have
connections of their own. Everything is called on the loop but where noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
from collections.abc import Callable
from time import monotonic
from typing import Any

from greenlet import getcurrent

from bide.applications.loading import check
from bide.capabilities import decide, name_of
from bide.errors import ServerStopping, SettingError
from bide.exchange.stream import Stream
from bide.executors.choice import make_executor
from bide.executors.threads import ThreadsExecutor
from bide.forks import share
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import log
from bide.serving.refusals import QUEUE_FULL, QUEUE_TIMEOUT, STOPPING, Refusals
from bide.serving.requests import RequestStatus, look_at
from bide.serving.status import Status, hide, show, snapshot
from bide.waiting.waiter import CLEANUP_SECONDS, Waiter
from bide.wsgi.conversation import Application, Conversation
from bide.wsgi.environ import connection_environ, server_environ
from bide.wsgi.files import FileWrapper

TICK = 1.0
"""Seconds between two looks at the queue."""


class PlainFileWrapper(FileWrapper):
    """``wsgi.file_wrapper`` of hosts that cannot have the kernel send: an iterable like any."""


class _InContext(Conversation):
    """A conversation in a context that its host gives, with what middleware has put into it."""

    __slots__ = ("context",)

    context: contextvars.Context

    def run(self) -> None:
        """Run in it: the greenlet's own is put back by its hub."""
        getcurrent().gr_context = self.context
        super().run()


def checked(
    application: Application,
    *,
    executor: str = "auto",
    threads: int = 4,
    queue: int = 1000,
    queue_timeout: float = 30.0,
) -> None:
    """Raise for what a :class:`Runner` cannot have, LoadError or SettingError."""
    check(application, name_of(application))
    if executor not in ("auto", "loop", "threads"):
        raise SettingError(f"executor={executor!r}: it is auto, loop or threads")
    for name, value, least in (("threads", threads, 1), ("queue", queue, 0)):
        if type(value) is not int or value < least:
            raise SettingError(f"{name}={value!r}: it is a number, {least} or more")
    if not queue_timeout > 0:
        raise SettingError(f"queue_timeout={queue_timeout!r}: it is a number of seconds, above 0")


class Runner:
    """Runs an application's conversations on a running loop, by the executor that it bears.

    Args:
        application: the WSGI callable.
        loop: the loop that this is called on.
        executor: as :attr:`bide.Settings.executor`.
        threads: lanes at most.
        queue: requests that may wait for a lane; more are answered 503.
        queue_timeout: seconds that they may wait.
        lifetime: one for a loop that is not asyncio's.

    Raises:
        LoadError: what was given is no WSGI application.
    """

    def __init__(
        self,
        application: Application,
        loop: asyncio.AbstractEventLoop,
        *,
        executor: str = "auto",
        threads: int = 4,
        queue: int = 1000,
        queue_timeout: float = 30.0,
        lifetime: Lifetime | None = None,
    ) -> None:
        self.application = application
        self.name = name_of(application)
        check(application, self.name)
        self.decision = decide(application, executor)
        self.stopping = False
        self.lifetime = lifetime or Lifetime()
        self.state = self.lifetime.state
        self._loop = loop
        self._queue_timeout = queue_timeout
        self._executor = make_executor(self.decision.executor, loop, threads, queue)
        base = server_environ(self._executor.multithread)
        base["wsgi.file_wrapper"] = PlainFileWrapper
        self._base = base
        # Those in progress, and what is called when they end. Added to on the loop, taken from on
        # any thread; single operations only.
        self._conversations: dict[Conversation, Callable[[], None] | None] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._refusals = Refusals()
        share(self)
        show(self)

    def after_fork(self) -> None:
        """Give the conversations up, in a forked child."""
        for conversation in list(self._conversations):
            conversation.stream.after_fork()

    def environ(
        self, scheme: str, server: tuple[str, str], client: tuple[str, str]
    ) -> dict[str, Any]:
        """Make what is the same for the requests of one connection; see ``connection_environ``."""
        return connection_environ(self._base, scheme, server, client)

    def begin(
        self,
        stream: Stream,
        environ: dict[str, Any],
        *,
        context: contextvars.Context | None = None,
        ended: Callable[[], None] | None = None,
    ) -> Conversation:
        """Have a stream's conversation run, or be answered 503.

        Args:
            stream: its exchange.
            environ: from :meth:`environ`, with what the host adds.
            context: the one that the application runs in; a new one without.
            ended: called once all has ended, ``close()`` too; from any thread, perhaps before this
                returns.
        """
        conversation: Conversation
        if context is None:
            conversation = Conversation(self, stream, environ, self.waiter())
        else:
            conversation = _InContext(self, stream, environ, self.waiter())
            conversation.context = context
        self.run(conversation, ended)
        return conversation

    def run(self, conversation: Conversation, ended: Callable[[], None] | None = None) -> None:
        """Have a conversation of this runner's waiters run, or be answered 503; as ``begin``."""
        self._conversations[conversation] = ended
        if self.stopping or not self._executor.submit(conversation):
            self._refusals.count(STOPPING if self.stopping else QUEUE_FULL)
            conversation.reject(1)
        else:
            self._executor.flush()
        self._look_later()

    def waiter(self) -> Waiter:
        """Make the waiter of a conversation that the host makes itself, for :meth:`run`."""
        return self._executor.waiter()

    def _reject_queued(self, age: float, kind: str) -> None:
        """Answer requests that have waited for a lane for so many seconds."""
        for job in self._executor.expire(age):
            assert isinstance(job, Conversation)
            self._refusals.count(kind)
            job.reject(1)

    def _look_later(self) -> None:
        waiting = self._executor.queued or self._refusals.some
        if self._ticker is None and waiting and not self.stopping:
            self._ticker = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        self.mind_time()
        self._refusals.report(monotonic())
        self._look_later()

    def mind_time(self, ahead: float = 0.0) -> None:
        """Look once at what waits for a lane; on the loop, by itself or when a test says.

        Args:
            ahead: seconds that a test is ahead of the clock, by which requests are the older.
        """
        self._reject_queued(self._queue_timeout - ahead, QUEUE_TIMEOUT)
        self._executor.flush()  # for what no thread could be started for

    async def stop(self) -> None:
        """Cancel what waits, give it time to clean up, and end the threads; on asyncio's loop.

        Then ``on_stop`` functions are called.

        To be called when the host has no more requests in progress, or ends them.
        """
        self.cancel()
        deadline = self._loop.time() + CLEANUP_SECONDS
        while self.busy and self._loop.time() < deadline:
            await asyncio.sleep(0.002)
        await self.lifetime.stop(CLEANUP_SECONDS)
        self.end()

    @property
    def busy(self) -> bool:
        """Whether conversations are in progress; from any thread."""
        return bool(self._conversations)

    def cancel(self) -> None:
        """Begin to stop: cancel what waits; new requests are answered 503."""
        self.stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._reject_queued(0.0, STOPPING)
        for conversation in list(self._conversations):
            conversation.cancel(ServerStopping("the server stops"), firm=True)

    def end(self) -> None:
        """End the threads; what still runs is left behind, and said so."""
        for conversation in list(self._conversations):
            log.error("left running: %s", conversation.describe())
        self._refusals.report(math.inf)
        self._executor.stop()
        hide(self)

    def abandon(self) -> None:
        """End what can be ended when the loop is closed; from any thread."""
        self.stopping = True
        self._reject_queued(0.0, STOPPING)
        for conversation in list(self._conversations):
            # On the loop itself nothing can go on any more: RuntimeError says so.
            with contextlib.suppress(RuntimeError):
                conversation.cancel(ServerStopping("the event loop is closed"), firm=True)
        self.forget()

    def forget(self) -> None:
        """End the threads, each with its last conversation: nothing will begin; from any thread."""
        if isinstance(self._executor, ThreadsExecutor):
            self._executor.stop()
        hide(self)

    def done(self, conversation: Conversation) -> None:
        """Know that a conversation has ended; from its thread."""
        ended = self._conversations.pop(conversation, None)
        if ended is not None:
            ended()

    def status(self) -> Status:
        """Take a snapshot; from any thread. A host's own connections are not known: 0."""
        return snapshot(self._executor, self._conversations, 0, self.stopping)

    def requests(self) -> tuple[RequestStatus, ...]:
        """Look at each request in progress; from any thread."""
        return look_at(list(self._conversations), (), self.name)
