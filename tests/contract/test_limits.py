"""Limits of a body, of a request's time, and the health answer, over a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bide import RequestTimeout, wait
from bide.waiting.outcome import Signal
from tests.conftest import Serve
from tests.served import (
    LONG,
    Closing,
    Environ,
    Gate,
    Log,
    answering,
    ends,
    happened,
    request,
    until,
)

blocking = pytest.mark.parametrize("executor", ["threads"])


def reading(environ: Environ) -> bytes:
    return str(len(environ["wsgi.input"].read())).encode()


# Bodies ------------------------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_long_is_refused_unread(serve: Serve) -> None:
    """By its Content-Length, and without a 100: the application is not asked."""
    asked: list[Environ] = []
    served = serve(answering(lambda environ: asked.append(environ)), limit_body=1000)
    client = served.connect()
    client.send(request(method="POST", headers=["Content-Length: 1001", "Expect: 100-continue"]))
    response = client.head()
    assert response.status == 413
    assert ends(response)
    assert client.read(100) == b"the request's body is longer than 1000 bytes\n"
    assert client.rest() == b""
    assert asked == []


def test_a_refused_upload_that_goes_on_slowly_is_read_and_then_its_answer(
    serve: Serve,
) -> None:
    """The client reads when it has sent all: a reset before that would take the answer from it.

    One that sends no more is closed in time.
    """
    served = serve(answering(reading), limit_body=1000, linger_timeout=LONG)
    client = served.connect()
    client.send(request(method="POST", headers=["Content-Length: 100000"]))
    until(lambda: served.lingering == [0])
    for number in range(1, 11):
        client.send(b"x" * 10_000)
        until(lambda number=number: served.lingering == [number * 10_000])  # type: ignore[misc]
        served.linger()
    response = client.response("POST")
    assert (response.status, response.complete) == (413, True)
    assert client.read(1) == b""
    assert served.lingering == [100_000]
    served.linger()
    until(lambda: not served.connections)


@pytest.mark.parametrize("size", [999, 1000])
def test_a_body_within_the_limit_is_read(serve: Serve, size: int) -> None:
    """To the byte."""
    served = serve(answering(reading), limit_body=1000)
    assert served.get(method="POST", body=b"x" * size).text == str(size)


def chunked(*sizes: int) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)


@pytest.mark.parametrize("sizes", [(1001,), (1000, 1), (500, 500, 1)])
def test_a_chunked_body_that_grows_too_long_is_refused(
    serve: Serve, sizes: tuple[int, ...]
) -> None:
    """When it does: an application that reads it fails, and the client is told why."""
    served = serve(answering(reading), limit_body=1000)
    client = served.connect()
    client.send(request(method="POST", headers=["Transfer-Encoding: chunked"]) + chunked(*sizes))
    response = client.response("POST")
    assert (response.status, response.text) == (
        413,
        "the request's body is longer than 1000 bytes\n",
    )
    assert client.rest() == b""


def test_a_body_of_any_size_may_be_allowed(serve: Serve) -> None:
    """By 0."""
    served = serve(answering(reading), limit_body=0)
    assert served.get(method="POST", body=b"x" * 300_000).text == "300000"


def test_a_body_of_many_small_chunks_is_refused(serve: Serve) -> None:
    """Each costs as much as a large one; a million of them are not an upload."""
    served = serve(answering(reading), limit_chunks=100)
    client = served.connect()
    client.send(request(method="POST", headers=["Transfer-Encoding: chunked"]))
    client.send(chunked(*[1] * 200))
    response = client.response("POST")
    assert (response.status, response.text) == (400, "the body has too many small chunks\n")


def test_a_body_of_many_good_chunks_is_read(serve: Serve) -> None:
    """Their data pays for them."""
    served = serve(answering(reading), limit_chunks=100)
    client = served.connect()
    client.send(request(method="POST", headers=["Transfer-Encoding: chunked"]))
    client.send(chunked(*[64] * 500) + b"0\r\n\r\n")
    assert client.response("POST").text == "32000"


# A request's time --------------------------------------------------------------------------------


def test_a_request_that_waits_too_long_is_answered_504(serve: Serve, log: Log) -> None:
    """Its promise never fires; its place is free for the next."""
    raised = []

    def view(environ: Environ) -> bytes:
        if environ["PATH_INFO"] == "/quick":
            return b"quick"
        try:
            wait(Signal())
        except BaseException as error:
            raised.append(error)
            raise
        return b"never"

    served = serve(answering(view), request_timeout=LONG)
    client = served.request("/waits")
    served.until_waiting(1)
    served.advance(LONG)
    response = client.response()
    assert (response.status, response.text) == (504, "The request took too long.\n")
    assert [type(each) for each in raised] == [RequestTimeout]
    record = log.take("GET /waits of")
    assert record.getMessage().endswith("its wait is ended")
    client.send(request("/quick"))
    assert client.response().text == "quick"


def test_a_response_that_takes_too_long_is_cut(serve: Serve, log: Log) -> None:
    """The client sees that it is not whole, and the iterable is closed once."""
    iterables = []

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        iterables.append(Closing([b"first", Gate().promise()]))
        return iterables[-1]

    served = serve(application, request_timeout=LONG)
    client = served.request()
    served.until_waiting(1)
    served.advance(LONG)
    response = client.response()
    assert (response.status, response.body, response.complete) == (200, b"first", False)
    log.take("its wait is ended")
    happened(iterables[0].closed)
    served.until_idle()
    assert iterables[0].count == 1


def test_a_request_whose_body_does_not_come_is_ended_too(serve: Serve, log: Log) -> None:
    """Also where it is the client that is waited for."""
    served = serve(answering(reading), request_timeout=LONG)
    client = served.connect()
    client.send(request(method="POST", headers=["Content-Length: 10"]))
    served.until_waiting(1)
    served.advance(LONG)
    assert client.response("POST").status == 504
    log.take("its wait is ended")
    client.send(b"x" * 10 + request(method="POST", body=b"more"))
    assert client.response("POST").text == "4"


def test_a_request_whose_client_takes_nothing_is_ended_too(serve: Serve, log: Log) -> None:
    """The application is told, and closed; the client finds its response cut."""
    iterables = []

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        iterables.append(Closing(b"x" * 100_000 for _ in range(1000)))
        return iterables[-1]

    served = serve(application, request_timeout=LONG)
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    served.advance(LONG)
    log.take("its wait is ended")
    until(lambda: iterables[0].count == 1)
    response = client.response()
    assert not response.complete


@blocking
def test_code_that_runs_for_too_long_is_named_and_answers_late(serve: Serve, log: Log) -> None:
    """Nothing can interrupt it; the log has its stack, once."""
    begun, release = threading.Event(), threading.Event()

    def blocks_here(environ: Environ) -> bytes:
        begun.set()
        happened(release)
        return b"late"

    served = serve(answering(blocks_here), request_timeout=LONG)
    client = served.request("/blocks")
    happened(begun)
    served.advance(LONG)
    record = log.take("and its code goes on")
    assert "GET /blocks of" in record.getMessage()
    assert "in blocks_here" in record.getMessage()
    for _ in range(3):
        served.advance(LONG)
    release.set()
    assert client.response().text == "late"


@blocking
def test_code_that_ran_for_too_long_is_ended_at_its_next_wait(serve: Serve, log: Log) -> None:
    """The answer would come too late."""
    begun, release = threading.Event(), threading.Event()

    def view(environ: Environ) -> None:
        begun.set()
        happened(release)
        wait(Signal())

    served = serve(answering(view), request_timeout=LONG)
    client = served.request()
    happened(begun)
    served.advance(LONG)
    log.take("and its code goes on")
    release.set()
    assert client.response().status == 504


def test_a_request_that_is_quick_enough_is_left_alone(serve: Serve) -> None:
    """And so is one after it on the same connection, when both together take longer."""
    gates = [Gate() for _ in range(3)]
    served = serve(
        answering(lambda environ: wait(gates[int(environ["QUERY_STRING"])].promise()) or b"ok"),
        request_timeout=LONG,
    )
    client = served.connect()
    for number, gate in enumerate(gates):
        client.send(request(f"/?{number}"))
        served.until_waiting(1)
        served.advance(LONG / 2)
        gate.open()
        assert client.response().text == "ok"


# Health ------------------------------------------------------------------------------------------


def test_the_health_path_is_answered_by_the_server(serve: Serve) -> None:
    """Exactly that path; the application has the others."""
    served = serve(answering(lambda environ: environ["PATH_INFO"]), health="/alive")
    client = served.connect()
    for path, text in [
        ("/alive", "ok\n"),
        ("/alive?x=1", "ok\n"),
        ("/alive/", "/alive/"),
        ("/", "/"),
        ("/Alive", "/Alive"),
    ]:
        client.send(request(path))
        response = client.response()
        assert (response.status, response.text) == (200, text)


def test_the_health_path_answers_head_and_refuses_the_rest(serve: Serve) -> None:
    """A body that comes with it is not left in the way of the next request."""
    served = serve(answering(lambda environ: b"app"), health="/alive")
    client = served.connect()
    client.send(request("/alive", method="HEAD"))
    response = client.response("HEAD")
    assert (response.status, response.header("Content-Length")) == (200, "3")
    client.send(request("/alive", method="POST", body=b"x" * 1000))
    response = client.response("POST")
    assert (response.status, response.header("Allow")) == (405, "GET, HEAD")
    client.send(request())
    assert client.response().text == "app"


def test_the_health_path_is_answered_in_turn(serve: Serve) -> None:
    """Pipelined behind a request that waits, its answer must not come first."""
    gate = Gate()
    served = serve(
        answering(lambda environ: wait(gate.promise()) or b"app"),
        health="/alive",
    )
    client = served.connect()
    client.send(request("/waits") + request("/alive") + request("/last"))
    served.until_waiting(1)
    gate.open()
    assert [client.response().text for _ in range(3)] == ["app", "ok\n", "app"]


@blocking
def test_the_health_path_needs_no_thread(serve: Serve) -> None:
    """All are blocked, and the queue is full: the server lives, and says so."""
    begun, release = threading.Event(), threading.Event()

    def blocks(environ: Environ) -> bytes:
        begun.set()
        happened(release)
        return b"late"

    served = serve(answering(blocks), threads=1, queue=0, health="/alive")
    blocked = served.request("/blocks")
    happened(begun)
    assert served.get("/more").status == 503
    assert served.get("/alive").text == "ok\n"
    release.set()
    assert blocked.response().text == "late"


def test_a_server_that_stops_lives_and_is_not_ready(serve: Serve) -> None:
    """As connections are told that were in the middle of a response when the signal came."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b"first"
        wait(gate.promise())

    served = serve(application, health="/alive", ready="/r%65ady")
    clients = [served.request("/waits") for _ in range(2)]
    served.until_waiting(2)
    for client, path in zip(clients, ("/%61live", "/ready"), strict=True):
        client.send(request(path))
    until(lambda: served.pipelined == 2)
    served.tell_to_stop()
    gate.open()
    assert [client.response().text for client in clients] == ["first", "first"]
    answers = [client.response() for client in clients]
    assert [(each.status, each.text) for each in answers] == [(200, "ok\n"), (503, "stopping\n")]


def test_a_server_that_will_stop_serves_on_and_says_so(serve: Serve) -> None:
    """It is not ready, and each response ends its connection; nobody is refused or cut."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/begun":
            yield b"begun, "
        if environ["PATH_INFO"] != "/":
            wait(gate.promise())
        yield b"served"

    served = serve(application, health="/alive", ready="/ready")
    assert served.get("/ready").text == "ok\n"
    used, busy, begun = (served.request(path) for path in ("/", "/waits", "/begun"))
    assert used.response().header("Connection") is None
    assert begun.head().header("Connection") is None
    served.until_waiting(2)
    served.call(served.server.retire)
    gate.open()
    assert [begun.chunk() for _ in range(3)] == [b"begun, ", b"served", b""]
    new = served.connect()
    for client, path, status in [
        (busy, "", 200),
        (begun, "/", 200),
        (used, "/", 200),
        (new, "/ready", 503),
        (served.connect(), "/alive", 200),
    ]:
        if path:
            client.send(request(path))
        response = client.response()
        assert (response.status, response.header("Connection")) == (status, "close")
        assert client.rest() == b""


# Connections -------------------------------------------------------------------------------------


def test_the_last_connection_may_stay_idle_while_nobody_waits(serve: Serve) -> None:
    """At the limit and not above it: nothing is logged, and kept-alive connections are kept."""
    served = serve(answering(lambda environ: "x"), limit_connections=3)
    clients = [served.request() for _ in range(3)]
    for client in clients:
        assert client.response().complete
    assert not served.crowded
    for client in clients:
        client.send(request())
        assert client.response().complete
