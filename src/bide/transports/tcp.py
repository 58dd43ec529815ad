"""One connected stream socket (TCP or Unix): read by the loop, written to from any thread.

The thread that has the bytes sends them itself when nothing is queued before them; the rest is
queued for the loop. One lock guards the socket, the queue and the state, and makes closing safe: no
thread may send on a descriptor that was closed and used again by another connection.

Nothing slow happens under the lock. A file is sent without it: the descriptor is marked as in use
meanwhile, and the loop, which may come to close it, leaves that to be done when the mark is gone.

Invariants: only the loop closes the descriptor, under the lock, and never while it is in use; bytes
leave in the order of the ``write`` calls; whatever ends the connection, ``connection_lost`` is
called once, on the loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from bide.exchange.totals import UNBOUND, Total
from bide.transports.closing import end, prepare_reset, reset
from bide.transports.lingering import Lingering
from bide.transports.poller import ENDED, GONE, READ, WRITE, Poller
from bide.transports.receiver import Receiver
from bide.transports.unsent import PIECE, Unsent, send_first
from bide.waiting.locks import holds_lock
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal

READ_SIZE: Final = 64 * 1024
SMALL_READ: Final = 4 * 1024
"""What is read at once while bodies, all together, hold as much as they may."""
HIGH_WATER: Final = 64 * 1024
"""Bytes queued for a client above which its application waits, until a quarter is left."""
LINGER_SECONDS: Final = 2.0
"""How long a closing connection is read, so that the client gets the answer and not a reset."""


class SocketTransport:
    """A connected, non-blocking socket. Methods may be called from any thread but where noted.

    Args:
        sock: the socket, whose owner this becomes.
        poller: tells when it is ready.
        receiver: is told what comes.
        high_water: as HIGH_WATER.
        linger_seconds: as LINGER_SECONDS.
        unsent: what waits for all clients. At its bound an application goes on when its own client
            has taken all, so that none waits for another's.
        unread: what waits for all applications.

    Attributes:
        lock: guards all of it; reentrant.
        queue: what waits for the client; others look at its size, without the lock.
    """

    __slots__ = (
        "_broken",
        "_closing",
        "_descriptor",
        "_ended",
        "_high_water",
        "_in_use",
        "_linger",
        "_linger_seconds",
        "_lingering",
        "_loop",
        "_poller",
        "_receiver",
        "_resets",
        "_room",
        "_shut",
        "_socket",
        "_timer",
        "_unread",
        "_unsent",
        "_watched",
        "_writable",
        "lock",
        "queue",
    )

    def __init__(
        self,
        sock: socket.socket,
        poller: Poller,
        receiver: Receiver,
        high_water: int = HIGH_WATER,
        linger_seconds: float = LINGER_SECONDS,
        unsent: Total = UNBOUND,
        unread: Total = UNBOUND,
    ) -> None:
        self.lock = threading.RLock()
        self._unsent = unsent
        self._unread = unread
        self._high_water = high_water
        self._linger_seconds = linger_seconds
        self._socket = sock
        self._descriptor = sock.fileno()
        self._poller = poller
        self._loop = poller.loop
        self._receiver = receiver
        # Under the lock:
        self.queue = Unsent(unsent)
        self._in_use = False  # a file is being sent: nothing else is, and nothing closes
        self._broken = False  # no byte can be sent any more
        self._closing = False  # no byte is taken any more; what is queued is still sent
        self._shut = False  # the descriptor is closed
        self._resets = False  # it is to be closed by a reset
        self._room: Signal | None = None
        self._writable: Signal | None = None
        self._watched = 0  # what the poller watches for; 0 before start, too
        # On the loop:
        self._ended = False  # the client will send no more
        self._lingering: Lingering | None = None
        self._linger = False
        self._timer: asyncio.TimerHandle | None = None

    # Reading: on the loop -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read; on the loop."""
        self._watched = READ
        self._poller.register(self._descriptor, self)

    def look(self) -> None:
        """Take what has come already; on the loop."""
        if self._watched & READ:
            self._read()

    def ready(self, events: int) -> None:
        """Serve what the poller found; on the loop."""
        if events & READ:
            self._read()
        elif events & GONE:
            self._lose()
            return
        elif events & ENDED:
            self._watch(ENDED, False)  # it would be told again and again
            self._receiver.eof_ahead()
        if events & WRITE:
            self._write_queued()

    def _read(self) -> None:
        try:
            data = self._socket.recv(SMALL_READ if self._unread.full else READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lose()
            return
        if self._closing:  # what comes now would be begun and never answered
            if not data:
                self._ended = True
                self._watch(READ, False)
            if self._lingering is not None and not (data and self._lingering.take(len(data))):
                self._shut_down()
        elif data:
            self._receiver.data_received(data)
        else:
            self._ended = True
            self._watch(READ, False)
            self._receiver.eof_received()

    def pause_reading(self) -> None:
        """Leave what the client sends to TCP; its end is noticed all the same. On the loop."""
        self._watch(READ, False)
        self._watch(ENDED, True)

    def resume_reading(self) -> None:
        """Read again."""
        if not self._ended:
            self._watch(ENDED, False)
            self._watch(READ, True)

    @holds_lock
    def _watch(self, event: int, on: bool) -> None:
        with self.lock:
            wanted = self._watched | event if on else self._watched & ~event
            if wanted != self._watched and not (self._shut or self._broken):
                self._watched = wanted
                self._poller.watch(self._descriptor, wanted)

    # Writing: any thread ------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Bytes that wait for the client; a look, without the lock."""
        return self.queue.size

    @property
    def behind(self) -> bool:
        """Whether the client has to take some before it can be sent more; a look, too."""
        return self.queued > 0 or self._writable is not None

    @holds_lock
    def write(self, data: bytes, *more: bytes) -> bool:
        """Send, or queue what the client does not take yet, uncopied; false when it never will."""
        with self.lock:
            if self._broken or self._closing or self._shut:
                return False
            queue = self.queue
            sent = 0
            if not (queue.size or self._in_use):
                try:
                    if more or len(data) > PIECE:
                        sent = send_first(self._socket, (data, *more))
                    else:
                        sent = self._socket.send(data)
                        if sent == len(data):
                            return True
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError:
                    self._break()
                    return False
            queue.add((data, *more), sent)
            if queue.size and not self._in_use:
                self._watch(WRITE, True)
        return True

    @holds_lock
    def room(self) -> Signal | None:
        """Give what fires when a quarter of ``high_water`` is left; None when it is not reached.

        With ``unsent`` at its bound both are 0. It fires too when the connection ends.
        """
        queue = self.queue
        if not queue.size or queue.size < self._most():
            return None
        with self.lock:
            if not queue.size or queue.size < self._most() or self._broken or self._shut:
                return None
            if self._room is None:
                self._room = Signal()
            return self._room

    def _most(self) -> int:
        return 0 if self._unsent.full else self._high_water

    @holds_lock
    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; return the bytes sent, 0 if the client is behind, -1 if it is gone.

        One thread at a time, without the lock. Raises EOFError when the file ends before
        ``offset``, OSError when it cannot be sent so.
        """
        sent = lost = 0
        try:
            with self.lock:
                if self._broken or self._closing or self._shut:
                    return -1
                if self.queued:
                    return 0
                self._in_use = True
            sent = os.sendfile(self._descriptor, descriptor, offset, count)
            if not sent:
                raise EOFError("the file is shorter than it was")
        except (BlockingIOError, InterruptedError):
            pass
        except (ConnectionError, TimeoutError):
            lost = -1
        finally:
            if self._in_use:  # by this thread; whatever has ended it
                self._used(lost < 0)
        return lost or (-1 if self._broken or self._shut else sent)

    @holds_lock
    def _used(self, lost: bool) -> None:
        """Take up again what was left to be done while a file was being sent."""
        with self.lock:
            self._in_use = False
            if self._shut:
                self._ask(self._loop.call_soon_threadsafe, self._end_socket)
            elif lost and not self._broken:
                self._break()
            elif self.queued:
                self._watch(WRITE, True)
            elif self._closing:
                self._ask(on_loop, self._loop, self._close)

    @holds_lock
    def writable(self) -> Signal:
        """Give what fires once nothing is queued and the socket takes bytes, or is no more."""
        with self.lock:
            if self._writable is None:
                self._writable = Signal()
            signal = self._writable
            if self._broken or self._shut:
                self._fire()
            else:
                self._watch(WRITE, True)
        return signal

    @holds_lock
    def _write_queued(self) -> None:
        with self.lock:
            if self._shut or self._broken:
                return
            if self._in_use:  # what comes before it is on its way; then it is watched again
                self._watch(WRITE, False)
                return
            try:
                self.queue.send(self._socket)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._break()
                return
            left = self.queued
            if self._room is not None and left <= self._most() // 4:
                signal, self._room = self._room, None
                signal.fire()
            if not left:
                self._watch(WRITE, False)
                if self._writable is not None:
                    signal, self._writable = self._writable, None
                    signal.fire()
                if self._closing:
                    self._finish()

    def _break(self) -> None:
        # Under the lock, from any thread: the client takes nothing more. The loop tells the
        # receiver; whoever waits to write learns it now.
        self._broken = True
        self.queue.clear()
        self._fire()
        self._ask(self._loop.call_soon_threadsafe, self._lose)

    @holds_lock
    def _ask(self, call: Callable[..., object], *args: Any) -> None:
        try:
            call(*args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            with self.lock:  # nobody else will close it
                self._shut = True
                if not self._in_use:
                    self._end_socket()

    def _fire(self) -> None:
        for signal in (self._room, self._writable):
            if signal is not None:
                signal.fire()
        self._room = self._writable = None

    # Ending ------------------------------------------------------------------------------------

    @holds_lock
    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close.

        Args:
            linger: read and drop what the client still sends, for a moment, so that a reset
                does not overtake the last answer (RFC 9112 section 9.6).
        """
        with self.lock:
            if self._closing:
                return
            self._closing = True
            self._linger = linger
        self._ask(on_loop, self._loop, self._close)

    @holds_lock
    def _close(self) -> None:
        with self.lock:
            if not (self.queued or self._in_use):
                self._finish()

    def _finish(self) -> None:
        """End the writing side, all being sent; on the loop, under the lock."""
        if self._shut or self._lingering is not None:
            return
        if not self._linger or self._ended or self._broken:
            self._shut_down()
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._shut_down()
            return
        self._lingering = Lingering()
        self.resume_reading()
        self._linger_on()

    def _linger_on(self) -> None:
        assert self._lingering is not None
        if self._lingering.goes_on():
            self._timer = self._loop.call_later(self._linger_seconds, self._linger_on)
        else:
            self._shut_down()

    def after_fork(self) -> None:
        """Close the child's descriptor, and send nothing, in a forked child."""
        self._broken = self._shut = True
        self._socket.close()

    @holds_lock
    def abort(self) -> None:
        """Reset the connection: the client must not take what it has for all."""
        with self.lock:
            if self._shut or self._broken:
                return
            self._resets = True
            prepare_reset(self._socket)
            self._break()

    @holds_lock
    def _lose(self) -> None:
        with self.lock:
            self._broken = True
        self._shut_down()

    @holds_lock
    def _shut_down(self) -> None:
        """Close the descriptor and tell the receiver, once; on the loop."""
        with self.lock:
            if self._shut:
                return
            self._shut = True
            self._poller.unregister(self._descriptor)
            self._closing = True
            self.queue.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._fire()
            if not self._in_use:  # else it is closed by the word of who uses it
                self._end_socket()
        self._receiver.connection_lost()

    def _end_socket(self) -> None:
        end_or_reset = reset if self._resets else end
        end_or_reset(self._socket)
