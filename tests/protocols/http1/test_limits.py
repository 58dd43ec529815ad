"""What a client may ask of the memory: every limit at its exact boundary, however it is split."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from bide.exchange.limits import Limits
from bide.protocols.http1.syntax import HOSTS, MEANINGS
from tests.protocols.fakes import Client, connect, drain

SMALL = Limits(request_line=64, head=256, fields=5, window=16, framing=64, discard=32)


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Return ways to split: whole, in bytes, at every place of the last hundred, in pieces."""
    yield [data]
    if len(data) < 1000:
        yield [data[at : at + 1] for at in range(len(data))]
    for at in range(max(1, len(data) - 100), len(data)):
        yield [data[:at], data[at:]]
    places = random.Random(len(data))
    for size in (places.randint(1, 4096) for _ in range(10)):
        yield [data[at : at + size] for at in range(0, len(data), size)]


def statuses(pieces: list[bytes], limits: Limits | None = None) -> list[int]:
    """Return the statuses of refusals; nothing when the one request is good."""
    client = connect(limits=limits)
    client.send(*pieces)
    refused = [error.status for error in client.owner.errors]
    assert len(client.owner.begun) == (not refused)
    return refused


def request_line(size: int) -> bytes:
    start, end = b"GET /", b" HTTP/1.1"
    line = start + b"a" * (size - len(start) - len(end)) + end
    assert len(line) == size
    return line + b"\r\nHost: a\r\n\r\n"


def head(size: int) -> bytes:
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


def fields(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n"


@pytest.mark.parametrize(("limits", "limit"), [(SMALL, 64), (None, 8192)])
def test_request_line_may_be_as_long_as_its_limit(limits: Limits | None, limit: int) -> None:
    """8 KiB without its CRLF; one byte more is 414, also before its end has come."""
    for pieces in splits(request_line(limit)):
        assert statuses(pieces, limits) == []
    for pieces in splits(request_line(limit + 1)):
        assert statuses(pieces, limits) == [414]
    endless = b"GET /" + b"a" * (limit - 4)
    assert statuses([endless], limits) == [414]
    client = connect(limits=limits)
    client.send(endless[:limit], b"\r")
    assert client.owner.errors == []


@pytest.mark.parametrize(("limits", "limit"), [(SMALL, 256), (None, 65536)])
def test_head_may_be_as_long_as_its_limit(limits: Limits | None, limit: int) -> None:
    """64 KiB with its empty line; one byte more is 431, also before its end has come."""
    for pieces in splits(head(limit)):
        assert statuses(pieces, limits) == []
    for pieces in splits(head(limit + 1)):
        assert statuses(pieces, limits) == [431]
    endless = head(limit * 2)[: limit + 1]
    assert statuses([endless], limits) == [431]


@pytest.mark.parametrize(("limits", "limit"), [(SMALL, 5), (None, 100)])
def test_head_may_have_as_many_fields_as_its_limit(limits: Limits | None, limit: int) -> None:
    """100, Host among them; one more is 431."""
    for pieces in splits(fields(limit)):
        assert statuses(pieces, limits) == []
    for pieces in splits(fields(limit + 1)):
        assert statuses(pieces, limits) == [431]


def test_limits_hold_for_every_request_of_a_connection() -> None:
    """A second request has as much as the first, and what came before it counts for nothing."""
    client = connect(limits=SMALL)
    for _ in range(3):
        client.send(b"\r\n\r\n" + request_line(64) + fields(5) + head(256))
    assert len(client.owner.begun) == 9
    client.send(request_line(65))
    assert [error.status for error in client.owner.errors] == [414]


def test_empty_lines_before_a_request_count_for_nothing() -> None:
    """However many: they are dropped as they come, and nothing of them is kept."""
    client = connect(limits=SMALL)
    client.send(b"\r\n" * 5000)
    assert not client.protocol.receiving
    client.send(*[b"\r", b"\n"] * 100)
    assert not client.protocol.receiving
    client.send(b"\r\n" * 5000 + head(256))
    assert len(client.owner.begun) == 1


# Chunked bodies ----------------------------------------------------------------------------------


def chunked(framing: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framing


def body_of(pieces: list[bytes]) -> tuple[bytes, str]:
    client = connect()
    client.send(*pieces)
    body = drain(client.stream)
    return body.data, body.end


EXTENDED = {
    "extension": lambda size: b"5;" + b"a" * size + b"\r\nhello\r\n0\r\n\r\n",
    "extension of the last": lambda size: b"5\r\nhello\r\n0;" + b"a" * size + b"\r\n\r\n",
    "leading zeros": lambda size: b"0" * size + b"5\r\nhello\r\n0\r\n\r\n",
    "trailer": lambda size: b"5\r\nhello\r\n0\r\nX: " + b"a" * size + b"\r\n\r\n",
    "trailers": lambda size: b"5\r\nhello\r\n0\r\n" + b"X: abc\r\n" * (size // 8) + b"\r\n",
}


@pytest.mark.parametrize("kind", EXTENDED)
def test_framing_of_a_chunked_body_is_bounded(kind: str) -> None:
    """Nearly 4 KiB of it are taken, 5 KiB are refused, however they are split."""
    for pieces in splits(chunked(EXTENDED[kind](4000))):
        assert body_of(pieces) == (b"hello", "complete")
    for pieces in splits(chunked(EXTENDED[kind](5000))):
        assert body_of(pieces)[1] == "malformed"


def test_framing_of_one_body_does_not_count_against_the_next() -> None:
    """Each has a limit of its own, on the same connection."""
    client = connect()
    for _ in range(5):
        client.send(chunked(EXTENDED["trailer"](3000)))
        assert drain(client.stream).end == "complete"


@pytest.mark.parametrize("start", [b"5;", b"0", b"5\r\nhello\r\n0\r\nX: ", b"5\r\nhello\r\n0\r\n"])
def test_endless_framing_is_refused_before_its_end(start: bytes) -> None:
    """No more than the limit and one read of it has come by then, whatever line it stands in."""
    unit = b"Abc: d\r\n" if start.endswith(b"0\r\n") else b"0"
    for size in (1, 100, 4096):
        client = connect()
        client.send(chunked(start))
        sent = 0
        while not client.protocol.stopped:
            client.send(unit * size)
            sent += len(unit) * size
            assert sent < 4096 + 2 * len(unit) * size + 1024
        assert drain(client.stream).end == "malformed"


@pytest.mark.parametrize("extension", [b"", b";a=" + b"b" * 100])
def test_small_chunks_are_no_excess(extension: bytes) -> None:
    """A client that streams byte by byte, with an extension each, is slow and not malformed."""
    chunk = b"1" + extension + b"\r\na\r\n"
    for size in (len(chunk), 3, 1000):
        data = chunk * 2000 + b"0\r\n\r\n"
        client = connect()
        client.send(chunked(b""))
        client.send(*[data[at : at + size] for at in range(0, len(data), size)])
        assert drain(client.stream).data == b"a" * 2000


# What is kept for all connections ----------------------------------------------------------------


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    """Forget all known names and hosts, now and at the end of the test."""
    names, hosts = dict(MEANINGS), set(HOSTS)
    MEANINGS.clear()
    HOSTS.clear()
    yield
    MEANINGS.clear()
    HOSTS.clear()
    MEANINGS.update(names)
    HOSTS.update(hosts)


@pytest.mark.usefixtures("nothing_kept")
def test_names_and_hosts_that_clients_make_up_are_kept_in_bounds() -> None:
    """A thousand and no more, none of them long; what is not kept is understood as well.

    No head here is a plain one, for the ``!``: the compiled module has a table of its own.
    """
    client: Client = connect()
    long = b"a" * 5000
    client.send(b"GET / HTTP/1.1\r\nHost: %b\r\n%b: y\r\n\r\n" % (long, long))
    assert client.stream.request.headers == [(b"Host", long), (long, b"y")]
    for number in range(3000):
        client.send(b"GET / HTTP/1.1\r\nHost: a%d!\r\nX-%d: y\r\n\r\n" % (number, number))
    client.send(b"GET / HTTP/1.1\r\nHost: last\r\nconneCTION: close\r\n\r\n")
    assert not client.stream.request.persistent
    assert 0 < len(MEANINGS) <= 1024
    assert 0 < len(HOSTS) <= 1024
    assert max(map(len, MEANINGS)) < 256
    assert max(map(len, HOSTS)) < 256
