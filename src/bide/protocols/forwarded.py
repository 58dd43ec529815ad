"""What proxies say of their clients in headers: ``X-Forwarded-…``, and ``Forwarded`` (RFC 7239).

Pure functions over texts; every pattern is linear. Each proxy adds to the right what it knows of
whoever has connected to it. So a list is read from the right, as far as the proxies are trusted:
what stands to the left of that, anybody may have written, and it is never looked at.

What is malformed is as if the client were not known. It is not skipped: the next value to the left
could be anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from bide.errors import RemoteProtocolError
from bide.exchange.messages import Request, decoded
from bide.exchange.peer import FORWARDING
from bide.exchange.trust import KNOWN, address_of
from bide.protocols.http1.syntax import check_host

KEYS: Final = {key.removeprefix("HTTP_").lower().replace("_", "-"): key for key in FORWARDING}
"""The headers that are read here, in lower case, and CGI's key of each."""

MOST_HOPS: Final = 100
"""Elements of a list that are looked at."""
LONGEST: Final = 4096
"""Characters of a ``Forwarded`` header that is read; all of it is, however little is trusted."""

_FORWARDED, _FOR, _PROTO, _HOST, _PORT, _PREFIX = FORWARDING
_NAMES: Final = {name.encode(): key for name, key in KEYS.items()} | {b"host": "HTTP_HOST"}
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PAIR: Final = re.compile(
    rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\xff])*+)")'
)
_ESCAPED: Final = re.compile(r"\\(.)")
_BETWEEN: Final = re.compile(r"[ \t]*+([;,]|\Z)[ \t]*+")
_BLANKS: Final = re.compile(r"[ \t]*+")
# RFC 7239 section 6; and an IPv6 address by itself, which X-Forwarded-For has.
_NODE: Final = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]|((?i:unknown)|_[A-Za-z0-9._-]+))"
    r"(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?"
)
_BARE: Final = re.compile(r"[0-9A-Fa-f:.]+")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4}")
_ROOT: Final = re.compile(rb"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
_BAD_ROOT: Final = re.compile(rb"//|[\x00-\x1f\x7f\\]|/\.\.?(?:/|\Z)")
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class NotUnderstood(ValueError):  # noqa: N818 - it says what the text is
    """A text is not what its header may have."""


@dataclass(frozen=True, slots=True)
class Node:
    """Whoever has connected to a proxy.

    Attributes:
        address: empty where it is not known, or hidden.
        port: 0 where it is not known.
    """

    address: str
    port: int


UNKNOWN: Final = Node("", 0)


@dataclass(slots=True)
class Told:
    """What the headers say, as far as it is believed.

    Attributes:
        client: the client; None where no header says anything of it.
        scheme: "http" or "https"; empty where none says it, as in the others.
        host: as in a ``Host`` header.
        port: 0 where none says it.
        root: the part of the path that a proxy has taken away, decoded.
        headers: the headers themselves, by CGI's keys, without what is not believed.
        doubtful: the keys of those that were malformed, or contradicted another.
    """

    client: Node | None = None
    scheme: str = ""
    host: str = ""
    port: int = 0
    root: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)


def find(request: Request, wanted: frozenset[str]) -> dict[str, str]:
    """Return some headers of a request by CGI's keys; repeated ones are joined.

    Args:
        request: the request.
        wanted: the keys of those that are to be found: of ``KEYS``, or ``HTTP_HOST``.
    """
    fields = request.fields
    if fields is not None:
        pairs = [each for each in zip(fields[::2], fields[1::2], strict=True) if each[0] in wanted]
    else:
        known = [(_NAMES.get(name.lower(), ""), value) for name, value in request.headers]
        pairs = [(key, value.decode("latin-1")) for key, value in known if key in wanted]
    found = dict(pairs)
    if len(found) < len(pairs):
        found = {key: ",".join(text for name, text in pairs if name == key) for key in found}
    return found


def read(said: dict[str, str], trusts: Callable[[str], bool]) -> Told:
    """Read headers that a trusted proxy has sent.

    Where ``Forwarded`` contradicts another header, neither is believed: one of the two may have
    come from the client, through a proxy that does not know it.

    Args:
        said: from :func:`find`.
        trusts: whether an address is that of a trusted proxy.
    """
    told = Told()
    hops = 1
    chain = _listed(said[_FOR]) if _FOR in said else None
    if chain:
        told.client, hops, good = _walk((_node(each) for each in reversed(chain)), trusts)
        if good:
            told.headers[_FOR] = ", ".join(chain[-hops:])
        else:
            told.doubtful.add(_FOR)
    for key, text in said.items():
        take = _TAKE.get(key)
        values = _listed(text) if take is not None else None
        if take is not None and values:
            value = values[-min(hops, len(values))]
            try:
                take(told, value)
                told.headers[key] = value
            except NotUnderstood:
                told.doubtful.add(key)
    if said.get(_FORWARDED):
        _compare(told, _read_forwarded(said[_FORWARDED], trusts))
    return told


def _listed(text: str) -> list[str]:
    """Return the elements of a list that are not empty (RFC 9110 section 5.6.1.2).

    Of a list that is longer than any chain of proxies the first one is the rest, unparted.
    """
    if "," not in text:
        return [text] if text else []  # values have no outer blanks
    parts = text.rsplit(",", MOST_HOPS)
    return [each for part in parts if (each := part.strip(" \t"))]


def _walk(nodes: Iterable[Node | None], trusts: Callable[[str], bool]) -> tuple[Node, int, bool]:
    """Return the first node that is not a trusted proxy, or the last one; and how many hops it was.

    The last value is whether all that was looked at is well-formed; a malformed node is None.
    """
    node, hops = UNKNOWN, 0
    for hops, each in enumerate(nodes, 1):
        if each is None:
            return UNKNOWN, hops, False
        node = each
        if not node.address or not trusts(node.address):
            break
    return node, hops, True


@lru_cache(KNOWN)
def _node(text: str, bare: bool = True) -> Node | None:
    """Parse a node; None if it is malformed. ``bare``: whether IPv6 may stand without brackets."""
    match = _NODE.fullmatch(text)
    if match is None:
        return _address(text, "0") if bare and _BARE.fullmatch(text) else None
    if match[3]:
        return UNKNOWN
    return _address(match[1] or match[2], match[4] or "0", bool(match[2]))


def _address(text: str, port: str, brackets: bool = False) -> Node | None:
    if int(port) > 65535 or (brackets and ":" not in text):
        return None
    try:
        return Node(str(address_of(text)), int(port))
    except ValueError:
        return None


def _take_scheme(told: Told, text: str) -> None:
    scheme = _SCHEMES.get(text.lower())
    if scheme is None:
        raise NotUnderstood(text)
    told.scheme = scheme


def _take_host(told: Told, text: str) -> None:
    try:
        check_host(text.encode("latin-1"))
    except RemoteProtocolError:
        raise NotUnderstood(text) from None
    if not text or text.startswith(":"):
        raise NotUnderstood(text)
    told.host = text


def _take_port(told: Told, text: str) -> None:
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        raise NotUnderstood(text)
    told.port = int(text)


def _take_root(told: Told, text: str) -> None:
    raw = text.encode("latin-1")
    root = decoded(raw).rstrip(b"/")
    # Two slashes at the start would make a link to another host of it.
    if not _ROOT.fullmatch(raw) or _BAD_ROOT.search(root):
        raise NotUnderstood(text)
    told.root = root


_TAKE: Final[dict[str, Callable[[Told, str], None]]] = {
    _PROTO: _take_scheme,
    _HOST: _take_host,
    _PORT: _take_port,
    _PREFIX: _take_root,
}


def _read_forwarded(text: str, trusts: Callable[[str], bool]) -> Told:
    told = Told()
    try:
        elements = split_forwarded(text)
        hops = 1
        if any("for" in pairs for pairs, _ in elements):
            nodes = (_node(pairs.get("for", "unknown"), False) for pairs, _ in reversed(elements))
            told.client, hops, good = _walk(nodes, trusts)
            if not good:
                raise NotUnderstood(text)
        if elements:
            pairs, begins = elements[-hops]
            if "proto" in pairs:
                _take_scheme(told, pairs["proto"])
            if "host" in pairs:
                _take_host(told, pairs["host"])
            told.headers[_FORWARDED] = text[begins:].rstrip()
    except NotUnderstood:
        return Told(client=UNKNOWN, doubtful={_FORWARDED})
    return told


def split_forwarded(text: str) -> list[tuple[dict[str, str], int]]:
    """Split a ``Forwarded`` header: the pairs of each element, and where that begins.

    Blanks may stand beside a semicolon, as beside a comma.

    Raises:
        NotUnderstood: it is not what RFC 7239 section 4 allows.
    """
    found: list[tuple[dict[str, str], int]] = []
    pairs: dict[str, str] = {}
    if len(text) > LONGEST:
        raise NotUnderstood(text)
    begins = at = _BLANKS.match(text).end()  # type: ignore[union-attr]  # it may be empty
    while True:
        match = _PAIR.match(text, at)
        if match is not None:
            name = match[1].lower()
            if name in pairs:
                raise NotUnderstood(text)
            pairs[name] = match[2] or _ESCAPED.sub(r"\1", match[3] or "")
            at = match.end()
        between = _BETWEEN.match(text, at)
        if between is None:
            raise NotUnderstood(text)
        at = between.end()
        if between[1] != ";":
            if pairs:
                found.append((pairs, begins))
                pairs = {}
            begins = at
        if not between[1]:
            return found


def _compare(told: Told, also: Told) -> None:
    """Take from ``Forwarded`` what no other header says; believe neither where they differ."""
    against = set()
    if told.client is None or also.client is None:
        told.client = told.client or also.client
    elif told.client.address != also.client.address:
        told.client = UNKNOWN
        against.add(_FOR)
    if told.scheme and also.scheme and told.scheme != also.scheme:
        told.scheme = ""
        against.add(_PROTO)
    else:
        told.scheme = told.scheme or also.scheme
    if told.host and also.host and told.host.lower() != also.host.lower():
        told.host = ""
        against.add(_HOST)
    else:
        told.host = told.host or also.host
    if not against:
        told.headers |= also.headers
    else:
        against.add(_FORWARDED)
    for key in against:
        told.headers.pop(key, None)
    told.doubtful |= against | also.doubtful
