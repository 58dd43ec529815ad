"""What OpenSSL asks of those who call it: one thread at a time, and no errors left on a thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide import in_thread, wait
from bide.transports.connected import CLOSING
from tests.conftest import Serve
from tests.failures import Failures
from tests.served import (
    DEADLINE,
    LONG,
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
from tests.tls import RECORD, Ends, certificates, leave_an_error

PLAIN = [("Content-Type", "text/plain")]


# Errors on a thread ----------------------------------------------------------------------------


def test_a_half_close_is_one_whatever_error_its_thread_has(serve: Serve, gate: Gate) -> None:
    """The error is another's: of another connection, or of a library that uses OpenSSL."""

    def application(environ: Environ) -> str:
        wait(gate.promise())
        return "answered"

    served = serve(answering(application), half_close="answer", **certificates().settings)
    clients = [served.request(), served.request()]
    served.until_waiting(2)
    ways = (lambda sock: sock.notify(), lambda sock: sock.plain.shutdown(socket.SHUT_WR))
    for number, client in enumerate(clients):
        served.call(leave_an_error)
        ways[number](client.sock)
        until(lambda number=number: ended(served) > number)  # type: ignore[misc]
    gate.open()
    for client in clients:
        assert client.response().text == "answered"


def ended(served: Served) -> int:
    """Return of how many clients the server has found the end."""
    return sum(each._transport.client_ended for each in served.connections)


def test_a_record_that_comes_in_parts_is_read_whatever_error_its_thread_has(serve: Serve) -> None:
    """A part of it is nothing yet, and no failure."""
    served = serve(answering(lambda environ: "answered"), **certificates().settings)
    client = served.request()
    assert client.response().complete
    data = encrypted(client, request())
    for part in (data[:3], data[3:20], data[20:]):
        served.call(leave_an_error)
        client.sock.plain.sendall(part)
        served.call(lambda: None)  # what has come has its turn
    assert client.response().text == "answered"


def encrypted(client: Client, data: bytes) -> bytes:
    """Return what a client would send."""
    client.sock.tls.write(data)
    sent: bytes = client.sock._going.read()
    return sent


def test_a_slow_client_gets_the_whole_response_whatever_errors_the_application_leaves(
    serve: Serve,
) -> None:
    """The thread that has the blocks sends them itself: a full socket is not a failure."""
    size = 64

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for _ in range(size):
            leave_an_error()
            yield b"x" * 65536

    served = serve(application, executor="threads", **certificates().settings)
    client = served.connect(window=4096)
    client.send(request())
    until(lambda: any(each.held for each in served.connections))
    response = client.response()
    assert (len(response.body), response.complete) == (size * 65536, True)


def test_a_connection_that_ends_by_an_alert_leaves_no_error_on_the_loop(serve: Serve) -> None:
    """An application on it may use OpenSSL, too: its next read would fail."""
    begun, release = threading.Event(), threading.Event()

    def application(environ: Environ) -> str:
        begun.set()
        happened(release)
        return "answered"

    served = serve(
        answering(application), executor="loop", linger_timeout=0.05, **certificates().settings
    )
    ends = Ends()
    client = served.request(headers=["Connection: close"])
    happened(begun)
    client.sock.alert()  # nothing of the loop's reads it before the response is sent, and the end
    release.set()
    until(lambda: not served.connections)

    def reading() -> None:
        with pytest.raises(ssl.SSLWantReadError):
            ends.server.read(1)

    served.call(reading)


# Ends ------------------------------------------------------------------------------------------


def test_a_refused_upload_that_goes_on_slowly_is_dropped_and_then_answered(serve: Serve) -> None:
    """In parts of records, and also where OpenSSL has one half of a record at the end already."""
    with Failures() as failures:
        for there in (0, 100, 20_000):
            with failures.of(f"{there} bytes are there"):
                served = serve(
                    answering(lambda environ: environ["wsgi.input"].read()),
                    limit_body=1000,
                    linger_timeout=LONG,
                    **certificates().settings,
                )
                client = served.connect()
                upload = request(method="POST", headers=["Content-Length: 100000"])
                head = encrypted(client, upload)
                body = b"".join(encrypted(client, b"x" * RECORD) for _ in range(4))
                client.sock.plain.sendall(head + body[:there])
                until(lambda: served.lingering)  # noqa: B023
                served.call(lambda: None)
                rest = body[there:]
                for at in range(0, len(rest), 5000):
                    before = served.lingering[0]
                    part = rest[at : at + 5000]
                    client.sock.plain.sendall(part)
                    until(lambda: served.lingering == [before + len(part)])  # noqa: B023
                    served.linger()
                response = client.response("POST")
                assert (response.status, response.complete) == (413, True)
                assert client.read(1) == b""
                served.linger()
                served.linger()
                until(lambda: not served.connections)  # noqa: B023


class Full(ssl.SSLSocket):
    """One whose socket has no room for the ``close_notify``."""

    def unwrap(self) -> socket.socket:
        """Say so."""
        raise ssl.SSLWantWriteError


def test_a_client_that_does_not_take_the_end_is_given_up(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that does not take a response; it has as long."""
    monkeypatch.setattr(ssl.SSLContext, "sslsocket_class", Full)
    served = serve(
        answering(lambda environ: "answered"), idle_timeout=60.0, **certificates().settings
    )
    client = served.request(headers=["Connection: close"])
    assert client.response().complete
    until(lambda: [each._transport.state for each in served.connections] == [CLOSING])
    served.advance(1.0)
    served.advance(58.0)
    assert served.connections
    served.advance_until(lambda: not served.connections, 5.0)
    assert log.find("a client that reads too slowly is disconnected")


# One thread at a time --------------------------------------------------------------------------


class Alone(ssl.SSLSocket):
    """Notes who is in it, and whether two threads are at once. Each lets others in meanwhile.

    Attributes:
        entered: by the name of each call, the kinds of threads that have made it.
        met: the calls that have found another thread in it.
    """

    entered: dict[str, set[str]]
    met: list[str]

    def _enter(self, name: str, args: Any, options: Any) -> Any:
        call = getattr(super(), name)
        tls: Any = self
        if tls._sslobj is None:  # OpenSSL has nothing to do with it any more
            return call(*args, **options)
        inside = self.__dict__.setdefault("inside", threading.RLock())
        if not inside.acquire(blocking=False):
            self.met.append(name)
            return call(*args, **options)
        try:
            self.entered.setdefault(name, set()).add(kind_of(threading.current_thread().name))
            time.sleep(0)
            return call(*args, **options)
        finally:
            inside.release()


def kind_of(name: str) -> str:
    """Return what a thread is by its name, without its number."""
    return name.rstrip("0123456789-_ ")


def entering(name: str) -> Callable[..., Any]:
    """Make a method that notes its calls."""

    def method(self: Alone, *args: Any, **options: Any) -> Any:
        return self._enter(name, args, options)

    return method


for each in (
    *("cipher", "close", "do_handshake", "getpeercert", "pending", "read", "recv", "recv_into"),
    *("selected_alpn_protocol", "send", "sendall", "shutdown", "unwrap", "version", "write"),
):
    setattr(Alone, each, entering(each))


BLOCKS = 60
SIZE = 200_000


def everything(environ: Environ, start_response: Any) -> Any:
    """Do what an application can do to a connection, by the path."""
    path = environ["PATH_INFO"]
    if path == "/wait":
        wait(in_thread(time.sleep, 0))
    write = start_response("200 OK", PLAIN)
    if path == "/echo":
        while block := environ["wsgi.input"].read1(20_000):
            write(block)
        return []
    if path == "/push":
        write, finish = write
        threads = [threading.Thread(target=push, args=(write,), name="pusher") for _ in range(3)]
        threading.Thread(target=pushed, args=(threads, finish), name="pusher").start()
        return None
    if path == "/file":
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(b"x" * SIZE)
        file.seek(0)
        return environ["wsgi.file_wrapper"](file)
    return blocks(cut=path == "/cut")


def push(write: Callable[[bytes], None]) -> None:
    for _ in range(BLOCKS):
        write(b"x" * 1000)


def pushed(threads: list[threading.Thread], finish: Callable[[], None]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish()


def blocks(cut: bool) -> Iterator[bytes]:
    for _ in range(BLOCKS):
        yield b"x" * 3000
    if cut:
        raise ValueError("cut")


def visit(served: Served, path: str) -> None:
    """Make a request, as a client that knows what its path does."""
    client = Client(served.address, context=served.context)
    with contextlib.closing(client):
        body = b"x" * SIZE if path in ("/echo", "/refuse") else b""
        client.send(request(path, method="POST" if body else "GET", body=body))
        if path == "/leave":
            client.head()
            client.reset()
            return
        if path in ("/wait", "/push"):
            client.half_close()
        response = client.response()
        assert response.status == (413 if path == "/refuse" else 200)
        assert response.complete is (path != "/cut")


PATHS = ("/echo", "/push", "/file", "/stream", "/wait", "/refuse", "/cut", "/leave")


def test_no_two_threads_are_in_openssl_on_one_connection(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done to a connection: OpenSSL crashes, or damages what passes."""
    monkeypatch.setattr(ssl.SSLContext, "sslsocket_class", Alone)
    monkeypatch.setattr(Alone, "entered", {}, raising=False)
    monkeypatch.setattr(Alone, "met", [], raising=False)
    served = serve(everything, half_close="answer", limit_body=SIZE, **certificates().settings)
    refusing = serve(everything, half_close="answer", limit_body=1000, **certificates().settings)
    failed: list[str] = []

    def visiting(path: str) -> None:
        for _ in range(6):
            try:
                visit(refusing if path == "/refuse" else served, path)
            except BaseException as error:
                failed.append(f"{path}: {error!r}")

    clients = [threading.Thread(target=visiting, args=(path,)) for path in PATHS * 2]
    for client in clients:
        client.start()
    for client in clients:
        client.join(DEADLINE)
    served.until_idle()
    until(lambda: not (served.connections or refusing.connections))
    log.records.clear()  # of what was cut
    assert failed == []
    assert Alone.met == []
    assert {"do_handshake", "read", "write", "unwrap", "shutdown"} <= set(Alone.entered)
    assert len(Alone.entered["write"]) > 1, Alone.entered
