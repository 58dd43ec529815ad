"""WebSockets on streams of HTTP/2 in memory (RFC 8441): the handshake, messages, and every end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from bide.errors import ClientDisconnected, RemoteProtocolError, WebSocketClosed
from bide.exchange.limits import Limits
from bide.exchange.messaging import Message
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http2 import receiving, setup
from bide.protocols.http2.setup import WINDOW
from bide.protocols.http2.tunnel import LINGER
from bide.protocols.websocket.connection import CLOSING, PING, WebSocketProtocol
from bide.serving.upgrades import offer
from bide.waiting.outcome import Signal
from tests.failures import Failures, same
from tests.protocols.http2.clients import Client, Fields
from tests.protocols.websocket import wires
from tests.protocols.websocket.wires import BINARY, CLOSE, FIN, TEXT, closing, frame, frames_of
from tests.served import Log


def asking(*more: tuple[bytes, bytes], path: bytes = b"/chat") -> Fields:
    """Return the fields of a request that opens a WebSocket."""
    return [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", path),
        (b":authority", b"a.example"),
        (b"sec-websocket-version", b"13"),
        *more,
    ]


class Socket:
    """Both ends of one WebSocket on a connection; the application's side is ``socket``.

    Args:
        client: the connection's.
        more: more fields of the request.
        accept: whether it is accepted at once.
    """

    def __init__(self, client: Client, *more: tuple[bytes, bytes], accept: bool = True) -> None:
        self.client = client
        self.number = client.begin(asking(*more), False)
        client.flush()
        self.stream = client.owner.begun[-1]
        self.unread = Total(0)
        way = client.owner.ways[self.stream]
        socket = offer(self.stream, way, client.protocol.limits, self.unread)
        assert isinstance(socket, WebSocketProtocol)
        self.socket = socket
        if accept:
            self.socket.accept(None, [])
            client.run_soon()

    @property
    def response(self) -> Any:
        """What came on the stream."""
        return self.client.responses[self.number]

    def send(self, data: bytes, ended: bool = False) -> None:
        """Send bytes of the client's."""
        self.client.h2.send_data(self.number, data, ended)
        self.client.flush()
        self.client.run_soon()

    def sent(self) -> list[tuple[int, bytes]]:
        """Take what the client has got: the first byte of each frame, and its data."""
        self.client.flush()
        data, self.response.body = self.response.body, b""
        return list(frames_of(data))

    def received(self) -> list[Message]:
        """Take the messages that have come."""
        return wires.messages_of(self.socket)

    @property
    def forgotten(self) -> bool:
        """Whether nothing is left of it."""
        self.client.run_soon()
        protocol = self.client.protocol
        gone = self.stream not in protocol.exchanges and self.number not in protocol.numbers
        return gone and self.stream in self.client.owner.answered


def test_a_socket_opens_on_a_stream_and_messages_go_both_ways() -> None:
    """By 200, with what was agreed, and no header of HTTP/1's handshake."""
    client = Client()
    same(client.h2.remote_settings.enable_connect_protocol, 1)
    offered = (
        (b"sec-websocket-protocol", b"a, b"),
        (b"sec-websocket-extensions", wires.DEFLATE),
        (b"origin", b"https://a.example"),
    )
    it = Socket(client, *offered, accept=False)
    same(it.socket.subprotocols, ("a", "b"))
    it.socket.accept("b", [("X-More", "yes")])
    client.run_soon()
    fields = dict(it.response.fields)
    same((fields[b":status"], fields[b"sec-websocket-protocol"]), (b"200", b"b"))
    assert fields[b"sec-websocket-extensions"].startswith(b"permessage-deflate")
    same((fields[b"x-more"], fields[b"server"]), (b"yes", b"bide"))
    for name in (b"upgrade", b"connection", b"sec-websocket-accept", b"content-length"):
        assert name not in fields
    assert not it.response.ended
    it.send(frame(TEXT, b"hello"))
    it.send(frame(BINARY, b"one") + frame(BINARY, b"two"))
    same(it.received(), ["hello", b"one", b"two"])
    left = client.h2.local_flow_control_window(it.number)
    assert WINDOW // 2 < left < WINDOW  # it is credited by halves
    it.socket.send_message("back")
    it.socket.send_message(b"x" * 70_000)
    first, second = it.sent()
    same(first, (FIN | TEXT, b"back"))
    same(second[0] & FIN, FIN)


def test_the_request_is_what_it_is_over_http_1() -> None:
    """Its method is GET, and it has the headers that frameworks look for."""
    it = Socket(Client(), (b"content-length", b"0"), (b"expect", b"100-continue"), accept=False)
    request = it.stream.request
    same((request.method, request.version, request.path), ("GET", "2", b"/chat"))
    assert not request.has_body
    same(it.stream.receive(), b"")
    headers = dict(request.headers)
    same((headers[b"upgrade"], headers[b"connection"]), (b"websocket", b"Upgrade"))
    same(headers[b"host"], b"a.example")
    same(it.response.informational, [])


def test_what_is_wrong_with_a_request_is_told() -> None:
    """400, with the version that is spoken here; 501 for another protocol."""
    with Failures() as failures:
        for name, fields, text in (
            ("no version", asking()[:-1], "version"),
            ("version", [*asking()[:-1], (b"sec-websocket-version", b"8")], "version"),
            ("extensions", asking((b"sec-websocket-extensions", b"a b")), "malformed"),
            ("body", asking((b"content-length", b"5")), "no body"),
        ):
            with failures.of(name):
                client = Client()
                client.begin(fields, False)
                client.flush()
                (stream,) = client.owner.begun
                offered = offer(stream, client.owner.ways[stream], Limits(), Total(0))
                assert isinstance(offered, RemoteProtocolError)
                same(offered.status, 400)
                assert text in str(offered)
                if text == "version":
                    same(offered.headers, (("Sec-WebSocket-Version", "13"),))
    client = Client()
    other = [*asking()[:1], (b":protocol", b"webtransport"), *asking()[2:]]
    number = client.begin(other, False)
    client.flush()
    same(client.responses[number].status, b"501")
    same(client.owner.begun, [])


def test_without_the_package_nothing_of_it_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it served to a client that asks all the same."""
    monkeypatch.setattr(setup, "served", lambda: False)
    monkeypatch.setattr(receiving, "served", lambda: False)
    client = Client()
    same(client.h2.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL), 0)
    number = client.begin(asking(), False)
    client.flush()
    same(client.responses[number].status, b"501")


def test_one_that_is_not_accepted_is_answered_as_usual() -> None:
    """And its stream is reset without an error, for the client has not ended it."""
    client = Client()
    it = Socket(client, accept=False)
    it.send(frame(TEXT, b"too early"))
    it.stream.start("403 Forbidden", [])
    it.stream.end(b"no")
    client.flush()
    same((it.response.status, it.response.body, it.response.ended), (b"403", b"no", True))
    same(it.response.reset, int(ErrorCodes.NO_ERROR))
    assert it.forgotten
    same(client.protocol._unread.used, 0)
    same(client.ask().reset, None)  # the connection goes on


def test_what_comes_before_it_is_accepted_waits_for_it() -> None:
    """Also the client's end."""
    client = Client()
    it = Socket(client, accept=False)
    it.send(frame(TEXT, b"first") + frame(TEXT, b"second")[:4])
    it.send(frame(TEXT, b"second")[4:] + closing(4000), ended=True)
    it.socket.accept(None, [])
    client.run_soon()
    same(it.received(), ["first", "second"])
    same(it.socket.over, (4000, ""))
    same([first for first, _ in it.sent()], [FIN | CLOSE])
    assert it.response.ended
    assert it.forgotten


def test_a_request_that_ends_its_stream_opens_one_that_has_ended() -> None:
    """Nothing can come on it."""
    client = Client()
    number = client.begin(asking(), True)
    client.flush()
    (stream,) = client.owner.begun
    socket = offer(stream, client.owner.ways[stream], Limits(), Total(0))
    assert isinstance(socket, WebSocketProtocol)
    socket.accept(None, [])
    client.run_soon()
    same(socket.over, (1006, ""))
    same((client.responses[number].status, client.responses[number].ended), (b"200", True))
    assert stream not in client.protocol.exchanges


def test_how_it_ends_is_told_to_the_application() -> None:
    """By a close, the end of the stream, a reset, or the end of the connection."""

    def lose(it: Socket) -> None:
        it.client.protocol.connection_lost()

    def half(it: Socket) -> None:
        it.client.protocol.eof_received()

    def reset(it: Socket) -> None:
        it.client.h2.reset_stream(it.number, ErrorCodes.CANCEL)
        it.client.flush()

    def abuse(it: Socket) -> None:
        it.client.send(b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x")  # on stream 0

    cases: dict[str, tuple[Callable[[Socket], object], tuple[int, str], bool]] = {
        "close": (lambda it: it.send(closing(1000)), (1000, ""), True),
        "no code": (lambda it: it.send(frame(CLOSE)), (1005, ""), True),
        "mistake": (lambda it: it.send(frame(3)), (1002, "invalid opcode"), True),
        "end of the stream": (lambda it: it.send(b"", ended=True), (1006, ""), True),
        "reset": (reset, (1006, ""), False),
        "end of the connection": (lose, (1006, ""), False),
        "its half": (half, (1006, ""), False),
        "abuse": (abuse, (1006, ""), False),
    }
    with Failures() as failures:
        for name, (end, expected, ended) in cases.items():
            with failures.of(name):
                client = Client()
                it = Socket(client)
                waiting = it.socket.receive()
                assert isinstance(waiting, Signal)
                told: list[object] = []
                it.socket.told = lambda told=told: told.append(1)
                end(it)
                for _ in range(len(client.owner.soon)):
                    client.owner.soon.pop(0)()
                assert waiting.fired
                same((it.socket.over, told), (expected, [1]))
                with pytest.raises(WebSocketClosed):
                    it.socket.send_message("late")
                if ended:
                    client.flush()
                    assert it.response.ended
                    if not client.h2.streams[it.number].closed:
                        it.send(b"", ended=True)
                assert it.stream in client.owner.answered
                same(client.owner.left_streams, [])
                if name != "end of the connection":
                    it.stream.leave()
                assert it.forgotten


def test_a_client_that_has_left_before_is_told_at_the_accept() -> None:
    """And nothing is left of its stream."""

    def reset(it: Socket) -> None:
        it.client.h2.reset_stream(it.number, ErrorCodes.CANCEL)
        it.client.flush()

    def lose(it: Socket) -> None:
        it.client.protocol.connection_lost()

    with Failures() as failures:
        for end in (reset, lose):
            with failures.of(end):
                it = Socket(Client(), accept=False)
                it.send(frame(TEXT, b"dropped"))
                end(it)
                with pytest.raises(ClientDisconnected):
                    it.socket.accept(None, [])
                it.client.run_soon()
                assert it.stream not in it.client.protocol.exchanges
                same(it.client.protocol._unread.used, 0)


def test_a_reset_and_an_accept_at_the_same_time_leave_nothing() -> None:
    """The view accepts when the loop has noted the reset, and has not told of it yet."""
    client = Client()
    it = Socket(client, accept=False)
    raised: list[BaseException] = []

    def accept() -> None:
        try:
            it.socket.accept(None, [])
        except ClientDisconnected as gone:
            raised.append(gone)

    client.h2.reset_stream(it.number, ErrorCodes.CANCEL)
    client.transport.lock.once_released = accept
    client.flush()
    client.run_soon()
    same((len(raised), it.socket.over), (1, (1006, "")))
    assert it.stream not in client.protocol.exchanges
    same(client.responses[it.number].status, b"")


def test_a_client_that_leaves_between_the_accept_and_the_switch_is_told_as_lost() -> None:
    """Whichever the loop does first: to switch, or to tell of the end."""
    with Failures() as failures:
        for turned in (False, True):
            with failures.of(turned):
                client = Client()
                it = Socket(client, accept=False)
                it.socket.accept(None, [])
                client.flush()
                client.h2.reset_stream(it.number, ErrorCodes.CANCEL)
                client.flush()
                if turned:
                    client.owner.soon.reverse()
                client.run_soon()
                same(it.socket.over, (1006, ""))
                assert it.forgotten


def test_an_end_of_the_server_waits_for_the_clients_end() -> None:
    """It closes, the client answers, and each side ends the stream; who does not is reset."""
    client = Client()
    it = Socket(client)
    it.socket.close(1001, "bye")
    same(it.sent(), [(FIN | CLOSE, b"\x03\xe9bye")])
    assert not it.response.ended
    it.send(closing(1001))
    assert it.response.ended
    it.send(frame(TEXT, b"dropped"), ended=True)
    assert it.forgotten
    same(it.response.reset, None)
    silent = Socket(client)
    silent.socket.close(1000, "")
    for _ in range(2):
        client.protocol.mind_time(CLOSING)
        client.flush()
    assert silent.response.ended
    client.protocol.mind_time(LINGER)
    client.flush()
    same(silent.response.reset, int(ErrorCodes.NO_ERROR))
    assert silent.forgotten
    same(client.gone, [])


def test_pings_find_out_whether_the_client_is_there() -> None:
    """One that is not answered ends its stream, and not the connection."""
    client = Client()
    it, other = Socket(client), Socket(client)
    client.protocol.mind_time(PING)
    same([first & 15 for first, _ in it.sent()], [wires.PING])
    same([first & 15 for first, _ in other.sent()], [wires.PING])
    other.send(frame(wires.PONG))
    client.protocol.mind_time(PING)
    same(it.socket.over, (1011, "no answer to a ping"))
    same(other.socket.over, None)
    same(client.transport.closed, "")


def test_a_server_that_stops_closes_each_and_then_the_connection() -> None:
    """1012; a socket that is accepted meanwhile is closed at once."""
    client = Client()
    it, late = Socket(client), Socket(client, accept=False)
    client.protocol.drain()
    same([data[:2] for _, data in it.sent()], [(1012).to_bytes(2)])
    client.h2.state_machine.state = ConnectionState.CLIENT_OPEN  # h2 takes nothing more otherwise
    late.socket.accept(None, [])
    client.run_soon()
    same([data[:2] for _, data in late.sent()], [(1012).to_bytes(2)])
    for each in (it, late):
        each.send(closing(1012), ended=True)
        assert each.forgotten
    client.now += 1.0
    client.protocol.drain()
    same(client.transport.closed, "linger")


def test_what_the_application_does_not_take_is_not_credited() -> None:
    """A stream whose messages wait is bounded, and stops no other; all of them come in the end."""
    client = Client(limits=Limits(window=WINDOW))
    it, other = Socket(client), Socket(client)
    message = frame(BINARY, bytes(1000))
    pieces, sent = message * 300, 0
    while True:
        size = min(client.h2.local_flow_control_window(it.number), 16_384, len(pieces) - sent)
        if not size:
            break
        it.send(pieces[sent : sent + size])
        sent += size
    assert WINDOW < sent < 2 * WINDOW, sent
    assert 0 < client.protocol._unread.used <= WINDOW
    other.send(frame(TEXT, b"here"))
    same(other.received(), ["here"])
    count = 0
    while sent < len(pieces) or count < 300:
        count += len(it.received())
        client.run_soon()
        size = min(client.h2.local_flow_control_window(it.number), 16_384, len(pieces) - sent)
        if size:
            it.send(pieces[sent : sent + size])
            sent += size
    same(count, 300)
    same((client.protocol._unread.used, it.unread.used), (0, 0))
    same(client.h2.local_flow_control_window(it.number) > WINDOW // 2, True)


def test_the_end_comes_behind_messages_that_wait() -> None:
    """Whether the client ends the stream, or resets it; none that came is lost."""
    with Failures() as failures:
        for ends in (True, False):
            with failures.of(ends):
                client = Client(limits=Limits(window=1))
                it = Socket(client)
                told: list[object] = []
                it.socket.told = lambda told=told: told.append(1)
                for _ in range(20):
                    it.send(frame(BINARY, bytes(1000)))
                same(told, [])
                if ends:
                    it.send(b"", ended=True)
                else:
                    client.h2.reset_stream(it.number, ErrorCodes.CANCEL)
                    client.flush()
                client.run_soon()
                same(told, [1])
                count = 0
                while it.socket.over is None or it.socket._inbox.messages:
                    count += len(it.received())
                    client.run_soon()
                same((count, it.socket.over), (20, (1006, "")))
                same(client.protocol._unread.used, 0)


def test_a_client_that_takes_nothing_stops_its_own_stream_alone() -> None:
    """What waits for its window is bounded by the application's waiting."""
    client = Client(window=1000, limits=Limits(unsent=10_000))
    client.credits = False
    it, other = Socket(client), Socket(client)
    room = it.socket.send_message(bytes(20_000))
    assert isinstance(room, Signal)
    assert not it.socket.send_encoded(wires.frame(TEXT, b"x", mask=b""))  # it is closed by 1013
    same(it.socket.over, (1013, "too slow"))
    same(other.socket.send_message("here"), None)
    same(other.sent(), [(FIN | TEXT, b"here")])
    assert (client.protocol.unsent(it.stream) or 0) > 10_000
    assert client.protocol.endless(it.stream)
    client.protocol.timed_out("response", it.stream)
    assert room.fired
    client.flush()
    same(it.response.reset, int(ErrorCodes.CANCEL))
    assert it.forgotten
    same(client.transport.closed, "")
    client.h2.increment_flow_control_window(1000, other.number)
    client.flush()
    same(other.socket.send_message("again"), None)
    same(other.sent(), [(FIN | TEXT, b"again")])


def test_one_that_the_application_leaves_is_closed_by_what_it_was() -> None:
    """1000 where it returns, 1011 where it fails."""
    with Failures() as failures:
        for how, code in ((Stream.leave, 1000), (Stream.cut, 1011)):
            with failures.of(code):
                it = Socket(Client())
                how(it.stream)
                same([data[:2] for _, data in it.sent()], [code.to_bytes(2)])
                it.send(closing(code), ended=True)
                assert it.response.ended
                assert it.forgotten


def test_a_socket_whose_end_fails_does_not_keep_the_others(
    log: Log, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ends them: the client, the connection, the server, a fork."""
    ways: dict[str, Callable[[Client], object]] = {
        "eof_received": lambda client: client.protocol.eof_received(),
        "connection_lost": lambda client: client.protocol.connection_lost(),
        "drain": lambda client: client.protocol.drain(),
        "after_fork": lambda client: client.protocol.after_fork(),
        "connection_lost ": lambda client: client.protocol.end_all(ClientDisconnected("why")),
    }
    with Failures() as failures:
        for how, end in ways.items():
            with failures.of(how), monkeypatch.context() as patched:
                client = Client()
                sockets = [Socket(client) for _ in range(3)]
                told: list[object] = []

                def fail(socket: object, told: list[object] = told) -> None:
                    told.append(socket)
                    if len(told) < 3:
                        raise ZeroDivisionError

                patched.setattr(WebSocketProtocol, how.strip(), fail)
                end(client)
                same(told, [each.socket for each in sockets])
                if how == "after_fork":
                    same(capsys.readouterr().err.count("\nZeroDivisionError"), 2)
                else:
                    for _ in range(2):
                        assert log.take("could not be told of its end").exc_info is not None
                same(log.records, [])
