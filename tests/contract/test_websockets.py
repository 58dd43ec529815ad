"""``bide.websocket(environ)`` over real sockets, with another's client and frames by hand."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask import request as flask_request
from websockets.exceptions import InvalidStatus

import bide
from bide import WebSocketClosed
from bide.exchange.stream import Stream
from bide.protocols.websocket import connection
from bide.protocols.websocket.connection import WebSocketProtocol
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.protocols.websocket.peers import ASKED, Peer, read_frame, upgraded
from tests.protocols.websocket.wires import BINARY, CLOSE, FIN, PING, TEXT, closing, frame
from tests.served import DEADLINE, Client, Environ, Gate, Log, happened, request, until
from tests.websocket_clients import client_of, come_back, end_of


def opening(function: Callable[[bide.WebSocket], object]) -> Any:
    """Make an application whose every request is a WebSocket that a function has."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        function(bide.websocket(environ))
        return []

    return application


def echo(socket: bide.WebSocket) -> None:
    """Send back what comes."""
    for message in socket:
        socket.send(message)


def test_messages_of_every_kind_and_size_come_back(serve: Serve) -> None:
    """Compressed and not; no thread is held between them."""
    served = serve(opening(echo))
    each: list[dict[str, Any]] = [{}, {"compression": None}]
    for options in each:
        with client_of(served, **options) as client:
            come_back(client)
            served.until_waiting(1)
            until(lambda: served.status.threads_busy == 0)
    served.until_idle()


def test_a_view_of_flasks_is_a_websocket(serve: Serve) -> None:
    """And what it returns then is ignored; a page of the same application is served beside it."""
    app = Flask("chat")

    @app.route("/", websocket=True)
    def chat() -> str:
        socket = bide.websocket(flask_request.environ)
        for message in socket:
            socket.send(f"{flask_request.path} {message!s}")
        return "ignored"

    @app.route("/page")
    def page() -> str:
        return "page"

    served = serve(app)
    with client_of(served) as client:
        client.send("a")
        assert client.recv(timeout=DEADLINE) == "/ a"
        assert served.get("/page").body == b"page"
    served.until_idle()


def test_a_view_that_does_not_accept_answers_as_usual(serve: Serve) -> None:
    """That is the denial; and the connection goes on with HTTP."""

    def deny(environ: Environ, start_response: Any) -> list[bytes]:
        assert ("bide.websocket" in environ) == ("HTTP_UPGRADE" in environ)
        start_response("403 Forbidden", [("Content-Length", "2")])
        return [b"no"]

    served = serve(deny)
    client = served.connect()
    client.send(request(headers=ASKED) + request())
    for _ in range(2):
        response = client.response()
        assert (response.status, response.body) == (403, b"no")
    with pytest.raises(InvalidStatus, match="403"), client_of(served):
        pass


def test_a_request_that_is_no_handshake_is_an_ordinary_one(serve: Serve) -> None:
    """An application that opens a WebSocket all the same has it answered by what is wrong."""
    served = serve(opening(echo))
    version = "Sec-WebSocket-Version: 13"
    key = ASKED[3]
    cases: dict[str, tuple[dict[str, Any], int]] = {
        "no upgrade": ({}, 426),
        "another protocol": ({"headers": ["Upgrade: h2c", "Connection: Upgrade"]}, 426),
        "another version": ({"headers": [*ASKED[:2], "Sec-WebSocket-Version: 8", key]}, 426),
        "no version": ({"headers": [*ASKED[:2], key]}, 426),
        "no key": ({"headers": [*ASKED[:2], version]}, 400),
        "a short key": ({"headers": [*ASKED[:3], "Sec-WebSocket-Key: dGhlIA=="]}, 400),
        "two keys": ({"headers": [*ASKED, key]}, 400),
        "a key with bits too many": (
            {"headers": [*ASKED[:3], "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="]},
            400,
        ),
        "no token": (
            {"headers": ["Upgrade: websocket", "Connection: keep-alive", *ASKED[2:]]},
            400,
        ),
        "a method": ({"method": "POST", "headers": ASKED}, 400),
        "extensions": ({"headers": [*ASKED, "Sec-WebSocket-Extensions: a b"]}, 400),
    }
    with Failures() as failures:
        for name, (asked, status) in cases.items():
            with failures.of(name):
                response = served.get(**asked)
                same(response.status, status)
                same(response.header("Sec-WebSocket-Version"), "13" if status == 426 else None)
                same(response.header("Upgrade"), "websocket" if status == 426 else None)


def test_bytes_that_come_with_the_head_are_the_first_message(serve: Serve) -> None:
    """And a part of one, whose rest comes later."""
    served = serve(opening(echo))
    client = upgraded(served, frame(TEXT, b"first") + frame(BINARY, b"second")[:5])
    assert read_frame(client) == (FIN | TEXT, b"first")
    client.send(frame(BINARY, b"second")[5:])
    assert read_frame(client) == (FIN | BINARY, b"second")


def test_frames_of_many_threads_are_never_interleaved(serve: Serve) -> None:
    """10,000 messages of eight threads, at once, to a client that deflates; each thread's in order.

    Every other one is broadcast, and so not compressed.
    """
    threads, each = 8, 1250

    def flood(socket: bide.WebSocket) -> None:
        socket.accept()
        together = threading.Barrier(threads)

        def send(thread: int) -> None:
            together.wait(DEADLINE)
            for number in range(each):
                message = f"{thread} {number} " + "x" * (number % 7 * 40)
                if number % 2:
                    assert bide.broadcast([socket], message) == 1
                else:
                    socket.send(message)

        senders = [threading.Thread(target=send, args=(thread,)) for thread in range(threads)]
        for sender in senders:
            sender.start()
        for sender in senders:
            bide.wait(bide.in_thread(sender.join, DEADLINE))
        socket.close()

    # So that the client is never behind, and a broadcast does not close it.
    served = serve(opening(flood), limit_unsent=100_000_000)
    seen: dict[str, int] = {}
    with client_of(served) as client:
        for message in client:
            thread, number, rest = str(message).split(" ", 2)
            assert int(number) == seen.get(thread, 0)
            assert rest == "x" * (int(number) % 7 * 40)
            seen[thread] = int(number) + 1
    assert seen == {str(thread): each for thread in range(threads)}


def test_many_sockets_that_are_silent_hold_no_thread(serve: Serve) -> None:
    """A message to one of them, or a page, is served at once."""
    served = serve(opening(echo))
    clients = [upgraded(served) for _ in range(300)]
    served.until_waiting(300)
    until(lambda: served.status.threads_busy == 0)
    clients[150].send(frame(TEXT, b"here"))
    assert read_frame(clients[150]) == (FIN | TEXT, b"here")
    for client in clients:
        client.send(closing(1000))
    served.until_idle()


def test_whatever_a_view_does_in_the_end_its_socket_is_closed(serve: Serve, log: Log) -> None:
    """1000 where it returns, however; 1011 where it raises, unless that is not a failure."""

    def generator(environ: Environ, start_response: Any) -> Iterator[bytes]:
        bide.websocket(environ).accept()
        yield b"ignored"

    def returns(value: Any) -> Any:
        def application(environ: Environ, start_response: Any) -> Any:
            bide.websocket(environ).accept()
            start_response("200 OK", [])
            return value

        return application

    def raises(error: BaseException) -> Any:
        def application(environ: Environ, start_response: Any) -> Any:
            bide.websocket(environ).accept()
            raise error

        return application

    closes: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("it is not iterated")

        def close(self) -> None:
            closes.append("closed")

    cases: dict[str, tuple[Any, int]] = {
        "nothing": (returns(None), 1000),
        "an empty list": (returns([]), 1000),
        "a response": (returns([b"ignored"]), 1000),
        "an iterable": (returns(Body()), 1000),
        "a generator": (generator, 1000),
        "StopIteration": (raises(StopIteration()), 1000),
        "WebSocketClosed": (raises(WebSocketClosed(1006)), 1000),
        "an error": (raises(ValueError("wrong")), 1011),
        "too many wait": (raises(bide.Overloaded("full")), 1013),
        "the end of the server": (raises(bide.ServerStopping("stops")), 1012),
        "its time": (raises(bide.RequestTimeout("late")), 1011),
    }
    with Failures() as failures:
        for name, (application, code) in cases.items():
            with failures.of(name):
                served = serve(application)
                client = upgraded(served)
                first, data = read_frame(client)
                same((first, int.from_bytes(data[:2])), (FIN | CLOSE, code))
                served.until_idle()
    assert closes == ["closed"]
    assert "wrong" in str(log.failure().exc_info)


def test_what_ends_a_socket_is_told_to_the_view_that_waits(serve: Serve) -> None:
    """As an ordinary exception, with its code; an orderly end ends the loop."""
    told: list[object] = []
    ended = threading.Event()

    def keep(socket: bide.WebSocket) -> None:
        try:
            told.append(list(socket))
        except WebSocketClosed as closed:
            told.append((closed.code, closed.reason))
        with pytest.raises(WebSocketClosed):
            socket.send("too late")
        ended.set()

    def leave(client: Client) -> None:
        client.close()

    served = serve(opening(keep))
    cases: dict[str, tuple[Callable[[Client], object], object]] = {
        "1000": (lambda client: client.send(frame(TEXT, b"a") + closing(1000)), ["a"]),
        "1001": (lambda client: client.send(closing(1001)), []),
        "no code": (lambda client: client.send(frame(CLOSE)), []),
        "4000": (lambda client: client.send(closing(4000, b"why")), (4000, "why")),
        "departure": (leave, (1006, "")),
        "reset": (lambda client: client.reset(), (1006, "")),
        "half close": (lambda client: client.half_close(), (1006, "")),
        "its mistake": (lambda client: client.send(frame(3)), (1002, "invalid opcode")),
    }
    with Failures() as failures:
        for name, (end, expected) in cases.items():
            with failures.of(name):
                client = upgraded(served)
                served.until_waiting(1)
                end(client)
                happened(ended)
                ended.clear()
                served.until_idle()
                same(told.pop(), expected)


def test_a_server_that_stops_closes_its_sockets_and_ends_their_loops(serve: Serve) -> None:
    """Close code 1012; a client that answers loses nothing, and one that does not is ended."""
    served = serve(opening(echo))
    silent = upgraded(served)
    with client_of(served) as client:
        client.send("a")
        assert client.recv(timeout=DEADLINE) == "a"
        served.until_waiting(2)
        served.begin_stop()
        assert end_of(client)[0] == 1012
    assert read_frame(silent)[1][:2] == (1012).to_bytes(2)
    served.join()


def test_a_bomb_ends_its_socket_alone(serve: Serve) -> None:
    """A megabyte that inflates to a gigabyte is inflated no further than the bound."""
    served = serve(opening(echo), websocket_max_size=100_000)
    with client_of(served) as good:
        with client_of(served, max_size=None) as client:
            client.send(bytes(20_000_000))
            assert end_of(client)[0] == 1009
        good.send("still here")
        assert good.recv(timeout=DEADLINE) == "still here"


def test_messages_that_inflate_to_much_all_come_to_a_view_that_is_slow(serve: Serve) -> None:
    """One read has many: what waits is bounded, nothing is lost, the end comes behind them."""
    gates: list[Gate] = []
    told: list[object] = []

    def view(socket: bide.WebSocket) -> None:
        socket.accept()
        bide.wait(gates[-1].promise())
        try:
            while True:
                told.append(len(socket.receive()))
        except WebSocketClosed as closed:
            told.append(closed.code)

    served = serve(opening(view), limit_unread=1024)
    expected = [100_000 + number for number in range(100)]
    ends: dict[str, tuple[Callable[[Peer], object], int]] = {
        "a close": (lambda peer: peer.client.send(closing(4000)), 4000),
        "the client's end": (lambda peer: peer.client.half_close(), 1006),
    }
    with Failures() as failures:
        for name, (end, code) in ends.items():
            with failures.of(name):
                gates.append(Gate())
                told.clear()
                peer = Peer(served, "permessage-deflate; client_max_window_bits")
                for size in expected:
                    peer.send(bytes(size))
                end(peer)
                until(lambda: served.server.unread_total.used)
                served.call(lambda: None)
                assert served.server.unread_total.used < 2_000_000
                gates[-1].open()
                until(lambda: len(told) > len(expected))
                same(told, [*expected, code])
                served.until_idle()
                same(served.server.unread_total.used, 0)


def test_compression_can_be_switched_off(serve: Serve) -> None:
    """The client's offer is not answered."""
    with client_of(serve(opening(echo), websocket_deflate="off")) as client:
        assert client.protocol.extensions == []
        client.send("a" * 100)
        assert client.recv(timeout=DEADLINE) == "a" * 100


def test_time_outs_of_requests_do_not_end_a_socket(serve: Serve) -> None:
    """Of requests, responses and idle connections; a client that answers no ping is ended."""
    served = serve(opening(echo), idle_timeout=LIMIT, request_timeout=LIMIT, response_timeout=LIMIT)
    client = upgraded(served)
    served.until_waiting(1)
    served.advance(10.0)
    served.advance(11.0)
    assert read_frame(client) == (FIN | PING, b"")
    assert served.status.waiting == 1
    served.advance(21.0)
    first, data = read_frame(client)
    assert (first, int.from_bytes(data[:2])) == (FIN | CLOSE, 1011)
    served.until_idle()


LIMIT = 5.0


def test_a_client_that_takes_nothing_is_given_up(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``min_rate`` holds for what a socket sends: the view goes on with WebSocketClosed.

    Without pings: while the system still takes what is sent, the time that is moved on here would
    be enough for one, and for its answer.
    """
    monkeypatch.setattr(connection, "PING", math.inf)
    ended: list[int] = []

    def flood(socket: bide.WebSocket) -> None:
        try:
            while True:
                socket.send(bytes(100_000))
        except WebSocketClosed as closed:
            ended.append(closed.code)

    served = serve(opening(flood), idle_timeout=LIMIT)
    client = served.connect(window=4096)
    client.send(request(headers=ASKED))
    served.until_waiting(1)
    served.advance_until(lambda: ended, LIMIT)
    assert ended == [1006]
    log.take("a client that reads too slowly is disconnected")
    client.close()


def test_a_wait_for_a_message_may_be_limited_and_another_request_may_send(serve: Serve) -> None:
    """A time-out loses no message; a broadcast reaches all that are open, and says how many."""
    room: list[bide.WebSocket] = []
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/say":
            sent = bide.broadcast(room, "to all")
            room[0].send("to one")
            start_response("200 OK", [])
            return [str(sent).encode()]
        socket = bide.websocket(environ)
        with pytest.raises(TimeoutError):
            socket.receive(timeout=0)
        room.append(socket)
        bide.wait(gate.promise())
        socket.send(socket.receive(timeout=DEADLINE))
        return []

    served = serve(application)
    clients = [upgraded(served) for _ in range(3)]
    until(lambda: len(room) == 3)
    assert served.get("/say").body == b"3"
    for client in clients:
        assert read_frame(client) == (FIN | TEXT, b"to all")
    for client in clients:
        client.send(frame(TEXT, b"mine"))
    gate.open()
    ones = 0
    for client in clients:
        got = read_frame(client)
        if got == (FIN | TEXT, b"to one"):
            ones += 1
            got = read_frame(client)
        assert got == (FIN | TEXT, b"mine")
    assert ones == 1
    served.until_idle()


def test_what_cannot_be_sent_raises_at_its_line_and_the_socket_goes_on(serve: Serve) -> None:
    """Close codes that are never sent, reasons that are too long, messages that are neither."""

    def wrong(socket: bide.WebSocket) -> None:
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            with pytest.raises(ValueError, match=str(code)):
                socket.close(code)
        with pytest.raises(ValueError, match="123 bytes"):
            socket.close(1000, "é" * 62)
        for message in (None, 1, ["a"]):
            with pytest.raises(TypeError):
                socket.send(message)  # type: ignore[arg-type]
        with pytest.raises(UnicodeEncodeError):
            socket.send("\ud800")
        socket.send("still here")
        socket.close(1000, "é" * 61)

    served = serve(opening(wrong))
    client = upgraded(served)
    assert read_frame(client) == (FIN | TEXT, b"still here")
    assert read_frame(client)[1] == b"\x03\xe8" + ("é" * 61).encode()
    client.send(closing(1000))
    assert client.rest() == b""


def test_a_page_of_another_host_is_told_from_ones_own(serve: Serve) -> None:
    """Browsers let it open the socket; the application decides."""

    def guarded(environ: Environ, start_response: Any) -> list[bytes]:
        socket = bide.websocket(environ)
        start_response("200 OK", [])
        return [f"{socket.origin} {socket.same_origin}".encode()]

    served = serve(guarded)
    with Failures() as failures:
        for origin, same_origin in (
            (None, True),
            ("http://test", True),
            ("https://TEST", True),
            ("http://b.example", False),
            ("http://test:8000", False),
            ("null", False),
            ("http://[", False),
        ):
            with failures.of(origin):
                headers = list(ASKED)
                headers += [] if origin is None else [f"Origin: {origin}"]
                response = served.get(headers=headers)
                same(response.body.decode(), f"{origin} {same_origin}")


def test_a_client_that_left_before_the_loop_switched_is_told_as_lost(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application has accepted, and its connection ends before the protocol is the socket's."""
    told: list[int] = []
    switch = WebSocketProtocol._switch

    def keep(socket: bide.WebSocket) -> None:
        try:
            socket.receive()
        except WebSocketClosed as closed:
            told.append(closed.code)

    def switch_late(self: WebSocketProtocol) -> None:
        transport: Any = self._transport
        transport.end()
        switch(self)

    monkeypatch.setattr(WebSocketProtocol, "_switch", switch_late)
    served = serve(opening(keep))
    client = served.request(headers=ASKED)
    until(lambda: told)
    assert told == [1006]
    client.close()


@pytest.mark.parametrize("first", ["the view ends", "the loop switches"])
def test_a_view_that_ends_at_once_closes_whether_the_loop_has_switched_or_not(
    serve: Serve, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came with the head is read, and dropped, and the client's close is awaited."""
    ended, switched = threading.Event(), threading.Event()

    class Late(WebSocketProtocol):
        def _switch(self) -> None:
            if first == "the view ends":
                happened(ended)
            super()._switch()
            switched.set()

        def ended(self, stream: Stream) -> None:
            if first == "the loop switches":
                happened(switched)
            super().ended(stream)
            ended.set()

    # A subclass: what compiled code calls on the class itself cannot be replaced.
    monkeypatch.setattr(connection, "WebSocketProtocol", Late)
    served = serve(opening(lambda socket: socket.accept()), executor="threads")
    client = upgraded(served, frame(TEXT, b"dropped"))
    assert read_frame(client) == (FIN | CLOSE, (1000).to_bytes(2))
    client.send(closing(1000))
    assert client.rest() == b""
    served.until_idle()
    assert served.server.unread_total.used == 0
