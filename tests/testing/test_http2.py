"""A test client that speaks HTTP/2, and a live server that does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

import bide
from bide.testing import Client, LiveServer, WebSocketRefused
from tests.asgi.sites import Receive, Scope, Send, body, routed, start
from tests.failures import Failures, same
from tests.served import DEADLINE, Environ, answering


def looked(environ: Environ) -> str:
    """Answer with what tells the protocol."""
    keys = ("SERVER_PROTOCOL", "REQUEST_METHOD", "HTTP_HOST", "HTTP_COOKIE", "HTTP_X_A")
    size = len(environ["wsgi.input"].read())
    return " ".join([*(str(environ.get(each, "-")) for each in keys), str(size)])


def test_an_application_sees_the_request_of_a_client_of_http_2() -> None:
    """With its body, whose length need not be said, and its cookies in one header."""
    with Client(answering(looked), http2=True, base_url="https://a.example") as client:
        cookies = [("Cookie", "a=1"), ("Cookie", "b=2"), ("X-A", "x")]
        same(client.get("/", headers=cookies).text, "HTTP/2 GET a.example a=1; b=2 x 0")
        pieces = iter([b"ab", b"c"])
        same(client.post("/", body=pieces).text, "HTTP/2 POST a.example - - 3")
        same(client.post("/", body=b"abcd").text, "HTTP/2 POST a.example - - 4")
    with Client(answering(looked)) as client:
        assert client.get("/").text.startswith("HTTP/1.1 ")


def test_what_http_2_does_not_allow_raises() -> None:
    """As Bide would refuse it."""
    with Client(answering(looked), http2=True) as client, Failures() as failures:
        for name, value, what in (
            ("Connection", "close", "HTTP/1 alone"),
            ("TE", "gzip", "trailers"),
            ("X A", "a", "token"),
        ):
            with failures.of(name), pytest.raises(ValueError, match=what):
                client.get("/", headers={name: value})


def test_trailers_are_there_for_who_asks_for_them() -> None:
    """In HTTP/2, and in HTTP/1."""

    async def trailed(scope: Scope, receive: Receive, send: Send) -> None:
        asked = "http.response.trailers" in scope["extensions"]
        await send({**start(), "trailers": asked})
        await send(body(scope["http_version"].encode()))
        if asked:
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    with Failures() as failures:
        for http2 in (True, False):
            with failures.of(http2), Client(routed(trailed=trailed), http2=http2) as client:
                response = client.get("/trailed", headers={"TE": "trailers"})
                same((response.text, response.trailers["X-Sum"]), ("2" if http2 else "1.1", "1"))
                same(len(client.get("/trailed").trailers), 0)


def test_a_websocket_is_one_of_http_2() -> None:
    """By CONNECT, which the application does not see, and without a key."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/no":
            start_response("403 Forbidden", [])
            return []
        socket = bide.websocket(environ)
        assert "HTTP_SEC_WEBSOCKET_KEY" not in environ
        assert environ["HTTP_UPGRADE"] == "websocket"
        for message in socket:
            socket.send(f"{environ['SERVER_PROTOCOL']} {environ['REQUEST_METHOD']} {message!s}")
        return []

    with Client(application, http2=True) as client:
        with client.websocket("/") as socket:
            socket.send("a")
            same(socket.receive(), "HTTP/2 GET a")
        with pytest.raises(WebSocketRefused):
            client.websocket("/no")


def test_a_live_server_speaks_it_and_its_streams_run_together() -> None:
    """Three requests of one connection, none of which is answered before all have come."""
    together = Barrier(3)

    def meet(environ: Environ) -> str:
        together.wait(DEADLINE)
        return f"{environ['SERVER_PROTOCOL']} {environ['REMOTE_PORT']}"

    with (
        LiveServer(answering(meet), threads=3) as server,
        httpx.Client(http1=False, http2=True, trust_env=False, timeout=DEADLINE) as client,
        ThreadPoolExecutor(3) as threads,
    ):
        found = set(threads.map(lambda _: client.get(server.url).text, range(3)))
    assert len(found) == 1
    assert found.pop().startswith("HTTP/2 ")
