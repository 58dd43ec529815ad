"""The two ends of a connection, for any transport and any interface. It imports no sockets."""

from __future__ import annotations

from typing import Any, Final

FORWARDING: Final = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
)
"""The headers in which a proxy tells of its client, by CGI's keys."""


class Secured:
    """What TLS says of a connection, once its handshake is over.

    Attributes:
        protocol: the version, as ``TLSv1.3``.
        cipher: the cipher suite, by OpenSSL's name.
        bits: of the cipher's key.
        name: the server's name that the client has asked for (SNI); empty for none.
        alpn: the protocol that was agreed on, as ``http/1.1``; empty for none.
        resumed: whether a session was resumed.
        certificate: the client's certificate (DER), which was verified; empty for none.
        described: its contents, as ``SSLSocket.getpeercert`` has them; empty without one.
        chain: the certificates that verify it (DER), from Python 3.13 on, the client's first.
        extension: what ASGI makes of this once for all requests; None at first.
    """

    __slots__ = (
        "alpn",
        "bits",
        "certificate",
        "chain",
        "cipher",
        "described",
        "extension",
        "name",
        "protocol",
        "resumed",
    )

    def __init__(
        self,
        protocol: str,
        cipher: str,
        bits: int,
        *,
        name: str = "",
        alpn: str = "",
        resumed: bool = False,
        certificate: bytes = b"",
        described: dict[str, Any] | None = None,
        chain: tuple[bytes, ...] = (),
    ) -> None:
        self.protocol = protocol
        self.cipher = cipher
        self.bits = bits
        self.name = name
        self.alpn = alpn
        self.resumed = resumed
        self.certificate = certificate
        self.described: dict[str, Any] = described or {}
        self.chain = chain
        self.extension: dict[str, Any] | None = None


class Peer:
    """The two ends of a connection, or of one request that a trusted proxy has forwarded.

    Made on the loop, and never changed except ``kept``, ``path`` and ``tls``.

    Attributes:
        scheme: "http" or "https".
        server: host and port of this end; None for a Unix socket, or where it is not known.
        client: host and port of the client, of which the port is 0 where it is not known; None as
            for the server.
        trusted: whether the client is a proxy that is believed what it says of its own clients.
        proxy: the address of the proxy that has named the client, empty on a Unix socket; None
            where the client has connected itself.
        strips: whether the headers of ``FORWARDING`` are not for the application as they came.
        believed: what it gets in their place, by CGI's keys.
        path: of the Unix socket that the client has connected to, set before the first request;
            "@NAME" for an abstract one, empty for other sockets.
        kept: for an interface: what it makes of this once for all requests; None at first. It is
            set in one step, since requests of one connection may run on several threads.
        tls: what TLS says, set before the first request; None without TLS.
    """

    __slots__ = (
        "believed",
        "client",
        "kept",
        "path",
        "proxy",
        "scheme",
        "server",
        "strips",
        "tls",
        "trusted",
    )

    def __init__(
        self,
        scheme: str,
        server: tuple[str, int] | None,
        client: tuple[str, int] | None,
        *,
        trusted: bool = False,
        proxy: str | None = None,
        strips: bool = False,
        believed: dict[str, str] | None = None,
    ) -> None:
        self.scheme = scheme
        self.server = server
        self.client = client
        self.trusted = trusted
        self.proxy = proxy
        self.strips = strips
        self.believed = believed
        self.path = ""
        self.kept: Any = None
        self.tls: Secured | None = None

    @property
    def client_host(self) -> str:
        """The client's address, for people and logs; empty where there is none."""
        return "" if self.client is None else self.client[0]
