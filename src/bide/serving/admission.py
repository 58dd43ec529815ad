"""Who a client is, what of that is believed, and whether it may have one request more; on the loop.

A server looks at each connection so, and at each request only where a setting needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from bide.errors import SettingError
from bide.exchange.call import Call
from bide.exchange.messages import Request, decoded
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.exchange.trust import Trust
from bide.protocols.forwarded import KEYS, Told, find, read
from bide.protocols.proxy_header import Announced
from bide.serving.clients import CONNECTIONS, Clients
from bide.serving.dispatchers import Dispatchers
from bide.serving.refusals import Refusals
from bide.serving.request_ids import RequestIds, Traces
from bide.settings import Settings

DOUBTFUL: Final = (
    "headers not believed: {} requests of trusted proxies had some that were malformed, or "
    "contradicted each other; the last: {} (--trust)"
)
KNOWN: Final = 512
"""Clients of which it is kept what their proxies tell: 23,000 instructions, and not 56,000."""
_HOST: Final = frozenset({"HTTP_HOST"})
_PORTS: Final = {"http": 80, "https": 443}


class Admission:
    """What is known of clients before their requests begin.

    Args:
        settings: those of the group Proxies count.
        refusals: where it counts what it refuses.
        clients: how many connections and requests each client has.
        strips: whether headers that only proxies may send are kept from the application, where
            nobody trusted has sent them.

    Attributes:
        looks: whether :meth:`begin` is called for each request.

    Raises:
        SettingError: ``trust``, ``trust_headers`` or ``request_id`` has no value that it can have.
    """

    def __init__(
        self, settings: Settings, refusals: Refusals, clients: Clients, strips: bool = True
    ) -> None:
        self._refusals = refusals
        self._clients = clients
        self._trust = Trust(settings.trust)
        self._announces = settings.proxy_protocol
        self._root = decoded(settings.root_path.encode()).rstrip(b"/")
        names = [
            name.strip().lower() for each in settings.trust_headers for name in each.split(",")
        ]
        for name in names:
            if name not in KEYS:
                raise SettingError(
                    f"trust_headers has {name!r}: it may have {', '.join(list(KEYS)[:-1])} and "
                    f"{list(KEYS)[-1]}"
                )
        self._believed = frozenset(KEYS[name] for name in names)
        self._strips = strips
        self._known: dict[tuple[object, ...], tuple[bytes, Peer]] = {}
        self._ids: RequestIds | Traces | None = None
        if settings.request_id:
            self._ids = RequestIds(settings.request_id)
        elif settings.opentelemetry:
            self._ids = Traces()
        self.looks = bool(self._trust or self._root or clients.most_requests or self._ids)

    # Connections --------------------------------------------------------------------------------

    def peer(
        self, scheme: str, server: tuple[str, int] | None, client: tuple[str, int] | None
    ) -> Peer:
        """Return the two ends of a new connection."""
        if self._trust and self._trust.trusts("" if client is None else client[0]):
            return self._trusted(scheme, server, client)
        return Peer(scheme, server, client, strips=self._strips)

    def announces(self, peer: Peer) -> bool:
        """Whether a connection begins with a PROXY header."""
        return self._announces and peer.trusted

    def announced(self, peer: Peer, announced: Announced) -> Peer:
        """Return the two ends of a connection whose PROXY header has come.

        Headers of its requests are the client's own, as far as the proxy cannot see into them. So
        they are believed only if the client that it names is a trusted proxy itself.
        """
        if not announced.named:
            same = Peer(peer.scheme, peer.server, peer.client, strips=True)
            same.path = peer.path
            return same
        client = announced.client
        proxy = peer.client_host
        if client is not None and self._trust.trusts(client[0]):
            return self._trusted(peer.scheme, announced.server, client, proxy)
        return Peer(peer.scheme, announced.server, client, proxy=proxy, strips=True)

    def _trusted(
        self,
        scheme: str,
        server: tuple[str, int] | None,
        client: tuple[str, int] | None,
        proxy: str | None = None,
    ) -> Peer:
        return Peer(scheme, server, client, trusted=True, proxy=proxy, strips=True)

    def enter(self, peer: Peer) -> bool:
        """Count a connection; return whether its client may have it."""
        clients = self._clients
        if clients.most_connections:
            name = clients.name(peer)
            if name and not clients.enter(name, peer):
                self._refusals.count(CONNECTIONS, name)
                return False
        return True

    def leave(self, peer: Peer) -> None:
        """Called when a connection that was counted has ended."""
        if self._clients.most_connections:
            self._clients.leave(self._clients.name(peer), peer)

    # Requests -----------------------------------------------------------------------------------

    def begin(
        self,
        dispatchers: Dispatchers,
        stream: Stream,
        make: Callable[..., Call] | None = None,
    ) -> Call | None:
        """Begin a request's call; return None if it was answered 429 in place of that.

        ``make`` is as for :meth:`Dispatcher.begin`.
        """
        if self._ids is not None:
            stream.identity = self._ids.identify(stream.request, stream.peer.trusted)
        stream.request.root = self._root
        if stream.peer.trusted:
            stream.peer = self._forwarded(stream.peer, stream.request)
        clients = self._clients
        name = clients.name(stream.peer) if clients.most_requests else ""
        if not name:
            return dispatchers.begin(stream, None, make)
        if clients.may_begin(name):
            ended = partial(clients.ended, name, stream)
            call = dispatchers.begin(stream, None, make, ended)
            clients.begin(name, stream)
            return call
        dispatchers.refuse(dispatchers.begin(stream), name)
        return None

    def _forwarded(self, peer: Peer, request: Request) -> Peer:
        """Return the two ends of a request, with what the proxies tell of them."""
        said = find(request, self._believed)
        if not said:
            return peer
        by = peer.client_host if peer.proxy is None else peer.proxy
        key = (peer.scheme, peer.server, peer.path, by, *said, *said.values())
        root, made = self._known.get(key) or self._read(said, peer, request, key)
        if root:
            request.root = root
        return made

    def _read(
        self, said: dict[str, str], peer: Peer, request: Request, key: tuple[object, ...]
    ) -> tuple[bytes, Peer]:
        """Read what the proxies tell: the root, and the two ends; keep it if it may come again."""
        told = read(said, self._trust.trusts)
        if told.doubtful:
            names = ", ".join(sorted(name for name, key in KEYS.items() if key in told.doubtful))
            self._refusals.count(DOUBTFUL, f"{names}, of {peer.client_host or 'a Unix socket'}")
        scheme = told.scheme or peer.scheme
        client, proxy = peer.client, peer.proxy
        if told.client is not None:
            client = (told.client.address, told.client.port) if told.client.address else None
            proxy = peer.client_host if proxy is None else proxy
        believed = told.headers
        host = _host(told, scheme, request)
        if host:
            believed["HTTP_HOST"] = host
        made = Peer(
            scheme,
            _server(told, scheme, peer),
            client,
            trusted=told.client is None,
            proxy=proxy,
            strips=True,
            believed=believed,
        )
        made.path = peer.path
        # Without what TLS says of the connection, which is the proxy's. And else than here there is
        # something of this connection in it, or of this request, or to be counted.
        if told.client is not None and client is not None and not (told.port or told.doubtful):
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[key] = told.root, made
        return told.root, made


def _host(told: Told, scheme: str, request: Request) -> str:
    """Return the value of ``Host`` that the client has used; "" for that of the request."""
    if told.port in (0, _PORTS[scheme]):
        return told.host
    host = told.host or find(request, _HOST).get("HTTP_HOST", "")
    return host if not host or _port(host) else f"{host}:{told.port}"


def _server(told: Told, scheme: str, peer: Peer) -> tuple[str, int] | None:
    if not (told.host or told.port):
        return peer.server
    host = peer.server[0] if peer.server is not None else "localhost"
    port = told.port
    if told.host:
        port = port or int(_port(told.host) or _PORTS[scheme])
        host = told.host.removesuffix(":" + _port(told.host)).strip("[]")
    return (host, port)


def _port(host: str) -> str:
    """Return the port of a ``Host``, "" if it has none."""
    name, colon, port = host.rpartition(":")
    return port if colon and not (name.startswith("[") and not name.endswith("]")) else ""
