"""PROXY headers and Forwarded name the client that a strict and slow reader finds, or none.

It is the same however the bytes come; no byte behind a PROXY header is a part of it; and what a
client writes before a proxy's own element changes nothing, but that the client may not be known.
The input: a byte that says which of the two it is, and then the bytes themselves.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

from bide.errors import RemoteProtocolError
from bide.exchange.trust import Trust
from bide.protocols.forwarded import KEYS, LONGEST, UNKNOWN, NotUnderstood, read, split_forwarded
from bide.protocols.proxy_header import LONGEST as LONGEST_HEADER
from bide.protocols.proxy_header import Announced, parse
from tests.fuzz.drawing import Source
from tests.fuzz.strict import MalformedError

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
TRUST: Final = Trust(["10.0.0.0/8"])
TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

Ends = tuple[int, str | None]
"""The size of a header, and the address that it names; None for none."""


def check(data: bytes) -> None:
    """Read the input in both ways, and check the invariant."""
    source = Source(data)
    if source.below(2):
        check_announced(source.rest())
    else:
        check_forwarded(source.rest().decode("latin-1"))


def check_announced(wire: bytes) -> None:
    """Compare what a PROXY header says, whole and byte by byte."""
    try:
        expected = strictly(wire)
    except MalformedError:
        expected = None
        with suppress(RemoteProtocolError):
            assert parse(wire) is None, "it was taken, and is malformed"
            assert len(wire) < LONGEST_HEADER, "it is waited for without end"
        return
    found = parse(wire)
    if expected is None:
        assert found is None, "it is not complete"
        return
    assert found is not None, "it is complete"
    assert found.size == expected[0], "its size differs"
    assert host(found) == expected[1], "its client differs"
    for size in range(found.size):
        assert parse(wire[:size]) is None, "it is complete before its end"
    assert parse(wire[: found.size]) == found, "what follows it changes it"


def host(found: Announced) -> str | None:
    """Return the address of the client that was announced, as the system writes it.

    It writes ``::255.255.0.0`` for ``::ffff:0``.
    """
    if found.client is None:
        return None
    address, _ = found.client
    if ":" not in address:
        return address
    return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address))


def strictly(wire: bytes) -> Ends | None:
    """Read a PROXY header slowly; None while it is incomplete."""
    if wire[:12] == SIGNATURE[: len(wire)]:
        return strictly_binary(wire) if len(wire) >= 12 else None
    line, end, _ = wire[:107].partition(b"\n")
    if not end:
        if len(wire) >= 107 or not (b"PROXY ".startswith(wire[:6])):
            raise MalformedError
        return None
    if not line.endswith(b"\r"):
        raise MalformedError
    words = line[:-1].split(b" ")
    size = len(line) + 1
    if words[:2] == [b"PROXY", b"UNKNOWN"] and b"\r" not in line[:-1]:
        return size, None
    families = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}
    if len(words) != 6 or words[0] != b"PROXY" or words[1] not in families:
        raise MalformedError
    addresses = [packed(families[words[1]], each) for each in words[2:4]]
    for port in words[4:]:
        if not port.isdigit() or int(port) > 65535 or str(int(port)).encode() != port:
            raise MalformedError
    return size, shown(addresses[0])


def strictly_binary(wire: bytes) -> Ends | None:
    """Read version 2; it has its signature."""
    if len(wire) > 12 and wire[12] >> 4 != 2:
        raise MalformedError
    if len(wire) > 12 and wire[12] & 15 > 1:
        raise MalformedError
    if len(wire) < 16:
        return None
    size = 16 + wire[14] * 256 + wire[15]
    if size > LONGEST_HEADER:
        raise MalformedError
    family, kind, local = wire[13] >> 4, wire[13] & 15, wire[12] & 15 == 0
    needed = {0: 0, 1: 12, 2: 36, 3: 216}
    if not local and (family > 3 or kind > 2 or size < 16 + needed[family]):
        raise MalformedError
    if len(wire) < size:
        return None
    if local or kind != 1 or family not in (1, 2):
        return size, None
    return size, shown(wire[16:20] if family == 1 else wire[16:32])


def packed(family: int, text: bytes) -> bytes:
    """Return an address as bytes, by the system's own reader."""
    try:
        return socket.inet_pton(family, text.decode("ascii"))
    except (OSError, ValueError):
        raise MalformedError from None


def shown(address: bytes) -> str:
    """Return an address as text; of IPv4 in IPv6, that of IPv4."""
    if len(address) == 16 and address[:12] == bytes(10) + b"\xff\xff":
        address = address[12:]
    if len(address) == 4:
        return ".".join(str(each) for each in address)
    return socket.inet_ntop(socket.AF_INET6, address)


def check_forwarded(text: str) -> None:
    """Compare the pairs of each element, and see that a forged start names nobody."""
    try:
        expected: list[dict[str, str]] | None = slowly(text)
    except MalformedError:
        expected = None
    try:
        found: list[dict[str, str]] | None = [pairs for pairs, _ in split_forwarded(text)]
    except NotUnderstood:
        found = None
    assert found == expected, "the pairs differ"
    told = read({KEYS["forwarded"]: f"{text},for=192.0.2.7;proto=https,for=10.0.0.2"}, TRUST.trusts)
    assert told.client is not None
    assert told.client in (UNKNOWN, type(UNKNOWN)("192.0.2.7", 0)), "the forged part counts"
    chain = f"{text},192.0.2.7,10.0.0.2"
    told = read({KEYS["x-forwarded-for"]: chain}, TRUST.trusts)
    assert told.client == type(UNKNOWN)("192.0.2.7", 0), "the forged part counts"
    everything = read(dict.fromkeys(KEYS.values(), text), TRUST.trusts)
    assert not everything.doubtful & everything.headers.keys()


def slowly(text: str) -> list[dict[str, str]]:
    """Read a Forwarded header character by character (RFC 7239 section 4)."""
    if len(text) > LONGEST:
        raise MalformedError
    found: list[dict[str, str]] = [{}]
    rest = list(text)
    blanks(rest)
    while rest:
        if rest[0] not in ";,":
            name = token(rest).lower()
            if not name or not rest or rest.pop(0) != "=" or name in found[-1]:
                raise MalformedError
            found[-1][name] = value(rest)
        blanks(rest)
        if not rest:
            break
        between = rest.pop(0)
        if between not in ";,":
            raise MalformedError
        if between == ",":
            found.append({})
        blanks(rest)
    return [each for each in found if each]


def blanks(rest: list[str]) -> None:
    """Skip blanks."""
    while rest and rest[0] in " \t":
        rest.pop(0)


def token(rest: list[str]) -> str:
    """Take a token, which may be empty."""
    taken = ""
    while rest and rest[0] in TOKEN:
        taken += rest.pop(0)
    return taken


def value(rest: list[str]) -> str:
    """Take a value."""
    if not rest or rest[0] != '"':
        taken = token(rest)
        if not taken:
            raise MalformedError
        return taken
    rest.pop(0)
    taken = ""
    while rest:
        character = rest.pop(0)
        if character == '"':
            return taken
        if character == "\\":
            if not rest:
                break
            character = rest.pop(0)
        if character != "\t" and (character < " " or character == "\x7f" or character > "\xff"):
            break
        taken += character
    raise MalformedError
