"""A large body in either direction, over a socket of our own: a stream of blocks, or an upload."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RoundFailedError
from ..figures import CPU_STREAM, CPU_UPLOAD, MEGABYTES, MEMORY, Figure
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample

_TIMEOUT = 60.0  # seconds without a byte
_WARM_UP = 20  # a part of so many of the body comes before, unmeasured
_SENT = bytes(65536)


@dataclass(frozen=True, slots=True)
class Blocks(Load):
    """Streams of so many blocks, one stream after another.

    Attributes:
        count: How many blocks a stream has.
        size: The bytes of each.
        length: Whether the application says Content-Length; else the stream is chunked.
    """

    columns = (CPU_STREAM, MEGABYTES, MEMORY)

    count: int
    size: int
    length: bool

    def describe(self) -> str:
        """Return for the report what is done."""
        framing = "with Content-Length" if self.length else "chunked"
        return (
            f"One client reads streams of {self.count:,} blocks of {self.size:,} bytes, {framing},"
            " one stream after another."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Read streams for some seconds."""
        server.await_answer(self._path(1))
        return _repeat(
            server,
            conditions,
            CPU_STREAM,
            self.count * self.size,
            lambda part: self._read(server.port, self.count // part),
        )

    def _path(self, count: int) -> str:
        return f"/blocks?count={count}&size={self.size}&length={int(self.length)}"

    def _read(self, port: int, count: int) -> None:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as client:
            client.sendall(_head("GET", self._path(count), port) + b"\r\n")
            begin = client.recv(65536)
            head, _, body = begin.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RoundFailedError(f"answered {head[:20]!r} to {self._path(count)}")
            buffer = bytearray(1 << 20)
            received = len(body)
            while read := client.recv_into(buffer):
                received += read
        wanted = count * self.size
        # Chunks have their sizes and ends beside the blocks.
        if received < wanted or (self.length and received != wanted):
            raise RoundFailedError(f"{received:,} bytes of a stream of {wanted:,} arrived")


@dataclass(frozen=True, slots=True)
class Upload(Load):
    """Uploads that the application reads to their end, one after another.

    Attributes:
        size: The bytes of each.
        chunked: Whether it comes in chunks of 64 KiB; else with Content-Length.
    """

    columns = (CPU_UPLOAD, MEGABYTES, MEMORY)

    size: int
    chunked: bool

    def describe(self) -> str:
        """Return for the report what is done."""
        framing = "in chunks of 64 KiB" if self.chunked else "with Content-Length"
        return (
            f"One client uploads {self.size // 10**6} MB {framing}, one upload after another;"
            " the application reads 64 KiB at a time."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Upload for some seconds."""
        server.await_answer("/")
        return _repeat(
            server,
            conditions,
            CPU_UPLOAD,
            self.size,
            lambda part: self._send(server.port, self.size // part),
        )

    def _send(self, port: int, size: int) -> None:
        whole, rest = divmod(size, len(_SENT))
        last = _SENT[:rest]
        framing = b"Transfer-Encoding: chunked" if self.chunked else b"Content-Length: %d" % size
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT) as client:
            client.sendall(_head("POST", "/", port) + framing + b"\r\n\r\n")
            block = _chunk(_SENT) if self.chunked else _SENT
            for _ in range(whole):
                client.sendall(block)
            client.sendall(_chunk(last) + b"0\r\n\r\n" if self.chunked else last)
            answer = b""
            while read := client.recv(65536):
                answer += read
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or b"%d\n" % size not in body:
            raise RoundFailedError(f"answered {answer[:20]!r} … {body[-20:]!r} to {size:,} bytes")


def _repeat(
    server: ServerProcess,
    conditions: Conditions,
    cpu: Figure,
    size: int,
    transfer: Callable[[int], None],
) -> Sample:
    # `transfer` takes which part of the body it is to move: 1 for all of it.
    done = 0
    try:
        transfer(_WARM_UP)
        server.await_idle()
        with Meter(server, conditions) as meter:
            end = time.monotonic() + conditions.seconds
            while not done or time.monotonic() < end:
                transfer(1)
                done += 1
    except OSError as error:
        raise RoundFailedError(f"broke off: {error!r}") from error
    return Sample(
        {
            cpu: meter.cpu_seconds * 1e3 / done,
            MEGABYTES: done * size / 1e6 / meter.seconds,
            MEMORY: server.memory_kb() / 1024,
        },
        {},
        meter.foreign_share,
    )


def _head(method: str, path: str, port: int) -> bytes:
    # Without the empty line that ends it.
    return (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n").encode()


def _chunk(data: bytes) -> bytes:
    # An empty one would end the body.
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
