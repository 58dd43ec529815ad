"""What a connection begins with that should begin with TLS, and what is answered if it does not."""

from __future__ import annotations

from typing import Final

LEFT: Final = "the client has left"
PLAIN: Final = "the request came in plain HTTP"
NOT_TLS: Final = "what came is not TLS"

_HANDSHAKE: Final = b"\x16"  # RFC 8446 section 5.1
_TEXT: Final = (
    b"This port speaks HTTPS, and the request came in plain HTTP: begin its URL with https://\n"
)
NOT_HTTPS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_TEXT), _TEXT)
)
"""What a client that speaks plain HTTP is answered, in clear."""


def mistaken(first: bytes) -> str:
    """Return why a handshake fails that begins with this byte; "" if it may go on."""
    if first == _HANDSHAKE:
        return ""
    if not first:
        return LEFT
    return PLAIN if first.isalpha() else NOT_TLS
