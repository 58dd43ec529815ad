"""The same for an ASGI server: the Flask view behind an adapter, whose threads block."""

from __future__ import annotations

from typing import Any

from a2wsgi import WSGIMiddleware  # type: ignore[import-not-found, unused-ignore]

from . import flask_slow, streaming

_wsgi: Any = flask_slow.app  # it has types of its own
_adapted: Any = WSGIMiddleware(_wsgi, workers=4)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"].startswith("/live/"):
        await streaming.stream(scope, receive, send)
    elif scope["type"] == "http":
        await _adapted(scope, receive, send)
    else:
        raise NotImplementedError(scope["type"])
