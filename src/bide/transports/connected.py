"""What every transport over a connected socket shares: its state, its queue, and its end.

A connection lives through these states. Only ``_move`` changes them, under the lock, and ``MOVES``
has every move there is; each leads to the right or down::

    open ---close---> closing ---sent---> lingering
      |                  |                   |
      +------break-------+-------break-------+---> broken
      |                  |                   |       |
      +-------end--------+--------end--------+--end--+---> closed

Two marks stand beside the state, since each goes with several states: ``in_use``, while a thread
uses the descriptor without the lock, and ``client_ended``, once the client will send no more.

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
        in_use: as above; under the lock.
        client_ended: whether the client will send no more; on the loop.
        lingering: how long to linger, once it is decided that it will; on the loop.
        watched: what the poller watches for; 0 before the start. Under the lock.
        end_socket: how the socket is closed: in order, or by a reset. Under the lock.
        descriptor, loop, receiver, socket: as given; they stay the same.
    """

    __slots__ = (
        "_linger",
        "_poller",
        "_writable",
        "client_ended",
        "descriptor",
        "end_socket",
        "in_use",
        "lingering",
        "lock",
        "loop",
        "queue",
        "receiver",
        "socket",
        "state",
        "watched",
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
        self.socket = sock
        self.descriptor = sock.fileno()
        self._poller = poller
        self.loop = poller.loop
        self.receiver = receiver
        # Under the lock:
        self.state = OPEN
        self.queue = Unsent(high_water, unsent)
        self.in_use = False  # nothing else is sent, and nothing closes the descriptor
        self.end_socket = end  # or reset
        self.lingering: Lingering | None = None  # of a connection that is to linger
        self._writable: Signal | None = None
        self.watched = 0  # what the poller watches for; 0 before start, too
        # On the loop:
        self.client_ended = False  # the client will send no more

    def _move(self, event: str) -> None:
        """Change the state; under the lock. A KeyError is a bug: the event came too late."""
        self.state = MOVES[self.state, event]

    # Reading ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read; on the loop."""
        self.watched = READ
        self._poller.register(self.descriptor, self)

    def pause_reading(self) -> None:
        """Leave what the client sends to TCP; its end is noticed all the same. On the loop."""
        self.watch(READ, False)
        self.watch(ENDED, True)

    def resume_reading(self) -> None:
        """Read again."""
        if not self.client_ended:
            self.watch(ENDED, False)
            self.watch(READ, True)

    @holds_lock
    def watch(self, event: int, on: bool) -> None:
        """Have the poller watch for an event, or no longer; from any thread."""
        with self.lock:
            wanted = self.watched | event if on else self.watched & ~event
            if wanted != self.watched and self.state not in OVER:
                self.watched = wanted
                self._poller.watch(self.descriptor, wanted)

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
                self.fire_writable()
            else:
                self.watch(WRITE, True)
        return signal

    def fire_writable(self) -> None:
        """Let those go on who wait until the socket takes bytes; under the lock."""
        if self._writable is not None:
            signal, self._writable = self._writable, None
            signal.fire()

    def break_off(self) -> None:
        """End the sending: the client takes nothing more; under the lock, from any thread.

        Who waits to write goes on now. The loop tells the receiver.
        """
        self._move(BREAK)
        self.queue.clear()
        self.fire_writable()
        self.ask(self.loop.call_soon_threadsafe, self.end)

    @holds_lock
    def ask(self, call: Callable[..., object], *args: Any) -> None:
        """Have the loop do something. Where it is closed, close the descriptor here."""
        try:
            call(*args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            with self.lock:  # nobody else will close it
                if self.state is not CLOSED:
                    self._move(END)
                if not self.in_use:
                    self.end_socket(self.socket)

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
                self.lingering = Lingering(self.loop, self._linger, self.end)
        self.ask(on_loop, self.loop, self.finish)

    @holds_lock
    def finish(self) -> None:
        """End the writing side of a closing connection once all is sent; on the loop."""
        with self.lock:
            if self.state is not CLOSING or self.queued or self.in_use:
                return
            lingering = None if self.client_ended else self.lingering
            if lingering is not None:
                try:
                    self.socket.shutdown(socket.SHUT_WR)
                except OSError:  # the client is gone
                    lingering = None
                else:
                    self._move(SENT)
        if lingering is None:
            self.end()
        else:
            self.resume_reading()
            lingering.start()

    @holds_lock
    def abort(self) -> None:
        """Reset the connection: the client must not take what it has for all."""
        with self.lock:
            if self.state in OVER:
                return
            self.end_socket = reset
            prepare_reset(self.socket)
            self.break_off()

    @holds_lock
    def end(self) -> None:
        """Close the descriptor and tell the receiver, once; on the loop."""
        with self.lock:
            if self.state is CLOSED:
                return
            self._move(END)
            self._poller.unregister(self.descriptor)
            self.queue.clear()
            self.fire_writable()
            if self.lingering is not None:
                self.lingering.stop()
                self.lingering = None
            if not self.in_use:  # else who uses it has the loop close it
                self.end_socket(self.socket)
        self.receiver.connection_lost()

    def after_fork(self) -> None:
        """Close the child's descriptor, and send nothing, in a forked child."""
        if self.state is not CLOSED:  # without the lock, which a thread of the parent may hold
            self._move(END)
        self.socket.close()
