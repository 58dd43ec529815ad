"""A request's body on its way from the loop to the application: a window, not a spool.

It knows neither protocol nor application; a stream holds one.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import Final

from bide.exchange.totals import UNBOUND, Total
from bide.waiting.outcome import Signal

_MOST_BLOCKS: Final = 1024
"""Blocks that may wait to be read: one of 2 bytes takes 50 bytes of memory."""


class Body:
    """A request's body on its way: a window of blocks between the loop and the application.

    ``feed``, ``finish`` and ``fail`` are the loop's; ``receive`` belongs to one other thread at a
    time. They meet without a lock: each side first writes its own mark (a block appended, a
    signal published), then looks for the other's.
    """

    __slots__ = (
        "_blocks",
        "_error",
        "_fed",
        "_finished",
        "_signal",
        "_taken",
        "_unread",
        "complete",
        "discarding",
        "failed",
        "paused",
        "window",
    )

    def __init__(self, window: int, unread: Total = UNBOUND) -> None:
        self.window = window
        self._unread = unread  # of all bodies together: each block that waits counts
        self._blocks: deque[bytes] = deque()
        self._fed = 0  # bytes in, by the loop
        self._taken = 0  # bytes out, by the reader
        self._signal: Signal | None = None
        self._finished = False
        self._error: BaseException | None = None
        self.complete = False  # on the wire: the last byte has come; by the loop
        self.failed = False  # it broke off: nothing behind it can be a request; by the loop
        self.discarding = False
        self.paused = False  # by the loop: the connection is not read, since this is full

    @property
    def error(self) -> BaseException | None:
        """What it broke off with; None where it did not."""
        return self._error

    @property
    def fed(self) -> int:
        """Bytes that have come."""
        return self._fed

    @property
    def awaited(self) -> bool:
        """Whether a reader has found nothing, and nothing has come since."""
        return self._signal is not None

    @property
    def unread(self) -> int:
        """Bytes that have come and that the application has not read, dropped ones among them."""
        return self._fed - self._taken

    @property
    def full(self) -> bool:
        """Whether a window waits to be read, or so many blocks that they take more than one.

        With all bodies at their bound, anything that waits is a full window.
        """
        unread = self._fed - self._taken
        return not self.discarding and (
            unread >= self.window
            or len(self._blocks) >= _MOST_BLOCKS
            or (unread > 0 and self._unread.full)
        )

    def must_pause(self) -> bool:
        """Mark a pause when the body is full; whether no more may be fed until there is room.

        On the loop, for a host: the stream's channel is told of the room. First the mark, then a
        second look: the reader looks for the mark after it has taken.
        """
        if not self.full:
            return False
        self.paused = True
        return self.full

    def feed(self, block: bytes) -> None:
        """Add a block; on the loop."""
        self._fed += len(block)
        if not self.discarding:
            self._blocks.append(block)
            self._unread.add(len(block))
            self._notify()

    def finish(self) -> None:
        """Mark the end; on the loop."""
        self.complete = True
        self._finished = True
        self._notify()

    def fail(self, error: BaseException) -> None:
        """Let reads raise ``error`` once what came before is read; on the loop."""
        if not self._finished:
            self._error = error
            self.failed = True
            self._finished = True
            self._notify()

    def discard(self) -> None:
        """Keep nothing more: the application will not read; from any thread."""
        self.discarding = True
        self._drop()

    def _drop(self) -> None:
        try:
            while self._blocks:
                self._unread.add(-len(self._blocks.popleft()))
        except IndexError:  # a reader has taken the last one meanwhile
            pass

    def __del__(self) -> None:
        if self._blocks:  # nobody has read them
            self._drop()

    def receive(self) -> bytes | Signal:
        """Give the next block, ``b""`` at the end, or a signal to wait for and then ask again.

        Raises:
            ClientDisconnected: the client left before the body was complete.
            RemoteProtocolError: the rest of the body is malformed.
        """
        block = self._next()
        if block is not None:
            return block
        signal = self._signal = Signal()
        block = self._next()  # fed between the look and the publication
        return signal if block is None else block

    def _next(self) -> bytes | None:
        # First the end, then the blocks: the loop adds the last block before it marks the end.
        finished = self._finished
        try:
            block = self._blocks.popleft()
        except IndexError:
            if not finished:
                return None
            if self._error is not None:
                # A copy: the one raised holds the frames that it passes, and they hold this body.
                raise copy(self._error) from None
            return b""
        self._taken += len(block)
        self._unread.add(-len(block))
        return block

    def _notify(self) -> None:
        signal, self._signal = self._signal, None
        if signal is not None:
            signal.fire()


NO_BODY: Final = Body(0)
"""The body of every request without one: ended, so that nothing in it changes any more."""
NO_BODY.finish()
