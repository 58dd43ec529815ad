"""What comes, cut into frames, and what a client may do how often."""

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, Frame, PingFrame

from bide.exchange.stream import Stream
from bide.protocols.http2 import guard as guards
from bide.protocols.http2.guard import FRAME, RESETS, SMALL, Guard
from tests.failures import same
from tests.protocols.http2.clients import Client, get

PING = PingFrame(0, opaque_data=b"12345678")


def frames(guard: Guard, data: bytes) -> list[guards.Frame]:
    """Return the frames that are complete when these bytes have come."""
    guard.feed(data)
    return list(iter(guard.next, None))


def test_small_frames_of_one_body_are_taken_as_one() -> None:
    """Up to the size of a frame; whatever else comes stands where it stood."""
    last = DataFrame(1, b"z", flags=["END_STREAM"])
    came: list[Frame] = [DataFrame(1, b"a")] * 20_000
    came += [PING, DataFrame(1, b"b"), DataFrame(1, b"c" * SMALL), DataFrame(3, b"d"), last]
    data = b"".join(each.serialize() for each in came)
    found = frames(Guard(1000), data)
    same([each.stream for each in found], [1, 1, 0, 1, 1, 3, 1])
    bodies = [each.data[9:] for each in found]
    same(bodies[0] + bodies[1], b"a" * 20_000)
    same((len(bodies[0]), bodies[2:]), (FRAME, [b"12345678", b"b", b"c" * SMALL, b"d", b"z"]))
    for each in found:
        same(int.from_bytes(each.data[:3], "big"), len(each.data) - 9)


@pytest.mark.parametrize("cut", [1, 5, 9, 10, 11, 19])
def test_frames_that_have_not_come_whole_are_kept(cut: int) -> None:
    """Also behind those that were joined."""
    guard = Guard(1000)
    data = DataFrame(1, b"a").serialize() * 2 + PING.serialize()
    found = [*frames(guard, data[:cut]), *frames(guard, data[cut:])]
    same(b"".join(each.data[9:] for each in found if each.stream), b"aa")
    same(found[-1].data, PING.serialize())


def hello(stream: Stream) -> None:
    """Answer with a length."""
    stream.start("200 OK", [])
    stream.end(b"hello")


def malformed() -> list[tuple[bytes, bytes]]:
    """Return the fields of a request that is refused."""
    return get(b"/", (b"Upper", b"case"))


def test_who_sends_malformed_requests_is_ended_soon() -> None:
    """With a good one before each of them hardly later: that earns a tenth of a bad one."""
    for good, most in ((0, RESETS[0]), (1, RESETS[0] + RESETS[0] // 8)):
        client = Client(hello)
        sent = 0
        while not client.gone:
            for _ in range(good):
                client.ask()
            client.ask(malformed())
            sent += 1
            assert sent <= most + 1
        assert sent > RESETS[0]
        same([each[0] for each in client.gone], [int(ErrorCodes.ENHANCE_YOUR_CALM)])


def test_a_proxy_goes_on_that_brings_a_bad_request_now_and_then() -> None:
    """Its connection carries many people's; 250 bad ones of 25,000, with no time to rest."""
    client = Client(hello)
    for _ in range(250):
        for _ in range(99):
            client.begin(get())
        client.begin(malformed())
        client.flush()
    same((client.gone, client.ask().status), ([], b"200"))
    same(len(client.owner.begun), 250 * 99 + 1)


def test_requests_that_are_reset_earn_nothing() -> None:
    """Else who asks and resets, again and again, could go on for ever."""
    client = Client()
    for _ in range(RESETS[0] + 1):
        number = client.begin(get())
        client.flush()
        client.h2.reset_stream(number)
        client.flush()
        client.owner.begun[-1].cut()  # the application ends, too
    same([each[0] for each in client.gone], [int(ErrorCodes.ENHANCE_YOUR_CALM)])


def test_late_requests_are_refused_and_counted() -> None:
    """Those behind the last one that the client was told of."""
    client = Client(hello)
    client.ask()
    client.protocol.last = 1
    same(client.ask().reset, int(ErrorCodes.REFUSED_STREAM))
    same([each.again for each in client.owner.errors], ["http2_goaway"])
