"""ASGI's scopes and messages, from and to Bide's own: HTTP Connection Scope, Response Start."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from bide.asgi.drain import Drain
from bide.errors import LocalProtocolError
from bide.exchange.handshake import tokens
from bide.exchange.identity import Identity
from bide.exchange.messages import Head, Request, short
from bide.exchange.peer import FORWARDING, Peer, Secured

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

VERSIONS: Final = {"version": "3.0", "spec_version": "2.3"}
"""2.3: a framework that finds 2.4 here does not receive while it sends, to learn of a departure."""

TRAILERS: Final = "http.response.trailers"
"""The extension and its message."""

_STATUSES: Final = {each.value: f"{each.value} {each.phrase}" for each in HTTPStatus}


def http_scope(
    request: Request,
    peer: Peer,
    state: dict[str, Any],
    drain: Drain,
    identity: Identity | None = None,
) -> dict[str, Any]:
    """Make the scope of an HTTP request.

    ``path`` is the whole path, with ``root_path`` at its start. What is not UTF-8 is replaced.

    Args:
        request: the request's head.
        peer: the connection's ends.
        state: the server's; the scope has a copy.
        drain: fires when the server begins to stop.
        identity: the request's id, which is in the headers, too; and the id of its trace.
    """
    headers = headers_for(request, peer, identity)
    extensions: dict[str, Any] = {"http.response.pathsend": {}, "bide.drain": drain}
    if request.version != "1.0":
        extensions["http.response.early_hint"] = {}
        if _takes_trailers(request, headers):
            extensions[TRAILERS] = {}
    if identity is not None and identity.trace:
        extensions["bide.trace_id"] = identity.trace
    if peer.tls is not None:
        extensions["tls"] = _tls(peer.tls)
    if request.raw_path == b"*":
        path = "*"
    else:
        root = request.root
        path = (root + request.path if root else request.path).decode("utf-8", "replace")
    return {
        "type": "http",
        "asgi": VERSIONS.copy(),
        "http_version": request.version,
        "method": request.method,
        "scheme": peer.scheme,
        "path": path,
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": request.root.decode("utf-8", "replace"),
        "headers": headers,
        "client": peer.client,
        "server": server_of(peer),
        "state": state.copy(),
        "extensions": extensions,
    }


def route_of(route: Any) -> str:
    """Return the kind of path that an application has put into its scope; "" if that is not a text.

    Routes of Starlette and FastAPI are objects that have it as ``path``.
    """
    path = route if isinstance(route, str) else getattr(route, "path", "")
    return path if type(path) is str else ""


def _tls(secured: Secured) -> dict[str, Any]:
    """Return the extension ``tls`` of one request."""
    made = secured.extension
    if made is None:
        # Here, since a server that speaks in clear should not load it.
        from bide.asgi.tls import tls_extension

        made = secured.extension = tls_extension(secured)
    return made.copy()


def server_of(peer: Peer) -> tuple[str, int | None] | None:
    """Return the server's end of a connection; of a Unix socket, its path and None."""
    if peer.server is None and peer.path:
        return peer.path, None
    return peer.server


def headers_for(
    request: Request, peer: Peer, identity: Identity | None
) -> list[tuple[bytes, bytes]]:
    """Return the headers, with what Bide itself says in the place of what has come.

    That is what is believed of proxies, and the request's id. A name with "_" in place of "-" is
    taken for the same: frameworks make one key of both.
    """
    if not peer.strips:
        headers = [(name.lower(), value) for name, value in request.headers]
    else:
        headers = [
            (lower, value)
            for name, value in request.headers
            if (lower := name.lower()) not in _STRIPPED
        ]
    identity = identity if identity is not None and identity.id else None
    if peer.believed is None and identity is None:
        return headers
    ours = {_name(key): value.encode("latin-1") for key, value in (peer.believed or {}).items()}
    if identity is not None:
        ours[identity.header.lower().encode()] = identity.id.encode()
    names = {name.replace(b"_", b"-") for name in ours}
    headers = [each for each in headers if each[0].replace(b"_", b"-") not in names]
    headers += ours.items()
    return headers


def _name(key: str) -> bytes:
    """Return the name of a header from CGI's key."""
    return key.removeprefix("HTTP_").replace("_", "-").lower().encode()


_STRIPPED: Final = frozenset(
    "".join(form).encode()
    for name in map(_name, FORWARDING)
    for form in itertools.product(*(("-_" if each == "-" else each) for each in name.decode()))
)
"""The headers that only a proxy may send, each with "-" and "_" in every mixture."""


def _takes_trailers(request: Request, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the client keeps what comes behind a body (RFC 9110 section 10.1.4)."""
    fields = request.fields
    if fields is not None and "HTTP_TE" not in fields:  # quickly, for almost all
        return False
    for name, value in headers:
        if name == b"te" and "trailers" in tokens(value.decode("latin-1")):
            return True
    return False


def status_of(message: Message) -> str:
    """Return a response's status as the text that a head has.

    Raises:
        LocalProtocolError: it is not a number.
    """
    status = message.get("status")
    if type(status) is not int:
        if not isinstance(status, int) or isinstance(status, bool):
            raise LocalProtocolError(
                f"http.response.start has the status {short.repr(status)}: it must be an int"
            )
        status = int(status)  # an HTTPStatus
    return _STATUSES.get(status) or f"{status:03d} "


def headers_of(message: Message) -> list[tuple[str, str]]:
    """Return a response's headers as a head takes them.

    ``Transfer-Encoding`` is dropped: it is the server's (ASGI, Response Start).

    Raises:
        LocalProtocolError: they are not pairs of bytes.
    """
    headers = message.get("headers", ())
    found: list[tuple[str, str]] = []
    try:
        for name, value in headers:
            if isinstance(name, bytes) and isinstance(value, bytes):  # quickly, where compiled
                if len(name) != 17 or name.lower() != b"transfer-encoding":
                    found.append((name.decode("latin-1"), value.decode("latin-1")))
            elif name.lower() != b"transfer-encoding":
                found.append((name.decode("latin-1"), value.decode("latin-1")))
        return found
    except (TypeError, ValueError, AttributeError):
        raise LocalProtocolError(
            f"{message['type']} has the headers {short.repr(message.get('headers'))}: they must "
            "be pairs of bytes, [name, value]"
        ) from None


def announced_in(headers: list[tuple[str, str]]) -> str:
    """Return the names of trailers that headers announce, as a value of ``Trailer``."""
    text = ",".join(value for name, value in headers if name.lower() == "trailer")
    names = [each for each in tokens(text) if each.isascii() and each.replace("-", "").isalnum()]
    return ", ".join(names)


def trailers_of(message: Message) -> list[tuple[str, str]]:
    """Return what is to come behind a response's body.

    Raises:
        LocalProtocolError: they are not pairs of bytes, or may not be there.
    """
    headers = headers_of(message)
    for name, _ in headers:
        if name.lower() in _NEVER_BEHIND:
            raise LocalProtocolError(
                f"the header {name!r} may not be a trailer (RFC 9110, 6.5.1): send it at the start"
            )
    return Head("200 OK", headers).headers


_NEVER_BEHIND: Final = frozenset(
    {
        *("age", "authorization", "cache-control", "content-encoding", "content-length"),
        *("content-range", "content-type", "date", "expect", "expires", "host", "location"),
        *("max-forwards", "pragma", "range", "retry-after", "set-cookie", "vary", "warning"),
        *("proxy-authenticate", "www-authenticate"),
    }
)
"""What clients need before the body: framing, routing, caching, access, and the body's form."""


def links_of(message: Message) -> list[tuple[str, str]]:
    """Return the headers of early hints.

    Raises:
        LocalProtocolError: they are not bytes, or may not be sent.
    """
    try:
        links = [("Link", each.decode("latin-1")) for each in message.get("links", ())]
    except (TypeError, AttributeError):
        raise LocalProtocolError(
            f"http.response.early_hint has the links {short.repr(message.get('links'))}: they must "
            "be bytes, each a Link header's value"
        ) from None
    return Head("200 OK", links).headers


def body_of(message: Message) -> bytes:
    """Return the block of a response's body.

    Raises:
        LocalProtocolError: it is not bytes.
    """
    block = message.get("body", b"")
    if type(block) is bytes:
        return block
    if isinstance(block, (bytes, bytearray, memoryview)):
        return bytes(block)
    raise LocalProtocolError(f"http.response.body has the body {short.repr(block)}: send bytes")
