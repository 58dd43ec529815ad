"""h11, written independently, as an oracle: what both accept means the same; all else is listed.

Where only one of the two accepts a request, one of the reasons in ``STRICTER`` or ``LAXER`` holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.wires import CUTS, Sent, damaged, requests, split
from tests.protocols.fakes import connect, drain


@dataclass(frozen=True)
class Heard:
    """What came of the first request of some bytes.

    Attributes:
        end: "accepted", with its body; "refused", in its head or its body; or "waiting" for more.
        status: of a refusal of Bide's.
        meaning: of a request that is accepted: method, target, headers and body.
    """

    end: str
    status: int = 0
    meaning: tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes] | None = None


def here(pieces: list[bytes]) -> Heard:
    """Parse by Bide."""
    client = connect()
    client.send(*pieces)
    if not client.owner.begun:
        refused = client.owner.errors
        return Heard("refused", refused[0].status) if refused else Heard("waiting")
    stream = client.owner.begun[0]
    body = drain(stream)
    if body.end != "complete":
        return Heard("refused", body.status) if body.status else Heard("waiting")
    request = stream.request
    headers = [meant(name.lower(), value) for name, value in request.headers]
    return Heard("accepted", 0, (request.method.encode(), request.target, headers, body.data))


def there(wire: bytes) -> Heard:
    """Parse by h11."""
    connection = h11.Connection(h11.SERVER)
    while wire.startswith(b"\r\n"):  # it knows no empty line before a request
        wire = wire[2:]
    connection.receive_data(wire)
    head: h11.Request | None = None
    body = b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return Heard("waiting")
    except h11.RemoteProtocolError:
        return Heard("refused")
    assert head is not None
    headers = [meant(name, value) for name, value in head.headers]
    return Heard("accepted", 0, (head.method, head.target, headers, body))


def meant(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a header as h11 does, which writes a coding in lower case."""
    return name, value.lower() if name == b"transfer-encoding" else value


@dataclass(frozen=True)
class Reason:
    """Why one of the two accepts what the other refuses.

    Attributes:
        rule: the rule, and where it stands.
        example: a request of which it is true.
        status: of Bide's answer; 0 where it is h11 that refuses.
        found: what is in each such request, besides.
    """

    rule: str
    example: bytes
    status: int
    found: bytes = b""

    def holds(self, wire: bytes, status: int) -> bool:
        """Whether this is why."""
        return status == self.status and re.search(self.found, wire) is not None


def get(lines: bytes = b"Host: a\r\n", target: bytes = b"/", body: bytes = b"") -> bytes:
    """Make a request."""
    return b"GET %b HTTP/1.1\r\n%b\r\n%b" % (target, lines, body)


def chunks(body: bytes) -> bytes:
    """Make a request with a chunked body."""
    return get(b"Host: a\r\nTransfer-Encoding: chunked\r\n", body=body)


HOST = b"Host: a\r\n"
TWO_LENGTHS = HOST + b"Content-Length: 1\r\n" * 2
BOTH = HOST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"
OLD_CHUNKS = b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

STRICTER = [
    Reason("no proxy (RFC 9110, 9.3.6)", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    Reason("no such version (RFC 9112, 2.3)", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    Reason("no such expectation (RFC 9110, 10.1.1)", get(HOST + b"Expect: x\r\n"), 417),
    Reason("form of the target (RFC 9112, 3.2)", get(target=b"a"), 400, rb"(?m)^\S+ (?!/)\S+ HTTP"),
    Reason("a fragment in the target (RFC 9112, 3.2)", get(target=b"/#a"), 400, rb" \S*#\S* HTTP"),
    Reason(
        "form of the host (RFC 9112, 3.2)",
        get(b"Host: a b\r\n"),
        400,
        rb"(?i)\nhost:[ \t]*(?!(?:[\w.~!$&'()*+,;=%-]*|\[[\w:.]+\])(?::\d{0,5})?[ \t]*\r\n)",
    ),
    Reason(
        "several lengths (RFC 9112, 6.3)",
        get(TWO_LENGTHS, body=b"a"),
        400,
        rb"(?is)content-length:.*content-length:|content-length:[^\r]*,",
    ),
    Reason(
        "a length and a coding (RFC 9112, 6.1)",
        get(BOTH, body=b"1\r\na\r\n0\r\n\r\n"),
        400,
        rb"(?is)content-length:.*transfer-encoding:|transfer-encoding:.*content-length:",
    ),
    Reason("chunks of HTTP/1.0 (RFC 9112, 6.1)", OLD_CHUNKS, 400, rb"(?is)P/1\.0\r.*transfer-enc"),
    Reason("a folded line (RFC 9112, 5.2)", get(HOST + b"X: y\r\n z\r\n"), 400, rb"\r\n[ \t]"),
    Reason("a line's end without CR (RFC 9112, 2.2)", get(b"Host: a\n"), 400, rb"(?<!\r)\n"),
    Reason(
        "a control character (RFC 9110, 5.5)",
        get(HOST + b"X: \x01\r\n"),
        400,
        rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
    ),
    Reason("form of an extension (RFC 9112, 7.1.1)", chunks(b"0;\r\n\r\n"), 400, rb"[0-9a-fA-F];"),
    Reason(
        "a blank behind a size (RFC 9112, 7.1)", chunks(b"0 \r\n\r\n"), 400, rb"[\da-fA-F][ \t]"
    ),
    Reason(
        "a trailer that frames (RFC 9110, 6.5.1)",
        chunks(b"0\r\nContent-Length: 5\r\n\r\n"),
        400,
        rb"(?is)\r\n\r\n.*(?:content-length|transfer-encoding):",
    ),
]
LAXER = [
    Reason("more than 20 digits of a size", chunks(b"0" * 21 + b"\r\n\r\n"), 0, rb"\n0{10}"),
]


@pytest.mark.parametrize("reason", STRICTER, ids=lambda reason: reason.rule)
def test_bide_refuses_for_its_reason_what_h11_accepts(reason: Reason) -> None:
    """Each of the reasons is one: without it there would be no difference."""
    ours = here([reason.example])
    assert (ours.end, ours.status) == ("refused", reason.status)
    assert there(reason.example).end == "accepted"
    assert reason.holds(reason.example, reason.status)


@pytest.mark.parametrize("reason", LAXER, ids=lambda reason: reason.rule)
def test_bide_accepts_for_its_reason_what_h11_refuses(reason: Reason) -> None:
    """None of them changes what the request means, or where it ends."""
    assert here([reason.example]).end == "accepted"
    assert there(reason.example).end == "refused"
    assert reason.holds(reason.example, 0)


def compare(wire: bytes, pieces: list[bytes]) -> None:
    """Check that the two agree, or differ for a reason."""
    ours, theirs = here(pieces), there(wire)
    if ours.end == theirs.end == "accepted":
        assert ours.meaning is not None
        assert theirs.meaning is not None
        if re.match(rb"https?://", ours.meaning[1], re.IGNORECASE):
            # RFC 9112 section 3.2.2: the target's host counts. h11 leaves that to others.
            for _, _, headers, _ in (ours.meaning, theirs.meaning):
                headers[:] = [header for header in headers if header[0] != b"host"]
        assert ours.meaning == theirs.meaning
    elif theirs.end == "accepted":
        assert ours.end == "refused", "h11 has the whole of what Bide waits for"
        reasons = [each.rule for each in STRICTER if each.holds(wire, ours.status)]
        assert reasons, f"refused here with {ours.status}, and not by h11"
    elif ours.end == "accepted":
        assert theirs.end == "refused", "Bide has the whole of what h11 waits for"
        assert [each.rule for each in LAXER if each.holds(wire, 0)], "refused by h11, and not here"


@given(sent=st.lists(requests(), min_size=1, max_size=3), cuts=CUTS)
def test_h11_takes_a_request_for_the_same(sent: list[Sent], cuts: list[int]) -> None:
    """A good one means the same method, target, headers and body; also behind others."""
    client = connect()
    client.send(*split(b"".join(each.wire for each in sent), cuts))
    assert len(client.owner.begun) == len(sent)
    for stream, each in zip(client.owner.begun, sent, strict=True):
        request = stream.request
        headers = [meant(name.lower(), value) for name, value in request.headers]
        meaning = (request.method.encode(), request.target, headers, drain(stream).data)
        assert there(each.wire) == Heard("accepted", 0, meaning)


@given(wire=damaged(), cuts=CUTS)
def test_h11_and_bide_agree_on_damaged_requests_but_for_a_reason(
    wire: bytes, cuts: list[int]
) -> None:
    """Bytes put in and taken out anywhere: no request of a kind of its own comes of it."""
    compare(wire, split(wire, cuts))


def mostly(usual: bytes, *odd: bytes) -> st.SearchStrategy[bytes]:
    """Return the usual thing, or sometimes an odd one."""
    return st.one_of(*[st.just(usual)] * 3, st.sampled_from(odd))


METHODS = mostly(b"GET", b"POST", b"HEAD", b"get", b"FOO", b"GE(T", b"CONNECT", b"OPTIONS", b"")
TARGETS = mostly(
    *(b"/", b"*", b"http://b/x", b"HTTP://b", b"https://u@b/", b"a", b"b:80", b"ftp://b/"),
    *(b"/\x80", b"/#f", b"/ ", b"", b"/\x01"),
)
VERSIONS = mostly(
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9"),
    *(b"http/1.1", b"HTTP/1.10", b"HTTP/11"),
)
HOSTS = mostly(
    *(HOST, b"", b"Host: a\r\nHost: a\r\n", b"Host: a b\r\n", b"Host:\r\n", b"Host: a:x\r\n"),
    *(b"host: [::1]:8\r\n", b"Host: a/b\r\n", b"Host: a,b\r\n", b"Host : a\r\n"),
)
FIELDS = mostly(
    *(b"", b"X: y\r\n", b"X:  y \t\r\n", b"X : y\r\n", b" X: y\r\n", b"X: y\n", b"X: y\r\n z\r\n"),
    *(b"X: \x01\r\n", b"X: \x80\r\n", b"X: \0\r\n", b"X: a\rb\r\n", b"X\x80: y\r\n", b": y\r\n"),
    *(b"X\r\n", b"X: \x0b\r\n", b"X: \x7f\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n"),
    *(b"X(: y\r\n", b"X: a\tb\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n"),
)
LENGTHS = mostly(
    b"",
    *(
        b"Content-Length: %b\r\n" % each
        for each in [b"5", b"+5", b"5, 5", b"05", b"", b"5 ", b"9" * 20, b"0", b"0x5", b"5_0"]
    ),
    *(b"Content-Length: 5\r\n" * 2, b"Content-Length: 5\r\nContent-Length: 6\r\n"),
)
CODINGS = mostly(
    b"",
    *(
        b"Transfer-Encoding: %b\r\n" % each
        for each in [b"chunked", b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity"]
    ),
    *(
        b"Transfer-Encoding: %b\r\n" % each
        for each in [b"chunked ", b"\x0bchunked", b",chunked", b"", b"chunked;a=b", b"xchunked"]
    ),
    b"Transfer-Encoding: chunked\r\n" * 2,
)
SIZES = mostly(
    *(b"5", b"5;a", b'5;a="b"', b"5 ", b"5; a", b"0x5", b"-5", b"5;", b"5;=", b"5;\x01"),
    *(b"5;a=b\nc", b"0" * 22 + b"5", b"1" + b"0" * 15 + b"5", b"", b"5\r", b"5;a=;b"),
)
ENDS = mostly(
    *(b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\n\r\n"),
    *(b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\n\n", b"0\r\nHost: a\r\nHost: b\r\n\r\n", b"0"),
    *(b"0\r\nTransfer-Encoding: x\r\n\r\n", b""),
)


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """Return a request, some of whose parts are odd."""
    first = b" ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)])
    length, coding = draw(LENGTHS), draw(CODINGS)
    body = b"hello"
    if coding:
        body = draw(SIZES) + draw(mostly(b"\r\n", b"\n", b"\r")) + b"hello"
        body += draw(mostly(b"\r\n", b"\n", b"xx", b"")) + draw(ENDS)
    lines = [first, b"\r\n", draw(HOSTS), draw(FIELDS), length, coding, b"\r\n", body]
    return b"".join(lines)


@given(wire=odd(), cuts=CUTS)
def test_h11_and_bide_agree_on_odd_requests_but_for_a_reason(wire: bytes, cuts: list[int]) -> None:
    """Of what attacks are made: each part in its odd forms, alone and together."""
    compare(wire, split(wire, cuts))
