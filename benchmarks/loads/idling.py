"""Many WebSockets at once, on which nothing comes: the memory of each, and what goes on beside."""

from __future__ import annotations

import resource
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from ..errors import RoundFailedError
from ..figures import ALONE_P99, BUSY, KB_SOCKET, MEMORY, PARKED, QUICK_P99
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample, p99
from .parking import count
from .websocket import TEXT, client_frame, opening, read_opened

_OPENING_AT_ONCE = 100  # fewer than any server's queue of connections to accept
_TIMEOUT = 60.0  # seconds for any answer, and until all are open
_OTHERS = 200  # descriptors of a process that are not these sockets
_PAUSE = 0.005  # seconds between two quick requests
_SAID = client_frame(b"hi")
_COMPRESSED = 0xC1  # the first byte of a frame that is


@dataclass(frozen=True, slots=True)
class IdleSockets(Load):
    """So many WebSockets whose view waits for a message.

    Attributes:
        sockets: How many; fewer where the system allows this process fewer descriptors.
        deflate: Whether the clients offer permessage-deflate, as browsers do.
    """

    columns = (KB_SOCKET, MEMORY, PARKED, ALONE_P99, QUICK_P99, BUSY)

    sockets: int
    deflate: bool

    def describe(self) -> str:
        """Return for the report what is done."""
        offer = "that offer compression" if self.deflate else "without compression"
        return (
            f"{self.number:,} WebSockets at `/socket`, {offer}, on which nothing comes. Memory"
            " (PSS) before and while all of them wait. `GET /quick`, one after another, likewise."
        )

    @property
    def number(self) -> int:
        """How many WebSockets can be opened here."""
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(self.sockets, allowed - _OTHERS)

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Open them, measure, and see that one of them still echoes.

        The server is asked how many wait, before the memory is read and after it. Where that is not
        all of them, the round has failed.
        """
        server.await_answer("/quick")
        try:
            with _open(server.port, 1, self.deflate):  # what is imported or built once
                _await_parked(server, 1)
            _await_parked(server, 0)
            alone = _ask_quickly(server.port, conditions.seconds)
            before_kb = server.memory_kb()
            with Meter(server, conditions) as meter, _open(server.port, self.number, self.deflate):
                _await_parked(server, self.number)
                server.await_idle()
                parked_kb = server.memory_kb()
                beside = _ask_quickly(server.port, conditions.seconds)
                busy = count(server, "/busy", _TIMEOUT)
                _await_parked(server, self.number)
        except (OSError, HTTPException) as error:
            raise RoundFailedError(f"with WebSockets open: {error!r}") from error
        return Sample(
            {
                KB_SOCKET: (parked_kb - before_kb) / self.number,
                MEMORY: before_kb / 1024,
                PARKED: parked_kb / 1024,
                ALONE_P99: alone,
                QUICK_P99: beside,
                BUSY: busy,
            },
            {},
            meter.foreign_share,
        )


@contextmanager
def _open(port: int, number: int, deflate: bool) -> Iterator[None]:
    # The first and the last of them echo, before they are left alone and in the end.
    asked = opening(port, "/socket", deflate)
    with ExitStack() as open_sockets:
        clients: list[socket.socket] = []
        for first in range(0, number, _OPENING_AT_ONCE):
            group = []
            for _ in range(first, min(first + _OPENING_AT_ONCE, number)):
                client = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
                group.append(open_sockets.enter_context(client))
                client.sendall(asked)
            for client in group:
                read_opened(client)
            clients += group
        _check_echo(clients)
        yield
        _check_echo(clients)


def _check_echo(clients: list[socket.socket]) -> None:
    for client in {clients[0], clients[-1]}:
        client.sendall(_SAID)
        first, size = _read(client, 2)
        data = _read(client, size)
        if first == _COMPRESSED:
            data = zlib.decompressobj(-15).decompress(data + b"\x00\x00\xff\xff")
        if first not in (TEXT, _COMPRESSED) or data != b"hi":
            raise RoundFailedError(f"echoed {data!r}")


def _read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise RoundFailedError("ended a WebSocket")
        data += more
    return data


def _await_parked(server: ServerProcess, number: int) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while (parked := count(server, "/parked", _TIMEOUT)) != number:
        if time.monotonic() > deadline:
            raise RoundFailedError(f"{parked:,} of {number:,} WebSockets wait")
        time.sleep(0.05)


def _ask_quickly(port: int, seconds: float) -> float:
    # The p99 of quick requests on one connection, in ms.
    took: list[float] = []
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        end = time.monotonic() + seconds
        while not took or time.monotonic() < end:
            asked = time.monotonic()
            connection.request("GET", "/quick")
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RoundFailedError(f"answered {response.status} to /quick")
            took.append((time.monotonic() - asked) * 1000.0)
            time.sleep(_PAUSE)
    finally:
        connection.close()
    return p99(took)
