"""Certificates and their keys, as files: what they say, and what is wrong with them, in one line.

Python reads a certificate's contents for a client's only. The few that the server needs of its own
are taken from the DER here (RFC 5280 section 4.1).
"""

from __future__ import annotations

import binascii
import itertools
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from bide.errors import SettingError

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL
)
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----")
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_DNS: Final = 0x82
_ADDRESS: Final = 0x87
_UTC: Final = 0x17
_ALTERNATIVE_NAMES: Final = b"\x55\x1d\x11"
_COMMON_NAME: Final = b"\x55\x04\x03"


class Certificate:
    """What one certificate says.

    Attributes:
        subject: whose it is, in DER.
        issuer: who has signed it, in DER.
        ends: until when it is valid.
        names: the host names that it is for, in lower case, as ``*.example.org``; where it names
            none in the way of today, its common name.
    """

    def __init__(self, der: bytes) -> None:
        try:
            (body, _, _) = _parts(_value(der))
            parts = [each for each in _tagged(body) if each[0] != _VERSION]
            _, _, issuer, validity, subject = parts[:5]
            self.issuer = issuer[1]
            self.subject = subject[1]
            self.ends = _time(*list(_tagged(validity[1]))[1])
            extensions = [value for tag, value in parts if tag == _EXTENSIONS]
            self.names = _names(extensions) or _common_names(self.subject)
        except (IndexError, ValueError) as error:
            raise ValueError("it is not a certificate") from error


def _tagged(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the elements of a DER sequence: of each its tag and its value."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("it is cut off")
        yield tag, data[at : at + size]
        at += size


def _parts(data: bytes) -> list[bytes]:
    return [value for _, value in _tagged(data)]


def _value(data: bytes) -> bytes:
    ((tag, value),) = _tagged(data)
    if tag != _SEQUENCE:
        raise ValueError("it is not a sequence")
    return value


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii").removesuffix("Z")
    if tag == _UTC:  # two digits of the year, from 1950 on
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def _names(extensions: list[bytes]) -> tuple[str, ...]:
    """Return the alternative names of some extensions: host names, and addresses as they are."""
    names = []
    for extension in (each for part in extensions for each in _parts(_value(part))):
        what, *_, value = _parts(extension)
        if what == _ALTERNATIVE_NAMES:
            names += [name.decode("ascii") for tag, name in _tagged(_value(value)) if tag == _DNS]
    return tuple(name.lower() for name in names)


def _common_names(subject: bytes) -> tuple[str, ...]:
    names = []
    for pairs in _parts(subject):
        for pair in _parts(pairs):
            what, value = _parts(pair)
            if what == _COMMON_NAME:
                names.append(value.decode("utf-8", "replace").lower())
    return tuple(names)


def read(path: str, what: str) -> bytes:
    """Return the bytes of a file of a setting.

    Args:
        path: the file.
        what: what it is, as "the certificate".

    Raises:
        SettingError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SettingError(f"{what} {path} cannot be read: {error.strerror}") from error


def chain_of(path: str, what: str = "the certificate") -> list[Certificate]:
    """Return the certificates of a file.

    Raises:
        SettingError: it cannot be read, or has none, or one that is none.
    """
    data = read(path, what)
    try:
        chain = [
            Certificate(binascii.a2b_base64(found[1])) for found in _CERTIFICATE.finditer(data)
        ]
    except ValueError as error:  # binascii's error is one
        raise SettingError(f"{what} {path} is damaged: {error}") from error
    if chain:
        return chain
    if data[:1] == b"\x30":
        raise SettingError(
            f"{what} {path} is DER, and not PEM: openssl x509 -inform der -in {path} converts it"
        )
    raise SettingError(f"{what} {path} has no certificate in it: it must be PEM")


class Pair:
    """A certificate with those that verify it, and its key.

    Reading it raises SettingError, which says what is wrong with which file.

    Args:
        certificate: the file of the chain, the server's own first.
        key: the file of the key; the chain's, if empty.
        password_file: the file with the password of the key; empty for none.

    Attributes:
        certificate, key: as given.
        names: the host names that it is for.
        ends: when the first certificate of the chain expires that does.
    """

    def __init__(self, certificate: str, key: str = "", password_file: str = "") -> None:
        self.certificate = certificate
        self.key = key or certificate
        self._password_file = password_file
        chain = chain_of(certificate)
        for lower, upper in itertools.pairwise(chain):
            if lower.issuer != upper.subject:
                raise SettingError(
                    f"the certificates in {certificate} are not in order: the server's own must be "
                    "first, and each must be signed by the next"
                )
        self.names = chain[0].names
        self.ends = min(each.ends for each in chain)
        if not _KEY.search(read(self.key, "the key")):
            where = f"the key {self.key}" if key else f"the certificate {certificate}"
            more = "" if key else "; name the key's file by --key"
            raise SettingError(f"{where} has no private key in it, in PEM{more}")

    def describe(self) -> str:
        """Return what it is, for people."""
        return f"{', '.join(self.names) or self.certificate} until {self.ends:%Y-%m-%d}"

    def expired(self, now: datetime) -> bool:
        """Whether it is not valid any more."""
        return self.ends <= now

    def load(self, context: ssl.SSLContext) -> None:
        """Load it into a context.

        Raises:
            SettingError: the key cannot be read, or is another certificate's.
        """
        try:
            context.load_cert_chain(self.certificate, self.key, self._password())
        except ssl.SSLError as error:
            raise SettingError(self._wrong(error)) from error
        except OSError as error:
            raise SettingError(f"{self.certificate} cannot be read: {error.strerror}") from error

    def _password(self) -> Callable[[], bytes]:
        """Return what OpenSSL calls when the key is encrypted; it asks at the terminal without."""

        def password() -> bytes:
            if not self._password_file:
                raise SettingError(
                    f"the key {self.key} is encrypted: name a file with its password by "
                    "--key-password-file"
                )
            text = read(self._password_file, "the password of the key, in")
            return text.rstrip(b"\r\n")

        return password

    def _wrong(self, error: ssl.SSLError) -> str:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            return f"{self.key} is not the key of the certificate {self.certificate}"
        if self._password_file and error.reason in (
            "BAD_DECRYPT",
            "BAD_PASSWORD_READ",
            None,
            "PEM_LIB",
        ):
            return f"the password in {self._password_file} does not open the key {self.key}"
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"OpenSSL refuses the certificate {self.certificate} with its key: {reason}"
