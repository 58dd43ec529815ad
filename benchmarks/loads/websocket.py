"""The client's side of a WebSocket, as little of it as a load needs."""

from __future__ import annotations

import socket

from ..errors import RoundFailedError

TEXT = 0x81
"""The first byte of a frame that is a whole message of text (RFC 6455 section 5.2)."""
_MASK = b"\x5a\xc3\x0f\x96"


def opening(port: int, path: str, deflate: bool = False) -> bytes:
    """Return the request that opens a WebSocket; with `deflate` it offers compression."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    if deflate:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    return "\r\n".join([*lines, "", ""]).encode()


def read_opened(client: socket.socket) -> None:
    """Read the answer to it; raise `RoundFailedError` where it does not accept."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = client.recv(4096)
        if not data:
            raise RoundFailedError(f"ended a WebSocket's handshake after {head[:20]!r}")
        head += data
    if not head.startswith(b"HTTP/1.1 101 "):
        raise RoundFailedError(f"answered {head[:20]!r} to a WebSocket's handshake")


def client_frame(text: bytes) -> bytes:
    """Return a client's frame of a short text: masked, as it must be."""
    masked = bytes(each ^ _MASK[place % 4] for place, each in enumerate(text))
    return bytes((TEXT, 0x80 | len(text))) + _MASK + masked


def server_frame(text: bytes) -> bytes:
    """Return a server's frame of a short text."""
    return bytes((TEXT, len(text))) + text
