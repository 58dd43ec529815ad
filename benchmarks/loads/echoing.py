"""WebSockets whose messages come back, each client with one message on its way."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from ..errors import RoundFailedError
from ..figures import CPU_MESSAGE, MESSAGES, P50, P99
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample, p99
from .websocket import client_frame, opening, read_opened, server_frame

_TIMEOUT = 20.0  # seconds for any answer


@dataclass(frozen=True, slots=True)
class Echo(Load):
    """So many WebSockets, each of which sends its next message when the last one has come back.

    Attributes:
        clients: How many.
        size: Bytes of a message, at most 125.
    """

    columns = (CPU_MESSAGE, MESSAGES, P50, P99)

    clients: int
    size: int

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"{self.clients} WebSockets at `/socket`, each with one message of {self.size} bytes on"
            " its way, without compression. A message counts once, there and back."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Send and receive for some seconds."""
        server.await_answer("/quick")
        try:
            with _open(server.port, self.clients) as clients:
                talk = _Talk(clients, b"x" * self.size)
                talk.run(conditions.warm_up_seconds)
                server.await_idle()
                with Meter(server, conditions) as meter:
                    took = talk.run(conditions.seconds)
        except OSError as error:
            raise RoundFailedError(f"on a WebSocket: {error!r}") from error
        return Sample(
            {
                CPU_MESSAGE: meter.cpu_seconds * 1e6 / len(took),
                MESSAGES: len(took) / meter.seconds,
                P50: median(took),
                P99: p99(took),
            },
            {},
            meter.foreign_share,
        )


class _Talk:
    # The clients, and what each has sent.
    def __init__(self, clients: list[socket.socket], text: bytes) -> None:
        self._clients = {each.fileno(): each for each in clients}
        self._sent = client_frame(text)
        self._wanted = server_frame(text)

    def run(self, seconds: float) -> list[float]:
        """Have the clients send for so long, and hear all; return how long each took, in ms."""
        took: list[float] = []
        came = dict.fromkeys(self._clients, b"")
        since: dict[int, float] = {}
        now = time.monotonic()
        end = now + seconds
        with select.epoll() as poller:
            for descriptor, client in self._clients.items():
                poller.register(descriptor, select.EPOLLIN)
                client.sendall(self._sent)
                since[descriptor] = now
            while since:
                ready = poller.poll(_TIMEOUT)
                if not ready:
                    raise RoundFailedError(f"{len(since)} messages have not come back")
                for descriptor, _ in ready:
                    client = self._clients[descriptor]
                    data = client.recv(4096)
                    if not data:
                        raise RoundFailedError("ended a WebSocket")
                    data = came[descriptor] + data
                    came[descriptor] = data if len(data) < len(self._wanted) else b""
                    if len(data) < len(self._wanted):
                        continue
                    if data != self._wanted:
                        raise RoundFailedError(f"echoed {data[:40]!r}")
                    now = time.monotonic()
                    took.append((now - since.pop(descriptor)) * 1000.0)
                    if now < end:
                        client.sendall(self._sent)
                        since[descriptor] = now
        return took


@contextmanager
def _open(port: int, number: int) -> Iterator[list[socket.socket]]:
    asked = opening(port, "/socket")
    with ExitStack() as open_clients:
        clients = []
        for _ in range(number):
            client = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
            clients.append(open_clients.enter_context(client))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(asked)
            read_opened(client)
        yield clients
