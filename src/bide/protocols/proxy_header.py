"""The PROXY protocol, versions 1 and 2: the header in which a proxy names its client's address.

It comes before all else on a connection, before TLS too. A pure function over bytes. Source:
HAProxy's ``proxy-protocol.txt``; the sections here are that text's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from bide.errors import RemoteProtocolError
from bide.exchange.trust import address_of

LONGEST: Final = 4096
"""Bytes of a header that is taken: addresses take 232 at most, what follows them has the rest."""
LONGEST_LINE: Final = 107
"""Bytes of a header of version 1, with its CRLF (section 2.1)."""

_START: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16  # bytes of version 2 before the addresses
_PORT: Final = rb"(0|[1-9][0-9]{0,4})"  # without leading zeros
_LINE: Final = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) " + _PORT + b" " + _PORT
)
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_SIZES: Final = {0: 0, 1: 12, 2: 36, 3: 216}
"""Families of version 2 (none, IPv4, IPv6, Unix): bytes of both addresses."""
_STREAM: Final = 1


@dataclass(frozen=True, slots=True)
class Announced:
    """What a header says.

    Attributes:
        size: its bytes.
        named: whether it names the two ends. If not, the proxy speaks for itself, as for a health
            check, or does not say for whom: the connection's own ends count.
        client: host and port of the client; None on a Unix socket.
        server: host and port that it has connected to.
    """

    size: int
    named: bool = False
    client: tuple[str, int] | None = None
    server: tuple[str, int] | None = None


def parse(data: bytes) -> Announced | None:
    """Parse a header, of which more may follow in ``data``; return None while it is incomplete.

    A first byte that no header has is refused at once. As long as this returns None, all of the
    data belongs to the header.

    Raises:
        RemoteProtocolError: it is malformed.
    """
    if data.startswith(b"P") or not data:
        return _parse_line(data)
    start = data[: len(_SIGNATURE)]
    if not _SIGNATURE.startswith(start):
        raise RemoteProtocolError("it does not begin with a PROXY header")
    return _parse_binary(data)


def _parse_line(data: bytes) -> Announced | None:
    """Parse version 1 (section 2.1)."""
    if not _START.startswith(data[: len(_START)]):
        raise RemoteProtocolError("it does not begin with a PROXY header")
    end = data.find(b"\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise RemoteProtocolError("the line of its PROXY header is too long")
        return None
    line = data[: end - 1]
    if data[end - 1 : end] != b"\r":
        raise RemoteProtocolError("the line of its PROXY header does not end with CR LF")
    if _UNKNOWN.fullmatch(line):
        return Announced(end + 1)
    match = _LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError("its PROXY header is malformed")
    kind = IPv4Address if match[1] == b"4" else IPv6Address
    client, server = (_checked(kind, match[each].decode("ascii")) for each in (2, 3))
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise RemoteProtocolError("its PROXY header has a port above 65535")
    return Announced(end + 1, True, (client, ports[0]), (server, ports[1]))


def _checked(kind: type[IPv4Address | IPv6Address], text: str) -> str:
    try:
        return str(address_of(str(kind(text))))
    except ValueError:
        raise RemoteProtocolError("its PROXY header has an invalid address") from None


def _parse_binary(data: bytes) -> Announced | None:
    """Parse version 2 (section 2.2)."""
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise RemoteProtocolError("its PROXY header has an unknown version or command")
    if len(data) < _FIXED:
        return None
    size = _FIXED + int.from_bytes(data[14:16])
    if size > LONGEST:
        raise RemoteProtocolError(f"its PROXY header is longer than {LONGEST} bytes")
    local = data[12] == 0x20
    family, kind = data[13] >> 4, data[13] & 15
    if not local:  # else the rest is to be ignored, whatever it is
        if family not in _SIZES or kind > 2:
            raise RemoteProtocolError("its PROXY header has an unknown kind of address")
        if size < _FIXED + _SIZES[family]:
            raise RemoteProtocolError("its PROXY header is too short for its addresses")
    if len(data) < size:
        return None
    if local or family == 0 or kind != _STREAM:
        return Announced(size)
    if family == 3:
        return Announced(size, True)
    length = 4 if family == 1 else 16
    both, ports = data[_FIXED : _FIXED + 2 * length], _FIXED + 2 * length
    # What follows the ports, in TLV, is skipped.
    return Announced(
        size,
        True,
        (_packed(both[:length]), int.from_bytes(data[ports : ports + 2])),
        (_packed(both[length:]), int.from_bytes(data[ports + 2 : ports + 4])),
    )


def _packed(address: bytes) -> str:
    kind = IPv4Address if len(address) == 4 else IPv6Address
    return str(address_of(str(kind(address))))
