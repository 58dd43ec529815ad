"""The applications of one server: each its dispatcher, and which of them a request is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any

from bide.applications.mounts import Mount, longest
from bide.asgi.lifespan import Lifespan
from bide.capabilities import Decision, capable
from bide.exchange.call import Call
from bide.exchange.messages import Request, decoded
from bide.exchange.stream import Stream
from bide.executors.choice import Executors
from bide.executors.monitor import Monitor
from bide.serving.clients import Clients
from bide.serving.dispatcher import Dispatcher, Make
from bide.serving.lifetime import Lifetime
from bide.serving.refusals import Refusals
from bide.serving.requests import RequestStatus
from bide.serving.status import Inside, Speaks, Status, hide
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time
from bide.waiting.each import NOT_TOLD, to_each
from bide.wsgi.conversation import Conversation


@capable("async")
def nothing_here(_: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer 404, where nothing is mounted."""
    start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"There is no application at this path.\n"]


class Dispatchers:
    """All dispatchers of a server; everything is called on its loop but where noted.

    Args:
        mounts: the applications, each with its interface.
        settings: as for :class:`Dispatcher`; ``lifespan`` counts, too.
        lifetime: the server's, which gets the lifespans of the ASGI applications.
        refusals, connections, clients, make, environ: as for :class:`Dispatcher`.

    Attributes:
        first: the dispatcher at ``/``; the only one, where there is one.
        several: whether there are more.
        begin: makes a stream's call; as :meth:`Dispatcher.begin`.
        submit: submits a call, as :meth:`Dispatcher.submit`.
        lifetime: the server's.
    """

    def __init__(
        self,
        mounts: Iterable[Mount],
        settings: Settings,
        *,
        lifetime: Lifetime,
        refusals: Refusals,
        connections: Collection[Speaks],
        clients: Clients,
        make: Make = Conversation,
        environ: dict[str, Any] | None = None,
    ) -> None:
        self._mounts = list(mounts)
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop
        self.lifetime = lifetime
        self._connections = connections
        self._clients = clients
        self._by_segments: dict[tuple[bytes, ...], Dispatcher] = {}
        self._all: list[Dispatcher] = []
        served = [*self._mounts]
        if all(each.path != "/" for each in served):
            served.append(Mount("/", nothing_here, "no application", "wsgi"))
        self.several = len(served) > 1
        for each in served:
            dispatcher = Dispatcher(
                each.application,
                settings,
                name=each.name,
                lifetime=lifetime,
                refusals=refusals,
                connections=connections,
                clients=clients,
                make=make,
                environ=environ,
                interface=each.interface,
                whole=self.status if self.several else None,
                processes=make is Conversation,
            )
            self._all.append(dispatcher)
            self._by_segments[each.segments] = dispatcher
            if each.interface == "asgi" and settings.lifespan != "off":
                lifetime.lifespans.append(
                    Lifespan(
                        each.application,
                        each.name,
                        lifetime.state,
                        lifetime.context,
                        must=settings.lifespan == "on",
                    )
                )
        self._depth = max(map(len, self._by_segments))
        self.first = self._by_segments[()]
        # One application alone is called directly: each call between costs 700 instructions.
        self.begin: Callable[..., Call] = self._begin if self.several else self.first.begin
        self.submit: Callable[[Call], None] = self._submit if self.several else self.first.submit

    def open(self, executors: Executors, ended: Callable[[Call], None] | None) -> None:
        """Open each; as :meth:`Dispatcher.open`."""
        self._loop = executors.loop
        for each in self._all:
            each.open(executors, ended)

    def find(self, request: Request, below: bytes | None = None) -> Dispatcher:
        """Return the dispatcher that a request is for, and move its path to the request's root.

        Segments are compared as they were sent: an encoded slash does not end one.

        Args:
            request: its head.
            below: what follows the root in the path as it was sent, where the root is in that.
        """
        if not self.several:
            return self.first
        raw = request.raw_path if below is None else below
        segments = raw.split(b"/", self._depth + 1)[1 : self._depth + 1]
        if b"%" in raw:
            segments = [decoded(each) for each in segments]
        root = segments[: longest(segments, self._by_segments)]
        request.mount(b"".join(b"/" + each for each in root))
        return self._by_segments[tuple(root)]

    def _begin(
        self,
        stream: Stream,
        more: dict[str, Any] | None = None,
        make: Callable[..., Call] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> Call:
        call: Call = self.find(stream.request).begin(stream, more, make, ended)
        return call

    def _submit(self, call: Call) -> None:
        self.of(call).submit(call)

    def refuse(self, call: Call, client: str) -> None:
        """Answer a call 429; as :meth:`Dispatcher.refuse`."""
        self.of(call).refuse(call, client)

    def of(self, call: Call) -> Dispatcher:
        """Return the dispatcher that has begun a call."""
        found: Dispatcher = call.begun_by if self.several else self.first
        return found

    # Looks, from any thread ----------------------------------------------------------------------

    @property
    def decisions(self) -> list[tuple[Mount, Decision]]:
        """Each application with its executor, and why it has that."""
        return [
            (each, dispatcher.decision)
            for each, dispatcher in zip(self._mounts, self._all, strict=False)
        ]

    @property
    def in_progress(self) -> int:
        """How many calls are in progress."""
        return sum(each.in_progress for each in self._all)

    @property
    def spawned(self) -> list[str]:
        """The names of the background work that a stop waits for."""
        return sorted({job.name for each in self._all for job in list(each.spawner.lasting)})

    @property
    def begun(self) -> int:
        """How many calls have been begun."""
        return sum(each.begun for each in self._all)

    @property
    def able(self) -> bool:
        """Whether requests can run; as :attr:`Executor.able`."""
        return all(each.executor.able for each in self._all)

    def status(self) -> Status:
        """Return the counts of all together."""
        if not self.several:
            return self.first.counts()
        counts = [each.counts() for each in self._all]
        executors = {each.executor for each in self._all}
        return Status(
            running=sum(each.running for each in counts),
            waiting=sum(each.waiting for each in counts),
            queued=sum(each.queued for each in counts),
            threads=sum(each.threads for each in executors),
            threads_busy=sum(each.threads_busy for each in executors),
            threads_max=sum(each.threads_max for each in executors),
            connections=len(self._connections),
            spawned=sum(each.spawned for each in counts),
            client_connections_refused=self._clients.refused_connections,
            client_requests_refused=self._clients.refused_requests,
            stopping=self.first.stopping,
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Return the status of each request in progress; those of one application together."""
        return tuple(request for each in self._all for request in each.requests())

    def inside(self, monitor: Monitor | None) -> Inside:
        """Return what they run with; once they are open.

        Args:
            monitor: watches the loop.
        """
        executors = dict.fromkeys(each.executor for each in self._all)
        return Inside(
            self._loop,
            self._settings,
            [hub for executor in executors for hub in executor.hubs],
            [call for each in self._all for call in (*each.calls, *each.spawner.jobs)],
            [each.speaks for each in list(self._connections)],
            (lambda: 0.0) if monitor is None else monitor.unanswered,
        )

    # Time, and the end ---------------------------------------------------------------------------

    def mind_time(self, ahead: float = 0.0) -> None:
        """Check the deadlines; as :meth:`Dispatcher.mind_time`."""
        for each in self._all:
            each.mind_time(ahead)

    def begin_to_stop(self) -> None:
        """Mark each as stopping."""
        for each in self._all:
            each.stopping = True
        for do in (lambda each: each.drain.fire(), lambda each: each.executor.begin_to_stop()):
            to_each(self._all, do, "internal error: an application was not told of the stop")

    def cancel(self) -> int:
        """Reject and cancel calls, as :meth:`Dispatcher.cancel`; drop those that are to begin."""
        self.submit = self._drop
        ended: list[int] = []
        to_each(self._all, lambda each: ended.append(each.cancel()), NOT_TOLD)
        return sum(ended)

    def _drop(self, call: Call) -> None:
        self.of(call).drop(call)

    async def all_ended(self, seconds: float) -> bool:
        """Wait until no call is in progress, for so long at most; return whether that came."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            left = deadline - loop.time()
            if not all(await asyncio.gather(*(each.all_ended(left) for each in self._all))):
                return False
            # Behind a request of one, a client may have sent one of another that had ended before.
            if not self.in_progress:
                return True

    async def end_spawned(self) -> None:
        """Cancel the background work that is left, and wait until it has ended."""
        await asyncio.gather(*(each.spawner.end() for each in self._all))

    def name_left(self) -> None:
        """Name in the log each call that is left running."""
        for each in self._all:
            each.name_left()

    async def release(self) -> None:
        """Undo :meth:`open`, before the first call."""
        self.close()
        await self.threads_ended()

    def close(self) -> None:
        """Release the executors: no call will begin."""
        for each in self._all:
            each.close()

    async def stop(self) -> None:
        """End all of it; as :meth:`Dispatcher.stop`."""
        self.begin_to_stop()
        self.cancel()
        await self.all_ended(cleanup_time.seconds)
        await self.end_spawned()
        await self.lifetime.stop(cleanup_time.seconds)
        hide(self)
        for each in self._all:
            each.end()
        await self.threads_ended()

    def abandon(self) -> None:
        """End what can be ended once the loop is closed; as :meth:`Dispatcher.abandon`."""
        hide(self)
        to_each(self._all, Dispatcher.abandon, NOT_TOLD)

    def forget(self) -> None:
        """End the threads, each when its last call has ended; from any thread."""
        hide(self)
        for each in self._all:
            each.forget()

    async def threads_ended(self) -> None:
        """Wait for a moment until the threads have ended."""
        busy = {each.executor for each in self._all if each.in_progress}
        for each in self._all:
            if each.executor not in busy:  # else they will not end, and others may share them
                await each.threads_ended()
