"""The requests of a test client that speaks HTTP/2: what Bide's server makes of their fields."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult

from bide.errors import RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.protocols.http2.heads import RequestHead, as_upgrade

_REPLACED: Final = frozenset({"host", "transfer-encoding"})
"""What a client of HTTP/2 says by ``:authority``, and by its frames."""
_OPENING: Final = frozenset({"upgrade", "connection", "sec-websocket-key"})
"""What it says by ``:protocol`` when it opens a WebSocket (RFC 8441)."""


def http2_request(
    method: str, parts: SplitResult, fields: list[tuple[str, str]], has_body: bool
) -> Request:
    """Return a request as a server reads it of a client that speaks HTTP/2.

    Args:
        method: GET, POST, …
        parts: of the URL.
        fields: the headers, as a client of HTTP/1 would send them.
        has_body: whether a body follows.

    Raises:
        ValueError: such a client cannot send it; Bide would refuse it.
    """
    named = {name.lower(): value for name, value in fields}
    opens = named.get("upgrade", "").lower() == "websocket"
    path = parts.path or "/"
    pseudo = [
        (":method", "CONNECT" if opens else method),
        (":scheme", parts.scheme),
        (":path", f"{path}?{parts.query}" if parts.query else path),
        (":authority", named["host"]),
    ]
    if opens:
        pseudo.append((":protocol", "websocket"))
    left_out = _REPLACED | _OPENING if opens else _REPLACED
    sent = [(name.lower(), value) for name, value in fields if name.lower() not in left_out]
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pseudo + sent]
    try:
        head = RequestHead(pairs, not (has_body or opens), Limits())
    except RemoteProtocolError as error:
        raise ValueError(f"a client of HTTP/2 cannot send this request: {error}") from None
    if opens:
        as_upgrade(head.request)
    return head.request
