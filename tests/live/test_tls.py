"""HTTPS as clients meet it: OpenSSL's own, Python's, and those that finish no handshake."""

from __future__ import annotations

import resource
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bide import ClientDisconnected, wait
from soak.tls import load
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.live.conftest import Start
from tests.served import (
    DEADLINE,
    Client,
    Environ,
    Gate,
    Log,
    Served,
    answering,
    request,
    until,
)
from tests.tls import RECORD, Certificates, TLSSocket, certificates

DESCRIPTORS = 2000

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    """Return certificates of this test's own."""
    return Certificates(tmp_path)


def secured(environ: Environ) -> str:
    """Answer with what the environ says of TLS."""
    found = {k: v for k, v in environ.items() if k.startswith(("SSL_", "HTTPS", "wsgi.url"))}
    return "\n".join(f"{key}={value}" for key, value in found.items())


def said(response: Any) -> dict[str, str]:
    """Return what was answered by :func:`secured`, line by line."""
    return dict(line.split("=", 1) for line in response.text.splitlines() if "=" in line)


def s_client(address: str, *options: str) -> str:
    """Make one request by OpenSSL's client; return all that it says."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address, "-ign_eof", *options],
        input="GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return done.stdout


# Who serves whom -------------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open more files than it usually may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@openssl
def test_openssl_s_client_gets_what_it_asks_for(
    serve: Serve, made: Certificates, log: Log, tmp_path: Path
) -> None:
    """A certificate by its name, HTTP/1.1 by ALPN, TLS 1.2 and 1.3, and no older one."""
    second = made.issue("second", "second.example", "*.wild.example")
    served = serve(answering(secured), certificate=[made.server, second])
    names = {
        "second.example": second,
        "SECOND.example": second,
        "a.wild.example": second,
        "wild.example": made.server,
        "a.b.wild.example": made.server,
        "unknown.example": made.server,
    }
    with Failures() as failures:
        for name, file in names.items():
            with failures.of(name):
                answer = s_client(served.address, "-servername", name)
                begin = answer.index("-----BEGIN CERTIFICATE-----")
                end = answer.index("-----END CERTIFICATE-----")
                assert answer[begin:end] in Path(file).read_text()
                assert f"SSL_TLS_SNI={name.lower()}" in answer
        for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            with failures.of(option):
                assert f"SSL_PROTOCOL={version}" in s_client(served.address, option)
        for protocols, agreed in (
            ("http/1.1", "ALPN protocol: http/1.1"),
            ("h2,http/1.1", "ALPN protocol: h2"),
            ("h2", "ALPN protocol: h2"),
            ("spdy/1", "No ALPN negotiated"),
        ):
            with failures.of(protocols):
                answer = s_client(served.address, "-alpn", protocols)
                assert agreed in answer
                assert ("HTTP/1.1 200 OK" in answer) != agreed.endswith("h2")
        with failures.of("TLS 1.1"):
            assert "alert protocol version" in s_client(served.address, "-tls1_1")
            served.tick()
            log.take("TLS handshakes failed: 1, the last: unsupported protocol (127.0.0.1)")
        with failures.of("renegotiation"):
            answer = s_client(served.address, "-tls1_2")
            assert "Secure Renegotiation IS supported" in answer
            assert "Compression: NONE" in answer
        for option in ("-tls1_2", "-tls1_3"):
            with failures.of(f"resumption {option}"):
                kept = str(tmp_path / "session")
                assert "SSL_SESSION_RESUMED=Initial" in s_client(
                    served.address, option, "-sess_out", kept
                )
                assert "SSL_SESSION_RESUMED=Resumed" in s_client(
                    served.address, option, "-sess_in", kept
                )


def test_the_oldest_version_is_the_deployer_s_choice(serve: Serve, log: Log) -> None:
    """``--tls-minimum 1.3``."""
    served = serve(answering(secured), **certificates().settings, tls_minimum="1.3")
    old = certificates().context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        served.connect(context=old)
    assert said(served.get())["SSL_PROTOCOL"] == "TLSv1.3"


def test_a_client_s_certificate_is_asked_for_and_told_to_the_application(
    serve: Serve, made: Certificates, log: Log
) -> None:
    """As mod_ssl tells it; one of another authority is refused, whatever the setting."""
    mine = made.issue("mine", "me@example.org", common_name='Me, "Myself" + I')
    second = made.issue("second", "second.example")
    stranger = Certificates(made.directory / "..").issue("stranger", "stranger@example.org")
    settings = {"certificate": [made.server, second], "client_ca": made.authority}
    with Failures() as failures:
        for choice in ("required", "optional"):
            served = serve(answering(secured), client_certificate=choice, **settings)
            for name in ("localhost", "second.example"):
                with failures.of(f"{choice}, {name}, with one"):
                    client = Client(served.address)
                    client.sock = TLSSocket(client.sock, made.context(mine), name)
                    client.reader = client.sock.makefile("rb")
                    client.send(request() + request())
                    answer = client.response()
                    found = said(answer)
                    same(client.response().body, answer.body)
                    same(found["SSL_CLIENT_VERIFY"], "SUCCESS")
                    assert found["SSL_CLIENT_S_DN"].startswith('CN=Me\\, \\"Myself\\" \\+ I,OU=')
                    assert found["SSL_CLIENT_I_DN"].endswith(",O=trustme v1.2.1") or found[
                        "SSL_CLIENT_I_DN"
                    ].startswith("OU=Testing CA")
                    assert found["SSL_CLIENT_V_END"].endswith("GMT")
                    assert int(found["SSL_CLIENT_M_SERIAL"], 16)
                    pem = Path(mine).with_suffix(".crt").read_text()
                    assert pem.split("\n")[1] in answer.text
                    same(found["wsgi.url_scheme"], "https")
                    client.close()
                with failures.of(f"{choice}, {name}, without one"):
                    assert refused(served, made.context(), name) is (choice == "required")
                with failures.of(f"{choice}, {name}, another authority's"):
                    assert refused(served, made.context(stranger), name)


def refused(served: Served, context: ssl.SSLContext, name: str) -> bool:
    """Make a request; return whether the handshake failed. In TLS 1.3 a read says so."""
    client = Client(served.address)
    try:
        client.sock = TLSSocket(client.sock, context, name)
        client.reader = client.sock.makefile("rb")
        client.send(request())
        assert said(client.response())["SSL_CLIENT_VERIFY"] == "NONE"
    except (ssl.SSLError, OSError):
        return True
    finally:
        client.close()
    return False


def test_plain_http_is_told_to_speak_https(serve: Serve, log: Log) -> None:
    """In clear, for it understands nothing else; the log has one line for all of a second."""
    served = serve(answering(secured), **certificates().settings)
    for _ in range(30):
        client = Client(served.address)
        client.send(request(method="PURGE", headers=["X: " + "x" * 10_000]))
        response = client.response()
        assert (response.status, response.complete) == (400, True)
        assert b"begin its URL with https://" in response.body
        assert client.read(1) == b""
        client.close()
    until(lambda: not served.connections)
    served.tick()
    served.server._refusals.report(float("inf"))
    lines = [each for each in log.lines() if "TLS handshakes failed" in each]
    assert len(lines) <= 3
    numbers = [int(line.split("failed: ")[1].split(",")[0]) for line in lines]
    assert sum(numbers) == 30


# What passes the wire --------------------------------------------------------------------------


class Tapped:
    """A client's socket of which is kept what has passed the wire."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.passed = b""

    def recv(self, size: int) -> bytes:
        """Receive, and keep it."""
        data = self._sock.recv(size)
        self.passed += data
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_nothing_of_a_response_passes_the_wire_in_clear(serve: Serve, tmp_path: Path) -> None:
    """A file, a range, blocks, large and small ones, an error, the end: all of it is encrypted."""
    secret = b"the-secret-of-the-file"
    path = tmp_path / "file"
    path.write_bytes(secret * 50_000)

    def application(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/file":
            start_response("200 OK", [("X-Secret", secret.decode())])
            return environ["wsgi.file_wrapper"](path.open("rb"))
        write = start_response("200 OK", [("X-Secret", secret.decode())])
        if environ["PATH_INFO"] == "/written":
            for _ in range(200):
                write(secret)
        return [secret, secret * 50_000]

    with Failures() as failures:
        for executor in ("threads", "loop"):
            served = serve(application, executor=executor, **certificates().settings)
            for what in ("/file", "/blocks", "/written"):
                with failures.of(f"{executor} {what}"):
                    client = Client(served.address)
                    tapped = Tapped(client.sock)
                    sock: Any = tapped
                    client.sock = TLSSocket(sock, certificates().context())
                    client.reader = client.sock.makefile("rb")
                    client.send(request(what))
                    client.send(request("/last", headers=["Connection: close"]))
                    assert client.response().body.count(secret) >= 50_000
                    assert client.response().complete
                    same(client.rest(), b"")
                    assert len(tapped.passed) > 2_000_000
                    assert secret not in tapped.passed
                    assert b"HTTP/1.1" not in tapped.passed
                    client.close()


def test_the_ends_of_a_client_are_told_apart(serve: Serve, gate: Gate) -> None:
    """Either is a half-close, with and without a ``close_notify``; in a body it is a departure."""
    gone: list[BaseException] = []

    def application(environ: Environ) -> str:
        try:
            if environ["REQUEST_METHOD"] == "POST":
                environ["wsgi.input"].read()
            wait(gate.promise())
        except ClientDisconnected as error:
            gone.append(error)
            raise
        return "answered"

    served = serve(answering(application), half_close="answer", **certificates().settings)
    notifying = served.request("/")
    served.until_waiting(1)
    notifying.sock.notify()
    bare = served.request("/")
    served.until_waiting(2)
    bare.sock.plain.shutdown(socket.SHUT_WR)
    cutting = served.connect()
    cutting.send(
        request(method="POST", headers=["Content-Length: 10"], body=b"")[:-2] + b"\r\nhalf"
    )
    until(lambda: served.receiving)
    cutting.sock.plain.shutdown(socket.SHUT_WR)
    until(lambda: gone)
    assert not cutting.rest()
    gate.open()
    for client in (notifying, bare):
        assert client.response().text == "answered"
    assert len(gone) == 1


# Handshakes ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_descriptors")
def test_half_open_handshakes_delay_nobody_and_are_given_up(serve: Serve, log: Log) -> None:
    """500 of them, some with the beginning of a ClientHello, some with nothing."""
    served = serve(answering(secured), **certificates().settings, head_timeout=90.0)
    hello = TLSSocket.hello(certificates().context())
    idle = []
    for number in range(500):
        client = Client(served.address)
        client.send(hello[: number % 100])
        idle.append(client)
    until(lambda: served.status.connections == 500)
    kept = served.connect()
    for _ in range(20):
        assert served.get().status == 200
        kept.send(request())
        assert kept.response().status == 200
    assert served.server.handshakes is not None
    assert sum(each.name == "bide-handshakes" for each in threading.enumerate()) >= 1
    served.advance(30.0)
    assert served.status.connections == 501
    served.advance(61.0)
    until(lambda: served.status.connections == 1)
    kept.send(request())
    assert kept.response().status == 200
    for client in idle:
        assert client.rest() == b""
        client.close()


def test_a_client_in_its_handshake_is_served_by_a_server_that_stops(serve: Serve) -> None:
    """It has connected, and will not connect elsewhere."""
    served = serve(answering(secured), **certificates().settings)
    client = served.connect(shakes=False)
    client.sock.greet()
    until(lambda: served.status.connections == 1)
    served.tell_to_stop()
    client.sock.shake()
    client.send(request())
    assert client.response().status == 200
    served.join(leaving=True)


def test_a_server_stops_beside_half_open_handshakes(serve: Serve) -> None:
    """They have a second, and are closed."""
    served = serve(answering(secured), **certificates().settings)
    clients = [Client(served.address) for _ in range(10)]
    clients[0].send(b"\x16")
    until(lambda: served.status.connections == 10)
    served.begin_stop()
    served.join()
    for client in clients:
        assert client.rest() == b""
        client.close()


# Certificates that change ----------------------------------------------------------------------


def test_certificates_are_renewed_under_load_and_no_request_fails(
    serve: Serve, made: Certificates, log: Log
) -> None:
    """Connections go on with what they began with; new ones have the new one."""
    path = Path(made.issue("changing", "localhost"))
    others = [Path(made.issue(f"other-{number}", "localhost")) for number in range(2)]
    served = serve(answering(secured), certificate=str(path))
    stop = threading.Event()
    failures: list[BaseException] = []
    answered: list[int] = []

    def ask(fresh: bool) -> None:
        client = served.connect(context=made.context())
        try:
            while not stop.is_set():
                client.send(request())
                answered.append(client.response().status)
                if fresh:
                    client.close()
                    client = served.connect(context=made.context())
        except BaseException as error:
            failures.append(error)
        client.close()

    threads = [threading.Thread(target=ask, args=(number < 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    kept = served.connect(context=made.context())
    before = kept.sock.tls.getpeercert(binary_form=True)
    for number in range(20):
        count = len(answered)
        path.write_bytes(others[number % 2].read_bytes())
        assert served.server.renew_certificates()
        until(lambda count=count: len(answered) > count + 5 or failures)  # type: ignore[misc]
        client = served.connect(context=made.context())
        now = client.sock.tls.getpeercert(binary_form=True)
        assert ssl.DER_cert_to_PEM_cert(now) in path.read_text()
        client.close()
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert not failures
    assert set(answered) == {200}
    assert kept.sock.tls.getpeercert(binary_form=True) == before
    kept.send(request())
    assert kept.response().status == 200
    path.write_bytes(b"nonsense")
    assert not served.server.renew_certificates()
    assert str(path) in log.take("are not renewed, those in use stay").getMessage()
    assert served.connect(context=made.context())


def test_a_server_looks_whether_its_files_have_changed(
    serve: Serve, made: Certificates, log: Log
) -> None:
    """By itself, from time to time."""
    path = Path(made.issue("changing", "localhost"))
    served = serve(answering(secured), certificate=str(path))
    path.write_bytes(Path(made.issue("other", "localhost")).read_bytes())
    served.advance_until(lambda: log.find("the certificates were renewed"), 6.0)


def test_workers_resume_each_others_sessions_and_have_a_new_certificate_after_sighup(
    start: Start, made: Certificates, tmp_path: Path
) -> None:
    """Contexts are made before the fork, so that all have the same keys for tickets."""
    (tmp_path / "shop.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [f\"{os.getpid()} {environ['SSL_SESSION_RESUMED']}\".encode()]\n"
    )
    path = Path(made.issue("changing", "localhost"))
    other = Path(made.issue("other", "localhost"))
    program = start(
        "shop:app", "--bind", "127.0.0.1:0", "--workers", "2", "--certificate", str(path)
    )
    where = program.until(" serving ").partition(" on https://")[2].partition(", ")[0]

    def ask(session: ssl.SSLSession | None) -> tuple[list[str], TLSSocket]:
        client = Client(where)
        client.sock = TLSSocket(client.sock, context, session=session)
        client.reader = client.sock.makefile("rb")
        client.send(request())
        answer = client.response().text.split()
        client.close()
        return answer, client.sock

    with Failures() as failures:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = made.context()
            context.maximum_version = version
            (_, resumed), tls = ask(None)
            with failures.of(f"{version!r}"):
                same(resumed, "Initial")
                found: dict[str, str] = {}

                def both() -> bool:
                    nonlocal tls
                    (worker, resumed), tls = ask(tls.tls.session)
                    found[worker] = resumed  # noqa: B023
                    return len(found) == 2  # noqa: B023

                until(both)
                same(set(found.values()), {"Resumed"})
    path.write_bytes(other.read_bytes())
    program.signal(signal.SIGHUP)
    program.until("reloaded: all workers are new")
    _, tls = ask(None)
    certificate = tls.tls.getpeercert(binary_form=True)
    assert certificate is not None
    assert ssl.DER_cert_to_PEM_cert(certificate) in other.read_text()


# All at once -----------------------------------------------------------------------------------


def test_the_loop_reads_while_several_threads_write() -> None:
    """Two threads in OpenSSL on one connection crash the process, or damage what passes.

    ``python -m soak.tls`` makes it 1 GB over 1,000 connections.
    """
    result = load(connections=16, megabytes=24)
    assert result.failed == []
    assert result.received == 24 * 1024 * 1024


# The command line ------------------------------------------------------------------------------


def test_the_command_line_serves_https_or_says_in_one_line_why_not(
    start: Start, made: Certificates, tmp_path: Path
) -> None:
    """With code 1; nothing has listened then."""
    (tmp_path / "shop.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [environ['wsgi.url_scheme'].encode()]\n"
    )
    other = made.issue("other", "other.example")
    crt = str(Path(made.server).with_suffix(".crt"))
    wrong = start("shop:app", "--bind", "127.0.0.1:0", "--certificate", crt, "--key", other)
    absent = start("shop:app", "--bind", "127.0.0.1:0", "--certificate", "absent.pem")
    assert (wrong.wait(), absent.wait()) == (1, 1)
    assert wrong.lines == [f"bide: {other} is not the key of the certificate {crt}"]
    where = tmp_path / "absent.pem"
    assert absent.lines == [
        f"bide: the certificate {where} cannot be read: No such file or directory"
    ]
    locked = made.encrypt(made.server, b"open sesame")
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    more = ("--key", locked, "--key-password-file", str(password))
    right = start("shop:app", "--bind", "127.0.0.1:0", *more, BIDE_CERTIFICATE=crt)
    line = right.until(" serving ")
    address = line.partition(" on https://")[2].split(", ")[0]
    client = Client(address, context=made.context())
    client.send(request())
    assert client.response().body == b"https"
    Path(crt).write_bytes(Path(other).with_suffix(".crt").read_bytes())  # and not its key
    right.signal(signal.SIGHUP)
    right.until("the certificates are not renewed, those in use stay")
    client.send(request())
    assert client.response().body == b"https"
    client.close()
    right.signal(signal.SIGTERM)
    assert right.wait() == 0
    assert any("TLS by OpenSSL" in each and "localhost" in each for each in right.lines)


def test_an_end_behind_a_full_record_that_is_refused_keeps_the_loop(serve: Serve) -> None:
    """What OpenSSL still holds is dropped with the rest: nobody reads it any more."""
    served = serve(answering(secured), **certificates().settings)
    host, _, port = served.address.rpartition(":")
    with socket.create_connection((host, int(port)), DEADLINE) as plain:
        client = TLSSocket(plain, certificates().context())
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\nA: "
        client.tls.write(head + b"a" * (RECORD - len(head) - 4) + b"\r\n\r\n")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.flush()  # in one piece
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        assert served.get().status == 200


def test_a_client_that_resets_at_its_first_byte_leaves_nothing(serve: Serve, log: Log) -> None:
    """Python closes the descriptor itself then, and another connection may have its number."""
    served = serve(answering(secured), **certificates().settings)
    host, _, port = served.address.rpartition(":")
    for _ in range(20):
        plain = socket.create_connection((host, int(port)), DEADLINE)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        plain.send(b"\x16")
        plain.close()
    until(lambda: not served.status.connections, "connections are left")
    assert served.get().status == 200
    log.records.clear()  # of the handshakes, at most one line a second
