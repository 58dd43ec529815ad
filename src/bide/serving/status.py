"""What the servers of this process are doing: for people, pages and health checks."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from typing import Protocol

from bide.serving.requests import RequestStatus


class Looking(Protocol):
    """A server, or a host's application, as far as it is looked at; from any thread."""

    def status(self) -> Status:
        """Return its numbers."""

    def requests(self) -> tuple[RequestStatus, ...]:
        """Return its requests in progress, the oldest first."""


@dataclass(frozen=True, slots=True)
class Status:
    """A server's numbers, read without stopping anything, so they may be a moment apart.

    Attributes:
        running: requests whose code runs now, or could.
        waiting: requests that wait and hold no thread, also those whose bodies are still to come.
        queued: requests that wait for a thread.
        threads: threads that have been started for requests, also those of waiting ones.
        threads_busy: threads that run a request's code now, or block in it.
        threads_max: threads that may begin requests at a time; 0 where all run on the event loop.
        connections: open connections.
        stopping: whether the server stops: streams without an end should come to one.
    """

    running: int
    waiting: int
    queued: int
    threads: int
    threads_busy: int
    threads_max: int
    connections: int
    stopping: bool


@dataclass(frozen=True, slots=True)
class ProcessStatus(Status):
    """The numbers of all servers of this process together, and each request in progress.

    Attributes:
        requests: those in progress, of each server the oldest first.
    """

    requests: tuple[RequestStatus, ...]


# By identity; single operations only, from any thread.
_shown: weakref.WeakValueDictionary[int, Looking] = weakref.WeakValueDictionary()
os.register_at_fork(after_in_child=_shown.clear)  # a child is not the server


def show(server: Looking) -> None:
    """Have a server in ``bide.status()``; it is not kept alive for that."""
    _shown[id(server)] = server


def hide(server: Looking) -> None:
    """Take back ``show``."""
    _shown.pop(id(server), None)


def status() -> ProcessStatus:
    """Look at what the servers of this process are doing; from any thread.

    Nothing is stopped for it, so what it returns may be a moment apart. It costs the more, the more
    requests are in progress: some microseconds for each. Where only the numbers are wanted,
    ``environ["bide.status"]()`` has them, of the request's own server.

    Returns:
        The sums of the servers' numbers, and their requests. Without a server all is 0, and empty.
    """
    servers = [server for each in _shown.valuerefs() if (server := each()) is not None]
    numbers = [each.status() for each in servers]
    return ProcessStatus(
        running=sum(each.running for each in numbers),
        waiting=sum(each.waiting for each in numbers),
        queued=sum(each.queued for each in numbers),
        threads=sum(each.threads for each in numbers),
        threads_busy=sum(each.threads_busy for each in numbers),
        threads_max=sum(each.threads_max for each in numbers),
        connections=sum(each.connections for each in numbers),
        stopping=any(each.stopping for each in numbers),
        requests=tuple(each for server in servers for each in server.requests()),
    )
