"""One connection that is encrypted: a non-blocking ``SSLSocket``, shared by the loop and threads.

OpenSSL crashes when two threads use one connection. So every call into it, to read as to write, is
made under the transport's lock.

OpenSSL may have to write before it can read on, and to read before it can write on. And it may hold
bytes that it has decrypted already, of which no poller tells.

An end is a ``close_notify``, and then the system's; an abort is a reset, without it (RFC 8446
section 6.1): what is as long as the connection, and not complete, looks so. A client's
``close_notify`` is a half-close, and so is its bare end (:mod:`contexts` asks for that): HTTP says
itself whether a request is complete.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import Final

from bide.exchange.peer import Secured
from bide.exchange.totals import UNBOUND, Total
from bide.exchange.unsent import Block
from bide.protocols.interfaces import Receiver
from bide.transports.beginnings import LEFT, NOT_HTTPS, PLAIN, mistaken
from bide.transports.connected import CLOSED, LINGERING, OPEN, OVER
from bide.transports.handshakes import Handshakes, reason_of, secured_by
from bide.transports.openssl import forget, read, sure
from bide.transports.poller import READ, WRITE, Poller
from bide.transports.streaming import Streaming
from bide.waiting.locks import holds_lock
from bide.waiting.loops import on_loop

RECORD: Final = 16 * 1024
"""The most that one record of TLS has."""
MOST: Final = 64 * 1024
"""Bytes that are decrypted while the lock is held: 1 MiB takes 1.5 ms."""
FRAMED: Final = MOST + 4 * 1024
"""Bytes that are encrypted while it is held: a block of MOST with its head, or its framing."""


class TLSTransport(Streaming):
    """A connected socket whose bytes are encrypted. Nothing is written before its handshake ends.

    The handshake is made by the thread of :class:`Handshakes`; until it lets go of the transport,
    the descriptor is marked as in use.

    Args:
        handshakes: makes the handshake, with the server's certificates.
        sock, poller, receiver, high_water, linger, unsent, unread: as :class:`Streaming`.

    Attributes:
        failure: why the handshake has failed; empty if it has not. Set before the thread lets go.
    """

    __slots__ = (
        "_begun",
        "_handshakes",
        "_more",
        "_read_crossed",
        "_registered",
        "_said_end",
        "_secured",
        "_speaks",
        "_tls",
        "_write_crossed",
        "failure",
    )

    def __init__(
        self,
        handshakes: Handshakes,
        sock: socket.socket,
        poller: Poller,
        receiver: Receiver,
        high_water: int,
        linger: float,
        unsent: Total = UNBOUND,
        unread: Total = UNBOUND,
    ) -> None:
        super().__init__(sock, poller, receiver, high_water, linger, unsent, unread)
        self._handshakes = handshakes
        self.failure = ""
        # Under the lock:
        self._tls: ssl.SSLSocket | None = None  # from the client's first bytes on
        self._secured: Secured | None = None  # set before the thread lets go
        self._speaks = False  # TLS, with the loop, which was told
        self._begun: Block | None = None  # what OpenSSL has to be given again, unchanged
        self._read_crossed = False  # to read on, OpenSSL must write
        self._write_crossed = False  # to write on, it must read
        self._said_end = False
        # On the loop:
        self._registered = False  # with the poller, once the handshake is over
        self._more = False  # something has come that the poller does not tell of

    # The handshake ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the handshake."""
        self.in_use = True
        self._handshakes.add(self)

    @property
    def shaking(self) -> bool:
        """Whether the handshake is not over; on the loop."""
        return not self._registered

    def shake(self) -> int:
        """Go on with the handshake; return what to watch for, 0 when it is over.

        On the thread of the handshakes.
        """
        with self.lock:
            if self.state is not OPEN:  # the loop has given it up
                return 0
            try:
                if self._tls is None:
                    self.failure = mistaken(self.socket.recv(1, socket.MSG_PEEK))
                    if self.failure:
                        return 0
                    self._tls = self._handshakes.wrap(self.socket)
                    self.socket = self._tls
                self._tls.do_handshake()
                self._secured = secured_by(self._tls)
            except (ssl.SSLWantReadError, BlockingIOError, InterruptedError):
                return READ
            except ssl.SSLWantWriteError:
                return WRITE
            except (OSError, ValueError) as error:
                self.failure = reason_of(error)
        return 0

    def let_go(self) -> None:
        """Hand the connection to the loop; on the thread of the handshakes, its last call."""
        with self.lock:
            self.in_use = False
            if self.state is CLOSED:
                self.end_socket(self.socket)
                return
        self.ask(self.loop.call_soon_threadsafe, self._shaken)

    def _shaken(self) -> None:
        with self.lock:
            if self.state is not OPEN:
                return
            # Else it is not watched: a reset has perhaps closed its descriptor (wrap_socket does).
            if self._secured is not None or self.failure == PLAIN:
                self._registered = True
                self._speaks = self._secured is not None
                self.watched = READ
                self.poller.register(self.descriptor, self)
        if self._secured is not None:
            self.receiver.secured(self._secured)
            return
        if self.failure != LEFT:
            self.receiver.insecure(self.failure)
        if self.failure != PLAIN:
            self.end()
            return
        with contextlib.suppress(OSError):  # it fits into the socket, or the client is gone
            self.socket.send(NOT_HTTPS)
        self.close(linger=True)

    def leave_poller(self) -> None:
        """Have neither the poller nor the thread of the handshakes watch any more."""
        if self._registered:
            self.poller.unregister(self.descriptor)
        else:
            self._handshakes.drop(self)

    # What is watched for ------------------------------------------------------------------------

    def tell_poller(self) -> None:
        """Have the poller watch for what is wanted, or for what OpenSSL wants in its place."""
        if not self._registered:
            return
        wanted = self.watched
        events = wanted & ~(READ | WRITE)
        if wanted & READ:
            events |= WRITE if self._read_crossed else READ
        if wanted & WRITE:
            events |= READ if self._write_crossed else WRITE
        self.poller.watch(self.descriptor, events)

    def _cross(self, reading: bool, writing: bool) -> None:
        """Set whether OpenSSL must write to read on, and read to write on; under the lock."""
        if reading is not self._read_crossed or writing is not self._write_crossed:
            self._read_crossed, self._write_crossed = reading, writing
            self.tell_poller()

    def ready(self, events: int) -> None:
        """Serve what the poller found; on the loop."""
        if self._read_crossed or self._write_crossed:
            found = events & ~(READ | WRITE)
            if self.watched & READ and events & (WRITE if self._read_crossed else READ):
                found |= READ
            if self.watched & WRITE and events & (READ if self._write_crossed else WRITE):
                found |= WRITE
            events = found
        super().ready(events)

    # Reading: on the loop -----------------------------------------------------------------------

    def resume_reading(self) -> None:
        """Read again."""
        super().resume_reading()
        if self._more:
            self.ask(self.loop.call_soon_threadsafe, self._look_again)

    def _look_again(self) -> None:
        if self._more and self.watched & READ and self.state not in OVER:
            self.poller.serve(self, READ)

    def read(self) -> None:
        """Read a piece, and all of it that OpenSSL holds."""
        super().read()
        while self._more and self.watched & READ and self.state not in OVER:
            super().read()

    def receive(self, size: int) -> bytes | None:
        """Return what has come, up to ``size`` bytes, or to MOST."""
        tls = self._tls
        if tls is None or self.state is LINGERING:
            # Dropped, and in clear: after its close_notify OpenSSL reads no more. Python has parted
            # with it where the socket was shut down for writing, so this needs no lock.
            self._more = False
            try:
                return self.socket.recv(size)
            except (BlockingIOError, InterruptedError):
                return None
        with self.lock:
            return self._decrypted(tls, min(size, MOST))

    def _decrypted(self, tls: ssl.SSLSocket, left: int) -> bytes | None:
        """Decrypt what has come; under the lock. Each call of OpenSSL takes one record at most."""
        blocks: list[bytes] = []
        self._more = crossed = False
        try:
            while True:
                block = read(tls, left)
                if not block:  # close_notify; behind what was read, it is found again
                    if not blocks:
                        return b""
                    self._more = True
                    break
                blocks.append(block)
                full = len(block) == left
                left -= len(block)
                if full or len(block) < RECORD or left < RECORD:
                    self._more = full and tls.pending() > 0
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            crossed = True
        except OSError:
            if not blocks:
                raise
            self._more = True  # as the end above
        self._cross(crossed, self._write_crossed)
        if not blocks:
            return None
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    # Writing: any thread ------------------------------------------------------------------------

    def put(self, data: bytes, *more: bytes) -> bool:
        """Write under the lock; the loop goes on with what is longer than FRAMED, part by part."""
        if self.state is not OPEN or not self._speaks:
            return False
        gathering = self.gathering
        if gathering is not None and gathering.blocks:
            data, more = gathering.take(), (data, *more)
        if more and sum(map(len, more)) + len(data) <= RECORD:
            data, more = b"".join((data, *more)), ()
        queue = self.queue
        if queue.size:
            queue.add((data, *more), 0)
            # If the socket is full: before the application waits, the client is looked at.
            return (self._begun is not None and not queue.high) or self.send_queued()
        sent = 0
        if not more and len(data) <= RECORD:
            try:
                sent = self._encrypt(data) if data else 0
            except (OSError, ValueError):
                self.break_off()
                return False
            if sent == len(data):
                return True
        if queue.add((data, *more), sent):
            if self._begun is None and not self.send_queued():
                return False
            if self.queued:
                self.watch(WRITE, True)
        return True

    def send_queued(self) -> bool:
        """Encrypt and send up to FRAMED of what is queued; under the lock."""
        queue = self.queue
        left = FRAMED
        try:
            while queue.size and left > 0:
                piece = self._begun
                if piece is None:
                    block = queue.piece()[0]
                    size = min(left, RECORD)
                    piece = block if len(block) <= size else memoryview(block)[:size]
                sent = self._encrypt(piece)
                if not sent:
                    break
                queue.taken(sent)
                left -= sent
        except (OSError, ValueError):
            self.break_off()
            return False
        return True

    def _encrypt(self, piece: Block) -> int:
        """Send a record; return how many bytes were taken, 0 if it has to be given again.

        Under the lock. Raises OSError, or ValueError, when nothing can be sent any more.
        """
        assert self._tls is not None
        crossed = False
        try:
            # Not ``send``, which sends in clear what comes after the end.
            sent = sure(self._tls.write, piece)
        except ssl.SSLWantWriteError:
            sent = 0
        except ssl.SSLWantReadError:
            sent = 0
            crossed = True
        # OpenSSL has encrypted it already, and takes nothing else in its place.
        self._begun = None if sent else piece
        self._cross(self._read_crossed, crossed)
        return sent

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Read from a file, and send that encrypted: ``sendfile`` would send it in clear.

        Return the bytes that were read, 0 if the client is behind, -1 if it is gone. The file is
        read without the lock. Raises EOFError when it ends before ``offset``, OSError when it
        cannot be read.
        """
        with self.lock:
            if not self.flush() or self.state is not OPEN:
                return -1
            if self.queued:
                return 0
        data = os.pread(descriptor, min(count, MOST), offset)
        if not data:
            raise EOFError("the file is shorter than it was")
        return len(data) if self.write(data) else -1

    # Ending -------------------------------------------------------------------------------------

    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close; at once where the handshake is not over."""
        if self._registered:
            super().close(linger)
        else:
            self.ask(on_loop, self.loop, self.end)

    def say_end(self) -> bool:
        """Send the ``close_notify``; under the lock."""
        tls = self._tls
        if tls is not None and not self._said_end:
            try:
                sure(tls.unwrap)
            except ssl.SSLWantWriteError:
                self.watch(WRITE, True)
                return False
            except (OSError, ValueError):  # it was sent, and the client's own has not come; or
                pass  # nothing can be sent any more
            else:
                if not self.client_ended:  # its end came now; or an alert did in its place
                    forget()
            self._said_end = True
        return True


holds_lock(
    TLSTransport.shake,
    TLSTransport.let_go,
    TLSTransport._shaken,
    TLSTransport.receive,
    TLSTransport.put,
    TLSTransport.send_file,
)
