"""However many requests come in one read, no more wait than may; all are answered, in order."""

from __future__ import annotations

import pytest

from bide import wait
from tests.conftest import Serve
from tests.served import Environ, Gate, answering, request, until

SHORTEST = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"


@pytest.mark.parametrize("limit", [1, 4, 16])
def test_no_more_requests_wait_than_the_limit(serve: Serve, limit: int) -> None:
    """One read of 64 KiB brings 2,600 of the shortest, and each takes 400 bytes of memory."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise())), limit_pipeline=limit)
    client = served.connect()
    client.send(SHORTEST * 2000)
    served.until_waiting(1)
    until(lambda: served.pipelined >= limit)
    assert served.pipelined == limit
    gate.open()
    for _ in range(2000):
        assert client.response().status == 200
    client.send(request("/last"))
    assert client.response().status == 200


@pytest.mark.parametrize("limit", [1, 2, 3, 16])
def test_requests_with_bodies_are_answered_in_order_within_the_limit(
    serve: Serve, limit: int
) -> None:
    """The cut between what was taken and what was left falls between two requests."""

    def answer(environ: Environ) -> bytes:
        path: str = environ["PATH_INFO"]
        body: bytes = environ["wsgi.input"].read()
        return path.encode() + body

    served = serve(answering(answer), limit_pipeline=limit)
    client = served.connect()
    sent = []
    for number in range(60):
        body = b"x" * (number * 37 % 101)
        if number % 3 == 2:
            head = request(f"/{number}", method="POST", headers=["Transfer-Encoding: chunked"])
            sent.append(head + b"3\r\nabc\r\n0\r\n\r\n")
        else:
            sent.append(request(f"/{number}", method="POST", body=body))
    client.send(b"".join(sent))
    for number in range(60):
        body = b"abc" if number % 3 == 2 else b"x" * (number * 37 % 101)
        assert client.response("POST").body == f"/{number}".encode() + body


def test_a_client_that_leaves_behind_a_full_pipeline_is_answered_first(serve: Serve) -> None:
    """It has closed its sending side: what it has sent is still whole requests."""
    served = serve(answering(lambda environ: environ["PATH_INFO"]), half_close="answer")
    client = served.connect()
    client.send(b"".join(request(f"/{number}") for number in range(500)))
    client.half_close()
    for number in range(500):
        assert client.response().text == f"/{number}"
    assert client.rest() == b""
