"""Responses on the wire: their framing to the byte, and what their heads may hold.

``Date`` is shown as ``Date: now``; everything else is compared as it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bide.errors import ClientDisconnected, LocalProtocolError
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal
from tests.failures import Failures, same
from tests.protocols.exchanges import (
    BLOCKS,
    BLOCKS_LENGTH,
    CHUNKED,
    CLOSED,
    FIVE,
    GET,
    HEAD,
    HELLO_CHUNKS,
    KEPT,
    LAST,
    NO_CONTENT,
    NOTHING,
    OLD,
    OLD_HEAD,
    OLD_KEPT,
    OLD_KEPT_HEAD,
    STAMP,
    WHOLE,
    Response,
    exchange,
    length,
    response,
)
from tests.protocols.fakes import connect

WHOLE_LENGTH = Response(last=b"hello", headers=FIVE)
BLOCK_AND_LAST = Response((b"he",), b"llo")
NO_CONTENT_LENGTH = Response(status="204 No Content", headers=[("Content-Length", "0")])
NO_CONTENT_BODY = Response((b"he",), b"llo", status="204 No Content")
NOT_MODIFIED = Response(status="304 Not Modified")
NOT_MODIFIED_LENGTH = Response(status="304 Not Modified", headers=FIVE)
NOT_MODIFIED_BODY = Response((b"he",), b"llo", status="304 Not Modified")


# Request, response, the fields behind Date and Server, body, whether the connection is kept.
# Headers of the application stand before Date: here only Content-Length, marked by None.
FRAMING: dict[str, tuple[bytes, Response, tuple[bytes, ...], bytes, bool]] = {
    "1.1 whole": (GET, WHOLE, (length(5),), b"hello", True),
    "1.1 blocks": (GET, BLOCKS, (CHUNKED,), HELLO_CHUNKS, True),
    "1.1 block and last": (GET, BLOCK_AND_LAST, (CHUNKED,), HELLO_CHUNKS, True),
    "1.1 nothing": (GET, NOTHING, (length(0),), b"", True),
    "1.1 close whole": (LAST, WHOLE, (length(5), CLOSED), b"hello", False),
    "1.1 close blocks": (LAST, BLOCKS, (CHUNKED, CLOSED), HELLO_CHUNKS, False),
    "1.0 whole": (OLD, WHOLE, (length(5), CLOSED), b"hello", False),
    "1.0 blocks": (OLD, BLOCKS, (CLOSED,), b"hello", False),
    "1.0 block and last": (OLD, BLOCK_AND_LAST, (CLOSED,), b"hello", False),
    "1.0 nothing": (OLD, NOTHING, (length(0), CLOSED), b"", False),
    "1.0 kept whole": (OLD_KEPT, WHOLE, (length(5), KEPT), b"hello", True),
    "1.0 kept blocks": (OLD_KEPT, BLOCKS, (CLOSED,), b"hello", False),
    "1.0 kept nothing": (OLD_KEPT, NOTHING, (length(0), KEPT), b"", True),
    "HEAD whole": (HEAD, WHOLE, (length(5),), b"", True),
    "HEAD blocks": (HEAD, BLOCKS, (), b"", True),
    "HEAD nothing": (HEAD, NOTHING, (), b"", True),
    "1.0 HEAD whole": (OLD_HEAD, WHOLE, (length(5), CLOSED), b"", False),
    "1.0 HEAD blocks": (OLD_HEAD, BLOCKS, (CLOSED,), b"", False),
    "1.0 kept HEAD blocks": (OLD_KEPT_HEAD, BLOCKS, (KEPT,), b"", True),
}
# The same with a Content-Length of the application's: no other framing, however it is sent.
COUNTED: dict[str, tuple[bytes, Response, tuple[bytes, ...], bytes, bool]] = {
    "1.1 whole": (GET, WHOLE_LENGTH, (), b"hello", True),
    "1.1 blocks": (GET, BLOCKS_LENGTH, (), b"hello", True),
    "1.1 close": (LAST, BLOCKS_LENGTH, (CLOSED,), b"hello", False),
    "1.0": (OLD, BLOCKS_LENGTH, (CLOSED,), b"hello", False),
    "1.0 kept": (OLD_KEPT, BLOCKS_LENGTH, (KEPT,), b"hello", True),
    "HEAD whole": (HEAD, WHOLE_LENGTH, (), b"", True),
    "HEAD blocks": (HEAD, BLOCKS_LENGTH, (), b"", True),
    "HEAD nothing": (HEAD, Response(headers=FIVE), (), b"", True),
    "1.0 HEAD": (OLD_HEAD, BLOCKS_LENGTH, (CLOSED,), b"", False),
}
BODILESS: dict[str, tuple[bytes, Response, tuple[bytes, ...], bool]] = {
    f"{request} {name}": (data, answer, end, kept)
    for request, data, end, kept in [
        ("GET", GET, (), True),
        ("HEAD", HEAD, (), True),
        ("1.0", OLD, (CLOSED,), False),
        ("1.0 kept", OLD_KEPT, (KEPT,), True),
    ]
    for name, answer in [
        ("204", NO_CONTENT),
        ("204 with length", NO_CONTENT_LENGTH),
        ("204 with body", NO_CONTENT_BODY),
        ("204 whole", Response(last=b"hello", status="204 No Content")),
        ("304 whole", Response(last=b"hello", status="304 Not Modified")),
        ("304", NOT_MODIFIED),
        ("304 with body", NOT_MODIFIED_BODY),
    ]
}


def test_response_is_framed() -> None:
    """Length where it is known, chunks where it is not, the connection's end for 1.0."""
    with Failures() as failures:
        for name, (request, answer, fields, body, kept) in FRAMING.items():
            with failures.of(name):
                client = exchange(request, answer)
                same(client.received, response(*STAMP, *fields, body=body))
                same(client.transport.closed, "" if kept else "linger")
                same(client.owner.answered, client.owner.begun if kept else [])


def test_response_with_a_content_length_is_framed_by_it() -> None:
    """Never by chunks, and never by the connection's end."""
    with Failures() as failures:
        for name, (request, answer, fields, body, kept) in COUNTED.items():
            with failures.of(name):
                client = exchange(request, answer)
                same(client.received, response(length(5), *STAMP, *fields, body=body))
                same(client.transport.closed, "" if kept else "linger")


def test_response_without_a_body_has_no_byte_of_one() -> None:
    """204 and 304, whatever the application gives; 204 has no Content-Length (RFC 9110 8.6)."""
    with Failures() as failures:
        for name, (request, answer, fields, kept) in BODILESS.items():
            with failures.of(name):
                client = exchange(request, answer)
                status = answer.status.encode()
                same(client.received, response(*STAMP, *fields, status=status))
                same(client.transport.closed, "" if kept else "linger")


def test_304_keeps_the_content_length_of_the_application() -> None:
    """It tells what a 200 would have had (RFC 9110 section 8.6)."""
    client = exchange(GET, NOT_MODIFIED_LENGTH)
    assert client.received == response(length(5), *STAMP, status=b"304 Not Modified")


def test_response_goes_out_in_as_few_pieces_as_it_was_given_in() -> None:
    """Head and first block together, last block and end together, nothing held back."""
    assert len(exchange(GET, WHOLE).transport.writes) == 1
    assert len(exchange(GET, NOTHING).transport.writes) == 1
    assert len(exchange(GET, BLOCK_AND_LAST).transport.writes) == 2
    assert len(exchange(HEAD, BLOCKS).transport.writes) == 1
    client = connect()
    client.send(GET)
    client.stream.start("200 OK", [])
    assert client.transport.writes == []
    client.stream.send(b"first")
    assert client.transport.writes[0].endswith(b"\r\n\r\n5\r\nfirst\r\n")
    client.stream.send(b"second")
    assert client.transport.writes[1:] == [b"6\r\nsecond\r\n"]
    client.stream.end(b"third")
    assert client.transport.writes[2:] == [b"5\r\nthird\r\n0\r\n\r\n"]


@pytest.mark.parametrize("size", [1, 9, 15, 16, 255, 256, 70000])
def test_chunk_has_its_size_in_hexadecimal(size: int) -> None:
    """RFC 9112 section 7.1."""
    client = connect()
    client.send(GET)
    client.stream.start("200 OK", [])
    client.stream.send(b"a" * size)
    body = client.transport.sent.partition(b"\r\n\r\n")[2]
    assert body == hex(size)[2:].encode() + b"\r\n" + b"a" * size + b"\r\n"


def test_head_is_that_of_the_last_start() -> None:
    """``start_response`` with ``exc_info`` replaces what has not been sent, its length too."""

    def answer(stream: Stream) -> None:
        stream.start("200 OK", [*FIVE, ("X", "1")])
        stream.start("500 Internal Server Error", [("Y", "2")])
        stream.end(b"sorry, no")

    client = exchange(GET, answer)
    assert client.received == response(
        b"Y: 2", *STAMP, length(9), status=b"500 Internal Server Error", body=b"sorry, no"
    )


CONNECTION = {
    "keep-alive": True,
    "Keep-Alive": True,
    "close": False,
    "Close": False,
    "keep-alive, close": False,
}


def test_connection_of_the_application_is_dropped_and_close_obeyed() -> None:
    """It is the server's: once, with the server's value, also where the length is found later."""
    with Failures() as failures:
        for value, kept in CONNECTION.items():
            for name in ("Connection", "connection"):
                with failures.of(f"{name}: {value}"):
                    answer = Response(
                        last=b"hello", headers=[("A", "1"), (name, value), ("B", "2")]
                    )
                    client = exchange(GET, answer)
                    end = () if kept else (CLOSED,)
                    own = (b"A: 1", b"B: 2", *STAMP, length(5), *end)
                    same(client.received, response(*own, body=b"hello"))
                    same(client.transport.closed, "" if kept else "linger")


def test_connection_of_the_application_is_obeyed_when_the_length_is_announced_later() -> None:
    """As for files and large bodies."""

    def answer(stream: Stream) -> None:
        stream.start("200 OK", [("Connection", "close")])
        stream.announce(5)
        stream.end(b"hello")

    client = exchange(GET, answer)
    assert client.received == response(length(5), *STAMP, CLOSED, body=b"hello")


# Headers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
def test_date_of_the_application_is_kept(name: str) -> None:
    """And is the only one."""
    client = exchange(GET, Response(last=b"a", headers=[(name, "Thu, 01 Jan 1970 00:00:00 GMT")]))
    own = f"{name}: Thu, 01 Jan 1970 00:00:00 GMT".encode()
    expected = response(own, b"Server: bide", length(1), body=b"a")
    assert client.transport.sent == expected


@pytest.mark.parametrize("name", ["Server", "server"])
def test_server_of_the_application_is_kept(name: str) -> None:
    """And is the only one."""
    client = exchange(GET, Response(last=b"a", headers=[(name, "mine")]))
    own = f"{name}: mine".encode()
    assert client.received == response(own, b"Date: now", length(1), body=b"a")


def test_date_and_server_of_the_application_are_kept_together() -> None:
    """In the application's order."""
    client = exchange(GET, Response(last=b"a", headers=[("Server", "mine"), ("Date", "then")]))
    assert client.transport.sent == response(b"Server: mine", b"Date: then", length(1), body=b"a")


def test_date_is_an_http_date() -> None:
    """RFC 9110 section 5.6.7: IMF-fixdate."""
    sent = exchange(GET, NOTHING).transport.sent
    days = b"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
    assert re.search(rb"\r\nDate: %b, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n" % days, sent)


def test_headers_are_sent_as_given() -> None:
    """Their order, their repetition, their case, and every Latin-1 character."""
    headers = [("X-b", "\xe9\xff"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("Empty", "")]
    client = exchange(GET, Response(headers=headers, status="200 D\xe9j\xe0 vu"))
    own = (b"X-b: \xe9\xff", b"Set-Cookie: a=1", b"set-cookie: b=2", b"Empty: ")
    assert client.received == response(*own, *STAMP, length(0), status=b"200 D\xe9j\xe0 vu")


def test_status_without_a_reason_keeps_its_blank() -> None:
    """RFC 9112 section 4: the reason may be empty, the SP may not be missing."""
    assert exchange(GET, Response(status="200")).received.startswith(b"HTTP/1.1 200 \r\n")
    assert exchange(GET, Response(status="299 ")).received.startswith(b"HTTP/1.1 299 \r\n")


BAD: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "CR in a value": ("200 OK", [("X", "a\rb")]),
    "LF in a value": ("200 OK", [("X", "a\nb")]),
    "CRLF in a value": ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
    "CRLF at the end": ("200 OK", [("X", "a\r\n")]),
    "CRLF at the start": ("200 OK", [("X", "\r\n\r\n<script>")]),
    "NUL in a value": ("200 OK", [("X", "a\0b")]),
    "value beyond Latin-1": ("200 OK", [("X", "\u20ac")]),
    "half a pair of surrogates": ("200 OK", [("X", "\ud83d")]),
    "CR in a name": ("200 OK", [("X\rY", "a")]),
    "LF in a name": ("200 OK", [("X\nY", "a")]),
    "CRLF in a name": ("200 OK", [("X: a\r\nY", "a")]),
    "NUL in a name": ("200 OK", [("X\0", "a")]),
    "colon in a name": ("200 OK", [("X:", "a")]),
    "empty name": ("200 OK", [("", "a")]),
    "CR in the status": ("200 O\rK", []),
    "LF in the status": ("200 O\nK", []),
    "CRLF in the status": ("200 OK\r\nX: y", []),
    "NUL in the status": ("200 O\0K", []),
    "status beyond Latin-1": ("200 \u20ac", []),
    "Content-Length twice": ("200 OK", [("Content-Length", "1"), ("Content-Length", "1")]),
    "Content-Length signed": ("200 OK", [("Content-Length", "+1")]),
    "Content-Length negative": ("200 OK", [("Content-Length", "-1")]),
    "Content-Length a list": ("200 OK", [("Content-Length", "1, 1")]),
    "Content-Length empty": ("200 OK", [("Content-Length", "")]),
    "Transfer-Encoding": ("200 OK", [("Transfer-Encoding", "chunked")]),
    "Connection": ("200 OK", [("Connection", "X")]),
    "Keep-Alive": ("200 OK", [("Keep-Alive", "timeout=5")]),
    "Upgrade": ("200 OK", [("Upgrade", "h2c")]),
    "Trailer": ("200 OK", [("Trailer", "X")]),
    "interim status": ("100 Continue", []),
}


def test_head_that_would_harm_the_connection_is_refused() -> None:
    """No byte of it is sent, each time, and the server can still answer with its own error."""
    with Failures() as failures:
        for name, (status, headers) in BAD.items():
            with failures.of(name):
                refuse(status, headers)


def refuse(status: str, headers: list[tuple[str, str]]) -> None:
    """Check that a head is refused."""

    def answer(stream: Stream) -> None:
        for _ in range(2):
            with pytest.raises(LocalProtocolError):
                stream.start(status, [("A", "b"), *headers])
        same(client.transport.sent, b"")
        stream.start("500 Internal Server Error", [])
        stream.end(b"sorry")

    client = connect(answer)
    client.send(GET)
    status_line = b"500 Internal Server Error"
    same(client.received, response(*STAMP, length(5), status=status_line, body=b"sorry"))


CONTROLS = [*range(9), *range(10, 32), 127]
PLACES: dict[str, Callable[[str], tuple[str, list[tuple[str, str]]]]] = {
    "value": lambda control: ("200 OK", [("X", f"a{control}b")]),
    "start of a value": lambda control: ("200 OK", [("X", f"{control}b")]),
    "end of a value": lambda control: ("200 OK", [("X", f"a{control}")]),
    "last of several values": lambda control: ("200 OK", [("X", "a"), ("X", "b"), ("X", control)]),
    "length": lambda control: ("200 OK", [("Content-Length", f"5{control}")]),
    "name": lambda control: ("200 OK", [(f"X{control}Y", "a")]),
    "reason": lambda control: (f"200 O{control}K", []),
    "end of a reason": lambda control: (f"200 OK{control}", []),
    "reason alone": lambda control: (f"200 {control}", []),
}


def test_head_with_a_control_character_is_refused() -> None:
    """Each but HTAB, wherever it stands, and nothing is sent (PEP 3333; RFC 9110 section 5.5)."""
    with Failures() as failures:
        for place, head in PLACES.items():
            for control in CONTROLS:
                status, headers = head(chr(control))
                with failures.of(f"{place}, {control:#x}"):
                    client = connect()
                    client.send(GET)
                    with pytest.raises(LocalProtocolError):
                        client.stream.start(status, [("A", "b"), *headers, ("C", "d")])
                    same(client.transport.sent, b"")
                    client.stream.start("200 OK", [])
                    client.stream.end(b"a")
                    same(client.received, response(*STAMP, length(1), body=b"a"))


def test_head_with_every_other_character_is_sent() -> None:
    """HTAB, and all of Latin-1 but the controls of ASCII, in a value and in the reason."""
    text = "".join(chr(code) for code in range(1, 256) if code not in CONTROLS)
    client = exchange(GET, Response(headers=[("X", f"a{text}b")], status=f"200 a{text}b"))
    data = b"a" + text.encode("latin-1") + b"b"
    assert client.received == response(b"X: " + data, *STAMP, length(0), status=b"200 " + data)


# Large blocks ------------------------------------------------------------------------------------

LARGE = b"x" * 16384
IN_PIECES = {
    "chunked": (GET, Response((LARGE,)), 1),
    "chunked, and the last": (GET, Response((b"a", LARGE), last=LARGE), 2),
    "with its length": (GET, Response(last=LARGE), 1),
    "with a length": (GET, Response((LARGE,), headers=[("Content-Length", "16384")]), 1),
    "to the end": (OLD, Response((LARGE, LARGE)), 2),
}


@pytest.mark.parametrize("kind", IN_PIECES)
def test_large_block_is_passed_on_as_it_is(kind: str) -> None:
    """One object for all clients, which nobody copies; what frames it stands beside it."""
    request, answer, times = IN_PIECES[kind]
    client = exchange(request, answer)
    assert sum(each is LARGE for each in client.transport.blocks) == times
    small = LARGE[1:]
    copied = exchange(request, replace_blocks(answer, small))
    assert not any(each is small for each in copied.transport.blocks[:1])
    expected = copied.received.replace(small, LARGE)
    for few, many in ((b"3fff", b"4000"), (b"16383", b"16384")):
        expected = expected.replace(few, many)
    assert client.received == expected


def replace_blocks(answer: Response, block: bytes) -> Response:
    """Answer with another block in the place of the large one."""

    def other(each: bytes) -> bytes:
        return block if each is LARGE else each

    headers = [(name, value.replace("16384", "16383")) for name, value in answer.headers]
    return Response(tuple(map(other, answer.blocks)), other(answer.last), headers=headers)


# Files -------------------------------------------------------------------------------------------


def test_file_goes_out_behind_its_head() -> None:
    """The head alone, then what the kernel takes, in as many steps as it wants."""
    client = connect()
    client.send(GET)
    client.transport.file_sends.extend([2, 0, 3])
    stream = client.stream
    stream.start("200 OK", FIVE)
    assert stream.send_file(7, 10, 5) == 2
    assert isinstance(stream.send_file(7, 12, 3), Signal)
    assert stream.send_file(7, 12, 3) == 3
    stream.end()
    assert client.received == response(length(5), *STAMP)
    assert client.transport.files == [(7, 10, 5), (7, 12, 3), (7, 12, 3)]
    assert client.transport.closed == ""


def test_file_that_stops_in_the_middle_is_cut() -> None:
    """The client leaves, or the file is shorter than it was."""
    client = connect()
    client.send(GET)
    client.transport.file_sends.extend([2, -1])
    client.stream.start("200 OK", FIVE)
    client.stream.send_file(7, 0, 5)
    with pytest.raises(ClientDisconnected):
        client.stream.send_file(7, 2, 3)
    client.stream.cut()
    assert client.transport.closed == "linger"
