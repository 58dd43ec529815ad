"""RFC 6455 as a table: what the frames of a client come to, whoever serves them.

The numbers are those of the Autobahn test suite's sections. Each case is written from the RFC, and
those of UTF-8 from RFC 3629.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocols.websocket.wires import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    closing,
    frame,
)

EURO = "κόσμε €\U0001f600"
SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 65537)


@dataclass(frozen=True)
class Case:
    """What a client sends on a new WebSocket, and what comes of it.

    Attributes:
        data: its frames.
        messages: what the application receives.
        code: of the close frame that answers; 0: it has none; None: the WebSocket stays open.
        pongs: what its pings are answered with.
    """

    data: bytes
    messages: tuple[str | bytes, ...] = ()
    code: int | None = None
    pongs: tuple[bytes, ...] = ()


def fragments(opcode: int, *parts: bytes, between: bytes = b"") -> bytes:
    """Return a message in fragments, with whole frames between them."""
    first, *middle, last = parts
    return between.join(
        (frame(opcode, first, 0), *(frame(CONT, each, 0) for each in middle), frame(CONT, last))
    )


def octets(opcode: int, data: bytes) -> bytes:
    """Return a message with a fragment for each byte."""
    return fragments(opcode, *(bytes((byte,)) for byte in data))


HELLO = "Hello-µ@ßöäüàá-UTF-8!!"
KOSME = "κ\u1f79σμε".encode()
LONELY = [(0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD)]
CUT = [
    *(bytes.fromhex(each) for each in ("C0", "E080", "F08080", "F8808080", "FC80808080")),
    *(bytes.fromhex(each) for each in ("DF", "EFBF", "F7BFBF", "FBBFBFBF", "FDBFBFBFBF")),
]
VALID: dict[str, list[bytes]] = {
    "6.5 text": [*(f"hello{each}world".encode() for each in "$¢€\U00024b62"), KOSME],
    "6.6 whole code points": [KOSME[:size] for size in (2, 5, 7, 9, 11)],
    "6.7 the first of each length": [each.encode() for each in "\0\x80\u0800\U00010000"],
    "6.9 the last of each length": [each.encode() for each in "\x7f\u07ff\uffff\U0010ffff"],
    "6.11 boundaries": [each.encode() for each in "\ud7ff\ue000\ufffd\U0010ffff"],
    "6.22 noncharacters": [
        chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)
    ],
    "6.23 specials": [chr(each).encode() for each in range(0xFFF9, 0x10000)],
}
INVALID: dict[str, list[bytes]] = {
    "6.6 a code point that is cut": [KOSME[:size] for size in (1, 3, 4, 6, 8, 10)],
    "6.8 the first of 5 and 6 bytes": [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
    "6.10 the last of 4, 5 and 6 bytes": [
        bytes((first,)) + b"\xbf" * size for first, size in ((0xF7, 3), (0xFB, 4), (0xFD, 5))
    ],
    "6.11 beyond the last code point": [b"\xf4\x90\x80\x80"],
    "6.12 a continuation byte that was not expected": [
        b"\x80",
        b"\xbf",
        *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)),
        bytes(range(0x80, 0xC0)),
    ],
    "6.13 a first byte without others": [
        b"".join(bytes((first, 0x20)) for first in range(least, most + 1)) for least, most in LONELY
    ],
    "6.14 a last byte that is missing": CUT,
    "6.15 many of those": [b"".join(CUT)],
    "6.16 bytes that never occur": [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    "6.17 a slash, longer than need be": [
        b"\xc0\xaf",
        *(bytes((first,)) + b"\x80" * size + b"\xaf" for first, size in ((0xE0, 1), (0xF0, 2))),
        *(bytes((first,)) + b"\x80" * size + b"\xaf" for first, size in ((0xF8, 3), (0xFC, 4))),
    ],
    "6.18 the last that are longer than need be": [
        bytes.fromhex(each) for each in ["C1BF", "E09FBF", "F08FBFBF", "F887BFBFBF", "FC83BFBFBFBF"]
    ],
    "6.19 a zero, longer than need be": [
        bytes((first,)) + b"\x80" * size
        for size, first in enumerate((0xC0, 0xE0, 0xF0, 0xF8, 0xFC), 1)
    ],
    "6.20 a surrogate": [
        bytes.fromhex(f"ED{each}")
        for each in ("A080", "ADBF", "AE80", "AFBF", "B080", "BE80", "BFBF")
    ],
    "6.21 two surrogates": [
        bytes.fromhex(f"ED{high}ED{low}")
        for high in ("A080", "ADBF", "AE80", "AFBF")
        for low in ("B080", "BFBF")
    ],
}

CASES: dict[str, Case] = {
    **{f"1.1 text of {n}": Case(frame(TEXT, b"*" * n), ("*" * n,)) for n in SIZES},
    **{f"1.2 binary of {n}": Case(frame(BINARY, b"\xfe" * n), (b"\xfe" * n,)) for n in SIZES},
    "1 a frame that is not masked": Case(frame(TEXT, b"a", mask=b""), (), 1002),
    "1 a mask of zeros": Case(frame(TEXT, b"abcde", mask=bytes(4)), ("abcde",)),
    # Pings and pongs
    **{
        f"2 a ping of {len(data)}": Case(frame(PING, data), pongs=(data,))
        for data in (b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125)
    },
    "2.5 a ping of 126": Case(frame(PING, b"x" * 126), (), 1002),
    "2.7 a pong that nobody asked for": Case(frame(PONG)),
    "2.8 a pong with data": Case(frame(PONG, b"x") + frame(TEXT, b"a"), ("a",)),
    "2.9 a pong, then a ping": Case(frame(PONG, b"x") + frame(PING, b"y"), pongs=(b"y",)),
    "2.10 ten pings": Case(
        b"".join(frame(PING, b"%d" % n) for n in range(10)),
        pongs=tuple(b"%d" % n for n in range(10)),
    ),
    # Reserved bits
    **{
        f"3 reserved bits {bits >> 4} on {opcode}": Case(
            frame(TEXT, b"a") + frame(opcode, b"b", FIN | bits) + frame(PING), ("a",), 1002
        )
        for bits in (RSV1, RSV2, RSV1 | RSV2, RSV3, RSV1 | RSV3, RSV2 | RSV3, RSV1 | RSV2 | RSV3)
        for opcode in (TEXT, BINARY, PING, CLOSE)
    },
    # Opcodes
    **{
        f"4 opcode {n} with {len(data)}": Case(
            frame(TEXT, b"a") + frame(n, data) + frame(PING), ("a",), 1002
        )
        for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
        for data in (b"", b"reserved")
    },
    # Fragments
    "5.1 a fragmented ping": Case(fragments(PING, b"a", b"b"), (), 1002),
    "5.2 a fragmented pong": Case(fragments(PONG, b"a", b"b"), (), 1002),
    "5.3 two fragments": Case(fragments(TEXT, b"a", b"b"), ("ab",)),
    "5.6 a ping between two": Case(
        fragments(TEXT, b"a", b"b", between=frame(PING, b"p")), ("ab",), pongs=(b"p",)
    ),
    "5.9 nothing to go on with": Case(frame(CONT, b"a") + frame(TEXT, b"b"), (), 1002),
    "5.12 nothing to go on with, not its end": Case(frame(CONT, b"a", 0), (), 1002),
    "5.15 a second continuation": Case(
        fragments(TEXT, b"a", b"b") + frame(CONT, b"c", 0) + frame(TEXT, b"d"), ("ab",), 1002
    ),
    "5.16 a continuation before a text": Case(
        (frame(CONT, b"a", 0) + fragments(TEXT, b"b", b"c")) * 2, (), 1002
    ),
    "5.17 a continuation, the last, before a text": Case(
        (frame(CONT, b"a") + fragments(TEXT, b"b", b"c")) * 2, (), 1002
    ),
    "5.18 text in a fragmented text": Case(frame(TEXT, b"a", 0) + frame(TEXT, b"b"), (), 1002),
    "5.18 binary in one": Case(frame(TEXT, b"a", 0) + frame(BINARY, b"b", 0), (), 1002),
    "5.19 five fragments, and pings": Case(
        fragments(TEXT, b"a", b"b", b"c", b"d", b"e", between=frame(PING, b"p")),
        ("abcde",),
        pongs=(b"p",) * 4,
    ),
    "5 three fragments of bytes": Case(fragments(BINARY, b"a", b"", b"b"), (b"ab",)),
    "5 a message behind one in fragments": Case(
        fragments(TEXT, b"a", b"b") + frame(BINARY, b"c") + fragments(BINARY, b"d", b"e"),
        ("ab", b"c", b"de"),
    ),
    # UTF-8
    "6.1 no text": Case(frame(TEXT), ("",)),
    "6.1 no text in fragments": Case(fragments(TEXT, b"", b"", b""), ("",)),
    "6.1 some text in the second of three": Case(fragments(TEXT, b"", b"middle", b""), ("middle",)),
    "6.2 text": Case(frame(TEXT, HELLO.encode()), (HELLO,)),
    "6.2 two fragments": Case(fragments(TEXT, HELLO[:9].encode(), HELLO[9:].encode()), (HELLO,)),
    "6.2 a fragment for each byte": Case(octets(TEXT, HELLO.encode()), (HELLO,)),
    "6.2 and of other text": Case(octets(TEXT, KOSME), (KOSME.decode(),)),
    "6.3 a surrogate in text": Case(frame(TEXT, KOSME + b"\xed\xa0\x80edited"), (), 1007),
    "6.3 a fragment for each byte": Case(octets(TEXT, KOSME + b"\xed\xa0\x80edited"), (), 1007),
    "6.4 at the fragment that has it": Case(
        frame(TEXT, KOSME, 0) + frame(CONT, b"\xf4\x90\x80\x80", 0), (), 1007
    ),
    "6.4 at the byte that cannot follow": Case(
        frame(TEXT, KOSME + b"\xf4", 0) + frame(CONT, b"\x90", 0), (), 1007
    ),
    "6.4 not before": Case(frame(TEXT, KOSME + b"\xf4", 0)),
    "6.4 at the end of the last fragment": Case(fragments(TEXT, b"a", b"\xe2"), (), 1007),
    "6 bytes are never decoded": Case(
        frame(BINARY, b"\xff") + fragments(BINARY, b"\xc0", b"\xff"), (b"\xff", b"\xc0\xff")
    ),
    **{
        f"{name}: {data.hex()}": Case(frame(TEXT, data), (data.decode(),))
        for name, sequences in VALID.items()
        for data in sequences
    },
    **{
        f"{name}: {data.hex()}": Case(frame(TEXT, data), (), 1007)
        for name, sequences in INVALID.items()
        for data in sequences
    },
    # The end
    "7.1.1 a message before a close": Case(frame(TEXT, b"a") + closing(1000), ("a",), 1000),
    "7.1.2 two closes": Case(closing(1000) + closing(1001), (), 1000),
    "7.1.3 a ping behind a close": Case(closing(1000) + frame(PING, b"p"), (), 1000),
    "7.1.4 a message behind a close": Case(closing(1000) + frame(TEXT, b"a"), (), 1000),
    "7.1.5 a close between two fragments": Case(
        fragments(TEXT, b"a", b"b", between=closing(1000)), (), 1000
    ),
    "7.1.6 a long message, a close, and a ping": Case(
        frame(TEXT, b"a" * 262144) + closing(1000) + frame(PING), ("a" * 262144,), 1000
    ),
    "7.3.1 no code": Case(frame(CLOSE), (), 0),
    "7.3.2 one byte": Case(frame(CLOSE, b"\x03"), (), 1002),
    "7.3.4 a reason": Case(closing(1000, "sö".encode()), (), 1000),
    "7.3.5 the longest reason": Case(closing(1000, b"x" * 123), (), 1000),
    "7.3.6 too long a reason": Case(closing(1000, b"x" * 124), (), 1002),
    "7.5.1 a reason that is not UTF-8": Case(closing(1000, b"\xff"), (), 1007),
    **{
        f"7.7 the code {code}": Case(closing(code), (), code)
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 the code {code}": Case(closing(code), (), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}
