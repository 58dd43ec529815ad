"""A connection of a trusted proxy, until the PROXY header has come that names the client.

The header is taken from the socket to its last byte and no further, so that what follows it, TLS
for example, is there for the connection's own transport.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from bide.errors import RemoteProtocolError
from bide.exchange.peer import Peer
from bide.protocols.interfaces import HEAD, HTTP1
from bide.protocols.proxy_header import LONGEST, Announced, parse
from bide.serving.deadlines import ClientTime, Look
from bide.serving.refusals import kind
from bide.transports.closing import end, prepare_reset, reset
from bide.transports.pollable import Pollable
from bide.transports.poller import READ, Poller

NO_HEADER: Final = kind(
    "connections refused: {} came from a trusted proxy without a good PROXY header; the last: {} "
    "(--proxy-protocol)",
    "proxy_header",
)


class Arrival(Pollable):
    """One connection; on the loop.

    Args:
        sock: its socket.
        peer: its two ends; the client is the proxy.
        poller: says when it can be read.
        arrived: called when the header has come; whoever has the socket then registers it anew.
        lost: called when the connection has ended before that, with the reason; "" for a client
            that has sent nothing and left, or when the server ends it.

    Attributes:
        socket, peer: as given.
    """

    held = 0
    """Bytes that wait for the client; as of a :class:`Connection`, likewise the next one."""
    sending = False
    speaks = HTTP1

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        poller: Poller,
        arrived: Callable[[Arrival, Announced], None],
        lost: Callable[[Arrival, str], None],
    ) -> None:
        self.socket = sock
        self.peer = peer
        self._poller = poller
        self._arrived = arrived
        self._lost = lost
        self._come = b""
        self._time = ClientTime()
        self._over = False

    def start(self) -> None:
        """Begin to read."""
        self._poller.register(self.socket.fileno(), self)

    def ready(self, events: int) -> None:
        """Called when something has come, or the proxy is gone."""
        if self._over:
            return
        if not events & READ:
            self._end("it was reset" if self._come else "")
            return
        try:
            ahead = self.socket.recv(LONGEST - len(self._come), socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            ahead = b""
        if not ahead:
            self._end("it ended before its end" if self._come else "")
            return
        try:
            announced = parse(self._come + ahead)
        except RemoteProtocolError as error:
            self._end(str(error))
            return
        size = len(ahead) if announced is None else announced.size - len(self._come)
        # The bytes are there, and nobody else reads: it takes as many as were looked at.
        self._come += self.socket.recv(size)
        if announced is not None:
            self._over = True
            self._poller.unregister(self.socket.fileno())
            self._arrived(self, announced)

    # The server's, as of a connection -------------------------------------------------------------

    def retire(self) -> None:
        """Called when the server will stop soon: it serves on, as before."""

    def drain(self) -> None:
        """Called when the server stops: go on if the header is there already, else end."""
        self.ready(READ)
        self._end("")

    def mind_time(self, look: Look) -> None:
        """End it if its header takes as long as a request's head may not."""
        if self._time.spend(look, HEAD, False, 0, 0, 0):
            self._end("it took too long")

    def abort(self) -> None:
        """Reset the connection."""
        prepare_reset(self.socket)
        self._end("", reset)

    def after_fork(self) -> None:
        """Called in a forked child: close the descriptor, which is the parent's connection."""
        self._over = True
        self.socket.close()

    def _end(self, reason: str, close: Callable[[socket.socket], None] = end) -> None:
        if not self._over:
            self._over = True
            self._poller.unregister(self.socket.fileno())
            close(self.socket)
            self._lost(self, reason)
