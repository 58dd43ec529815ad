"""The two ends of a connection: who asks, and where.

As any transport can tell it, and any interface. It imports no sockets.
"""

from __future__ import annotations

from typing import Any


class Peer:
    """The two ends of a connection; made on the loop, and never changed but for ``kept``.

    Attributes:
        scheme: "http" or "https".
        server: host and port of this end; None for a Unix socket, or where it is not known.
        client: host and port of the client; None likewise.
        kept: for an interface, to keep what it makes of this once for all requests; None at first.
            Set as one, since requests of one connection may run on several threads.
    """

    __slots__ = ("client", "kept", "scheme", "server")

    def __init__(
        self, scheme: str, server: tuple[str, int] | None, client: tuple[str, int] | None
    ) -> None:
        self.scheme = scheme
        self.server = server
        self.client = client
        self.kept: Any = None

    @property
    def client_host(self) -> str:
        """The client's address, for people and logs; empty where there is none."""
        return "" if self.client is None else self.client[0]
