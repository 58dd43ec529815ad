"""Twice the bytes are twice the work, and no byte costs much more than another.

A client cannot buy much with little.

Work is counted, as calls and as bytes that are copied; never as time. Where patterns search, the
test is that they come to an end at all: a quadratic one would need hours for what is given here.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from bide.errors import LocalProtocolError, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.native import encode
from bide.protocols.http1 import chunked
from bide.protocols.http1 import syntax as http1_syntax
from bide.protocols.http1.syntax import (
    check_coding,
    check_host,
    split_request_line,
    split_target,
    without_trailing_blanks,
)
from bide.serving.formatters import escaped
from bide.transports.streaming import READ_SIZE
from bide.wsgi.environ import request_environ
from tests.forms import needs_profile
from tests.protocols.exchanges import path_of
from tests.protocols.fakes import connect

ROOMY = Limits(request_line=10**8, head=10**8, fields=10**6, framing=10**8, discard=10**9)
"""Limits that refuse nothing of what is sent here: the cost is bounded without them."""

ROOMIEST = replace(ROOMY, chunks=10**6)

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORTEST = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"


class Counted(bytes):
    """Bytes that count, for all of their kind, how many were copied out of them."""

    copied = 0

    def _copy(self, data: bytes) -> Counted:
        Counted.copied += len(data)
        return Counted(data)

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        return self._copy(part) if isinstance(part, bytes) else part

    def __add__(self, other: Any) -> Counted:
        return self._copy(bytes(self) + bytes(other))

    def __radd__(self, other: Any) -> Counted:
        return self._copy(bytes(other) + bytes(self))


def calls_of(act: Callable[[], object]) -> int:
    """Count the functions, of Python and of C, that are called by ``act`` on this thread.

    Those of destructors are not, whose objects others have left to the collector.
    """
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def pieces(data: bytes, size: int) -> Iterator[Counted]:
    """Split as the network may, or as the transport reads."""
    for at in range(0, len(data), size):
        yield Counted(data[at : at + size])


def dripped(data: bytes) -> Iterator[Counted]:
    """Split into bytes."""
    return pieces(data, 1)


def read(data: bytes) -> Iterator[Counted]:
    """Split as the transport reads what has come at once."""
    return pieces(data, READ_SIZE)


# What a client sends, larger with n.
SENT: dict[str, Callable[[int], Iterator[Counted]]] = {
    "headers": lambda n: read(HEAD + b"X-Name: value\r\n" * n + b"\r\n"),
    "headers, byte by byte": lambda n: dripped(HEAD + b"X: y\r\n" * n + b"\r\n"),
    "a long header, byte by byte": lambda n: dripped(HEAD + b"X: " + b"y" * n + b"\r\n\r\n"),
    "a long header of blanks": lambda n: read(HEAD + b"X: y" + b" " * 99 * n + b"z\r\n\r\n"),
    "a long target, byte by byte": lambda n: dripped(b"GET /" + b"a" * n + b" HTTP/1.1\r\n"),
    "folded lines": lambda n: pieces(HEAD + b"X: y\r\n" + b" z\r\n" * n + b"\r\n", 16),
    "Connection headers": lambda n: read(HEAD + b"Connection: close\r\n" * n + b"\r\n"),
    "Connection options": lambda n: read(HEAD + b"Connection: " + b"a," * n + b"\r\n\r\n"),
    "empty lines": lambda n: read(b"\r\n" * 50 * n),
    "empty lines, byte by byte": lambda n: dripped(b"\r\n" * n),
    "chunks": lambda n: read(CHUNKED + b"1\r\na\r\n" * n + b"0\r\n\r\n"),
    "chunks, byte by byte": lambda n: dripped(CHUNKED + b"1\r\na\r\n" * n + b"0\r\n\r\n"),
    "chunks of line ends": lambda n: read(CHUNKED + b"4\r\n\r\n\r\n\r\n" * n + b"0\r\n\r\n"),
    "a long extension": lambda n: pieces(CHUNKED + b"1;" + b"a" * 9 * n + b"\r\na\r\n", 9),
    "leading zeros": lambda n: pieces(CHUNKED + b"0" * 9 * n + b"1\r\na\r\n", 9),
    "trailers": lambda n: pieces(CHUNKED + b"0\r\n" + b"X: y\r\n" * n + b"\r\n", 7),
    "requests": lambda n: read(SHORTEST * 3 * n),
    "requests, byte by byte": lambda n: dripped(SHORTEST * n),
    "bodies": lambda n: read((HEAD + b"Content-Length: 1\r\n\r\na") * 2 * n),
    "a body, byte by byte": lambda n: dripped(HEAD + b"Content-Length: %d\r\n\r\n" % n + b"a" * n),
}


def work_of(blocks: list[Counted]) -> tuple[int, int]:
    """Return the calls that a connection makes to receive them, and the bytes that it copies."""
    client = connect(path_of, ROOMY)
    Counted.copied = 0
    return calls_of(lambda: client.send(*blocks)), Counted.copied


@needs_profile
@pytest.mark.parametrize("kind", SENT)
def test_twice_as_much_is_twice_the_work(kind: str) -> None:
    """CVE-2025-67725, CVE-2026-116577, CVE-2025-69229 and their kind."""
    once, twice = list(SENT[kind](2000)), list(SENT[kind](4000))
    calls, copied = work_of(once)
    calls_of_twice, copied_of_twice = work_of(twice)
    assert calls > 2
    assert calls_of_twice <= 2.1 * calls + 50
    # A head that does not come in one read is copied once to be put together.
    assert copied_of_twice <= 2.1 * copied + sum(map(len, twice))


def test_many_small_requests_in_one_read_are_not_copied_again_and_again() -> None:
    """However many there are: a read of twice the size is no more than twice the copying."""
    shares = []
    for size in (READ_SIZE // 4, READ_SIZE // 2):
        block = (SHORTEST * (size // len(SHORTEST) + 1))[:size]
        shares.append(work_of([Counted(block)])[1])
    assert shares[1] <= 2.1 * shares[0]


# Against the cheapest bytes ----------------------------------------------------------------------

ALPHABETS = {
    "line ends": b"\r\n",
    "empty lines": b"\r\n\r\n",
    "last chunks": b"0\r\n\r\n",
    "CRs": b"\r",
    "LFs": b"\n",
    "NULs": b"\0",
    "every byte": bytes(range(256)),
    "requests": SHORTEST,
}


def filled(size: int, unit: bytes = b"a") -> bytes:
    """Make so many bytes of a unit."""
    return (unit * (size // len(unit) + 1))[:size]


def in_a_chunk(unit: bytes) -> Callable[[int], bytes]:
    return lambda n: CHUNKED + b"%x\r\n" % n + filled(n, unit) + b"\r\n0\r\n\r\n"


def in_a_body(unit: bytes) -> Callable[[int], bytes]:
    return lambda n: HEAD + b"Content-Length: %d\r\n\r\n" % n + filled(n, unit)


def in_a_header(name: bytes, unit: bytes) -> Callable[[int], bytes]:
    return lambda n: HEAD + name + b": " + filled(n, unit) + b"\r\n\r\n"


plain = in_a_body(b"a")
"""The cheapest bytes that there are."""

AS_CHEAP: dict[str, Callable[[int], bytes]] = {
    **{f"a body of {kind}": in_a_body(unit) for kind, unit in ALPHABETS.items()},
    **{f"a chunk of {kind}": in_a_chunk(unit) for kind, unit in ALPHABETS.items()},
    "a header": in_a_header(b"X", b"a"),
    "a header of blanks": in_a_header(b"X", b"a \t"),
    "a header of other letters": in_a_header(b"X", b"\xe9\xff"),
    "a header with a long name": lambda n: HEAD + filled(n) + b": y\r\n\r\n",
    "a cookie": in_a_header(b"Cookie", b"a=b; "),
    "connection options": in_a_header(b"Connection", b"a,"),
    "connection options with blanks": in_a_header(b"Connection", b" ,\t"),
    "connection options that close": in_a_header(b"Connection", b"close,"),
    "codings": in_a_header(b"Transfer-Encoding", b"a,"),
    "an expectation": in_a_header(b"Expect", b"a,"),
    "a host": lambda n: b"GET / HTTP/1.1\r\nHost: " + filled(n) + b"\r\n\r\n",
    "a path": lambda n: b"GET /" + filled(n) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path of slashes": lambda n: b"GET /" + filled(n, b"/") + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path of escapes": lambda n: b"GET /" + b"%41" * (n // 3) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path of half escapes": lambda n: (
        b"GET /" + filled(n, b"%4x%\\%25") + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    ),
    "a query": lambda n: b"GET /?" + filled(n, b"a=b&") + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "too many headers": lambda n: HEAD + filled(n // 3 * 3, b"a:\r\n") + b"\r\n",
    "empty lines before a request": lambda n: b"\r\n" * (n // 2) + SHORTEST,
    "an extension": lambda n: CHUNKED + b"1;" + filled(n) + b"\r\na\r\n0\r\n\r\n",
    "extensions": lambda n: CHUNKED + b"1;" + b"a;" * (n // 2) + b"b\r\na\r\n0\r\n\r\n",
    "extensions with values": lambda n: (
        CHUNKED + b"1;" + b'a="b";c=d ; ' * (n // 12) + b"b\r\na\r\n0\r\n\r\n"
    ),
    "a quoted extension": lambda n: CHUNKED + b'1;a="' + b'\\"' * (n // 2) + b'"\r\na\r\n0\r\n\r\n',
    "blanks in an extension": lambda n: (
        CHUNKED + b"1;a" + filled(n, b" \t") + b"=b\r\na\r\n0\r\n\r\n"
    ),
    "leading zeros": lambda n: CHUNKED + b"0" * n + b"1\r\na\r\n0\r\n\r\n",
    "a trailer": lambda n: CHUNKED + b"0\r\nX: " + filled(n) + b"\r\n\r\n",
}
"""What costs as data does; each makes about so many bytes."""

SPLITS: dict[str, tuple[int, int]] = {
    "as it is read": (64 * READ_SIZE, READ_SIZE),
    "in packets": (400 * 1460, 1460),
    "byte by byte": (2000, 1),
}
"""How many bytes, and how many come at a time."""


def with_environ(stream: Stream) -> None:
    """Answer as a conversation does, with an environ."""
    request_environ({}, stream.peer, stream.request)
    path_of(stream)


def cost_of(blocks: list[Counted]) -> tuple[int, int]:
    """Return the calls that it takes to receive them and to begin the request, and the copying."""
    client = connect(with_environ, ROOMIEST)
    Counted.copied = 0
    return calls_of(lambda: client.send(*blocks)), Counted.copied


@needs_profile
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", AS_CHEAP)
def test_no_byte_costs_more_than_three_of_the_cheapest(kind: str, split: str) -> None:
    """Of the same length, split in the same way; a request itself may cost 150 calls beside it."""
    size, at_once = SPLITS[split]
    data = AS_CHEAP[kind](size)
    calls, copied = cost_of(list(pieces(data, at_once)))
    cost_of([Counted(plain(1))])  # so that it knows the names and the host, as after any request
    cheapest, least = cost_of(list(pieces(plain(size), at_once)))
    assert calls <= 3 * cheapest + 150
    assert copied <= 3 * max(least, len(data))


# What is a thing of its own costs more than its few bytes would as data, whoever reads it: an
# object is made of each. So each has a bound in calls, and a limit to how many there may be.
EACH: dict[str, tuple[int, Callable[[int], bytes]]] = {
    # --limit-fields for each request
    "header": (8, lambda n: HEAD + b"X: y\r\n" * n + b"\r\n"),
    "header of one kind": (11, lambda n: HEAD + b"Connection: x\r\n" * n + b"\r\n"),
    # --limit-chunks, and one for each 64 bytes of data
    "chunk": (10, lambda n: CHUNKED + b"1\r\na\r\n" * n + b"0\r\n\r\n"),
    "chunk with an extension": (80, lambda n: CHUNKED + b"1;a\r\na\r\n" * n + b"0\r\n\r\n"),
    # --limit-framing for each body
    "trailer": (2, lambda n: CHUNKED + b"0\r\n" + b"X: y\r\n" * n + b"\r\n"),
    # --limit-pipeline at a time, and each is answered before the next is begun
    "request": (95, lambda n: SHORTEST * n),
    "request with a body": (130, lambda n: (HEAD + b"Content-Length: 1\r\n\r\na") * n),
    "request with a chunk": (205, lambda n: (CHUNKED + b"1\r\na\r\n0\r\n\r\n") * n),
}


@needs_profile
@pytest.mark.parametrize("kind", EACH)
def test_a_thing_of_its_own_costs_so_many_calls(kind: str) -> None:
    """Whatever it is beside the others; limits say how many may come."""
    bound, make = EACH[kind]
    few, many = (cost_of(list(read(make(count))))[0] for count in (100, 1100))
    assert (many - few) / 1000 <= bound


class Ledger(dict[str, Any]):
    """An environ that counts the characters that are written into it."""

    written = 0

    def copy(self) -> Ledger:
        """Return another, with the same in it."""
        return Ledger(self)

    def __setitem__(self, key: str, value: str) -> None:
        self.written += len(value)
        super().__setitem__(key, value)


@pytest.mark.parametrize("name", [b"X-Name", b"Cookie", b"x-NAME"])
def test_a_repeated_header_is_joined_once(name: bytes) -> None:
    """Not to what was joined before, again and again (CVE-2025-67725)."""

    def written(count: int) -> int:
        request = Request("GET", b"/", b"/", b"", "1.1", [(name, b"0123456789")] * count)
        environ = request_environ(Ledger(), Peer("http", None, None), request)
        assert isinstance(environ, Ledger)
        return environ.written

    assert 10_000 < written(1000) < 20_000
    assert written(2000) <= 2 * written(1000)


@needs_profile
def test_a_response_costs_what_its_headers_do() -> None:
    """Calls, for twice as many of them."""

    def answer(count: int) -> None:
        head = Head("200 OK", [("X-Name", "value")] * count)
        encode(head.code, head.reason, head.headers, b"", b"", b"")

    answer(1)  # so that it knows the name
    assert calls_of(lambda: answer(2000)) <= 2.1 * calls_of(lambda: answer(1000))


# Patterns ----------------------------------------------------------------------------------------

MANY = 1 << 20
SEARCHED: dict[str, tuple[Callable[[Any], object], bytes | str]] = {
    "host of letters": (check_host, b"a" * MANY + b"@"),
    "host of percent signs": (check_host, b"%41" * MANY + b"%"),
    "host of colons": (check_host, b":" * MANY),
    "host of digits": (check_host, b"a:" + b"0" * MANY),
    "host in a bracket": (check_host, b"[" + b"1:" * MANY),
    "host of the future": (check_host, b"[v" + b"1" * MANY + b"." + b":" * MANY),
    "coding without a comma": (check_coding, b"a" * MANY + b"\0"),
    "coding of commas": (check_coding, b"," * MANY),
    "coding of many": (check_coding, b"a , \t" * MANY),
    "coding of blanks": (check_coding, b"a" + b" " * MANY + b"chunked"),
    "line of blanks": (split_request_line, b" " * MANY),
    "line of one word": (split_request_line, b"G" * MANY),
    "line without a version": (split_request_line, b"GET /" + b"a" * MANY + b" HTTP/9"),
    "line of carriage returns": (http1_syntax.HOPELESS.search, b"GET /" + b"\r" * MANY),
    "head without a control": (http1_syntax.HOPELESS.search, b"a" * MANY),
    "target of slashes": (lambda data: split_target("GET", data), b"http://" + b"/" * MANY),
    "target of a host": (lambda data: split_target("GET", data), b"http://" + b"a@" * MANY),
    "target of schemes": (lambda data: split_target("GET", data), b"http:" * MANY),
    "options": (http1_syntax.CLOSES.search, b" ,\t" * MANY),
    "options with blanks": (http1_syntax.KEEPS_ALIVE.search, b"," + b" \t" * MANY + b"keep"),
    "extensions": (chunked._RUNS["after a semicolon"].match, b"a;" * MANY + b"\0"),
    "extensions of blanks": (chunked._RUNS["after a semicolon"].match, b"a= \t" * MANY),
    "an extension's name": (chunked._RUNS["after a semicolon"].match, b"a" * MANY + b" " * MANY),
    "an open quotation": (chunked._RUNS["after a semicolon"].match, b'a="' + b'\\"' * MANY),
    "quotations": (chunked._RUNS["after a semicolon"].match, b'a="b" ;' * MANY + b'a="'),
    "blanks inside": (without_trailing_blanks, b"X: a" + b" \t" * MANY + b"b\r\n"),
    "blanks at the end": (without_trailing_blanks, b"X: a" + b" " * MANY + b"\r\n"),
    "blanks between": (without_trailing_blanks, b"X: " + b"a " * MANY + b"\r\n"),
    "blanks and carriage returns": (without_trailing_blanks, b"a \r" * MANY),
    "header's name": (lambda text: Head("200 OK", [(text, "")]), "a" * MANY + " "),
    "header's value": (lambda text: Head("200 OK", [("X", text)]), "a" * MANY + "\n"),
    "reason": (lambda text: Head(f"200 {text}", []), "a" * MANY + "\n"),
    "log line": (escaped, '"\\\x1b' * (MANY // 8)),  # each character costs a microsecond
}


@pytest.mark.parametrize("kind", SEARCHED)
def test_a_search_comes_to_an_end(kind: str) -> None:
    """CVE-2020-5236: a pattern that goes back and forth stands still on a single header."""
    search, text = SEARCHED[kind]
    with contextlib.suppress(LocalProtocolError, RemoteProtocolError):
        search(text)
