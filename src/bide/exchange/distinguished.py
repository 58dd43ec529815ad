"""The names in certificates (X.500), as text. It imports no sockets."""

from __future__ import annotations

from typing import Any, Final

_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "emailAddress",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "userId": "UID",
}
"""What RFC 4514 (section 3), and OpenSSL, call the parts of a name."""


def distinguished_name(parts: Any) -> str:
    """Return a distinguished name, as ``getpeercert`` has it, in the form of RFC 4514."""
    return ",".join(
        "+".join(f"{_SHORT.get(k, k)}={_escaped(v)}" for k, v in p) for p in parts[::-1]
    )


def _escaped(value: str) -> str:
    """Return a value of a name, escaped (RFC 4514 section 2.4)."""
    value = "".join(f"\\{each}" if each in '"+,;<>\\' else each for each in value)
    value = value.replace("\0", "\\00")
    if value[:1] in (" ", "#"):
        value = f"\\{value}"
    return f"{value[:-1]}\\ " if len(value) > 1 and value[-1] == " " else value
