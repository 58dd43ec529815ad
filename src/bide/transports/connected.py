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
from collections.abc import Callable
from typing import Any, Final

from bide.exchange.totals import Total
from bide.exchange.unsent import Unsent
from bide.protocols.interfaces import Receiver
from bide.transports.closing import end, prepare_reset, reset, unconfirmed
from bide.transports.lingering import Lingering
from bide.transports.pollable import Pollable
from bide.transports.poller import ENDED, READ, WRITE, Poller
from bide.waiting.locks import Lock, holds_lock
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
"""The server asks for the end of the connection."""
SENT: Final = "sent"
"""Nothing is queued any more, and the client may still send."""
BREAK: Final = "break"
"""A send has failed, or the server resets the connection."""
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
    """A connected, non-blocking socket. Methods may be called from any thread unless noted.

    Args:
        sock: the socket, whose owner this becomes.
        poller: watches the socket.
        receiver: called with what comes.
        high_water: bytes queued for a client from which on its application waits, until a quarter
            is left.
        linger: seconds for which a closing connection is read, so that the client gets the answer
            and not a reset; longer while it sends, as :class:`Lingering` says.
        unsent: the total of what waits for all clients.

    Attributes:
        lock: guards the state, the queue and the descriptor; reentrant.
        queue: what waits for the client; its size is read without the lock, too.
        state: as above; read without the lock, too.
        in_use: as above; under the lock.
        client_ended: whether the client will send no more; on the loop.
        lingering: how long to linger, once it is decided that it will; on the loop.
        watched: what the poller watches for; 0 before the start. Under the lock.
        end_socket: how the socket is closed: in order, or by a reset. Under the lock.
        descriptor, loop, poller, receiver, socket: as given; they stay the same.
    """

    __slots__ = (
        "_linger",
        "_writable",
        "client_ended",
        "descriptor",
        "end_socket",
        "in_use",
        "lingering",
        "lock",
        "loop",
        "poller",
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
        self.lock = Lock()
        self._linger = linger
        self.socket = sock
        self.descriptor = sock.fileno()
        self.poller = poller
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
        self.poller.register(self.descriptor, self)

    def pause_reading(self) -> None:
        """Stop reading; the client's end is noticed all the same. On the loop."""
        self.watch(READ, False, ENDED)

    def resume_reading(self) -> None:
        """Read again."""
        if not self.client_ended:
            self.watch(READ, True, ENDED)

    def watch(self, event: int, on: bool, instead: int = 0) -> None:
        """Start or stop watching for an event; from any thread.

        The event ``instead`` is stopped or started in the same call of the system.
        """
        with self.lock:
            more, less = (event, instead) if on else (instead, event)
            wanted = (self.watched | more) & ~less
            if wanted != self.watched and self.state not in OVER:
                self.watched = wanted
                self.tell_poller()

    def tell_poller(self) -> None:
        """Have the poller watch for what is wanted; under the lock."""
        self.poller.watch(self.descriptor, self.watched)

    def leave_poller(self) -> None:
        """Have the poller watch no more; on the loop, under the lock."""
        self.poller.unregister(self.descriptor)

    # Waiting for the client: any thread ---------------------------------------------------------

    @property
    def queued(self) -> int:
        """Bytes that wait for the client; read without the lock."""
        return self.queue.size

    @property
    def behind(self) -> bool:
        """Whether the client must take some before more should be sent; read without the lock.

        Also while it closes: the end may wait for the client, too, and is not in the queue.
        """
        return self.queued > 0 or self._writable is not None or self.state is CLOSING

    def room(self) -> Signal | None:
        """Return what fires when a quarter of ``high_water`` is left; None when less is queued.

        With ``unsent`` at its bound both are 0. It fires too when the connection ends.
        """
        queue = self.queue
        if not (queue.size and queue.high):
            return None
        with self.lock:
            return queue.room() if queue.high and self.state not in OVER else None

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
        """Wake the threads that wait until the socket takes bytes; under the lock."""
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

    def ask(self, call: Callable[..., object], *args: Any) -> None:
        """Schedule a call on the loop. If that is closed, close the descriptor here."""
        try:
            call(*args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            with self.lock:  # the loop will never close it
                if self.state is not CLOSED:
                    self._move(END)
                if not self.in_use:
                    self.end_socket(self.socket)

    # Ending ------------------------------------------------------------------------------------

    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close.

        Args:
            linger: read and drop what the client still sends, for a moment, so that a reset
                does not overtake the last answer (RFC 9112 section 9.6). A connection lingers
                anyway if the system still holds some of what was sent.
        """
        with self.lock:
            self.flush()
            if self.state is not OPEN:
                return
            self._move(CLOSE)
            if linger:
                self.lingering = self._to_linger()
        self.ask(on_loop, self.loop, self.finish)

    def finish(self) -> None:
        """End the writing side of a closing connection once all is sent; on the loop."""
        with self.lock:
            if self.state is not CLOSING or self.queued or self.in_use or not self.say_end():
                return
            if self.lingering is None and self._holds():
                self.lingering = self._to_linger()
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

    def _to_linger(self) -> Lingering:
        return Lingering(self.loop, self._linger, self.end, self._holds)

    @property
    def under_way(self) -> bool:
        """Whether the client has yet to take some of what was sent, and is read meanwhile.

        If the connection ended now, what the client sends would reset it, and all that the system
        holds would be lost. On the loop.
        """
        return self.state is LINGERING and self._holds()

    def _holds(self) -> bool:
        """Whether the system holds some of what was sent."""
        return unconfirmed(self.socket) > 0

    def say_end(self) -> bool:
        """Say that nothing more will be sent, where there are words for that; under the lock.

        Return false if the socket does not take them now: :meth:`finish` is to be called again.
        """
        return True

    def abort(self) -> None:
        """Reset the connection, so that an incomplete response does not look complete.

        Where all was sent, and the end, too, it is closed: a reset would take from the client what
        the system still holds.
        """
        with self.lock:
            if self.state in OVER:
                return
            if self.state is not LINGERING:
                self.end_socket = reset
                prepare_reset(self.socket)
            self.break_off()

    def end(self) -> None:
        """Close the descriptor and tell the receiver, once; on the loop."""
        with self.lock:
            if self.state is CLOSED:
                return
            self._move(END)
            self.leave_poller()
            self.queue.clear()
            self.fire_writable()
            if self.lingering is not None:
                self.lingering.stop()
                self.lingering = None
            if not self.in_use:  # else the thread that uses it asks the loop to close it
                self.end_socket(self.socket)
        self.receiver.connection_lost()

    def after_fork(self) -> None:
        """Close the child's descriptor, and send nothing, in a forked child."""
        if self.state is not CLOSED:  # without the lock, which a thread of the parent may hold
            self._move(END)
        self.socket.close()


holds_lock(
    Connected.watch,
    Connected.room,
    Connected.writable,
    Connected.ask,
    Connected.close,
    Connected.finish,
    Connected.abort,
    Connected.end,
)
