"""From an accepted socket to a connection; on the loop."""

from __future__ import annotations

import socket
from collections.abc import Callable

from bide.exchange.peer import Peer
from bide.protocols.proxy_header import Announced
from bide.serving.admission import Admission
from bide.serving.arrival import NO_HEADER, Arrival
from bide.serving.clients import Clients
from bide.serving.connection import Connection, Serving
from bide.serving.counters import CONNECTIONS, count
from bide.serving.refusals import Refusals
from bide.settings import Settings
from bide.transports.addresses import described
from bide.transports.closing import prepare_reset, reset


class Entrance:
    """Begins a connection for each socket, when it is known whose it is.

    Args:
        serving: the server.
        settings: its settings.
        connections: its connections, and those that are to become some.
        refusals: where it counts what is refused.
        scheme: what clients speak: "http" or "https".
        strips: as of :class:`Admission`.
        ended: called for each socket of which nothing is left.

    Attributes:
        clients: what each client has.
        admission: says who a client is, and whether it may have the connection.
    """

    def __init__(
        self,
        serving: Serving,
        settings: Settings,
        connections: set[Connection | Arrival],
        refusals: Refusals,
        scheme: str,
        strips: bool,
        ended: Callable[[], None],
    ) -> None:
        self._serving = serving
        self._scheme = scheme
        self._connections = connections
        self.clients = Clients(settings.client_connections, settings.client_requests)
        self.admission = Admission(settings, refusals, self.clients, strips)
        self._refusals = refusals
        self._ended = ended

    def connect(
        self,
        sock: socket.socket,
        server: tuple[str, int] | None,
        client: tuple[str, int] | None,
    ) -> None:
        """Called with a socket that was accepted, and its two ends."""
        peer = self.admission.peer(self._scheme, server, client)
        if server is None:
            peer.path = described(sock).removeprefix("unix:")
        if self.admission.announces(peer):
            arrival = Arrival(sock, peer, self._serving.poller, self._arrived, self._lost)
            self._connections.add(arrival)
            arrival.start()
        else:
            self._begin(sock, peer)

    def left(self, connection: Connection) -> None:
        """Called when a connection has ended."""
        self._connections.discard(connection)
        self.admission.leave(connection.peer)
        self._ended()

    def _begin(self, sock: socket.socket, peer: Peer) -> None:
        if not self.admission.enter(peer):
            prepare_reset(sock)  # a plain end would leave something of it in the system for a while
            reset(sock)
            self._ended()
            return
        connection = Connection(self._serving, sock, peer)
        self._connections.add(connection)
        count(CONNECTIONS)
        if self._serving.retiring:
            connection.retire()
        connection.start()

    def _arrived(self, arrival: Arrival, announced: Announced) -> None:
        """Called when a proxy has named its client."""
        self._connections.discard(arrival)
        self._begin(arrival.socket, self.admission.announced(arrival.peer, announced))

    def _lost(self, arrival: Arrival, reason: str) -> None:
        """Called when a proxy's connection has ended before that."""
        if reason:
            example = f"{arrival.peer.client_host or 'on a Unix socket'}: {reason}"
            self._refusals.count(NO_HEADER, example)
        self._connections.discard(arrival)
        self._ended()
