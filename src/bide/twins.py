"""The same functions as in ``_native.pyx``, in Python.

They define what the compiled functions do, and the tests compare the two. :mod:`bide.native` says
which of them run where nothing is compiled.
"""

from __future__ import annotations

from typing import Any, Final

MOST_LINES: Final = 64
"""How many headers a head may have that ``parse`` takes."""

MOST_NAME: Final = 64
"""How many bytes the name of a header may have that ``parse`` takes."""
METHODS: Final = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")

_ALPHANUMERIC: Final = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PATH: Final = _ALPHANUMERIC.union(b"-._~!$&'()*+,;=:@/%")  # pchar and / (RFC 3986 section 3.3)
_QUERY: Final = _PATH.union(b"?")
_HOST: Final = _ALPHANUMERIC.union(b"-._~")
_NAME: Final = _ALPHANUMERIC.union(b"!#$%&'*+-.^`|~")  # but _, which is dropped as a rule
_DIGITS: Final = frozenset(b"0123456789")
_VISIBLE: Final = frozenset(range(0x20, 0x7F))
_ODD: Final = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"proxy"}
)

Plain = tuple[int, str, bytes, bytes, bool, bytes, str, bool, int, tuple[str, ...]]
"""What ``parse`` returns."""


Checked = tuple[list[tuple[str, str]], int | None, bool, bool]
"""What ``check`` returns."""


class HeadLimits:
    """What bounds a head; the base of :class:`bide.exchange.limits.Limits`, which sets it.

    Attributes:
        request_line: bytes of the request line.
        head: bytes of all.
        fields: headers.
        body: bytes of the body; 0: any number.
    """

    __slots__ = ()

    request_line: int
    head: int
    fields: int
    body: int


def parse(data: bytes, at: int, limits: HeadLimits) -> Plain | None:
    """Parse a request's head that is plain and certain, and complete; return None for any other.

    Return where it ends, and of its request: the method, the target, the path as sent, whether
    that has a percent sign, the query, the version, whether the connection persists, the length
    of the body, and CGI's keys and texts of its headers, one behind the other.
    """
    if at < 0:
        return None
    end = min(len(data), at + limits.head)
    head = data[at:end]
    for method in METHODS:
        if head.startswith(method.encode("ascii") + b" "):
            break
    else:
        return None
    start = here = at + len(method) + 1
    if not data.startswith(b"/", start):
        return None
    here = query_at = _skip(data, here, end, _PATH)
    query = b""
    if data.startswith(b"?", here):
        here = _skip(data, here + 1, end, _QUERY)
        query = data[query_at + 1 : here]
    path, target = data[start:query_at], data[start:here]
    last = data[here : min(here + 11, end)]
    if last not in (b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"):
        return None
    old = last == b" HTTP/1.0\r\n"
    here += 9
    if here - at > limits.request_line:
        return None
    here += 2
    fields: list[str] = []
    meant: dict[bytes, bytes] = {}
    while not data.startswith(b"\r", here):
        name_at = here
        here = _skip(data, here, min(here + MOST_NAME, end), _NAME)
        name = data[name_at:here]
        if not name or data[here : here + 2] != b": ":
            return None
        value_at = here + 2
        here = _skip(data, value_at, end, _VISIBLE)
        value = data[value_at:here]
        if here + 2 > end or data[here : here + 2] != b"\r\n" or value != value.strip(b" "):
            return None
        here += 2
        if not value or len(fields) == 2 * min(limits.fields, MOST_LINES):
            return None
        fields += (key_of(name), value.decode("ascii"))
        name = name.lower()
        if name in _ODD:
            return None
        if name in (b"host", b"content-length", b"connection"):
            if name in meant:
                return None
            meant[name] = value
    if here + 2 > end or data[here : here + 2] != b"\r\n":
        return None
    host, length = meant.get(b"host"), meant.get(b"content-length", b"0")
    connection = meant.get(b"connection", b"").lower()
    if host is None:
        if not old:
            return None
    elif not _good_host(host):
        return None
    if not _good_length(length) or int(length) > limits.body > 0:
        return None
    if connection not in (b"", b"keep-alive", b"close"):
        return None
    version = "1.0" if old else "1.1"
    persistent = connection == b"keep-alive" if old else connection != b"close"
    escaped = path.find(b"%") >= 0
    size = int(length)
    return here + 2, method, target, path, escaped, query, version, persistent, size, tuple(fields)


def _skip(data: bytes, at: int, end: int, among: frozenset[int]) -> int:
    """Return the position of the first byte that is not in ``among``; or the end."""
    while at < end and data[at] in among:
        at += 1
    return at


def _good_host(host: bytes) -> bool:
    """Whether this is a name or an IPv4 address, and a port if there is a colon."""
    at = _skip(host, 0, len(host), _HOST)
    if at == 0:
        return False
    if at == len(host):
        return True
    if host[at] != ord(":") or not 1 <= len(host) - at - 1 <= 5:
        return False
    return _skip(host, at + 1, len(host), _DIGITS) == len(host)


def _good_length(length: bytes) -> bool:
    """Whether this is a number in plain digits, as most clients write it."""
    if len(length) > 18 or _skip(length, 0, len(length), _DIGITS) != len(length):
        return False
    return len(length) == 1 or not length.startswith(b"0")


def key_of(name: bytes) -> str:
    """Return the environ's key for a header; "" for a header that is dropped.

    That is ``Proxy``, which many libraries take for the environment's (CVE-2016-5385), and those
    with ``_`` in their names, for they would pass for those with ``-``.
    """
    upper = name.decode("latin-1").upper()
    if "_" in upper or upper == "PROXY":
        return ""
    key = upper.replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def fill(
    environ: dict[str, Any],
    method: str,
    root: bytes,
    path: bytes,
    query: bytes,
    target: bytes,
    version: str,
    fields: tuple[str, ...],
) -> bool:
    """Add to an environ the keys of a request that ``parse`` took; return whether none came twice.

    If one was, the environ is of no use: which of them has come is not known.
    """
    environ["REQUEST_METHOD"] = method
    if root:
        environ["SCRIPT_NAME"] = root.decode("latin-1")
    environ["PATH_INFO"] = path.decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["RAW_URI"] = environ["REQUEST_URI"] = target.decode("latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if version == "1.1" else f"HTTP/{version}"
    size = len(environ)
    environ.update(zip(fields[::2], fields[1::2], strict=True))
    return len(environ) == size + len(fields) // 2


def check(headers: Any, kinds: dict[str, str]) -> Checked | None:
    """Check a response's headers; return None where Head decides, or tells what is wrong.

    Return a list of their pairs, Content-Length or None, and whether Date and Server are there.

    Args:
        headers: the application's headers.
        kinds: header names that have been checked; what they need, or "".
    """
    if type(headers) is not list:
        return None
    length: int | None = None
    dated = served = False
    for pair in headers:
        if type(pair) is not tuple or len(pair) != 2:
            return None
        name, value = pair
        if type(name) is not str or type(value) is not str:
            return None
        kind = kinds.get(name)
        if kind is None or not (value.isascii() and value.isprintable()):
            return None
        if kind == "content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                return None
            length = int(value)
        elif kind == "date":
            dated = True
        elif kind == "server":
            served = True
        elif kind:
            return None
    return headers.copy(), length, dated, served


def encode(
    code: int,
    reason: str,
    headers: list[tuple[str, str]],
    stamp: bytes,
    framing: bytes,
    end: bytes,
) -> bytes:
    """Encode a response's head that has been checked: its status line, headers, and three parts."""
    lines = [f"HTTP/1.1 {code} {reason}\r\n"]
    for name, value in headers:
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1") + stamp + framing + end
