"""A chunked body (RFC 9112 section 7.1): where its data is, and where it ends.

It reads sizes, extensions and data itself, so that data costs the same whatever it consists of, and
a size line is refused at its first bad byte however it is split. Trailers are passed on to the
parser of fields. Bytes only: no sockets, no threads.
"""

from __future__ import annotations

import re
from typing import Final

from bide.errors import RemoteProtocolError
from bide.exchange.limits import Limits

_EMPTY_LINE: Final = b"\r\n\r\n"
_FRAMING_DUE: Final = 128
"""Bytes of framing that each chunk may bring: far more than any client needs."""
CHUNK_DUE: Final = 64
"""Bytes of data for each chunk beyond the limit. A million chunks of one byte are an attack."""
_LARGEST: Final = 2**64

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
"""A whole size line without extensions, as nearly every client sends it."""

# The states of reading. First the places in a size line:
#   chunk-size *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) CRLF
_FIRST: Final = "first digit"
_SIZE: Final = "size"
_BEFORE_SEMICOLON: Final = "blanks before a semicolon"
_EXTENSION: Final = "after a semicolon"
_NAME: Final = "name"
_AFTER_NAME: Final = "blanks behind a name"
_EQUALS: Final = "after an equals sign"
_VALUE: Final = "value"
_QUOTED: Final = "quoted value"
_ESCAPED: Final = "after a backslash"
_UNQUOTED: Final = "after a quoted value"
_LINE_FEED: Final = "after the line's CR"
# And then:
_DATA: Final = "data"
_DATA_CR: Final = "after the data"
_DATA_LF: Final = "after the data's CR"
_TRAILERS: Final = "trailers"
_DONE: Final = "done"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_TEXT: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # RFC 9110 section 5.6.4
_QUOTABLE: Final = rb"(?:[\t !#-\[\]-~\x80-\xff]++|\\[\t -~\x80-\xff])*"
# No group is possessive: CPython before 3.11.5 gets those wrong. None is tried in two ways.
_WHOLE: Final = rb"(?:[ \t]*+%b++(?:[ \t]*+=[ \t]*+(?:%b++|\"%b\"))?[ \t]*+;)*" % (
    _TOKEN,
    _TOKEN,
    _QUOTABLE,
)

_RUNS: Final = {
    state: re.compile(pattern)
    for state, pattern in {
        _FIRST: rb"",
        _SIZE: rb"[0-9A-Fa-f]*+",
        _BEFORE_SEMICOLON: rb"[ \t]*+",
        # Extensions that are whole are taken here, at once; the other states are for what is split.
        _EXTENSION: _WHOLE + rb"[ \t]*+",
        _NAME: _TOKEN + rb"*+",
        _AFTER_NAME: rb"[ \t]*+",
        _EQUALS: rb"[ \t]*+",
        _VALUE: _TOKEN + rb"*+",
        _QUOTED: _QUOTABLE,
        _ESCAPED: rb"",
        _UNQUOTED: rb"",
        _LINE_FEED: rb"",
    }.items()
}
"""What each state takes; the byte behind it decides which is next."""


def _nexts() -> dict[str, dict[int, str]]:
    token = [each for each in range(256) if re.fullmatch(_TOKEN, bytes([each]))]
    blanks = dict.fromkeys(b" \t", _BEFORE_SEMICOLON)
    extension = dict.fromkeys(b";", _EXTENSION)
    end = dict.fromkeys(b"\r", _LINE_FEED)
    equals = dict.fromkeys(b"=", _EQUALS)
    return {
        _FIRST: dict.fromkeys(b"0123456789abcdefABCDEF", _SIZE),
        _SIZE: blanks | extension | end,
        _BEFORE_SEMICOLON: extension,
        _EXTENSION: dict.fromkeys(token, _NAME),
        _NAME: dict.fromkeys(b" \t", _AFTER_NAME) | equals | extension | end,
        _AFTER_NAME: equals | extension,
        _EQUALS: dict.fromkeys(token, _VALUE) | dict.fromkeys(b'"', _QUOTED),
        _VALUE: blanks | extension | end,
        _QUOTED: dict.fromkeys(b'"', _UNQUOTED) | dict.fromkeys(b"\\", _ESCAPED),
        _ESCAPED: dict.fromkeys(_TEXT, _QUOTED),
        _UNQUOTED: blanks | extension | end,
        _LINE_FEED: dict.fromkeys(b"\n", _DATA),
    }


_NEXT: Final = _nexts()


class Chunked:
    """Reads one body, piece by piece.

    Attributes:
        block: the data that the last call of :meth:`receive` has read, or nothing.
        trailers: what it has read for the parser of fields: a last chunk without extensions, and
            the trailers, up to their empty line; or nothing.
    """

    __slots__ = (
        "_chunks",
        "_excess",
        "_fed",
        "_left",
        "_limits",
        "_state",
        "_tail",
        "block",
        "trailers",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _FIRST
        self._left = 0  # the chunk's size, and then its bytes that are still to come
        self._tail = b""  # the last bytes of the trailers, where their empty line may have begun
        self._excess = 0  # bytes of framing beyond their due
        self._chunks = 0
        self._fed = 0  # bytes of data
        self.block = b""
        self.trailers = b""

    @property
    def done(self) -> bool:
        """Whether the body has come to its end."""
        return self._state is _DONE

    def receive(self, data: bytes, at: int) -> int:
        """Read on from ``at`` to the end of a piece, or of the data; return where that is.

        Not called any more when the body is done.

        Raises:
            RemoteProtocolError: the body is malformed, or has too much framing; nothing more of it
                may be read.
        """
        self.block = self.trailers = b""
        size = len(data)
        while at < size:
            state = self._state
            if state is _DATA:
                return self._take_data(data, at)
            if state is _TRAILERS:
                return self._take_trailers(data, at)
            if state is _DATA_CR or state is _DATA_LF:
                at = self._end_data(data, at)
                continue
            if state is _FIRST:
                at = self._take_whole(data, at)
                if self.block:
                    return at
            at = self._read_line(data, at)
        return at

    def _take_whole(self, data: bytes, at: int) -> int:
        """Take chunks without extensions that have come whole: their data together, for speed."""
        limits = self._limits
        excess, chunks, fed = self._excess, self._chunks, self._fed
        blocks = []
        # These lines stay below their due: only what was in excess before can reach the limit.
        while excess + 32 < limits.framing and chunks < limits.chunks + fed // CHUNK_DUE:
            line = _SIZE_LINE.match(data, at)
            if line is None:
                break
            start = line.end()
            size = int(line[1], 16)
            end = start + size
            if not (size and data.startswith(b"\r\n", end)):
                break
            blocks.append(data[start:end])
            chunks += 1
            fed += size
            excess = max(2, excess + start - at - _FRAMING_DUE + 2)
            at = end + 2
        if blocks:
            self._excess, self._chunks, self._fed = excess, chunks, fed
            self.block = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        """Read a size line, as far as it has come, and begin the chunk at its end."""
        start = at
        state = self._state
        while at < len(data) and state is not _DATA:
            end = _RUNS[state].match(data, at).end()  # type: ignore[union-attr]  # any is empty
            if state is _SIZE:
                self._add_digits(data[at:end])
            if end < len(data):
                byte = data[end]
                follower = _NEXT[state].get(byte)
                if follower is None:
                    raise RemoteProtocolError("the size or an extension of a chunk is malformed")
                if state is _FIRST:
                    self._left = int(data[end : end + 1], 16)
                state = follower
            at = end + 1
        at = min(at, len(data))
        self._state = state
        self._count(at - start)
        if state is _DATA:
            self._begin()
        return at

    def _add_digits(self, digits: bytes) -> None:
        if not digits:
            return
        # Leading zeros are digits like others: there may be as many as framing may be long.
        digits = digits.lstrip(b"0") if not self._left else digits
        if len(digits) > 16:
            self._left = _LARGEST
        elif digits:
            self._left = (self._left << 4 * len(digits)) + int(digits, 16)
        if self._left >= _LARGEST:
            raise RemoteProtocolError("the size of a chunk is larger than any file")

    def _begin(self) -> None:
        if not self._left:
            self._state = _TRAILERS
            self._tail = b"\r\n"
            self.trailers = b"0\r\n"
            return
        self._chunks += 1
        self._excess = max(0, self._excess - _FRAMING_DUE)
        if self._chunks > self._limits.chunks + self._fed // CHUNK_DUE:
            raise RemoteProtocolError("the body has too many small chunks")

    def _take_data(self, data: bytes, at: int) -> int:
        end = min(len(data), at + self._left)
        self._left -= end - at
        self._fed += end - at
        if not self._left:
            self._state = _DATA_CR
        self.block = data[at:end]
        return end

    def _end_data(self, data: bytes, at: int) -> int:
        if self._state is _DATA_CR and data.startswith(b"\r\n", at):
            self._state = _FIRST
            self._count(2)
            return at + 2
        if data[at] != (0x0D if self._state is _DATA_CR else 0x0A):
            raise RemoteProtocolError("a chunk is longer than its size")
        self._state = _DATA_LF if self._state is _DATA_CR else _FIRST
        self._count(1)
        return at + 1

    def _take_trailers(self, data: bytes, at: int) -> int:
        # They end with an empty line, and nothing before their end overlaps that one.
        tail = self._tail
        begun = (tail + data[at : at + 3]).find(_EMPTY_LINE)  # across the edge
        found = data.find(_EMPTY_LINE, at) if begun < 0 else at + begun - len(tail)
        if begun < 0 and found < 0:
            end = len(data)
            self._tail = (tail + data[max(at, end - 3) :])[-3:]
        else:
            end = found + 4
            self._state = _DONE
        self.trailers += data[at:end]
        self._count(end - at)
        return end

    def _count(self, framing: int) -> None:
        self._excess += framing
        if self._excess > self._limits.framing:
            raise RemoteProtocolError("the body has more framing than data")
