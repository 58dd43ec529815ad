"""Published attacks that are more than bytes: orders of events, responses, departures.

``published.json`` lists them all.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any
from urllib.parse import quote, unquote

import pytest

from bide import wait
from bide.transports.poller import READ
from bide.transports.streaming import READ_SIZE
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import Client, Environ, Gate, Log, Served, answering, happened, request, until

SPLITS = [
    "x\r\nSet-Cookie: a=b",
    "x\nSet-Cookie: a=b",
    "x\rSet-Cookie: a=b",
    "x\r\n\r\n<script>",
    "x\0",
    "x\x1b[31m",
    "x\x7f",
    "\x0b",
]


def test_a_response_is_not_split_by_what_an_application_echoes(serve: Serve, log: Log) -> None:
    """A 500 that is logged, on a connection that goes on; none of it is passed on.

    CVE-2018-1000164, CVE-2020-7695, CVE-2025-67724, CVE-2026-34520, CVE-2026-42545.
    """

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        where, echoed = environ["PATH_INFO"], unquote(environ["QUERY_STRING"], "latin-1")
        status = f"200 {echoed}" if where == "/reason" else "200 OK"
        name = f"X-{echoed}" if where == "/name" else "X-Echo"
        start_response(status, [(name, echoed if where == "/value" else "y")])
        return [b"echoed"]

    server = serve(application)
    with Failures() as failures:
        for where in ("/value", "/name", "/reason"):
            for text in SPLITS:
                with failures.of(f"{text!r} in the {where}"):
                    client = server.request(f"{where}?{quote(text, encoding='latin-1')}")
                    response = client.response()
                    same((response.status, response.reason), (500, "Internal Server Error"))
                    same(response.body, b"Internal Server Error\n")
                    names = {name for name, _ in response.headers}
                    same(names, {"Content-Type", "Date", "Server", "Content-Length"})
                    log.failure()
                    client.send(request(f"{where}?fine"))
                    same(client.response().status, 200)


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    """The first may take as long as it likes (CVE-2023-46137)."""
    gate = Gate()

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/slow":
            wait(gate.promise())
        return str(environ["PATH_INFO"])

    served = serve(answering(answer))
    client = served.connect()
    client.send(request("/slow") + request("/quick") + request("/quicker"))
    served.until_waiting(1)
    assert client.is_silent()
    gate.open()
    assert [client.response().text for _ in range(3)] == ["/slow", "/quick", "/quicker"]


def test_requests_behind_an_empty_chunked_body_keep_their_order(serve: Serve) -> None:
    """Two that are pipelined, and one that comes when they are answered (CVE-2024-41671)."""
    client = serve(
        answering(lambda environ: f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
    ).connect()
    client.send(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    )
    first = client.response().text
    client.send(request("/3"))
    assert [first, client.response().text, client.response().text] == [
        "POST /1",
        "POST /2",
        "GET /3",
    ]
    client.half_close()
    assert client.rest() == b""


@pytest.mark.parametrize("later", [False, True])
def test_no_request_behind_a_bad_one_is_served(serve: Serve, later: bool) -> None:
    """Though both wait for one that is in progress, and come in reads of their own.

    CVE-2024-49768: the bad one was answered, and what had been read behind it served.
    """
    gate = Gate()
    paths: list[str] = []

    def answer(environ: Environ) -> str:
        paths.append(environ["PATH_INFO"])
        wait(gate.promise())
        return "served"

    served = serve(answering(answer))
    client = served.connect()
    bad = b"GET /bad HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"
    client.send(request("/slow"))
    served.until_waiting(1)
    if later:
        client.send(bad)
        client.send(request("/hidden"))
    else:
        client.send(bad + request("/hidden"))
    assert client.is_silent()
    gate.open()
    assert client.response().status == 200
    assert client.response().status == 431
    assert client.rest() == b""
    served.until_idle()
    assert paths == ["/slow"]


def test_a_client_is_read_no_further_when_many_of_its_requests_wait(serve: Serve) -> None:
    """No more of them are queued than one read brings (CVE-2026-54273)."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise())))
    client = served.request()
    served.until_waiting(1)
    shortest = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"
    (connection,) = served.connections
    client.sock.setblocking(False)

    def paused() -> bool:
        with contextlib.suppress(BlockingIOError):
            client.sock.send(shortest * 1000)
        return not connection._transport.watched & READ

    until(paused, "it is read on and on")
    assert served.pipelined <= READ_SIZE // len(shortest) + 16
    client.reset()
    served.until_idle()


def leave(client: Client, how: str) -> None:
    """End a client's side, if the server has not ended the connection already."""
    if how == "reset":
        client.reset()
    elif how == "close":
        client.close()
    else:
        with contextlib.suppress(OSError):
            client.half_close()


def test_a_client_that_leaves_before_it_is_accepted_does_no_harm(serve: Serve) -> None:
    """Its connection is gone, and the loop sleeps (CVE-2024-49769: it was tried for ever)."""
    served = serve(answering(lambda environ: b"fine"))
    with Failures() as failures:
        for sent in (b"", b"GET / HT", request(), b"\x01"):
            for how in ("reset", "close", "half-close"):
                with failures.of(f"{sent!r}, {how}"):
                    leave_early(served, sent, how)
    assert turns_of(served) < 100


def leave_early(served: Served, sent: bytes, how: str) -> None:
    """Connect, send and leave while the loop is held, twenty times; the server is as before."""
    free, blocked = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        happened(free)

    served.loop.call_soon_threadsafe(block)
    happened(blocked)
    for _ in range(20):
        client = served.connect()
        client.send(sent)
        leave(client, how)
    free.set()
    until(lambda: not served.status.connections, "a connection is left")
    same(served.get().status, 200)
    until(lambda: not served.status.connections, "a connection is left")


def turns_of(served: Served) -> int:
    """Count the turns that an idle server's loop takes within a tenth of a second."""
    turns = 0
    over = threading.Event()
    selector: Any = served.loop._selector  # type: ignore[attr-defined]
    select = selector.select

    def counted(timeout: float | None = None) -> Any:
        nonlocal turns
        turns += 1
        return select(timeout)

    def stop() -> None:
        selector.select = select
        over.set()

    selector.select = counted
    served.loop.call_soon_threadsafe(served.loop.call_later, 0.1, stop)
    happened(over)
    return turns


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
def test_a_connection_that_a_lane_closes_while_its_client_sends_does_no_harm(
    serve: Serve, how: str
) -> None:
    """The loop watches it meanwhile (CVE-2022-31015: it ended with the whole process)."""
    served = serve(answering(lambda environ: b"fine"))
    for _ in range(100):
        client = served.connect()
        client.send(request(headers=["Connection: close"]))
        with contextlib.suppress(ConnectionError):
            client.send(request("/hidden"))
        leave(client, how)
    until(lambda: not served.status.connections, "a connection is left")
    served.until_idle()
    assert served.get().status == 200
    until(lambda: not served.status.connections, "a connection is left")
    assert turns_of(served) < 100


def test_a_body_of_very_many_chunks_is_refused(serve: Serve) -> None:
    """However small they are; as many as anybody needs are taken.

    CVE-2025-69229, CVE-2026-115927.
    """

    def answer(environ: Environ) -> str:
        return str(len(environ["wsgi.input"].read()))

    served = serve(answering(answer), limit_chunks=1000)
    for count, status in ((1000, 200), (5000, 400)):
        client = served.connect()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\na\r\n" * count
            + b"0\r\n\r\n"
        )
        response = client.response()
        assert response.status == status
        assert response.text == str(count) or status == 400
        client.close()
