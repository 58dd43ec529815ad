"""Blocks of headers (HPACK, RFC 7541), with what the package hpack takes longer for.

What is decoded and encoded here is what almost every block has; hpack does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hpack import Decoder, InvalidTableIndex, OversizedHeaderListError
from hpack.table import HeaderTable

_STATIC: Final = HeaderTable.STATIC_TABLE
_STATIC_LENGTH: Final = len(_STATIC)
_OVERHEAD: Final = 32
"""Bytes that each field counts beside its name and its value (RFC 7541 section 4.1)."""
_TABLE: Final = 4096
"""Bytes of the table at most, whatever the client allows."""
_SEEN: Final = 128
"""Fields that are remembered, to see whether they come again."""
_NEVER: Final = frozenset(
    {b"content-length", b"set-cookie", b"etag", b"last-modified", b"location"}
)
"""Names whose values seldom come again; cookies also since they are secret."""


class FieldDecoder(Decoder):
    """Decodes blocks of headers; under the connection's lock.

    Attributes:
        most: fields of a block; one with more is malformed.
    """

    most = 256

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:  # noqa: ARG002 - it is so
        """Decode a block; return its fields, as bytes.

        Raises:
            HPACKError: it is malformed, or too large.
        """
        fields: list[Any] = []
        entries = self.header_table.dynamic_entries
        at, end, size = 0, len(data), 0
        view = memoryview(data)
        while at < end:
            first = data[at]
            if 0x80 < first < 0xFF:  # an index of one byte
                index = (first & 0x7F) - 1
                if index < _STATIC_LENGTH:
                    field: Any = _STATIC[index]
                elif index - _STATIC_LENGTH < len(entries):
                    field = entries[index - _STATIC_LENGTH]
                else:
                    raise InvalidTableIndex(f"Invalid table index {index + 1}")
                at += 1
            else:
                field, used = self._decode_other(first, view[at:], bool(fields))
                at += used
                if field is None:
                    continue
            fields.append(field)
            size += len(field[0]) + len(field[1]) + _OVERHEAD
            if size > self.max_header_list_size or len(fields) > self.most:
                raise OversizedHeaderListError("the head is too long")
        self._assert_valid_table_size()
        return fields

    def _decode_other(self, first: int, data: memoryview, begun: bool) -> tuple[Any, int]:
        """Decode all but an index of one byte; return the field, or None, and the bytes used."""
        if first & 0x80:
            return self._decode_indexed(data)
        if first & 0x40:
            return self._decode_literal_index(data)
        if first & 0x20 and not begun:
            return None, self._update_encoding_context(data)
        return self._decode_literal_no_index(data)


class FieldEncoder:
    """Encodes blocks of headers; under the connection's lock.

    A field goes into the table when it comes for the second time, for most that come once are
    different each time. What is encoded is kept until the table changes.
    """

    __slots__ = ("_kept", "_resized", "_seen", "_table")

    def __init__(self) -> None:
        self._table = HeaderTable()
        self._kept: dict[tuple[bytes, bytes], bytes] = {}
        self._seen: set[tuple[bytes, bytes]] = set()
        self._resized = False

    @property
    def header_table_size(self) -> int:
        """Bytes of the table, as the client allows."""
        return self._table.maxsize

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        self._table.maxsize = min(size, _TABLE)
        self._resized = True
        self._kept.clear()

    def encode(self, fields: Iterable[tuple[bytes, bytes]], huffman: bool = True) -> bytes:  # noqa: ARG002
        """Encode fields."""
        parts = []
        if self._resized:
            self._resized = False
            parts.append(_integer(0x20, 5, self._table.maxsize))
        kept = self._kept
        for field in fields:
            part = kept.get(field)
            parts.append(self._encode(field) if part is None else part)
        return b"".join(parts)

    def _encode(self, field: tuple[bytes, bytes]) -> bytes:
        name, value = field
        found = self._table.search(name, value)
        if found is not None and found[2] is not None:
            part = _integer(0x80, 7, found[0])
            self._kept[field] = part
            return part
        index = 0 if found is None else found[0]
        if name in _NEVER:  # their names are in the static table
            part = _literal(0x10 if name == b"set-cookie" else 0, 4, index, name, value)
            if name == b"content-length" and len(self._kept) < _SEEN:
                self._kept[field] = part
            return part
        if field not in self._seen:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(field)
            return _literal(0, 4, index, name, value)
        self._seen.discard(field)
        part = _literal(0x40, 6, index, name, value)
        self._table.add(name, value)
        self._kept.clear()
        return part


def _integer(first: int, bits: int, number: int) -> bytes:
    """Encode a number (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((first | number,))
    encoded = bytearray((first | most,))
    number -= most
    while number >= 128:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _literal(first: int, bits: int, index: int, name: bytes, value: bytes) -> bytes:
    """Encode a field by its name's index, if it has one, and its value (section 6.2)."""
    parts = [_integer(first, bits, index)]
    if not index:
        parts += (_integer(0, 7, len(name)), name)
    parts += (_integer(0, 7, len(value)), value)
    return b"".join(parts)
