"""One HTTP request of an ASGI application: its events, its response, and its client's departure."""

import asyncio
import contextvars
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import bide
from bide.asgi import http
from bide.exchange.stream import Stream
from tests.asgi.sites import Receive, Scope, Send, answer, body, read, routed, start
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import LONG, Log, happened, request, until

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's body."""
    await answer(send, await read(receive))


async def numbers(_: Scope, __: Receive, send: Send) -> None:
    """Answer in three parts."""
    await send(start(200, (b"Transfer-Encoding", b"chunked")))
    for number in range(3):
        await send(body(b"%d" % number, more=True))
    await send(body())


async def chosen(scope: Scope, _: Receive, send: Send) -> None:
    """Answer with the status that the path ends with, and some body."""
    await send(start(int(scope["path"][-3:])))
    await send(body(b"body", more=True))
    await send(body(b"more"))


def test_the_scope_tells_of_the_request(serve: Serve) -> None:
    """Names in lower case, the path decoded and as it was sent."""
    scopes: list[Any] = []

    async def look(scope: Scope, _: Receive, send: Send) -> None:
        scopes.append(scope)
        await answer(send, b"")

    served = serve(routed(look=look))
    served.get("/look/caf%C3%A9%2F//x?a=1%20b", headers=["X-Some: Value"])
    [scope] = scopes
    host, port = served.address.split(":")
    with Failures() as failures:
        for key, value in {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/look/café///x",
            "raw_path": b"/look/caf%C3%A9%2F//x",
            "query_string": b"a=1%20b",
            "root_path": "",
            "headers": [(b"host", b"test"), (b"x-some", b"Value")],
            "server": (host, int(port)),
            "state": {},
        }.items():
            with failures.of(key):
                same(scope[key], value)
    assert scope["client"][0] == host


def test_a_trusted_proxy_is_believed_what_it_tells(serve: Serve) -> None:
    """As for a WSGI application; what nobody trusted has sent is not there."""
    scopes: list[Any] = []

    async def look(scope: Scope, _: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        scopes.append(scope)
        await answer(send, b"")

    headers = [
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
        "X-Forwarded-Prefix: /front",
        "X_Forwarded-For: 192.0.2.66",
    ]
    mounts = {"/live": look}
    believing = serve(
        bide.mount(mounts),
        trust="127.0.0.1",
        trust_headers=(
            "x-forwarded-for, x-forwarded-proto",
            "x-forwarded-host, x-forwarded-prefix",
        ),
    )
    believing.get("/live/x", headers=headers)
    serve(bide.mount(mounts), root_path="/front").get("/live/x", headers=headers)
    one, other = scopes
    assert (one["client"], one["scheme"]) == (("192.0.2.1", 0), "https")
    assert dict(one["headers"])[b"host"] == b"shop.example"
    assert b"192.0.2.66" not in dict(one["headers"]).values()
    assert (other["client"][0], other["scheme"]) == ("127.0.0.1", "http")
    assert other["headers"] == [(b"host", b"test")]
    for each in scopes:
        assert (each["root_path"], each["path"]) == ("/front/live", "/front/live/x")


def test_a_unix_socket_is_the_servers_end(serve: Serve, tmp_path: Path) -> None:
    """Its path and no port; also where a proxy on it names its client."""
    scopes: list[Any] = []

    async def look(scope: Scope, _: Receive, send: Send) -> None:
        scopes.append(scope)
        await answer(send, b"")

    with Failures() as failures:
        for path in (str(tmp_path / "s"), f"@bide-{os.getpid()}"):
            with failures.of(path):
                served = serve(routed(look=look), bind=f"unix:{path}", trust="unix:")
                served.get("/look")
                served.get("/look", headers=["X-Forwarded-For: 192.0.2.1"])
                ends = [(each["server"], each["client"]) for each in scopes]
                same(ends, [((path, None), None), ((path, None), ("192.0.2.1", 0))])
                scopes.clear()
                served.stop()


def test_bodies_go_both_ways_on_one_connection(serve: Serve) -> None:
    """Small and large ones, with a length and in chunks; pipelined, too."""
    client = serve(routed(echo=echo, numbers=numbers)).connect()
    large = bytes(range(256)) * 2000
    client.send(request("/echo", method="POST", body=b"small"))
    assert client.response().text == "small"
    client.send(request("/echo", method="POST", body=large) + request("/numbers"))
    assert client.response().body == large
    assert client.response().chunks == [b"0", b"1", b"2"]
    chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert client.response().text == "abcde"
    client.send(request("/echo", method="POST", body=b"", headers=["Content-Length: 2", CONTINUE]))
    assert client.head().status == 100
    client.send(b"ok")
    assert client.response().text == "ok"


CONTINUE = "Expect: 100-continue"


def test_head_and_statuses_without_a_body_send_none(serve: Serve) -> None:
    """And the connection goes on."""
    client = serve(routed(chosen=chosen)).connect()
    with Failures() as failures:
        for method, status in [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 418)]:
            with failures.of((method, status)):
                client.send(request(f"/chosen/{status}", method=method))
                response = client.response(method)
                same(response.status, status)
                same(response.body, b"bodymore" if status == 418 else b"")
                assert response.complete
    client.send(request("/chosen/999"))
    assert client.response().reason == ""


def test_a_head_goes_out_with_the_first_message_of_the_body(serve: Serve) -> None:
    """Not before (ASGI, Response Start); an empty one sends it alone."""
    seen = threading.Event()

    async def stream(_: Scope, __: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"", more=True))
        await asyncio.to_thread(happened, seen)
        await send(body(b"event", more=True))
        await send(body(b""))

    served = serve(routed(stream=stream))
    client = served.request("/stream")
    assert client.head().status == 200
    seen.set()
    assert (client.chunk(), client.chunk()) == (b"event", b"")
    response = served.get("/stream", version="1.0")
    assert (response.body, response.complete) == (b"event", True)


def test_a_message_that_may_not_be_sent_raises(serve: Serve, log: Log) -> None:
    """And what is sent after that is as if it had not been tried."""
    raised: list[str] = []

    async def wrong(scope: Scope, _: Receive, send: Send) -> None:
        rows: list[list[dict[str, Any]]] = [
            [body(b"first")],
            [{"type": "http.response.push"}],
            [start("200 OK")],  # type: ignore[arg-type]
            [start(100)],
            [start(200, ("a", "b"))],  # type: ignore[arg-type]
            [start(200, (b"a", b"b\r\nc: d"))],
            [start(200, (b"content-length", b"x"))],
            [start(200, (b"content-length", b"2")), start()],
            [{"type": "http.response.body", "body": "text"}],
            [body(b"more")],
            [body(b"ok"), body(b"again")],
        ]
        for row in rows:
            try:
                for message in row:
                    await send(message)
            except Exception as error:
                raised.append(f"{type(error).__name__}: {error}")
            else:
                raised.append(f"nothing was raised for {row}")

    served = serve(routed(wrong=wrong))
    response = served.get("/wrong")
    assert (response.status, response.body) == (200, b"ok")
    served.until_idle()
    with Failures() as failures:
        for said, expected in zip(
            raised,
            [
                "http.response.start must be sent before the body",
                "an HTTP response has no message 'http.response.push'",
                "has the status '200 OK': it must be an int",
                "is not a status",
                "they must be pairs of bytes, [name, value]",
                "control character '\\r'",
                "Content-Length 'x' is not a number",
                "http.response.start was sent already",
                "has the body 'text': send bytes",
                "longer than its Content-Length of 2 bytes",
                "the response has ended",
            ],
            strict=True,
        ):
            with failures.of(expected):
                assert said.startswith("LocalProtocolError: ")
                assert expected in said


def test_a_response_that_is_missing_is_500_and_one_that_is_not_ended_is_cut(
    serve: Serve, log: Log
) -> None:
    """Whether the application returns or raises; each is in the log, once."""

    async def fails(scope: Scope, _: Receive, send: Send) -> None:
        _, _, sent, end = scope["path"].split("/")
        if sent != "nothing":
            await send(start())
        if sent == "some":
            await send(body(b"some", more=True))
        if sent == "all":
            await send(body(b"all"))
        if end == "raises":
            raise ValueError("wrong")
        if end == "exits":
            raise SystemExit(1)
        if end == "cancels":
            raise asyncio.CancelledError

    served = serve(routed(fails=fails))
    with Failures() as failures:
        for end in ("returns", "raises", "exits", "cancels"):
            for sent, status, complete, text in (
                ("nothing", 500, True, b"Internal Server Error\n"),
                ("start", 500, True, b"Internal Server Error\n"),
                ("some", 200, False, b"some"),
                ("all", 200, True, b"all"),
            ):
                with failures.of((sent, end)):
                    response = served.get(f"/fails/{sent}/{end}")
                    same((response.status, response.complete), (status, complete))
                    same(response.body, text)
                    if (sent, end) != ("all", "returns"):
                        record = log.take("the application failed: GET /fails")
                        assert bool(record.exc_info) == (end != "returns")


def test_what_follows_the_body_is_the_departure(serve: Serve) -> None:
    """Of a client that leaves, or at the response's end; for as many tasks as wait; it stays so."""
    found: list[tuple[str, list[str]]] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        async def types() -> list[str]:
            return [(await receive())["type"] for _ in range(2)]

        await read(receive)
        waiting = [asyncio.ensure_future(types()) for _ in range(2)]
        if scope["path"].endswith("ends"):
            await answer(send, b"")
        found.extend([(scope["path"], await each) for each in waiting])

    served = serve(routed(waits=waits), asgi_cancel=math.inf)
    client = served.request("/waits/leaves")
    served.until_waiting(1)
    client.close()
    served.get("/waits/ends")
    served.until_idle()
    twice = ["http.disconnect"] * 2
    assert sorted(found) == [("/waits/ends", twice)] * 2 + [("/waits/leaves", twice)] * 2


def test_a_departure_is_an_oserror_of_send(serve: Serve) -> None:
    """Also for a send that waits for the client, which holds no more than a limit and a message.

    An application that lets it pass has not failed, whatever it is wrapped in.
    """
    sent: list[int] = []
    raised: list[BaseException] = []
    read_on = threading.Event()

    async def endless(scope: Scope, _: Receive, send: Send) -> None:
        await send(start())
        count = 0
        try:
            while True:
                await send(body(b"x" * 65536, more=True))
                count += 1
                sent[:] = [count]
        except OSError as error:
            raised.append(error)
            if scope["path"].endswith("group"):
                raise ExceptionGroup("tasks", [error, ExceptionGroup("more", [error])]) from None
            if scope["path"].endswith("cause"):
                raise RuntimeError("no client") from error
            raise

    served = serve(routed(endless=endless), asgi_cancel=math.inf)
    for path in ("/endless", "/endless/group", "/endless/cause"):
        client = served.connect(window=4096)
        client.send(request(path))
        client.head()
        served.until_waiting(1)
        [call] = served.call(lambda: served.server.dispatcher.calls)
        assert call.stream.behind
        [status] = served.server.requests()
        assert status.state == "sending"
        [connection] = served.connections
        assert connection.held < served.server.settings.limit_unsent + 70_000  # and one message
        client.reset()
        served.until_idle()
    assert [type(each).__name__ for each in raised] == ["ClientGone"] * 3
    assert sent[0] < 1000
    read_on.set()


@pytest.mark.parametrize("parked", [True, False])
def test_a_task_that_listens_may_cancel_the_one_that_sends(serve: Serve, parked: bool) -> None:
    """Before that raises: while it waits for the client, or with its next message."""
    events: list[str] = []

    async def listens(_: Scope, receive: Receive, send: Send) -> None:
        async def sends() -> None:
            try:
                while True:
                    await send(body(b"x" * (65536 if parked else 1), more=True))
                    await asyncio.sleep(0)
            except BaseException as error:
                events.append(type(error).__name__)
                raise

        await read(receive)
        await send(start())
        sending = asyncio.ensure_future(sends())
        events.append((await receive())["type"])
        sending.cancel()
        await asyncio.wait((sending,))

    served = serve(routed(listens=listens), asgi_cancel=math.inf)
    client = served.connect(window=4096)
    client.send(request("/listens"))
    client.head()
    client.chunk()
    if parked:
        served.until_waiting(1)
    client.reset()
    served.until_idle()
    assert events == ["http.disconnect", "CancelledError"]


def test_a_task_that_sends_raises_though_another_one_listens(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end, if that does not cancel it."""
    monkeypatch.setattr(http, "YIELD", 0.01)
    events: list[str] = []

    async def listens(_: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            events.append((await receive())["type"])

        await read(receive)
        await send(start())
        listening = asyncio.ensure_future(listen())
        try:
            while True:
                await send(body(b"x", more=True))
                await asyncio.sleep(0)
        except OSError:
            events.append("OSError")
        await listening
        with pytest.raises(OSError, match="the client has left"):
            await send(body(b"x", more=True))

    served = serve(routed(listens=listens), asgi_cancel=math.inf)
    client = served.request("/listens")
    client.head()
    client.reset()
    served.until_idle()
    assert events == ["http.disconnect", "OSError"]


def test_a_call_is_cancelled_some_time_after_its_client_has_left(serve: Serve) -> None:
    """Not before; CancelledError passes through receive, and the application cleans up."""
    events: list[str] = []

    async def waits(_: Scope, receive: Receive, __: Send) -> None:
        try:
            while True:
                events.append((await receive())["type"])
                if events[-1] == "http.disconnect":
                    await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("cleaned up")

    served = serve(routed(waits=waits), asgi_cancel=0.01)
    client = served.request("/waits")
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert events == ["http.request", "http.disconnect", "cleaned up"]


def test_background_tasks_go_on_when_the_client_has_left(serve: Serve) -> None:
    """Once the response is complete nothing is cancelled for that."""
    go_on, done = threading.Event(), threading.Event()

    async def background(_: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"ok")
        assert (await receive())["type"] == "http.disconnect"
        await asyncio.to_thread(happened, go_on)
        done.set()

    served = serve(routed(background=background), asgi_cancel=0.0)
    client = served.request("/background")
    assert client.response().text == "ok"
    client.reset()
    until(lambda: not served.connections)
    assert served.status.waiting + served.status.running == 1
    go_on.set()
    happened(done)


def test_a_broken_body_is_answered_by_the_server(serve: Serve) -> None:
    """The application finds a departure."""
    found: list[str] = []

    async def reads(_: Scope, receive: Receive, __: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        found.append(message["type"])
        raise ConnectionError("as frameworks do")

    served = serve(routed(reads=reads))
    client = served.connect()
    client.send(b"POST /reads HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert client.response().status == 400
    assert found == ["http.disconnect"]


def test_a_request_that_takes_too_long_is_answered_504(serve: Serve, log: Log) -> None:
    """And the server, when it stops, ends what does not end by itself."""

    async def sleeps(_: Scope, __: Receive, ___: Send) -> None:
        await asyncio.Event().wait()

    served = serve(routed(sleeps=sleeps), request_timeout=LONG)
    client = served.request("/sleeps")
    served.until_waiting(1)
    served.advance(2 * LONG)
    assert client.response().status == 504
    log.take("GET /sleeps of tests.asgi.sites.routed.<locals>.application has taken")


def test_an_endless_response_awaits_the_end_of_the_server(serve: Serve) -> None:
    """It ends by itself, and its client sees a whole response; one that comes late sees it, too."""

    async def stream(scope: Scope, _: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"begun", more=True))
        await scope["extensions"]["bide.drain"]
        await scope["extensions"]["bide.drain"]
        await send(body(b"goodbye"))

    served = serve(routed(stream=stream))
    clients = [served.request("/stream") for _ in range(2)]
    served.until_waiting(2)
    served.begin_stop()
    for client in clients:
        response = client.response()
        assert (response.chunks, response.complete) == ([b"begun", b"goodbye"], True)
    served.join()


def test_a_file_is_sent_by_its_path(serve: Serve, log: Log, tmp_path: Path) -> None:
    """Whole, as far as the head says, or as its head alone; a client that leaves ends it."""
    content = bytes(range(256)) * 20_000
    path = tmp_path / "file"
    path.write_bytes(content)
    raised: list[str] = []

    async def file(scope: Scope, _: Receive, send: Send) -> None:
        length = scope["query_string"]
        await send(start(200, *([(b"content-length", length)] if length else [])))
        name = str(path) if "missing" not in scope["path"] else str(tmp_path)
        message = {"type": "http.response.pathsend", "path": name}
        try:
            await send(message)
            await send(message)
        except Exception as error:
            raised.append(type(error).__name__)
            if "missing" in scope["path"] or isinstance(error, OSError):
                raise

    served = serve(routed(file=file), asgi_cancel=math.inf)
    client = served.connect()
    with Failures() as failures:
        for method, query, expected in (
            ("GET", "", content),
            ("GET", "?1000", content[:1000]),
            ("HEAD", f"?{len(content)}", b""),
        ):
            with failures.of((method, query)):
                client.send(request(f"/file{query}", method=method))
                response = client.response(method)
                same(response.body, expected)
                same(response.header("Content-Length"), query[1:] or str(len(content)))
                assert response.complete
    assert served.get("/file/missing").status == 500
    log.failure()
    assert raised == ["LocalProtocolError"] * 4
    slow = served.connect(window=4096)
    slow.send(request("/file"))
    slow.head()
    served.until_waiting(1)
    slow.reset()
    served.until_idle()
    assert raised[4:] == ["ClientGone"]


def test_a_file_is_closed_when_no_thread_uses_it_any_more(
    serve: Serve, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its request has been cancelled meanwhile."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    reading, go_on = threading.Event(), threading.Event()
    events: list[str] = []
    send_file = Stream.send_file

    used: list[int] = []

    def slow(stream: Stream, *part: int) -> Any:
        used.append(part[0])
        reading.set()
        happened(go_on)
        events.append("sent")
        return send_file(stream, *part)

    close = os.close

    def closing(descriptor: int) -> None:
        if descriptor in used:
            events.append("closed")
        close(descriptor)

    monkeypatch.setattr(Stream, "send_file", slow)
    monkeypatch.setattr(os, "close", closing)

    async def file(_: Scope, __: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, reading.wait).add_done_callback(lambda _: cancel(task))
        await send(start(200, (b"content-length", b"1000")))
        await send({"type": "http.response.pathsend", "path": str(path)})

    def cancel(task: asyncio.Task[Any]) -> None:
        task.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)

    served = serve(routed(file=file))
    client = served.request("/file")
    log.failure()
    served.until_idle()
    assert events == ["sent", "closed"]
    client.close()


def test_a_server_that_stops_tells_the_application_then_cancels(serve: Serve, log: Log) -> None:
    """First ``http.disconnect``, then the cancellation; the client is answered 503."""
    events: list[str] = []

    async def stays(_: Scope, receive: Receive, __: Send) -> None:
        try:
            await read(receive)
            events.append((await receive())["type"])
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    served = serve(routed(stays=stays), graceful_timeout=0.1)
    client = served.request("/stays")
    served.until_waiting(1)
    served.begin_stop()
    assert client.response().status == 503
    served.join()
    assert events == ["http.disconnect", "cancelled"]
    log.take("1 requests have not ended in time")


def test_no_context_variable_reaches_another_request(serve: Serve) -> None:
    """Pipelined, and behind a body that was read in several parts."""
    found: list[str] = []

    async def sets(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(VARIABLE.get())
        VARIABLE.set(scope["path"])
        await read(receive)
        await answer(send, b"")

    client = serve(routed(sets=sets)).connect()
    large = request("/sets/1", method="POST", body=b"x" * 300_000)
    client.send(large + request("/sets/2") + large + request("/sets/3"))
    for _ in range(4):
        client.response()
    assert found == ["unset"] * 4


def test_a_request_has_its_id_and_its_line_in_the_status(serve: Serve) -> None:
    """As one of a WSGI application has."""
    asked: list[Any] = []
    scopes: list[Scope] = []

    async def asks(scope: Scope, _: Receive, send: Send) -> None:
        scopes.append(scope)
        await asyncio.sleep(0)
        asked.extend(bide.status().requests)
        await answer(send, bide.request_id().encode())

    served = serve(routed(asks=asks), request_id="X-Request-ID")
    forged = ["X-Request-ID: forged", "x_request_id: forged"]
    response = served.get("/asks", headers=forged)
    assert response.text not in ("", "forged")
    assert scopes[0]["headers"] == [(b"host", b"test"), (b"x-request-id", response.text.encode())]
    assert response.header("X-Request-ID") == response.text
    [status] = asked
    assert (status.state, status.thread) == ("running", "the event loop")
    assert status.application.endswith("application")


def test_a_coroutine_that_blocks_the_loop_is_named(serve: Serve, log: Log) -> None:
    """By the monitor, with the place in its code."""
    begun, go_on = threading.Event(), threading.Event()

    async def blocks(_: Scope, __: Receive, send: Send) -> None:
        begun.set()
        go_on.wait(20)
        await answer(send, b"")

    served = serve(routed(blocks=blocks), blocked_loop=LONG)
    client = served.request("/blocks")
    happened(begun)
    record = served.blocked_loop(log, LONG)
    go_on.set()
    assert client.response().status == 200
    assert "blocks" in record.getMessage()
    served.goes_on(log, "the event loop")
