"""Published attacks on HTTP/2, in memory; ``soak/http2_attacks.py`` has them against a server."""

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from bide.exchange.stream import Stream
from tests.failures import Failures, same
from tests.protocols.http2.clients import Client, get


def hello(stream: Stream) -> None:
    """Answer."""
    stream.start("200 OK", [])
    stream.end(b"hello")


def test_a_bad_field_is_refused_and_no_application_sees_it() -> None:
    """CR, LF and NUL (CVE-2025-57804), and two hosts (CVE-2026-71554): 400."""
    client = Client(hello)
    with Failures() as failures:
        for field in (
            (b"x", b"a\r\nSet-Cookie: b"),
            (b"x", b"a\nb"),
            (b"x", b"a\rb"),
            (b"x", b"a\x00b"),
            (b"x\r\ny", b"a"),
            (b"host", b"other.example"),
        ):
            with failures.of(field):
                same(client.ask(get(b"/", field)).status, b"400")
        two = [*get(b"/"), (b"host", b"a.example"), (b"host", b"a.example")]
        with failures.of("two hosts"):
            same(client.ask(two).status, b"400")
    same(client.owner.begun, [])


@pytest.mark.parametrize("integer", [b"\xff", b"\x7f", b"\x0f", b"\x1f", b"\x3f"])
def test_a_number_without_end_ends_the_connection(integer: bytes) -> None:
    """CVE-2026-59980: nor is the client, or the log, told all of it."""
    client = Client(hello)
    block = integer + b"\xff" * 16_000
    client.protocol.data_received(HeadersFrame(1, block, flags=["END_HEADERS"]).serialize())
    client.flush()
    ((code, _, why),) = client.gone
    assert code == ErrorCodes.COMPRESSION_ERROR
    assert len(why or b"") <= 200
    same([len(str(each)) <= 200 for each in client.owner.errors], [True])
    same(client.owner.begun, [])


def test_a_block_that_inflates_ends_the_connection() -> None:
    """CVE-2016-6581: a large field is in the table once, and is named thousands of times."""
    client = Client(hello)
    large = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000  # a new name, and a value of 4,000 bytes
    block = b"\x82\x86\x84" + large + b"\xbe" * 10_000
    client.protocol.data_received(HeadersFrame(1, block, flags=["END_HEADERS"]).serialize())
    client.flush()
    same([each[0] for each in client.gone], [int(ErrorCodes.ENHANCE_YOUR_CALM)])
    same(client.owner.begun, [])


def test_floods_end_the_connection() -> None:
    """PING, SETTINGS, resets: none reaches an application.

    CVE-2019-9512, CVE-2019-9514, CVE-2019-9515, CVE-2023-44487.
    """
    with Failures() as failures:
        for kind in ("ping", "settings", "resets"):
            client = Client(hello)
            data = {
                "ping": PingFrame(0, opaque_data=b"12345678").serialize() * 1000,
                "settings": SettingsFrame(0, settings={}).serialize() * 1000,
                "resets": b"",
            }[kind]
            if kind == "resets":
                for _ in range(300):
                    client.h2.reset_stream(client.begin(get()))
                data = client.h2.data_to_send()
            client.protocol.data_received(data)
            client.flush()
            with failures.of(kind):
                same([each[0] for each in client.gone], [int(ErrorCodes.ENHANCE_YOUR_CALM)])
                same(client.owner.begun, [])


def test_streams_that_the_server_is_made_to_reset_count_as_resets() -> None:
    """CVE-2025-8671: by windows that overflow, for which the server must reset the stream."""
    client = Client()
    begun = 0
    for _ in range(300):
        if client.transport.closed:
            break
        number = client.begin(get())
        data = client.h2.data_to_send()
        data += (
            (4).to_bytes(3, "big") + b"\x08\x00" + number.to_bytes(4, "big") + b"\x7f\xff\xff\xff"
        )
        client.protocol.data_received(data)
        client.protocol.data_received(RstStreamFrame(number).serialize())
        for stream in client.owner.left_streams:
            stream.cut()
        client.owner.left_streams.clear()
        client.h2.reset_stream(number)  # so that the client's own side has room for another
        client.h2.clear_outbound_data_buffer()
        begun += 1
    assert client.transport.closed
    assert begun <= 250


def test_a_window_that_stays_shut_has_its_time() -> None:
    """CVE-2019-9517: what waits is told to the deadlines, as what the client does not take."""
    client = Client(window=0)
    client.begin(get())
    client.flush()
    (stream,) = client.owner.begun
    hello(stream)
    same(client.protocol.unsent(stream), 5)
    client.protocol.timed_out("response", stream)
    client.flush()
    same(client.responses[1].reset, int(ErrorCodes.CANCEL))
    same(client.owner.answered, [stream])
