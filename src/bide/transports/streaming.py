"""What every transport does above its socket: how much it reads at once, and what it sends later.

How bytes pass the socket is the subclass's: as they are (:mod:`bide.transports.tcp`), or encrypted
(:mod:`bide.transports.tls`).
"""

from __future__ import annotations

import socket
from typing import Final

from bide.exchange.totals import UNBOUND, Total
from bide.protocols.interfaces import Receiver
from bide.transports.connected import CLOSING, LINGERING, OPEN, OVER, Connected
from bide.transports.gathering import SOON, Gathering
from bide.transports.poller import ENDED, GONE, READ, WRITE, Poller
from bide.waiting.locks import holds_lock
from bide.waiting.parking import runs_loop

READ_SIZE: Final = 64 * 1024
LARGE_READ: Final = 128 * 1024
"""What is read at once of a body that comes fast, alone, and is waited for."""
SMALL_READ: Final = 4 * 1024
"""What is read at once while bodies, all together, hold as much as they may."""


class Streaming(Connected):
    """A connected socket that is read in pieces, and written to in blocks.

    Blocks that come fast are gathered, see :class:`Gathering`, until much is there, something is
    written that must not wait, or the loop looks. They count as on their way, and not as queued;
    nothing is gathered while anything is queued.

    Args:
        sock, poller, receiver, high_water, linger, unsent: as :class:`Connected`.
        unread: what waits for all applications.

    Attributes:
        gathering: the blocks that are held; made at first need; under the lock.
    """

    __slots__ = ("_unread", "gathering")

    def __init__(
        self,
        sock: socket.socket,
        poller: Poller,
        receiver: Receiver,
        high_water: int,
        linger: float,
        unsent: Total = UNBOUND,
        unread: Total = UNBOUND,
    ) -> None:
        super().__init__(sock, poller, receiver, high_water, linger, unsent)
        self._unread = unread
        self.gathering: Gathering | None = None

    # What the subclass says ---------------------------------------------------------------------

    def receive(self, size: int) -> bytes | None:
        """Return what has come, up to ``size`` bytes; None: nothing yet; empty: the client's end.

        On the loop. Raises OSError when the connection is lost.
        """
        raise NotImplementedError

    def send_queued(self) -> bool:
        """Send a piece of what is queued; under the lock. Return false when the client is gone."""
        raise NotImplementedError

    # Reading: on the loop -----------------------------------------------------------------------

    def look(self) -> None:
        """Take what has come already; on the loop."""
        if self.watched & READ:
            self.read()

    def ready(self, events: int) -> None:
        """Serve what the poller found; on the loop."""
        if events & READ:
            self.read()
        elif events & GONE:
            self.end()
            return
        elif events & ENDED:
            self.watch(ENDED, False)  # it would be told again and again
            self.receiver.eof_ahead()
        if events & WRITE:
            self._write_queued()

    def read(self) -> None:
        """Read a piece, and tell the receiver of it."""
        if self._unread.full:
            size = SMALL_READ
        elif self.poller.filled == self.descriptor and self.receiver.waits():
            size = LARGE_READ
        else:
            size = READ_SIZE
        try:
            data = self.receive(size)
        except OSError:
            self.end()
            return
        if data is None:
            return
        self.poller.filled = self.descriptor if len(data) >= READ_SIZE else -1
        if not data:
            self.client_ended = True
            self.watch(READ, False)
        if self.state is OPEN:
            if data:
                self.receiver.data_received(data)
            else:
                self.receiver.eof_received()
        # Else it is dropped: what it began would never be answered.
        elif self.state is LINGERING:
            assert self.lingering is not None
            if not (data and self.lingering.take(len(data))):
                self.end()

    # Writing: any thread ------------------------------------------------------------------------

    def write(self, data: bytes, *more: bytes) -> bool:
        """Send, or queue what the client does not take yet, uncopied; false when it never will."""
        with self.lock:
            return self.put(data, *more)

    def gather(self, block: bytes, before: bytes = b"", behind: bytes = b"") -> bool:
        """Send a block with its framing, or hold it for a moment; under the lock."""
        if self.state is not OPEN:
            return False
        gathering = self.gathering
        if gathering is None:
            gathering = self.gathering = Gathering(self.queue.high_water)
        # On a loop's thread nobody else might look, as long as that does not return.
        if not gathering.blocks and (runs_loop() or not self._begins(gathering)):
            return self.put(b"".join((before, block, behind)) if before else block)
        if gathering.add(before, block, behind):
            return True
        sent = self.flush()
        gathering.sent(self.loop.time())
        return sent

    def _begins(self, gathering: Gathering) -> bool:
        """Whether the next block is to be gathered; then the loop is asked to look soon."""
        queue = self.queue
        if not gathering.begins(self.loop.time()) or queue.size or queue.total.full or self.in_use:
            return False
        if not gathering.seen_to:
            gathering.seen_to = True
            self.ask(self.loop.call_soon_threadsafe, self._look_soon)
        return self.state is OPEN

    def _look_soon(self) -> None:
        self.loop.call_later(SOON, self._look_now)

    def _look_now(self) -> None:
        with self.lock:
            assert self.gathering is not None
            self.gathering.seen_to = False
            self.flush()

    def flush(self) -> bool:
        """Send what is gathered now; return false when the client will never take it."""
        with self.lock:
            gathering = self.gathering
            return gathering is None or not gathering.blocks or self.put(gathering.take())

    def _write_queued(self) -> None:
        with self.lock:
            if self.state in OVER:
                return
            if self.in_use:  # what comes before it is on its way; then it is watched again
                self.watch(WRITE, False)
                return
            if not self.send_queued() or self.queued:
                return
            self.watch(WRITE, False)
            self.fire_writable()
        if self.state is CLOSING:
            self.finish()


holds_lock(
    Streaming.write,
    Streaming.gather,
    Streaming._look_now,
    Streaming.flush,
    Streaming._write_queued,
)
