"""When a request is given to an executor: with its body, as far as the application reads it first.

A request whose body is still to come would park at once, and stand behind whatever its thread takes
next. So an ordinary upload waits on the loop, and parks nothing.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bide import RemoteProtocolError
from bide.errors import ClientDisconnected
from bide.serving.deadlines import Allowances, Look
from bide.waiting.outcome import Signal
from tests.conftest import Serve
from tests.contract.test_races_of_connections import Server, answer
from tests.served import Environ, Log, answering, happened, request


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server without threads, whose one connection the test feeds."""
    server = Server()
    yield server
    server.close()


def upload(length: int, *more: str) -> bytes:
    return request("/", method="POST", headers=[f"Content-Length: {length}", *more])


CHUNKED = request("/", method="POST", headers=["Transfer-Encoding: chunked"])


def body_of(server: Server, number: int = 0) -> bytes:
    """Read a body that must be there: not one read may wait."""
    read = b""
    while block := server.begun[number].stream.receive():
        assert not isinstance(block, Signal)
        read += block
    return read


def look(server: Server, seconds: float = 1.0) -> None:
    allowances = Allowances(idle=60.0, head=15.0, rate=100)
    server.connection.mind_time(Look(seconds, allowances, server.unsent_total))


def test_a_body_in_a_second_packet_is_waited_for_on_the_loop(server: Server) -> None:
    """As requests and urllib3 send it."""
    server.receive(upload(8))
    assert (len(server.held), len(server.begun)) == (1, 0)
    server.receive(b"half")
    assert (len(server.held), len(server.begun)) == (1, 0)
    server.receive(b"rest")
    assert (len(server.held), len(server.begun)) == (0, 1)
    assert body_of(server) == b"halfrest"


@pytest.mark.parametrize(
    "data",
    [
        upload(4) + b"body",
        CHUNKED + b"4\r\nbody\r\n0\r\n\r\n",
    ],
    ids=["counted", "chunked"],
)
def test_a_body_in_the_first_packet_is_there_when_the_request_begins(
    server: Server, data: bytes
) -> None:
    """The head is parsed before it, and begins nothing."""
    server.receive(data)
    assert (len(server.held), len(server.begun)) == (0, 1)
    assert body_of(server) == b"body"


@pytest.mark.parametrize(
    "head", [request("/"), upload(0), request("/", method="POST")], ids=["GET", "empty", "none"]
)
def test_a_request_without_a_body_begins_at_its_head(server: Server, head: bytes) -> None:
    """There is nothing to wait for."""
    server.receive(head)
    assert (len(server.held), len(server.begun)) == (0, 1)


@pytest.mark.parametrize("length", [None, 1_000_000], ids=["chunked", "counted"])
def test_a_long_body_begins_when_its_window_is_full(server: Server, length: int | None) -> None:
    """No more of it is kept than before; the application reads the rest as it comes."""
    block = b"x" * 10_000
    server.receive(CHUNKED if length is None else upload(length))
    while not server.begun:
        assert server.held[0].stream.body.unread < server.limits.window
        server.receive(block if length else b"2710\r\n%b\r\n" % block)
    assert server.begun[0].stream.body.unread >= server.limits.window
    assert server.held == []


def test_many_small_chunks_begin_when_they_are_as_many_as_may_be_kept(server: Server) -> None:
    """The window counts blocks, too."""
    server.receive(CHUNKED)
    for _ in range(2000):
        if server.begun:
            break
        server.receive(b"1\r\nx\r\n")
    assert len(server.begun) == 1


def test_a_body_that_waits_to_be_asked_for_begins_at_its_head(server: Server) -> None:
    """``Expect: 100-continue``: the client sends nothing before the application reads."""
    server.receive(upload(4, "Expect: 100-continue"))
    assert (len(server.held), len(server.begun)) == (0, 1)
    assert isinstance(server.begun[0].stream.receive(), Signal)
    assert server.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_chunks_that_come_slowly_begin_after_two_looks(server: Server) -> None:
    """Their sender may wait for an answer to each: how many are to come is not known."""
    server.receive(CHUNKED + b"3\r\none\r\n")
    look(server)
    assert server.begun == []
    look(server)
    assert len(server.begun) == 1
    assert server.begun[0].stream.receive() == b"one"
    server.receive(b"3\r\ntwo\r\n0\r\n\r\n")
    assert len(server.begun) == 1


def test_a_counted_body_is_waited_for_however_slowly_it_comes(server: Server) -> None:
    """It parks nothing at all."""
    server.receive(upload(100))
    for _ in range(100):
        look(server)
        server.receive(b"x")
        assert len(server.begun) == (server.held == [])
    assert len(server.begun) == 1


def test_a_body_that_does_not_come_uses_its_time_up(server: Server) -> None:
    """As one that the application waits for: 408, by the read that finds it."""
    server.receive(upload(10))
    for _ in range(7):
        assert server.begun == []
        look(server, 10.0)
    (conversation,) = server.begun
    with pytest.raises(RemoteProtocolError, match="took too long"):
        conversation.stream.receive()


def test_a_body_that_breaks_off_is_found_by_the_read(server: Server) -> None:
    """The client has closed its side; it may still take an answer."""
    server.receive(upload(10) + b"some")
    assert server.begun == []
    server.end_of_client()
    (conversation,) = server.begun
    assert conversation.stream.receive() == b"some"
    with pytest.raises(ClientDisconnected):
        conversation.stream.receive()


def test_a_malformed_body_is_found_by_the_read(server: Server) -> None:
    """Which answers 400, unless the application does something else."""
    server.receive(CHUNKED + b"3\r\none\r\n")
    assert server.begun == []
    server.receive(b"no chunk\r\n")
    (conversation,) = server.begun
    assert conversation.stream.receive() == b"one"
    with pytest.raises(RemoteProtocolError):
        conversation.stream.receive()


def test_a_request_whose_client_is_gone_before_its_body_came_is_never_begun(
    server: Server,
) -> None:
    """There is nobody to answer, and nothing to do it with."""
    server.receive(upload(10) + b"some")
    server.transport.abort()
    server.turn()
    assert (len(server.begun), len(server.dropped)) == (0, 1)


def test_a_pipelined_body_is_waited_for_when_it_is_its_turn(server: Server) -> None:
    """Before that as after it; what has come meanwhile is begun with its turn."""
    server.receive(request("/1") + upload(4))
    answer(server.begun[0].stream)
    server.turn()
    assert (len(server.held), len(server.begun)) == (1, 1)
    server.receive(b"body" + upload(4) + b"next")
    assert (len(server.held), len(server.begun)) == (0, 2)
    assert body_of(server, 1) == b"body"
    answer(server.begun[1].stream)
    server.turn()
    assert (len(server.held), len(server.begun)) == (0, 3)
    assert body_of(server, 2) == b"next"


# Over a real server ----------------------------------------------------------------------------


def test_uploads_on_their_way_are_on_no_thread(serve: Serve) -> None:
    """They are counted as waiting; not even one thread has been started."""
    served = serve(answering(lambda environ: environ["wsgi.input"].read()))
    clients = [served.connect() for _ in range(20)]
    for client in clients:
        client.send(upload(4) + b"bo")
    served.until_waiting(20)
    assert (served.status.threads, served.server.dispatcher.executor.waiting) == (0, 0)
    for client in clients:
        client.send(b"dy")
    for client in clients:
        assert client.response().body == b"body"
    served.until_idle()


def test_an_upload_on_its_way_is_served_when_the_server_stops(serve: Serve) -> None:
    """Its head has come: it has the time that requests in progress have."""
    served = serve(answering(lambda environ: environ["wsgi.input"].read()))
    client = served.connect()
    client.send(upload(4) + b"bo")
    served.until_waiting(1)
    served.tell_to_stop()
    client.send(b"dy")
    response = client.response()
    assert (response.status, response.body) == (200, b"body")
    assert client.rest() == b""


def test_an_upload_that_does_not_come_is_answered_503_when_the_server_stops(
    serve: Serve, log: Log
) -> None:
    """Without the application, for which there is no time."""
    called: list[Any] = []
    served = serve(answering(called.append), graceful_timeout=0.05)
    client = served.connect()
    client.send(upload(4) + b"bo")
    served.until_waiting(1)
    served.begin_stop()
    assert client.response().status == 503
    assert client.rest() == b""
    assert called == []
    log.take("1 requests have not ended in time")


def test_an_upload_that_takes_longer_than_a_request_may_is_answered_504(
    serve: Serve, log: Log
) -> None:
    """The time of a request begins with the end of its head."""
    served = serve(answering(lambda environ: environ["wsgi.input"].read()), request_timeout=0.2)
    client = served.connect()
    client.send(upload(4) + b"bo")
    assert client.response().status == 504
    log.take("its wait is ended")


@pytest.mark.parametrize("executor", ["threads"])
def test_a_body_in_a_second_packet_does_not_stand_behind_a_blocking_view(serve: Serve) -> None:
    """Eight threads, two requests: the one that blocks, and the upload that came before it."""
    release, blocked = threading.Event(), threading.Event()

    def answer_(environ: Environ) -> bytes:
        if environ["PATH_INFO"] == "/block":
            blocked.set()
            happened(release)
            return b"blocked"
        return bytes(environ["wsgi.input"].read())

    served = serve(answering(answer_), threads=8)
    uploading = served.connect()
    uploading.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    uploading.send(upload(4))
    served.until_waiting(1)
    blocking = served.request("/block")
    happened(blocked)
    uploading.send(b"body")
    assert uploading.response().body == b"body"
    release.set()
    assert blocking.response().body == b"blocked"
