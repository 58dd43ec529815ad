"""``bide.websocket(environ)``: the WebSocket of a request, under Bide and, blocking, elsewhere.

Elsewhere means: where a host has put the client's socket into the environ, and gives each request
a thread. Any other server is refused with one error that says why.
"""

from __future__ import annotations

import importlib.util
import ssl
import sys
from collections.abc import MutableMapping
from typing import Any, Final

from bide.errors import BideError
from bide.wsgi.websocket import KEY, NEEDED, WebSocket, check_environ, refuse

SOCKETS: Final = {
    "gunicorn.socket": "gunicorn with --worker-class gthread and as many --threads as WebSockets",
    "werkzeug.socket": "Werkzeug's server with threads",
}
"""The keys under which hosts have the client's socket, and the servers that they must be."""
TWISTED: Final = (
    "bide.websocket() does not work on Twisted's web server: serve the application by bide itself, "
    "with --reactor twisted if it needs Twisted's reactor"
)


def websocket(environ: MutableMapping[str, Any]) -> WebSocket:
    """Return the WebSocket that a request asks for. May be called from any thread.

    Under Bide, a request that asks for one has it as ``environ["bide.websocket"]``. Under
    gunicorn's worker ``gthread`` and Werkzeug's server, this function makes it, and it holds its
    thread.

    Raises:
        RemoteProtocolError: the request does not ask for one, or is malformed. If you do not catch
            it, the answer is 426 or 400.
        BideError: this server cannot serve one.
    """
    found: WebSocket | None = environ.get(KEY)
    if found is not None:
        return found
    key = next((each for each in SOCKETS if environ.get(each) is not None), None)
    if key is None:
        if "twisted.request" in environ:
            check_environ(environ)
            raise BideError(TWISTED)
        refuse(environ)
    check_environ(environ)
    _check_host(environ, key)
    from bide.hosts.taken_over import take_over  # here, since it needs the package websockets

    made = environ[KEY] = WebSocket(take_over(dict(environ), environ[key]))
    return made


def _check_host(environ: MutableMapping[str, Any], key: str) -> None:
    """Raise BideError where a host has a socket that cannot be taken over."""
    if importlib.util.find_spec("websockets") is None:
        raise BideError(NEEDED)
    if isinstance(environ[key], ssl.SSLSocket):
        raise BideError(
            "bide.websocket() works over TLS on Bide's own server alone: here a proxy must end TLS"
        )
    gevent: Any = sys.modules.get("gevent.monkey")
    if not environ.get("wsgi.multithread") or (
        gevent is not None and gevent.is_module_patched("socket")
    ):
        raise BideError(
            "bide.websocket() holds a thread here, and this server has none to spare: "
            f"it works under {SOCKETS[key]}, and under Bide, where it holds none"
        )
