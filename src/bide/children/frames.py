"""What passes between the server and a child that makes calls, over one socket.

A frame has a kind, the number of the call that it belongs to, and a payload. What belongs to
another call than the one in progress is ignored by both sides.

Neither side sends what the other one has not made room for: the server at most one block of a
body, until it gets ``MORE``; the child at most ``WINDOW`` bytes of a response, until it gets
``ROOM``. So the server never has to leave the socket unread, and cancellations are never held up.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from typing import Any, Final

from bide.errors import (
    Cancelled,
    ClientDisconnected,
    LocalProtocolError,
    RemoteProtocolError,
    RequestTimeout,
    ServerStopping,
)

# To the child.
REQUEST: Final = 1
"""A new call: see ``bide.children.requests``."""
BODY: Final = 2
"""A block of the request's body; empty: it has ended."""
BROKEN: Final = 3
"""The body has failed: with which error."""
CANCEL: Final = 4
"""The call is cancelled: why, whether firmly, and whether the client is gone."""
ROOM: Final = 5
"""The client has taken so many bytes of the response."""
STOPPING: Final = 6
"""The server begins to stop."""

# From the child.
READY: Final = 10
"""It takes calls; with its process number. Once."""
BEGUN: Final = 11
"""The call's application is called from now on."""
HEAD: Final = 12
"""The head of the response: status, headers, and the length of the body where it is known."""
SEND: Final = 13
"""A block of the response; empty: the head alone is to be sent."""
END: Final = 14
"""The last block, perhaps empty."""
CUT: Final = 15
"""The response is not complete, and ends here."""
WANTED: Final = 16
"""The application waits for a body that the client does not send unasked."""
MORE: Final = 17
"""There is room for a block of the body."""
DONE: Final = 18
"""All of the call has ended."""
RECORD: Final = 19
"""A record for the log; of no call."""

WINDOW: Final = 256 * 1024
"""Bytes of a response that the child may have sent before it is told that they were taken."""
PIECE: Final = 64 * 1024
"""Bytes of a block in one frame."""

_HEAD: Final = struct.Struct("!BIQ")
_NUMBER: Final = struct.Struct("!Q")

Block = bytes | memoryview


def frame(kind: int, call: int, payload: Block = b"") -> bytes:
    """Return a frame's bytes."""
    return b"".join((_HEAD.pack(kind, call, len(payload)), payload))


def number(value: int) -> bytes:
    """Return the payload of a frame that tells a number."""
    return _NUMBER.pack(value)


def number_of(payload: bytes) -> int:
    """Return what :func:`number` was given."""
    value: int = _NUMBER.unpack(payload)[0]
    return value


class Frames:
    """Makes frames of the bytes that have come."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        self._bytes += data

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """Take out each frame that is complete: its kind, its call and its payload."""
        at = 0
        held = self._bytes
        try:
            while len(held) - at >= _HEAD.size:
                kind, call, size = _HEAD.unpack_from(held, at)
                end = at + _HEAD.size + size
                if len(held) < end:
                    return
                payload = bytes(memoryview(held)[at + _HEAD.size : end])
                at = end
                yield kind, call, payload
        finally:
            del held[:at]


_KINDS: Final[dict[str, type[BaseException]]] = {
    each.__name__: each
    for each in (
        ClientDisconnected,
        LocalProtocolError,
        RemoteProtocolError,
        RequestTimeout,
        ServerStopping,
    )
}


def error_payload(error: BaseException, *more: bool) -> bytes:
    """Return an error as a payload, and what else is to be told."""
    name = type(error).__name__ if type(error).__name__ in _KINDS else "ClientDisconnected"
    status = error.status if isinstance(error, RemoteProtocolError) else 0
    headers = error.headers if isinstance(error, RemoteProtocolError) else ()
    return pickle.dumps((name, str(error), status, headers, more))


def error_of(payload: bytes) -> tuple[Any, tuple[bool, ...]]:
    """Return an error, and what else was told."""
    name, text, status, headers, more = pickle.loads(payload)
    kind = _KINDS[name]
    if kind is RemoteProtocolError:
        return RemoteProtocolError(text, status, headers), more
    return kind(text), more


def cancellation_payload(cancellation: Cancelled, firm: bool, gone: bool) -> bytes:
    """Return the payload of ``CANCEL``."""
    return error_payload(cancellation, firm, gone)
