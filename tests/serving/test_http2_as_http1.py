"""The same requests over HTTP/1 and HTTP/2: applications are told the same, or both refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import pytest

from tests import http2_clients
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import Client, Environ, Served, answering

Field = tuple[bytes, bytes]
SEED = 9113
NUMBER = 400
"""Generated requests."""
REUSED = 50
"""Requests on one connection: a client that is refused too often is cut off."""
OF_CONNECTIONS = {"REMOTE_PORT", "SERVER_PROTOCOL"}


@dataclass
class Asked:
    """A request, as both protocols can say it."""

    target: bytes = b"/"
    method: bytes = b"GET"
    host: bytes | None = b"test"
    headers: list[Field] = field(default_factory=list)
    body: bytes | None = None

    @property
    def sent(self) -> list[Field]:
        """The headers, and the length of a body."""
        length = [] if self.body is None else [(b"Content-Length", b"%d" % len(self.body))]
        return [*self.headers, *length]

    def over_http1(self) -> bytes:
        """Return its bytes."""
        host = [] if self.host is None else [(b"Host", self.host)]
        lines = [b"%b: %b" % each for each in host + self.sent]
        head = [b"%b %b HTTP/1.1" % (self.method, self.target), *lines, b"", b""]
        return b"\r\n".join(head) + (self.body or b"")

    def over_http2(self, authority: bool) -> list[Field]:
        """Return its fields; the host in ``:authority``, or in ``host``."""
        fields = [(b":method", self.method), (b":scheme", b"http"), (b":path", self.target)]
        if self.host is not None:
            fields.append((b":authority" if authority else b"host", self.host))
        return fields + [(name.lower(), value) for name, value in self.sent]


def told(environ: Environ) -> str:
    """Answer with what a WSGI application is told."""
    known = {
        key: repr(value)
        for key, value in environ.items()
        if isinstance(value, (str, bytes, int, tuple, type(None))) and key not in OF_CONNECTIONS
    }
    body = environ["wsgi.input"].read()
    return json.dumps({**known, "body": body.decode("latin-1")}, sort_keys=True)


async def told_by_scope(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what an ASGI application is told."""
    assert scope["type"] == "http"
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    keys = ("method", "scheme", "path", "raw_path", "query_string", "root_path", "server")
    known = {key: repr(scope[key]) for key in (*keys, "headers")}
    known["client"] = repr(scope["client"][0] if scope["client"] else None)
    text = json.dumps({**known, "body": body.decode("latin-1")}, sort_keys=True).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


class Both:
    """Two clients of one server, one of each protocol; each connects again when it must."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._one: Client | None = None
        self._two: http2_clients.Client | None = None
        self._asked = 0

    def ask(self, asked: Asked, authority: bool = True) -> tuple[Any, Any]:
        """Return what the two answer: a status, or of a 200 what the application was told."""
        return self._ask_http1(asked), self._ask_http2(asked, authority)

    def _ask_http1(self, asked: Asked) -> Any:
        client = self._one or self.served.connect()
        client.send(asked.over_http1())
        response = client.response(asked.method.decode("latin-1"))
        self._one = client if response.status == 200 else None
        if self._one is None:
            client.close()
        return _answer(response.status, response.body)

    def _ask_http2(self, asked: Asked, authority: bool) -> Any:
        self._asked += 1
        if self._two is None or self._asked % REUSED == 0:
            if self._two is not None:
                self._two.sock.close()
            self._two = http2_clients.Client(self.served.address)
        answer = self._two.ask(asked.over_http2(authority), asked.body)
        assert not self._two.closed, (self._two.gone, asked)
        return _answer(answer.status, answer.body)

    def close(self) -> None:
        """Leave."""
        if self._one is not None:
            self._one.close()
            self._one = None
        if self._two is not None:
            self._two.sock.close()


def _answer(status: int, body: bytes) -> Any:
    return json.loads(body) if status == 200 and body else status


def every_byte() -> list[Asked]:
    """Return requests that have each byte somewhere."""
    asked = []
    for number in range(256):
        byte = bytes([number])
        if byte not in b"\r\n \t":  # HTTP/1 would be cut there, and be something else
            asked.append(Asked(b"/a" + byte + b"b"))
            asked.append(Asked(b"/?a" + byte + b"b"))
            asked.append(Asked(method=b"A" + byte + b"B"))
            asked.append(Asked(host=b"a" + byte + b"b"))
        if byte not in b"\r\n:":
            asked.append(Asked(headers=[(b"X-A" + byte + b"B", b"c")]))
        if byte not in b"\n\r":
            asked.append(Asked(headers=[(b"X", b"a" + byte + b"b")]))
        asked.append(Asked(b"/%%%02x/%%%02X?%%%02x" % (number, number, number)))
    return asked


def by_hand() -> list[Asked]:
    """Return requests that are odd in one way each."""
    asked = [
        Asked(target)
        for target in (
            *(b"/", b"//", b"///a", b"/.", b"/..", b"/a/../b", b"/a//b/", b"/%", b"/%2", b"/%zz"),
            *(b"/%2F%2f", b"/%00", b"/a%20b", b"/?", b"/??", b"/?a?b", b"/a?%", b"/a#b", b"/#"),
            *(b"*", b"a", b"?a", b"http:/a", b"/" + b"a" * 5000, b"/" + b"a" * 9000),
            *(b"/a;b=c", b"/a\\b", b'/"', b"/{}|^`<>", b"/\xc3\xa4", b"/\xff", b"/%c3%a4"),
        )
    ]
    asked += [
        Asked(b"*", b"OPTIONS"),
        Asked(b"/", b"OPTIONS"),
        *(
            Asked(method=method, body=body)
            for method in (b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"get", b"PRI", b"A-B")
            for body in (None, b"", b"body", b"\x00\xff" * 5000)
        ),
        Asked(method=b""),
        Asked(b"a.example:80", b"CONNECT"),
        Asked(b"/", b"CONNECT"),
        *(
            Asked(host=host)
            for host in (
                *(
                    b"a.example",
                    b"A.Example",
                    b"a:80",
                    b"a:",
                    b"a:123456",
                    b"a:b",
                    b"a:-1",
                    b"a..b",
                ),
                *(b"[::1]", b"[::1]:80", b"[::1", b"::1", b"[:::1]", b"[v1.a]", b"a/b", b"a,b"),
                *(b"a%41", b"a%4", b"a_b", b"1.2.3.4", b"a" * 300, b"\xc3\xa4", b"*", b"$"),
            )
        ),
        Asked(host=None),
    ]
    for headers in (
        [(b"X", b"a"), (b"X", b"b")],
        [(b"X", b"a"), (b"x", b""), (b"X", b"b")],
        [(b"X-A", b"1"), (b"X_A", b"2")],
        [(b"X_A", b"2")],
        [(b"_", b"2")],
        [(b"X-Forwarded_For", b"192.0.2.1")],
        [(b"Content_Length", b"3")],
        [(b"Content-Type", b"a/b"), (b"Content-Type", b"c/d")],
        [(b"Cookie", b"a=b; c=d")],
        [(b"Proxy", b"http://a.example/")],
        [(b"Accept", b"*/*"), (b"Accept-Encoding", b"gzip")],
        [(b"Expect", b"other")],
        [(b"Expect", b"100-continue"), (b"Expect", b"100-continue")],
        [(b"Expect", b"100-Continue")],
        [(b"", b"a")],
        [(b"X", b"")],
        [(b"X", b"a \t b")],
        [(b"X" * 65, b"a")],
        [(b"X" * 300, b"a")],
        [(b"X", b"a" * 20_000)],
        [(b"X", b"a" * 40_000)],
        [(b"X%d" % number, b"a") for number in range(99)],
        [(b"X%d" % number, b"a") for number in range(100)],
        [(b"X%d" % number, b"a") for number in range(101)],
        [(b"TE", b"trailers")],
        [(b"TE", b"Trailers")],
        [(b"Trailer", b"X")],
        [(b"Priority", b"u=1"), (b"Priority", b"i")],
        [(b"Authorization", b"Basic YTpi")],
        [(b"Date", b"x"), (b"If-Match", b'"a"'), (b"Range", b"bytes=0-1")],
    ):
        asked += [Asked(headers=headers), Asked(method=b"POST", headers=headers, body=b"body")]
    for length in (
        *(b"", b"0", b"00", b"-0", b"+0", b"-1", b"0x0", b"0 0", b"a", b"0,0", b"0, 0", b"\xb2"),
        *(b"18446744073709551616", b"99999999999999999999", b"1" * 40, b"0" * 30, b"0.0", b"1e1"),
    ):
        asked.append(Asked(method=b"POST", headers=[(b"Content-Length", length)]))
    for lengths in ((b"0", b"0"), (b"0", b"4"), (b"4", b"0"), (b"4", b"4")):
        headers = [(b"Content-Length", each) for each in lengths]
        asked.append(Asked(method=b"POST", headers=headers))
    return asked


def generated(number: int, seed: int) -> list[Asked]:
    """Return requests that are odd in several ways; the same ones for the same seed."""
    dice = Random(seed)
    bits = [b"/", b"%", b"%2f", b"%41", b"a", b"_", b"?", b"=", b"&", b".", b"..", b";", b"\xe4"]
    names = [b"X-A", b"x-a", b"X_A", b"Accept", b"Content-Type", b"X-B", b"Referer", b"Via"]
    values = [b"a", b"", b"a,b", b"a  b", b'"a"', b"\xe4", b"a\tb", b"=", b"%20", b"\x80\xff"]
    asked = []
    for _ in range(number):
        target = b"/" + b"".join(dice.choices(bits, k=dice.randrange(8)))
        method = dice.choice((b"GET", b"POST", b"DELETE", b"QUERY", b"head", b"M!"))
        host = dice.choice((b"test", b"a.example:8000", b"[::1]:1", b"a b", b"A"))
        count = dice.randrange(6)
        headers = [(dice.choice(names), dice.choice(values)) for _ in range(count)]
        body = None if method == b"GET" else dice.choice((None, b"", dice.randbytes(100)))
        asked.append(Asked(target, method, host, headers, body))
    return asked


def forwarded() -> list[Asked]:
    """Return requests with what proxies say of their clients."""
    sets: list[list[Field]] = [
        [(b"X-Forwarded-For", b"192.0.2.1")],
        [(b"X-Forwarded-For", b"192.0.2.1"), (b"X-Forwarded-For", b"192.0.2.2, 127.0.0.1")],
        [(b"X-Forwarded-For", b"nonsense")],
        [(b"X-Forwarded-Proto", b"https")],
        [(b"X-Forwarded-Proto", b"ftp")],
        [(b"X-Forwarded-Host", b"shop.example"), (b"X-Forwarded-Port", b"8443")],
        [(b"X-Forwarded-Prefix", b"/shop")],
        [(b"X-Forwarded-Prefix", b"//shop")],
        [(b"Forwarded", b"for=192.0.2.1;proto=https;host=shop.example")],
        [(b"Forwarded", b"for=192.0.2.1"), (b"X-Forwarded-For", b"192.0.2.9")],
        [(b"X-Forwarded_For", b"192.0.2.1")],
    ]
    return [Asked(b"/shop/a?b", headers=headers) for headers in sets]


ALL = every_byte() + by_hand() + generated(NUMBER, SEED)


def compare(served: Served, asked: list[Asked]) -> None:
    """Make all requests over both protocols, and compare what comes of them."""
    both = Both(served)
    with Failures() as failures:
        for turn, each in enumerate(asked):
            with failures.of(each):
                one, two = both.ask(each, authority=turn % 2 == 0)
                same(two, one)
    both.close()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_applications_are_told_the_same(serve: Serve, kind: str) -> None:
    """But for the name of the protocol; and what HTTP/1 refuses is refused, with its status."""
    application = answering(told) if kind == "wsgi" else told_by_scope
    compare(serve(cast("Any", application)), ALL)


def test_they_differ_where_the_protocols_do(serve: Serve) -> None:
    """Each of these is a rule of RFC 9113, or of how HTTP/1 frames a message."""
    differences: list[tuple[str, Asked, int, int]] = [
        # What may be said of HTTP/1's connection only.
        ("8.2.2", Asked(headers=[(b"Connection", b"keep-alive")]), 200, 400),
        ("8.2.2", Asked(headers=[(b"Keep-Alive", b"timeout=5")]), 200, 400),
        ("8.2.2", Asked(headers=[(b"Proxy-Connection", b"keep-alive")]), 200, 400),
        ("8.2.2", Asked(headers=[(b"Upgrade", b"other"), (b"X", b"")]), 200, 400),
        ("8.2.2", Asked(headers=[(b"TE", b"gzip")]), 200, 400),
        # HTTP/1 takes blanks off (RFC 9112 section 5.1).
        ("8.2.1", Asked(headers=[(b"X", b" a")]), 200, 400),
        ("8.2.1", Asked(headers=[(b"X", b"a\t")]), 200, 400),
        # HTTP/1 may have the whole URL; HTTP/2 has its parts in fields of their own.
        ("8.3.1", Asked(b"http://test/"), 200, 400),
        # A host may be there twice, if it is the same; it may not be empty.
        ("8.3.1", Asked(headers=[(b"Host", b"test")]), 400, 200),
        ("8.3.1", Asked(host=b""), 200, 400),
    ]
    both = Both(serve(answering(told)))
    with Failures() as failures:
        for section, asked, first, second in differences:
            with failures.of((section, asked)):
                found = [200 if isinstance(each, dict) else each for each in both.ask(asked)]
                same(found, [first, second])
    both.close()


def test_cookies_are_joined(serve: Serve) -> None:
    """HTTP/2 may cut one cookie header into several (RFC 9113 section 8.2.3)."""
    served = serve(answering(lambda environ: str(environ["HTTP_COOKIE"])))
    crumbs = [(b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d"), (b"cookie", b"e=f")]
    with http2_clients.Client(served.address) as client:
        same(client.ask(http2_clients.get(b"/", *crumbs)).body, b"a=b; c=d; e=f")


def test_a_body_needs_no_length(serve: Serve) -> None:
    """As HTTP/1's chunked ones; the application is told none."""

    def length(environ: Environ) -> str:
        return repr((environ.get("CONTENT_LENGTH"), environ["wsgi.input"].read()))

    served = serve(answering(length))
    one = served.connect()
    one.send(
        b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    )
    with http2_clients.Client(served.address) as two:
        answer = two.ask(http2_clients.get(method=b"POST"), b"body")
    same(answer.body, one.response().body)


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.parametrize("trust", ["", "127.0.0.1"])
def test_proxies_are_believed_the_same(serve: Serve, kind: str, trust: str) -> None:
    """Those that are trusted, and nobody else."""
    application = answering(told) if kind == "wsgi" else told_by_scope
    compare(serve(cast("Any", application), trust=trust), forwarded())
