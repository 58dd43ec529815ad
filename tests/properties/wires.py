"""Requests as they go over the wire, good and damaged, and how they are split."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.protocols.fakes import Received

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ"
PATH = b"abcXYZ019-._~!$&'()*+,;=:@%/"
VISIBLE = bytes([*range(0x21, 0x7F), *range(0x80, 0x100)])
MEANT = {
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
}


def of(characters: bytes, least: int = 0, most: int = 8) -> st.SearchStrategy[bytes]:
    """Return bytes out of ``characters``."""
    each = st.sampled_from(list(characters))
    return st.lists(each, min_size=least, max_size=most).map(bytes)


NAME = of(TOKEN, 1).filter(lambda name: name.lower() not in MEANT)
VALUE = st.lists(of(VISIBLE, 1, 5), max_size=3).flatmap(
    lambda words: st.lists(of(b" \t", 1, 2), min_size=len(words), max_size=len(words)).map(
        lambda blanks: b"".join(itertools.chain(*zip(words, blanks, strict=True))).rstrip(b" \t")
    )
)
BLANKS = of(b" \t", 0, 2)
METHOD = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"])
TARGET = st.builds(
    lambda path, query: b"/" + path + query,
    of(PATH),
    st.one_of(st.just(b""), of(PATH + b"?").map(lambda query: b"?" + query)),
)
BODY = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
)
EXTENSION = st.sampled_from([b"", b";a", b";a=b", b';a="b;\\" c"', b";a;b=c"])


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire, and what it means."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    wire: bytes

    @property
    def expected(self) -> tuple[object, ...]:
        """What :func:`tests.protocols.fakes.feed` should say of it."""
        path, _, query = self.target.partition(b"?")
        body = Received(self.body, "complete")
        return (self.method, self.target, path, query, "1.1", self.headers, True, body)


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Return a valid request that keeps its connection."""
    method, target = draw(METHOD), draw(TARGET)
    headers = draw(st.lists(st.tuples(NAME, VALUE), max_size=4))
    headers.insert(draw(st.integers(0, len(headers))), (b"Host", b"example.com"))
    body, framed = b"", b""
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    if framing == "length":
        body = framed = draw(BODY)
        headers.append((b"Content-Length", b"%d" % len(body)))
    elif framing == "chunks":
        chunks = draw(st.lists(BODY.filter(bool), max_size=4))
        extension, trailers = draw(EXTENSION), draw(st.lists(st.tuples(NAME, VALUE), max_size=2))
        body = b"".join(chunks)
        sizes = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
        ends = [b"%b: %b\r\n" % trailer for trailer in trailers]
        framed = b"".join([*sizes, b"0", extension, b"\r\n", *ends, b"\r\n"])
        headers.append((b"Transfer-Encoding", b"chunked"))
    lines = [b"%b %b HTTP/1.1\r\n" % (method.encode(), target)]
    lines += [
        b"%b:%b%b%b\r\n" % (name, draw(BLANKS), value, draw(BLANKS)) for name, value in headers
    ]
    before = b"\r\n" * draw(st.integers(0, 2))
    wire = b"".join([before, *lines, b"\r\n", framed])
    return Sent(method, target, tuple(headers), body, wire)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Split at some places, taken modulo the length."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 4000), max_size=12)


INSERTED = st.sampled_from(
    [
        b"",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\x0b",
        b"\x80",
        b"x",
        b"0",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\nHost: a",
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return one or two valid requests, bytes taken out and put in at up to three places."""
    data = b"".join(each.wire for each in draw(st.lists(requests(), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(INSERTED) + data[place + draw(st.integers(0, 3)) :]
    return data
