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

from bide.applications.interfaces import Interface, check
from bide.asgi.drain import Drain
from bide.asgi.http import HTTPCall
from bide.capabilities import Decision, decide, name_of
from bide.errors import RemoteProtocolError, ServerStopping
from bide.exchange.call import Call
from bide.exchange.stream import Stream
from bide.executors.choice import Executors
from bide.executors.executor import Executor
from bide.executors.spawning import Spawned, Spawner
from bide.executors.threads import ThreadsExecutor
from bide.forks import give_up_each, share
from bide.integrations.adopted import adopt
from bide.serving.access_log import log_broken_off
from bide.serving.clients import REQUESTS, Clients
from bide.serving.connection import Connection
from bide.serving.ending import Ending
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import log
from bide.serving.overdue import TICK, end_overdue
from bide.serving.refusals import QUEUE_FULL, QUEUE_TIMEOUT, STOPPING, Refusals, refused
from bide.serving.requests import RequestStatus, count, look_at
from bide.serving.status import Status, hide
from bide.serving.taking import take, tasks
from bide.serving.timing import timed
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time
from bide.waiting.each import NOT_REJECTED, NOT_TOLD, to_each
from bide.waiting.waiter import Waiter
from bide.wsgi.conversation import Application, Conversation
from bide.wsgi.environ import server_environ
from bide.wsgi.site import Site, without_slot

Make = Callable[[Site, Stream, Waiter, Mapping[str, Any] | None], Conversation]
"""Makes a stream's call; it has the arguments of :class:`Conversation`."""


class Dispatcher(Site):
    """Begins an application's calls, submits them to an executor, and ends them.

    Args:
        application: the callable.
        settings: ``executor``, ``queue_timeout``, ``request_timeout`` and ``asgi_cancel`` count.
        name: what to call the application in the log.
        lifetime: the server's; else the application has one of its own.
        refusals: where the server counts what it refuses; else there is a count for this alone.
        connections: the server's, for the status.
        clients: the server's, likewise.
        make: makes the calls of a WSGI application, unless :meth:`begin` has another function.
        environ: keys for each environ, in place of Bide's own.
        interface: the application's.
        whole: returns the counts of a server that has more applications than this.
        processes: whether its calls may be made in child processes.

    Attributes:
        interface: the application's.
        make: makes its calls.
        environ: what is the same in every environ, once this is open.
        decision: which executor the application has, and why.
        executor: that executor, once this is open.
        lifetime: its start and stop.
        spawner: begins its background work, once this is open.
        stopping: whether it has begun to stop.
        asgi_cancel: seconds that a call of an ASGI application has once its client has left.
        begun: how many calls have been begun.

    Raises:
        LoadError: ``application`` is not a WSGI application, and should be one.
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
        clients: Clients | None = None,
        make: Make = Conversation,
        environ: dict[str, Any] | None = None,
        interface: Interface = "wsgi",
        whole: Callable[[], Status] | None = None,
        processes: bool = False,
    ) -> None:
        self.name = name or name_of(application)
        self.decision: Decision
        self.interface = interface
        self.make: Callable[..., Call]
        if interface == "asgi":
            self.application = application
            self.decision = tasks(settings, self.name)
            self.make = HTTPCall
        else:
            check(application, self.name)
            self.application = without_slot(application)
            self.decision = decide(application, settings.executor, processes)
            self.make = make
        if settings.server_timing:
            self.make = timed(self.make)
        self.asgi_cancel = settings.asgi_cancel
        self.lifetime = lifetime or Lifetime()
        self.state = self.lifetime.state
        self.context = self.lifetime.context
        self.drain = Drain()
        self._whole = whole
        self.stopping = False
        self.begun = 0
        self._settings = settings
        self._refusals = refusals or Refusals()
        self._connections = connections
        self._clients = clients or Clients(0, 0)
        self.environ = environ or {}
        # Calls in progress, and what is called when they end. Added to on the loop, taken from on
        # any thread; single operations only.
        self._calls: dict[Call, Callable[[], None] | None] = {}
        self._held: dict[Call, Connection] = {}  # whose bodies are still to come
        self._ending = Ending(lambda: self._calls or self.spawner.lasting)
        self._ticker: asyncio.TimerHandle | None = None
        self._ended: Callable[[Call], None] | None
        self._loop: asyncio.AbstractEventLoop
        self._executors: Executors
        self.executor: Executor
        self.spawner: Spawner

    def open(self, executors: Executors, ended: Callable[[Call], None] | None = None) -> None:
        """Take an executor; before the first call.

        Args:
            executors: where it is taken from, perhaps to be shared with others.
            ended: called when a call has ended, on its thread.
        """
        adopt()
        self._ended = ended
        self._loop = executors.loop
        self._executors = executors
        self.make, self.executor = take(self, self.make, self.decision, executors, self._settings)
        self.environ = server_environ(self.executor.multithread) | self.environ
        limit = self._settings.limit_spawned
        self.spawner = Spawner(self, self.executor, self._loop, limit, self._ending.look)
        if self.decision.executor in ("threads", "loop"):
            self.spawner.open()
        share(self, Dispatcher.after_fork)

    def after_fork(self) -> None:
        """Called in a forked child: drop the calls, whose clients are the parent's."""
        give_up_each(self.calls, lambda call: call.stream.after_fork())
        self.spawner.after_fork()

    # Calls --------------------------------------------------------------------------------------

    def begin(
        self,
        stream: Stream,
        more: Mapping[str, Any] | None = None,
        make: Callable[..., Call] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> Any:
        """Make a stream's call, which is in progress from now on; then hold, submit or run it.

        Args:
            stream: its exchange.
            more: what a host adds to the environ.
            make: makes the call; None: as for all calls.
            ended: called once all of it has ended, ``close()`` too; from any thread.
        """
        call = (make or self.make)(self, stream, self.executor.waiter(), more)
        self._calls[call] = ended
        self.begun += 1
        return call

    def hold(self, call: Call, connection: Connection) -> None:
        """Called when a call is to be submitted once its body has come.

        When it takes too long, or the server stops, the connection is told to submit or drop it.
        """
        self._held[call] = connection

    def drop(self, call: Call) -> None:
        """End a call without beginning it; its client, if there, is answered 503."""
        self._held.pop(call, None)
        call.reject(1, stops=True)

    def submit(self, call: Call) -> None:
        """Submit a call to the executor, which begins it at its next ``flush``; or reject it."""
        self._held.pop(call, None)
        if not self.executor.submit(call):
            self._refuse(call, QUEUE_FULL)

    def run(self, call: Call) -> None:
        """Submit and flush a call, or reject it; check its deadlines meanwhile. For hosts."""
        if self.stopping:
            self._refuse(call, STOPPING)
        else:
            self.submit(call)
            self.executor.flush()
        self._look_later()

    def _refuse(self, call: Call, kind: str) -> None:
        self._refusals.count(kind)
        call.reject(1, stops=kind == STOPPING)

    def refuse(self, call: Call, client: str) -> None:
        """End a call without submitting it: its client, which is named, is answered 429."""
        self._refusals.count(REQUESTS, client)
        call.reject(1, 429)

    def done(self, call: Call) -> None:
        """Called when a call has ended; on its thread."""
        ended = self._calls.pop(call, None)
        if ended is not None:
            ended()
        body = call.stream.body
        if body.failed and isinstance(body.error, RemoteProtocolError):
            self._refusals.count(refused(body.error.status), str(body.error))
            if self._refusals.may_tell():
                log_broken_off(call, body.error)
        if self._ending.awaited:
            self._ending.look()
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
        """Return the counts of the server; from any thread."""
        return self.counts() if self._whole is None else self._whole()

    def counts(self) -> Status:
        """Return this application's counts; from any thread. Others may share its threads."""
        executor = self.executor
        if self._executors.shared(executor) or not executor.knows_counts:
            waiting, queued = count([*self.calls, *self.spawner.jobs], self._held)
        else:  # quickly: streams ask at each turn whether the server stops
            waiting, queued = executor.waiting, executor.queued
        waiting += len(self._held)
        spawned = self.spawner.in_progress
        return Status(
            running=max(0, len(self._calls) + spawned - waiting - queued),
            waiting=waiting,
            queued=queued,
            threads=executor.threads,
            threads_busy=executor.threads_busy,
            threads_max=executor.threads_max,
            connections=len(self._connections),
            spawned=spawned,
            client_connections_refused=self._clients.refused_connections,
            client_requests_refused=self._clients.refused_requests,
            stopping=self.stopping,
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Return the status of each request in progress, the oldest first; from any thread."""
        return look_at([*self.calls, *self.spawner.jobs], self._held, self.name)

    # Time ---------------------------------------------------------------------------------------

    def mind_time(self, ahead: float = 0.0) -> None:
        """Called from time to time: end calls that wait too long for a thread, or take too long.

        Args:
            ahead: seconds to add to the age of each request; for tests.
        """
        self._expire(self._settings.queue_timeout - ahead, QUEUE_TIMEOUT)
        if self._settings.request_timeout:
            before = monotonic() + ahead - self._settings.request_timeout
            end_overdue(self.calls, before, self.executor.hubs, self._release)

    def _release(self, call: Call) -> None:
        """Submit a held call."""
        if call in self._held:
            self._held[call].submit_held(call.stream)

    def _expire(self, age: float, kind: str) -> None:
        """Reject calls that have waited for a thread for so many seconds."""
        expired = self.executor.expire(age, self._calls)
        to_each(expired, lambda call: self._refuse(call, kind), NOT_REJECTED)

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

        Return how many of the others were in progress then.
        """
        self.stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        self.spawner.cancel()
        self._expire(0.0, STOPPING)
        calls = self.calls
        to_each(calls, self._end_call, NOT_TOLD)
        return len(calls)

    def _end_call(self, call: Call) -> None:
        if call in self._held:
            self._held[call].drop_held(call.stream)
        else:
            call.cancel(ServerStopping("the server stops"), firm=True)

    async def all_ended(self, seconds: float) -> bool:
        """Wait until no call is in progress, and no lasting background work; for so long at most.

        Return whether that came.
        """
        return await self._ending.over(seconds)

    async def stop(self) -> None:
        """Cancel what waits, give it time to clean up, call ``on_stop`` functions, end the threads.

        For a host on asyncio's loop, which brings no more requests.
        """
        self.cancel()
        await self.all_ended(cleanup_time.seconds)
        await self.spawner.end()
        await self.lifetime.stop(cleanup_time.seconds)
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
        self.spawner.close()
        return self._executors.give_back(self.executor, self)

    async def threads_ended(self) -> None:
        """Wait for a moment until the threads have ended, unless calls are left running on them."""
        # Not by a thread of the loop's own pool: the application may have blocked them all.
        deadline = self._loop.time() + cleanup_time.seconds
        while self.executor.alive and not self._calls and self._loop.time() < deadline:
            await asyncio.sleep(0.002)

    def abandon(self) -> None:
        """End the calls that can still be ended when the loop is closed; from any thread."""
        self.stopping = True
        self._expire(0.0, STOPPING)

        def end(call: Call | Spawned) -> None:
            # What would go on on the closed loop cannot: that raises RuntimeError.
            with contextlib.suppress(RuntimeError):
                call.cancel(ServerStopping("the event loop is closed"), firm=True)

        to_each((*self.calls, *self.spawner.jobs), end, NOT_TOLD)
        self.forget()

    def forget(self) -> None:
        """End the threads, each when its last call has ended; from any thread."""
        hide(self)
        if isinstance(self.executor, ThreadsExecutor):
            self.close()
