"""What all clients together may have the server hold: of responses, and of bodies; real servers."""

from __future__ import annotations

import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bide import wait
from bide.transports.streaming import READ_SIZE, SMALL_READ
from tests.conftest import Serve
from tests.served import (
    Client,
    Closing,
    Environ,
    Gate,
    Log,
    Served,
    answering,
    happened,
    request,
    until,
)

LARGE = b"x" * (12 * 1024 * 1024)
"""More than any socket takes."""


def held(served: Served) -> int:
    """Return the bytes that wait for clients, of all connections."""
    return sum(each.held for each in served.connections)


def large(environ: Environ, start_response: Any) -> Any:
    """Answer with one large block, which is the same object for all: whole, or in chunks."""
    start_response("200 OK", [])
    return [LARGE] if environ["PATH_INFO"] == "/whole" else iter([LARGE])


# Responses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/whole", "/chunked"])
def test_clients_that_read_nothing_hold_references_and_no_copies(serve: Serve, path: str) -> None:
    """Twenty of them, of 12 MB each: all together take less memory than one copy."""
    served = serve(large)
    tracemalloc.start()
    try:
        clients = []
        for _ in range(20):
            client = served.connect(window=4096)
            client.send(request(path))
            clients.append(client)
        until(lambda: sum(each.held > 0 for each in served.connections) == 20)
        assert held(served) > 10 * len(LARGE) / 2
        assert tracemalloc.get_traced_memory()[1] < len(LARGE) / 2
    finally:
        tracemalloc.stop()
    until(lambda: served.server.unsent_total.used == held(served))
    for client in clients:
        client.close()
    until(lambda: not served.connections)
    assert served.server.unsent_total.used == 0


def test_many_responses_go_on_where_hardly_anything_may_be_held(serve: Serve) -> None:
    """Each is larger than the bound, alone and all together; none waits for another for ever."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(40):
            yield b"%d" % (number % 10) * 100_000

    served = serve(application, limit_unsent_total=1, threads=2)
    clients = []
    for _ in range(8):
        client = served.connect(window=4096)
        client.send(request())
        clients.append(client)
    expected = b"".join(b"%d" % (number % 10) * 100_000 for number in range(40))
    bodies: dict[int, bytes] = {}
    readers = [
        threading.Thread(target=lambda n, c: bodies.update({n: c.response().body}), args=each)
        for each in enumerate(clients)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [bodies[number] == expected for number in range(8)] == [True] * 8
    assert served.server.unsent_total.used == 0


def test_at_the_bound_an_application_makes_no_more_before_its_client_has_taken_all(
    serve: Serve,
) -> None:
    """However little of it is queued; a request whose client takes its answer is served."""
    iterables: list[Closing] = []
    made: list[int] = []

    def blocks() -> Iterator[bytes]:
        for number in range(100_000):
            made.append(number)
            yield b"x" * 1000

    def application(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/quick":
            start_response("200 OK", [])
            return [b"quick"]
        if environ["PATH_INFO"] == "/whole":
            return large(environ, start_response)
        start_response("200 OK", [])
        iterables.append(Closing(blocks()))
        return iterables[-1]

    served = serve(application, limit_unsent_total=1_000_000)
    holder = served.connect(window=4096)
    holder.send(request("/whole"))
    until(lambda: served.server.unsent_total.full)
    slow = served.connect(window=4096)
    slow.send(request("/blocks"))
    held: list[int] = []

    def is_behind() -> bool:
        connections = served.connections
        held[:] = [each.held for each in connections if 0 < each.held < 1_000_000]
        return bool(held)

    until(is_behind)
    assert held[0] < 2000  # the first that was not taken at once, and not 64 KiB
    assert served.get("/quick").text == "quick"
    before = len(made)
    holder.close()
    slow.read(1_000_000)
    until(lambda: len(made) > before)
    slow.close()
    until(lambda: iterables[0].count == 1)


def test_those_who_hold_the_most_are_given_up_first_and_no_more_than_must_be(
    serve: Serve, log: Log
) -> None:
    """When all together hold too much: the one that is left has its time, and its response."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [LARGE] * (3 if environ["PATH_INFO"] == "/most" else 1)

    bound = 2 * len(LARGE)
    served = serve(application, limit_unsent_total=bound, limit_unsent=2**30)
    clients: list[Client] = []
    for path in ("/most", "/"):  # in this order: no look counts more for the other
        client = served.connect(window=4096)
        client.send(request(path))
        clients.append(client)
    given_up = "a client that reads too slowly is disconnected"
    until(lambda: log.find(given_up) or sum(each.held > 0 for each in served.connections) == 2)
    served.advance_until(lambda: log.find(given_up), 1.0)
    log.take(given_up)
    until(lambda: sum(each.held > 0 for each in served.connections) == 1)
    assert not served.server.unsent_total.full
    assert not clients[0].response().complete
    assert clients[1].response().body == LARGE


# Bodies ------------------------------------------------------------------------------------------


def test_bodies_that_wait_are_bounded_together(serve: Serve) -> None:
    """What has come of each is read when its turn is; nothing of any is lost, and none hangs."""
    gate = Gate()

    def view(environ: Environ) -> bytes:
        wait(gate.promise())
        return b"%d" % len(environ["wsgi.input"].read())

    bound = 100_000
    served = serve(answering(view), limit_unread_total=bound, queue=100)
    clients = []
    for number in range(1, 21):
        client = served.connect()
        client.send(request(method="POST", headers=["Content-Length: 60000"]) + b"x" * 59_999)
        clients.append(client)
        served.until_waiting(number)
        if served.server.unread_total.full:
            break
    first = len(clients)
    for number in range(first + 1, first + 21):
        client = served.connect()
        client.send(request(method="POST", headers=["Content-Length: 60000"]) + b"x" * 59_999)
        clients.append(client)
        served.until_waiting(number)
    assert bound <= served.server.unread_total.used <= bound + READ_SIZE + 20 * SMALL_READ
    gate.open()
    for client in clients:
        client.send(b"x")
    for client in clients:
        assert client.response().text == "60000"
    assert served.server.unread_total.used == 0


def test_a_body_that_nobody_reads_is_given_back(serve: Serve) -> None:
    """By a request that ends, and by a client that leaves."""
    gate = Gate()

    def view(environ: Environ) -> bytes:
        if environ["PATH_INFO"] == "/waits":
            wait(gate.promise())
        return b"x"

    served = serve(answering(view))
    assert served.get(method="POST", body=b"x" * 50_000).text == "x"
    client = served.connect()
    client.send(request("/waits", method="POST", headers=["Content-Length: 60000"]) + b"x" * 50_000)
    until(lambda: served.server.unread_total.used > 0)
    client.close()
    served.until_idle()
    until(lambda: served.server.unread_total.used == 0)


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["threads"])
def test_a_slow_disk_stops_nobody_but_its_own_request(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when its client leaves meanwhile, which the loop has to see and to end."""
    path = tmp_path / "slow"
    path.write_bytes(b"x" * 100_000)
    reading, release = threading.Event(), threading.Event()
    files: list[Any] = []
    real = os.sendfile

    def sendfile(*args: Any) -> int:
        reading.set()
        happened(release)
        return real(*args)

    monkeypatch.setattr(os, "sendfile", sendfile)

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] != "/file":
            return [b"quick"]
        files.append(path.open("rb"))
        return environ["wsgi.file_wrapper"](files[-1])

    served = serve(application, threads=2)
    leaving = served.request("/file")
    happened(reading)
    (connection,) = served.connections
    assert served.get("/").text == "quick"
    leaving.reset()
    until(lambda: connection not in served.connections)
    for _ in range(3):
        assert served.get("/").text == "quick"
    assert not files[0].closed
    descriptor = connection._transport.descriptor
    assert connection._transport.socket.fileno() == descriptor
    release.set()
    until(lambda: files[0].closed)
    until(lambda: connection._transport.socket.fileno() == -1)
    assert served.get("/file").body == b"x" * 100_000
