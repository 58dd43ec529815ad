"""What attackers of HTTP/2 servers do, one connection at a time.

Each attack goes on until the server ends its connection, or until it has sent what it may: it is
bounded, whatever the server does. The names of the CVEs are in ``docs/decisions/0044-http2.md``'s
notes and in the functions below.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.http2_clients import Client, get

FRAMES: Final = 20_000
"""Frames that an attack sends at most, where each is one of its steps."""
BATCH: Final = 50
"""Steps that are sent at once."""
UNLIKE: Final = 1000
"""Responses that have a header like no other."""
STREAMS: Final = 100
"""Streams that the server allows at a time."""
ASKED: Final = 500
"""Times that the server is asked whether it has begun the requests of a batch."""
INITIAL_WINDOW_SIZE: Final = 4
LARGE: Final = get(b"/large")


def flood(client: Client, make: Callable[[], Sequence[Frame | bytes]], steps: int = FRAMES) -> None:
    """Send the frames of many steps, some steps at once; read no replies before the end."""
    client.sock.setblocking(True)
    for _ in range(steps // BATCH):
        frames = [frame for _ in range(BATCH) for frame in make()]
        if not client.send(*frames):
            break
    client.closed = False  # what the server has said may still be read
    client.until(lambda: client.gone is not None)


def rapid_reset(client: Client) -> None:
    """Begin requests, and reset them when they run (CVE-2023-44487)."""
    for _ in range(FRAMES // BATCH):
        frames = [frame for _ in range(BATCH) for frame in client.request(get())]
        if not (client.send(*frames) and client.answered()):
            return
        if not client.send(*(RstStreamFrame(each.stream_id, error_code=8) for each in frames)):
            return
        if client.gone is not None:
            return


def reset_at_once(client: Client) -> None:
    """Begin requests, and reset each in the same breath."""

    def make() -> list[Frame]:
        (head,) = client.request(get())
        return [head, RstStreamFrame(head.stream_id, error_code=8)]

    flood(client, make)


def provoked_by_windows(client: Client) -> None:
    """Have the server reset streams whose windows overflow (CVE-2025-8671)."""

    def make() -> list[Frame]:
        (head,) = client.request(get())
        return [head, WindowUpdateFrame(head.stream_id, window_increment=2**31 - 1)]

    flood(client, make)


def provoked_by_data(client: Client) -> None:
    """Have it reset streams that have ended, and go on (CVE-2025-8671)."""

    def make() -> list[Frame]:
        (head,) = client.request(get())
        return [head, DataFrame(head.stream_id, b"more")]

    flood(client, make)


def provoked_by_lengths(client: Client) -> None:
    """Have it reset streams whose bodies are not as long as they say (CVE-2025-8671)."""
    fields = get(b"/read", (b"content-length", b"10"), method=b"POST")
    flood(client, lambda: client.request(fields, b"short"))


def endless_head(client: Client) -> None:
    """Never end a head (CVE-2024-27316)."""
    number = client.number()
    head = client.head(number, get())
    head.flags.discard("END_HEADERS")
    client.send(head)
    flood(client, lambda: [ContinuationFrame(number, b"\x00\x01a\x01b")])


def bomb(client: Client) -> None:
    """Put a field into the table once, and name it thousands of times (CVE-2016-6581)."""
    client.ask(get(b"/", (b"bomb", b"x" * 3000)))
    again = client.encoder.encode(get(b"/", (b"bomb", b"x" * 3000)))
    number = client.number()
    client.send(HeadersFrame(number, again + again[-1:] * 16_000, flags=["END_HEADERS"]))
    client.until(lambda: client.gone is not None or client.answers[number].ended)


def churn(client: Client) -> None:
    """Fill the table anew with each head, by more fields than it may have."""
    flood(client, lambda: [_new_fields(client, 190)], 2000)


def many_fields(client: Client) -> None:
    """Send a head of very many fields."""
    flood(client, lambda: [_new_fields(client, 1000)], 2000)


def _new_fields(client: Client, count: int) -> Frame:
    block = b"".join(b"\x40\x02%02x\x00" % (each % 256) for each in range(count))
    return HeadersFrame(client.number(), block, flags=["END_HEADERS", "END_STREAM"])


def settings(client: Client) -> None:
    """Change settings, which the server must acknowledge each time (CVE-2019-9515)."""
    flood(client, lambda: [SettingsFrame(0, settings={INITIAL_WINDOW_SIZE: 65_535})])


def pings(client: Client) -> None:
    """Ask for signs of life, which the server must answer each time (CVE-2019-9512)."""
    flood(client, lambda: [PingFrame(0, opaque_data=b"12345678")])


def priorities(client: Client) -> None:
    """Change the priorities of streams that were never opened (CVE-2019-9513)."""
    flood(client, lambda: [PriorityFrame(client.number(), depends_on=0, stream_weight=1)])


def priority_updates(client: Client) -> None:
    """The same, as RFC 9218 has it."""
    update = b"\x00\x00\x07\x10\x00" + bytes(4) + b"\x00\x00\x00\x01u=1"
    flood(client, lambda: [update])


def unknown_frames(client: Client) -> None:
    """Send frames that are to be ignored."""
    flood(client, lambda: [ExtensionFrame(0xFA, stream_id=0, body=b"")])


def empty_data(client: Client) -> None:
    """Send a body of nothing, without end (CVE-2019-9518)."""
    (head,) = client.request(get(b"/read", method=b"POST"))
    head.flags.discard("END_STREAM")
    client.send(head)
    flood(client, lambda: [DataFrame(head.stream_id, b"")])


def empty_heads(client: Client) -> None:
    """Begin requests that say nothing."""

    def make() -> list[Frame]:
        return [HeadersFrame(client.number(), b"", flags=["END_HEADERS", "END_STREAM"])]

    flood(client, make)


def small_windows(client: Client) -> None:
    """Take a response byte by byte (CVE-2019-9511)."""
    client.send(SettingsFrame(0, settings={INITIAL_WINDOW_SIZE: 0}))
    (head,) = client.request(LARGE)
    client.send(head)
    flood(client, lambda: [WindowUpdateFrame(head.stream_id, window_increment=1)])


def shut_windows(client: Client) -> None:
    """Ask for large responses, and take nothing of them (CVE-2019-9517)."""
    client.send(SettingsFrame(0, settings={INITIAL_WINDOW_SIZE: 0}))
    client.send(*(frame for _ in range(STREAMS) for frame in client.request(LARGE)))
    client.answered()


def stalled_uploads(client: Client) -> None:
    """Begin as many uploads as may be, and end none of them."""
    for _ in range(STREAMS):
        fields = get(b"/read", (b"content-length", b"1000000"), method=b"POST")
        head, data = client.request(fields, b"x" * 16_000)
        data.flags.discard("END_STREAM")
        client.send(head, data)
    client.answered()


def dribble(client: Client) -> None:
    """Upload a body byte by byte."""
    (head,) = client.request(get(b"/read", method=b"POST"))
    head.flags.discard("END_STREAM")
    client.send(head)
    for _ in range(FRAMES // BATCH):
        client.send(*[DataFrame(head.stream_id, b"x")] * BATCH)
    client.answered()


def last_numbers(client: Client) -> None:
    """Use the last number that a stream may have, and go on (RFC 9113 section 5.1.1)."""
    client.send(client.head(2**31 - 1, get()))
    client.send(client.head(1, get()))
    client.until(lambda: client.gone is not None)


def large_table(client: Client) -> None:
    """Have the server keep each header of its responses (it may use a table of any size)."""
    client.allow_table(2**32 - 1)
    for _ in range(UNLIKE // BATCH):
        frames = [frame for _ in range(BATCH) for frame in client.request(get(b"/unlike"))]
        client.send(*frames)
        last = client.answers[frames[-1].stream_id]
        client.until(lambda: last.ended or last.reset is not None)  # noqa: B023 - called here


def crowd(client: Client) -> None:
    """Begin as many requests as may be, end none of them, and ask for more and more."""
    for _ in range(STREAMS):
        (head,) = client.request(get(b"/read", method=b"POST"))
        head.flags.discard("END_STREAM")
        client.send(head)
    flood(client, lambda: client.request(get()))


def unread(client: Client) -> None:
    """Ask, and ask for signs of life, and read none of it (CVE-2019-9512, CVE-2019-9517).

    Answers without a body wait for no window. Each request allows one PING more. What has been
    answered is asked on another connection: else too many requests would be in progress.
    """
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.sock.setblocking(True)
    host, port = client.sock.getpeername()[:2]
    with Client(f"{host}:{port}") as other:
        sent = int(other.ask(get(b"/begun")).body)
        for _ in range(FRAMES // BATCH):
            frames: list[Frame] = []
            for _ in range(BATCH):
                frames += client.request(get(b"/unlike", method=b"HEAD"))
                frames.append(PingFrame(0, opaque_data=b"12345678"))
            if not client.send(*frames):
                break
            sent += BATCH
            for _ in range(ASKED):
                if int(other.ask(get(b"/begun")).body) >= sent:
                    break
            else:
                break  # the server has ended the connection, or somebody else asks, too
    client.closed = False  # what the server has said may still be read
    client.until(lambda: client.gone is not None)


class Attack(NamedTuple):
    """An attack, and what must come of it.

    Attributes:
        run: makes it, on one connection.
        reason: why the connection is ended, as in the metrics; empty where it goes on.
        begun: calls of the application that it may begin at most.
    """

    run: Callable[[Client], None]
    reason: str
    begun: int


# A reset, or a request to be refused, is allowed 200 times, and 20 times more each second.
_MANY: Final = 2 * 200 + 2 * BATCH

ATTACKS: Final = {
    "rapid-reset": Attack(rapid_reset, "http2_resets", _MANY),
    "reset-at-once": Attack(reset_at_once, "http2_resets", 0),
    "provoked-by-windows": Attack(provoked_by_windows, "http2_resets", _MANY),
    "provoked-by-data": Attack(provoked_by_data, "http2_resets", _MANY),
    "provoked-by-lengths": Attack(provoked_by_lengths, "http2_resets", _MANY),
    "endless-head": Attack(endless_head, "http2_header_block", 0),
    "bomb": Attack(bomb, "http2_header_block", 1),
    "churn": Attack(churn, "http2_resets", 0),
    "many-fields": Attack(many_fields, "http2_header_block", 0),
    "settings": Attack(settings, "http2_frames", 0),
    "pings": Attack(pings, "http2_frames", 0),
    "priorities": Attack(priorities, "http2_frames", 0),
    "priority-updates": Attack(priority_updates, "http2_frames", 0),
    "unknown-frames": Attack(unknown_frames, "http2_frames", 0),
    "empty-data": Attack(empty_data, "http2_frames", 1),
    "empty-heads": Attack(empty_heads, "http2_resets", 0),
    "small-windows": Attack(small_windows, "http2_window_updates", 1),
    "shut-windows": Attack(shut_windows, "", STREAMS),
    "stalled-uploads": Attack(stalled_uploads, "", STREAMS),
    "dribble": Attack(dribble, "", 1),
    "last-numbers": Attack(last_numbers, "http2_error", 1),
    "large-table": Attack(large_table, "", UNLIKE),
    "crowd": Attack(crowd, "http2_resets", STREAMS),
    "unread": Attack(unread, "http2_unread_replies", FRAMES),
}
"""By name."""

SOURCE: Final = """
import itertools

begun = []
numbers = itertools.count()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/plain")]
    if path == "/begun":
        start_response("200 OK", headers)
        return [str(len(begun)).encode()]
    if path != "/other":
        begun.append(path)
    if path == "/read":
        environ["wsgi.input"].read()
    if path == "/unlike":
        headers.append(("X-Unlike", f"{next(numbers):01000}"))
    start_response("200 OK", headers)
    return [b"x" * (1_000_000 if path == "/large" else 10)]
"""
"""The application that is attacked: it counts its calls."""
