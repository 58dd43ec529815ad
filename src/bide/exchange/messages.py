"""The heads of a request and of its response, for any protocol and any interface.

A request's path is decoded here, once. A response's head is checked here for what no protocol
allows; the protocol encodes it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bide.errors import LocalProtocolError
from bide.native import check

short: Final = reprlib.Repr()
"""Shows in an error what an application gave: in one line, and not all of it."""
short.maxother = short.maxstring = 80


class Request:
    """The head of a request, for any protocol.

    Attributes:
        method: the method's token, as sent.
        target: the request target as sent.
        raw_path: its path as sent.
        root: where the application is mounted, decoded; empty, or it begins with a slash.
        path: what follows the root in the path, decoded; empty for the target ``*``.
        query: what follows the first ``?``, without it, as sent.
        version: "1.0", "1.1", …
        headers: pairs of name and value as sent, in order, values without outer blanks.
        fields: CGI's keys and texts of the headers, one behind the other, where they were made at
            once; else None.
        pairs: the headers, where they have been made.
        has_body: whether the head announces one.
        persistent: whether the client lets the connection be used again.
    """

    __slots__ = (
        "fields",
        "has_body",
        "method",
        "pairs",
        "path",
        "persistent",
        "query",
        "raw_path",
        "root",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        raw_path: bytes,
        query: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self.method = method
        self.target = target
        self.raw_path = raw_path
        self.root = b""
        self.path = decoded(raw_path)
        self.query = query
        self.version = version
        self.pairs: list[tuple[bytes, bytes]] | None = headers
        self.fields: tuple[str, ...] | None = None
        self.has_body = False
        self.persistent = True

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers; of a request that has ``fields`` they are made when asked for."""
        if self.pairs is None:
            self.pairs = self.split()
        return self.pairs

    def split(self) -> list[tuple[bytes, bytes]]:
        """Make the headers, where they were not given; of what the protocol has kept."""
        raise NotImplementedError

    def mount(self, root: bytes) -> bool:
        """Move ``root`` from the start of the path to the end of the root; return whether it fits.

        Whole segments count: ``/app`` is not the beginning of ``/apple``.

        Args:
            root: decoded; it begins with a slash, and does not end with one.
        """
        rest = self.path[len(root) :]
        if not self.path.startswith(root) or (rest and not rest.startswith(b"/")):
            return False
        self.root += root
        self.path = rest
        return True


def decoded(path: bytes) -> bytes:
    """Decode a path's percent signs (RFC 3986 section 2.1); malformed ones stay as they are.

    The ``*`` of ``OPTIONS *`` asks about the server: its path is empty.
    """
    if path.find(b"%") >= 0:  # a third of what ``in`` costs, for bytes
        # Not by urllib, which makes two objects of each octet: this is one pass.
        path = _BARE_PERCENT.sub(b"%25", path).replace(b"\\", b"\\\\").replace(b"%", b"\\x")
        return path.decode("unicode_escape").encode("latin-1")
    return b"" if path == b"*" else path


class Head:
    """A response's status and headers, checked for what every protocol forbids.

    Attributes:
        code: the status code, 200 to 999.
        reason: the reason phrase, possibly empty.
        headers: pairs of name and value, Latin-1 strings without controls; the head's own list,
            so that what the application does to its list later changes nothing.
        bodiless: whether a response of this status has no body (RFC 9110 section 6.4.1).
        length: Content-Length as the application gave it, in bytes, or None. With status 204 it is
            not sent (RFC 9110 section 8.6).
        connection: the application's ``Connection`` header, which is not sent; or "".
        closes: whether that asks to close the connection.
        dated, served: whether the application has set ``Date`` and ``Server`` itself.
    """

    __slots__ = (
        "bodiless",
        "closes",
        "code",
        "connection",
        "dated",
        "headers",
        "length",
        "reason",
        "served",
    )

    def __init__(self, status: Any, headers: Any) -> None:
        # Of any type: what an application gives.
        try:
            parsed = _STATUSES.get(status)
        except TypeError:  # it has no hash: a list, for example
            parsed = None
        self.code, self.reason = parsed or _parse_status(status)
        self.bodiless = self.code in (204, 304)
        self.connection = ""
        self.closes = False
        self.headers: list[tuple[str, str]]
        self.length: int | None
        checked = None if check is None else check(headers, _FIELDS)
        if checked is not None:
            self.headers, self.length, self.dated, self.served = checked
        else:
            self.length = None
            self.dated = self.served = False
            self._look(headers)
        if self.code == 204:
            self._drop("content-length")
            self.length = None

    def _look(self, given: Any) -> None:
        """Take the headers, as far as they may be sent."""
        if type(given) is not list and (
            not isinstance(given, Iterable) or isinstance(given, Mapping)
        ):
            raise _no_headers(given)
        try:
            pairs: Any = list(map(tuple, given))  # which copies no tuple
            self.headers = pairs
            for name, value in pairs:
                if type(value) is not str:
                    raise LocalProtocolError(
                        f"the header {name!r} has the value {short.repr(value)}, "
                        "which is not a string: make it a str"
                    )
                kind = _FIELDS.get(name)
                if kind is None:
                    kind = _classify(name)
                if kind:
                    self._note(kind, name, value)
                if not (value.isascii() and value.isprintable()):
                    _check_value(name, value)
        except (TypeError, ValueError):
            raise _no_headers(given) from None
        if self.connection:
            self._drop("connection")

    def announce(self, length: int) -> None:
        """Add a Content-Length, in bytes, to a head that has none."""
        self.headers.append(("Content-Length", str(length)))
        self.length = length

    def add(self, name: str, value: str) -> None:
        """Add a header that may be sent, unless the application has set it itself."""
        lower = name.lower()
        if not any(each[0].lower() == lower for each in self.headers):
            self.headers.append((name, value))

    def _drop(self, name: str) -> None:
        self.headers = [each for each in self.headers if each[0].lower() != name]

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
                raise LocalProtocolError(f"Content-Length {value!r} is not a number of bytes")
            self.length = int(value)
        elif name.lower() == "upgrade" and self.code == 426:
            pass  # RFC 9110 section 15.5.22: it must be there
        elif name.lower() == "connection" and _OWN_CONNECTION.fullmatch(value):
            self.connection = value
            self.closes = self.closes or "close" in value.lower()
        else:
            raise LocalProtocolError(
                f"the header {name!r} belongs to the connection, which is the server's "
                "(PEP 3333, Other HTTP Features): leave it out"
            )


_BARE_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # but HTAB
_NOT_LATIN: Final = re.compile(r"[^\x00-\xff]")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# The Connection headers that an application may set: none that needs another header.
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
# Header names that have been checked: what they need. Bounded, for an application could make up
# names without end. Any thread, by single dict operations.
_FIELDS: Final[dict[str, str]] = {}
_STATUSES: Final[dict[str, tuple[int, str]]] = {}
_CACHED: Final = 1024


def _no_headers(headers: Any) -> LocalProtocolError:
    hint = ": write list(headers.items())" if isinstance(headers, dict) else ""
    return LocalProtocolError(
        f"the headers are {short.repr(headers)}: they must be a list of pairs (name, value){hint}"
    )


def _check_value(name: Any, value: Any) -> None:
    """Raise for a control character, which could split the response, and for non-Latin-1."""
    found = _CONTROL.search(value)
    if found:
        raise LocalProtocolError(
            f"the header {name!r} has the control character {found[0]!r} in its value"
        )
    _check_latin(value)


def _check_latin(text: str) -> None:
    found = _NOT_LATIN.search(text)
    if found:
        raise LocalProtocolError(
            f"the status or a header is not Latin-1 (PEP 3333, Unicode Issues): {found[0]!r}"
        )


def _classify(name: Any) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise LocalProtocolError(f"{short.repr(name)} is not a header name")
    lower = name.lower()
    kind = ""
    if lower in ("date", "server", "content-length"):
        kind = lower
    elif lower in _CONNECTION_FIELDS:
        kind = "connection"
    if type(name) is str and len(_FIELDS) < _CACHED and len(name) <= 64:
        _FIELDS[name] = kind
    return kind


def _parse_status(status: Any) -> tuple[int, str]:
    if not isinstance(status, str) or not re.fullmatch(
        r"[2-9][0-9][0-9]( [^\x00-\x08\x0a-\x1f\x7f]*)?", status
    ):
        raise LocalProtocolError(
            f"{short.repr(status)} is not a status: it must be a str like '200 OK'"
        )
    _check_latin(status)
    parsed = (int(status[:3]), status[4:])
    if type(status) is str and len(_STATUSES) < _CACHED and len(status) <= 64:
        _STATUSES[status] = parsed
    return parsed
