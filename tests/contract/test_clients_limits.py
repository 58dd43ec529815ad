"""What one client may have, ``--client-connections`` and ``--client-requests``."""

import contextlib
import json
import threading
from typing import Any

import pytest

from bide import wait
from tests.conftest import Serve
from tests.served import (
    Busy,
    Client,
    Environ,
    Gate,
    Log,
    Served,
    answering,
    happened,
    request,
    until,
)


def proxied(address: str) -> bytes:
    """Return the PROXY header that names a client."""
    family = 6 if ":" in address else 4
    server = "::1" if ":" in address else "127.0.0.1"
    return f"PROXY TCP{family} {address} {server} 50000 80\r\n".encode()


def told(served: Served, log: Log, text: str) -> str:
    """Return the line that counts what was refused, as if the last one were long ago."""
    served.server._refusals._quiet = 0.0
    served.tick()
    return log.take(text).getMessage()


@pytest.fixture
def gate() -> Any:
    """Return a gate that lets the requests of :func:`waiting` go on; open at the end at last."""
    gate = Gate()
    yield gate
    gate.open()


def waiting(gate: Gate) -> Any:
    """Return an application whose requests wait for a gate, but those for ``/quick``."""

    @answering
    def application(environ: Environ) -> str:
        if environ["PATH_INFO"] != "/quick":
            wait(gate.promise())
        return str(environ["REMOTE_ADDR"])

    return application


def test_one_request_too_many_of_a_client_is_answered_429(
    serve: Serve, log: Log, gate: Gate
) -> None:
    """Others are served, and its connection goes on; the application never sees it."""
    served = serve(waiting(gate), client_requests=2, trust="127.0.0.1")
    mine, other = "X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 192.0.2.8"
    running = [served.request(headers=[mine]) for _ in range(2)]
    served.until_waiting(2)
    third = served.connect()
    for body in (b"", b"x" * 100):
        third.send(request("/quick", headers=[mine], body=body, method="POST"))
        response = third.response()
        assert (response.status, response.header("Retry-After")) == (429, "1")
    assert served.get("/quick", headers=[other]).text == "192.0.2.8"
    assert served.get("/quick").text == "127.0.0.1"  # the proxy for itself
    line = told(served, log, "answered 429")
    assert "2 were answered 429" in line
    assert "192.0.2.7" in line
    assert "--client-requests" in line
    assert served.status.client_requests_refused == 2
    gate.open()
    assert [each.response().status for each in running] == [200, 200]
    third.send(request("/quick", headers=[mine]))
    assert third.response().text == "192.0.2.7"
    served.until_idle()
    assert served.call(lambda: served.server._entrance.clients.counted) == (0, 0)


def test_addresses_of_one_ipv6_network_are_one_client(serve: Serve, gate: Gate) -> None:
    """A client has all of its /64; another network is another client."""
    served = serve(waiting(gate), client_requests=1, trust="127.0.0.1")
    served.request(headers=["X-Forwarded-For: 2001:db8::1"])
    served.until_waiting(1)
    neighbour = served.get("/quick", headers=["X-Forwarded-For: 2001:db8::ffff:1"])
    stranger = served.get("/quick", headers=["X-Forwarded-For: 2001:db8:0:1::1"])
    assert (neighbour.status, stranger.status) == (429, 200)


def test_clients_that_a_proxy_hides_are_one_client(serve: Serve, gate: Gate) -> None:
    """Else a client that makes itself unknown would have no limit."""
    served = serve(waiting(gate), client_requests=1, trust="127.0.0.1")
    served.request(headers=["X-Forwarded-For: unknown"])
    served.until_waiting(1)
    assert served.get("/quick", headers=["Forwarded: for=_hidden"]).status == 429


def test_the_health_path_is_not_limited(serve: Serve, gate: Gate) -> None:
    """It is asked by whoever watches the server, from a client's address or not."""
    served = serve(waiting(gate), client_requests=1, health="/alive")
    served.request()
    served.until_waiting(1)
    assert served.get("/quick").status == 429
    assert served.get("/alive").status == 200


@pytest.mark.parametrize("executor", ["threads"])
def test_a_request_is_over_for_its_client_with_its_answer_though_its_call_has_not_ended(
    serve: Serve, executor: str
) -> None:
    """A client that has the answer may ask again: ``close`` may take its time. In both orders."""
    closing, close = threading.Event(), threading.Event()

    class Slow:
        """Blocks in its close."""

        def __iter__(self) -> Any:
            return iter([b"served"])

        def close(self) -> None:
            closing.set()
            happened(close)

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "6")])
        return Slow() if environ["PATH_INFO"] == "/slow" else [b"served"]

    served = serve(application, client_requests=1)
    assert served.get("/slow").text == "served"
    happened(closing)  # and it has not ended
    assert served.status.running == 1
    assert served.get().text == "served"
    close.set()
    served.until_idle()  # now it has
    assert served.get().text == "served"
    assert served.call(lambda: served.server._entrance.clients.counted)[1] == 0


@pytest.mark.parametrize("executor", ["threads"])
def test_a_request_whose_client_has_left_counts_until_its_call_has_ended(
    serve: Serve, executor: str
) -> None:
    """Else a client could begin any number, and leave each of them."""
    busy = Busy()
    served = serve(busy.application, client_requests=1)
    gone = served.request()
    happened(busy.begun)
    gone.reset()
    until(lambda: not served.connections, "its end was not noticed")
    assert served.get().status == 429
    busy.release.set()
    served.until_idle()
    assert served.get().status == 200
    assert served.call(lambda: served.server._entrance.clients.counted)[1] == 0


def test_a_client_that_leaves_frees_its_waiting_request(serve: Serve, gate: Gate) -> None:
    """Its wait is cancelled; and so it is when it leaves while it is being refused."""
    served = serve(waiting(gate), client_requests=1)
    client = served.request()
    served.until_waiting(1)
    refused = served.request("/quick")
    refused.reset()
    client.reset()
    until(lambda: not served.connections, "their ends were not noticed")
    served.until_idle()
    assert served.get("/quick").status == 200
    assert served.call(lambda: served.server._entrance.clients.counted)[1] == 0


def test_a_request_whose_body_is_to_come_is_in_progress(serve: Serve, gate: Gate) -> None:
    """It holds memory; when its client leaves, it is over."""
    served = serve(waiting(gate), client_requests=1)
    uploading = served.connect()
    uploading.send(request("/quick", method="POST", headers=["Content-Length: 10"]))
    until(lambda: served.status.waiting == 1, "it has not begun")
    assert served.get("/quick").status == 429
    uploading.reset()
    served.until_idle()
    assert served.get("/quick").status == 200


def test_one_connection_too_many_of_a_client_is_reset(serve: Serve, log: Log, gate: Gate) -> None:
    """At once, before anything of it is read; when another has ended, there is room again."""
    served = serve(waiting(gate), client_connections=2, trust="127.0.0.1", proxy_protocol=True)

    def connect(address: str) -> Client:
        client = served.connect()
        client.send(proxied(address) + request("/quick"))
        return client

    mine = [connect("192.0.2.7") for _ in range(2)]
    assert [each.response().text for each in mine] == ["192.0.2.7"] * 2
    assert connect("192.0.2.7").rest() == b""
    assert connect("192.0.2.8").response().text == "192.0.2.8"
    line = told(served, log, "were closed at once")
    assert "1 were closed" in line
    assert "192.0.2.7" in line
    assert served.status.client_connections_refused == 1
    mine[0].close()
    until(lambda: len(served.connections) == 2, "its end was not noticed")
    assert connect("192.0.2.7").response().text == "192.0.2.7"


def test_connections_are_counted_by_who_connects_and_not_on_unix_sockets(
    serve: Serve, log: Log, tmp_path: Any
) -> None:
    """Without proxies, too; all slots are free again when all have ended."""
    path = f"unix:{tmp_path / 'bide.sock'}"
    served = serve(answering(lambda _: "served"), client_connections=1, bind=["127.0.0.1:0", path])
    first = served.request()
    assert first.response().text == "served"
    with contextlib.suppress(ConnectionResetError):  # it may be reset while it still connects
        assert served.connect().rest() == b""
    unix = [Client(path) for _ in range(2)]
    for each in unix:
        each.send(request())
        assert each.response().text == "served"
        each.close()
    told(served, log, "1 were closed at once")
    first.close()
    until(lambda: not served.connections, "the ends were not noticed")
    assert served.call(lambda: served.server._entrance.clients.counted) == (0, 0)
    assert served.get().text == "served"


def test_what_is_refused_for_its_client_is_in_the_status(serve: Serve, gate: Gate) -> None:
    """The application sees it as well as whoever has the server."""

    @answering
    def application(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/status":
            status = environ["bide.status"]()
            return json.dumps([status.client_connections_refused, status.client_requests_refused])
        wait(gate.promise())
        return ""

    served = serve(application, client_requests=1, trust="127.0.0.1")
    served.request(headers=["X-Forwarded-For: 192.0.2.7"])
    served.until_waiting(1)
    assert served.get(headers=["X-Forwarded-For: 192.0.2.7"]).status == 429
    assert json.loads(served.get("/status").text) == [0, 1]
