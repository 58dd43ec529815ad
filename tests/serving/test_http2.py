"""Who speaks HTTP/2 with a real server: by ALPN over TLS, and by how it begins in clear."""

import itertools
import socket
import ssl
import sys
import threading
from collections.abc import Iterable

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import PingFrame

from bide import wait
from bide.protocols.http2.connection import HTTP2
from bide.protocols.http2.guard import PREFACE
from bide.protocols.http2.receiving import TURN
from bide.protocols.http2.setup import STREAMS
from bide.protocols.interfaces import Owner, Transport
from bide.serving import counters
from bide.serving.arrival import Arrival
from bide.serving.connection import Connection
from bide.serving.rounds import drain_all
from bide.serving.upgrades import Upgrading
from tests.conftest import Serve
from tests.contract.test_stopping import Watched
from tests.failures import Failures, same
from tests.http2 import HTTP2Socket
from tests.http2_sockets import Line
from tests.served import (
    LONG,
    Client,
    Environ,
    Gate,
    HandClock,
    Log,
    answering,
    happened,
    request,
    until,
)
from tests.tls import certificates

REFUSED = int(ErrorCodes.REFUSED_STREAM)


def refused_streams() -> float:
    """Return how many were refused since there were too many on their connection."""
    return counters.counters().get(counters.REJECTED, {}).get("http2_streams", 0)


def protocol(environ: Environ) -> str:
    """Answer with what the application is told."""
    return f"{environ['SERVER_PROTOCOL']} {environ['wsgi.url_scheme']} {environ['HTTP_HOST']}"


def agreed(address: str, *offered: str) -> str | None:
    """Return what a client that offers these agrees on with the server."""
    context = certificates().context()
    if offered:
        context.set_alpn_protocols(offered)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 20) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        return tls.selected_alpn_protocol()


def test_clients_agree_on_it_over_tls(serve: Serve) -> None:
    """And those that do not know it get HTTP/1.1."""
    served = serve(answering(protocol), **certificates().settings)
    with Failures() as failures:
        for offered, expected in (
            (("h2", "http/1.1"), "h2"),
            (("http/1.1", "h2"), "h2"),
            (("h2",), "h2"),
            (("http/1.1",), "http/1.1"),
            ((), None),
        ):
            with failures.of(offered):
                same(agreed(served.address, *offered), expected)
    port = served.address.rpartition(":")[2]
    context = ssl.create_default_context(cafile=certificates().authority)
    for both in (True, False):
        with httpx.Client(http2=both, verify=context) as client:
            response = client.get(f"https://localhost:{port}/")
            expected = "HTTP/2" if both else "HTTP/1.1"
            same(response.http_version, expected)
            same(response.text, f"{expected} https localhost:{port}")


@pytest.mark.parametrize("pieces", [[100], [1] * 24, [3, 15, 3], [17, 1, 2], [24]])
def test_a_client_may_begin_with_it_in_clear(serve: Serve, pieces: list[int]) -> None:
    """However its preface is cut into packets."""
    served = serve(answering(protocol))
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="ascii"))
    h2.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")]
    h2.send_headers(1, head, True)
    data = h2.data_to_send()
    client = served.connect()
    for size in pieces:  # each goes in a packet of its own
        client.send(data[:size])
        data = data[size:]
        served.turn(2)  # in which it is read
    client.send(data)
    body = b""
    while b"a.example" not in body:
        for event in h2.receive_data(client.sock.recv(65536)):
            body += getattr(event, "data", None) or b""
    same(body, b"HTTP/2 http a.example")


def test_it_can_be_switched_off(serve: Serve) -> None:
    """Then nothing of it is offered, and who begins with it is refused."""
    served = serve(answering(protocol), http2="off", **certificates().settings)
    same(agreed(served.address, "h2", "http/1.1"), "http/1.1")
    plain = serve(answering(protocol), http2="off")
    client = plain.connect()
    client.send(PREFACE)
    assert client.response().status in (400, 505)


def test_it_is_only_for_the_beginning(serve: Serve) -> None:
    """Behind a request its preface is a malformed one."""
    served = serve(answering(protocol))
    client = served.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    same(client.response().status, 200)
    client.send(PREFACE)
    assert client.response().status in (400, 505)
    other: Client = served.connect()
    other.send(b"\r\n" + PREFACE)
    assert other.response().status in (400, 505)


def test_a_proxy_header_stands_before_it(serve: Serve) -> None:
    """As HAProxy sends one, which speaks HTTP/2 behind it."""
    served = serve(
        answering(lambda environ: environ["REMOTE_ADDR"]), trust="127.0.0.1", proxy_protocol=True
    )
    client = Client(served.address)
    client.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n")
    client.sock = HTTP2Socket(client.sock)
    client.reader = client.sock.makefile("rb")
    client.send(request())
    same(client.response().text, "192.0.2.7")
    client.close()


def test_a_stop_gives_a_slow_client_the_time_for_what_was_sent_last(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its windows, and then for the way of the last bytes: nothing is cut."""
    watched, body = Watched(monkeypatch), bytes(1024 * 1024)
    served = serve(answering(lambda environ: body), graceful_timeout=LONG)
    client = served.connect(window=4096, over_http2=True)
    client.send(request())
    until(lambda: any(each.sending for each in served.connections))
    served.until_idle()
    with HandClock(served) as clock:
        served.begin_stop()
        happened(watched.waits)
        clock.advance(5.0)  # longer than the second that others have
        clock.turn()
        response = client.response()
        until(lambda: not any(each.sending for each in served.connections))
        clock.advance(0.5)
        clock.turn()
        same((served.status.connections, len(response.body)), (1, len(body)))
    served.join(leaving=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what it holds")
@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize("answered", ["before the stop", "before the connection is told", "after"])
def test_a_stop_gives_a_client_the_time_for_what_the_system_holds(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, http2: bool, answered: str
) -> None:
    """It reads nothing before all was sent, and then it sends, too: that must reset nothing."""
    watched, gate, body = Watched(monkeypatch), Gate(), bytes(500_000)
    served = serve(answering(lambda environ: wait(gate.promise()) or body), graceful_timeout=LONG)
    client = served.connect(over_http2=False)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="ascii"))
    if http2:
        h2.initiate_connection()
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
        h2.increment_flow_control_window(2**30)
        head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
        h2.send_headers(1, head, True)
        client.send(h2.data_to_send())
    else:
        client.send(request())
    served.until_waiting(1)

    if answered == "before the stop":
        gate.open()
        served.until_idle()
    skipped = threading.Event()

    def told(connections: Iterable[Connection | Arrival]) -> None:
        if answered == "after" or skipped.is_set():
            drain_all(connections)
        skipped.set()

    monkeypatch.setattr("bide.serving.draining.drain_all", told)
    with HandClock(served) as clock:
        served.begin_stop()
        happened(skipped)
        gate.open()
        happened(watched.waits)

        def all_sent() -> bool:
            clock.advance(0.001)
            return bool(served.lingering)

        until(all_sent)
        for _ in range(5):  # longer than the second that others have
            clock.advance(1.0)
            clock.turn()
        same([each.sending for each in served.connections], [True])
        got = 0
        while data := client.sock.recv(65_536):
            got += data.count(0)
            if http2:
                client.send(PingFrame(0, opaque_data=b"12345678").serialize())
        assert got >= len(body), got
    served.join(leaving=True)


def test_a_body_that_is_complete_in_a_later_turn_of_the_loop_begins_its_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each turn takes one frame here, and what was held until its body had come goes on."""

    def hurried(server: Upgrading, transport: Transport, owner: Owner) -> HTTP2:
        times = itertools.count(0.0, TURN)
        totals = (server.unread_total, server.unsent_total)
        return HTTP2(transport, owner, server.limits, *totals, clock=lambda: next(times))

    monkeypatch.setattr(Upgrading, "http2", hurried)
    served = serve(answering(lambda environ: environ["wsgi.input"].read()))
    line = Line(served)
    number = line._begin("POST", "/", [], False)
    line.h2.send_data(number, b"x")
    line.flush()
    served.until_waiting(1)
    same(served.status.threads, 0)
    for _ in range(5):
        line.h2.ping(b"12345678")
    line.h2.send_data(number, b"y", True)
    with HandClock(served):  # else the server would find it at its next check of deadlines
        line.flush()
        same(line.read(number).body, b"xy")


def test_requests_that_are_refused_for_another_time_are_in_the_log(serve: Serve, log: Log) -> None:
    """Those that are too many on their connection, with their number and the last one's client."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise()) or "x"))
    before = refused_streams()
    line = Line(served)
    line.h2.remote_settings.max_concurrent_streams = 2 * STREAMS  # as if it did not heed them
    line.h2.remote_settings.acknowledge()
    numbers = [line.ask() for _ in range(STREAMS + 2)]
    line.until(lambda: sum(each.reset == REFUSED for each in line.answers.values()) == 2)
    same(refused_streams() - before, 2)
    served.advance(1.0)
    log.take(
        "requests refused: 2 (http2_streams), the last: its connection has 100 in progress "
        "(127.0.0.1)"
    )
    gate.open()
    same([line.read(each).body for each in numbers[:STREAMS]], [b"x"] * STREAMS)


def test_each_deadline_ends_what_it_is_for(serve: Serve, log: Log) -> None:
    """An idle connection, half a head, a body and a response; one stream's end ends no other."""

    def answer(environ: Environ) -> bytes:
        if environ["PATH_INFO"] == "/large":
            return bytes(1024 * 1024)
        return bytes(environ["wsgi.input"].read())

    served = serve(answering(answer), idle_timeout=60.0, head_timeout=15.0)

    def gone() -> bool:
        return not served.connections

    idle = served.connect(over_http2=True)
    until(lambda: len(served.connections) == 1)
    served.advance_until(gone, 10.0)
    same(idle.rest(), b"")

    half = served.connect(over_http2=True)
    half.send(b"GET / HT")
    until(lambda: served.receiving == 1)
    served.advance_until(gone, 5.0)
    same(half.rest(), b"")

    upload = served.connect(over_http2=True)
    upload.send(request(method="POST", headers=["Content-Length: 4", "Expect: 100-continue"]))
    served.until_waiting(1)
    served.advance_until(lambda: not served.status.waiting, 10.0)
    same(upload.response().status, 408)
    upload.send(b"late" + request(method="POST", body=b"once more"))
    same(upload.response().text, "once more")

    slow = served.connect(window=4096, over_http2=True)
    slow.send(request("/large"))
    given_up = "a client that reads too slowly is disconnected"
    served.advance_until(lambda: log.find(given_up), 10.0)
    log.take(given_up)
    same(slow.response().complete, False)
    same(served.get().status, 200)
