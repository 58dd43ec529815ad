"""How many connections and requests each client has, against what it may have.

A client is an address, or a /64 network of IPv6. All is called on the loop, but for ``ended``.
"""

from __future__ import annotations

from collections import deque

from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.trust import household
from bide.serving.refusals import kind

HIDDEN = "behind a proxy that does not name it"
"""The client of all those whose proxy does not name them."""
CONNECTIONS = kind(
    "connections refused: {} were closed at once: their clients have as many as they may, the last "
    "of them {} (--client-connections)",
    "client_connections",
)
REQUESTS = kind(
    "requests refused: {} were answered 429: their clients have as many in progress as they may, "
    "the last of them {} (--client-requests)",
    "client_requests",
)


class Clients:
    """Counts what each client has, in sets from which anything can be taken twice: none leaks.

    Args:
        most_connections: how many a client may have; 0: any number.
        most_requests: how many of its requests may be in progress; 0: any number.

    Attributes:
        refused_connections: how many it has refused.
        refused_requests: likewise.
    """

    def __init__(self, most_connections: int, most_requests: int) -> None:
        self.most_connections = most_connections
        self.most_requests = most_requests
        self.refused_connections = 0
        self.refused_requests = 0
        self._connections: dict[str, set[object]] = {}
        self._requests: dict[str, set[Stream]] = {}
        # What has ended, on whatever thread; appending is atomic.
        self._ended: deque[tuple[str, Stream]] = deque()

    @staticmethod
    def name(peer: Peer) -> str:
        """Return what a client is counted by; "" for one that is not counted.

        Not counted are clients on Unix sockets, and trusted proxies that name no client.
        """
        if peer.trusted:
            return ""
        if peer.client is None:
            return "" if peer.proxy is None else HIDDEN
        return household(peer.client[0])

    # Connections --------------------------------------------------------------------------------

    def enter(self, name: str, connection: object) -> bool:
        """Count a client's connection; return false, without counting it, if it has too many."""
        of_client = self._connections.get(name, ())
        if len(of_client) >= self.most_connections:
            self.refused_connections += 1
            return False
        self._connections.setdefault(name, set()).add(connection)
        return True

    def leave(self, name: str, connection: object) -> None:
        """Called when a connection has ended, whether it was counted or not."""
        of_client = self._connections.get(name)
        if of_client is not None:
            of_client.discard(connection)
            if not of_client:
                del self._connections[name]

    # Requests -----------------------------------------------------------------------------------

    def may_begin(self, name: str) -> bool:
        """Whether a client may have one more request in progress; if not, it is a refused one.

        A request whose response has gone out is over for its client, who may know it before its
        call has ended.
        """
        self.settle()
        of_client = self._requests.get(name)
        if of_client is None or len(of_client) < self.most_requests:
            return True
        of_client.difference_update([each for each in of_client if each.answered()])
        if len(of_client) < self.most_requests:
            return True
        self.refused_requests += 1
        return False

    def begin(self, name: str, stream: Stream) -> None:
        """Count a request, which may begin."""
        self._requests.setdefault(name, set()).add(stream)

    def ended(self, name: str, stream: Stream) -> None:
        """Called when the call of a request that was counted has ended; from any thread."""
        self._ended.append((name, stream))

    def settle(self) -> None:
        """Forget the requests that have ended; called from time to time, too."""
        while self._ended:
            name, stream = self._ended.popleft()
            of_client = self._requests.get(name)
            if of_client is not None:
                of_client.discard(stream)
                if not of_client:
                    del self._requests[name]

    @property
    def counted(self) -> tuple[int, int]:
        """How many clients have connections, and how many have requests in progress."""
        self.settle()
        return len(self._connections), len(self._requests)
