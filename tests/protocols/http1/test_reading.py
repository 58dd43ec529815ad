"""What an application's reading does on the wire: 100 Continue, and the window of a body."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bide.errors import LocalProtocolError
from bide.exchange.body import Body
from bide.exchange.limits import Limits
from bide.waiting.outcome import Signal
from tests.protocols.exchanges import (
    BLOCKS,
    CHUNKED_POST,
    CLOSED,
    NOTHING,
    STAMP,
    WHOLE,
    Response,
    exchange,
    length,
    numbered,
    path_of,
    post,
    response,
)
from tests.protocols.fakes import connect

SMALL = Limits(window=8, discard=100)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
ASKING = (
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
)


@pytest.mark.parametrize("request_", ASKING)
def test_continue_is_sent_when_the_application_reads_and_only_then(request_: bytes) -> None:
    """Once, however often it reads."""
    client = connect()
    client.send(request_)
    assert client.transport.sent == b""
    assert isinstance(client.stream.receive(), Signal)
    assert client.transport.sent == CONTINUE
    assert isinstance(client.stream.receive(), Signal)
    assert client.transport.sent == CONTINUE
    chunked = b"chunked" in request_
    client.send(b"5\r\nhello\r\n0\r\n\r\n" if chunked else b"hello")
    assert [client.stream.receive(), client.stream.receive()] == [b"hello", b""]
    WHOLE(client.stream)
    assert client.received == CONTINUE + response(*STAMP, length(5), body=b"hello")
    assert client.transport.closed == ""


def test_continue_is_not_sent_once_the_body_has_begun_to_come() -> None:
    """RFC 9110 section 10.1.1: who did not wait needs no answer, and keeps the connection."""
    for early in (b"h", b"hello"):
        client = connect()
        client.send(ASKING[0] + early)
        client.stream.receive()
        client.stream.receive()
        client.send(b"hello"[len(early) :])
        WHOLE(client.stream)
        assert client.received == response(*STAMP, length(5), body=b"hello")
        assert client.transport.closed == ""


@pytest.mark.parametrize("request_", [ASKING[0], ASKING[0].replace(b"POST", b"HEAD")])
def test_continue_is_sent_before_a_response_that_goes_on(request_: bytes) -> None:
    """The application may read later, when 100 would stand in the middle of the response."""
    client = connect()
    client.send(request_)
    client.stream.start("299 Odd", [])
    client.stream.send(b"he")
    assert client.transport.sent.startswith(CONTINUE + b"HTTP/1.1 299 Odd\r\n")
    client.send(b"hello")
    assert [client.stream.receive(), client.stream.receive()] == [b"hello", b""]
    client.stream.end(b"llo")
    assert client.received.count(CONTINUE) == 1
    assert client.transport.closed == ""
    assert client.owner.answered == client.owner.begun


def test_a_read_behind_the_beginning_of_a_refusal_fails() -> None:
    """Its client keeps the body, and would be waited for until its time is over."""
    for status in ("300 Many", "413 Too Large", "500 Error"):
        client = connect()
        client.send(ASKING[0])
        client.stream.start(status, [])
        client.stream.send(b"he")
        assert CONTINUE not in client.transport.sent
        with pytest.raises(LocalProtocolError, match=r"read wsgi\.input before the answer"):
            client.stream.receive()
        client.stream.end(b"llo")
        assert client.transport.sent.startswith(b"HTTP/1.1 " + status.encode())
        assert client.transport.closed == "linger"


def test_a_read_behind_the_beginning_of_a_refusal_takes_what_came_unasked() -> None:
    """The client has not waited; then nobody needs to."""
    client = connect()
    client.send(ASKING[0])
    client.stream.start("413 Too Large", [])
    client.stream.send(b"he")
    client.send(b"hello")
    assert [client.stream.receive(), client.stream.receive()] == [b"hello", b""]


def test_continue_is_sent_to_a_head_that_is_ready_and_not_sent() -> None:
    """An application may call ``start_response`` before it reads."""
    client = connect()
    client.send(ASKING[0])
    client.stream.start("200 OK", [])
    client.stream.receive()
    client.send(b"hello")
    client.stream.end(b"hello")
    assert client.received == CONTINUE + response(*STAMP, length(5), body=b"hello")


@pytest.mark.parametrize("answer", [WHOLE, NOTHING, replace(BLOCKS, status="401 Unauthorized")])
def test_connection_is_closed_when_the_expected_body_was_never_read(answer: Response) -> None:
    """Its client may send it, or not: nobody knows where the next request begins."""
    client = exchange(ASKING[0], answer)
    assert CLOSED + b"\r\n" in client.received
    assert CONTINUE not in client.received
    assert client.transport.closed == "linger"
    assert client.owner.answered == []


def test_continue_is_never_sent_to_http10() -> None:
    """RFC 9110 section 10.1.1: its clients do not know it."""
    client = connect()
    client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert isinstance(client.stream.receive(), Signal)
    assert client.transport.sent == b""


def test_continue_is_not_sent_for_a_request_without_a_body() -> None:
    """There is nothing to continue with; the connection is kept."""
    client = connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
    assert client.stream.receive() == b""
    WHOLE(client.stream)
    assert client.received == response(*STAMP, length(5), body=b"hello")
    assert client.transport.closed == ""


# The window --------------------------------------------------------------------------------------


def test_window_pauses_the_connection_and_reading_resumes_it() -> None:
    """Paused when a window is full, and not before; read on when there is room."""
    client = connect(limits=SMALL)
    client.send(post(100) + b"1234567")
    assert client.transport.calls == []
    client.send(b"8")
    assert client.transport.calls == ["pause"]
    assert client.stream.receive() == b"1234567"
    assert client.transport.calls == ["pause", "resume"]
    assert client.stream.receive() == b"8"
    assert client.transport.calls == ["pause", "resume"]
    client.send(b"a" * 8)
    assert client.transport.calls == ["pause", "resume", "pause"]
    assert not client.transport.reading


@pytest.mark.parametrize(
    ("head", "more", "end"),
    [(post(20), b"x" * 5, b"x" * 15), (CHUNKED_POST, b"5\r\nhello\r\n", b"0\r\n\r\n")],
    ids=["length", "chunked"],
)
def test_connection_waits_for_what_comes_while_the_application_does(
    head: bytes, more: bytes, end: bytes
) -> None:
    """So that more is read at once; what is only held is read in small pieces."""
    client = connect()
    seen = [client.protocol.waits()]
    client.send(head)
    seen.append(client.protocol.waits())
    assert isinstance(client.stream.receive(), Signal)
    seen.append(client.protocol.waits())
    client.send(more)
    seen.append(client.protocol.waits())
    client.stream.receive()
    client.stream.receive()
    seen.append(client.protocol.waits())
    client.send(end)
    seen.append(client.protocol.waits())
    assert seen == [False, False, True, False, True, False]


def test_window_is_let_go_when_the_response_ends() -> None:
    """What is in it is dropped, and the rest of the body is read."""
    client = connect(limits=SMALL)
    client.send(post(20) + b"12345678")
    assert client.transport.calls == ["pause"]
    path_of(client.stream)
    assert client.transport.calls == ["pause", "resume"]
    client.send(b"a" * 12 + numbered(b"next"))
    assert client.stream.request.path == b"/next"


def test_window_does_not_stop_a_body_that_is_complete() -> None:
    """Nothing more is coming of it: the next request may."""
    client = connect(limits=SMALL)
    client.send(post(20) + b"a" * 20)
    assert client.transport.reading


def test_reader_that_takes_all_before_the_pause_is_marked_leaves_it_reading() -> None:
    """The reader empties the window before the loop looks at it: there is nothing to pause for."""
    client = connect(limits=SMALL)
    client.send(post(100))
    client.stream.body.feed(b"12345678")  # the loop's first half: the window is full
    assert client.stream.receive() == b"12345678"  # no mark yet
    assert client.transport.calls == []
    client.protocol._mind_window(client.stream)  # its second half finds room
    assert client.transport.calls == []


def test_reader_that_takes_all_between_the_look_and_the_mark_is_not_left_paused() -> None:
    """The loop saw a full window; the reader empties it and finds no mark; the loop marks it.

    So the loop's second look must undo the pause.
    """
    client = connect(limits=SMALL)
    client.send(post(100))
    looks = iter([True])

    class Racing(Body):
        __slots__ = ()

        @property
        def full(self) -> bool:
            seen = super().full
            if next(looks, False):
                self.receive()  # by the application, after the loop's look
            return seen

    body = client.stream.body = Racing(client.stream.body.window)
    body.feed(b"12345678")
    client.protocol._mind_window(client.stream)
    assert (client.transport.calls, body.paused) == (["pause", "resume"], False)


def test_reader_that_takes_all_after_the_pause_is_marked_resumes_it() -> None:
    """Between the mark and the loop's second look: both may resume, and one of them does."""
    client = connect(limits=SMALL)
    client.send(post(100))
    stream = client.stream
    client.transport.meanwhile["pause"] = stream.receive
    client.send(b"12345678")
    assert client.transport.calls[0] == "pause"
    assert client.transport.reading
    assert not stream.body.paused


def test_response_that_ends_while_the_loop_pauses_resumes_it() -> None:
    """The application ends without reading, between the loop's mark and its second look."""
    client = connect(limits=SMALL)
    client.send(post(20))
    stream = client.stream
    client.transport.meanwhile["pause"] = lambda: path_of(stream)
    client.send(b"12345678")
    assert client.transport.reading
    client.send(b"a" * 12 + numbered(b"next"))
    assert client.stream.request.path == b"/next"
