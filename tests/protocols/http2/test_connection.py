"""HTTP/2 in memory: what a client gets, by h2's own client side, and what the application sees."""

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import ContinuationFrame, HeadersFrame, PingFrame, SettingsFrame

from bide.errors import ClientDisconnected, LocalProtocolError, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.protocols.http2.guard import BLOCK_FRAMES, CONTROLS, RESETS
from bide.protocols.http2.setup import STREAMS
from bide.waiting.outcome import Signal
from tests.failures import Failures, same
from tests.protocols.http2.clients import Client, Fields, get

POST = get(method=b"POST")


def hello(stream: Stream) -> None:
    """Answer with a length."""
    stream.start("200 OK", [("Content-Type", "text/plain"), ("X-Name", "value")])
    stream.end(b"hello")


def read(stream: Stream) -> bytes:
    """Return what has come of a body."""
    blocks = []
    while not isinstance(block := stream.receive(), Signal):
        if not block:
            break
        blocks.append(block)
    return b"".join(blocks)


def test_a_request_is_answered_on_its_stream() -> None:
    """With the head's names in lower case, and the length of the body."""
    client = Client(hello)
    response = client.ask(get(b"/a%20b?c=d", (b"accept", b"*/*")))
    fields = dict(response.fields)
    same((response.status, response.body, response.ended), (b"200", b"hello", True))
    same(fields[b"x-name"], b"value")
    same(fields[b"content-length"], b"5")
    same(fields[b"server"], b"bide")
    assert b"date" in fields
    (stream,) = client.owner.begun
    request = stream.request
    same((request.method, request.path, request.query), ("GET", b"/a b", b"c=d"))
    same((request.target, request.version), (b"/a%20b?c=d", "2"))
    same(request.headers, [(b"host", b"a.example"), (b"accept", b"*/*")])
    same(client.owner.answered, [stream])


def test_what_a_response_may_not_have_is_not_sent() -> None:
    """HEAD, 204 and 304 have no body; a HEAD has the length that GET would have."""
    with Failures() as failures:
        for method, status, length in (
            (b"HEAD", "200 OK", b"5"),
            (b"GET", "204 No Content", None),
            (b"GET", "304 Not Modified", None),
        ):

            def answer(stream: Stream, status: str = status) -> None:
                stream.start(status, [])
                stream.end(b"hello")

            response = Client(answer).ask(get(method=method))
            with failures.of((method, status)):
                same((response.body, response.ended), (b"", True))
                same(dict(response.fields).get(b"content-length"), length)


def test_a_body_comes_and_its_window_opens_as_it_is_taken() -> None:
    """Half a window at a time; what nobody takes stops its stream, and no other."""
    client = Client()
    number = client.begin(POST, False)
    client.flush()
    (stream,) = client.owner.begun
    window = client.h2.local_flow_control_window(number)
    sent = 0
    while client.h2.local_flow_control_window(number):
        size = min(16384, client.h2.local_flow_control_window(number))
        client.h2.send_data(number, b"x" * size)
        sent += size
        client.flush()
    same(sent, window)
    assert stream.body.full or stream.body.unread >= window
    same(len(read(stream)), window)
    client.flush()
    same(client.h2.local_flow_control_window(number), window)
    client.h2.send_data(number, b"end", True)
    client.flush()
    same(read(stream), b"end")
    same(stream.receive(), b"")
    # Fifteen streams that are not read leave the connection's window open for the sixteenth.
    for _ in range(15):
        stalled = client.begin(POST, False)
        for _ in range(window // 16384 + 1):
            left = min(16384, client.h2.local_flow_control_window(stalled))
            if left:
                client.h2.send_data(stalled, b"x" * left)
        client.flush()
    other = client.begin(POST, False)
    same(client.h2.local_flow_control_window(other), window)


def test_what_a_client_does_not_take_waits_for_its_windows() -> None:
    """A stream whose window is shut stops neither a thread nor the others."""
    client = Client(window=2000)
    client.credits = False
    number = client.begin(get())
    other = client.begin(get())
    client.flush()
    first, second = client.owner.begun
    first.start("200 OK", [])
    same(first.send(b"x" * 100), None)
    room = first.send(b"y" * 100_000)
    assert isinstance(room, Signal)
    client.flush()
    same(len(client.responses[number].body), 2000)
    same(client.protocol.unsent(first), 98_100)
    second.start("200 OK", [])
    second.end(b"z" * 500)
    client.flush()
    same((client.responses[other].body, client.responses[other].ended), (b"z" * 500, True))
    client.credits = True
    client.h2.increment_flow_control_window(200_000, number)
    client.h2.increment_flow_control_window(200_000)
    client.flush()
    assert room.fired
    same(len(client.responses[number].body), 100_100)
    first.end(b"end")
    client.flush()
    assert client.responses[number].ended
    same(client.owner.answered, [second, first])


def test_a_small_window_gets_no_small_frames_and_the_rest_when_it_opens() -> None:
    """CVE-2019-9511: frames of a byte cost more than they bring."""
    client = Client(window=3000)
    client.credits = False
    number = client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    stream.start("200 OK", [])
    stream.end(b"x" * 5000)
    client.flush()
    same(len(client.responses[number].body), 3000)
    client.h2.increment_flow_control_window(10, number)
    client.flush()
    same(len(client.responses[number].body), 3000)
    client.h2.increment_flow_control_window(2000, number)
    client.flush()
    same((len(client.responses[number].body), client.responses[number].ended), (5000, True))


def test_a_first_window_below_a_kilobyte_is_used_too() -> None:
    """Else such a client would wait for ever."""

    def answer(stream: Stream) -> None:
        stream.start("200 OK", [])
        stream.end(b"x" * 3000)

    client = Client(answer, window=100)
    response = client.ask()
    same((len(response.body), response.ended), (3000, True))


def test_what_waits_is_sent_by_urgency() -> None:
    """RFC 9218: urgency, then the order of the requests; incremental ones by turns."""
    client = Client(window=0)
    asked = [b"u=5", b"u=1", b"u=3, i", b"u=3, i", b"", b"u=1"]
    numbers = [client.begin(get(b"/", (b"priority", each))) for each in asked]
    client.flush()
    for stream in client.owner.begun:
        stream.start("200 OK", [])
        stream.end(b"x" * 20_000)
    order: list[int] = []
    before = dict.fromkeys(numbers, 0)
    client.h2.update_settings({4: 100_000})  # SETTINGS_INITIAL_WINDOW_SIZE
    note = client._note

    def noting(event: object) -> None:
        note(event)  # type: ignore[arg-type]
        for number in numbers:
            if len(client.responses[number].body) > before[number]:
                before[number] = len(client.responses[number].body)
                order.append(number)

    client._note = noting  # type: ignore[method-assign]
    client.flush()
    first, second, third, fourth, fifth, last = numbers
    # The connection's window has room for three of them before it is credited.
    same(order[:4], [second, second, last, last])
    rest = [each for each in order if each in (third, fourth)]
    same(rest, [third, fourth, third, fourth])
    same(order[-2:], [first, first])
    assert order.index(fifth) > order.index(last)


def test_requests_that_must_be_refused_cost_their_stream_alone() -> None:
    """400 or what fits better; the connection goes on (RFC 9113 section 8.1.1)."""
    bad: list[tuple[Fields, bytes]] = [
        (get(b"/", (b"Upper", b"case")), b"400"),
        (get(b"/", (b"connection", b"close")), b"400"),
        (get(b"/", (b"te", b"gzip")), b"400"),
        (get(b"/", (b"transfer-encoding", b"chunked")), b"400"),
        (get(b"/", (b"x", b" padded")), b"400"),
        (get(b"/", (b"x", b"line\r\nbreak")), b"400"),
        (get(b"/", (b"x", b"nul\x00")), b"400"),
        (get(b"/", (b"host", b"other.example")), b"400"),
        (get(b"/", (b":method", b"GET")), b"400"),
        (get(b"/", (b":unknown", b"x")), b"400"),
        (get(b"relative"), b"400"),
        (get(b"/sp ace"), b"400"),
        (get(b"/frag#ment"), b"400"),
        (get(b"*"), b"400"),
        (get(b""), b"400"),
        (get(method=b"CONNECT"), b"405"),
        (get(method=b"G T"), b"400"),
        (get(b"/", (b"content-length", b"5")), b"400"),
        (get(b"/", (b"content-length", b"+0")), b"400"),
        (get(b"/", (b"expect", b"something")), b"417"),
        (get(b"/" + b"a" * 10_000), b"414"),
        (get(b"/", *[(b"x", b"y")] * 101), b"431"),
        ([each for each in get() if each[0] != b":authority"], b"400"),
        ([each for each in get() if each[0] != b":scheme"], b"400"),
        ([each for each in get() if each[0] != b":path"], b"400"),
        ([each for each in get() if each[0] != b":method"], b"400"),
    ]
    client = Client(hello)
    with Failures() as failures:
        for fields, status in bad:
            with failures.of(fields):
                response = client.ask(fields)
                same(response.status, status)
                broken = int(ErrorCodes.PROTOCOL_ERROR) if status == b"400" else None
                same((response.reset, response.ended), (broken, broken is None))
    same(client.owner.begun, [])
    same(len(client.owner.errors), len(bad))
    same(client.ask().body, b"hello")


def test_a_body_is_as_long_as_its_head_says() -> None:
    """A wrong length costs the stream; the application's read raises, and its call ends."""
    with Failures() as failures:
        for said, pieces in ((b"5", [b"123", b"456"]), (b"5", [b"1234"])):
            client = Client()
            number = client.begin(get(b"/", (b"content-length", said), method=b"POST"), False)
            client.flush()
            for piece in pieces[:-1]:
                client.h2.send_data(number, piece)
                client.flush()
            client.h2.send_data(number, pieces[-1], True)
            client.flush()
            (stream,) = client.owner.begun
            with failures.of((said, pieces)):
                same(client.responses[number].reset, int(ErrorCodes.PROTOCOL_ERROR))
                same(client.owner.left_streams, [stream])
                with pytest.raises(RemoteProtocolError):
                    read(stream)
                stream.cut()
                same(client.owner.answered, [stream])


def test_a_body_that_is_too_large_is_refused() -> None:
    """At once where its length is said; else when it is reached, and the answer is sent."""
    client = Client(limits=Limits(body=1000))
    response = client.ask(get(b"/", (b"content-length", b"1001"), method=b"POST"), b"x" * 1001)
    same(response.status, b"413")
    number = client.begin(POST, False)
    client.h2.send_data(number, b"x" * 1001)
    client.flush()
    stream = client.owner.begun[-1]
    with pytest.raises(RemoteProtocolError, match="longer than 1000"):
        read(stream)
    stream.start("413 Content Too Large", [])
    stream.end(b"")
    client.flush()
    response = client.responses[number]
    same((response.status, response.ended), (b"413", True))
    same(response.reset, int(ErrorCodes.NO_ERROR))


def test_an_early_answer_ends_the_upload() -> None:
    """The client has the whole answer, and is told that no more is wanted (RFC 9113, 8.1)."""
    client = Client(hello)
    number = client.begin(POST, False)
    client.flush()
    response = client.responses[number]
    same((response.body, response.ended), (b"hello", True))
    same(response.reset, int(ErrorCodes.NO_ERROR))
    same(client.ask().body, b"hello")


def test_a_client_is_asked_for_its_body_once() -> None:
    """Expect: 100-continue, when the application reads, or answers in part."""
    client = Client()
    number = client.begin(get(b"/", (b"expect", b"100-continue"), method=b"POST"), False)
    client.flush()
    (stream,) = client.owner.begun
    same(client.responses[number].informational, [])
    assert isinstance(stream.receive(), Signal)
    assert isinstance(stream.receive(), Signal)
    client.flush()
    same([each[b":status"] for each in client.responses[number].informational], [b"100"])
    client.h2.send_data(number, b"body", True)
    client.flush()
    same(read(stream), b"body")


def test_hints_and_trailers_are_sent() -> None:
    """103 before the head, trailers behind the body."""
    client = Client()
    number = client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    stream.inform([("Link", "</a.css>; rel=preload")])
    stream.start("200 OK", [])
    stream.trailers = [("X-Sum", "1")]
    stream.send(b"body")
    stream.end(b"")
    client.flush()
    response = client.responses[number]
    same(response.informational, [{b":status": b"103", b"link": b"</a.css>; rel=preload"}])
    same((response.body, response.trailers, response.ended), (b"body", [(b"x-sum", b"1")], True))


def test_heads_larger_than_a_frame_are_sent_in_several() -> None:
    """Hints, heads and trailers alike: a frame that is too large would end the connection."""
    client = Client()
    number = client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    large = "x" * 40_000
    stream.inform([("Link", large)])
    stream.start("200 OK", [("X-Large", large)])
    stream.trailers = [("X-Behind", large)]
    stream.end(b"body")
    client.flush()
    response = client.responses[number]
    same([len(each[b"link"]) for each in response.informational], [40_000])
    same(len(dict(response.fields)[b"x-large"]), 40_000)
    same([len(value) for _, value in response.trailers or ()], [40_000])
    same((response.body, response.ended), (b"body", True))


def test_a_response_that_is_cut_does_not_look_complete() -> None:
    """Its stream is reset; the connection goes on."""
    client = Client()
    number = client.begin(get())
    client.flush()
    stream = client.owner.begun[-1]
    stream.start("200 OK", [("Content-Length", "10")])
    stream.send(b"half")
    with pytest.raises(LocalProtocolError):
        stream.end()
    stream.cut()
    client.flush()
    response = client.responses[number]
    same((response.body, response.ended), (b"half", False))
    same(response.reset, int(ErrorCodes.INTERNAL_ERROR))
    same(client.owner.answered, [stream])


def test_a_client_that_resets_a_stream_leaves_it() -> None:
    """Its call ends; writes raise, whichever comes first; it counts until it has ended."""
    client = Client()
    number = client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    stream.start("200 OK", [])
    stream.send(b"some")
    client.h2.reset_stream(number)
    client.flush()
    same(client.owner.left_streams, [stream])
    with pytest.raises(ClientDisconnected):
        stream.send(b"more")
    same(list(client.protocol.exchanges), [stream])
    stream.cut()
    same(list(client.protocol.exchanges), [])
    same(client.owner.answered, [stream])


def test_a_request_that_is_reset_in_the_same_breath_never_begins() -> None:
    """CVE-2023-44487: the whole read is taken in first."""
    client = Client(hello)
    for _ in range(50):
        client.h2.reset_stream(client.begin(get()))
    client.flush()
    same(client.owner.begun, [])
    same(client.protocol.exchanges, {})
    same(client.ask().body, b"hello")


def test_more_streams_than_may_be_are_refused_for_another_time() -> None:
    """Also when the others were reset: they count until their applications have ended."""
    client = Client()
    for _ in range(100):
        client.begin(get())
    client.flush()
    for number in range(1, 200, 2):
        client.h2.reset_stream(number)
    number = client.begin(get())
    client.flush()
    same(client.responses[number].reset, int(ErrorCodes.REFUSED_STREAM))
    same([each.again for each in client.owner.errors], ["http2_streams"])
    client.owner.begun[0].cut()
    number = client.begin(get())
    client.flush()
    same(client.responses[number].reset, None)
    same(len(client.owner.begun), 101)


def test_a_client_that_has_its_answer_may_ask_again_at_once() -> None:
    """Also before the thread that has sent it has come to its end: that is not the client's."""
    client = Client()
    numbers = [client.begin(get()) for _ in range(STREAMS)]
    client.flush()
    stream, *_ = client.owner.begun

    def ask_again() -> None:
        client.flush()
        assert client.responses[numbers[0]].ended
        number = client.begin(get())
        client.flush()
        same(client.responses[number].reset, None)
        same(len(client.protocol.exchanges), STREAMS + 1)

    stream.start("200 OK", [])
    client.transport.lock.once_released = ask_again  # the answer is sent, and the call goes on
    stream.end(b"answer")
    same((len(client.owner.begun), len(client.protocol.exchanges)), (STREAMS + 1, STREAMS))


@pytest.mark.parametrize("kind", ["ping", "settings", "reset", "continuation", "block"])
def test_floods_end_the_connection(kind: str) -> None:
    """With ENHANCE_YOUR_CALM, and one line of the log; a moment's rest earns some back."""
    client = Client()
    client.flush()
    if kind == "ping":
        data = PingFrame(0, opaque_data=b"12345678").serialize() * CONTROLS[0]
    elif kind == "settings":
        data = SettingsFrame(0, settings={}).serialize() * CONTROLS[0]
    elif kind == "reset":
        for _ in range(RESETS[0] + 1):
            client.h2.reset_stream(client.begin(get()))
        data = client.h2.data_to_send()
    else:
        size = 1 if kind == "continuation" else 16384
        data = HeadersFrame(1, b"\x82" * size).serialize()
        data += ContinuationFrame(1, b"\x82" * size).serialize() * (BLOCK_FRAMES + 1)
    client.send(data)
    client.flush()
    same([each[0] for each in client.gone], [int(ErrorCodes.ENHANCE_YOUR_CALM)])
    reasons = {"reset": "http2_resets", "continuation": "http2_header_block"}
    reasons["block"] = reasons["continuation"]
    same([each.ends for each in client.owner.errors], [reasons.get(kind, "http2_frames")])
    same(client.transport.closed, "linger")
    same(client.owner.begun, [])


@pytest.mark.parametrize("came", [60, 20_000])
def test_a_frame_that_is_too_large_is_not_taken_in_part(came: int) -> None:
    """Its first bytes may be a head; the connection ends (RFC 9113 section 4.2)."""
    client = Client(hello)
    client.flush()
    fields = get(b"/", *[(b"x%d" % number, b"y" * 500) for number in range(40)])
    head = HeadersFrame(1, client.h2.encoder.encode(fields, huffman=False))
    head.flags |= {"END_HEADERS", "END_STREAM"}
    client.send(head.serialize()[:came])
    client.flush()
    (error,) = client.owner.errors
    same((error.ends, "a frame has 20" in str(error)), ("http2_error", True))
    assert client.transport.sent.endswith(b"\x06" + str(error).encode())  # FRAME_SIZE_ERROR
    same(client.owner.begun, [])


def test_the_table_of_what_was_sent_is_bounded() -> None:
    """A client may allow one of any size; with it all headers would be kept that are unlike."""
    client = Client(hello)
    for size, kept in ((2**32 - 1, 4096), (100, 100), (2**20, 4096)):
        client.h2.update_settings({1: size})  # SETTINGS_HEADER_TABLE_SIZE
        same(client.ask().status, b"200")
        same(client.protocol.h2.encoder.header_table_size, kept)


def test_allowances_fill_again() -> None:
    """So that a long connection may live for ever."""
    client = Client(hello)
    for _ in range(5):
        client.send(PingFrame(0, opaque_data=b"12345678").serialize() * (CONTROLS[0] // 2))
        client.protocol.mind_time(CONTROLS[0] / CONTROLS[1] / 2)
    same(client.ask().body, b"hello")


def test_the_end_comes_in_two_steps() -> None:
    """First no new requests are wanted, then the last one is named; what is in progress ends."""
    client = Client()
    number = client.begin(get())
    client.flush()
    client.protocol.retire()
    client.flush()
    same(client.gone, [(0, 2**31 - 1, None)])
    client.protocol.drain()
    same(client.transport.closed, "")
    client.now += 1.0
    client.protocol.mind_time(1.0)
    client._read = len(client.transport.sent)
    (stream,) = client.owner.begun
    stream.start("200 OK", [])
    stream.end(b"the last one")
    assert b"the last one" in client.transport.sent
    same(client.transport.closed, "")
    client.owner.soon.pop()()
    same(client.transport.closed, "linger")
    same(number, 1)


def test_a_client_that_says_it_will_leave_gets_its_answers() -> None:
    """GOAWAY from the client: h2 would send nothing more."""
    client = Client()
    number = client.begin(get())
    client.flush()
    client.h2.close_connection()
    data = client.h2.data_to_send()
    client.send(data)
    (stream,) = client.owner.begun
    stream.start("200 OK", [])
    stream.end(b"answer")
    assert b"answer" in client.transport.sent
    client.owner.soon.pop()()
    same(client.transport.closed, "linger")
    same(number, 1)


def test_the_connection_ends_and_so_do_its_streams() -> None:
    """Who waits to write goes on; what waited is dropped."""
    client = Client(window=1000)
    client.credits = False
    client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    stream.start("200 OK", [])
    room = stream.send(b"x" * 200_000)
    assert isinstance(room, Signal)
    client.protocol.connection_lost()
    assert room.fired
    with pytest.raises(ClientDisconnected):
        stream.send(b"more")
