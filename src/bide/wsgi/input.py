"""``wsgi.input``: a request's body as a file (PEP 3333, Input and Error Streams).

Reading waits like any promise: a slow upload holds no thread. One thread at a time may read.

It has all methods of :class:`io.BufferedIOBase`, so the standard library takes it for a binary
file. It is not derived from that class, whose destructor would cost something at each request.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Final, NoReturn, Self, SupportsIndex

from bide.errors import ClientDisconnected
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal
from bide.waiting.waiter import current_waiter, waiter_here

if TYPE_CHECKING:
    from typing_extensions import Buffer

_UNSUPPORTED: Final = (
    "wsgi.input is read once, forwards: it cannot be sought in or written to, and has no "
    "descriptor; copy it into a file (shutil.copyfileobj) for that"
)


class Input:
    """The body of one request, of any length; it ends where the body ends (``b""``).

    A binary file that is read once, forwards. ``close`` does nothing: a wrapper such as
    :class:`io.TextIOWrapper` closes what it wraps when it is dropped, and others may read on.

    Raises, from whatever reads:
        ClientDisconnected: the client left before the body was complete.
        RemoteProtocolError: the body is malformed; unhandled it answers 400.
        WaitError: the body is not there yet, and this is a coroutine's thread: read it with
            ``await asyncio.to_thread(input.read)``.
    """

    __slots__ = ("_at", "_block", "_ended", "_stream")

    closed = False

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._block = b""  # the block being read, and how far it has been
        self._at = 0
        self._ended = False

    def read(self, size: SupportsIndex | None = -1) -> bytes:
        """Read ``size`` bytes, fewer only at the end; all of it without a size."""
        left = _number(size)
        blocks: list[bytes] = []
        try:
            if left < 0:
                blocks.append(self._rest())
                while self._next():
                    blocks.append(self._rest())
                return b"".join(blocks)
            while left > 0:
                if self._at == len(self._block) and not self._next():
                    break
                part = self._block[self._at : self._at + left]
                self._at += len(part)
                left -= len(part)
                blocks.append(part)
        except BaseException:
            self._put_back(blocks)
            raise
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def read1(self, size: SupportsIndex | None = -1) -> bytes:
        """Read what has come, at most ``size`` bytes, and wait only where nothing has."""
        left = _number(size)
        if left == 0 or (self._at == len(self._block) and not self._next()):
            return b""
        if left < 0:
            return self._rest()
        part = self._block[self._at : self._at + left]
        self._at += len(part)
        return part

    def readinto(self, buffer: Buffer) -> int:
        """Fill ``buffer``, or as much as is left; return how many bytes that were."""
        return _fill(buffer, self.read)

    def readinto1(self, buffer: Buffer) -> int:
        """Read into ``buffer`` as :meth:`read1` does; return how many bytes that were."""
        return _fill(buffer, self.read1)

    def readline(self, size: SupportsIndex | None = -1) -> bytes:
        """Read up to and with the next newline, or ``size`` bytes, whichever is less."""
        left = _number(size)
        blocks: list[bytes] = []
        try:
            while left != 0:
                if self._at == len(self._block) and not self._next():
                    break
                end = self._block.find(b"\n", self._at) + 1 or len(self._block)
                if left > 0:
                    end = min(end, self._at + left)
                part = self._block[self._at : end]
                self._at = end
                blocks.append(part)
                if part.endswith(b"\n"):
                    break
                if left > 0:
                    left -= len(part)
        except BaseException:
            self._put_back(blocks)
            raise
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def readlines(self, hint: SupportsIndex | None = -1) -> list[bytes]:
        """Read lines to the end, or until they have ``hint`` bytes together."""
        most = _number(hint)
        lines: list[bytes] = []
        size = 0
        try:
            for line in self:
                lines.append(line)
                size += len(line)
                if 0 < most <= size:
                    break
        except BaseException:
            self._put_back(lines)
            raise
        return lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def readable(self) -> bool:
        """Return true."""
        return True

    def writable(self) -> bool:
        """Return false."""
        return False

    def seekable(self) -> bool:
        """Return false."""
        return False

    def isatty(self) -> bool:
        """Return false."""
        return False

    def close(self) -> None:
        """Do nothing; see above."""

    def flush(self) -> None:
        """Do nothing: there is nothing to write."""

    def seek(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def tell(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def truncate(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def fileno(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def detach(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def write(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def writelines(self, *_: object) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise io.UnsupportedOperation(_UNSUPPORTED)

    def _rest(self) -> bytes:
        rest = self._block[self._at :] if self._at else self._block
        self._block = b""
        self._at = 0
        return rest

    def _put_back(self, blocks: list[bytes]) -> None:
        """Keep what was read before a wait was cancelled, for the next read."""
        self._block = b"".join([*blocks, self._block[self._at :]])
        self._at = 0

    def _next(self) -> bool:
        """Get the next block; false at the end of the body."""
        if self._ended:
            return False
        try:
            block = self._stream.receive()
            while isinstance(block, Signal):
                waiter_here().wait_io(block)
                block = self._stream.receive()
        except ClientDisconnected as gone:
            waiter = current_waiter()
            if waiter is not None:
                waiter.raised(gone)
            raise
        self._block = block
        self._at = 0
        self._ended = not block
        return not self._ended


io.BufferedIOBase.register(Input)


def _number(size: SupportsIndex | None) -> int:
    return -1 if size is None else index(size)


def _fill(buffer: Buffer, read: Callable[[int], bytes]) -> int:
    with memoryview(buffer) as view, view.cast("B") as target:
        data = read(len(target))
        target[: len(data)] = data
        return len(data)
