"""Chunked bodies end at the same byte, with the same data, as for a strict and slow reader.

Whatever is malformed for it is malformed for Bide, and the other way round, however it is split; no
byte behind the end is a part of the body, and framing without data is bounded. The input: how to
split, how long framing may be, and then the bytes behind a head with ``chunked``.
"""

from __future__ import annotations

from typing import Final

from bide.exchange.limits import Limits
from tests.fuzz.drawing import Source, cut
from tests.fuzz.strict import MalformedError, Reader, ShortError
from tests.protocols.fakes import Received, connect, drain

HEAD: Final = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
AMPLE: Final = Limits(framing=1024**2)
TIGHT: Final = Limits(framing=64)
DUE: Final = 128
"""Bytes of framing that each block of data may bring beside the limit."""


def seed(sample: bytes, number: int) -> bytes:
    """Make an input of a sample's body, chunked or not; the number decides how it is split."""
    cuts = bytes((number * 37 + each * 89) % 256 for each in range(number % 4))
    return bytes([len(cuts)]) + cuts + sample.partition(b"\r\n\r\n")[2]


def check(data: bytes) -> None:
    """Feed the input, and check the invariant."""
    source = Source(data)
    places = [source.below(256) for _ in range(source.below(8))]
    wire = source.rest()
    expected, end = strictly(wire)
    ours, place = singly(wire)
    assert ours.data == expected.data, "the data differ"
    assert ours.end == expected.end, "the end differs"
    assert place == end, "it does not end at the same byte"
    split = wholly(cut(wire, places))
    assert split == ours, "it depends on the split"
    bounded(cut(wire, places))


def strictly(wire: bytes) -> tuple[Received, int]:
    """Return what the strict reader makes of it, and where the body ends, -1 if it does not."""
    reader = Reader(wire)
    body = bytearray()
    try:
        reader.chunked(body)
    except ShortError:
        return Received(bytes(body), "waiting"), -1
    except MalformedError:
        return Received(bytes(body), "malformed", 400), -1
    return Received(bytes(body), "complete"), reader.at


def singly(wire: bytes) -> tuple[Received, int]:
    """Return what Bide makes of it byte by byte, and where the body ends, -1 if it does not."""
    client = connect(limits=AMPLE)
    client.send(HEAD)
    stream = client.stream
    body = stream.body
    for at in range(len(wire)):
        client.send(wire[at : at + 1])
        if body.complete:
            return drain(stream), at + 1
        if body.failed:
            assert client.protocol.stopped, "it is parsed on behind an error"
            break
    return drain(stream), -1


def wholly(pieces: list[bytes]) -> Received:
    """Return what Bide makes of it in these pieces."""
    client = connect(limits=AMPLE)
    client.send(HEAD)
    stream = client.stream
    client.send(*pieces)
    return drain(stream)


def bounded(pieces: list[bytes]) -> None:
    """Check that framing beyond its due ends the body, whatever it consists of."""
    client = connect(limits=TIGHT)
    client.send(HEAD)
    stream = client.stream
    came = data = blocks = 0
    for piece in pieces:
        before = stream.body.fed
        client.send(piece)
        if stream.body.complete or stream.body.failed:
            return
        came += len(piece)
        data = stream.body.fed
        # A block of data is two bytes of framing at least, and so no more than a third of them.
        blocks += (stream.body.fed > before) * (1 + len(piece) // 6)
        assert came - data <= TIGHT.framing + DUE * blocks, "framing without end"
