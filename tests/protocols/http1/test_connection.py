"""How responses end, and what becomes of the connection: cut, pipelined, refused, drained."""

from __future__ import annotations

import pytest

from bide.errors import ClientDisconnected, LocalProtocolError, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from tests.protocols.exchanges import (
    BLOCKS,
    BLOCKS_LENGTH,
    CHUNKED,
    CHUNKED_POST,
    CLOSED,
    FIVE,
    GET,
    HELLO_CHUNKS,
    KEPT,
    NO_CONTENT,
    NOTHING,
    OLD,
    OLD_KEPT,
    STAMP,
    WHOLE,
    Response,
    bodies,
    exchange,
    length,
    numbered,
    path_of,
    post,
    response,
)
from tests.protocols.fakes import Answer, connect, drain


def cut_after(*blocks: bytes, headers: list[tuple[str, str]] | None = None) -> Answer:
    def answer(stream: Stream) -> None:
        stream.start("200 OK", headers or [])
        for block in blocks:
            stream.send(block)
        stream.cut()

    return answer


def test_cut_response_in_chunks_has_no_last_chunk() -> None:
    """The connection is closed: the client sees that it is not complete."""
    client = exchange(GET + GET, cut_after(b"he"))
    assert client.received == response(*STAMP, CHUNKED, body=b"2\r\nhe\r\n")
    assert client.transport.closed == "linger"
    assert client.owner.answered == []


def test_cut_response_of_known_length_is_shorter_than_it() -> None:
    """The connection is closed, whatever the request asked for."""
    for request, end in ((GET, ()), (OLD_KEPT, (KEPT,))):
        client = exchange(request, cut_after(b"he", headers=FIVE))
        assert client.received == response(length(5), *STAMP, *end, body=b"he")
        assert client.transport.closed == "linger"
        assert client.owner.answered == []


def test_cut_response_that_ends_with_the_connection_is_reset() -> None:
    """Only a reset tells an HTTP/1.0 client that there should have been more."""
    for request in (OLD, OLD_KEPT):
        client = exchange(request, cut_after(b"he"))
        assert client.received == response(*STAMP, CLOSED, body=b"he")
        assert client.transport.closed == "abort"
        assert client.owner.answered == []


def test_response_that_is_cut_before_its_head_sends_nothing() -> None:
    """The connection is closed without an answer."""

    def never_started(stream: Stream) -> None:
        stream.cut()

    for answer in (cut_after(), never_started):
        client = exchange(GET, answer)
        assert client.transport.sent == b""
        assert client.transport.closed == "linger"


def test_response_with_too_little_for_its_length_can_only_be_cut() -> None:
    """Its end is refused, and no byte stands in for what is missing."""

    def answer(stream: Stream) -> None:
        stream.start("200 OK", FIVE)
        stream.send(b"he")
        with pytest.raises(LocalProtocolError):
            stream.end(b"l")
        stream.cut()

    client = exchange(GET, answer)
    assert client.received == response(length(5), *STAMP, body=b"he")
    assert client.transport.closed == "linger"


def test_response_with_too_much_for_its_length_sends_none_of_that() -> None:
    """A byte beyond the length would be the next response's first."""

    def answer(stream: Stream) -> None:
        stream.start("200 OK", FIVE)
        stream.send(b"hello")
        with pytest.raises(LocalProtocolError):
            stream.send(b"!")
        stream.end()

    client = exchange(GET, answer)
    assert client.received == response(length(5), *STAMP, body=b"hello")


def test_response_to_a_client_that_has_left_raises() -> None:
    """At the first piece and at a later one."""
    client = connect()
    client.send(GET)
    client.stream.start("200 OK", [])
    client.stream.send(b"he")
    client.transport.gone = True
    with pytest.raises(ClientDisconnected):
        client.stream.send(b"llo")
    client.stream.cut()
    assert client.transport.closed == "linger"


# Several on one connection -----------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_their_order() -> None:
    """Each begun when the one before has ended, whether at once or later."""
    client = exchange(numbered(b"1", b"2", b"3"), path_of)
    assert bodies(client) == [b"/1", b"/2", b"/3"]

    waiting: list[Stream] = []
    client = exchange(numbered(b"1", b"2", b"3"), waiting.append)
    for count in (1, 2, 3):
        assert len(waiting) == count
        path_of(waiting[-1])
    assert bodies(client) == [b"/1", b"/2", b"/3"]
    assert client.transport.closed == ""


def test_kinds_of_framing_do_not_disturb_each_other() -> None:
    """A response's framing is its own, whatever came before it on the connection."""
    answers = iter([BLOCKS, WHOLE, NO_CONTENT, BLOCKS_LENGTH, NOTHING, BLOCKS])
    client = exchange(GET * 6, lambda stream: next(answers)(stream))
    assert client.received == b"".join(
        [
            response(*STAMP, CHUNKED, body=HELLO_CHUNKS),
            response(*STAMP, length(5), body=b"hello"),
            response(*STAMP, status=b"204 No Content"),
            response(length(5), *STAMP, body=b"hello"),
            response(*STAMP, length(0)),
            response(*STAMP, CHUNKED, body=HELLO_CHUNKS),
        ]
    )


def test_requests_before_a_bad_one_are_answered_before_its_refusal() -> None:
    """Also when they are answered after it came: only the refusal closes their connection."""
    waiting: list[Stream] = []
    client = exchange(numbered(b"1", b"2") + b"bad\r\n\r\n" + numbered(b"3"), waiting.append)
    path_of(waiting[0])
    path_of(waiting[1])
    assert len(waiting) == 2
    first, second, third = client.received.split(b"HTTP/1.1 ")[1:]
    assert (first, second) == (
        response(*STAMP, length(2), body=b"/1")[9:],
        response(*STAMP, length(2), body=b"/2")[9:],
    )
    assert third.startswith(b"400 Bad Request\r\n")
    assert client.transport.closed == "linger"


def test_refusal_is_a_complete_response() -> None:
    """With its length, its type, and the end of the connection announced."""
    client = connect()
    client.send(b"GET / HTTP/2.0\r\n\r\n")
    text = b"only HTTP/1.1 and HTTP/1.0 are spoken here\n"
    kind = b"Content-Type: text/plain; charset=utf-8"
    status = b"505 HTTP Version Not Supported"
    assert client.received == response(
        *STAMP, kind, length(len(text)), CLOSED, status=status, body=text
    )
    assert client.transport.closed == "linger"


def test_server_that_drains_makes_each_response_the_last() -> None:
    """The client is told, and the connection ends behind it."""
    client = connect(WHOLE)
    client.protocol.retire()
    client.send(GET + GET)
    assert client.received == response(*STAMP, length(5), CLOSED, body=b"hello")
    assert client.transport.closed == "linger"


# The request's body, at and after the response's end ---------------------------------------------

SMALL = Limits(window=8, discard=100)


def test_connection_that_is_to_end_tells_its_client_so_first() -> None:
    """A response whose head was sent before is not the last: the client would send one more."""
    client = connect()
    client.send(GET)
    client.stream.start("200 OK", FIVE)
    client.stream.send(b"he")
    client.protocol.retire()
    client.stream.end(b"llo")
    assert client.transport.closed == ""
    client.send(GET)
    client.stream.start("200 OK", FIVE)
    client.stream.end(b"hello")
    assert client.received == response(length(5), *STAMP, body=b"hello") + response(
        length(5), *STAMP, CLOSED, body=b"hello"
    )
    assert client.transport.closed == "linger"


def test_idle_connection_that_is_to_end_stays_until_the_server_stops() -> None:
    """Its client may be sending a request at this moment."""
    client = exchange(GET, WHOLE)
    client.protocol.retire()
    assert client.transport.closed == ""
    client.protocol.drain()
    assert client.transport.closed == "close"


def test_body_that_was_not_read_is_drained_and_the_next_request_served() -> None:
    """Up to the limit, before the response, after it, and in pieces."""
    for body in (post(100) + b"a" * 100, CHUNKED_POST + b"64\r\n" + b"a" * 100 + b"\r\n0\r\n\r\n"):
        for cut in (len(post(100)) - 2, 60, 100, len(body) - 1, len(body)):
            client = connect(path_of, SMALL)
            client.send(body[:cut], body[cut:] + numbered(b"next"))
            assert bodies(client) == [b"/", b"/next"]
            assert client.transport.closed == ""
            assert client.transport.reading


def test_body_that_is_too_long_to_drain_closes_the_connection() -> None:
    """With a pause before the reset, so that the client gets the answer (RFC 9112 section 9.6)."""
    client = connect(path_of, SMALL)
    client.send(post(101))
    assert bodies(client) == [b"/"]
    assert client.transport.closed == "linger"
    assert client.owner.answered == []


def test_chunked_body_that_turns_out_too_long_to_drain_closes_the_connection() -> None:
    """Its length is known only when it comes; nothing behind it is parsed."""
    client = connect(path_of, SMALL)
    client.send(CHUNKED_POST + b"64\r\n" + b"a" * 100 + b"\r\n")
    assert client.transport.closed == ""
    client.send(b"1\r\na\r\n0\r\n\r\n" + numbered(b"next"))
    assert bodies(client) == [b"/"]
    assert client.transport.closed == "linger"
    assert drain(client.stream).end == "left"  # a thread that still reads would wait for ever


def test_body_that_was_read_in_part_is_drained_by_what_is_left() -> None:
    """What the application has read does not count against the limit."""
    for body in (post(200), CHUNKED_POST):
        client = connect(limits=SMALL)
        chunked = body is CHUNKED_POST
        client.send(body + (b"96\r\n" if chunked else b"") + b"a" * 150)
        while isinstance(client.stream.receive(), bytes):
            pass
        path_of(client.stream)
        client.send((b"\r\n32\r\n" if chunked else b"") + b"a" * 50)
        client.send((b"\r\n0\r\n\r\n" if chunked else b"") + numbered(b"next"))
        assert client.stream.request.path == b"/next"
        assert client.transport.closed == ""


def test_body_that_turns_out_malformed_closes_a_connection_whose_response_has_ended() -> None:
    """There is nobody left to tell, and nothing behind it may be parsed."""
    client = connect(path_of)
    client.send(CHUNKED_POST, b"5\r\nhelloXX0\r\n\r\n" + numbered(b"next"))
    assert bodies(client) == [b"/"]
    assert client.transport.closed == "linger"


def test_body_that_fails_while_its_response_ends_closes_the_connection() -> None:
    """The loop's refusal comes between any two steps of the end: one of the two sees the other.

    Each first leaves its mark (the failure, the state), then looks for the other's.
    """
    bad = b"5\r\nhelloXX"

    # After the state is marked, before the protocol is told: the end finds the failure.
    client = connect()
    client.send(CHUNKED_POST)
    client.transport.lock.once_released = lambda: client.send(bad)
    path_of(client.stream)
    assert client.transport.closed == "linger"

    # After the end has looked for a failure: the refusal finds the state.
    client = connect()
    client.send(CHUNKED_POST)
    client.transport.meanwhile["resume"] = lambda: client.send(bad)
    path_of(client.stream)
    assert client.transport.calls == ["resume"]
    assert client.transport.closed == "linger"


def test_response_to_a_malformed_body_closes_the_connection() -> None:
    """Whether the application reads it or not, and whether its head was sent before."""
    client = connect()
    client.send(CHUNKED_POST + b"5\r\nhelloXX")
    assert client.stream.receive() == b"hello"
    with pytest.raises(RemoteProtocolError) as raised:
        client.stream.receive()
    Response(last=b"bad", status=f"{raised.value.status} Bad Request")(client.stream)
    assert client.received == response(
        *STAMP, length(3), CLOSED, status=b"400 Bad Request", body=b"bad"
    )
    assert client.transport.closed == "linger"

    client = connect()
    client.send(CHUNKED_POST)
    client.stream.start("200 OK", [])
    client.stream.send(b"he")
    client.send(b"5\r\nhelloXX")
    client.stream.end(b"llo")
    assert client.received == response(*STAMP, CHUNKED, body=HELLO_CHUNKS)
    assert client.transport.closed == "linger"
    assert client.owner.answered == []


def test_response_to_a_client_that_stopped_in_its_body_closes_the_connection() -> None:
    """It may still read the answer, and nothing more can come from it."""
    client = connect()
    client.send(post(100) + b"a" * 50)
    assert client.protocol.eof_received()
    assert client.stream.receive() == b"a" * 50
    with pytest.raises(ClientDisconnected):
        client.stream.receive()
    path_of(client.stream)
    assert bodies(client) == [b"/"]
    assert client.transport.closed == "linger"


def test_end_of_a_client_says_whether_it_cut_a_request_short() -> None:
    """In a head, in a body; not between requests. After it nothing is on its way any more."""
    for sent, short in (
        (b"", False),
        (GET, False),
        (GET[:10], True),
        (GET + GET[:-1], True),
        (post(5) + b"hell", True),
        (post(5) + b"hello", False),
        (b"\r\n", False),
    ):
        client = connect(path_of)
        client.send(sent)
        assert client.protocol.eof_received() is short
        assert not client.protocol.receiving
        client.send(GET)
        assert len(client.owner.begun) == sent.count(b"\r\n\r\n")


def test_connection_knows_whether_it_is_receiving() -> None:
    """From a head's first byte to its body's last."""
    client = connect()
    seen = []
    for piece in (b"", b"\r\n", b"P", post(5)[1:], b"hell", b"o", b"\r\n", GET):
        client.send(piece)
        seen.append(client.protocol.receiving)
    assert seen == [False, False, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "this is not HTTP but TLS: write http:// in the URL, or give the server a "
            "--certificate",
        ),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "this is not HTTP but a PROXY header: see --proxy-protocol",
        ),
        (
            b"\r\n\r\n\x00\r\nQUIT\n!\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x13\x88\x00P",
            "this is not HTTP but a PROXY header: see --proxy-protocol",
        ),
    ],
)
def test_another_protocol_is_called_by_its_name(sent: bytes, said: str) -> None:
    """In the answer, whatever its client makes of that, and so in the log."""
    client = connect()
    client.send(sent)
    assert [str(error) for error in client.owner.errors] == [said]
    assert client.received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert client.received.endswith(f"\r\n\r\n{said}\n".encode())
