"""What every transport over a connected socket shares: its state, its queue, and its end.

A connection lives through these states. Only ``_move`` changes them, under the lock, and ``MOVES``
has every move there is; each leads to the right or down::

    open ---close---> closing ---sent---> lingering
      |                  |                   |
      +------break-------+-------break-------+---> broken
      |                  |                   |       |
      +-------end--------+--------end--------+--end--+---> closed

Two marks stand beside the state, since each goes with several states: ``_in_use``, while a thread
uses the descriptor without the lock, and ``_ended``, once the client will send no more.

Invariants: only the loop closes the descriptor, under the lock, and never while it is in use;
whatever ends the connection, ``connection_lost`` is called once, on the loop.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from bide.exchange.totals import Total
from bide.protocols.interfaces import Receiver
from bide.transports.closing import end, prepare_reset, reset
from bide.transports.lingering import Lingering
from bide.transports.poller import ENDED, READ, WRITE, Pollable, Poller
from bide.transports.unsent import Unsent
from bide.waiting.locks import holds_lock
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal

OPEN: Final = "open"
"""Bytes are taken, and sent or queued."""
CLOSING: Final = "closing"
"""No more bytes are taken. Those that are queued are sent."""
LINGERING: Final = "lingering"
"""All is sent, and the end, too. What the client still sends is read and dropped."""
BROKEN: Final = "broken"
"""No byte can be sent any more. The loop has been asked to end the connection."""
CLOSED: Final = "closed"
"""The receiver is told. The descriptor is closed, or will be as soon as it is not in use."""

OVER: Final = (BROKEN, CLOSED)
"""The states in which nothing more is sent, not even what was queued."""

CLOSE: Final = "close"
"""Somebody asks for the end of the connection."""
SENT: Final = "sent"
"""Nothing is queued any more, and the client may still send."""
BREAK: Final = "break"
"""A send has failed, or somebody resets the connection."""
END: Final = "end"
"""The client is gone, or nothing is left to be done."""

MOVES: Final = {
    (OPEN, CLOSE): CLOSING,
    (OPEN, BREAK): BROKEN,
    (OPEN, END): CLOSED,
    (CLOSING, SENT): LINGERING,
    (CLOSING, BREAK): BROKEN,
    (CLOSING, END): CLOSED,
    (LINGERING, BREAK): BROKEN,
    (LINGERING, END): CLOSED,
    (BROKEN, END): CLOSED,
}
"""The state that follows, by state and event. There is no other move."""


class Connected(Pollable):
    """A connected, non-blocking socket. Methods may be called from any thread but where noted.

    Args:
        sock: the socket, whose owner this becomes.
        poller: tells when it is ready.
        receiver: is told what comes.
        high_water: bytes queued for a client from which on its application waits, until a quarter
            is left.
        linger: seconds for which a closing connection is read, so that the client gets the answer
            and not a reset; longer while it sends, as :class:`Lingering` says.
        unsent: what waits for all clients.

    Attributes:
        lock: guards all of it; reentrant.
        queue: what waits for the client; others look at its size, without the lock.
        state: as above; others look at it, without the lock.
    """

    __slots__ = (
        "_descriptor",
        "_end_socket",
        "_ended",
        "_in_use",
        "_linger",
        "_lingering",
        "_loop",
        "_poller",
        "_receiver",
        "_socket",
        "_watched",
        "_writable",
        "lock",
        "queue",
        "state",
    )

    def __init__(
        self,
        sock: socket.socket,
        poller: Poller,
        receiver: Receiver,
        high_water: int,
        linger: float,
        unsent: Total,
    ) -> None:
        self.lock = threading.RLock()
        self._linger = linger
        self._socket = sock
        self._descriptor = sock.fileno()
        self._poller = poller
        self._loop = poller.loop
        self._receiver = receiver
        # Under the lock:
        self.state = OPEN
        self.queue = Unsent(high_water, unsent)
        self._in_use = False  # nothing else is sent, and nothing closes the descriptor
        self._end_socket = end  # or reset
        self._lingering: Lingering | None = None  # of a connection that is to linger
        self._writable: Signal | None = None
        self._watched = 0  # what the poller watches for; 0 before start, too
        # On the loop:
        self._ended = False  # the client will send no more

    def _move(self, event: str) -> None:
        """Change the state; under the lock. A KeyError is a bug: the event came too late."""
        self.state = MOVES[self.state, event]

    # Reading ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read; on the loop."""
        self._watched = READ
        self._poller.register(self._descriptor, self)

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
            if wanted != self._watched and self.state not in OVER:
                self._watched = wanted
                self._poller.watch(self._descriptor, wanted)

    # Waiting for the client: any thread ---------------------------------------------------------

    @property
    def queued(self) -> int:
        """Bytes that wait for the client; a look, without the lock."""
        return self.queue.size

    @property
    def behind(self) -> bool:
        """Whether the client has to take some before it can be sent more; a look, too."""
        return self.queued > 0 or self._writable is not None

    @holds_lock
    def room(self) -> Signal | None:
        """Return what fires when a quarter of ``high_water`` is left; None when less is queued.

        With ``unsent`` at its bound both are 0. It fires too when the connection ends.
        """
        queue = self.queue
        if not queue.high:
            return None
        with self.lock:
            return queue.room() if queue.high and self.state not in OVER else None

    @holds_lock
    def writable(self) -> Signal:
        """Return what fires once nothing is queued and the socket takes bytes, or is gone."""
        with self.lock:
            if self._writable is None:
                self._writable = Signal()
            signal = self._writable
            if self.state in OVER:
                self._fire_writable()
            else:
                self._watch(WRITE, True)
        return signal

    def _fire_writable(self) -> None:
        if self._writable is not None:
            signal, self._writable = self._writable, None
            signal.fire()

    def _break(self) -> None:
        # Under the lock, from any thread: the client takes nothing more. The loop tells the
        # receiver; whoever waits to write learns it now.
        self._move(BREAK)
        self.queue.clear()
        self._fire_writable()
        self._ask(self._loop.call_soon_threadsafe, self._end)

    @holds_lock
    def _ask(self, call: Callable[..., object], *args: Any) -> None:
        try:
            call(*args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            with self.lock:  # nobody else will close it
                if self.state is not CLOSED:
                    self._move(END)
                if not self._in_use:
                    self._end_socket(self._socket)

    # Ending ------------------------------------------------------------------------------------

    @holds_lock
    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close.

        Args:
            linger: read and drop what the client still sends, for a moment, so that a reset
                does not overtake the last answer (RFC 9112 section 9.6).
        """
        with self.lock:
            if self.state is not OPEN:
                return
            self._move(CLOSE)
            if linger:
                self._lingering = Lingering(self._loop, self._linger, self._end)
        self._ask(on_loop, self._loop, self._finish)

    @holds_lock
    def _finish(self) -> None:
        """End the writing side of a closing connection once all is sent; on the loop."""
        with self.lock:
            if self.state is not CLOSING or self.queued or self._in_use:
                return
            lingering = None if self._ended else self._lingering
            if lingering is not None:
                try:
                    self._socket.shutdown(socket.SHUT_WR)
                except OSError:  # the client is gone
                    lingering = None
                else:
                    self._move(SENT)
        if lingering is None:
            self._end()
        else:
            self.resume_reading()
            lingering.start()

    @holds_lock
    def abort(self) -> None:
        """Reset the connection: the client must not take what it has for all."""
        with self.lock:
            if self.state in OVER:
                return
            self._end_socket = reset
            prepare_reset(self._socket)
            self._break()

    @holds_lock
    def _end(self) -> None:
        """Close the descriptor and tell the receiver, once; on the loop."""
        with self.lock:
            if self.state is CLOSED:
                return
            self._move(END)
            self._poller.unregister(self._descriptor)
            self.queue.clear()
            self._fire_writable()
            if self._lingering is not None:
                self._lingering.stop()
                self._lingering = None
            if not self._in_use:  # else who uses it has the loop close it
                self._end_socket(self._socket)
        self._receiver.connection_lost()

    def after_fork(self) -> None:
        """Close the child's descriptor, and send nothing, in a forked child."""
        if self.state is not CLOSED:  # without the lock, which a thread of the parent may hold
            self._move(END)
        self._socket.close()
