"""Published attacks that are a few bytes, sent to a real server; the answers, and what was served.

Each row is written from an advisory's description. ``published.json`` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.conftest import Serve
from tests.failures import Failures, same, short
from tests.served import Client, Environ, Response, Served, answering

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
"""A request that an attack would have served."""
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
"""A request that is served only where the connection goes on as it should."""
GOOD = ("GET /last ",)


@dataclass(frozen=True)
class Replay:
    """What is sent, before LAST, and what comes of it.

    Attributes:
        statuses: of the answers, in order, up to the connection's end.
        served: method, path and body of each request that the application answered.
    """

    data: bytes
    statuses: tuple[int, ...] = (400,)
    served: tuple[str, ...] = ()


def fields(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a POST with such header lines."""
    return POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def accepted(data: bytes, *served: str) -> Replay:
    """Expect that all is served, LAST too."""
    return Replay(data, (200,) * (len(served) + 1), (*served, *GOOD))


ZERO = b"0\r\n\r\n"
REPLAYS: dict[str, list[Replay]] = {
    # A Transfer-Encoding that is not understood, and Content-Length is taken instead.
    "CVE-2024-1135": [
        Replay(fields(b"Transfer-Encoding: chunked,identity", body=ZERO + HIDDEN)),
        Replay(fields(b"Transfer-Encoding: identity, chunked", body=ZERO + HIDDEN), (501,)),
        Replay(
            fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=ZERO + HIDDEN),
        ),
    ],
    "CVE-2024-6827": [
        Replay(fields(b"Content-Length: 5", b"Transfer-Encoding: x", body=ZERO + HIDDEN)),
        Replay(fields(b"Transfer-Encoding: x", b"Content-Length: 5", body=ZERO + HIDDEN)),
        Replay(fields(b"Transfer-Encoding: ,chunked", body=ZERO + HIDDEN)),
    ],
    "CVE-2019-16786": [
        Replay(fields(b"Content-Length: 5", b"Transfer-Encoding: gzip, chunked", body=ZERO)),
        Replay(fields(b"Transfer-Encoding: gzip, chunked", body=ZERO), (501,)),
    ],
    "CVE-2019-16789": [
        Replay(fields(b"Content-Length: 5", b"Transfer-Encoding: \x0bchunked", body=ZERO + HIDDEN)),
        Replay(fields(b"Content-Length: 5", b"Transfer-Encoding:\x0c chunked", body=ZERO + HIDDEN)),
    ],
    "CVE-2024-14029": [
        Replay(
            fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=ZERO + HIDDEN)
        ),
    ],
    "CVE-2020-10109": [
        Replay(fields(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=ZERO + HIDDEN)),
        Replay(fields(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=ZERO + HIDDEN)),
    ],
    "CVE-2023-47641": [
        Replay(fields(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=ZERO + HIDDEN)),
    ],
    "CVE-2025-69224": [  # the Kelvin sign, which is a k in lower case
        Replay(fields("Transfer-Encoding: chun\u212aed".encode(), body=ZERO + HIDDEN)),
        Replay(fields("Content-Length: \u0665".encode(), body=b"hello")),
    ],
    # Two lengths.
    "CVE-2019-16792": [
        Replay(fields(b"Content-Length: 5", b"Content-Length: 5", body=b"hello" + HIDDEN)),
        Replay(fields(b"Content-Length: 5", b"Content-Length: 0", body=b"hello" + HIDDEN)),
    ],
    "CVE-2020-10108": [
        Replay(fields(b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN), body=HIDDEN)),
        Replay(fields(b"Content-Length: %d" % len(HIDDEN), b"Content-Length: 0", body=HIDDEN)),
    ],
    # Numbers that int() takes, and lines that splitlines() makes.
    "GHSA-qppv-j76h-2rpx": [
        Replay(fields(b"Content-Length: " + length, body=b"hello"))
        for length in (b"+5", b"0_5", b"\xc2\xa05", "\uff15".encode())
    ]
    + [Replay(CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n") for size in (b"+5", b"0x5", b"0_5")],
    "CVE-2022-24761": [
        Replay(CHUNKED + b"5;a\nb\r\nhello\r\n" + ZERO),
        Replay(CHUNKED + b"0x5\r\nhello\r\n" + ZERO),
        Replay(fields(b"Content-Length: +5", body=b"hello")),
    ],
    "CVE-2022-24801": [
        Replay(fields(b"Content-Length: +5", body=b"hello")),
        Replay(CHUNKED + b"+5\r\nhello\r\n" + ZERO),
        Replay(CHUNKED + b"5;a=\x00\r\nhello\r\n" + ZERO),
        Replay(CHUNKED + b"5\nhello\r\n" + ZERO),
        Replay(fields(b"X: y\x00z", body=b"")),
        Replay(fields(b"Transfer-Encoding : chunked", body=ZERO + HIDDEN)),
    ],
    "CVE-2023-47627": [
        Replay(fields(b"Content-Length: +5", body=b"hello")),
        Replay(fields(b"Content-Length: -0", body=HIDDEN)),
        Replay(fields(b"X Y: z")),
        Replay(fields(b"X: \x00")),
        Replay(fields(b'X"Y: z')),
    ],
    "CVE-2019-16785": [
        Replay(GET + b"X: y\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN),
        Replay(b"GET / HTTP/1.1\nHost: a\n\n" + HIDDEN),
    ],
    "CVE-2023-37276": [
        Replay(GET + b"X: \rTransfer-Encoding: chunked\r\n\r\n" + ZERO + HIDDEN),
        Replay(fields(b"X: y\rContent-Length: 0", body=HIDDEN)),
    ],
    "CVE-2025-43859": [
        Replay(CHUNKED + b"5\r\nhelloXX0\r\n\r\n" + HIDDEN),
        Replay(CHUNKED + b"5\r\nhello\n\n0\r\n\r\n" + HIDDEN),
        Replay(CHUNKED + b"50\r\n" + b"a" * 80 + b"XX25\r\n\r\n" + HIDDEN),
    ],
    "CVE-2025-53643": [  # trailers are the message's, and no request is in them
        accepted(CHUNKED + b"0\r\nX: y\r\nHost: b\r\n\r\n", "POST / "),
        Replay(CHUNKED + b"0\r\n" + HIDDEN),
    ],
    "CVE-2020-5236": [Replay(GET + b"Bad: " + b"x" * 60_000 + b"\x10\r\n\r\n")],
    "CVE-2026-34525": [
        Replay(GET + b"Host: b\r\n\r\n"),
        Replay(GET + b"Host: a\r\n\r\n"),
    ],
    # An Upgrade.
    "CVE-2026-69243": [
        accepted(
            GET
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
            + HIDDEN,
            "GET / " + HIDDEN.decode(),
        ),
    ],
    "CVE-2026-42544": [
        accepted(
            GET
            + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + b"Sec-WebSocket-Protocol: caf\xe9\r\n\r\n",
            "GET / ",
        ),
    ],
    # A body that is longer than it says.
    "CVE-2026-33034": [
        Replay(
            fields(b"Content-Length: 2", body=b"hello"), (200, 200), ("POST / he", "lloGET /last ")
        ),
        accepted(POST + b"\r\n" + b"\r\n", "POST / "),
    ],
    # Values whose bytes are line ends for str.splitlines().
    "CVE-2026-44546": [
        Replay(GET + b"X: y" + separator + b"Z: 1\r\n\r\n")
        for separator in (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e")
    ]
    + [accepted(GET + b"X: y\x85Z: 1\r\n\r\n", "GET / ")],
}


def serving(serve: Serve) -> tuple[Served, list[str], list[Environ]]:
    """Serve an application that reads the body, and notes what it was asked."""
    served: list[str] = []
    environs: list[Environ] = []

    def answer(environ: Environ) -> str:
        body = environ["wsgi.input"].read().decode("latin-1")
        served.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {body}")
        environs.append(environ)
        return "served"

    return serve(answering(answer)), served, environs


def responses(client: Client) -> list[Response]:
    """Read whole responses to the connection's end."""
    found = []
    while client.reader.peek(1):
        found.append(client.response())
        assert found[-1].complete
    return found


def test_a_published_attack_is_answered_and_nothing_hidden_is_served(serve: Serve) -> None:
    """Whatever comes behind what is refused is never read; and the next client is served."""
    server, served, _ = serving(serve)
    with Failures() as failures:
        for advisory, replays in REPLAYS.items():
            for replay in replays:
                with failures.of(f"{advisory}: {short(replay.data)}"):
                    served.clear()
                    client = server.connect()
                    client.send(replay.data + LAST)
                    answers = responses(client)
                    same(tuple(each.status for each in answers), replay.statuses)
                    same(tuple(served), replay.served)
                    same(answers[-1].header("Connection"), "close")
                    same(server.get("/next").status, 200)


HEADERS = [
    (b"X_Forwarded_For: 192.0.2.9", "HTTP_X_FORWARDED_FOR"),  # CVE-2015-0219, CVE-2026-3902
    (b"Remote_User: admin", "HTTP_REMOTE_USER"),
    (b"Content_Length: 5", "CONTENT_LENGTH"),
    (b"Proxy: http://evil.example", "HTTP_PROXY"),  # CVE-2016-5385
    (b"PROXY: http://evil.example", "HTTP_PROXY"),
    (b"X: y\x85Z: 1", "HTTP_Z"),  # CVE-2026-44546
]
"""A line, and the variable that the application must not have of it."""


def test_a_header_cannot_pass_for_another(serve: Serve) -> None:
    """The application is not told of it; the request is served."""
    server, _, environs = serving(serve)
    with Failures() as failures:
        for line, variable in HEADERS:
            with failures.of(line):
                environs.clear()
                client = server.connect()
                client.send(GET + line + b"\r\n\r\n" + LAST)
                same([each.status for each in responses(client)], [200, 200])
                assert variable not in environs[0]


def test_a_client_cannot_say_where_it_comes_from(serve: Serve) -> None:
    """Only a trusted proxy changes the server's own variables by its headers."""
    server, _, environs = serving(serve)
    client = server.connect()
    client.send(
        GET
        + b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n"
        + b"X-Forwarded-Prefix: /admin\r\nX-Real-IP: 192.0.2.9\r\n"
        + b"Forwarded: for=192.0.2.9;proto=https;host=evil\r\nRemote-Addr: 192.0.2.9\r\n\r\n"
        + LAST
    )
    responses(client)
    environ = environs[0]
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "http")
    assert (environ["HTTP_HOST"], environ["SCRIPT_NAME"]) == ("a", "")
    assert not [key for key in environ if "FORWARDED" in key]
