"""Where a request of an ASGI server is for one of several applications, each at its path."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from bide.exchange.messages import Request, decoded
from bide.hosts.asgi_requests import Scope


def below(request: Request) -> bytes:
    """Return what follows the root in a request's path, as it was sent.

    Middleware may have changed the path since; then it is encoded anew.
    """
    raw = request.raw_path
    parts = raw.split(b"/", request.root.count(b"/") + 1)
    length = len(b"/".join(parts[: request.root.count(b"/") + 1]))
    for rest in (raw[length:], raw):  # with the root in it, and without
        if decoded(rest) == request.path:
            return rest
    return quote(request.path).encode()


def inner(scope: Scope, request: Request, state: dict[str, Any]) -> Scope:
    """Return the scope that an ASGI application at its path has.

    Its path is the whole one, with the root at its start (ASGI, HTTP Connection Scope).

    Args:
        scope: the server's.
        request: the same, with the application's path moved to its root.
        state: made by ``on_start`` functions and lifespans. It is added to what the scope has,
            which middleware outside shares.
    """
    made = dict(scope)
    root = request.root.decode("utf-8", "replace")
    if root != scope.get("root_path", "").rstrip("/"):
        made["root_path"] = root
        made["path"] = root + request.path.decode("utf-8", "replace")
    had = made.setdefault("state", {})
    for key, value in state.items():
        had.setdefault(key, value)
    return made
