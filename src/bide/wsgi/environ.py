"""From a peer and a request to an ``environ``: PEP 3333 (environ Variables), in one place.

The dictionaries that are copied for each request are made once for a server and once for a
connection.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.wsgi.files import FileWrapper

# Header names as they were sent → CGI names; "" for those that are dropped. Bounded, for clients
# can send any; halves what headers cost.
_KEYS: Final[dict[bytes, str]] = {}


def server_environ(multithread: bool) -> dict[str, Any]:
    """Return what is the same for every request of a server.

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
    """Make one request's environ, but for what belongs to its conversation.

    Headers with ``_`` in their names are dropped, for they would pass for those with ``-``, and so
    is ``Proxy``, which many libraries take for the environment's (CVE-2016-5385). Repeated headers
    are joined by commas, cookies by semicolons.

    Args:
        base: from :func:`server_environ`.
        peer: who asks; it keeps what is the same for every request of its connection.
        request: what is asked.
    """
    kept = peer.kept
    if kept is None or kept[0] is not base:
        peer.kept = kept = (base, _connection_environ(base, peer))
    environ: dict[str, Any] = kept[1].copy()
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
    for name, value in request.headers:
        key = _KEYS.get(name)
        if key is None:
            key = _key(name)
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
    return environ


def _connection_environ(base: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """Add what is the same for every request of a connection.

    PEP 3333 wants SERVER_NAME and SERVER_PORT never to be empty. A Unix socket has neither.
    """
    name, port = peer.server or ("localhost", 443 if peer.scheme == "https" else 80)
    client, client_port = peer.client or ("", "")
    environ = base.copy()
    environ["wsgi.url_scheme"] = peer.scheme
    environ["SERVER_NAME"], environ["SERVER_PORT"] = name, str(port)
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client, str(client_port)
    return environ


def _key(name: bytes) -> str:
    upper = name.decode("latin-1").upper()
    if "_" in upper or upper == "PROXY":
        key = ""
    else:
        key = upper.replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
    if len(_KEYS) < 1024 and len(name) <= 64:
        _KEYS[name] = key
    return key
