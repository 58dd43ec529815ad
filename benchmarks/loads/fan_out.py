"""One event after another, each of which goes to every client that listens."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException

from ..errors import RoundFailedError
from ..figures import CPU_EVENT, EVENTS, KB_CLIENT
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample

_OPENING_AT_ONCE = 100  # fewer than any server's queue of connections to accept
_TIMEOUT = 30.0  # seconds until an event has reached every client
_MARK = b"!"  # one in each event, and nowhere else: no read can split it


@dataclass(frozen=True, slots=True)
class FanOut(Load):
    """So many clients that listen to one stream of server-sent events.

    The next event is published when every client has the last one.

    Attributes:
        clients: How many.
    """

    columns = (CPU_EVENT, EVENTS, KB_CLIENT)

    clients: int

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"{self.clients:,} clients hear `GET /events`. `GET /publish` sends all of them an"
            " event, and the next one when they have it. An event counts once for each client."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Publish for some seconds."""
        server.await_answer("/publish")
        before_kb = server.memory_kb()
        published = 0
        try:
            with _listening(server.port, self.clients) as crowd:
                kb = (server.memory_kb() - before_kb) / self.clients
                self._publish(server, crowd)
                server.await_idle()
                with Meter(server, conditions) as meter:
                    end = time.monotonic() + conditions.seconds
                    while not published or time.monotonic() < end:
                        self._publish(server, crowd)
                        published += 1
        except (OSError, HTTPException) as error:
            raise RoundFailedError(f"while clients listened: {error!r}") from error
        events = published * self.clients
        return Sample(
            {
                CPU_EVENT: meter.cpu_seconds * 1e6 / events,
                EVENTS: events / meter.seconds,
                KB_CLIENT: kb,
            },
            {},
            meter.foreign_share,
        )

    def _publish(self, server: ServerProcess, crowd: _Crowd) -> None:
        status, _ = server.fetch("/publish", _TIMEOUT)
        if status != 200:
            raise RoundFailedError(f"answered {status} to /publish")
        crowd.hear_once()


class _Crowd:
    # The clients that listen. `hear_once` returns when each has heard one event more.
    def __init__(self, poller: select.epoll) -> None:
        self._poller = poller
        self._clients: dict[int, socket.socket] = {}

    def add(self, client: socket.socket) -> None:
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._poller.register(client, select.EPOLLIN)

    def hear_once(self, clients: int | None = None) -> None:
        missing = clients or len(self._clients)
        deadline = time.monotonic() + _TIMEOUT
        while missing > 0:
            for descriptor, _ in self._poller.poll(1.0):
                data = self._clients[descriptor].recv(65536)
                if not data:
                    raise RoundFailedError(f"the stream of a client ended; {missing:,} missed it")
                if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200 "):
                    raise RoundFailedError(f"answered {data[:20]!r} to /events")
                missing -= data.count(_MARK)
            if missing > 0 and time.monotonic() > deadline:
                raise RoundFailedError(f"{missing:,} clients have not heard an event")


@contextmanager
def _listening(port: int, clients: int) -> Iterator[_Crowd]:
    # Every client has heard the first event, which its stream begins with.
    request = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with select.epoll() as poller, ExitStack() as open_clients:
        crowd = _Crowd(poller)
        for first in range(0, clients, _OPENING_AT_ONCE):
            group = range(first, min(first + _OPENING_AT_ONCE, clients))
            for _ in group:
                client = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
                open_clients.enter_context(client)
                client.sendall(request)
                crowd.add(client)
            crowd.hear_once(len(group))
        yield crowd
