"""What tells one request from all others in every log: its id, and the trace that it belongs to."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from bide.exchange.messages import Request

_TRACE: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class Identity:
    """The id of a request; made on the loop, and never changed.

    Attributes:
        header: the name of the header that carries the id; empty where requests have none.
        id: the id; likewise.
        trace: the trace's id, 32 hexadecimal digits from ``traceparent``; empty if there is none.
    """

    __slots__ = ("header", "id", "trace")

    def __init__(self, header: str, given: str, trace: str) -> None:
        self.header = header
        self.id = given
        self.trace = trace


current: Final[ContextVar[Identity | None]] = ContextVar("bide.identity", default=None)
"""The identity of the request whose code runs."""


def request_id() -> str:
    """Return the id of the current request; empty outside a request, or without ids.

    The setting ``request_id`` gives requests ids. May be called on any thread and in any coroutine
    that has the request's context.
    """
    identity = current.get()
    return "" if identity is None else identity.id


def trace_of(request: Request) -> str:
    """Return the id of a request's trace; empty if it has none, or a malformed one.

    W3C Trace Context, section 3.2: two versions of 2 digits, an id of 32 and one of 16 digits, not
    all of them zeros. A later version may have more at its end.
    """
    found = [value for name, value in request.headers if name.lower() == b"traceparent"]
    match = _TRACE.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        return ""
    version, trace, parent = match.groups()
    if version == b"ff" or not trace.strip(b"0") or not parent.strip(b"0"):
        return ""
    if version == b"00" and len(found[0]) != _LENGTH:
        return ""
    return trace.decode("ascii")


_LENGTH: Final = 55  # bytes of version 00
