"""How large what a client sends, and what waits for it, may be; each setting, a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import Environ, answering, happened, request, until

LINE = "GET /{} HTTP/1.1"
FRAMED = request(method="POST", headers=["Transfer-Encoding: chunked"])

BOUNDS: list[tuple[dict[str, Any], bytes, bytes, int]] = [
    (
        {"limit_request_line": 64},
        request("/" + "x" * (64 - len(LINE.format("")))),
        request("/" + "x" * (65 - len(LINE.format("")))),
        414,
    ),
    (
        {"limit_head": 200},
        request(headers=["X: " + "x" * 100]),
        request(headers=["X: " + "x" * 200]),
        431,
    ),
    (
        {"limit_fields": 4},
        request(headers=["A: 1", "B: 2", "C: 3"]),
        request(headers=["A: 1", "B: 2", "C: 3", "D: 4"]),
        431,
    ),
]
"""Settings, a request within them, one that is not, and what that is answered."""
OF_CHUNKS: list[tuple[dict[str, Any], bytes, bytes, int]] = [
    (
        {"limit_framing": 64},
        FRAMED + b"1;" + b"x" * 30 + b"\r\nx\r\n0\r\n\r\n",
        FRAMED + b"1;" + b"x" * 90 + b"\r\nx\r\n0\r\n\r\n",
        400,
    ),
]
"""The same of a chunked body."""


def test_a_request_within_a_bound_is_answered_and_one_beyond_it_is_refused(serve: Serve) -> None:
    """By default both are answered."""
    keeps(serve, BOUNDS)


def test_what_frames_a_body_within_a_bound_is_taken_and_more_is_refused(serve: Serve) -> None:
    """By default both are answered."""
    keeps(serve, OF_CHUNKS)


def keeps(serve: Serve, bounds: list[tuple[dict[str, Any], bytes, bytes, int]]) -> None:
    """Check that servers keep to their bounds, and the usual one answers all."""

    def read(environ: Environ) -> bytes:
        return b"%d" % len(environ["wsgi.input"].read())

    usual = serve(answering(read))
    with Failures() as failures:
        for settings, within, beyond, status in bounds:
            served = serve(answering(read), **settings)
            for server, data, expected in [
                (served, within, 200),
                (served, beyond, status),
                (usual, beyond, 200),
            ]:
                with failures.of(f"{settings}: {expected}"):
                    client = server.connect()
                    client.send(data)
                    same(client.response().status, expected)


def test_a_request_begins_when_so_much_of_its_body_is_there(serve: Serve) -> None:
    """The rest of it may be a long time coming."""
    begun = threading.Event()

    def read(environ: Environ) -> bytes:
        begun.set()
        return b"%d" % len(environ["wsgi.input"].read())

    served = serve(answering(read), limit_unread=2048)
    client = served.connect()
    client.send(request(method="POST", headers=["Content-Length: 4000"]) + b"x" * 2047)
    until(lambda: served.receiving == 1)
    assert not begun.is_set()
    client.send(b"x")
    happened(begun)
    client.send(b"x" * (4000 - 2048))
    assert client.response().text == "4000"


def test_a_body_that_was_left_unread_is_taken_up_to_a_bound_to_keep_the_connection(
    serve: Serve,
) -> None:
    """Beyond it the connection ends with the response."""
    for discard, kept in [(5000, True), (1000, False)]:
        # It begins before its body is complete.
        settings = {"limit_discard": discard, "limit_unread": 1024}
        served = serve(answering(lambda environ: b"unread"), **settings)
        client = served.connect()
        client.send(request(method="POST", headers=["Content-Length: 5000"]) + b"x" * 2000)
        assert client.response("POST").text == "unread"
        if kept:
            client.send(b"x" * 3000 + request())
            assert client.response().text == "unread"
        else:
            assert client.rest() == b""


def test_an_application_waits_when_so_much_of_its_response_waits_for_the_client(
    serve: Serve,
) -> None:
    """What is held is the bound, and one block."""

    def blocks(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while True:
            yield b"x" * 1000

    for bound in (2000, 300_000):
        served = serve(blocks, limit_unsent=bound)
        client = served.connect(window=4096)
        client.send(request())
        held: list[int] = []

        def is_full() -> bool:
            held[:] = [each.held for each in served.connections]  # noqa: B023
            return bool(held) and held[0] >= bound  # noqa: B023

        until(is_full)
        assert held[0] <= bound + 2000
        client.close()


def test_so_many_connections_wait_to_be_accepted(serve: Serve, tmp_path: Path) -> None:
    """As the system counts them: one more than was asked for. Others are told to come again."""
    for backlog in (1, 3):
        path = str(tmp_path / f"{backlog}")
        served = serve(answering(lambda environ: b""), bind=f"unix:{path}", backlog=backlog)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for client in clients:
            client.setblocking(False)
        # The loop does not turn meanwhile: it accepts none of them.
        refused = served.call(lambda: [bool(each.connect_ex(path)) for each in clients])  # noqa: B023
        assert refused.count(False) == backlog + 1
        for client in clients:
            client.close()
