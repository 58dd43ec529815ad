"""Whom a server believes: the networks of its proxies. And which network a client is of.

It imports no sockets: addresses are texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from bide.errors import SettingError

UNIX: Final = "unix:"
"""The network of all clients on Unix sockets."""
KNOWN: Final = 4096
"""Addresses of which it is kept what they are: to parse one takes 3 µs."""

Network = IPv4Network | IPv6Network


class Trust:
    """The networks of trusted proxies; used on the loop.

    Args:
        networks: addresses, networks as ``10.0.0.0/8``, or ``unix:``; several in one text are
            separated by commas.

    Raises:
        SettingError: one of them is neither.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        names = [name.strip() for each in networks for name in each.split(",")]
        self._unix = UNIX in names
        self._networks = [_network(each) for each in names if each != UNIX]
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return self._unix or bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Whether who connects from an address is a trusted proxy; "" is a Unix socket's."""
        if not address:
            return self._unix
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            host = address_of(address)
            known = self._known[address] = any(host in each for each in self._networks)
        return known


def address_of(text: str) -> IPv4Address | IPv6Address:
    """Return an address; an IPv4 address in IPv6 (``::ffff:192.0.2.1``) as that of IPv4.

    Raises:
        ValueError: it is not an address.
    """
    address = ip_address(text.partition("%")[0])  # without the zone of a link-local one
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


@lru_cache(KNOWN)
def household(address: str) -> str:
    """Return the address, or of IPv6 the /64 network, since one client has all addresses of that.

    Raises:
        ValueError: it is not an address.
    """
    host = address_of(address)
    if isinstance(host, IPv4Address):
        return str(host)
    return str(IPv6Network((int(host) >> 64 << 64, 64)))


def _network(text: str) -> Network:
    if text == "*":
        raise SettingError(
            "trust is '*', which would let every client say who it is: name the networks of your "
            "proxies, for example 10.0.0.0/8"
        )
    try:
        return ip_network(text)
    except ValueError as error:
        raise SettingError(
            f"trust has {text!r}, which is not a network ({error}): write an address, a network "
            "like 10.0.0.0/8 or fd00::/8, or unix: for Unix sockets"
        ) from None
