"""The heads of the two messages of an exchange: what was asked, and what the answer says of itself.

As any protocol can state them, and any interface. A response's head is checked here for what no
protocol allows; how it is written is the protocol's.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bide.errors import LocalProtocolError

short: Final = reprlib.Repr()
"""How errors show what an application gave: in one line, and not all of it."""
short.maxother = short.maxstring = 80


class Request:
    """The head of a request, as any protocol can state it.

    Attributes:
        method: the method's token, as sent.
        target: the request target as sent.
        path: its path, still percent-encoded.
        query: what follows the first ``?``, without it.
        version: "1.0", "1.1", …
        headers: pairs of name and value as sent, in order, values without outer blanks.
        has_body: whether the head announces one.
        persistent: whether the client lets the connection be used again.
    """

    __slots__ = (
        "has_body",
        "headers",
        "method",
        "path",
        "persistent",
        "query",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        path: bytes,
        query: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.version = version
        self.headers = headers
        self.has_body = False
        self.persistent = True


class Head:
    """A response's status and headers, checked for what any protocol forbids.

    Attributes:
        code: the status code, 200 to 999.
        reason: the reason phrase, possibly empty.
        headers: pairs of name and value, Latin-1 strings.
        bodiless: whether a response of this status has no body (RFC 9110 section 6.4.1).
        length: Content-Length as the application gave it, in bytes, or None.
        connection: what the application said in ``Connection``, which is not sent; or "".
        closes: whether it wants the connection to be closed.
        dated, served: whether the application gave ``Date`` and ``Server`` itself.
        fields: for the channel to keep the encoded headers in.
    """

    __slots__ = (
        "bodiless",
        "closes",
        "code",
        "connection",
        "dated",
        "fields",
        "headers",
        "length",
        "reason",
        "served",
    )

    def __init__(self, status: str, headers: list[tuple[str, str]]) -> None:
        try:
            parsed = _STATUSES.get(status)
        except TypeError:  # it has no hash: a list, for example
            parsed = None
        self.code, self.reason = parsed or _parse_status(status)
        self.bodiless = self.code == 204 or self.code == 304
        if type(headers) is not list:
            headers = _as_list(headers)  # an iterator would be empty when it is looked at again
        self.headers = headers
        self.length: int | None = None
        self.dated = False
        self.served = False
        self.connection = ""
        self.closes = False
        self.fields: Any = None
        try:
            for name, value in headers:
                if type(value) is not str:
                    raise LocalProtocolError(
                        f"the header {name!r} has the value {short.repr(value)}, no string: "
                        "make it a str"
                    )
                kind = _FIELDS.get(name)
                if kind is None:
                    kind = _classify(name)
                if kind:
                    self._note(kind, name, value)
        except (TypeError, ValueError):
            raise LocalProtocolError(
                f"the headers are {short.repr(headers)}: they must be a list of pairs (name, value)"
            ) from None
        if self.connection:
            self.headers = [each for each in headers if each[0].lower() != "connection"]

    def announce(self, length: int) -> None:
        """Add a Content-Length, in bytes, to a head that has none."""
        self.headers = [*self.headers, ("Content-Length", str(length))]
        self.length = length

    def _note(self, kind: str, name: str, value: str) -> None:
        if kind == "date":
            self.dated = True
        elif kind == "server":
            self.served = True
        elif kind == "content-length":
            if self.length is not None:
                raise LocalProtocolError("two Content-Length headers: give one")
            # isascii, since isdigit alone takes the digits of every script.
            if not (value.isascii() and value.isdigit()) or len(value) > 18:
                raise LocalProtocolError(f"Content-Length {value!r} is no number of bytes")
            self.length = int(value)
        elif name.lower() == "connection" and _OWN_CONNECTION.fullmatch(value):
            self.connection = value
            self.closes = self.closes or "close" in value.lower()
        else:
            raise LocalProtocolError(
                f"the header {name!r} belongs to the connection, which is the server's "
                "(PEP 3333, Other HTTP Features): leave it out"
            )


_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# What an application may say of its connection: nothing that another header goes with.
_OWN_CONNECTION: Final = re.compile(
    r"(?:close|keep-alive)(?:[ \t]*,[ \t]*(?:close|keep-alive))*", re.IGNORECASE
)
_CONNECTION_FIELDS: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
# Header names that have been looked at: what they need. Bounded, for an application could make
# up names without end; any thread, by single dict operations.
_FIELDS: Final[dict[str, str]] = {}
_STATUSES: Final[dict[str, tuple[int, str]]] = {}
_CACHED: Final = 1024


def _as_list(headers: Any) -> list[tuple[str, str]]:
    if isinstance(headers, Iterable) and not isinstance(headers, Mapping):
        return list(headers)
    raise LocalProtocolError(
        f"the headers are {short.repr(headers)}: they must be a list of pairs (name, value)"
    )


def _classify(name: str) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise LocalProtocolError(f"{short.repr(name)} is no header name")
    lower = name.lower()
    kind = ""
    if lower in ("date", "server", "content-length"):
        kind = lower
    elif lower in _CONNECTION_FIELDS:
        kind = "connection"
    if len(_FIELDS) < _CACHED and len(name) <= 64:
        _FIELDS[name] = kind
    return kind


def _parse_status(status: str) -> tuple[int, str]:
    if not isinstance(status, str) or not re.fullmatch(
        r"[2-9][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?", status
    ):
        raise LocalProtocolError(
            f"{short.repr(status)} is no status: it must be a str like '200 OK'"
        )
    parsed = (int(status[:3]), status[4:])
    if type(status) is str and len(_STATUSES) < _CACHED and len(status) <= 64:
        _STATUSES[status] = parsed
    return parsed
