"""What the servers of this process are doing: for people, pages and health checks."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from bide.exchange.call import Call
from bide.executors.hub import Hub
from bide.native import FORM
from bide.serving.numbering import worker_number
from bide.serving.requests import RequestStatus
from bide.settings import Settings
from bide.systems import at_fork
from bide.waiting.limits import LimitStatus, limits
from bide.waiting.process_bounds import ResidentStatus, bounds

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Status:
    """A server's counts, read without stopping anything, so they may be a moment apart.

    Attributes:
        running: requests whose code runs now, or is ready to.
        waiting: requests that wait and hold no thread, also those whose bodies are still to come.
        queued: requests that wait for a thread.
        threads: threads that have been started for requests, including those of waiting ones.
        threads_busy: threads that run a request's code now, or block in it.
        threads_max: threads that may begin requests at a time; 0 where all run on the event loop.
        connections: open connections.
        spawned: background work in progress (bide.spawn), which counts in the first three, too.
        client_connections_refused: connections that were closed at once, since the start, because
            their clients had as many as they may (``client_connections``).
        client_requests_refused: requests that were answered 429, likewise (``client_requests``).
        stopping: whether the server stops. An endless response should end then.
    """

    running: int
    waiting: int
    queued: int
    threads: int
    threads_busy: int
    threads_max: int
    connections: int
    spawned: int
    client_connections_refused: int
    client_requests_refused: int
    stopping: bool


@dataclass(frozen=True, slots=True)
class ProcessStatus(Status):
    """The sums of the counts of all servers in this process, and each request in progress.

    Attributes:
        requests: the requests in progress, and background work: server by server, the oldest
            first.
        form: "compiled" or "pure Python": how Bide itself runs here.
        worker: the number of this process among the workers, from 1; 0 without a supervisor.
        processes: child processes that have been started for ``in_process``.
        processes_busy: how many of them make a call now.
        processes_queued: calls that wait for a child process.
        residents: each ``bide.resident`` of this process, the oldest first.
        limits: each ``bide.limit`` of this process, the oldest first.
    """

    requests: tuple[RequestStatus, ...]
    form: str = FORM
    worker: int = 0
    processes: int = 0
    processes_busy: int = 0
    processes_queued: int = 0
    residents: tuple[ResidentStatus, ...] = ()
    limits: tuple[LimitStatus, ...] = ()


class Speaks(Protocol):
    """An open connection, for those who count."""

    @property
    def speaks(self) -> str:
        """The name of its protocol; from any thread."""
        ...


class Inside(NamedTuple):
    """What a server runs with, for those who look at it from other threads.

    Attributes:
        loop: its event loop.
        settings: its settings.
        hubs: those of its threads and of its loop.
        calls: those in progress, and background work.
        connections: what each open connection speaks.
        unanswered: returns for how many seconds the loop has not answered, as the monitor sees it.
    """

    loop: asyncio.AbstractEventLoop
    settings: Settings
    hubs: list[Hub]
    calls: list[Call]
    connections: list[str]
    unanswered: Callable[[], float]


_Numbers = Callable[[Any], Status]
_Requests = Callable[[Any], tuple[RequestStatus, ...]]
_Inside = Callable[[Any], Inside]

# Single operations only, from any thread.
_shown: weakref.WeakKeyDictionary[object, tuple[_Numbers, _Requests, _Inside | None]] = (
    weakref.WeakKeyDictionary()
)
at_fork(after_in_child=_shown.clear)  # a child is not the server


def show(
    server: S,
    numbers: Callable[[S], Status],
    requests: Callable[[S], tuple[RequestStatus, ...]],
    inside: Callable[[S], Inside] | None = None,
) -> None:
    """Add a server, or a host's application, to ``bide.status()``, by a weak reference.

    From any thread.

    Args:
        server: the server.
        numbers: called with it, from any thread; returns its counts.
        requests: likewise; returns its requests in progress, the oldest first.
        inside: likewise; returns what it runs with. None: that is a host's.
    """
    _shown[server] = numbers, requests, inside


def hide(server: object) -> None:
    """Undo ``show``; from any thread."""
    _shown.pop(server, None)


def _servers() -> list[tuple[object, tuple[_Numbers, _Requests, _Inside | None]]]:
    return [
        (server, look)
        for each in _shown.keyrefs()
        if (server := each()) is not None and (look := _shown.get(server)) is not None
    ]


def insides() -> list[Inside]:
    """Return what each server of this process runs with; from any thread."""
    return [inside(server) for server, (_, _, inside) in _servers() if inside is not None]


def status() -> ProcessStatus:
    """Return what the servers of this process are doing; from any thread.

    Nothing is stopped for this, so the values may be a moment apart. A call costs some microseconds
    for each request in progress. ``environ["bide.status"]()`` costs less: it returns the counts
    alone, of the request's own server.

    Returns:
        The sums of the servers' counts, and their requests. Without a server, the counts are 0.
    """
    servers = _servers()
    numbers = [count(server) for server, (count, _, _) in servers]
    children = bounds.counts()
    return ProcessStatus(
        running=sum(each.running for each in numbers),
        waiting=sum(each.waiting for each in numbers),
        queued=sum(each.queued for each in numbers),
        threads=sum(each.threads for each in numbers),
        threads_busy=sum(each.threads_busy for each in numbers),
        threads_max=sum(each.threads_max for each in numbers),
        connections=sum(each.connections for each in numbers),
        spawned=sum(each.spawned for each in numbers),
        client_connections_refused=sum(each.client_connections_refused for each in numbers),
        client_requests_refused=sum(each.client_requests_refused for each in numbers),
        stopping=any(each.stopping for each in numbers),
        worker=worker_number(),
        processes=children.processes,
        processes_busy=children.busy,
        processes_queued=children.queued,
        residents=bounds.residents(),
        limits=limits(),
        requests=tuple(each for server, (_, requests, _) in servers for each in requests(server)),
    )
