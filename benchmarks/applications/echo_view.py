"""An echo on a WebSocket, in a view of plain WSGI."""

from typing import Any

import bide


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if "bide.websocket" not in environ:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"quick\n"]
    socket = bide.websocket(environ)
    for message in socket:
        socket.send(message)
    return []
