"""simple-websocket, which Flask-Sock and Flask-SocketIO stand on: its server on Bide's WebSockets.

``simple_websocket.Server(environ)`` takes the socket out of the environ, and a thread that reads
it. Under Bide there is none to take, so that cannot work. Here the class gets other methods, which
use ``environ["bide.websocket"]`` where that is there, and leave the class as it is elsewhere. They
are set on the class itself: who has imported it already, or inherits from it, has them too.

Bide pings, compresses and bounds messages as its settings say: ``ping_interval``,
``receive_bytes``, ``thread_class``, ``event_class`` and ``selector_class`` have no effect.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from simple_websocket import ConnectionClosed, Server
from wsproto.events import Request

from bide.errors import WebSocketClosed
from bide.wsgi.websocket import KEY, refuse

MODE: Final = "bide"
"""The attribute ``mode`` of a server on Bide's WebSocket: Flask-Sock then returns ``[]``."""
_TOO_BIG: Final = 1009

_before: dict[str, Any] = {name: getattr(Server, name) for name in ("send", "receive", "close")}
_init: Final[Callable[..., None]] = Server.__init__
_SIGNATURE: Final = inspect.signature(_init)
_installed: list[None] = []
_unsaid: list[None] = []

log = logging.getLogger("bide")


def install() -> Callable[[], None]:
    """Have ``simple_websocket.Server`` use Bide's WebSockets where there are some.

    Returns:
        A function that undoes this; call it while no WebSocket is open. If this was installed
        already, the function does nothing.
    """
    if _installed:
        return lambda: None
    _installed.append(None)
    _unsaid[:] = [None]
    Server.__init__ = _made
    Server.send, Server.receive, Server.close = _send, _receive, _close
    Server.connected = property(_get_connected, _set_connected)
    Server._bide = None  # of those that were made before
    return uninstall


def uninstall() -> None:
    """Undo ``install``, if it was called; while no WebSocket is open."""
    if not _installed:
        return
    _installed.clear()
    Server.__init__ = _init
    for name in (*_before, "connected", "_bide"):
        delattr(Server, name)  # they are its base's


def _made(self: Any, environ: dict[str, Any], *args: Any, **kwargs: Any) -> None:
    """Accept the WebSocket, as ``Server.__init__`` does."""
    socket = environ.get(KEY)
    self._bide = socket
    if socket is None:
        try:
            _init(self, environ, *args, **kwargs)
        except RuntimeError:  # it has found no socket
            if "bide.status" in environ:
                refuse(environ)
            raise
        return
    if _unsaid:
        _unsaid.clear()
        log.info("simple_websocket.Server uses Bide's WebSockets, and holds no thread")
    bound = _SIGNATURE.bind(self, environ, *args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    subprotocols = given["subprotocols"] or []
    self.environ = environ
    self.subprotocols = [subprotocols] if isinstance(subprotocols, str) else subprotocols
    self.mode = MODE
    self.sock = None
    self.is_server = True
    self.receive_bytes = given["receive_bytes"]
    self.ping_interval = given["ping_interval"]
    self.max_message_size = given["max_message_size"]
    self.close_reason, self.close_message = 1005, None
    asked = Request(
        host=environ.get("HTTP_HOST", ""),
        target=environ.get("PATH_INFO", ""),
        subprotocols=list(socket.subprotocols),
    )
    self.subprotocol = self.choose_subprotocol(asked)
    socket.accept(self.subprotocol)


def _send(self: Any, data: Any) -> None:
    if self._bide is None:
        _before["send"](self, data)
        return
    try:
        self._bide.send(data if isinstance(data, bytes) else str(data))
    except WebSocketClosed as closed:
        raise _closed(self, closed) from None


def _receive(self: Any, timeout: float | None = None) -> str | bytes | None:
    if self._bide is None:
        received: str | bytes | None = _before["receive"](self, timeout)
        return received
    try:
        message: str | bytes = self._bide.receive(timeout)
    except TimeoutError:
        return None
    except WebSocketClosed as closed:
        raise _closed(self, closed) from None
    most = self.max_message_size
    if most and len(message) > most:
        self._bide.close(_TOO_BIG, "Message is too big")
        raise _closed(self, WebSocketClosed(_TOO_BIG, "Message is too big"))
    return message


def _close(self: Any, reason: int | None = None, message: str | None = None) -> None:
    if self._bide is None:
        _before["close"](self, reason, message)
    elif self._bide.closed:
        raise ConnectionClosed(self.close_reason, self.close_message)
    else:
        self._bide.close(int(reason or 1000), message or "")


def _closed(self: Any, closed: WebSocketClosed) -> Exception:
    """Return the error of a WebSocket that has ended, and keep why."""
    self.close_reason, self.close_message = closed.code, closed.reason or None
    error: Exception = ConnectionClosed(self.close_reason, self.close_message)
    return error


def _get_connected(self: Any) -> bool:
    if self._bide is not None:
        return not self._bide.closed
    return bool(self.__dict__.get("connected", False))


def _set_connected(self: Any, value: bool) -> None:
    self.__dict__["connected"] = value
