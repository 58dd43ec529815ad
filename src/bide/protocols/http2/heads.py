"""The heads of requests and responses, between HTTP/2's fields and Bide's own heads.

What HTTP/1 refuses in a head is refused here too (RFC 9113 sections 8.2 and 8.3): what an
application is given is as safe, whatever the client speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bide.errors import RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Head, Request
from bide.protocols.http1.syntax import body_too_large, check_host, is_method, split_target, stamp

Fields = Iterable[tuple[bytes, bytes]]

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_LENGTH: Final = re.compile(rb"0*+[0-9]{0,18}(?<=[0-9])")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority", b":protocol"})
_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_GOOD: Final[dict[bytes, bool]] = {}
"""Names that have been checked. Bounded, for clients can send any."""
_FINE: Final[set[tuple[bytes, bytes]]] = set()
"""Fields that have been checked, bounded likewise. Most requests have the same ones."""
_URGENCY: Final = re.compile(rb"(?:^|,)[ \t]*u=([0-7])(?=[ \t]*(?:,|;|$))")
_INCREMENTAL: Final = re.compile(rb"(?:^|,)[ \t]*i(?:=\?([01]))?(?=[ \t]*(?:,|;|$))")


class RequestHead:
    """What the head of a request says, beside the request itself.

    Attributes:
        request: the request.
        length: bytes that its body is to have; None: it does not say.
        expects_continue: whether its client waits to be told to send its body.
        protocol: the protocol that it asks for (RFC 8441), as ``websocket``; empty for none.
        priority: the value of its ``priority``; empty for none.
    """

    __slots__ = ("expects_continue", "length", "priority", "protocol", "request")

    def __init__(self, fields: Fields, ended: bool, limits: Limits) -> None:
        """Take the fields of a request.

        Args:
            fields: pairs of name and value, in order.
            ended: whether no body follows.
            limits: what a client may ask.

        Raises:
            RemoteProtocolError: the request must be refused; with the status to answer.
        """
        pseudo, headers, meant = _sorted(fields, limits)
        method = pseudo.get(b":method", b"")
        self.protocol = _protocol(method, pseudo)
        target = pseudo.get(b":path", b"")
        if pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
            raise RemoteProtocolError("the request has no :scheme of http or https")
        if not is_method(method):
            raise RemoteProtocolError("the :method is not a token")
        if not (target.startswith(b"/") or target == b"*") or not _TARGET.fullmatch(target):
            raise RemoteProtocolError("the :path is not a path")
        name = method.decode("ascii")
        path, query, _ = split_target(name, target)
        if len(method) + len(target) + 10 > limits.request_line:  # as if it were a line
            raise RemoteProtocolError("the request line is too long", 414)
        host = _host(pseudo.get(b":authority"), meant.get(b"host"))
        cookies = [value for key, value in headers if key == b"cookie"]
        if len(cookies) > 1:
            headers = [each for each in headers if each[0] != b"cookie"]
            headers.append((b"cookie", b"; ".join(cookies)))
        headers = [(b"host", host), *(each for each in headers if each[0] != b"host")]
        self.request = Request(name, target, path, query, "2", headers)
        self.request.has_body = not ended
        self.priority = meant.get(b"priority", b"")
        self.length = _length(meant.get(b"content-length"), ended, limits)
        expect = meant.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            raise RemoteProtocolError("the only expectation known here is 100-continue", 417)
        self.expects_continue = expect is not None and not ended


def _sorted(
    fields: Fields, limits: Limits
) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    """Return the pseudo-headers, the headers, and those headers that mean something here."""
    pseudo: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    meant: dict[bytes, bytes] = {}
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + 4  # as in a head of HTTP/1
        if name.startswith(b":"):
            if headers or name in pseudo or name not in _PSEUDO:
                raise RemoteProtocolError(
                    "a pseudo-header is unknown, repeated or in the wrong place"
                )
            if not _VALUE.fullmatch(value):
                raise RemoteProtocolError("a pseudo-header has a value that is not allowed")
            pseudo[name] = value
        else:
            field = (name, value)
            if field not in _FINE:
                check_field(name, value)
                if len(_FINE) < 1024 and len(value) <= 256:
                    _FINE.add(field)
            headers.append(field)
            if name in _MEANT:
                if name in _ONCE and name in meant:
                    raise RemoteProtocolError(f"the request has two {name.decode()} headers")
                meant[name] = meant[name] + b"," + value if name in meant else value
    if len(headers) + (b"host" not in meant) > limits.fields:  # the :authority is one, as in HTTP/1
        raise RemoteProtocolError(f"the request has more than {limits.fields} headers", 431)
    if size > limits.head:
        raise RemoteProtocolError("the head of the request is too long", 431)
    return pseudo, headers, meant


_ONCE: Final = frozenset({b"host", b"content-length"})
_MEANT: Final = _ONCE | {b"expect", b"priority"}


def check_field(name: bytes, value: bytes) -> None:
    """Check a header or a trailer of a request.

    Raises:
        RemoteProtocolError: it may not be there, or has a character that it may not have.
    """
    if name not in _GOOD:
        _check_name(name)
    if not _VALUE.fullmatch(value):
        raise RemoteProtocolError("a header has blanks around its value, or a control character")
    if name == b"te" and value.lower() != b"trailers":
        raise RemoteProtocolError("the header te says something else than trailers")


def _check_name(name: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise RemoteProtocolError("the name of a header is not a token in lower case")
    if name in _OF_THE_CONNECTION:
        raise RemoteProtocolError(f"the header {name.decode()} is for HTTP/1 alone")
    if len(_GOOD) < 1024 and len(name) <= 64:
        _GOOD[name] = True


def _protocol(method: bytes, pseudo: dict[bytes, bytes]) -> str:
    """Return the protocol that an extended CONNECT asks for (RFC 8441 section 4)."""
    protocol = pseudo.get(b":protocol")
    if protocol is None:
        if method == b"CONNECT":
            raise RemoteProtocolError("this is not a proxy: CONNECT is not served", 405)
        return ""
    if method != b"CONNECT" or not _METHOD.fullmatch(protocol):
        raise RemoteProtocolError("the :protocol is not one, or goes with another method")
    return protocol.decode("ascii").lower()


def _host(authority: bytes | None, host: bytes | None) -> bytes:
    """Return the one host that a request names (RFC 9113 section 8.3.1)."""
    if authority is not None and host is not None and authority.lower() != host.lower():
        raise RemoteProtocolError("the :authority and the Host header name two hosts")
    name = host if authority is None else authority
    if name is None:
        raise RemoteProtocolError("the request has neither :authority nor Host")
    if authority is not None and (not authority or b"@" in authority):
        raise RemoteProtocolError("the :authority has no host, or a user in it")
    check_host(name)
    return name


def _length(text: bytes | None, ended: bool, limits: Limits) -> int | None:
    if text is None:
        return 0 if ended else None
    if not _LENGTH.fullmatch(text):
        raise RemoteProtocolError("the Content-Length is not a number of bytes")
    length = int(text)
    if ended and length:
        raise RemoteProtocolError("the request has a Content-Length and no body")
    if length > limits.body > 0:
        raise body_too_large(limits.body)
    return length


def as_upgrade(request: Request) -> None:
    """Make an extended CONNECT what it would have been in HTTP/1, as applications know it.

    Flask, and middleware, look at ``Upgrade`` and ``Connection``. No client of HTTP/2 can send
    these itself: such a request is refused.
    """
    request.method = "GET"
    request.has_body = False
    request.headers.extend(((b"connection", b"Upgrade"), (b"upgrade", b"websocket")))


def priority_of(value: bytes) -> tuple[int, bool]:
    """Return a priority's urgency, 0 to 7, and whether it is incremental (RFC 9218 section 4).

    What is malformed counts as left out.
    """
    urgency = _URGENCY.search(value)
    incremental = _INCREMENTAL.search(value)
    return (
        3 if urgency is None else int(urgency[1]),
        incremental is not None and incremental[1] != b"0",
    )


_stamped: tuple[bytes, list[tuple[bytes, bytes]]] = (b"", [])


def _stamp_fields(dated: bool, served: bool) -> list[tuple[bytes, bytes]]:
    """Return the fields Date and Server of this second, as :func:`stamp` returns lines."""
    global _stamped
    lines = stamp(dated, served)
    kept, fields = _stamped
    if kept is lines:
        return fields
    fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        fields.append((name.lower(), value))
    if not (dated or served):
        _stamped = (lines, fields)  # one tuple, for any thread
    return fields


def response_fields(head: Head, length: int | None) -> list[tuple[bytes, bytes]]:
    """Return the fields of a response.

    Args:
        head: its head.
        length: bytes of the body, if they are to be said and the head does not say them.
    """
    fields = [(b":status", b"%d" % head.code), *fields_of(head.headers)]
    fields += _stamp_fields(head.dated, head.served)
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return fields


def fields_of(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as fields; none that belong to an HTTP/1 connection alone."""
    return [
        (name, value.strip(" \t").encode("latin-1"))
        for name, value in ((each.lower().encode("latin-1"), value) for each, value in headers)
        if name not in _OF_THE_CONNECTION
    ]
