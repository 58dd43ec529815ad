"""``bide.websocket(environ)``: a WebSocket in a WSGI application, in ordinary code.

A view that waits for a message waits as with :func:`bide.wait`, and holds no thread.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, NoReturn

from bide.errors import BideError, ClientDisconnected, WebSocketClosed, WriteWouldBlock
from bide.exchange.handshake import check, fields_of_environ
from bide.exchange.messaging import NO_CODE, Message, Messaging, check_close, encoded, framed
from bide.waiting.locks import Lock
from bide.waiting.outcome import Signal
from bide.waiting.parking import runs_loop
from bide.waiting.waiter import current_waiter, waiter_here

KEY: Final = "bide.websocket"
"""Where an environ has the WebSocket that its request asks for."""
NEEDED: Final = "WebSockets need the package websockets: pip install 'bide[websocket]'"

_QUIET: Final = frozenset({1000, 1001, NO_CODE, 1012})
"""Close codes with which an iteration ends: what browsers send, and the server that stops."""


def until_closed(receive: Callable[[], Message]) -> Iterator[Message]:
    """Yield what is received until the end; raise that, if it is not an ordinary one."""
    while True:
        try:
            message = receive()
        except WebSocketClosed as closed:
            if closed.code in _QUIET:
                return
            raise
        yield message


class WebSocket:
    """A WebSocket of a WSGI application. Its methods may be called from any thread and any request.

    Messages leave in the order of the calls, each in one piece.

    Attributes:
        subprotocols: the names that the client offers, the preferred ones first.
        origin: the origin of the page that has opened it; None if the client does not say it.
        subprotocol: the one that ``accept`` has chosen; None for none.
    """

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging
        self._accepting = Lock()
        self._waiter: Any = None  # of the request that has accepted it
        self.subprotocols = messaging.subprotocols
        self.origin = messaging.fields.get("origin")
        self.subprotocol: str | None = None

    @property
    def same_origin(self) -> bool:
        """Whether a page of the same host has opened it, or a client that is not a browser.

        Browsers let every page open a WebSocket to every host, and send that host's cookies.
        """
        if self.origin is None:
            return True
        host = self._messaging.fields.get("host", "")
        _, _, netloc = self.origin.partition("://")
        return netloc.lower() == host.lower() != ""

    @property
    def closed(self) -> bool:
        """Whether it has ended. Messages that came before can still be received."""
        return self._messaging.over is not None

    def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Accept it: answer the request, and use the connection for messages from now on.

        The first ``send`` or ``receive`` does so, too. To refuse it, answer as usual instead, for
        example with a 403. Nothing happens if it is accepted already.

        Args:
            subprotocol: one of ``subprotocols``.
            headers: more headers of the answer, such as ``Set-Cookie``.

        Raises:
            LocalProtocolError: an ordinary response has begun; or the client does not offer the
                subprotocol; or the headers may not be sent.
            ClientDisconnected: the client has left.
        """
        messaging = self._messaging
        if messaging.accepted:
            return
        waiter = current_waiter()
        try:
            with self._accepting:
                if not messaging.accepted:
                    messaging.accept(subprotocol, list(headers))
                    self.subprotocol = subprotocol
                    self._waiter = waiter
        except ClientDisconnected as gone:
            if waiter is not None:
                waiter.raised(gone)
            raise

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, str or bytes; wait for it as :func:`bide.wait` does.

        Args:
            timeout: seconds, 0 or more; None: no limit.

        Raises:
            WebSocketClosed: it has ended, and all messages were received.
            TimeoutError: no message came in time.
        """
        self.accept()
        until = None if timeout is None else monotonic() + timeout
        message = self._messaging.receive()
        while isinstance(message, Signal):
            left = None if until is None else max(0.0, until - monotonic())
            waiter_here().wait(message, left)
            message = self._messaging.receive()
        return message

    def __iter__(self) -> Iterator[str | bytes]:
        """Receive until the end; raise it, if it is not an ordinary one (1000, 1001, 1012)."""
        return until_closed(self.receive)

    def send(self, message: str | bytes) -> None:
        """Send a message: str as text, bytes as binary. Waits if the client is slow.

        Raises:
            WebSocketClosed: it has ended.
            WriteWouldBlock: on a thread that runs an event loop, if the client is slow.
            TypeError: the message is neither str nor bytes.
        """
        self.accept()
        waiter = current_waiter()
        if waiter is None and runs_loop() and self._messaging.room() is not None:
            raise WriteWouldBlock(
                "the client reads too slowly, and this thread runs an event loop: "
                "send from a thread (asyncio.to_thread), where it can wait; or use bide.broadcast"
            )
        behind = self._messaging.send_message(message)
        if waiter is not None and waiter is self._waiter:
            waiter.keep_pace(behind)
        elif behind is not None and not (waiter is None and runs_loop()):
            waiter_here().wait(behind)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it. Messages that were not received yet are dropped.

        Nothing happens if it has ended already. It does not wait for the client.

        Args:
            code: 1000 to 1014 except 1004, 1005 and 1006; or 3000 to 4999.
            reason: 123 bytes at most.

        Raises:
            ValueError: the code or the reason is not allowed.
        """
        check_close(code, reason)
        self.accept()
        self._messaging.close(code, reason)

    def _send_encoded(self, frame: bytes) -> bool:
        return self._messaging.send_encoded(frame)


def refuse(environ: Mapping[str, Any]) -> NoReturn:
    """Say why a request has no WebSocket.

    Raises:
        RemoteProtocolError: it does not ask for one, or not as it must.
        BideError: this server cannot serve one.
    """
    check_environ(environ)
    if "bide.status" in environ and importlib.util.find_spec("websockets") is None:
        raise BideError(NEEDED)
    server = environ.get("SERVER_SOFTWARE") or "this server"
    processes = environ.get("wsgi.multiprocess") and not environ.get("wsgi.multithread")
    if server == "bide" and processes:  # elsewhere it has been offered
        raise BideError(
            "bide.websocket() works only in the server's own process, but this application runs "
            "in child processes (--executor processes)"
        )
    raise BideError(
        "bide.websocket() works on Bide's own server, and holds a thread under gunicorn's worker "
        f"gthread and under Werkzeug's server: {server} is another"
    )


def check_environ(environ: Mapping[str, Any]) -> None:
    """Raise RemoteProtocolError if a request does not open a WebSocket, or not as it must."""
    version = str(environ.get("SERVER_PROTOCOL", "")).removeprefix("HTTP/")
    check(environ.get("REQUEST_METHOD", ""), version, fields_of_environ(environ))


def broadcast(sockets: Iterable[WebSocket], message: str | bytes) -> int:
    """Send one message to many WebSockets; return to how many it was sent. It never waits.

    The message is encoded once, and not compressed. WebSockets that have ended or are not accepted
    yet are skipped. Those with slow clients are closed with 1013 ("try again later"). May be called
    from any thread, also from one that runs an event loop.

    Raises:
        TypeError: the message is neither str nor bytes.
    """
    frame = framed(*encoded(message))
    return sum(each._send_encoded(frame) for each in list(sockets))
