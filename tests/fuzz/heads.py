"""A head that the fast way takes, the strict way takes as well, and understands the same.

So does a reader that shares nothing with both. The fast way is there twice, compiled and in Python,
and both take the same heads. It looks at no byte beyond the end: what is cut short is not taken,
and what stands before or behind a head changes nothing. The input: the limits, what stands around,
and then a head.
"""

from __future__ import annotations

from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.protocols.http1.heads import HeadParser, PlainRequest
from bide.twins import Plain
from bide.wsgi.environ import request_environ, server_environ
from tests.forms import FORMS
from tests.fuzz.drawing import Source
from tests.fuzz.strict import Reader

WIDE = Limits()
NARROW = Limits(request_line=40, head=300, fields=6, body=1000)
BASE = server_environ(True)
PEER = Peer("http", ("127.0.0.1", 8000), ("192.0.2.1", 50000))
BEFORE = request_environ(BASE, PEER, Request("GET", b"/", b"/", b"", "1.1", []))
AROUND = (b"", b"\r\n", b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"\0", b"x: y\r\n\r\n")


def check(data: bytes) -> None:
    """Parse the input in every way, and check the invariant."""
    source = Source(data)
    limits = NARROW if source.below(4) == 0 else WIDE
    before, behind = source.choose(AROUND), source.choose(AROUND)
    wire = source.rest()
    found = alike(wire, 0, limits)
    if found is None:
        return
    end = found[0]
    understood(wire[:end], found, limits)
    moved = alike(before + wire[:end] + behind, len(before), limits)
    assert moved == (end + len(before), *found[1:]), "what stands around it changes it"
    for short in {end - 1, end - 2, end - 3, end - 4, end // 2, len(data) % end}:
        assert alike(wire[:short], 0, limits) is None, "a head that is not complete is taken"


def alike(data: bytes, at: int, limits: Limits) -> Plain | None:
    """Parse in both forms, which must come to the same."""
    found: list[Plain | None] = [form.parse(data, at, limits) for form in FORMS.values()]
    assert all(each == found[0] for each in found), f"the forms differ: {found}"
    return found[0]


def understood(head: bytes, found: Plain, limits: Limits) -> None:
    """Check that the strict ways come to the same."""
    request = PlainRequest(head, found)
    assert head.find(b"\r\n\r\n") + 4 == len(head), "the head ends elsewhere"
    line = head.find(b"\r\n")
    assert line <= limits.request_line, "the request line is too long"
    assert len(head) <= limits.head, "the head is too long"
    parser = HeadParser(limits)
    strict = parser.parse(head, line)
    for name in ("method", "target", "raw_path", "root", "path", "query", "version"):
        assert getattr(request, name) == getattr(strict, name), f"{name} differs"
    assert request.headers == strict.headers
    assert (request.has_body, request.persistent) == (strict.has_body, strict.persistent)
    assert found[8] == parser.length
    assert not parser.expects_continue, "it waits to be asked for its body"
    assert not parser.upgrades, "it asks for another protocol"
    message = Reader(head).request()
    assert message.first == (request.method.encode(), request.target, request.version.encode())
    assert message.fields == request.headers
    assert message.end == ("short" if request.has_body else "complete")
    assert_same_environ(request, strict)


def assert_same_environ(request: PlainRequest, strict: Request) -> None:
    """Check that an application is told the same, by either form."""
    expected = request_environ(BASE, PEER, strict)
    assert request_environ(BASE, PEER, request) == expected
    fields = request.fields
    assert fields is not None
    for name, form in FORMS.items():
        environ = dict(BEFORE)
        method, query, target = request.method, request.query, request.target
        whole = form.fill(
            environ, method, b"", request.path, query, target, request.version, fields
        )
        assert whole == (len(set(fields[::2])) * 2 == len(fields)), name
        assert not whole or environ == expected, name
