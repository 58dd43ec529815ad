"""One connected stream socket (TCP or Unix): read by the loop, written to from any thread.

The thread that has the bytes sends them itself when nothing is queued before them; the rest is
queued for the loop. One lock guards the socket, the queue and the state, and makes closing safe: no
thread may send on a descriptor that was closed and used again by another connection.

Nothing slow happens under the lock. A file is sent without it: the descriptor is marked as in use
meanwhile, and the loop, which may come to close it, leaves that to be done when the mark is gone.

Bytes leave in the order of the ``write`` calls.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from bide.exchange.totals import UNBOUND, Total
from bide.protocols.interfaces import Receiver
from bide.transports.connected import BROKEN, CLOSED, CLOSING, LINGERING, OPEN, OVER, Connected
from bide.transports.poller import ENDED, GONE, READ, WRITE, Poller
from bide.transports.unsent import PIECE, send_first
from bide.waiting.locks import holds_lock
from bide.waiting.loops import on_loop

READ_SIZE: Final = 64 * 1024
SMALL_READ: Final = 4 * 1024
"""What is read at once while bodies, all together, hold as much as they may."""


class SocketTransport(Connected):
    """A connected socket whose bytes leave as they are.

    Args:
        sock, poller, receiver, high_water, linger, unsent: as :class:`Connected`.
        unread: what waits for all applications.
    """

    __slots__ = ("_unread",)

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

    # Reading: on the loop -----------------------------------------------------------------------

    def look(self) -> None:
        """Take what has come already; on the loop."""
        if self.watched & READ:
            self._read()

    def ready(self, events: int) -> None:
        """Serve what the poller found; on the loop."""
        if events & READ:
            self._read()
        elif events & GONE:
            self.end()
            return
        elif events & ENDED:
            self.watch(ENDED, False)  # it would be told again and again
            self.receiver.eof_ahead()
        if events & WRITE:
            self._write_queued()

    def _read(self) -> None:
        try:
            data = self.socket.recv(SMALL_READ if self._unread.full else READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end()
            return
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

    @holds_lock
    def write(self, data: bytes, *more: bytes) -> bool:
        """Send, or queue what the client does not take yet, uncopied; false when it never will."""
        with self.lock:
            if self.state is not OPEN:
                return False
            queue = self.queue
            sent = 0
            if not (queue.size or self.in_use):
                try:
                    if more or len(data) > PIECE:
                        sent = send_first(self.socket, (data, *more))
                    else:
                        sent = self.socket.send(data)
                        if sent == len(data):
                            return True
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError:
                    self.break_off()
                    return False
            queue.add((data, *more), sent)
            if queue.size and not self.in_use:
                self.watch(WRITE, True)
        return True

    @holds_lock
    def _write_queued(self) -> None:
        with self.lock:
            if self.state in OVER:
                return
            if self.in_use:  # what comes before it is on its way; then it is watched again
                self.watch(WRITE, False)
                return
            try:
                self.queue.send(self.socket)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.break_off()
                return
            if self.queued:
                return
            self.watch(WRITE, False)
            self.fire_writable()
        if self.state is CLOSING:
            self.finish()

    @holds_lock
    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; return the bytes sent, 0 if the client is behind, -1 if it is gone.

        One thread at a time, without the lock. Raises EOFError when the file ends before
        ``offset``, OSError when it cannot be sent so.
        """
        sent = lost = 0
        try:
            with self.lock:
                if self.state is not OPEN:
                    return -1
                if self.queued:
                    return 0
                self.in_use = True
            sent = os.sendfile(self.descriptor, descriptor, offset, count)
            if not sent:
                raise EOFError("the file is shorter than it was")
        except (BlockingIOError, InterruptedError):
            pass
        except (ConnectionError, TimeoutError):
            lost = -1
        finally:
            if self.in_use:  # by this thread; whatever has ended it
                self._used(lost < 0)
        return lost or (-1 if self.state in OVER else sent)

    @holds_lock
    def _used(self, lost: bool) -> None:
        """Take up again what was left to be done while a file was being sent."""
        with self.lock:
            self.in_use = False
            if self.state is CLOSED:
                self.ask(self.loop.call_soon_threadsafe, self.end_socket, self.socket)
            elif lost and self.state is not BROKEN:
                self.break_off()
            elif self.queued:
                self.watch(WRITE, True)
        if self.state is CLOSING:
            self.ask(on_loop, self.loop, self.finish)
