"""Whom a server believes, and which addresses are one client's."""

import pytest

from bide.errors import SettingError
from bide.exchange.trust import KNOWN, Trust, household
from tests.failures import Failures, same

# networks, the addresses that are in them, and those that are not
NETWORKS = [
    ([], [], ["", "127.0.0.1", "::1"]),
    (["10.0.0.1"], ["10.0.0.1", "::ffff:10.0.0.1"], ["10.0.0.2", "", "::1"]),
    (["10.0.0.0/8"], ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0", "::a00:1"]),
    (["fd00::/8"], ["fd00::1", "fdff:1:2:3:4:5:6:7"], ["fe80::1", "10.0.0.1", ""]),
    (["fe80::/10"], ["fe80::1%eth0"], ["fec0::1"]),
    (["unix:"], [""], ["127.0.0.1"]),
    (["10.0.0.0/8, ::1", "unix:"], ["10.1.1.1", "::1", ""], ["127.0.0.1"]),
    (["0.0.0.0/0"], ["192.0.2.1"], ["2001:db8::1", ""]),
]

WRONG = {
    "*": "every client",
    "proxy.example": "is not a network",
    "10.0.0.1/8": "has host bits set",
    "10.0.0.0/33": "is not a network",
    "010.0.0.1": "is not a network",
    "10.0.0.1:80": "is not a network",
    "[::1]": "is not a network",
    "": "is not a network",
    "unix:/run/proxy.sock": "is not a network",
}

HOUSEHOLDS = {
    "192.0.2.7": "192.0.2.7",
    "::ffff:192.0.2.7": "192.0.2.7",
    "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
    "2001:db8:1:2::": "2001:db8:1:2::/64",
    "2001:db8:1:3::": "2001:db8:1:3::/64",
    "fe80::1%eth0": "fe80::/64",
}


def test_a_trusted_network_has_its_addresses_and_no_other() -> None:
    """Of both families, with an IPv4 address in IPv6 being that of IPv4."""
    with Failures() as failures:
        for networks, inside, outside in NETWORKS:
            trust = Trust(networks)
            for address in (*inside, *outside):
                with failures.of(f"{address!r} in {networks}"):
                    for _ in range(2):  # the second answer is one that was kept
                        same(trust.trusts(address), address in inside)


def test_a_network_that_is_none_is_refused_in_a_line_that_says_what_to_write() -> None:
    """A name could change its address; an asterisk would believe everybody."""
    with Failures() as failures:
        for text, said in WRONG.items():
            with failures.of(text), pytest.raises(SettingError, match=said) as raised:
                Trust([text])
            with failures.of(f"{text}, what to write"):
                assert "10.0.0.0/8" in str(raised.value)


def test_what_is_kept_of_addresses_is_bounded() -> None:
    """Clients come from any number of addresses."""
    trust = Trust(["10.0.0.0/8"])
    for number in range(KNOWN + 10):
        assert not trust.trusts(f"192.0.{number // 256}.{number % 256}")
    assert len(trust._known) <= KNOWN
    assert trust.trusts("10.0.0.1")


def test_one_client_is_an_address_or_a_network_of_ipv6() -> None:
    """Whoever has an IPv6 address has, as a rule, the other 2 ** 64 of its network too."""
    with Failures() as failures:
        for address, expected in HOUSEHOLDS.items():
            with failures.of(address):
                same(household(address), expected)
