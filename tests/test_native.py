"""The hot functions on bytes: both forms do the same, and are strict about what they take."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

import bide
from bide.errors import LocalProtocolError
from bide.exchange.limits import Limits
from bide.exchange.messages import Head
from tests.failures import Failures, same
from tests.forms import BUILT, FORMS, needs_built
from tests.fuzz import heads
from tests.samples.tables import samples

LIMITS = Limits()
NAME64 = b"n" * 64

PLAIN = {
    "a browser's": b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8000\r\nUser-Agent: x (y; z)\r\n"
    b"Accept: */*\r\nConnection: keep-alive\r\nCookie: a=b; c=d\r\nSec-Fetch-User: ?1\r\n\r\n",
    "without headers": b"GET / HTTP/1.0\r\n\r\n",
    "with a body": b"POST /%20 HTTP/1.1\r\nhost: a\r\ncontent-LENGTH: 12\r\n\r\n",
    "the last one": b"DELETE / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Close\r\n\r\n",
    "with a long name": b"PUT / HTTP/1.1\r\nHost: a\r\n" + NAME64 + b": b\r\n\r\n",
    "with a new name": b"HEAD / HTTP/1.1\r\nHost: a\r\nX-Never-Seen-Before: b\r\n\r\n",
    "with a repeated header": b"PATCH / HTTP/1.1\r\nHost: a\r\nX-Y: b\r\nX-Y: c\r\n\r\n",
    "kept alive": b"OPTIONS /? HTTP/1.0\r\nConnection: KEEP-alive\r\nContent-Length: 0\r\n\r\n",
}
"""Heads that go the fast way."""

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
ODD = {
    "another method": b"LIST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a whole URL": b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: a\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "a host in brackets": b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    "a host with an empty port": b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
    "a host with a long port": b"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n",
    "two lengths": GET + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "a length with a zero before": GET + b"Content-Length: 01\r\n\r\n",
    "a length with a sign": GET + b"Content-Length: +1\r\n\r\n",
    "a length of 19 digits": GET + b"Content-Length: 1000000000000000000\r\n\r\n",
    "a coding": GET + b"Transfer-Encoding: chunked\r\n\r\n",
    "an expectation": GET + b"Expect: 100-continue\r\n\r\n",
    "another protocol": GET + b"Upgrade: websocket\r\n\r\n",
    "another option": GET + b"Connection: upgrade\r\n\r\n",
    "two options": GET + b"Connection: close, x\r\n\r\n",
    "two Connections": GET + b"Connection: close\r\nConnection: close\r\n\r\n",
    "a proxy's option": GET + b"Proxy-Connection: close\r\n\r\n",
    "Proxy": GET + b"Proxy: a\r\n\r\n",
    "an underscore": GET + b"Content_Length: 1\r\n\r\n",
    "a name too long": GET + NAME64 + b"n: a\r\n\r\n",
    "no name": GET + b": a\r\n\r\n",
    "a blank before the colon": GET + b"X : a\r\n\r\n",
    "no blank behind the colon": GET + b"X:a\r\n\r\n",
    "two blanks behind the colon": GET + b"X:  a\r\n\r\n",
    "a blank at the end": GET + b"X: a \r\n\r\n",
    "no value": GET + b"X: \r\n\r\n",
    "a tab": GET + b"X: a\tb\r\n\r\n",
    "a control character": GET + b"X: a\x01b\r\n\r\n",
    "DEL": GET + b"X: aaaaaaaaa\x7f\r\n\r\n",
    "a byte that is not ASCII": GET + b"X: aaaaaaaaa\x80aaaaaaaa\r\n\r\n",
    "a folded line": GET + b"X: a\r\n b\r\n\r\n",
    "a bare LF": GET + b"X: a\nY: b\r\n\r\n",
    "a bare CR": GET + b"X: a\rb\r\n\r\n",
    "an empty line before": b"\r\n" + GET + b"\r\n",
    "65 headers": GET + b"X: a\r\n" * 64 + b"\r\n",
}
"""Heads that the strict reader decides about, whatever it decides."""


def test_plain_heads_are_taken_and_others_are_not() -> None:
    """By both forms: a fast way that takes nothing is none, one that takes too much is wrong."""
    with Failures() as failures:
        for form, functions in FORMS.items():
            for name, head in PLAIN.items():
                with failures.of(f"{form}: {name}"):
                    assert functions.parse(head, 0, LIMITS)[0] == len(head)
            for name, head in ODD.items():
                with failures.of(f"{form}: {name}"):
                    assert functions.parse(head, 0, LIMITS) is None


def test_every_sample_of_http_means_the_same_in_every_way() -> None:
    """By both forms, the strict reader and one that is apart; also with limits that are narrow."""
    with Failures() as failures:
        for sample in samples():
            for drawn in (bytes(3), b"\x01\x01\x02"):
                with failures.of(sample):
                    heads.check(drawn + sample.data)


def test_parts_of_a_plain_head_are_as_they_stand_in_it() -> None:
    """Each part in its place, whatever comes before and behind."""
    head = PLAIN["a browser's"]
    data = b"xyz" + head + b"GET"
    fields = ["HTTP_HOST", "example.com:8000", "HTTP_USER_AGENT", "x (y; z)", "HTTP_ACCEPT", "*/*"]
    fields += ["HTTP_CONNECTION", "keep-alive", "HTTP_COOKIE", "a=b; c=d", "HTTP_SEC_FETCH_USER"]
    with Failures() as failures:
        for form, functions in FORMS.items():
            with failures.of(form):
                end, *parts = functions.parse(data, 3, LIMITS)
                same(end, 3 + len(head))
                same(parts[:4], ["GET", b"/a/b?c=d", b"/a/b", False])
                same(parts[4:], [b"c=d", "1.1", True, 0, (*fields, "?1")])
                for at in (-1, len(data), len(data) + 1, 4):
                    assert functions.parse(data, at, LIMITS) is None


def test_every_byte_is_looked_at_wherever_it_stands() -> None:
    """In values of 1 to 20 bytes, which are looked at eight at a time: visible ASCII is taken."""
    with Failures() as failures:
        for form, functions in FORMS.items():
            for byte in range(256):
                wrong = []
                for size in range(1, 21):
                    for at in range(size):
                        value = bytearray(b"a" * size)
                        value[at] = byte
                        inside = 0 < at < size - 1
                        good = 0x20 < byte < 0x7F or (byte == 0x20 and inside)
                        head = GET + b"X: " + value + b"\r\n\r\n"
                        if (functions.parse(head, 0, LIMITS) is not None) != good:
                            wrong.append(("parse", size, at))
                        good = 0x20 <= byte < 0x7F
                        headers = [("X", value.decode("latin-1"))]
                        if (functions.check(headers, {"X": ""}) is not None) != good:
                            wrong.append(("check", size, at))
                with failures.of(f"{form}: {byte:#x}"):
                    same(wrong, [])


def test_names_of_one_length_and_one_hash_are_told_apart() -> None:
    """The compiled table hashes by FNV-1a, for which anybody can find such names."""
    head = GET + b"X-AKC0X: a\r\nX-AW2TA: b\r\n\r\n"
    with Failures() as failures:
        for form, functions in FORMS.items():
            for _ in range(2):
                with failures.of(form):
                    fields = functions.parse(head, 0, LIMITS)[-1]
                    same(fields[2:], ("HTTP_X_AKC0X", "a", "HTTP_X_AW2TA", "b"))


def test_limits_hold_to_the_byte() -> None:
    """What is at its limit is taken, and a byte or a header more is left to be refused."""
    head = b"POST /abc HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    line = head.find(b"\r\n")
    bounds: dict[str, Any] = {"request_line": line, "head": len(head), "fields": 2, "body": 5}
    with Failures() as failures:
        for form, functions in FORMS.items():
            for name, bound in bounds.items():
                with failures.of(f"{form}: {name}"):
                    assert functions.parse(head, 0, Limits(**{name: bound})) is not None
                    assert functions.parse(head, 0, Limits(**{name: bound - 1})) is None
            with failures.of(f"{form}: no limit on bodies, and limits beyond all numbers"):
                assert functions.parse(head, 0, Limits(body=0)) is not None
                assert functions.parse(head, 0, Limits(10**30, 10**30, 10**30, 10**30)) is not None


@needs_built
def test_names_that_clients_make_up_are_kept_in_bounds() -> None:
    """The keys of those beyond are right as well, in a head with more of them than are kept."""
    most = BUILT.kept()[1]
    for first in range(0, 3 * most, 60):
        lines = [b"X-Made-%d: a\r\n" % number for number in range(first, first + 60)]
        head = GET + b"".join(lines) + b"Accept: b\r\n\r\n"
        keys = [f"HTTP_X_MADE_{number}" for number in range(first, first + 60)]
        for _ in range(2):
            fields = BUILT.parse(head, 0, LIMITS)[-1]
            assert list(fields[::2]) == ["HTTP_HOST", *keys, "HTTP_ACCEPT"]
    assert BUILT.kept() == (most, most)
    assert BUILT.parse(ODD["a coding"], 0, LIMITS) is None


class Subclass(str):
    """A text that is not quite a str: Python looks at it."""


STATUSES = ["200 OK", "404 Not Found", "299 \xe9", "999 "]
CHECKED: dict[str, Any] = {
    "nothing": [],
    "a type": [("Content-Type", "text/plain")],
    "a length": [("Content-Length", "013"), ("X-A", "")],
    "its own stamps": [("date", "now"), ("SERVER", "mine")],
    "cookies": [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")],
}
"""Headers that the fast way takes, when their names have been seen."""
UNCHECKED: dict[str, Any] = {
    "no list": (("X-A", "b"),),
    "a dict": {"X-A": "b"},
    "None": None,
    "lists": [["X-A", "b"]],
    "a text": ["ab"],
    "three": [("X-A", "b", "c")],
    "bytes": [("X-A", b"b")],
    "a number": [("Content-Length", 5)],
    "a name that is a number": [(5, "b")],
    "a subclass": [(Subclass("X-A"), "b")],
    "a value of a subclass": [("X-A", Subclass("b"))],
    "a tab": [("X-A", "b\tc")],
    "a line": [("X-A", "b\r\nX: y")],
    "a line far behind": [("X-A", "b" * 100 + "\n")],
    "DEL": [("X-A", "\x7f")],
    "Latin-1": [("X-A", "\xe9")],
    "no Latin-1": [("X-A", "\u20ac")],
    "no name": [("", "b")],
    "a blank": [("X A", "b")],
    "two lengths": [("Content-Length", "1"), ("content-length", "1")],
    "an empty length": [("Content-Length", "")],
    "a length that is none": [("Content-Length", "-1")],
    "a long length": [("Content-Length", "1" * 19)],
    "a connection": [("Connection", "close")],
    "a coding": [("Transfer-Encoding", "chunked")],
}
"""Headers that Python looks at, whatever it finds."""


class Given(list[Any]):
    """A list that is not quite one: its headers are checked by Python."""


def outcome(status: str, headers: Any) -> object:
    """Return all of a head, or how it is refused."""
    try:
        head = Head(status, headers)
    except LocalProtocolError as error:
        return str(error)
    marks = (head.bodiless, head.closes, head.dated, head.served)
    return head.code, head.reason, head.headers, head.length, head.connection, marks


def test_heads_of_responses_are_checked_alike() -> None:
    """The fast way takes what is plain, and nothing that Python would refuse or read otherwise."""
    kinds = {"X-A": "", "Content-Type": "", "Set-Cookie": "", "Content-Length": "content-length"}
    kinds |= {"content-length": "content-length", "date": "date", "SERVER": "server"}
    kinds |= {"Connection": "connection", "Transfer-Encoding": "connection"}
    with Failures() as failures:
        for name, headers in (CHECKED | UNCHECKED).items():
            for form, functions in FORMS.items():
                with failures.of(f"{form}: {name}"):
                    found = functions.check(headers, kinds)
                    assert (found is not None) == (name in CHECKED)
                    assert functions.check(headers, {}) == (None if headers else found)
                    if found is not None:
                        head = Head("200 OK", Given(headers))
                        same(found, (head.headers, head.length, head.dated, head.served))
                        assert found[0] is not headers
            if type(headers) is list:
                for status in ("200 OK", "204 No Content"):
                    with failures.of(f"{status}: {name}"):
                        same(outcome(status, headers), outcome(status, Given(headers)))


def test_heads_of_responses_are_encoded_alike() -> None:
    """Byte for byte; and what is not Latin-1 is not sent in part."""
    with Failures() as failures:
        for form, functions in FORMS.items():
            for status in STATUSES:
                for name, headers in CHECKED.items():
                    with failures.of(f"{form}: {status}, {name}"):
                        code, reason = int(status[:3]), status[4:]
                        lines = [f"HTTP/1.1 {status}", *(f"{a}: {b}" for a, b in headers)]
                        came = functions.encode(code, reason, headers, b"Date: x\r\n", b"", b"\r\n")
                        expected = "\r\n".join([*lines, "Date: x", "", ""]).encode("latin-1")
                        same(came, expected)
            for text in ("\u20ac", "\U0001f600"):
                for reason, value in ((text, "a"), ("OK", text)):
                    with failures.of(f"{form}: {reason}, {value}"), pytest.raises(UnicodeError):
                        functions.encode(200, reason, [("X", value)], b"", b"", b"")


def test_python_can_be_asked_for() -> None:
    """By ``BIDE_PURE=1``; else what is built is taken. Version and status say which it is."""
    asked = "import bide; print(bide.status().form)"
    with Failures() as failures:
        for wish in ("1", "", "0"):
            with failures.of(f"BIDE_PURE={wish}"):
                environ = {**os.environ, "BIDE_PURE": wish}
                for command in (["-m", "bide", "--version"], ["-c", asked]):
                    done = subprocess.run(
                        [sys.executable, *command],
                        env=environ,
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    pure = done.stdout.rstrip(")\n").rpartition("(")[2] == "pure Python"
                    same(pure, wish == "1" or BUILT is None, done)


def test_the_first_line_at_debug_says_which_form_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Of any server, before anything else happens."""

    async def serve() -> None:
        async with bide.Server(lambda environ, start_response: [], bind="127.0.0.1:0"):
            pass

    caplog.set_level(logging.DEBUG, "bide")
    asyncio.run(serve())
    assert caplog.messages[0] == f"Bide is {bide.status().form}"
