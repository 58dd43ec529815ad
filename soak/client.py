"""A connection of the soak's client: a plain socket, so that it can leave in any way.

Used on the loop it was opened on, by one task at a time. It reads responses as RFC 9112 section 6.3
has them, and takes nothing on trust: what does not end as it said is not complete.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from dataclasses import dataclass
from typing import Final, Literal

How = Literal["fin", "reset"]
HOWS: Final[tuple[How, ...]] = ("fin", "reset")

_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?(\d+)\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: ?chunked\r\n", re.IGNORECASE)
_RESET: Final = struct.pack("ii", 1, 0)
_TCP_CLOSED: Final = 7  # TCP_CLOSE of Linux's tcp_states.h, the first byte of TCP_INFO
_PIECE: Final = 256 * 1024


class BrokenAnswerError(Exception):
    """The server sent something else than a whole response."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response; `complete` is false where the connection ended before the body did."""

    status: int
    head: bytes
    body: bytes
    complete: bool


class Connection:
    """One connection to the server."""

    __slots__ = ("_buffer", "_ended", "_loop", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._ended = False

    @classmethod
    async def open(cls, port: int, window: int = 0) -> Connection:
        """Connect to 127.0.0.1; with a receive buffer of about `window` bytes, if that is not 0."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        connection = cls(sock)
        try:
            await connection._loop.sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return connection

    async def send(self, data: bytes) -> None:
        """Send all of it; raises OSError where the server has closed."""
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self, size: int) -> bytes:
        """Read `size` bytes at least; return all that came, without taking it."""
        while len(self._buffer) < size:
            if not await self._read():
                raise BrokenAnswerError(f"ended after {bytes(self._buffer[:80])!r}")
        return bytes(self._buffer)

    async def response(self, bodiless: bool = False) -> Response:
        """Read one response, whole or cut short; raises BrokenAnswerError where there is none."""
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n") + 4) < 4:
            if not await self._read():
                raise BrokenAnswerError(f"no answer, but the end after {bytes(buffer[:80])!r}")
        head = bytes(buffer[:end])
        del buffer[:end]
        if not head.startswith(b"HTTP/1.1 "):
            raise BrokenAnswerError(f"no answer, but {head[:80]!r}")
        status = int(head[9:12])
        if bodiless:
            return Response(status, head, b"", True)
        if _CHUNKED.search(head):
            body, complete = await self._chunks()
            return Response(status, head, body, complete)
        length = _LENGTH.search(head)
        if length is None:
            raise BrokenAnswerError(f"neither length nor chunks: {head[:200]!r}")
        size = int(length[1])
        complete = await self._gather(size)
        body = bytes(buffer[:size])
        del buffer[:size]
        return Response(status, head, body, complete)

    async def end(self) -> bytes:
        """Read to the connection's end, a reset too; return what still came."""
        while await self._read():
            pass
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    async def reset_by_server(self) -> None:
        """Return once the server has reset the connection, without reading from it."""
        while self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSED:
            await asyncio.sleep(0.1)

    def half_close(self) -> None:
        """Send no more."""
        self._sock.shutdown(socket.SHUT_WR)

    def leave(self, how: How = "fin") -> None:
        """Close, or reset; a second time without effect."""
        if how == "reset" and self._sock.fileno() >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    async def _read(self) -> bool:
        """Read some more; false at the end."""
        if self._ended:
            return False
        try:
            data = await self._loop.sock_recv(self._sock, _PIECE)
        except ConnectionResetError:
            data = b""
        self._buffer += data
        self._ended = not data
        return not self._ended

    async def _gather(self, size: int) -> bool:
        while len(self._buffer) < size:
            if not await self._read():
                return False
        return True

    async def _chunks(self) -> tuple[bytes, bool]:
        buffer = self._buffer
        body = bytearray()
        while True:
            while (end := buffer.find(b"\r\n")) < 0:
                if not await self._read():
                    return bytes(body), False
            size = int(buffer[:end], 16)
            whole = end + 2 + size + 2
            if not await self._gather(whole):
                body += buffer[end + 2 : end + 2 + size]
                return bytes(body), False
            if buffer[whole - 2 : whole] != b"\r\n":
                raise BrokenAnswerError(f"a chunk without its end: {bytes(buffer[:80])!r}")
            body += buffer[end + 2 : whole - 2]
            del buffer[:whole]
            if not size:
                return bytes(body), True
