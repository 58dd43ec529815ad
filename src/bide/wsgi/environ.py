"""From a peer and a request to an ``environ``: PEP 3333 (environ Variables), in one place.

What is copied for each request is made once for a server, and once for a connection that has a
second request.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from bide.exchange.messages import Request
from bide.exchange.peer import FORWARDING, Peer
from bide.native import fill
from bide.twins import key_of
from bide.wsgi.files import FileWrapper
from bide.wsgi.tls_environ import tls_environ

# Header names as they were sent → CGI names; "" for those that are dropped. Bounded, for clients
# can send any; halves what headers cost.
_KEYS: Final[dict[bytes, str]] = {}
# The same, where what only proxies may send is dropped.
_STRIPPED: Final[dict[bytes, str]] = {}


_LATER: Final = {
    "REQUEST_METHOD": "",
    "PATH_INFO": "",
    "QUERY_STRING": "",
    "RAW_URI": "",
    "REQUEST_URI": "",
    "SERVER_PROTOCOL": "",
    "1": "",
    "2": "",
    "3": "",
    "4": "",
}
"""What every request has, and room for what its conversation has."""


def server_environ(multithread: bool) -> dict[str, Any]:
    """Return the keys that are the same for every request of a server.

    Args:
        multithread: whether another thread may call the application at the same time.
    """
    return {
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": "bide",
    }


def request_environ(base: dict[str, Any], peer: Peer, request: Request) -> dict[str, Any]:
    """Make one request's environ, except the keys of its conversation.

    Headers with ``_`` in their names are dropped, since they would look like those with ``-``.
    So are those that only a proxy may send, as far as they are not believed.
    ``Proxy`` is dropped, since many libraries take it for the environment variable (CVE-2016-5385).
    Repeated headers are joined by commas, cookies by semicolons.

    Args:
        base: from :func:`server_environ`.
        peer: the connection's ends; it keeps the keys that all requests of the connection share.
        request: the request's head.
    """
    environ = _begun(base, peer)
    fields = request.fields
    if fields is not None and fill is not None:
        root, path, query = request.root, request.path, request.query
        if fill(
            environ, request.method, root, path, query, request.target, request.version, fields
        ):
            if peer.strips:
                _strip(environ)
            if peer.believed is not None:
                environ.update(peer.believed)
            return environ
        environ = _begun(base, peer)  # a header is repeated
    target = request.target.decode("latin-1")
    environ["REQUEST_METHOD"] = request.method
    if request.root:
        environ["SCRIPT_NAME"] = request.root.decode("latin-1")
    environ["PATH_INFO"] = request.path.decode("latin-1")
    environ["QUERY_STRING"] = request.query.decode("latin-1")
    environ["RAW_URI"] = environ["REQUEST_URI"] = target
    environ["SERVER_PROTOCOL"] = (
        "HTTP/1.1" if request.version == "1.1" else f"HTTP/{request.version}"
    )
    repeated: dict[str, list[str]] | None = None  # joined once: one by one is quadratic
    keys = _STRIPPED if peer.strips else _KEYS
    for name, value in request.pairs or request.headers:
        key = keys.get(name)
        if key is None:
            key = _key(name, keys)
        if key:
            text = value.decode("latin-1")
            if key in environ:
                if repeated is None:
                    repeated = {}
                repeated.setdefault(key, [environ[key]]).append(text)
            else:
                environ[key] = text
    if repeated is not None:
        for key, texts in repeated.items():
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(texts)
    if peer.believed is not None:
        environ.update(peer.believed)
    return environ


def _begun(base: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """Return a new dictionary, with the keys that all requests of a connection share.

    From a connection's second request on it is a copy. The first one needs none, and many
    connections wait in it: what would be copied is 0.9 KB.
    """
    kept = peer.kept
    if type(kept) is tuple and kept[0] is base:
        copied: dict[str, Any] = kept[1].copy()
        return copied
    environ = _connection_environ(base, peer)
    if kept is base:
        peer.kept = (base, environ)
        return environ.copy()
    peer.kept = base
    return environ


def _strip(environ: dict[str, Any]) -> None:
    """Take out what only a proxy may send."""
    # Written out, since most have none: in one expression it takes 0.4 µs, by the tuple 0.8.
    if (
        "HTTP_X_FORWARDED_FOR" in environ
        or "HTTP_X_FORWARDED_PROTO" in environ
        or "HTTP_FORWARDED" in environ
        or "HTTP_X_FORWARDED_HOST" in environ
        or "HTTP_X_FORWARDED_PORT" in environ
        or "HTTP_X_FORWARDED_PREFIX" in environ
    ):
        for key in FORWARDING:
            environ.pop(key, None)


def _connection_environ(base: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """Return ``base`` with the keys that are the same for every request of a connection.

    In PEP 3333, SERVER_NAME and SERVER_PORT are never empty. A Unix socket has neither.
    """
    name, port = peer.server or ("localhost", 443 if peer.scheme == "https" else 80)
    client, client_port = peer.client or ("", "")
    environ = base.copy()
    environ["wsgi.url_scheme"] = peer.scheme
    environ["SERVER_NAME"], environ["SERVER_PORT"] = name, str(port)
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client, str(client_port or "")
    if peer.proxy is not None:
        environ["bide.proxy"] = peer.proxy
    if peer.tls is not None:
        environ.update(tls_environ(peer.tls))
    # CPython copies a dict with the size of its table: a copy that has room for the rest need not
    # grow, which costs 1,200 instructions, and it is as large in the end.
    environ.update(_LATER)
    del environ["1"], environ["2"], environ["3"], environ["4"]
    return environ


def _key(name: bytes, keys: dict[bytes, str]) -> str:
    key = key_of(name)
    if keys is _STRIPPED and key in FORWARDING:
        key = ""
    if len(keys) < 1024 and len(name) <= 64:
        keys[name] = key
    return key
