"""The answer that accepts a WebSocket over HTTP/1 (RFC 6455 section 4.2.2)."""

from __future__ import annotations

from bide.exchange.handshake import agreement
from bide.exchange.messages import Head
from bide.native import encode
from bide.protocols.http1.syntax import stamp
from bide.protocols.interfaces import Transport


def answer_101(
    transport: Transport, key: str, head: Head, extensions: str, subprotocol: str | None
) -> bool:
    """Answer 101, under the lock; return false when the client is gone.

    Args:
        transport: the connection's.
        key: the client's ``Sec-WebSocket-Key``.
        head: from :func:`bide.exchange.handshake.switching`.
        extensions: those that are agreed, with their parameters; empty: none.
        subprotocol: the one that is chosen.
    """
    end = agreement(key, extensions, subprotocol)
    dated = stamp(head.dated, head.served)
    return transport.put(encode(head.code, head.reason, head.headers, dated, b"", end))
