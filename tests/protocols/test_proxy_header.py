"""The PROXY protocol: what a header says, and what is none; bytes in, addresses out."""

import contextlib
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bide.errors import RemoteProtocolError
from bide.protocols.proxy_header import LONGEST, LONGEST_LINE, Announced, parse
from tests.failures import Failures, same

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ENDS = b"\xc0\0\2\7\x0a\0\0\1\xc8\x22\x01\xbb"  # 192.0.2.7:51234 to 10.0.0.1:443
SIX = IPv6Address("2001:db8::7").packed + IPv6Address("fd00::1").packed + b"\xc8\x22\x01\xbb"
CLIENT, SERVER = ("192.0.2.7", 51234), ("10.0.0.1", 443)
CLIENT6, SERVER6 = ("2001:db8::7", 51234), ("fd00::1", 443)


def binary(command: int, kind: int, rest: bytes, size: int | None = None) -> bytes:
    """Return a header of version 2; ``size`` is what it says of its rest."""
    length = len(rest) if size is None else size
    return SIGNATURE + bytes([command, kind]) + length.to_bytes(2) + rest


GOOD: dict[bytes, tuple[bool, tuple[str, int] | None, tuple[str, int] | None]] = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n": (True, CLIENT, SERVER),
    b"PROXY TCP6 2001:db8::7 fd00::1 51234 443\r\n": (True, CLIENT6, SERVER6),
    b"PROXY TCP6 2001:0DB8:0:0::7 FD00::1 51234 443\r\n": (True, CLIENT6, SERVER6),
    b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 51234 443\r\n": (True, CLIENT, SERVER),
    b"PROXY TCP4 192.0.2.7 10.0.0.1 0 65535\r\n": (
        True,
        ("192.0.2.7", 0),
        ("10.0.0.1", 65535),
    ),
    b"PROXY UNKNOWN\r\n": (False, None, None),
    b"PROXY UNKNOWN ffff:f...f:ffff anything 65535 65535\r\n": (False, None, None),
    b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 16) + b"\r\n": (False, None, None),
    binary(0x21, 0x11, ENDS): (True, CLIENT, SERVER),
    binary(0x21, 0x21, SIX): (True, CLIENT6, SERVER6),
    binary(0x21, 0x31, bytes(216)): (True, None, None),  # a Unix socket
    binary(0x21, 0x11, ENDS + b"\x04\0\1x" + b"\x20\0\5\1\0\0\0\0"): (True, CLIENT, SERVER),
    binary(0x21, 0x11, ENDS + bytes(LONGEST - 28)): (True, CLIENT, SERVER),
    binary(0x21, 0x00, b""): (False, None, None),  # it does not say for whom
    binary(0x21, 0x00, b"anything"): (False, None, None),
    binary(0x21, 0x01, b""): (False, None, None),
    binary(0x21, 0x12, ENDS): (False, None, None),  # datagrams
    binary(0x20, 0x00, b""): (False, None, None),  # for itself
    binary(0x20, 0x11, ENDS): (False, None, None),
    binary(0x20, 0xFF, b"x"): (False, None, None),
}

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"P0",
    b"proxy TCP4 192.0.2.7 10.0.0.1 51234 443\r\n",
    b"\x16\x03\x01",  # TLS
    b"\r\n\r\nX",
    b" PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n",
    b"PROXY  TCP4 192.0.2.7 10.0.0.1 51234 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443 \r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 051234 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 00 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 \xd9\xa1 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 51234\r\n",
    b"PROXY TCP4 192.0.2.007 10.0.0.1 51234 443\r\n",
    b"PROXY TCP4 192.0.2.256 10.0.0.1 51234 443\r\n",
    b"PROXY TCP4 ::1 ::1 51234 443\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 51234 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 51234 443\r\n",
    b"PROXY TCP5 192.0.2.7 10.0.0.1 51234 443\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 51234 443\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY unknown\r\n",
    b"PROXY\r\n",
    b"PROXY UNKNOWN a\rb\r\n",
    b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 15) + b"\r\n",
    b"PROXY " + b"x" * LONGEST_LINE,
    binary(0x11, 0x11, ENDS),  # of version 1
    binary(0x31, 0x11, ENDS),
    binary(0x22, 0x11, ENDS),  # an unknown command
    binary(0x21, 0x41, ENDS),  # an unknown family
    binary(0x21, 0x13, ENDS),  # an unknown transport
    binary(0x21, 0x11, ENDS[:-1]),
    binary(0x21, 0x21, SIX[:-1]),
    binary(0x21, 0x31, bytes(215)),
    binary(0x21, 0x11, ENDS, LONGEST - 15),
    binary(0x20, 0x00, b"", 65535),
]


def test_a_header_is_read_the_same_however_it_comes_and_whatever_follows() -> None:
    """Up to its last byte it is incomplete; what follows it is not looked at."""
    with Failures() as failures:
        for data, (named, client, server) in GOOD.items():
            with failures.of(data[:60]):
                expected = Announced(len(data), named, client, server)
                for more in (b"", b"G", b"\r\n", SIGNATURE, b"PROXY UNKNOWN\r\n"):
                    same(parse(data + more), expected, f"before {more!r}")
                for size in range(len(data)):
                    assert parse(data[:size]) is None, f"complete with {size} bytes"


def test_what_is_no_header_is_refused_and_never_taken_for_a_beginning() -> None:
    """Strictly: a proxy that is misunderstood would name the wrong client."""
    with Failures() as failures:
        for data in BAD:
            with failures.of(data[:60]):
                with pytest.raises(RemoteProtocolError):
                    parse(data)
                # Byte by byte it is refused somewhere, and is not complete before.
                for size in range(len(data)):
                    with contextlib.suppress(RemoteProtocolError):
                        assert parse(data[:size]) is None


def test_a_wrong_first_byte_is_refused_at_once() -> None:
    """A client that speaks HTTP or TLS to this port is not left to wait for the time-out."""
    for byte in range(256):
        if byte not in b"P\r":
            with pytest.raises(RemoteProtocolError):
                parse(bytes([byte]))
    assert parse(b"") is parse(b"P") is parse(b"\r") is None


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 300), st.integers(0, 255))
def test_a_changed_byte_gives_a_header_or_a_refusal_and_nothing_else(
    data: bytes, at: int, byte: int
) -> None:
    """Whatever it is, the size that is announced was there, and addresses are addresses."""
    changed = bytearray(data)
    changed[at % len(changed)] = byte
    with contextlib.suppress(RemoteProtocolError):
        announced = parse(bytes(changed))
        if announced is not None:
            assert 0 < announced.size <= len(changed)
            assert announced.named or announced.client is announced.server is None
