"""WebSockets of ASGI applications over real sockets, with another's client and frames by hand."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

import bide
from bide.protocols.websocket.connection import WebSocketProtocol
from tests.asgi.sites import Receive, Scope, Send, accept, answer, echo_messages, opening, text
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.protocols.websocket.peers import ASKED, read_frame, upgraded
from tests.protocols.websocket.wires import BINARY, CLOSE, DEFLATE, FIN, PING, TEXT, closing, frame
from tests.served import DEADLINE, Client, Log, Served, answering, happened, request, until
from tests.websocket_clients import client_of, come_back, end_of

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def close_of(client: Client) -> tuple[int, bytes]:
    """Read the server's close frame: its code and its reason."""
    first, data = read_frame(client)
    assert first == FIN | CLOSE, data
    return int.from_bytes(data[:2]), data[2:]


def doing(served: Served) -> list[tuple[str, str]]:
    """Return what each request does, and what it waits for."""
    return [(each.state, each.waits_for) for each in served.server.requests()]


def test_messages_of_every_kind_and_size_come_back(serve: Serve) -> None:
    """Compressed and not; pings are answered; the status shows what is waited for."""
    served = serve(opening(echo_messages))
    each: list[dict[str, Any]] = [{}, {"compression": None}]
    for options in each:
        with client_of(served, **options) as client:
            come_back(client)
            assert client.ping().wait(DEADLINE)
            until(lambda: doing(served) == [("waiting", "NextMessage")])
    served.until_idle()


def test_the_scope_tells_of_the_request(serve: Serve) -> None:
    """Below its mount; beside it a WSGI application has WebSockets of its own."""
    scopes: list[Any] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await accept(receive, send, subprotocol="b", headers=[(b"x-more", b"yes")])

    def plain(environ: Any, _: Any) -> list[bytes]:
        bide.websocket(environ).send(environ["PATH_INFO"])
        return []

    served = serve(bide.mount({"/": plain, "/live": opening(look)}))
    client = served.connect()
    offered = "Sec-WebSocket-Protocol: a, b"
    client.send(request("/live/caf%C3%A9?a=1", headers=[*ASKED, offered]))
    head = client.head()
    assert head.status == 101
    assert head.header("Sec-WebSocket-Protocol") == "b"
    assert head.header("X-More") == "yes"
    assert close_of(client) == (1000, b"")
    with client_of(served, path="/other") as other:
        assert other.recv(timeout=DEADLINE) == "/other"
    [scope] = scopes
    host, port = served.address.split(":")
    with Failures() as failures:
        for key, value in {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/live/café",
            "raw_path": b"/live/caf%C3%A9",
            "query_string": b"a=1",
            "root_path": "/live",
            "server": (host, int(port)),
            "subprotocols": ["a", "b"],
            "state": {},
        }.items():
            with failures.of(key):
                same(scope[key], value)
    assert (b"sec-websocket-protocol", b"a, b") in scope["headers"]
    assert scope["client"][0] == host
    assert "method" not in scope
    assert set(scope["extensions"]) == {"websocket.http.response", "bide.drain"}


def test_what_is_known_of_clients_counts_for_sockets_too(serve: Serve) -> None:
    """What a trusted proxy tells, the request's id, and how much one client may have."""
    scopes: list[Any] = []

    async def keep(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await accept(receive, send)
        await receive()

    served = serve(
        opening(keep),
        trust="127.0.0.1",
        trust_headers=("x-forwarded-for, x-forwarded-proto",),
        request_id="X-Request-ID",
        client_requests=1,
    )
    client = served.connect()
    told = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Request-ID: one"]
    client.send(request(headers=[*ASKED, *told]))
    head = client.head()
    assert (head.status, head.header("X-Request-ID")) == (101, "one")
    assert served.get(headers=[*ASKED, *told]).status == 429
    client.send(closing(1000))
    assert close_of(client) == (1000, b"")
    served.until_idle()
    [scope] = scopes
    assert (scope["scheme"], scope["client"]) == ("wss", ("192.0.2.1", 0))


def test_one_that_is_not_accepted_is_answered(serve: Serve, log: Log) -> None:
    """By 403 where it is closed, else by what the application sends, in parts too.

    The connection goes on with HTTP. What the application receives then is the end.
    """
    told: list[Any] = []
    go_on = threading.Event()

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send, b"plain")
            return
        assert scope["type"] == "websocket"
        assert (await receive())["type"] == "websocket.connect"
        path = scope["path"]
        if path in ("/start", "/part", "/stream"):
            headers = [(b"x-why", b"because")]
            await send(
                {"type": f"{DENIAL}.start", "status": 401, "headers": headers, **NO_TRAILERS}
            )
        if path == "/close":
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            await send({"type": "websocket.close", "code": 4000, "reason": "no"})
            assert await waiting == await receive()
        elif path in ("/part", "/stream"):
            await send({"type": f"{DENIAL}.body", "body": b"some", "more_body": True})
            if path == "/stream":
                await asyncio.to_thread(happened, go_on)
                await send({"type": f"{DENIAL}.body", "body": b" more"})
        elif path == "/raises":
            raise ValueError("wrong")
        if path in ("/close", "/stream"):
            told.append(await receive())

    served = serve(refuse)
    stream = served.request("/stream", headers=[*ASKED, "TE: trailers"])
    assert (head := stream.head()).status == 401
    assert head.header("X-Why") == "because"
    assert stream.chunk() == b"some"
    go_on.set()
    assert (stream.chunk(), stream.chunk()) == (b" more", b"")
    stream.send(request())
    assert stream.response().text == "plain"
    with Failures() as failures:
        for path, status, complete, failed in (
            ("/close", 403, True, False),
            ("/stream", 401, True, False),
            ("/part", 401, False, True),
            ("/start", 500, True, True),
            ("/nothing", 500, True, True),
            ("/raises", 500, True, True),
        ):
            with failures.of(path):
                response = served.get(path, headers=ASKED)
                same((response.status, response.complete), (status, complete))
                if failed:
                    record = log.take("the application failed: GET /")
                    same(bool(record.exc_info), path == "/raises")
    with pytest.raises(InvalidStatus, match="403"), client_of(served, path="/close"):
        pass
    served.until_idle()
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}] * 4


DENIAL = "websocket.http.response"
NO_TRAILERS = {"trailers": True}
"""A denial has none, whatever its start says."""


def test_a_message_that_may_not_be_sent_raises(serve: Serve) -> None:
    """At its line; what is sent after that is as if it had not been tried."""
    raised: list[str] = []
    before: list[tuple[dict[str, Any], str]] = [
        ({"type": "websocket.send", "text": "a"}, "must be sent before websocket.send"),
        ({"type": f"{DENIAL}.body"}, "must be sent before the body"),
        ({"type": "http.response.start", "status": 200}, "no message 'http.response.start'"),
        ({"type": "websocket.accept", "subprotocol": "x"}, "does not offer the subprotocol 'x'"),
        ({"type": "websocket.accept", "headers": [("a", "b")]}, "they must be pairs of bytes"),
        (
            {"type": "websocket.accept", "headers": [(b"sec-websocket-protocol", b"x")]},
            "cannot be sent with a WebSocket's handshake",
        ),
        ({"type": "websocket.accept", "headers": [(b"a", b"b\nc: d")]}, "control character"),
    ]
    after: list[tuple[dict[str, Any], str]] = [
        ({"type": "websocket.accept"}, "accepted or refused already"),
        ({"type": f"{DENIAL}.start", "status": 200}, "the WebSocket was accepted"),
        ({"type": "websocket.send"}, "send one of them"),
        ({"type": "websocket.send", "text": "a", "bytes": b"b"}, "send one of them"),
        ({"type": "websocket.send", "text": b"a"}, "send one of them"),
        ({"type": "websocket.close", "code": 1005}, "close code 1005 cannot be sent"),
        ({"type": "websocket.close", "code": "1000"}, "close code '1000' cannot be sent"),
        ({"type": "websocket.close", "reason": "é" * 62}, "123 bytes"),
    ]
    closed: list[tuple[dict[str, Any], str]] = [
        ({"type": "websocket.close"}, "websocket.close was sent already"),
        ({"type": "websocket.send", "text": "a"}, "websocket.close was sent"),
        ({"type": "websocket.accept"}, "accepted or refused already"),
    ]

    async def wrong(_: Scope, receive: Receive, send: Send) -> None:
        async def attempt(rows: list[tuple[dict[str, Any], str]]) -> None:
            for message, _ in rows:
                try:
                    await send(message)
                except Exception as error:
                    raised.append(f"{type(error).__name__}: {error}")
                else:
                    raised.append(f"nothing was raised for {message}")

        await attempt(before)
        await accept(receive, send)
        await attempt(after)
        await send({"type": "websocket.send", "text": None, "bytes": b"still here"})
        await send({"type": "websocket.close", "code": None, "reason": None})
        await attempt(closed)

    served = serve(opening(wrong))
    client = upgraded(served)
    assert read_frame(client) == (FIN | BINARY, b"still here")
    assert close_of(client) == (1000, b"")
    client.send(closing(1000))
    assert client.rest() == b""
    served.until_idle()
    with Failures() as failures:
        for said, (_, expected) in zip(raised, [*before, *after, *closed], strict=True):
            with failures.of(expected):
                assert said.startswith("LocalProtocolError: ")
                assert expected in said


def test_how_it_ends_is_told_and_what_is_sent_then_raises_an_oserror(serve: Serve) -> None:
    """Behind the messages that came before; it stays so."""
    told: list[Any] = []
    ended = threading.Event()

    async def keep(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while (message := await receive())["type"] == "websocket.receive":
            told.append(message["text"])
        told.append((message["code"], message["reason"]))
        assert await receive() == message
        for late in ({"type": "websocket.send", "text": "late"}, {"type": "websocket.close"}):
            try:
                await send(late)
            except OSError as error:
                told.append(type(error).__name__)
        ended.set()

    served = serve(opening(keep), asgi_cancel=math.inf, websocket_max_size=100_000)
    cases: dict[str, tuple[Callable[[Client], object], list[object]]] = {
        "1000": (lambda each: each.send(frame(TEXT, b"a") + closing(1000)), ["a", (1000, "")]),
        "no code": (lambda each: each.send(frame(CLOSE)), [(1005, "")]),
        "4000": (lambda each: each.send(closing(4000, b"why")), [(4000, "why")]),
        "departure": (lambda each: each.close(), [(1006, "")]),
        "reset": (lambda each: each.reset(), [(1006, "")]),
        "half close": (lambda each: each.half_close(), [(1006, "")]),
        "its mistake": (lambda each: each.send(frame(3)), [(1002, "invalid opcode")]),
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
                same(told, [*expected, "ClientGone", "ClientGone"])
                told.clear()
    with client_of(served, max_size=None) as other:
        other.send("a" * 100_001)
        assert end_of(other)[0] == 1009
    happened(ended)
    assert told[0][0] == 1009


def test_whatever_an_application_does_in_the_end_its_socket_is_closed(
    serve: Serve, log: Log
) -> None:
    """1000 where it returns, 1011 where it fails, which is in the log; else as it has closed."""

    class WebSocketDisconnect(Exception):  # noqa: N818 - as it is called
        """As Starlette's and Litestar's."""

    async def ends(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        await accept(receive, send)
        if path == "/closes":
            await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
            assert await receive() == {
                "type": "websocket.disconnect",
                "code": 4001,
                "reason": "enough",
            }
        elif path == "/raises":
            raise ValueError("wrong")
        elif path == "/exits":
            raise SystemExit(1)
        elif path == "/disconnect":
            raise WebSocketDisconnect

    served = serve(opening(ends))
    with Failures() as failures:
        for path, code, reason in (
            ("/returns", 1000, b""),
            ("/closes", 4001, b"enough"),
            ("/raises", 1011, b"the application failed"),
            ("/exits", 1011, b"the application failed"),
            ("/disconnect", 1011, b"the application failed"),
        ):
            with failures.of(path):
                client = upgraded(served, path=path)
                same(close_of(client), (code, reason))
                client.send(closing(code))
                same(client.rest(), b"")
                if code == 1011:
                    assert log.failure().exc_info
    served.until_idle()

    async def leaves(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        assert (await receive())["type"] == "websocket.disconnect"
        raise ExceptionGroup("tasks", [WebSocketDisconnect()])

    served = serve(opening(leaves))
    upgraded(served).close()
    served.until_idle()
    assert log.find("the application failed") is None


def test_a_client_that_leaves_before_it_is_accepted_is_told_as_lost(serve: Serve) -> None:
    """And accepting it then raises an OSError, which is not logged."""
    told: list[object] = []

    async def slow(_: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        told.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except OSError as error:
            told.append(type(error).__name__)
            raise

    served = serve(opening(slow))
    client = served.request(headers=ASKED)
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert told == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}, "ClientGone"]


def test_a_client_that_reads_nothing_parks_who_sends(serve: Serve) -> None:
    """It holds no more than a limit and a message; its departure, or being given up, wakes."""
    sent: list[int] = []
    raised: list[str] = []

    async def flood(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        sent[:] = [0]
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
                sent[0] += 1
        except OSError as error:
            raised.append(type(error).__name__)
            raise

    served = serve(opening(flood), asgi_cancel=math.inf, idle_timeout=LIMIT)
    for _ in range(2):
        client = served.connect(window=4096)
        client.send(request(headers=ASKED))
        until(lambda: doing(served) == [("sending", "")])
        assert sent[0] < 1000
        assert served.server.unsent_total.used <= served.server.limits.unsent + 65600
        if not raised:
            client.reset()
        else:
            served.advance_until(lambda: len(raised) == 2, LIMIT)
            client.close()
        served.until_idle()
    assert raised == ["ClientGone"] * 2


LIMIT = 5.0


def test_an_application_that_does_not_receive_has_its_client_wait(serve: Serve) -> None:
    """No more is held than a limit and what is read at once; then all of it comes, in order."""
    limit, number = 65536, 3000
    go_on = threading.Event()
    received: list[int] = []

    async def late(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await asyncio.to_thread(happened, go_on)
        while (message := await receive())["type"] == "websocket.receive":
            received.append(int(message["text"][:10]))
        assert message["code"] == 1000

    served = serve(opening(late), limit_unread=limit)
    client = upgraded(served)
    unread = served.server.unread_total

    def send() -> None:
        for each in range(number):
            client.send(frame(TEXT, b"%10d" % each + b"x" * 990))
        client.send(closing(1000))

    sending = threading.Thread(target=send)
    sending.start()
    until(lambda: unread.used >= limit)
    assert unread.used < limit + 300_000
    assert not received
    go_on.set()
    sending.join(DEADLINE)
    served.until_idle()
    assert received == list(range(number))
    assert unread.used == 0


def test_two_tasks_may_receive_and_a_third_may_send(serve: Serve) -> None:
    """Each message goes to one of them, and the end to both; a cancelled one loses none.

    They may wait for that before it is accepted.
    """
    received: list[str] = []
    ends: list[int] = []

    async def several(_: Scope, receive: Receive, send: Send) -> None:
        async def take() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])
                await send(text(message["text"]))
            ends.append(message["code"])

        assert (await receive())["type"] == "websocket.connect"
        given_up = asyncio.ensure_future(receive())
        tasks = [asyncio.ensure_future(take()) for _ in range(2)]
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        given_up.cancel()
        await asyncio.wait([given_up])
        await send(text("ready"))
        await asyncio.gather(*tasks)

    served = serve(opening(several))
    with client_of(served) as client:
        assert client.recv(timeout=DEADLINE) == "ready"
        for each in range(50):
            client.send(str(each))
        answers = {client.recv(timeout=DEADLINE) for _ in range(50)}
    served.until_idle()
    assert answers == set(received) == {str(each) for each in range(50)}
    assert len(received) == 50
    assert ends == [1000, 1000]


def test_a_wait_for_a_message_that_is_given_up_leaves_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a time-out ends, again and again, while nothing comes."""
    signals: list[Any] = []
    left: list[int] = []
    take = WebSocketProtocol.receive

    def take_seen(self: WebSocketProtocol) -> Any:
        signals.append(take(self))
        return signals[-1]

    monkeypatch.setattr(WebSocketProtocol, "receive", take_seen)

    async def poll(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        for _ in range(100):
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
        left.extend(len(each._callbacks) for each in signals)
        await send(text("polled"))

    assert read_frame(upgraded(serve(opening(poll)))) == (FIN | TEXT, b"polled")
    assert left == [0] * 100


def test_a_call_is_cancelled_some_time_after_its_client_has_left(serve: Serve) -> None:
    """Though it does not receive, and what came before waits; not where it has closed before."""
    events: list[str] = []
    go_on = threading.Event()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        if scope["path"] == "/closes":
            await send({"type": "websocket.close"})
            await asyncio.to_thread(happened, go_on)
            events.append("went on")
            return
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("cleaned up")

    served = serve(opening(busy), asgi_cancel=0.0, limit_unread=1024)
    client = upgraded(served)
    served.until_waiting(1)
    client.close()
    served.until_idle()
    client = served.connect()
    # With compression bytes are parsed no further than messages may wait: some are kept.
    client.send(request(headers=[*ASKED, f"Sec-WebSocket-Extensions: {DEFLATE.decode()}"]))
    assert client.head().status == 101
    client.send(frame(TEXT, b"x" * 1000) * 60)
    until(lambda: served.server.unread_total.used >= 1024)
    client.reset()
    served.until_idle()
    client = upgraded(served)
    client.send(frame(TEXT, b"x" * 1000) * 60)
    until(lambda: served.server.unread_total.used >= 1024)
    client.send(frame(TEXT))  # which is not read
    client.half_close()
    served.until_idle()
    client = upgraded(served, path="/closes")
    assert close_of(client) == (1000, b"")
    client.reset()
    until(lambda: not served.connections)
    assert served.status.waiting == 1
    go_on.set()
    served.until_idle()
    assert events == ["cleaned up"] * 3 + ["went on"]


def test_a_client_that_left_before_the_loop_switched_is_noticed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application has accepted, and its connection ends before the protocol is the socket's."""
    events: list[str] = []
    switch = WebSocketProtocol._switch

    def switch_late(self: WebSocketProtocol) -> None:
        transport: Any = self._transport
        transport.end()
        switch(self)

    async def busy(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    monkeypatch.setattr(WebSocketProtocol, "_switch", switch_late)
    served = serve(opening(busy), asgi_cancel=0.0)
    client = served.request(headers=ASKED)
    until(lambda: events)
    client.close()


def test_time_outs_of_requests_do_not_end_a_socket(serve: Serve, log: Log) -> None:
    """They do until it is accepted; then a client that answers no ping is ended."""

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/never":
            await asyncio.Event().wait()
        await echo_messages(scope, receive, send)

    served = serve(opening(late), idle_timeout=LIMIT, request_timeout=LIMIT, response_timeout=LIMIT)
    never = served.request("/never", headers=ASKED)
    served.until_waiting(1)
    served.advance(10.0)
    assert never.response().status == 504
    log.take("has taken")
    client = upgraded(served)
    served.until_waiting(1)
    served.advance(10.0)
    served.advance(11.0)
    assert read_frame(client) == (FIN | PING, b"")
    served.advance(21.0)
    assert close_of(client)[0] == 1011
    served.until_idle()


def test_a_server_that_stops_closes_its_sockets_and_the_drain_is_told(
    serve: Serve, log: Log
) -> None:
    """Close code 1012. An application that goes on has the time of all requests, and no less.

    One that awaits the drain may say goodbye, and close by itself.
    """
    told: list[Any] = []

    async def stays(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        if scope["path"] == "/drain":
            await scope["extensions"]["bide.drain"]
            await send(text("goodbye"))
            return
        message = await receive()
        told.append((message["code"], message["reason"]))
        if scope["path"] == "/stays":
            try:
                await send(text("late"))
            except OSError as error:
                told.append(type(error).__name__)
            try:
                await asyncio.Event().wait()
            finally:
                told.append("cancelled")

    served = serve(opening(stays), asgi_cancel=0.0, graceful_timeout=0.3)
    draining, *others = [upgraded(served, path=path) for path in ("/drain", "/receives", "/stays")]
    served.until_waiting(3)
    served.begin_stop()
    assert read_frame(draining) == (FIN | TEXT, b"goodbye")
    assert close_of(draining) == (1000, b"")
    for client in others:
        assert close_of(client) == (1012, b"the server stops")
        client.send(closing(1012))
    served.join()
    log.take("1 requests have not ended in time")
    end = (1012, "the server stops")
    assert sorted(told, key=str) == sorted([end, end, "ClientGone", "cancelled"], key=str)


def test_each_socket_has_context_variables_of_its_own(serve: Serve) -> None:
    """What the lifespan has set is there; what one sets, no other finds, nor a request."""

    async def contexts(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            VARIABLE.set("the lifespan's")
            scope["state"]["made"] = "state"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        found = f"{VARIABLE.get()} {scope['state']['made']}"
        VARIABLE.set("leaked")
        scope["state"]["made"] = "leaked"
        if scope["type"] == "http":
            await answer(send, found.encode())
            return
        await accept(receive, send)
        await send(text(found))
        await receive()

    served = serve(contexts)
    client = served.connect()
    for _ in range(2):
        client.send(request())
        assert client.response().text == "the lifespan's state"
    for each in (client, served.connect()):
        each.send(request(headers=ASKED))
        assert each.head().status == 101
        assert read_frame(each) == (FIN | TEXT, b"the lifespan's state")
    assert served.get().text == "the lifespan's state"


def test_a_request_that_opens_none_as_it_must_is_answered_by_the_server(serve: Serve) -> None:
    """What may be an ordinary request is one."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"plain")

    served = serve(plain)
    version, key = ASKED[2:]
    cases: dict[str, tuple[dict[str, Any], int]] = {
        "no upgrade": ({}, 200),
        "another protocol": ({"headers": ["Upgrade: h2c", "Connection: Upgrade"]}, 200),
        "another method": ({"method": "POST", "headers": ASKED}, 200),
        "another version of HTTP": ({"version": "1.0", "headers": ASKED}, 200),
        "no token": ({"headers": ["Upgrade: websocket", version, key]}, 200),
        "another version": ({"headers": [*ASKED[:2], "Sec-WebSocket-Version: 8", key]}, 426),
        "no key": ({"headers": [*ASKED[:2], version]}, 400),
        "extensions": ({"headers": [*ASKED, "Sec-WebSocket-Extensions: a b"]}, 400),
    }
    with Failures() as failures:
        for name, (asked, status) in cases.items():
            with failures.of(name):
                response = served.get(**asked)
                same(response.status, status)
                same(response.header("Sec-WebSocket-Version"), "13" if status == 426 else None)
    served.until_idle()


def test_the_access_log_has_a_line_for_each(serve: Serve, log: Log) -> None:
    """101 for one that was accepted, written at its end; else what was answered."""

    async def one(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        kind = "accept" if scope["path"] == "/yes" else "close"
        await send({"type": f"websocket.{kind}"})

    served = serve(opening(one), access_format="{method} {path} {status}")
    upgraded(served, path="/yes").close()
    assert served.get("/no", headers=ASKED).status == 403
    log.take("GET /no 403")
    log.take("GET /yes 101")


def test_without_the_package_a_request_is_an_ordinary_one(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one line says what is missing."""
    from bide.serving import upgrades

    async def plain(scope: Scope, _: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"plain")

    monkeypatch.setattr(upgrades, "served", lambda: False)
    upgrades.say_missing.cache_clear()
    served = serve(bide.mount({"/": answering(lambda _: "wsgi"), "/live": plain}))
    assert served.get("/", headers=ASKED).text == "wsgi"
    for _ in range(2):
        assert served.get("/live", headers=ASKED).text == "plain"
    log.take("pip install 'bide[websocket]'")
    assert log.find("pip install") is None
