"""The messages of one WebSocket, for any interface: what an application's side asks of a protocol.

A WSGI application is given a :class:`bide.wsgi.websocket.WebSocket` on top of this, an ASGI one a
:class:`bide.asgi.websocket.WebSocketCall`. It imports no sockets, threads or asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from bide.errors import Cancelled, Overloaded, RequestTimeout, ServerStopping
from bide.waiting.adapters import KINDS, SignalSubscription
from bide.waiting.outcome import Signal

Message = str | bytes

NORMAL: Final = 1000
"""The close code of an ordinary end."""
NO_CODE: Final = 1005
"""What is told for a close frame without a code; it is never sent."""
LOST: Final = 1006
"""What is told for a connection that has ended without a close frame; it is never sent."""
FAILED: Final = 1011
"""The close code of an application that has failed, or took too long."""
RESTART: Final = 1012
"""The close code of a server that stops."""
BUSY: Final = 1013
"""The close code that says: come again later."""

_RESERVED: Final = frozenset({1004, 1005, 1006, 1015})
"""Close codes that are never sent (RFC 6455 section 7.4.1)."""


class NextMessage(Signal):
    """Fires when the next message has come, or the end."""

    __slots__ = ()


KINDS[NextMessage] = SignalSubscription


class Messaging(Protocol):
    """One WebSocket, from its request to its end; from any thread unless noted.

    What is on the connection does not inherit it, since compiled classes have one base.

    Attributes:
        fields: the request's headers, by their names in lower case.
        subprotocols: what the client offers, those that it prefers first.
        accepted: whether it was.
        over: the close code and reason, once it has ended; None before.
        told: called once it has ended, or its connection has; on any thread, under the connection's
            lock. None: nobody is told. To be set right behind ``accept``, on the loop.
    """

    fields: Mapping[str, str]
    subprotocols: tuple[str, ...]
    accepted: bool
    over: tuple[int, str] | None
    told: Callable[[], object] | None

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        """Answer 101: from now on the connection is this one's. Once, before any response.

        Raises:
            LocalProtocolError: an ordinary response has begun; or the headers may not be sent.
            ClientDisconnected: the client has left.
        """
        raise NotImplementedError

    def receive(self) -> Message | Signal:
        """Return the next message, or what to wait for before asking again.

        Raises:
            WebSocketClosed: there is none, and none will come.
        """
        raise NotImplementedError

    def send_message(self, message: Message) -> Signal | None:
        """Send a message; return what to wait for before the next one if the client is behind.

        Raises:
            WebSocketClosed: it has ended.
        """
        raise NotImplementedError

    def send_encoded(self, frame: bytes) -> bool:
        """Send one whole frame; return false where it has ended, or the client is behind.

        One that is behind is closed with 1013.
        """
        raise NotImplementedError

    def room(self) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        raise NotImplementedError

    def close(self, code: int, reason: str) -> None:
        """Begin to end it, by a close frame; without effect on one that has ended."""
        raise NotImplementedError


def check_close(code: int, reason: str) -> None:
    """Check that an application may close by this.

    Raises:
        ValueError: the code or the reason may not be sent.
    """
    sent = isinstance(code, int) and (1000 <= code <= 1014 or 3000 <= code <= 4999)
    if not sent or code in _RESERVED:
        raise ValueError(f"the close code {code!r} cannot be sent")
    if not isinstance(reason, str) or len(reason.encode()) > 123:
        raise ValueError("the reason of a close must be a str, of 123 bytes at most")


def close_of(why: Cancelled) -> tuple[int, str]:
    """Return the code and the reason with which it is closed when its request goes on no further.

    They say the same as the answer to a request that is none: 503, with or without Retry-After, or
    504.
    """
    if isinstance(why, Overloaded):
        return BUSY, "too many wait"
    if isinstance(why, ServerStopping):
        return RESTART, "the server stops"
    if isinstance(why, RequestTimeout):
        return FAILED, "it took too long"
    return FAILED, "the application failed"


TEXT: Final = 1
BINARY: Final = 2


def encoded(message: Message) -> tuple[int, bytes]:
    """Return a message's opcode and its bytes.

    Raises:
        TypeError: it is neither str nor bytes.
        UnicodeEncodeError: it has lone surrogates.
    """
    if isinstance(message, str):
        return TEXT, message.encode()
    if isinstance(message, (bytes, bytearray, memoryview)):
        return BINARY, bytes(message)
    raise TypeError(f"a WebSocket's message is str or bytes, not {type(message).__name__}")


def framed(opcode: int, data: bytes) -> bytes:
    """Return a server's whole frame (RFC 6455 section 5.2): not masked, and the message's last."""
    size = len(data)
    if size < 126:
        return bytes((0x80 | opcode, size)) + data
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2) + data
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8) + data


def unframed(frame: bytes) -> tuple[int, bytes]:
    """Return the opcode and the bytes of what :func:`framed` has made."""
    start = {126: 4, 127: 10}.get(frame[1], 2)
    return frame[0] & 0x0F, frame[start:]
