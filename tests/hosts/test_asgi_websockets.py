"""A WebSocket of an ASGI server, for a view of a WSGI application.

Over a server of which the test takes every step; the real ones are in ``test_asgi_servers``.
"""

import asyncio
from functools import partial
from typing import Any

import bide
from bide import WebSocketClosed, wait
from bide.hosts.asgi import ASGI, Message, asgi
from tests.failures import Failures
from tests.hosts.asgi_server import Exchange, run, until
from tests.served import Environ, Gate, Log

CONNECT: Message = {"type": "websocket.connect"}
HANDSHAKE = [
    (b"host", b"test"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
]
DENIALS: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}
ACCEPT: Message = {"type": "websocket.accept", "subprotocol": None, "headers": []}


def received(message: str | bytes) -> Message:
    """Make a message of the client's, with both keys, as some servers send it."""
    text, data = (message, None) if isinstance(message, str) else (None, message)
    return {"type": "websocket.receive", "text": text, "bytes": data}


def sent(message: str | bytes) -> Message:
    """Make what is sent for a message of the view's."""
    kind = "text" if isinstance(message, str) else "bytes"
    return {"type": "websocket.send", kind: message}


def closed(code: int, reason: str = "") -> Message:
    """Make what is sent when the view, or Bide, closes."""
    return {"type": "websocket.close", "code": code, "reason": reason}


def left(code: int, reason: str = "") -> Message:
    """Make what is received when the client has closed, or has gone."""
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def opened(hosted: ASGI, *messages: Message, **more: Any) -> Exchange:
    """Have a client open a WebSocket, and send these messages."""
    scope = {"type": "websocket", "scheme": "ws", "headers": HANDSHAKE, **more}
    return Exchange(hosted, CONNECT, *messages, **scope)


def viewed(view: Any, **options: Any) -> ASGI:
    """Host an application whose one view has the WebSocket."""

    def application(environ: Environ, start_response: Any) -> Any:
        return view(bide.websocket(environ)) or []

    return asgi(application, **options)


def has_sent(socket: Exchange, number: int) -> bool:
    """Whether so many messages have reached the server."""
    return len(socket.sent) == number


def has_asked(socket: Exchange, number: int) -> bool:
    """Whether the server was asked so often for a message."""
    return socket.asked == number


def has_got(socket: Exchange, message: str | bytes) -> bool:
    """Whether a message of the view's is the last that has come."""
    return socket.sent[-1] == sent(message)


def is_waiting(hosted: ASGI) -> bool:
    """Whether one request waits."""
    return hosted.dispatchers().status().waiting == 1


def echo(socket: bide.WebSocket) -> None:
    """Send back what comes."""
    for message in socket:
        socket.send(message)


def test_a_view_receives_and_sends_text_and_bytes_until_the_client_closes(log: Log) -> None:
    """On threads and on the loop, and nothing is sent after the client's close."""

    async def steps() -> None:
        with Failures() as failures:
            for executor in ("threads", "loop"):
                with failures.of(executor):
                    socket = opened(
                        viewed(echo, executor=executor), received("höre"), received(b"\0\xff")
                    )
                    await until(partial(has_sent, socket, 3))
                    socket.give(left(1001))
                    await socket.task
                    assert socket.sent == [ACCEPT, sent("höre"), sent(b"\0\xff")]

    run(steps())


def test_sockets_that_wait_for_a_message_hold_no_thread(log: Log) -> None:
    """Fifty of them on one, and each gets its own message."""

    async def steps() -> None:
        hosted = viewed(echo, threads=1)
        sockets = [opened(hosted) for _ in range(50)]
        dispatcher = hosted.dispatchers()
        await until(lambda: dispatcher.status().waiting == 50)
        assert dispatcher.status().threads == 1
        await until(lambda: dispatcher.status().threads_busy == 0)
        for number, socket in enumerate(sockets):
            socket.give(received(str(number)))
        await until(lambda: all(len(socket.sent) == 2 for socket in sockets))
        for socket in sockets:
            socket.give(left(1000))
        await asyncio.gather(*(socket.task for socket in sockets))
        assert [socket.sent for socket in sockets] == [
            [ACCEPT, sent(str(number))] for number in range(50)
        ]
        await hosted.stop()

    run(steps())


def test_a_view_chooses_a_subprotocol_and_sends_headers(log: Log) -> None:
    """Names in lower case, as ASGI wants them; one that is not offered is an error at its line."""

    def view(socket: bide.WebSocket) -> None:
        assert socket.subprotocols == ("v2", "v1")
        assert socket.origin == "http://test"
        assert socket.same_origin
        try:
            socket.accept("v3")
        except bide.LocalProtocolError:
            socket.accept("v1", headers=[("Set-Cookie", "a=1")])

    async def steps() -> None:
        headers = [*HANDSHAKE, (b"origin", b"http://test")]
        socket = opened(viewed(view), subprotocols=["v2", "v1"], headers=headers)
        await socket.task
        assert socket.sent == [
            {
                "type": "websocket.accept",
                "subprotocol": "v1",
                "headers": [(b"set-cookie", b"a=1")],
            },
            closed(1000),
        ]

    run(steps())


def test_a_request_without_upgrade_looks_like_one_to_frameworks(log: Log) -> None:
    """As of HTTP/2: Werkzeug looks for the headers. The scheme is that of HTTP."""
    seen = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append([environ[key] for key in ("HTTP_UPGRADE", "HTTP_CONNECTION")])
        seen.append([environ["wsgi.url_scheme"], environ["REQUEST_METHOD"]])
        bide.websocket(environ).close()
        return []

    async def steps() -> None:
        hosted = asgi(application)
        socket = opened(hosted, headers=[(b"host", b"test")], scheme="wss", http_version="2")
        await socket.task
        assert socket.sent == [ACCEPT, closed(1000)]

    run(steps())
    assert seen == [["websocket", "Upgrade"], ["https", "GET"]]


def test_how_a_socket_ends_is_told_to_both_sides(log: Log) -> None:
    """The view's code to the client, and the client's to the view."""
    ends: list[tuple[int, str]] = []

    def closes(socket: bide.WebSocket) -> None:
        socket.receive()
        socket.close(4000, "enough")

    def listens(socket: bide.WebSocket) -> None:
        try:
            while True:
                socket.receive()
        except WebSocketClosed as end:
            ends.append((end.code, end.reason))

    def fails(socket: bide.WebSocket) -> None:
        socket.receive()
        raise LookupError("in a view")

    def refuses(socket: bide.WebSocket) -> None:
        socket.receive()
        raise bide.Overloaded("full")

    async def steps() -> None:
        cases: list[tuple[Any, Message | Exception, list[Message]]] = [
            (closes, received("x"), [closed(4000, "enough")]),
            (fails, received("x"), [closed(1011, "the application failed")]),
            (refuses, received("x"), [closed(1013, "too many wait")]),
            (listens, left(4001, "bye"), []),
            (listens, left(1005), []),
            (listens, {"type": "websocket.disconnect"}, []),
            (listens, OSError("the connection broke"), []),
        ]
        with Failures() as failures:
            for view, message, expected in cases:
                with failures.of(message):
                    socket = opened(viewed(view))
                    await until(partial(has_asked, socket, 2))
                    socket.give(message)
                    await socket.task
                    assert [each for each in socket.sent if each != ACCEPT] == expected

    run(steps())
    log.failure()
    assert ends == [(4001, "bye"), (1005, ""), (1005, ""), (1006, "")]


def test_a_view_that_does_not_accept_answers_as_usual(log: Log) -> None:
    """Where the server can pass it on; else it refuses in its own way, and the view runs on."""
    gone_on: list[str] = []

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("401 Unauthorized", [("Content-Type", "text/plain")])

        def blocks() -> Any:
            yield b"not "
            yield b"you"
            gone_on.append("to its end")

        return blocks()

    async def steps() -> None:
        socket = opened(asgi(application), **DENIALS)
        await socket.task
        kinds = [each["type"] for each in socket.sent]
        assert kinds[0] == "websocket.http.response.start"
        assert set(kinds[1:]) == {"websocket.http.response.body"}
        assert (socket.status, socket.body) == (401, b"not you")
        assert socket.complete
        other = opened(asgi(application))
        await other.task
        assert other.sent == [{"type": "websocket.close", "code": 1000}]

    run(steps())
    assert gone_on == ["to its end"] * 2


def test_a_view_that_fails_before_it_accepts_is_answered_500(log: Log) -> None:
    """As any request."""

    def view(socket: bide.WebSocket) -> None:
        raise LookupError("too early")

    async def steps() -> None:
        socket = opened(viewed(view), **DENIALS)
        await socket.task
        assert socket.status == 500

    run(steps())
    log.failure()


def test_a_client_that_leaves_before_it_is_accepted_ends_the_views_wait(log: Log) -> None:
    """And an accept that comes later is refused, whichever of the two is first."""
    gate, done = Gate(), []

    def waits(socket: bide.WebSocket) -> None:
        try:
            wait(Gate().promise())
        finally:
            done.append("waited")

    def accepts(socket: bide.WebSocket) -> None:
        try:
            wait(gate.promise())
        except bide.ClientDisconnected:
            try:
                socket.accept()
            except bide.ClientDisconnected:
                done.append("refused")
                raise

    async def steps() -> None:
        for view in (waits, accepts):
            hosted = viewed(view)
            socket = opened(hosted)
            await until(partial(is_waiting, hosted))
            socket.give(left(1006))
            await socket.task
            assert socket.sent == []

    run(steps())
    assert done == ["waited", "refused"]


def test_neither_side_gathers_what_the_other_does_not_take(log: Log) -> None:
    """The view is not asked for more while the client is behind, and the server not either."""
    large = "x" * 70_000
    made: list[int] = []
    gate = Gate()

    def floods(socket: bide.WebSocket) -> None:
        for number in range(20):
            socket.send(large)
            made.append(number)

    def ignores(socket: bide.WebSocket) -> None:
        socket.accept()
        wait(gate.promise())
        for _ in range(20):
            socket.receive()

    async def steps() -> None:
        hosted = viewed(floods)
        socket = opened(hosted)
        socket.taking.clear()
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        assert len(made) < 5
        socket.taking.set()
        await socket.task
        assert socket.sent == [ACCEPT, *[sent(large)] * 20, closed(1000)]
        other = opened(viewed(ignores), *[received(large)] * 20)
        await until(lambda: other.sent == [ACCEPT])
        asked = -1
        while asked != other.asked:  # it asks until it may not
            asked = other.asked
            await asyncio.sleep(0)
        assert asked < 5
        gate.open()
        await other.task
        assert other.sent == [ACCEPT, closed(1000)]

    run(steps())


def test_broadcast_reaches_hosted_sockets_and_drops_those_behind(log: Log) -> None:
    """Text and bytes of every length of a frame's head."""
    room: list[bide.WebSocket] = []
    messages: list[str | bytes] = ["", "é" * 100, "x" * 300, b"y" * 66_000]

    def joins(socket: bide.WebSocket) -> None:
        socket.accept()
        room.append(socket)
        for _ in socket:
            pass

    async def steps() -> None:
        hosted = viewed(joins)
        quick, slow = opened(hosted), opened(hosted)
        await until(lambda: len(room) == 2 and len(quick.sent) == len(slow.sent) == 1)
        slow.taking.clear()
        for message in messages:
            bide.broadcast(room, message)
            await until(partial(has_got, quick, message))
        assert quick.sent[1:] == [sent(message) for message in messages]
        assert bide.broadcast(room, "again") == 1  # to the quick one
        await until(lambda: quick.sent[-1] == sent("again"))
        slow.taking.set()
        await slow.task
        assert slow.sent[-1] == closed(1013, "too slow")
        quick.give(left(1000))
        await quick.task

    run(steps())


def test_sockets_are_closed_with_1012_when_the_host_is_stopped(log: Log) -> None:
    """A mount's, by ``stop``; the views' loops end in order."""
    ends: list[str] = []

    def view(socket: bide.WebSocket) -> None:
        for message in socket:
            socket.send(message)
        ends.append("of the loop")

    async def steps() -> None:
        hosted = viewed(view)
        socket = opened(hosted, received("x"))
        await until(lambda: len(socket.sent) == 2)
        await hosted.stop()
        await socket.task
        assert socket.sent == [ACCEPT, sent("x"), closed(1012, "the server stops")]

    run(steps())
    assert ends == ["of the loop"]
