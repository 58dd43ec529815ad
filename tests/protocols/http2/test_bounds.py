"""The bounds that settings set, in HTTP/2: the same as in HTTP/1, and counted in the same way."""

from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http2.setup import CONNECTION_WINDOW
from tests.failures import Failures, same
from tests.protocols.http2.clients import Client, get


def hello(stream: Stream) -> None:
    """Answer with a length."""
    stream.start("200 OK", [])
    stream.end(b"hello")


def test_a_head_a_little_too_large_is_answered_however_small_the_bound() -> None:
    """Its connection goes on: what h2 counts for each field is not of the head."""
    client = Client(hello, Limits(head=200))
    with Failures() as failures:
        for size, status in ((100, b"200"), (240, b"431"), (100, b"200")):
            with failures.of(size):
                same(client.ask(get(b"/", (b"x", b"x" * size))).status, status)
    same(client.gone, [])


def test_the_authority_counts_as_the_host_does() -> None:
    """A request has as many headers as the same one of HTTP/1."""
    client = Client(hello, Limits(fields=3))
    with Failures() as failures:
        for more, status in (
            (((b"a", b"1"), (b"b", b"2")), b"200"),
            (((b"a", b"1"), (b"b", b"2"), (b"c", b"3")), b"431"),
            (((b"a", b"1"), (b"b", b"2"), (b"host", b"a.example")), b"200"),
        ):
            with failures.of(more):
                same(client.ask(get(b"/", *more)).status, status)


def test_what_waits_for_windows_is_held() -> None:
    """As what waits for a socket is: who holds the most is given up first, and none at a stop."""
    client = Client(window=2000)
    client.credits = False
    numbers = [client.begin(get()), client.begin(get())]
    client.flush()
    same(client.protocol.held, 0)
    for stream in client.owner.begun:
        stream.start("200 OK", [])
        stream.end(b"x" * 5000)
    same(client.protocol.held, 6000)
    client.h2.reset_stream(numbers[0])
    client.flush()
    same(client.protocol.held, 3000)
    client.h2.increment_flow_control_window(3000, numbers[1])
    client.flush()
    same(client.protocol.held, 0)


def test_a_request_begins_when_so_much_of_its_body_is_there_as_in_http1() -> None:
    """The client may have sent more by then: no window is smaller than the first one."""
    client = Client(limits=Limits(window=2048))
    number = client.begin(get(method=b"POST"), False)
    client.h2.send_data(number, b"x" * 2047)
    client.flush()
    (stream,) = client.owner.begun
    same(stream.body.due, False)
    client.h2.send_data(number, b"x")
    client.flush()
    same(stream.body.due, True)
    for _ in range(10):  # and more than a window comes, as it is taken
        while client.h2.local_flow_control_window(number) >= 16384:
            client.h2.send_data(number, b"x" * 16384)
            client.flush()
        while stream.body.unread:
            stream.receive()
        client.flush()
    assert stream.body.fed > 5 * 65535


def test_a_body_of_many_small_frames_is_refused_as_one_of_small_chunks() -> None:
    """Each costs as much as a large one; those that are large enough pay for themselves."""
    client = Client(limits=Limits(chunks=10))
    with Failures() as failures:
        for size, refused in ((1, True), (64, False)):
            number = client.begin(get(method=b"POST"), False)
            for _ in range(40):
                client.h2.send_data(number, b"x" * size)
                client.flush()
            body = client.owner.begun[-1].body
            with failures.of(size):
                same(body.failed, refused)
                same(body.fed, 11 if refused else 40 * size)


def test_what_waits_for_a_window_is_dropped_when_the_client_has_ended_its_side() -> None:
    """It opens none any more: neither the memory nor the application waits for it."""
    client = Client(window=2000)
    client.credits = False
    shut, open_ = client.begin(get()), client.begin(get())
    client.flush()
    first, second = client.owner.begun
    first.start("200 OK", [])
    first.send(b"x" * 5000)
    second.start("200 OK", [])
    second.send(b"y" * 1000)
    same(client.protocol.held, 3000)
    assert not client.protocol.eof_received()
    same((client.protocol.held, client.owner.left_streams), (0, [first]))
    second.send(b"y" * 500)  # its window takes that
    client.flush()
    same(client.responses[open_].body, b"y" * 1500)
    second.send(b"y" * 5000)
    client.run_soon()
    same(client.owner.left_streams, [first, second])
    same(client.protocol.held, 0)
    same(client.responses[shut].reset, 8)


def test_a_response_that_is_cut_is_reset_behind_what_was_given_before() -> None:
    """As in HTTP/1, where the connection ends behind it."""
    client = Client(window=2000)
    client.credits = False
    number = client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    stream.start("200 OK", [])
    stream.send(b"x" * 5000)
    stream.cut()
    client.flush()
    same((len(client.responses[number].body), client.responses[number].reset), (2000, None))
    client.h2.increment_flow_control_window(3000, number)
    client.flush()
    response = client.responses[number]
    same((len(response.body), response.ended, response.reset), (5000, False, 2))
    same(client.owner.answered, [stream])


def test_bodies_that_nobody_reads_stop_at_the_connections_window_while_memory_is_short() -> None:
    """What is taken then is credited, once a second at the latest; all of it comes in the end."""
    total = Total(100_000)
    client = Client(unread=total)
    numbers = [client.begin(get(method=b"POST"), False) for _ in range(40)]
    client.flush()
    left = dict.fromkeys(numbers, 60_000)

    def send() -> None:
        for number in numbers:
            while left[number]:
                size = min(left[number], 16_384, client.h2.local_flow_control_window(number))
                if not size:
                    break
                left[number] -= size
                client.h2.send_data(number, b"x" * size, not left[number])
        client.flush()

    for _ in range(10):
        send()
    same(total.used, CONNECTION_WINDOW)
    got = 0
    for _ in range(10):
        for stream in client.owner.begun:
            while isinstance(block := stream.receive(), bytes) and block:
                got += len(block)
        client.protocol.mind_time(1.0)
        client.flush()
        send()
    same((got, total.used), (40 * 60_000, 0))
