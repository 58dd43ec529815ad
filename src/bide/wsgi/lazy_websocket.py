"""``environ["wsgi.websocket"]``: a WebSocket as libraries for gevent's servers know it.

It is the object of the package geventwebsocket, which Flask-Sockets and others look for. A request
that nobody asks it of is an ordinary one: the first ``receive`` or ``send`` accepts.
"""

from __future__ import annotations

from typing import Any

from bide.errors import WebSocketClosed
from bide.exchange.messaging import Messaging
from bide.exchange.stream import Stream
from bide.wsgi.websocket import KEY, WebSocket


def environ_of(messaging: Messaging, stream: Stream) -> dict[str, Any]:
    """Return what the environ of a request that opens a WebSocket has beside that of others."""
    socket = WebSocket(messaging)
    lazy = LazyWebSocket(socket, stream.request.path.decode("latin-1"))
    return {KEY: socket, "wsgi.websocket": lazy}


class LazyWebSocket:
    """A WebSocket with geventwebsocket's methods; as :class:`WebSocket`, whose rules hold.

    Attributes:
        path: the request's, decoded as in the environ.
        origin: the ``Origin`` of the request; None where it has none.
        version: of the protocol, "13".
    """

    version = "13"

    def __init__(self, socket: WebSocket, path: str) -> None:
        self._socket = socket
        self.path = path
        self.origin = socket.origin

    @property
    def protocol(self) -> str | None:
        """The subprotocol that was agreed on, if any."""
        return self._socket.subprotocol

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._socket.closed

    def receive(self) -> str | bytes | None:
        """Wait for the next message; None: it has ended."""
        try:
            return self._socket.receive()
        except WebSocketClosed:
            return None

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send a message; as text what is not bytes, unless ``binary`` says which.

        Raises:
            OSError: it has ended.
        """
        if binary is None:
            binary = isinstance(message, (bytes, bytearray, memoryview))
        try:
            self._socket.send(_bytes(message) if binary else _text(message))
        except WebSocketClosed as closed:
            raise OSError(f"the WebSocket has ended: {closed}") from closed

    def close(self, code: int = 1000, message: str | bytes = "") -> None:
        """Close it; without effect once it has ended."""
        self._socket.close(code, _text(message))


def _text(message: Any) -> str:
    return str(message, "utf-8") if isinstance(message, (bytes, bytearray)) else str(message)


def _bytes(message: Any) -> bytes:
    return message.encode() if isinstance(message, str) else bytes(message)
