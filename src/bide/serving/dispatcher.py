"""One application: its executor, and its calls from their beginning to their end.

A server has one for each application that it serves, and gives it the requests that its connections
bring. A host has one, and brings requests of its own. Everything is called on the loop but where
noted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping, Sized
from time import monotonic
from typing import Any

from bide.applications.loading import check
from bide.capabilities import Decision, decide, name_of
from bide.errors import RemoteProtocolError, ServerStopping
from bide.exchange.call import Call
from bide.exchange.stream import Stream
from bide.executors.choice import Executors
from bide.executors.executor import Executor
from bide.executors.hub import Job
from bide.executors.threads import ThreadsExecutor
from bide.forks import share
from bide.serving.connection import Connection
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import log
from bide.serving.logs import log_broken_off
from bide.serving.overdue import TICK, end_overdue
from bide.serving.refusals import QUEUE_FULL, QUEUE_TIMEOUT, STOPPING, Refusals, refused
from bide.serving.requests import RequestStatus, count, look_at
from bide.serving.status import Status, hide, show
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time
from bide.waiting.waiter import Waiter
from bide.wsgi.conversation import Application, Conversation
from bide.wsgi.environ import server_environ
from bide.wsgi.site import Site

Make = Callable[[Site, Stream, Waiter, Mapping[str, Any] | None], Conversation]
"""Makes a stream's call, of what :class:`Conversation` takes."""


class Dispatcher(Site):
    """Begins an application's calls, has an executor run them, and ends them.

    Args:
        application: the WSGI callable.
        settings: ``executor``, ``queue_timeout`` and ``request_timeout`` are looked at.
        name: what to call the application in the log.
        lifetime: the server's; else the application has one of its own.
        refusals: where the server counts what it refuses; else there is a count for this alone.
        connections: the server's, to be counted.
        make: makes the calls, unless :meth:`begin` is told another way.
        environ: keys for each environ, in place of Bide's own.

    Attributes:
        environ: what is the same in every environ, once this is open.
        decision: which executor the application has, and why.
        executor: that executor, once this is open.
        lifetime: its start and stop.
        stopping: whether it is to end.
        cleanup_seconds: how long calls that were cancelled have to end when it stops.

    Raises:
        LoadError: what was given is no WSGI application.
    """

    def __init__(
        self,
        application: Application,
        settings: Settings,
        *,
        name: str = "",
        lifetime: Lifetime | None = None,
        refusals: Refusals | None = None,
        connections: Sized = (),
        make: Make = Conversation,
        environ: dict[str, Any] | None = None,
    ) -> None:
        self.application = application
        self.name = name or name_of(application)
        check(application, self.name)
        self.decision: Decision = decide(application, settings.executor)
        self.lifetime = lifetime or Lifetime()
        self.state = self.lifetime.state
        self.stopping = False
        self.cleanup_seconds = cleanup_time.seconds
        self._settings = settings
        self._refusals = refusals or Refusals()
        self._connections = connections
        self._make = make
        self.environ = environ or {}
        # Calls in progress, and what is called when they end. Added to on the loop, taken from on
        # any thread; single operations only.
        self._calls: dict[Call, Callable[[], None] | None] = {}
        self._held: dict[Call, Connection] = {}  # whose bodies are still to come
        self._awaited = False  # somebody waits for all calls to end
        self._all_ended = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._ended: Callable[[Call], None] | None
        self._loop: asyncio.AbstractEventLoop
        self._executors: Executors
        self.executor: Executor

    def open(self, executors: Executors, ended: Callable[[Call], None] | None = None) -> None:
        """Take an executor; before the first call.

        Args:
            executors: where it is taken from, perhaps to be shared with others.
            ended: called when a call has ended, on its thread.
        """
        self._ended = ended
        self._loop = executors.loop
        self._executors = executors
        self.executor = executors.take(self.decision.executor, self)
        self.environ = server_environ(self.executor.multithread) | self.environ
        share(self)

    def after_fork(self) -> None:
        """Called in a forked child, where the calls are the parent's: leave their clients alone."""
        for call in self.calls:
            call.stream.after_fork()

    # Calls --------------------------------------------------------------------------------------

    def begin(
        self,
        stream: Stream,
        more: Mapping[str, Any] | None = None,
        make: Make | None = None,
        ended: Callable[[], None] | None = None,
    ) -> Conversation:
        """Make a stream's call, which is in progress from now on: to be held, submitted, or run.

        Args:
            stream: its exchange.
            more: what a host adds to the environ.
            make: makes the call; without, as all are made.
            ended: called once all of it has ended, ``close()`` too; from any thread.
        """
        call = (make or self._make)(self, stream, self.executor.waiter(), more)
        self._calls[call] = ended
        return call

    def hold(self, call: Call, connection: Connection) -> None:
        """Called when a call is to be submitted once its body has come.

        When it takes too long, or the server stops, the connection is told to submit or drop it.
        """
        self._held[call] = connection

    def drop(self, call: Call) -> None:
        """End a call that was held without beginning it; its client, if there, is answered 503."""
        del self._held[call]
        call.reject(1)

    def submit(self, call: Job) -> None:
        """Have a call run, or reject it. The executor begins it at its next ``flush``."""
        self._held.pop(call, None)
        if not self.executor.submit(call):
            self._refuse(call, QUEUE_FULL)

    def run(self, call: Job) -> None:
        """Have a call run, or reject it, and look at the time while it waits; for hosts."""
        if self.stopping:
            self._refuse(call, STOPPING)
        else:
            self.submit(call)
            self.executor.flush()
        self._look_later()

    def _refuse(self, call: Call, kind: str) -> None:
        self._refusals.count(kind)
        call.reject(1)

    def done(self, call: Call) -> None:
        """Called when a call has ended; on its thread."""
        ended = self._calls.pop(call, None)
        if ended is not None:
            ended()
        body = call.stream.body
        if body.failed and isinstance(body.error, RemoteProtocolError):
            self._refusals.count(refused(body.error.status))
            if self._refusals.may_tell():
                log_broken_off(call, body.error)
        # A call that was left running may end after the loop was closed.
        if self._awaited and not self._calls and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._all_ended.set)
        if self._ended is not None:
            self._ended(call)

    # Looks --------------------------------------------------------------------------------------

    @property
    def calls(self) -> list[Call]:
        """The calls in progress; from any thread."""
        return list(self._calls)

    @property
    def in_progress(self) -> int:
        """How many calls are in progress; from any thread."""
        return len(self._calls)

    def status(self) -> Status:
        """Return a snapshot; from any thread. Its threads may be shared with other applications."""
        executor = self.executor
        if self._executors.shared(executor):
            waiting, queued = count(self.calls, self._held)
        else:  # quickly: streams ask at each turn whether the server stops
            waiting, queued = executor.waiting, executor.queued
        waiting += len(self._held)
        return Status(
            running=max(0, len(self._calls) - waiting - queued),
            waiting=waiting,
            queued=queued,
            threads=executor.threads,
            threads_busy=executor.threads_busy,
            threads_max=executor.threads_max,
            connections=len(self._connections),
            stopping=self.stopping,
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Look at each request in progress; from any thread."""
        return look_at(self.calls, self._held, self.name)

    # Time ---------------------------------------------------------------------------------------

    def mind_time(self, ahead: float = 0.0) -> None:
        """End what has waited too long for a thread, and what takes too long; called now and then.

        Args:
            ahead: seconds to add to the age of each request; for tests.
        """
        self._expire(self._settings.queue_timeout - ahead, QUEUE_TIMEOUT)
        if self._settings.request_timeout:
            before = monotonic() + ahead - self._settings.request_timeout
            end_overdue(self.calls, before, self.executor.hubs, self._release)

    def _release(self, call: Call) -> None:
        """Have a call begin that is held."""
        if call in self._held:
            self._held[call].submit_held(call.stream)

    def _expire(self, age: float, kind: str) -> None:
        """Reject calls that have waited for a thread for so many seconds."""
        for call in self.executor.expire(age, self._calls):
            try:
                self._refuse(call, kind)
            except Exception:  # the access log's, for example; the others get their answers
                log.exception("internal error: a request could not be rejected")

    def _look_later(self) -> None:
        waiting = self.executor.queued or self._refusals.some
        if self._ticker is None and waiting and not self.stopping:
            self._ticker = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        self.mind_time()
        self._refusals.report(monotonic())
        self.executor.flush()  # for what no thread could be started for
        self._look_later()

    # The end ------------------------------------------------------------------------------------

    def cancel(self) -> int:
        """Begin to stop: reject the calls that wait for a thread, and cancel the others.

        Return how many were in progress then, without those that waited for a thread.
        """
        self.stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._expire(0.0, STOPPING)
        calls = self.calls
        for call in calls:
            if call in self._held:
                self._held[call].drop_held(call.stream)
            else:
                call.cancel(ServerStopping("the server stops"), firm=True)
        return len(calls)

    async def all_ended(self, seconds: float) -> bool:
        """Wait until no call is in progress, for so many seconds; return whether that has come."""
        deadline = self._loop.time() + seconds
        self._awaited = True
        await asyncio.sleep(0)  # one that has ended may have left a pipelined one to be begun
        while self._calls:
            self._all_ended.clear()
            if not self._calls:  # ended before the mark was cleared
                break
            left = deadline - self._loop.time()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._all_ended.wait(), left)
            except TimeoutError:
                return not self._calls
        return True

    async def stop(self) -> None:
        """Cancel what waits, give it time to clean up, call ``on_stop`` functions, end the threads.

        For a host on asyncio's loop, which brings no more requests.
        """
        self.cancel()
        await self.all_ended(self.cleanup_seconds)
        await self.lifetime.stop(self.cleanup_seconds)
        if self.end():
            await self.threads_ended()

    def end(self) -> bool:
        """Name in the log what is left running, and end the threads; as :meth:`close`."""
        self.name_left()
        self._refusals.report(math.inf)
        return self.close()

    def name_left(self) -> None:
        """Name in the log each call that is left running."""
        for call in self.calls:
            log.error("left running: %s", call.describe())

    def close(self) -> bool:
        """Release the executor: no call will begin. Return whether that has ended its threads."""
        hide(self)
        return self._executors.give_back(self.executor, self)

    async def threads_ended(self) -> None:
        """Wait for a moment until the threads have ended, unless calls are left running on them."""
        # Not by a thread of the loop's own pool: the application may have blocked them all.
        deadline = self._loop.time() + self.cleanup_seconds
        while self.executor.alive and not self._calls and self._loop.time() < deadline:
            await asyncio.sleep(0.002)

    def abandon(self) -> None:
        """End what can still be ended once the loop is closed; from any thread."""
        self.stopping = True
        self._expire(0.0, STOPPING)
        for call in self.calls:
            # What would go on on the closed loop cannot: that raises RuntimeError.
            with contextlib.suppress(RuntimeError):
                call.cancel(ServerStopping("the event loop is closed"), firm=True)
        self.forget()

    def forget(self) -> None:
        """End the threads, each when its last call has ended; from any thread."""
        hide(self)
        if isinstance(self.executor, ThreadsExecutor):
            self.close()


def hosted(
    application: Application,
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    lifetime: Lifetime | None = None,
) -> Dispatcher:
    """Make a dispatcher for a host, with an executor of its own; on a running loop.

    Args:
        application: the WSGI callable.
        settings: ``executor``, ``threads``, ``queue`` and ``queue_timeout`` count.
        loop: the host's, which this is called on.
        lifetime: one for a loop that is not asyncio's.

    Raises:
        LoadError: what was given is no WSGI application.
    """
    dispatcher = Dispatcher(application, settings, lifetime=lifetime)
    dispatcher.open(Executors(loop, settings.threads, settings.queue))
    show(dispatcher)
    return dispatcher
