"""A WebSocket of an ASGI server, for a WSGI application: ``bide.websocket(environ)``.

A view that does not accept answers as usual, where the server can pass that on (the extension
``websocket.http.response``); else the server refuses the handshake.
"""

from __future__ import annotations

from typing import Any, Final

from bide.exchange.handshake import fields_of
from bide.exchange.messages import Request
from bide.exchange.messaging import LOST, NO_CODE
from bide.hosts.asgi_requests import Exchange, Message, Receive, Scope, Send
from bide.hosts.channel import Part
from bide.hosts.messaging import Accepted, Closed, HostMessaging, Step
from bide.serving.dispatcher import Dispatcher
from bide.wsgi.lazy_websocket import environ_of

_OPENING: Final = ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"))
"""What frameworks look for; the request of another version of HTTP has neither."""


class WebSocketExchange(Exchange):
    """One WebSocket, from its request to its end; on the loop, as an exchange."""

    KIND = "websocket.http.response"

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: Request,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__(dispatcher, request, scope, receive, send, window=0)
        fields = fields_of(request)
        if "upgrade" not in fields:
            request.headers.extend(_OPENING)
        self._messaging = HostMessaging(
            self.stream,
            self.channel,
            fields_of(request),
            tuple(scope.get("subprotocols") or ()),
            self.ready,
            self.room_again,
        )
        self._denies = self.KIND in (scope.get("extensions") or ())
        self._refused = False

    def drain(self) -> None:
        """Close it with 1012: the server stops."""
        self._messaging.drain()

    def begins_at_once(self) -> bool:
        """Not: the first event says that there is a client."""
        return False

    def environ(self) -> dict[str, Any]:
        """Return the WebSocket."""
        return environ_of(self._messaging, self.stream)

    async def send_what_is_there(self) -> bool:
        """Send an answer, or what the view has done; return whether that is the end."""
        over = await super().send_what_is_there()
        for step in self._messaging.take():
            over = await self._send_step(step)
        self._messaging.sent()
        return over or (self.left and self._messaging.accepted)

    async def send_part(self, part: Part) -> bool:
        """Send some of an answer in place of accepting, or have the server refuse in its way."""
        if self._denies or self.left:
            return await super().send_part(part)
        if not self._refused:
            self._refused = True
            await self.send({"type": "websocket.close", "code": 1000})
        self.channel.sent(part.blocks)
        return part.ended or part.cut

    async def _send_step(self, step: Step) -> bool:
        """Send what the view has done; return whether that is the end."""
        if isinstance(step, Accepted):
            headers = [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in step.headers
            ]
            await self.send(
                {
                    "type": "websocket.accept",
                    "subprotocol": step.subprotocol,
                    "headers": headers,
                }
            )
        elif isinstance(step, Closed):
            await self.send({"type": "websocket.close", "code": step.code, "reason": step.reason})
            return True
        elif isinstance(step, str):
            await self.send({"type": "websocket.send", "text": step})
        else:
            await self.send({"type": "websocket.send", "bytes": step})
        return False

    async def take(self, message: Message) -> bool:
        """Take an event, and wait until there is room for more; return whether to ask for it."""
        messaging = self._messaging
        if message["type"] == "websocket.disconnect":
            code = message.get("code", NO_CODE)
            self.leave("the client has left", code, message.get("reason") or "")
            return False
        if message["type"] == "websocket.receive":
            text = message.get("text")
            messaging.feed(message.get("bytes") or b"" if text is None else text)
        self.room.clear()
        while messaging.must_pause():
            await self.room.wait()
            self.room.clear()
        return True

    def leave(self, reason: str, code: int = LOST, told: str = "") -> None:
        """Called when the client has closed it, or has gone; or the server takes no more."""
        if self._messaging.lose(code, told):
            self.left = True
            self.something.set()  # nothing more is to be sent
        else:
            super().leave(reason)
