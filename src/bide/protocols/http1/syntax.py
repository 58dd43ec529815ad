"""The syntax of HTTP/1.1: what a request line, a host and a status line may look like.

Pure functions over bytes. httptools has checked the characters. Here stands what it is looser
about, or does not know. Every pattern is linear.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from ipaddress import IPv6Address
from typing import Final

from bide.errors import RemoteProtocolError

_METHODS: Final = {
    each.encode(): each
    for each in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")
}
PARSED: Final = frozenset(_METHODS.values())
"""Methods that the parser is given as they came."""
STAND_IN: Final = b"POST"
"""The method that the parser is given for any other: its heads have no rules of their own."""
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_HOST: Final = re.compile(
    rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?)?"
    rb"|\[([0-9A-Fa-f:.]+)\](?::[0-9]{0,5})?"
    rb"|\[v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+\](?::[0-9]{0,5})?"
)
_OTHER_CODINGS: Final = re.compile(
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*,[ \t]*)+chunked", re.IGNORECASE
)
_TRAILING_BLANKS: Final = re.compile(rb"(?<=[^ \t\r\n])[ \t]+\r\n")
_LINE_ENDS: Final = re.compile(rb"[\r\n]*+")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
# Whether a token stands in the list of a Connection header (RFC 9110 section 5.6.1). By a search,
# so that a list of thousands makes no objects.
CLOSES: Final = re.compile(rb"(?:^|,)[ \t]*+close[ \t]*+(?:,|\Z)", re.IGNORECASE)
KEEPS_ALIVE: Final = re.compile(rb"(?:^|,)[ \t]*+keep-alive[ \t]*+(?:,|\Z)", re.IGNORECASE)
HOSTS: Final[set[bytes]] = set()
"""Hosts that have been found good. Bounded, for clients can send any."""
MEANINGS: Final[dict[bytes, bytes]] = {}
"""What header names mean here, as they were sent: in lower case, or nothing. Bounded likewise."""
_MEANT: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}
)


HOPELESS: Final = re.compile(
    rb"^[^!#$%&'*+.^_`|~0-9A-Za-z\r-]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n"
)
"""What no head may have, however it goes on: controls, a bare LF, a first byte of no method."""


_OTHERS: Final = {
    # RFC 8446 section 5.1: a handshake, of TLS 1.0 or later.
    b"\x16\x03": (
        "this is not HTTP but TLS: write http:// in the URL, or give the server a --certificate"
    ),
    b"PROXY ": "this is not HTTP but a PROXY header: see --proxy-protocol",
    b"\x00\r\nQUIT\n": "this is not HTTP but a PROXY header: see --proxy-protocol",  # of version 2
}
"""What a head that begins so is, in place of one of HTTP/1."""


def name_other(error: RemoteProtocolError, head: bytes | bytearray) -> RemoteProtocolError:
    """Return an error that names what came in place of HTTP; the same where that is not known."""
    for begins, told in _OTHERS.items():
        if head.startswith(begins):
            return RemoteProtocolError(told)
    return error


def skip_empty_lines(data: bytes, at: int) -> int:
    """Return where the first line that is not empty begins."""
    end = _LINE_ENDS.match(data, at).end()  # type: ignore[union-attr]  # it may be empty
    if data.count(b"\r\n", at, end) * 2 == end - at:
        return end
    # The CR of one more, or something malformed: looked at pair by pair, which takes longer.
    return _EMPTY_LINES.match(data, at).end()  # type: ignore[union-attr]


def split_request_line(line: bytes) -> tuple[str, bytes, str]:
    """Split a complete request line, without its CRLF, on the wire (RFC 9112 section 3).

    Return method, target and version ("1.1" or "1.0"). Any token is a method (RFC 9110 section
    9.1). llhttp checks the characters of the target, but would accept several spaces, RTSP,
    HTTP/0.9 and HTTP/2.0.

    Raises:
        RemoteProtocolError: 400, or 505 for another version of HTTP.
    """
    parts = line.split(b" ")
    if len(parts) == 3:
        version = _VERSIONS.get(parts[2])
        if version is not None:
            method, target, _ = parts
            # llhttp skips CR and LF before a method, and ends a target at a LF.
            # By find: to ask by ``in`` costs five times as much, for bytes.
            if target.find(b"\n") < 0 and (method in _METHODS or is_method(method)):
                return _METHODS.get(method) or method.decode("ascii"), target, version
        elif re.fullmatch(rb"HTTP/[0-9]\.[0-9]", parts[2]) and not HOPELESS.search(line):
            raise RemoteProtocolError("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    raise RemoteProtocolError("the request line is not `METHOD TARGET HTTP/1.1`")


def is_method(method: bytes) -> bool:
    """Whether this may be a method: any token but the one in HTTP/2's preface (RFC 9113, 3.4)."""
    return method != b"PRI" and _METHOD.fullmatch(method) is not None


def split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Split a request target into path, query and, of an absolute one, authority.

    The authority replaces Host (RFC 9112 section 3.2.2).

    Raises:
        RemoteProtocolError: 400 for a form that does not go with the method.
    """
    if target.find(b"#") >= 0:
        raise RemoteProtocolError("the request target has a fragment")
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return path, query, None
    if target == b"*":
        if method != "OPTIONS":
            raise RemoteProtocolError("the target * goes with OPTIONS only")
        return b"*", b"", None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RemoteProtocolError("the request target is neither a path nor an http URL")
    authority = absolute[2]
    check_host(authority)
    if not authority or authority.find(b"@") >= 0:
        raise RemoteProtocolError("the request target has no host, or a user in it")
    path, _, query = absolute[3].partition(b"?")
    return path or b"/", query, authority


def check_host(host: bytes) -> None:
    """Check the value of Host (RFC 9110 section 7.2); raises RemoteProtocolError, 400."""
    if host in HOSTS:
        return
    match = _HOST.fullmatch(host)
    if match is None or not (match[1] is None or _is_ipv6(match[1])):
        raise RemoteProtocolError("the Host header is not a host and a port")
    if len(HOSTS) < 1024 and len(host) < 256:
        HOSTS.add(host)


def _is_ipv6(literal: bytes) -> bool:
    try:
        IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True


def check_coding(coding: bytes) -> None:
    """Check the value of Transfer-Encoding, which can only be ``chunked`` (RFC 9112 section 6.1).

    Raises:
        RemoteProtocolError: 501 for another coding before chunked; 400 for anything else, since the
            body's length cannot be known.
    """
    if coding.lower() == b"chunked":
        return
    if _OTHER_CODINGS.fullmatch(coding):
        raise RemoteProtocolError("the only transfer coding known here is chunked", 501)
    raise RemoteProtocolError("the Transfer-Encoding is malformed, or does not end with chunked")


def without_trailing_blanks(head: bytes) -> bytes:
    """Remove the blanks at the ends of lines; they belong to no value (RFC 9112 section 5.1).

    llhttp leaves them, and does not recognise ``chunked`` with blanks behind it. A line of nothing
    but blanks stays as it is: it is malformed, and does not end the head.
    """
    return _TRAILING_BLANKS.sub(b"\r\n", head)


def join_repeated(meant: dict[bytes, bytes], repeated: list[tuple[bytes, bytes]]) -> None:
    """Join the values of repeated headers by commas (RFC 9110 section 5.3), all at once.

    Raises:
        RemoteProtocolError: Host is repeated.
    """
    values: dict[bytes, list[bytes]] = {}
    for meaning, value in repeated:
        values.setdefault(meaning, [meant[meaning]]).append(value)
    if b"host" in values:
        raise RemoteProtocolError("the request has two Host headers")
    for meaning, each in values.items():
        meant[meaning] = b",".join(each)


def meaning_of(name: bytes) -> bytes:
    """Return the meaning of a header name that is not in MEANINGS, and keep it there."""
    meaning = name.lower()
    if meaning not in _MEANT:
        meaning = b""
    if len(MEANINGS) < 1024 and len(name) <= 64:
        MEANINGS[name] = meaning
    return meaning


def body_too_large(limit: int) -> RemoteProtocolError:
    """Make the error for a body of more bytes than the limit."""
    return RemoteProtocolError(f"the request's body is longer than {limit} bytes", 413)


def plain_head(remaining: int | None) -> bytes:
    """Return a head that announces a body of so many bytes, or a chunked one, and nothing else."""
    if remaining is None:
        return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % remaining


SERVER_LINE: Final = b"Server: bide\r\n"

_stamp = (0, b"", b"")


def stamp(dated: bool, served: bool) -> bytes:
    """Return the Date and Server headers of this second, without those the application has set.

    RFC 9110 sections 6.6.1 and 10.2.4. From any thread: what is kept is replaced as one tuple.

    Args:
        dated: whether the application has set Date.
        served: whether it has set Server.
    """
    global _stamp
    now = int(time.time())
    second, date, both = _stamp
    if second != now:
        date = b"Date: %b\r\n" % formatdate(now, usegmt=True).encode("ascii")
        both = date + SERVER_LINE
        _stamp = (now, date, both)
    if not (dated or served):
        return both
    return (b"" if dated else date) + (b"" if served else SERVER_LINE)
