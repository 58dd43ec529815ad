"""Readers of HTTP/1 messages after RFC 9112: slow, strict, byte by byte, and written apart.

They are what Bide is compared with, so they share nothing with it, and take nothing that the RFC
only lets a recipient be lenient about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DIGITS: Final = b"0123456789"
HEXADECIMAL: Final = b"0123456789abcdefABCDEF"
TOKEN: Final = (
    b"!#$%&'*+-.^_`|~" + DIGITS + b"abcdefghijklmnopqrstuvwxyz" + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
TEXT: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""HTAB, SP, VCHAR and obs-text, of which field values and reasons consist."""
QUOTED: Final = bytes(each for each in TEXT if each not in b'"\\')

Fields = list[tuple[bytes, bytes]]


class MalformedError(Exception):
    """The bytes are not such a message, however they go on."""


class ShortError(Exception):
    """The bytes end before the message does."""


@dataclass
class Message:
    """One message, as far as it was read.

    Attributes:
        first: the three parts of its first line.
        body: what has come of its body.
        end: "complete", "short", "malformed", or "rest": all that came, whether it is all or not.
    """

    first: tuple[bytes, bytes, bytes]
    fields: Fields
    body: bytearray = field(default_factory=bytearray)
    end: str = "short"

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of a header, whose name is in lower case."""
        return [value for key, value in self.fields if key.lower() == name]

    def tokens(self, name: bytes) -> list[bytes]:
        """Return the members of a header that is a list, in lower case."""
        return [each.strip(b" \t").lower() for each in b",".join(self.all(name)).split(b",")]


class Reader:
    """Reads from bytes that are all there; ``at`` says how far.

    Raises, from every method:
        MalformedError: at the first byte that cannot stand where it does.
        ShortError: the bytes have run out.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def next(self, among: bytes) -> int:
        """Read one byte, which must be one of these."""
        if self.at >= len(self.data):
            raise ShortError
        byte = self.data[self.at]
        if byte not in among:
            raise MalformedError(f"{self.data[self.at :][:40]!r}: not one of {among[:40]!r}")
        self.at += 1
        return byte

    def sees(self, among: bytes) -> bool:
        """Whether the next byte is one of these; it is not read."""
        if self.at >= len(self.data):
            raise ShortError
        return self.data[self.at] in among

    def word(self, among: bytes, least: int = 0) -> bytes:
        """Read all bytes that are some of these."""
        start = self.at
        while self.sees(among):
            self.at += 1
        if self.at - start < least:
            self.next(among)
        return self.data[start : self.at]

    def literally(self, text: bytes) -> None:
        """Read just this."""
        for byte in text:
            self.next(bytes([byte]))

    def end_of_line(self) -> None:
        """Read CRLF; neither will do alone."""
        self.literally(b"\r\n")

    def field_lines(self, trailing: bool = False) -> Fields:
        """Read field lines and the empty line behind them (section 5)."""
        fields: Fields = []
        while not self.sees(b"\r"):
            name = self.word(TOKEN, 1)
            self.literally(b":")
            if trailing:
                self._may_trail(name.lower())
            fields.append((name, self.word(TEXT).strip(b" \t")))
            self.end_of_line()
        self.end_of_line()
        return fields

    def _may_trail(self, name: bytes) -> None:
        """Refuse a trailer that comes too late to say how a message is framed (RFC 9110, 6.5.1)."""
        if name == b"content-length":
            raise MalformedError("a length behind the body")
        if name == b"transfer-encoding":
            self.word(b" \t")
            if self.sees(b"\r"):
                self.end_of_line()
            if not self.sees(b""):
                raise MalformedError("a coding behind the body")

    def counted(self, size: int, into: bytearray) -> None:
        """Read so many bytes."""
        into += self.data[self.at : self.at + size]
        if self.at + size > len(self.data):
            self.at = len(self.data)
            raise ShortError
        self.at += size

    def chunked(self, into: bytearray) -> None:
        """Read a chunked body (section 7.1) with its trailers, whose fields are dropped."""
        while size := self._size():
            self.counted(size, into)
            self.end_of_line()
        self.field_lines(trailing=True)

    def _size(self) -> int:
        size = int(bytes([self.next(HEXADECIMAL)]), 16)
        while self.sees(HEXADECIMAL):
            size = size * 16 + int(bytes([self.next(HEXADECIMAL)]), 16)
            if size >= 2**64:
                raise MalformedError("larger than any file")
        while self.word(b" \t") or self.sees(b";"):
            self._extension()
        self.end_of_line()
        return size

    def _extension(self) -> None:
        """Read an extension, which is dropped; blanks (BWS) may stand around its ; and its =."""
        self.literally(b";")
        self.word(b" \t")
        self.word(TOKEN, 1)
        if self.word(b" \t") and not self.sees(b"="):
            self.next(b";")
            self.at -= 1
        if not self.sees(b"="):
            return
        self.literally(b"=")
        self.word(b" \t")
        if not self.sees(b'"'):
            self.word(TOKEN, 1)
            return
        self.literally(b'"')
        while not self.sees(b'"'):
            if self.sees(b"\\"):
                self.literally(b"\\")
                self.next(TEXT)
            else:
                self.next(QUOTED)
        self.literally(b'"')

    def request(self) -> Message:
        """Read a request (section 3), as far as its head is good and has come."""
        while self.sees(b"\r"):  # section 2.2: an empty line before it is ignored
            self.end_of_line()
        method = self.word(TOKEN, 1)
        self.literally(b" ")
        target = self.word(bytes([*range(0x21, 0x7F), *range(0x80, 0x100)]), 1)
        self.literally(b" HTTP/1.")
        version = b"1.%c" % self.next(b"01")
        self.end_of_line()
        message = Message((method, target, version), self.field_lines())
        self._body(message, old=version == b"1.0", until_end=False)
        return message

    def response(self, method: str) -> Message:
        """Read a response (section 4) to a request of this method, as far as its head has come."""
        self.literally(b"HTTP/1.1 ")
        status = bytes([self.next(DIGITS), self.next(DIGITS), self.next(DIGITS)])
        self.literally(b" ")
        reason = self.word(TEXT)
        self.end_of_line()
        message = Message((b"1.1", status, reason), self.field_lines())
        if method == "HEAD" or status in (b"204", b"304") or status < b"200":
            message.end = "complete"
        else:
            self._body(message, old=False, until_end=True)
        return message

    def _body(self, message: Message, old: bool, until_end: bool) -> None:
        """Read what is behind a head (section 6.3); the message says how it ended."""
        codings = message.all(b"transfer-encoding")
        lengths = message.all(b"content-length")
        if len(codings) + len(lengths) > 1:
            raise MalformedError("more than one length")
        if codings and (old or codings[0].lower() != b"chunked"):
            raise MalformedError("no coding that is known")
        if lengths and not (lengths[0] and all(each in DIGITS for each in lengths[0])):
            raise MalformedError("no length")
        try:
            if codings:
                self.chunked(message.body)
            elif lengths:
                self.counted(int(lengths[0]), message.body)
            elif until_end:
                self.counted(len(self.data) - self.at, message.body)
                message.end = "rest"
                return
            message.end = "complete"
        except ShortError:
            message.end = "short"
        except MalformedError:
            message.end = "malformed"
