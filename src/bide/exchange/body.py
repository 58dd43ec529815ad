"""A request's body on its way from the loop to the application, in memory that is bounded.

It knows neither protocol nor application. Each stream has one.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from typing import Final

from bide.compiling import mypyc_attr
from bide.exchange.totals import UNBOUND, Total
from bide.waiting.outcome import Signal

_MOST_BLOCKS: Final = 1024
"""Blocks that may wait to be read. A block of 2 bytes takes 50 bytes of memory."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Body:
    """The blocks of a body that have come and that the application has not read yet.

    The loop calls ``feed``, ``finish`` and ``fail``. One other thread at a time calls ``receive``.
    They need no lock: each side first writes its own mark (a block appended, a signal published),
    and then checks the other's.

    Attributes:
        window: bytes that may wait before the body is full.
        complete: whether its last byte has come; set by the loop.
        failed: whether it ended with an error. Bytes behind it are not a request. Set by the loop.
        discarding: whether bytes that come are dropped, since the application will not read them.
        paused: whether the connection is not read, since the body was full; set by the loop.
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
        self._blocks: deque[bytes] = deque()  # first: __del__ looks at it
        self.window = window
        self._unread = unread  # of all bodies together
        self._fed = 0  # bytes in, by the loop
        self._taken = 0  # bytes out, by the reader
        self._signal: Signal | None = None
        self._finished = False
        self._error: BaseException | None = None
        self.complete = False
        self.failed = False
        self.discarding = False
        self.paused = False

    @property
    def error(self) -> BaseException | None:
        """The error that reads raise after the last block; None unless the body has failed."""
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
        """Bytes that have come and that the application has not read; dropped ones included."""
        return self._fed - self._taken

    @property
    def full(self) -> bool:
        """Whether no more should be fed until some of what waits is read.

        That is: a whole window waits, or many small blocks, which take more memory than their
        bytes. Where all bodies together are at their bound, one byte that waits is enough.
        """
        unread = self._fed - self._taken
        return not self.discarding and (
            unread >= self.window
            or len(self._blocks) >= _MOST_BLOCKS
            or (unread > 0 and self._unread.full)
        )

    @property
    def due(self) -> bool:
        """Whether so much has come that no thread must wait for it to begin."""
        return self.complete or self.full or self.failed

    def must_pause(self) -> bool:
        """Mark a pause when the body is full. Return whether to feed no more for now.

        On the loop, for a host. The stream's channel is told when there is room again. The mark
        comes first, and then a second check. The reader takes a block first, and then checks for
        the mark.
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
        """Make reads raise ``error`` after the blocks that came before it; on the loop."""
        if not self._finished:
            self._error = error
            self.failed = True
            self._finished = True
            self._notify()

    def discard(self) -> None:
        """Drop what waits and what comes: the application will not read it; from any thread."""
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
        """Return the next block, ``b""`` at the end, or a signal to wait for before asking again.

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
        blocks = self._blocks
        try:
            block = blocks.popleft() if blocks else None
        except IndexError:  # dropped meanwhile
            block = None
        if block is None:
            if not finished:
                return None
            if self._error is not None:
                # A copy, since an error that is raised holds frames, and these hold this body.
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
"""The body of all requests that have none. It has ended, so nothing in it changes."""
NO_BODY.finish()
