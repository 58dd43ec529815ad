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

from bide.exchange.unsent import PIECE, Block, first_piece
from bide.transports.connected import BROKEN, CLOSED, CLOSING, OPEN, OVER
from bide.transports.poller import WRITE
from bide.transports.streaming import Streaming
from bide.waiting.locks import holds_lock
from bide.waiting.loops import on_loop


class SocketTransport(Streaming):
    """A connected socket whose bytes leave as they are."""

    __slots__ = ()

    def receive(self, size: int) -> bytes | None:
        """Return what has come, up to ``size`` bytes."""
        try:
            return self.socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return None

    # Writing: any thread ------------------------------------------------------------------------

    def put(self, data: bytes, *more: bytes) -> bool:
        """Write under the lock: to take it again would cost a third of a microsecond."""
        if self.state is not OPEN:
            return False
        gathering = self.gathering
        if gathering is not None and gathering.blocks:
            data, more = gathering.take(), (data, *more)
        queue = self.queue
        if queue.size or self.in_use:
            queue.add((data, *more), 0)
            # Before the application waits, the client is looked at: the loop may be late.
            return self.in_use or not queue.high or self.send_queued()
        sent = 0
        try:
            if more or len(data) > PIECE:
                sent = self._send(first_piece((data, *more)))
            else:
                sent = self.socket.send(data)
                if sent == len(data):
                    return True
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.break_off()
            return False
        if queue.add((data, *more), sent):
            self.watch(WRITE, True)
        return True

    def _send(self, pieces: list[Block]) -> int:
        """Hand some blocks to the system together; return how many bytes it took."""
        if len(pieces) == 1:
            return self.socket.send(pieces[0])
        return self.socket.sendmsg(pieces)

    def send_queued(self) -> bool:
        """Send a piece of what is queued; under the lock. Return false when the client is gone."""
        queue = self.queue
        if queue.size:
            try:
                queue.taken(self._send(queue.piece()))
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.break_off()
                return False
        return True

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; return the bytes sent, 0 if the client is behind, -1 if it is gone.

        One thread at a time, without the lock. Raises EOFError when the file ends before
        ``offset``, OSError when it cannot be sent so.
        """
        sent = lost = 0
        try:
            with self.lock:
                if not self.flush() or self.state is not OPEN:
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


holds_lock(
    SocketTransport.put,
    SocketTransport.send_file,
    SocketTransport._used,
)
