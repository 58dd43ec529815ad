"""One WebSocket's call of an ASGI application: its events, and what is sent.

Until the application accepts it is a call of an HTTP request, which may be answered as any other.
It is loaded with the first request that opens a WebSocket. Everything here is called on the loop,
but for what is called when the WebSocket has ended.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from bide.asgi.call import Site
from bide.asgi.departures import is_departure
from bide.asgi.http import HTTPCall
from bide.asgi.messages import Message, Scope, headers_of
from bide.errors import (
    ClientDisconnected,
    ClientGone,
    LocalProtocolError,
    RemoteProtocolError,
    WebSocketClosed,
)
from bide.exchange.answers import answer, answer_malformed
from bide.exchange.messages import short
from bide.exchange.messaging import (
    LOST,
    NORMAL,
    RESTART,
    Messaging,
    NextMessage,
    check_close,
)
from bide.exchange.stream import IDLE, SWITCHED, Stream
from bide.waiting.outcome import Signal, Wait
from bide.waiting.parking import Parking
from bide.waiting.times import Times

VERSIONS: Final = {"version": "3.0", "spec_version": "2.5"}
"""2.4 and later: ``send`` raises an OSError once the client has left."""

_DENIAL: Final = {
    "websocket.http.response.start": "http.response.start",
    "websocket.http.response.body": "http.response.body",
}
"""What an application answers in place of accepting (WebSocket Denial Response)."""

_FOR_MESSAGE: Final = Wait(Parking())
"""Stands in the status for any wait of a task for a message."""
_FOR_MESSAGE.promise = NextMessage()


class WebSocketCall(HTTPCall):
    """One WebSocket's call of an ASGI application."""

    __slots__ = ("_closed", "_connected", "_messaging")

    def __init__(self, site: Site, stream: Stream, times: Times, messaging: Messaging) -> None:
        """Make a call."""
        super().__init__(site, stream, times)
        self._messaging = messaging
        self._connected = False  # whether the application was told of the request
        self._closed = False  # whether the application has closed what it had accepted

    def scope(self) -> Scope:
        """Return what the application is told of the request."""
        scope = super().scope()
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"] = VERSIONS.copy()
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = list(self._messaging.subprotocols)
        extensions = scope["extensions"]
        scope["extensions"] = {
            "websocket.http.response": {},
            **{key: extensions[key] for key in extensions if not key.startswith("http.")},
        }
        return scope

    # The end -------------------------------------------------------------------------------------

    def returned(self) -> None:
        """Close it, if the application has not; or end a response that it has left incomplete."""
        if self.stream.state == SWITCHED:
            self.stream.leave()
        else:
            super().returned()

    def failed(self, error: BaseException) -> None:
        """Log what the application raised, if it is of its own, and close it, or answer."""
        if self._has_ended() and is_departure(error, told=True):
            self.stream.cut()
            return
        super().failed(error)

    def _has_ended(self) -> bool:
        return self.left or self._messaging.over is not None

    def _ended(self) -> None:
        """Called when the WebSocket or its connection has ended; on any thread, under its lock.

        When the server stops, the application has all the time that requests have.
        """
        over = self._messaging.over
        if self._closed or (over is not None and over[0] == RESTART):
            self.wake()
        else:
            self.cancel(ClientDisconnected("the client has left"))

    # ASGI's ``receive`` and ``send`` -------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next event: the request, a message, or at last how it has ended."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        messaging = self._messaging
        while True:
            if messaging.accepted:
                try:
                    message = messaging.receive()
                except WebSocketClosed as closed:
                    return _disconnect(closed.code, closed.reason)
                if isinstance(message, str):
                    return {"type": "websocket.receive", "text": message}
                if isinstance(message, bytes):
                    return {"type": "websocket.receive", "bytes": message}
                # As ``wait``, whose coroutine would cost each message two per cent.
                waiting = self.begin_wait(message, _FOR_MESSAGE)
                try:
                    await waiting.future
                finally:
                    self.end_wait(waiting)
            elif self.left or self.stream.gone or self.answered:
                return _disconnect(LOST)
            else:
                await self.wait(None)

    async def send(self, message: Message) -> None:
        """Accept, send a message, close, or answer in place of accepting.

        Return when the client has taken enough of what was sent.

        Raises:
            ClientGone: the client has left.
            LocalProtocolError: this message may not be sent, or not now.
        """
        kind = message["type"]
        if kind == "websocket.send":
            signal = self._send(message)
            while signal is not None and not signal.fired:
                if self._messaging.over is not None:
                    raise ClientGone("the WebSocket has ended")
                await self.wait(signal)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._close(message)
        elif kind not in _DENIAL:
            raise LocalProtocolError(f"a WebSocket has no message {kind!r}")
        elif self._messaging.accepted:
            raise LocalProtocolError(f"{kind} comes too late: the WebSocket was accepted")
        else:
            await super().send({**message, "type": _DENIAL[kind], "trailers": False})

    def _accept(self, message: Message) -> None:
        self._require_unanswered(message)
        messaging = self._messaging
        try:
            messaging.accept(message.get("subprotocol"), headers_of(message))
        except ClientDisconnected as gone:
            self.left = True
            raise ClientGone(str(gone)) from None
        messaging.told = self._ended
        self.wake_all()  # another task may wait for what happens

    def _require_unanswered(self, message: Message) -> None:
        if self.stream.state != IDLE:
            raise LocalProtocolError(
                f"{message['type']} comes too late: the WebSocket was accepted or refused already"
            )
        if self.left:
            raise ClientGone("the client has left")

    def _send(self, message: Message) -> Signal | None:
        """Send a message; return what to wait for if the client is behind."""
        messaging = self._messaging
        if not messaging.accepted:
            raise LocalProtocolError("websocket.accept must be sent before websocket.send")
        if self._closed:
            raise LocalProtocolError("websocket.send comes too late: websocket.close was sent")
        text, data = message.get("text"), message.get("bytes")
        if data is None and isinstance(text, str):
            content: str | bytes = text
        elif text is None and isinstance(data, (bytes, bytearray, memoryview)):
            content = bytes(data)
        else:
            raise LocalProtocolError(
                f"websocket.send has the text {short.repr(text)} and the bytes {short.repr(data)}: "
                "send one of them, a str or bytes"
            )
        try:
            return messaging.send_message(content)
        except WebSocketClosed as closed:
            raise ClientGone(f"the WebSocket has ended: {closed}") from None

    def _close(self, message: Message) -> None:
        messaging = self._messaging
        if not messaging.accepted:
            self._require_unanswered(message)
            answer(self.stream, "403 Forbidden", "Forbidden\n")
            self.wake_all()
            return
        if self._closed:
            raise LocalProtocolError("websocket.close was sent already")
        if messaging.over is not None:
            raise ClientGone("the WebSocket has ended")
        code, reason = message.get("code"), message.get("reason")
        try:
            code, reason = NORMAL if code is None else code, reason or ""
            check_close(code, reason)
        except ValueError as error:
            raise LocalProtocolError(f"websocket.close: {error}") from None
        self._closed = True
        messaging.close(code, reason)


class MalformedCall(HTTPCall):
    """The call of a request that wants to open a WebSocket, and not as it must: it is answered.

    An ASGI application could only take it for an ordinary request.
    """

    __slots__ = ("_error",)

    def __init__(
        self, site: Site, stream: Stream, times: Times, error: RemoteProtocolError
    ) -> None:
        """Make a call; ``error`` says what is wrong, and what to answer."""
        super().__init__(site, stream, times)
        self._error = error

    def run(self) -> None:
        """Answer; the application is not called."""
        self.times.begun = monotonic()
        answer_malformed(self.stream, self._error)
        self.site.done(self)
        self.over = True


def _disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}
