"""The legal order of a response, its length, and the window of a request's body."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from bide.errors import ClientDisconnected, LocalProtocolError, RemoteProtocolError
from bide.exchange.body import Body
from bide.exchange.messages import Head, Request
from bide.exchange.stream import CUT, ENDED, IDLE, OPEN, READY, Stream
from bide.exchange.totals import Total
from bide.waiting.outcome import Signal
from tests.protocols.fakes import FakeChannel


def make(method: str = "GET", window: int = 8) -> tuple[Stream, FakeChannel]:
    channel = FakeChannel()
    request = Request(method, b"/", b"/", b"", "1.1", [(b"Host", b"a")])
    return Stream(request, channel, window), channel


def started(
    *headers: tuple[str, str], status: str = "200 OK", method: str = "GET"
) -> tuple[Stream, FakeChannel]:
    stream, channel = make(method)
    stream.start(status, list(headers))
    return stream, channel


def blocks(channel: FakeChannel) -> list[bytes]:
    return [block for _, block, _ in channel.pieces]


# The legal order ---------------------------------------------------------------------------------

Step = Callable[[Stream], Any]

REACH: dict[str, list[Step]] = {
    IDLE: [],
    READY: [lambda stream: stream.start("200 OK", [])],
    OPEN: [lambda stream: stream.start("200 OK", []), lambda stream: stream.send(b"a")],
    ENDED: [lambda stream: stream.start("200 OK", []), lambda stream: stream.end(b"a")],
    CUT: [
        lambda stream: stream.start("200 OK", []),
        lambda stream: stream.send(b"a"),
        lambda stream: stream.cut(),
    ],
}
DO: dict[str, Step] = {
    "start": lambda stream: stream.start("404 Not Found", []),
    "send": lambda stream: stream.send(b"b"),
    "end": lambda stream: stream.end(b"b"),
    "send_file": lambda stream: stream.send_file(0, 0, 5),
}
# What each step leads to, where it may be taken at all.
NEXT = {
    (IDLE, "start"): READY,
    (READY, "start"): READY,
    (READY, "send"): OPEN,
    (READY, "end"): ENDED,
    (READY, "send_file"): OPEN,
    (OPEN, "send"): OPEN,
    (OPEN, "end"): ENDED,
    (OPEN, "send_file"): OPEN,
}


def reach(state: str) -> tuple[Stream, FakeChannel]:
    stream, channel = make()
    for step in REACH[state]:
        step(stream)
    assert stream.state == state
    return stream, channel


SAYS = {
    IDLE: "start_response has not been called",
    READY: "",  # no step is illegal there
    OPEN: "the response has been sent in part already",
    ENDED: "the response has ended",
    CUT: "the response has been cut",
}


@pytest.mark.parametrize("step", DO)
@pytest.mark.parametrize("state", REACH)
def test_stream_takes_each_step_in_each_state_as_the_table_says(state: str, step: str) -> None:
    """A legal step leads to its state; an illegal one raises, says why, and changes nothing."""
    stream, channel = reach(state)
    head, sent = stream.head, list(channel.pieces)
    channel.file_sends.append(5)
    if (state, step) in NEXT:
        DO[step](stream)
        assert stream.state == NEXT[state, step]
        return
    with pytest.raises(LocalProtocolError, match=SAYS[state]):
        DO[step](stream)
    assert (stream.state, stream.head, channel.pieces) == (state, head, sent)
    assert len(channel.file_sends) == 1


@pytest.mark.parametrize("state", REACH)
def test_stream_is_cut_once_unless_it_has_ended(state: str) -> None:
    """The channel is told the first time, from every state but those that are ends already."""
    stream, channel = reach(state)
    before = channel.told.count("ended")
    stream.cut()
    stream.cut()
    assert channel.told.count("ended") == before + (state not in (ENDED, CUT))
    assert stream.state == (ENDED if state == ENDED else CUT)


def test_channel_is_told_the_end_once_after_the_last_piece() -> None:
    """``ended`` comes when all has been sent, and not before."""
    stream, channel = started()
    stream.send(b"a")
    assert channel.told == []
    stream.end()
    assert channel.told == ["ended"]
    assert channel.pieces == [(READY, b"a", False), (OPEN, b"", True)]


def test_stream_keeps_the_old_head_when_the_new_one_is_bad() -> None:
    """A second ``start`` that fails leaves the first one standing."""
    stream, _ = started(("X", "1"))
    with pytest.raises(LocalProtocolError):
        stream.start("200 OK", [("Upgrade", "x")])
    assert stream.head is not None
    assert stream.head.headers == [("X", "1")]
    assert stream.state == READY


def test_stream_stays_idle_when_its_first_head_is_bad() -> None:
    """The server can still answer with an error of its own."""
    stream, _ = make()
    with pytest.raises(LocalProtocolError):
        stream.start("no status", [])
    assert stream.state == IDLE
    stream.start("500 Internal Server Error", [])
    assert stream.state == READY


# Content-Length ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[b"hello"], [b"hel", b"lo"], [b"h", b"e", b"l", b"l", b"o"]])
def test_stream_ends_after_exactly_its_content_length(pieces: list[bytes]) -> None:
    """In one piece or in several, with an empty end or with the last piece as the end."""
    for with_last in (True, False):
        stream, channel = started(("Content-Length", "5"))
        for piece in pieces[:-1] if with_last else pieces:
            stream.send(piece)
        stream.end(pieces[-1] if with_last else b"")
        assert stream.state == ENDED
        assert stream.sent == 5
        assert b"".join(blocks(channel)) == b"hello"


def test_stream_sends_nothing_of_a_block_that_goes_beyond_its_content_length() -> None:
    """Neither by ``send`` nor by ``end``; what went before stays sent."""
    for step in ("send", "end"):
        stream, channel = started(("Content-Length", "5"))
        stream.send(b"hel")
        with pytest.raises(LocalProtocolError, match="longer than its Content-Length of 5 bytes"):
            getattr(stream, step)(b"lo!")
        assert blocks(channel) == [b"hel"]
        assert stream.state == OPEN


@pytest.mark.parametrize(
    ("sent", "last"), [([], b""), ([], b"hell"), ([b"hel"], b""), ([b"h"], b"e")]
)
def test_stream_does_not_end_before_its_content_length(sent: list[bytes], last: bytes) -> None:
    """The end is refused, the channel is told nothing, and the stream can only be cut."""
    stream, channel = started(("Content-Length", "5"))
    for block in sent:
        stream.send(block)
    with pytest.raises(LocalProtocolError, match="of its Content-Length of 5"):
        stream.end(last)
    assert stream.state != ENDED
    assert channel.told == []
    assert not any(is_last for _, _, is_last in channel.pieces)


def test_stream_of_content_length_zero_takes_no_byte() -> None:
    """``end()`` is right, a byte is too much."""
    stream, _ = started(("Content-Length", "0"))
    with pytest.raises(LocalProtocolError, match="longer"):
        stream.end(b"a")
    stream.end()
    assert stream.state == ENDED


def test_stream_without_content_length_counts_what_it_sends() -> None:
    """``sent`` is the body's bytes, for the access log."""
    stream, _ = started()
    stream.send(b"abc")
    stream.end(b"defg")
    assert stream.sent == 7


@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")],
)
def test_stream_without_a_body_counts_nothing_against_content_length(
    method: str, status: str
) -> None:
    """HEAD, 204 and 304 may announce a length that nobody sends, or send one nobody sees."""
    for body in (b"", b"hello", b"too long"):
        stream, _ = started(("Content-Length", "5"), status=status, method=method)
        assert stream.bodiless
        if body:
            stream.send(body)
        stream.end()
        assert stream.state == ENDED
        assert stream.sent == 0


def test_stream_of_get_has_a_body_after_a_head_without_one_was_replaced() -> None:
    """A 304 that an error page replaced does not silence the page."""
    stream, _ = started(status="304 Not Modified")
    stream.start("500 Internal Server Error", [])
    assert not stream.bodiless
    stream.end(b"sorry")
    assert stream.sent == 5


def test_stream_counts_what_the_kernel_sends() -> None:
    """A file counts against Content-Length as blocks do, and the head goes out before it."""
    stream, channel = started(("Content-Length", "7"))
    channel.file_sends.extend([5, 2])
    assert stream.send_file(3, 0, 7) == 5
    assert channel.pieces == [(READY, b"", False)]
    assert stream.send_file(3, 5, 2) == 2
    stream.end()
    assert stream.sent == 7


def test_stream_gives_what_to_wait_for_when_the_kernel_takes_nothing() -> None:
    """0 bytes sent is not the end: the client is behind."""
    stream, channel = started(("Content-Length", "7"))
    channel.file_sends.append(0)
    assert stream.send_file(3, 0, 7) is channel.caught_up
    assert stream.sent == 0


# The client --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["send", "end"])
def test_stream_raises_when_the_client_has_left(step: str) -> None:
    """Whether the loop noticed it before, or the channel now; nothing counts as sent."""
    for noticed in (True, False):
        stream, channel = started()
        stream.gone = noticed
        channel.alive = False
        with pytest.raises(ClientDisconnected):
            getattr(stream, step)(b"a")
        assert stream.gone
        assert channel.pieces == []
        assert channel.told == []


def test_stream_raises_when_the_client_leaves_a_file() -> None:
    """-1 from the channel is the client's departure."""
    stream, channel = started(("Content-Length", "7"))
    channel.file_sends.append(-1)
    with pytest.raises(ClientDisconnected):
        stream.send_file(3, 0, 7)
    assert stream.gone


def test_stream_that_was_cut_since_the_client_left_says_so() -> None:
    """A thread that pushes on learns that the client has left, not that somebody cut."""
    stream, _ = started()
    stream.gone = True
    stream.cut()
    with pytest.raises(ClientDisconnected):
        stream.send(b"a")


def test_stream_says_whether_the_client_is_behind() -> None:
    """``send`` gives what to wait for; ``behind`` asks without sending."""
    stream, channel = started()
    assert stream.send(b"a") is None
    assert stream.behind is False
    signal = channel.behind = Signal()
    assert (stream.behind, stream.send(b"b")) == (True, signal)


# Heads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("200 OK", 200, "OK"),
        ("404 Not Found", 404, "Not Found"),
        ("299 ", 299, ""),
        ("599", 599, ""),
        ("999 \xe9t\xe9 \t!", 999, "\xe9t\xe9 \t!"),
    ],
)
def test_head_takes_a_status(status: str, code: int, reason: str) -> None:
    """Three digits, and a reason that may be empty, each time it is asked."""
    for _ in range(2):
        head = Head(status, [])
        assert (head.code, head.reason) == (code, reason)


@pytest.mark.parametrize(
    "status",
    [
        "",
        "OK",
        "20 OK",
        "2000 OK",
        "200OK",
        " 200 OK",
        "100 Continue",
        "101 Switching Protocols",
        "199 x",
        "099 x",
        "-200 OK",
        "+20 OK",
        "2_0 OK",
        "٢٠٠ OK",
        "²00 OK",
        "200 OK\r",
        "200 OK\n",
        "200 OK\r\nX: y",
        "200 O\nK",
        "200 O\0K",
        "200\tOK",
        "200\r\n",
        200,
        b"200 OK",
        None,
        ["200 OK"],
        {},
        (200, "OK"),
        ([], "OK"),
        bytearray(b"200 OK"),
        ["x" * 1000] * 1000,
    ],
    ids=lambda status: repr(status)[:30],
)
def test_head_refuses_what_is_no_status(status: Any) -> None:
    """Nothing that splits the response, no interim status, no digit but 0 to 9, nothing but str.

    Each time in one line, which shows what it was.
    """
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="is not a status: it must be a str") as raised:
            Head(status, [])
        assert len(str(raised.value)) < 700
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["X", "x-a", "!#$%&'*+-.^_`|~09azAZ", "Connections", "TE-X"])
def test_head_takes_a_name_that_is_a_token(name: str) -> None:
    """RFC 9110 section 5.6.2."""
    for _ in range(2):
        assert Head("200 OK", [(name, "x")]).headers == [(name, "x")]


@pytest.mark.parametrize(
    "name",
    ["", " X", "X ", "X:", "X Y", "X\r\nY", "X\n", "X\0", "X(", "\xe9", "X\x7f", b"X", None, 1],
)
def test_head_refuses_a_name_that_is_no_token(name: Any) -> None:
    """What would split the response, or end the name early; and what is not a string."""
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="is not a header name"):
            Head("200 OK", [(name, "x")])


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Trailers",
        "Transfer-Encoding",
        "Upgrade",
        "Proxy-Connection",
    ],
)
def test_head_refuses_what_belongs_to_the_connection(name: str) -> None:
    """PEP 3333, Other HTTP Features: hop-by-hop headers are the server's, in any case."""
    for spelled in (name, name.lower(), name.upper()):
        with pytest.raises(LocalProtocolError, match="belongs to the connection"):
            Head("200 OK", [("X", "y"), (spelled, "x")])


def test_a_dict_of_headers_is_told_how_to_be_a_list() -> None:
    """Other things than a list are not."""
    given: list[tuple[Any, str]] = [
        ({"A": "b"}, ": write list(headers.items())"),
        (None, ""),
        ("A: b", ""),
    ]
    for headers, hint in given:
        with pytest.raises(LocalProtocolError) as raised:
            Head("200 OK", headers)
        assert str(raised.value) == (
            f"the headers are {headers!r}: they must be a list of pairs (name, value){hint}"
        )


@pytest.mark.parametrize("value", [b"x", None, 5, ["x"]])
def test_head_refuses_a_value_that_is_no_string(value: Any) -> None:
    """PEP 3333, Unicode Issues: native strings."""
    with pytest.raises(LocalProtocolError, match="not a string"):
        Head("200 OK", [("X", value)])


@pytest.mark.parametrize("length", ["0", "5", "0005", "123456789012345678"])
def test_head_takes_a_content_length_of_digits(length: str) -> None:
    """In any case of its name."""
    for name in ("Content-Length", "content-length", "CONTENT-LENGTH"):
        assert Head("200 OK", [(name, length)]).length == int(length)


@pytest.mark.parametrize(
    "length",
    [
        "",
        " 5",
        "5 ",
        "+5",
        "-5",
        "-0",
        "5.0",
        "1_0",
        "0x5",
        "5,5",
        "a",
        "²",
        "٥",
        "５",
        "9" * 19,
        "9" * 5000,
    ],
)
def test_head_refuses_a_content_length_that_is_no_number_of_bytes(length: str) -> None:
    """``int`` would take many of these."""
    with pytest.raises(LocalProtocolError, match="is not a number of bytes"):
        Head("200 OK", [("Content-Length", length)])


def test_head_refuses_two_content_lengths() -> None:
    """Even the same one, and in another case."""
    with pytest.raises(LocalProtocolError, match="two Content-Length"):
        Head("200 OK", [("Content-Length", "5"), ("content-length", "5")])


def test_head_knows_which_of_its_own_headers_the_application_gave() -> None:
    """The server adds Date and Server where there are none."""
    for name in ("Date", "date", "DATE"):
        head = Head("200 OK", [(name, "x")])
        assert (head.dated, head.served) == (True, False)
    for name in ("Server", "server", "SERVER"):
        head = Head("200 OK", [(name, "x")])
        assert (head.dated, head.served) == (False, True)
    head = Head("200 OK", [("X-Date", "x")])
    assert (head.dated, head.served, head.length) == (False, False, None)


@pytest.mark.parametrize(
    ("code", "bodiless"), [(200, False), (204, True), (205, False), (304, True)]
)
def test_head_knows_whether_its_status_has_a_body(code: int, bodiless: bool) -> None:
    """RFC 9110 section 6.4.1."""
    assert Head(f"{code} x", []).bodiless is bodiless


# The body ----------------------------------------------------------------------------------------


def fired(signal: bytes | Signal) -> bool:
    assert isinstance(signal, Signal)
    return signal.fired


def test_body_gives_its_blocks_in_order_and_then_its_end() -> None:
    """The end is ``b""``, as often as it is asked for."""
    body = Body(8)
    body.feed(b"a")
    body.feed(b"bc")
    body.finish()
    assert [body.receive() for _ in range(4)] == [b"a", b"bc", b"", b""]
    assert body.complete


def test_body_gives_what_came_before_an_error_and_then_raises() -> None:
    """Each time it is asked; the body is not complete."""
    for error in (RemoteProtocolError("bad chunk"), ClientDisconnected("left")):
        body = Body(8)
        body.feed(b"a")
        body.fail(error)
        assert body.receive() == b"a"
        for _ in range(2):
            with pytest.raises(type(error)) as raised:
                body.receive()
            assert str(raised.value) == str(error)
        assert not body.complete


def test_body_that_is_complete_cannot_fail() -> None:
    """The client leaves after its request: all of it can still be read."""
    body = Body(8)
    body.feed(b"a")
    body.finish()
    body.fail(ClientDisconnected("left"))
    assert [body.receive() for _ in range(2)] == [b"a", b""]


@pytest.mark.parametrize("event", ["feed", "finish", "fail"])
def test_body_wakes_a_reader_that_waits(event: str) -> None:
    """The signal fires with whatever comes next: a block, the end, or an error."""
    body = Body(8)
    signal = body.receive()
    assert not fired(signal)
    happen(body, event)
    assert fired(signal)
    check(body, event)


def happen(body: Body, event: str) -> None:
    if event == "feed":
        body.feed(b"a")
    elif event == "finish":
        body.finish()
    else:
        body.fail(RemoteProtocolError("bad"))


def check(body: Body, event: str) -> None:
    if event == "fail":
        with pytest.raises(RemoteProtocolError):
            body.receive()
    else:
        assert body.receive() == (b"a" if event == "feed" else b"")


class Interrupted(Body):
    """A body whose loop runs in the middle of ``receive``, at a place that the test chooses.

    Attributes:
        looks: what to do after the reader's first look, its second, and so on.
    """

    __slots__ = ("looks",)

    def __init__(self) -> None:
        super().__init__(8)
        self.looks: list[Callable[[], None]] = []

    def _next(self) -> bytes | None:
        try:
            return super()._next()
        finally:
            if self.looks:
                self.looks.pop(0)()


@pytest.mark.parametrize("event", ["feed", "finish", "fail"])
def test_reader_misses_nothing_that_comes_between_its_look_and_its_signal(event: str) -> None:
    """The loop looked for a signal before there was one: the reader's second look must find it."""
    body = Interrupted()
    body.looks = [lambda: happen(body, event)]
    if event == "fail":
        with pytest.raises(RemoteProtocolError):
            body.receive()
    else:
        assert body.receive() == (b"a" if event == "feed" else b"")


@pytest.mark.parametrize("event", ["feed", "finish", "fail"])
def test_reader_is_woken_by_what_comes_after_its_second_look(event: str) -> None:
    """The reader's signal stood there already: the loop must have fired it."""
    body = Interrupted()
    body.looks = [lambda: None, lambda: happen(body, event)]
    signal = body.receive()
    assert fired(signal)
    check(body, event)


def test_reader_gets_the_last_block_that_comes_with_the_end_in_the_middle_of_its_look() -> None:
    """Block and end come between its two looks: neither is lost, and the end is not taken first."""
    body = Interrupted()

    def last() -> None:
        body.feed(b"last")
        body.finish()

    body.looks = [last]
    assert [body.receive(), body.receive()] == [b"last", b""]


class Late(deque[bytes]):
    """Blocks that come, with the end behind them, just after the reader has found none."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.act: list[Callable[[], None]] = [lambda: body.feed(b"last"), body.finish]

    def __len__(self) -> int:
        """Return how many there are; where there are none, say so, but let one come first."""
        found = super().__len__()
        while self.act and not found:
            self.act.pop(0)()
        return found


def test_reader_that_found_no_block_does_not_take_the_end_that_came_behind_one() -> None:
    """Block and end come in the middle of one look: it may not see the second without the first."""
    body = Body(8)
    body._blocks = Late(body)
    assert [body.receive(), body.receive()] == [b"last", b""]


def test_signal_that_nobody_waits_for_does_not_disturb_the_next_wait() -> None:
    """A block found by the second look leaves a signal behind; the next wait has one of its own."""
    body = Interrupted()
    body.looks = [lambda: body.feed(b"a")]
    assert body.receive() == b"a"
    signal = body.receive()
    assert not fired(signal)
    body.feed(b"b")
    assert fired(signal)
    assert body.receive() == b"b"


def test_body_is_full_from_its_window_on() -> None:
    """One byte less is not full; what was read makes room."""
    body = Body(8)
    body.feed(b"1234567")
    full = [body.full]
    body.feed(b"8")
    full.append(body.full)
    assert body.receive() == b"1234567"
    full.append(body.full)
    assert full == [False, True, False]


def test_body_of_tiny_blocks_is_full_by_their_number() -> None:
    """A thousand blocks of a byte or two take far more memory than a thousand bytes."""
    body = Body(65536)
    for _ in range(1023):
        body.feed(b"ab")
    full = [body.full]
    body.feed(b"ab")
    full.append(body.full)
    assert body.receive() == b"ab"
    full.append(body.full)
    assert full == [False, True, False]


def test_body_that_is_discarded_is_never_full_and_keeps_nothing() -> None:
    """What has come is dropped, and so is what comes."""
    body = Body(8)
    body.feed(b"12345678")
    body.discard()
    body.feed(b"more")
    assert not body.full
    assert body.unread == 12
    assert isinstance(body.receive(), Signal)


class Reading:
    """A body of which other bodies' memory is bounded, too."""

    def __init__(self) -> None:
        self.total = Total(10)
        self.body = Body(65536, self.total)

    def full(self) -> bool:
        """Whether no more should come."""
        return self.body.full


def test_body_is_full_with_anything_when_all_together_have_too_much() -> None:
    """An empty one takes a block all the same: nobody waits for another's application."""
    one, other = Reading(), Reading()
    other.body = Body(65536, one.total)
    one.body.feed(b"123456789")
    assert [one.full(), other.full()] == [False, False]
    other.body.feed(b"1")
    assert [one.full(), other.full()] == [True, True]
    one.body.receive()
    assert [one.full(), other.full()] == [False, False]
    one.total.add(100)
    assert [one.full(), other.full()] == [False, True]


STEPS: dict[str, Callable[[Body], object]] = {
    "read": Body.receive,
    "discard": Body.discard,
    "more": lambda body: body.feed(b"x"),
    "fail": lambda body: body.fail(ClientDisconnected("left")),
}


@pytest.mark.parametrize(
    "steps",
    [
        ["read", "read"],
        ["discard"],
        ["read", "discard"],
        ["discard", "more"],
        ["drop"],
        ["fail", "drop"],
        ["read", "drop"],
    ],
    ids="-".join,
)
def test_body_gives_back_what_it_held(steps: list[str]) -> None:
    """Exactly, whatever becomes of it: else all bodies would have less and less."""
    total = Total(10)
    bodies = [Body(65536, total)]
    bodies[0].feed(b"1234")
    bodies[0].feed(b"56")
    assert total.used == 6
    for step in steps:
        if step == "drop":
            bodies.clear()
            gc.collect()
        else:
            STEPS[step](bodies[0])
    assert total.used == 0


def test_body_that_is_discarded_while_the_last_block_is_taken_gives_it_back_once() -> None:
    """The application reads on one thread, and its response ends on another."""
    reading = Reading()
    body = reading.body
    body.feed(b"1234")

    class Taken(deque[bytes]):
        """Blocks of which another takes the last, just when somebody has looked."""

        def popleft(self) -> bytes:
            """Let the other thread be first."""
            body._blocks = deque(self)
            self.clear()
            assert body.receive() == b"1234"
            return super().popleft()

    body._blocks = Taken(body._blocks)
    body.discard()
    assert reading.total.used == 0


def test_stream_without_a_body_reads_its_end_at_once() -> None:
    """A window of 0 stands for no body; the departure of a client changes nothing in it."""
    for _ in range(2):
        stream, _ = make(window=0)
        stream.body.fail(ClientDisconnected("left"))
        assert stream.receive() == b""
        assert stream.body.complete


def test_stream_asks_for_the_body_only_when_its_reader_must_wait() -> None:
    """100 Continue is wanted by a reader who finds nothing, of a client that waits to be asked."""
    stream, channel = make()
    stream.expects_continue = True
    stream.body.feed(b"early")
    assert stream.receive() == b"early"
    assert channel.told == []
    assert isinstance(stream.receive(), Signal)
    assert channel.told == ["wanted"]
    stream.expects_continue = False
    assert isinstance(stream.receive(), Signal)
    assert channel.told == ["wanted"]


def test_stream_lets_the_connection_be_read_again_when_its_reader_has_made_room() -> None:
    """Once, and only where the loop has paused."""
    stream, channel = make(window=8)
    stream.body.feed(b"1234")
    stream.body.feed(b"5678")
    stream.body.paused = True
    assert stream.receive() == b"1234"
    assert channel.told == ["taken"]
    assert stream.receive() == b"5678"
    assert channel.told == ["taken"]


def test_stream_does_not_read_on_while_its_window_is_still_full() -> None:
    """A large block behind a small one: taking the small one makes no room."""
    stream, channel = make(window=8)
    stream.body.feed(b"1")
    stream.body.feed(b"12345678")
    stream.body.paused = True
    assert stream.receive() == b"1"
    assert channel.told == []
    assert stream.receive() == b"12345678"
    assert channel.told == ["taken"]
