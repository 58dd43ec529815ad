"""WebSockets on bytes alone: frames, compression, bounds, the end."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from bide.errors import ClientDisconnected, LocalProtocolError, WebSocketClosed
from bide.exchange.messages import Head
from bide.exchange.messaging import NextMessage
from bide.protocols.websocket.arrivals import FRAGMENT
from bide.protocols.websocket.frames import STEP_DEFLATED
from bide.waiting.outcome import Signal
from tests.failures import Failures, same
from tests.protocols.websocket.cases import CASES, EURO, SIZES
from tests.protocols.websocket.wires import (
    BINARY,
    CLOSE,
    CONT,
    DEFLATE,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Wire,
    closing,
    frame,
)


def test_what_frames_come_to() -> None:
    """Whole, and byte by byte."""
    with Failures() as failures:
        for name, case in CASES.items():
            data = case.data
            pieces = [data[at : at + 1] for at in range(len(data))] if len(data) < 300 else [data]
            for how, split in (("whole", [data]), ("in bytes", pieces)):
                with failures.of(f"{name}, {how}"):
                    wire = Wire()
                    wire.send(*split)
                    same(wire.received(), list(case.messages))
                    same(wire.over is None, case.code is None)
                    sent = wire.sent()
                    if case.code is not None:
                        first, close = sent.pop()
                        same((first, int.from_bytes(close[:2])), (FIN | CLOSE, case.code))
                    same(sent, [(FIN | PONG, each) for each in case.pongs])


def test_plain_frames_come_to_what_the_strict_way_makes_of_them() -> None:
    """Whatever stands before, between and behind them, and wherever the bytes are cut."""
    kinds = [
        frame(TEXT, EURO.encode()),
        frame(TEXT, b""),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"t" * 126),
        frame(BINARY, bytes(range(125))),
        frame(BINARY, b"b" * 65535),
        frame(BINARY, b"b" * 65536),
        frame(TEXT, b"first", 0),
        frame(CONT, b"more", 0),
        frame(CONT, b"last"),
        frame(PING, b"p"),
        frame(PONG),
        frame(TEXT, b"plain")[:5],
        bytes((FIN | TEXT, 2)) + b"no",
        bytes((FIN | TEXT | RSV1, 0x80)) + bytes(4),
        closing(1000),
    ]
    likely = [1] * len(kinds)
    likely[0] = likely[4] = likely[10] = 20
    made = random.Random(7)
    with Failures() as failures:
        for number in range(300):
            frames = made.choices(kinds, likely, k=made.randrange(1, 12))
            pieces: list[bytes] = []
            for each in frames:
                cut = made.choice((0, 0, len(each), made.randrange(len(each))))
                pieces[-1:] = [b"".join([*pieces[-1:], each[:cut]]), each[cut:]]
            with failures.of(number):
                limit = made.choice((125, 65536))
                quick, strict = Wire(message=limit), Wire(message=limit)
                quick.send(*pieces)
                for piece in pieces:
                    strict.protocol._frames.arrivals.between = False
                    strict.send(piece)
                same(quick.received(), strict.received())
                same(quick.over, strict.over)
                same(quick.sent(), strict.sent())
                same(quick.unread.used, strict.unread.used)


def test_text_may_be_cut_at_every_byte() -> None:
    """Into two fragments, with a ping between them, which is answered at once."""
    data = EURO.encode()
    with Failures() as failures:
        for at in range(len(data) + 1):
            with failures.of(at):
                wire = Wire()
                wire.send(frame(TEXT, data[:at], 0), frame(PING, b"between"))
                same(wire.sent(), [(FIN | PONG, b"between")])
                same(wire.received(), [])
                wire.send(frame(CONT, data[at:]))
                same(wire.received(), [EURO])


def test_what_the_server_sends_is_framed_by_its_length() -> None:
    """RFC 6455 section 5.2: the shortest length, no mask."""
    with Failures() as failures:
        for size in SIZES:
            with failures.of(size):
                wire = Wire()
                wire.protocol.send_message("é" * (size // 2))
                wire.protocol.send_message(b"\xff" * size)
                expected = [
                    (FIN | TEXT, "é".encode() * (size // 2)),
                    (FIN | BINARY, b"\xff" * size),
                ]
                same(wire.sent(), expected)


def test_the_answer_to_a_handshake() -> None:
    """RFC 6455 section 1.3 has this key and its answer."""
    wire = Wire(
        headers=[(b"Sec-WebSocket-Protocol", b"chat, superchat")],
        accept=lambda protocol: protocol.accept("superchat", [("Set-Cookie", "a=b")]),
    )
    head = wire.head
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: a=b\r\n")
    assert head.endswith(
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: superchat\r\n\r\n"
    )
    assert wire.protocol.subprotocols == ("chat", "superchat")
    assert wire.owner.switched is wire.protocol
    assert wire.owner.answered == [wire.stream]


def test_an_application_that_accepts_wrongly_is_told_and_may_go_on() -> None:
    """Nothing was sent: it can answer as usual, or accept again."""

    def accept(protocol: Any) -> None:
        wrong: list[tuple[str | None, list[tuple[str, str]]]] = [
            ("other", []),
            (None, [("Sec-WebSocket-Accept", "x")]),
            (None, [("Content-Length", "1")]),
            (None, [("Upgrade", "x")]),
            (None, [("A", "b\r\nc")]),
        ]
        for subprotocol, headers in wrong:
            with pytest.raises(LocalProtocolError):
                protocol.accept(subprotocol, headers)
        protocol.accept(None, [])

    wire = Wire(accept=accept)
    assert wire.head.count(b"HTTP/1.1") == 1


def test_a_response_that_has_begun_cannot_become_a_websocket() -> None:
    """And the other way round."""

    def start_first(protocol: Any) -> None:
        protocol._stream.start("200 OK", [])
        with pytest.raises(LocalProtocolError, match="started already"):
            protocol.accept(None, [])

    assert not Wire(accept=start_first).head
    wire = Wire()
    with pytest.raises(LocalProtocolError, match="accepted as a WebSocket"):
        wire.stream.start("200 OK", [])
    assert isinstance(wire.stream.head, Head)
    assert wire.stream.head.code == 101


def test_a_client_that_is_gone_cannot_be_accepted() -> None:
    """As any write to it, it raises."""

    def accept(protocol: Any) -> None:
        protocol._transport.gone = True
        with pytest.raises(ClientDisconnected):
            protocol.accept(None, [])

    assert Wire(accept=accept).over == (1006, "")


# Compression ----------------------------------------------------------------------------------


def deflated(data: bytes, last: bool = True) -> bytes:
    """Compress a client's message, alone."""
    encoder = zlib.compressobj(wbits=-12)
    whole = encoder.compress(data) + encoder.flush(zlib.Z_SYNC_FLUSH)
    return whole[:-4] if last else whole


def test_messages_are_compressed_with_small_windows_and_short_ones_are_not() -> None:
    """RFC 7692; below 64 bytes it is not worth it."""
    wire = Wire(DEFLATE)
    assert (
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; "
        b"client_max_window_bits=12\r\n"
    ) in wire.head
    wire.protocol.send_message("a" * 63)
    wire.protocol.send_message("a" * 64)
    wire.protocol.send_message(b"a" * 64)
    short, text, binary = wire.sent()
    assert short == (FIN | TEXT, b"a" * 63)
    decoder = zlib.decompressobj(wbits=-12)
    for (first, data), opcode in ((text, TEXT), (binary, BINARY)):
        assert first == FIN | RSV1 | opcode
        assert decoder.decompress(data + b"\x00\x00\xff\xff") == b"a" * 64
    whole = deflated(EURO.encode() * 30)
    wire.send(frame(TEXT, whole, FIN | RSV1), frame(TEXT, b"plain"))
    assert wire.received() == [EURO * 30, "plain"]
    wire.send(frame(TEXT, whole[:9], RSV1), frame(PING), frame(CONT, whole[9:]))
    assert wire.received() == [EURO * 30]


def test_compression_that_is_not_offered_as_it_must_be_is_not_used() -> None:
    """A client whose window cannot be bounded would cost 32 KiB; and it can be switched off."""
    cases: list[tuple[bytes, dict[str, Any]]] = [
        (b"", {}),
        (DEFLATE, {"deflate": False}),
        (b"permessage-deflate", {}),
        (b"permessage-deflate; client_max_window_bits=99", {}),
        (b"permessage-deflate; client_max_window_bits; unknown", {}),
        (DEFLATE + b"; client_max_window_bits", {}),
        (b"x-webkit-deflate-frame, , x; y=1;z", {}),
        (b",", {}),
    ]
    with Failures() as failures:
        for offered, more in cases:
            with failures.of((offered, more)):
                wire = Wire(offered, **more)
                same(b"Extensions" in wire.head, False)
                wire.protocol.send_message("a" * 100)
                same(wire.sent(), [(FIN | TEXT, b"a" * 100)])
                wire.send(frame(TEXT, b"a", FIN | RSV1))
                same(wire.code(), 1002)


# Bounds ---------------------------------------------------------------------------------------


def test_a_message_is_bounded_however_it_comes() -> None:
    """By its length, in fragments, many of them empty, and before it is inflated."""
    limit = 1000
    bomb = deflated(bytes(10_000_000))
    cases: dict[str, tuple[bytes, int | None]] = {
        "the longest": (frame(TEXT, b"a" * limit), None),
        "one byte too many": (frame(TEXT, b"a" * (limit + 1)), 1009),
        "announced, and never sent": (frame(BINARY, b"a" * 5000)[:8], 1009),
        "the longest in two fragments": (
            frame(TEXT, b"a" * 436, 0) + frame(CONT, b"a" * 500),
            None,
        ),
        "too long in two": (frame(TEXT, b"a" * 437, 0) + frame(CONT, b"a" * 500), 1009),
        "empty fragments for ever": (frame(TEXT, b"", 0) + frame(CONT, b"", 0) * 100, 1009),
        "a bomb": (frame(TEXT, bomb, FIN | RSV1), 1009),
        "a bomb in fragments": (frame(BINARY, bomb[:100], RSV1) + frame(CONT, bomb[100:]), 1009),
        "the longest, compressed": (frame(TEXT, deflated(b"a" * limit), FIN | RSV1), None),
        "too long, compressed": (frame(TEXT, deflated(b"a" * (limit + 1)), FIN | RSV1), 1009),
    }
    with Failures() as failures:
        for name, (data, code) in cases.items():
            with failures.of(name):
                wire = Wire(DEFLATE, message=limit)
                wire.send(data)
                same(wire.code(), code)
                same(len(wire.received()), int(code is None))
                same(wire.closed(), "" if code is None else "linger")


def test_reading_stops_while_much_waits_for_the_application() -> None:
    """And goes on once it has received some; small messages count more than their bytes."""
    wire = Wire(window=4096)
    wire.send(frame(BINARY, bytes(3000)))
    assert wire.reads()
    wire.send(frame(BINARY, bytes(3000)))
    assert not wire.reads()
    wire.protocol.receive()
    assert wire.reads()
    wire.send(frame(TEXT) * 100)
    assert not wire.reads()
    assert wire.received() == [bytes(3000), *[""] * 100]
    assert wire.reads()
    assert wire.unread.used == 0
    wire.send(frame(BINARY, bytes(5000)))
    assert not wire.reads()
    wire.protocol.close(1000, "")
    assert wire.reads()
    assert wire.unread.used == 0


def test_one_read_is_parsed_no_further_than_may_wait() -> None:
    """What it would come to is up to a thousand times as much; the rest is kept as it came.

    A ping and a close in it wait as the messages do, and nothing is lost.
    """
    read = 65536
    limit = 1 << 20

    def compressed(size: int) -> bytes:
        return frame(BINARY, deflated(bytes(size)), FIN | RSV1)

    # Beyond the window: one message, and what the last step comes to.
    inflated = 1032 * STEP_DEFLATED
    cases: dict[str, tuple[bytes, int, int]] = {
        "messages that inflate": (compressed(limit), limit, limit + inflated),
        "small ones": (compressed(1000), 1000, 1000 + inflated),
        "as large as may be": (compressed(8 * limit), 8 * limit, 8 * limit + inflated),
        "not compressed": (frame(TEXT), limit, FRAGMENT * (STEP_DEFLATED // 6 + 2)),
    }
    with Failures() as failures:
        for name, (message, most, beyond) in cases.items():
            with failures.of(name):
                wire = Wire(DEFLATE, window=read, message=most)
                end = frame(PING, b"behind") + closing(1000)
                count = (read - len(end)) // len(message)
                wire.send(message * count + end)
                same(wire.sent(), [])
                received = 0
                held = wire.unread.used
                while wire.over is None:
                    same(wire.reads(), False)
                    assert not isinstance(wire.protocol.receive(), Signal)
                    received += 1
                    held = max(held, wire.unread.used)
                same(wire.sent(), [(FIN | PONG, b"behind"), (FIN | CLOSE, b"\x03\xe8")])
                same(received + len(wire.received()), count)
                assert held <= read + beyond, held
                same(wire.unread.used, 0)


def test_a_large_frame_is_parsed_at_once_and_what_is_behind_it_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing comes of it before its end; what follows may be bombs."""
    large = random.Random(1).randbytes(30_000)
    bomb = frame(BINARY, deflated(bytes(1 << 20)), FIN | RSV1)
    wire = Wire(DEFLATE, window=len(large) + 2 * FRAGMENT)
    steps: list[int] = []
    receive = wire.protocol._frames.receive_data

    def counted(data: bytes) -> None:
        steps.append(len(data))
        receive(data)

    monkeypatch.setattr(wire.protocol._frames, "receive_data", counted)
    wire.send(frame(BINARY, deflated(large), FIN | RSV1) + bomb * 20)
    assert steps[0] == STEP_DEFLATED
    assert steps[1] > 28_000
    assert set(steps[2:]) == {STEP_DEFLATED}
    assert len(steps) == 4
    assert wire.received() == [large, *[bytes(1 << 20)] * 20]


def test_a_message_that_is_coming_counts_and_a_long_one_is_refused_at_the_bound() -> None:
    """In fragments, and in the part of a frame that has come; the bound is of all connections."""
    long = [frame(BINARY, bytes(3000), 0), frame(CONT, bytes(5000))[:2000]]
    short = frame(TEXT, b"a" * 500)
    wire = Wire(window=1024)
    wire.unread.bound = 10_000
    wire.send(*long)
    assert wire.unread.used == 3000 + FRAGMENT + 2000 - 8  # without the head of the frame
    wire.unread.add(10_000)
    wire.send(bytes(10))
    assert wire.code() == 1013
    assert wire.over == (1013, "the server holds as much as it may")
    assert wire.closed() == "linger"
    wire.protocol.connection_lost()
    assert wire.unread.used == 10_000
    wire = Wire(window=1024)
    wire.unread.bound = 10_000
    wire.unread.add(10_000)
    wire.send(short[:300], short[300:])
    assert wire.received() == ["a" * 500]
    for ends in (False, True):
        wire = Wire()
        wire.send(*long)
        if ends:
            wire.protocol.eof_received()
        wire.protocol.connection_lost()
        assert wire.unread.used == 0


BOMBS = 10


def bombed() -> Wire:
    """Make a WebSocket that was sent ten messages of a mebibyte and a close, by one read."""
    wire = Wire(DEFLATE, window=65536)
    data = frame(BINARY, deflated(bytes(1 << 20)), FIN | RSV1)
    wire.send(data * BOMBS + closing(4000))
    assert not wire.reads()
    return wire


def test_what_is_kept_is_not_inflated_once_it_is_over() -> None:
    """But the client's close among it is seen: the end is orderly; what waits is received."""
    ends: dict[str, tuple[Callable[[Wire], Any], int, int]] = {
        "the application closes": (lambda wire: wire.protocol.close(1000, ""), 1000, 0),
        "it returns": (lambda wire: wire.stream.leave(), 1000, 0),
        "it fails": (lambda wire: wire.stream.cut(), 1011, 0),
        "the server stops": (lambda wire: wire.protocol.drain(), 1012, 1),
    }
    with Failures() as failures:
        for name, (end, code, left) in ends.items():
            for order in ("at once", "after the loop's turn"):
                with failures.of(f"{name}, {order}"):
                    wire = bombed()
                    if order != "at once":
                        wire.owner.later = []
                    end(wire)
                    if wire.owner.later is not None:
                        same(wire.closed(), "")
                        wire.turn()
                    same(wire.code(), code)
                    same(wire.over and wire.over[0], code)
                    same(wire.closed(), "linger")
                    same(len(wire.received()), left)
                    same(wire.unread.used, 0)


def test_a_connection_that_ends_while_bytes_are_kept_is_told_behind_them() -> None:
    """As what was parsed before; in both orders with the loop's turn. A close among it counts."""
    with Failures() as failures:
        for order in ("nobody has received", "before the turn", "behind it"):
            with failures.of(order):
                wire = bombed()
                told: list[str] = []
                wire.protocol.told = lambda told=told: told.append("told")
                received: list[Any] = []
                wire.owner.later = []
                if order != "nobody has received":
                    received.append(wire.protocol.receive())
                if order == "behind it":
                    wire.turn()
                wire.protocol.connection_lost()
                if order != "behind it":
                    wire.turn()
                same(wire.over, None)
                same(told, ["told"])
                received += wire.received()
                same(len(received), BOMBS)
                same(told, ["told"])
                same(wire.over, (4000, ""))
                same(wire.unread.used, 0)
    wire = Wire(DEFLATE, window=1)
    wire.send(frame(BINARY, bytes(2 * STEP_DEFLATED)) + frame(TEXT, b"last") * 200)
    wire.protocol.connection_lost()
    assert len(wire.received()) == 201
    assert wire.over == (1006, "")


def test_who_sends_to_a_lost_client_is_told_before_what_is_kept() -> None:
    """It is over then, and no more is inflated."""
    wire = bombed()
    wire.protocol.connection_lost()
    wire.transport.gone = True
    with pytest.raises(WebSocketClosed, match="1006"):
        wire.protocol.send_message("a")
    assert len(wire.received()) == 1
    assert wire.unread.used == 0


def test_a_forked_child_asks_nobody_to_parse_what_is_kept() -> None:
    """The loop is the parent's."""
    wire = bombed()
    wire.owner.later = []
    wire.protocol.after_fork()
    assert wire.protocol.receive() == bytes(1 << 20)
    wire.protocol.close(1000, "")
    assert wire.owner.later == []


def test_pings_that_come_at_once_are_answered_at_once() -> None:
    """By one write for ten thousand of them."""
    wire = Wire()
    wire.send(frame(PING) * 10_000)
    assert len(wire.transport.writes) == 1
    assert wire.sent() == [(FIN | PONG, b"")] * 10_000


def test_a_client_that_pings_and_reads_nothing_is_read_no_further() -> None:
    """Else the answers would fill the memory."""
    wire = Wire()
    wire.transport.full = full = Signal()
    wire.send(frame(PING))
    assert not wire.reads()
    wire.transport.full = None
    full.fire()
    assert wire.reads()
    wire.transport.full = Signal()
    wire.send(frame(TEXT, b"a"))
    assert wire.reads()


# The end --------------------------------------------------------------------------------------


def test_the_code_that_the_application_is_told_is_that_of_the_first_end() -> None:
    """Whoever ends it; what comes behind that changes nothing."""
    ends: dict[str, Any] = {
        "the client": (lambda wire: wire.send(closing(4001, b"so")), (4001, "so"), 4001),
        "the client, without a code": (lambda wire: wire.send(frame(CLOSE)), (1005, ""), 0),
        "its mistake": (lambda wire: wire.send(frame(3)), (1002, "invalid opcode"), 1002),
        "the end of what it sends": (lambda wire: wire.protocol.eof_received(), (1006, ""), None),
        "its departure": (lambda wire: wire.protocol.connection_lost(), (1006, ""), None),
        "the application": (lambda wire: wire.protocol.close(3000, "so"), (3000, "so"), 3000),
        "its return": (lambda wire: wire.stream.leave(), (1000, ""), 1000),
        "its failure": (lambda wire: wire.stream.cut(), (1011, "the application failed"), 1011),
        "the server": (lambda wire: wire.protocol.drain(), (1012, "the server stops"), 1012),
    }
    with Failures() as failures:
        for first, (end, over, code) in ends.items():
            for second, (again, _, _) in ends.items():
                lost = first in ("the end of what it sends", "its departure")
                if {first, second} == {"its return", "its failure"} or second == "its mistake":
                    continue  # they exclude each other; or it would never be read
                if lost and second.startswith("the client"):
                    continue  # nothing more comes
                with failures.of(f"{first}, then {second}"):
                    wire = Wire()
                    signal = wire.protocol.receive()
                    assert isinstance(signal, NextMessage)
                    end(wire)
                    assert signal.fired
                    if first != second:
                        again(wire)
                    same(wire.over, over)
                    same(wire.code(), code)
                    with pytest.raises(WebSocketClosed) as raised:
                        wire.protocol.receive()
                    same((raised.value.code, raised.value.reason), over)
                    with pytest.raises(WebSocketClosed):
                        wire.protocol.send_message("x")
                    assert not wire.protocol.send_encoded(b"x")


def test_what_came_before_the_end_is_received_before_it_is_told() -> None:
    """Also where the connection broke."""
    wire = Wire()
    wire.send(frame(TEXT, b"a") + frame(TEXT, b"b"))
    wire.protocol.connection_lost()
    assert wire.received() == ["a", "b"]
    assert wire.over == (1006, "")


def test_a_close_that_nobody_answers_ends_after_some_seconds() -> None:
    """The client has those to send its own."""
    wire = Wire()
    wire.protocol.close(1000, "")
    wire.protocol.mind_time(4.9)
    assert wire.closed() == ""
    wire.send(frame(TEXT, b"dropped"))
    wire.protocol.mind_time(0.2)
    assert wire.closed() == "close"
    assert wire.received() == []


def test_a_client_is_pinged_and_one_that_says_nothing_is_ended() -> None:
    """Every 20 seconds; whatever it sends is an answer."""
    wire = Wire()
    wire.protocol.mind_time(19.9)
    assert wire.sent() == []
    wire.protocol.mind_time(0.2)
    assert wire.sent() == [(FIN | PING, b"")]
    wire.send(frame(PONG))
    wire.protocol.mind_time(20.0)
    assert wire.sent() == [(FIN | PING, b"")]
    wire.send(frame(TEXT, b"a"))
    wire.protocol.mind_time(20.0)
    assert wire.sent() == [(FIN | PING, b"")]
    wire.protocol.mind_time(19.9)
    assert wire.sent() == []
    wire.protocol.mind_time(0.2)
    assert wire.code() == 1011
    assert wire.over == (1011, "no answer to a ping")
    assert wire.closed() == "close"


def test_a_client_whose_answer_could_not_be_seen_is_not_ended() -> None:
    """It is not read; or the ping has not left."""
    for full in (False, True):
        wire = Wire(window=1024)
        wire.protocol.mind_time(20.0)
        if full:
            wire.transport.full = Signal()
        else:
            wire.send(frame(BINARY, bytes(2000)))
            wire.protocol._heard = False
        for _ in range(5):
            wire.protocol.mind_time(20.0)
        assert wire.over is None
        assert wire.sent() == [(FIN | PING, b"")]


def test_a_broadcast_closes_those_that_are_behind_and_waits_for_nobody() -> None:
    """Close code 1013: try again later."""
    wire = Wire()
    assert wire.protocol.send_encoded(b"\x81\x01a")
    assert wire.sent() == [(FIN | TEXT, b"a")]
    wire.transport.full = Signal()
    assert not wire.protocol.send_encoded(b"\x81\x01b")
    assert wire.code() == 1013
    assert wire.over == (1013, "too slow")


def test_a_forked_child_has_no_client_and_waits_for_no_lock() -> None:
    """A thread of the parent may have held it."""
    wire = Wire()
    lock = wire.transport.lock
    wire.protocol.after_fork()
    with pytest.raises(WebSocketClosed, match="1006"):
        wire.protocol.send_message("a")
    with pytest.raises(WebSocketClosed, match="1006"):
        wire.protocol.receive()
    wire.protocol.close(1000, "")
    assert wire.transport.sent == b""
    assert wire.protocol.lock is not lock
