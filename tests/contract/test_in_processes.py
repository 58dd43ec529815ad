"""Applications that run in child processes: what is sent, what ends them, and what is left.

The applications share no objects with the tests, but memory that was mapped before the fork.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import bide
from bide.children.nursery import Nursery
from bide.errors import BindError
from bide.waiting.cleanups import cleanup_time
from tests import http2
from tests.conftest import Serve
from tests.contract.shared import BLOCK, PLAIN, Shared, children, gone
from tests.failures import Failures
from tests.served import Application, Environ, Log, answering, request, until

pytestmark = pytest.mark.parametrize("executor", ["processes"])


async def later(value: bytes) -> bytes:
    await asyncio.sleep(0)
    return value


def every_kind(environ: Environ, start_response: Any) -> Any:
    """Answer in each way that there is; the path says in which."""
    kind = environ["PATH_INFO"][1:]
    if kind == "error":
        raise LookupError("before the head")
    if kind == "exit":
        raise SystemExit(3)
    if kind == "echo":
        data = environ["wsgi.input"].read()
        start_response("200 OK", PLAIN)
        return [data]
    if kind == "lines":
        lines = list(environ["wsgi.input"])
        start_response("200 OK", PLAIN)
        return [line.upper() for line in lines]
    if kind == "again":
        start_response("200 OK", PLAIN)
        try:
            raise LookupError
        except LookupError as error:
            start_response("503 Again", PLAIN, (type(error), error, error.__traceback__))
        return [b"again"]
    if kind == "nothing":
        return None
    if kind in ("204", "304"):
        start_response(f"{kind} Nothing", [])
        return []
    headers = [*PLAIN, ("Content-Length", "3")] if kind == "length" else PLAIN
    write = start_response("200 OK", headers)
    if kind == "push":
        write, finish = write
        threading.Thread(target=lambda: (write(b"pushed "), write(b"twice"), finish())).start()
        return None
    if kind == "write":
        write(b"written, ")
        write(BLOCK * 20)
        return [b"returned"]
    if kind == "file":
        return environ["wsgi.file_wrapper"](io.BytesIO(BLOCK * 20))
    if kind == "wait":
        return [bide.wait(later(b"waited")), b" for"]
    if kind == "promise":
        return (each for each in (b"a ", later(b"promise"), b" kept"))
    if kind == "bad":
        return (each for each in (b"begun", "text"))
    if kind == "large":
        return [BLOCK * 40]
    if kind == "stream":
        return (BLOCK for _ in range(40))
    if kind == "facts":
        keys = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "SCRIPT_NAME", "HTTP_X")
        return [repr([environ[key] for key in keys]).encode()]
    return [b"all", b" of it"] if kind != "length" else [b"all"]


def test_every_kind_of_response_is_that_of_the_request(serve: Serve, log: Log) -> None:
    """Those of one connection, one after the other, as the same process makes them."""
    served = serve(every_kind, processes=1)
    expected = {
        "": (200, b"all of it"),
        "length": (200, b"all"),
        "again": (503, b"again"),
        "204": (204, b""),
        "304": (304, b""),
        "push": (200, b"pushed twice"),
        "write": (200, b"written, " + BLOCK * 20 + b"returned"),
        "file": (200, BLOCK * 20),
        "wait": (200, b"waited for"),
        "promise": (200, b"a promise kept"),
        "large": (200, BLOCK * 40),
        "stream": (200, BLOCK * 40),
        "facts": (200, b"[False, True, False, '', 'y,z']"),
        "error": (500, b"Internal Server Error\n"),
        "exit": (500, b"Internal Server Error\n"),
        "nothing": (500, b"Internal Server Error\n"),
    }
    with Failures() as failures:
        client = served.connect()
        for kind, (status, body) in expected.items():
            for method in ("GET", "HEAD"):
                with failures.of(f"{method} {kind}"):
                    client.send(request(f"/{kind}", method=method, headers=["X: y", "X: z"]))
                    response = client.response(method)
                    assert (response.status, response.complete) == (status, True)
                    assert response.body == (body if method == "GET" else b"")
                    length = response.header("Content-Length")
                    assert kind != "large" or length == str(len(body))
        with failures.of("an error in the body"):
            cut = served.get("/bad")
            assert (cut.status, cut.body, cut.complete) == (200, b"begun", False)
        for size in (1, 65536, 5_000_000):
            with failures.of(f"a body of {size} bytes"):
                data = os.urandom(size)
                assert served.get("/echo", method="POST", body=data).body == data
        with failures.of("lines"):
            assert served.get("/lines", method="POST", body=b"a\nb\nc").body == b"A\nB\nC"
    assert children(served).threads == 1
    for _ in ("error", "exit", "nothing"):
        for _ in ("GET", "HEAD"):
            log.take("the application failed")
    log.take("the application failed")


def test_a_body_is_asked_for_only_where_it_is_read(serve: Serve) -> None:
    """A client that expects 100 Continue."""
    served = serve(every_kind, processes=1)
    client = served.connect()
    client.send(
        request("/echo", method="PUT", headers=["Expect: 100-continue", "Content-Length: 4"])
    )
    assert client.head().status == 100
    client.send(b"body")
    assert client.response().body == b"body"


def test_what_the_server_adds_to_a_response_is_added_once(serve: Serve) -> None:
    """The id of the request, which the application sees, and where its time went."""
    served = serve(
        answering(lambda environ: environ["bide.request_id"] + environ["HTTP_X_REQUEST_ID"]),
        processes=1,
        request_id="X-Request-ID",
        server_timing=True,
    )
    response = served.get()
    assert response.text == 2 * (response.header("X-Request-ID") or "none")
    assert (response.header("Server-Timing") or "").startswith("queue;dur=")


def here() -> int:
    return os.getpid()


def test_what_is_bide_s_works_or_says_why_not(serve: Serve) -> None:
    """In a process, which has neither the server's loop nor its counts."""
    shared = Shared()
    places = bide.limit(1)

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        kind = environ["PATH_INFO"][1:]
        if kind == "websocket":
            try:
                bide.websocket(environ)
            except bide.BideError as error:
                told: object = error
        elif kind == "limit":
            with places:
                told = bide.wait(later(b"limited"))
        elif kind == "process":
            told = bide.wait(bide.in_process(here)) != os.getpid()
        elif kind == "spawn":
            bide.spawn(shared.__setitem__, "caught", 1)
            told = "begun"
        elif kind == "gone":
            told = environ["bide.disconnected"]()
        else:
            status = environ["bide.status"]()
            told = (status.running, status.stopping)
        start_response("200 OK", PLAIN)
        return [str(told).encode()]

    served = serve(application, processes=1)
    upgrade = [
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    with Failures() as failures:
        for kind, answer in {
            "websocket": "runs in child processes (--executor processes)",
            "limit": "b'limited'",
            "process": "True",
            "spawn": "begun",
            "gone": "False",
            "status": "(1, False)",
        }.items():
            if kind == "websocket" and http2.wanted():
                continue  # HTTP/2 has no Upgrade
            with failures.of(kind):
                headers = upgrade if kind == "websocket" else []
                assert served.get(f"/{kind}", headers=headers).text.endswith(answer)
    until(lambda: shared["caught"])


def waiting(shared: Shared) -> Application:
    """Make an application that waits, and notes how its wait has ended."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/pid":
            start_response("200 OK", PLAIN)
            yield str(os.getpid()).encode()
            return
        shared["begun"] += 1
        if environ["PATH_INFO"] == "/body":
            start_response("200 OK", PLAIN)
            yield b"begun"
        try:
            if environ["PATH_INFO"] == "/computes":
                shared.await_gate()
            bide.wait(asyncio.sleep(1000))
        except bide.Cancelled as cancelled:
            kinds = (bide.ClientDisconnected, bide.RequestTimeout, bide.ServerStopping)
            shared["caught"] = 1 + kinds.index(type(cancelled))
            raise
        start_response("200 OK", PLAIN)
        yield b""

    return application


def test_a_departure_ends_the_wait_and_the_process_goes_on(serve: Serve) -> None:
    """Before the head, and in the body."""
    shared = Shared()
    served = serve(waiting(shared), processes=1)
    pid = served.get("/pid").body
    for number, path in enumerate(("/", "/body"), 1):
        client = served.request(path)
        until(lambda number=number: shared["begun"] == number)  # type: ignore[misc]
        client.close()
        until(lambda: shared["caught"] == 1)
        shared["caught"] = 0
        served.until_idle()
    assert served.get("/pid").body == pid


def test_a_time_out_ends_the_wait_and_is_answered(serve: Serve, log: Log) -> None:
    """As with any executor: 504."""
    shared = Shared()
    served = serve(waiting(shared), processes=1, request_timeout=100.0)
    client = served.request("/")
    until(lambda: shared["begun"])
    served.call(lambda: served.server.mind_time(0.0, 200.0))
    assert client.response().status == 504
    assert shared["caught"] == 2
    log.take("its wait is ended")


def test_a_stop_ends_the_wait_and_leaves_no_process(serve: Serve, log: Log) -> None:
    """One process waits, another is idle."""
    shared = Shared()
    served = serve(waiting(shared), processes=2, graceful_timeout=0.0)
    client = served.request("/")
    until(lambda: shared["begun"])
    idle = int(served.get("/pid").body)
    executor = children(served)
    pids = [each.pid for each in executor._links.values()]
    assert idle in pids
    served.begin_stop()
    assert client.response().status == 503
    assert shared["caught"] == 3
    served.join(leaving=True)
    log.take("have not ended in time")
    assert not executor.alive
    assert [gone(each) for each in (*pids, executor.nursery.pid)] == [True] * 3


def test_code_that_goes_on_is_killed_and_its_process_replaced(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a departure, and after a time-out, which is answered."""
    shared = Shared()
    monkeypatch.setattr(cleanup_time, "seconds", 0.2)
    served = serve(waiting(shared), processes=1, request_timeout=100.0)
    client = served.request("/computes")
    until(lambda: shared["begun"] == 1)
    client.close()
    log.take("is killed")
    served.until_idle()
    client = served.request("/computes")
    until(lambda: shared["begun"] == 2)
    served.call(lambda: served.server.mind_time(0.0, 200.0))
    assert client.response().status == 504
    log.take("is killed")
    log.take("its wait is ended")
    assert served.get("/pid").status == 200
    assert not shared["caught"]


def test_a_process_that_is_killed_costs_its_request_alone(serve: Serve, log: Log) -> None:
    """Before the head, in the body and between requests, beside one that goes on."""
    shared = Shared()
    served = serve(waiting(shared), processes=2)
    executor = children(served)
    beside = served.request("/computes")
    until(lambda: shared["begun"] == 1)
    (kept,) = (each.pid for each in executor._links.values() if each.call is not None)

    def kill() -> int:
        (pid,) = (each.pid for each in executor._links.values() if each.pid != kept)
        os.kill(pid, signal.SIGKILL)
        return pid

    before = served.request("/")
    until(lambda: shared["begun"] == 2)
    pid = kill()
    assert before.response().status == 500
    assert f"process {pid} was killed by SIGKILL" in log.take("GET / of").getMessage()

    within = served.request("/body")
    assert (within.head().status, within.chunk()) == (200, b"begun")
    pid = kill()
    assert within.rest() == b""  # no last chunk
    assert f"process {pid} was killed by SIGKILL" in log.take("GET /body of").getMessage()

    assert served.get("/pid").status == 200
    until(lambda: served.status.running == 1)  # a process's last word may come after the answer
    idle = kill()
    answer = served.get("/pid")
    assert answer.status == 200
    assert answer.body != str(idle).encode()
    until(lambda: gone(idle))

    beside.close()
    shared["gate"] = 1
    until(lambda: shared["caught"] == 1)


def test_answers_are_never_another_request_s(serve: Serve, log: Log) -> None:
    """Processes are killed all the while; who is answered 200 is answered what he has asked."""
    served = serve(answering(lambda environ: environ["PATH_INFO"] * 20_000), processes=2, queue=100)
    executor = children(served)
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.01):
            for each in list(executor._links.values()):
                if each.pid and not each.ended:
                    with suppress(ProcessLookupError):
                        os.kill(each.pid, signal.SIGKILL)
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        answers = []
        for round_ in range(10):
            clients = {each: served.request(f"/{round_}-{each}") for each in range(8)}
            answers += [
                (f"/{round_}-{each}", client.response()) for each, client in clients.items()
            ]
    finally:
        stop.set()
        killer.join()
    right = [each for path, each in answers if each.status == 200 and each.complete]
    with Failures() as failures:
        for path, response in answers:
            with failures.of(path):
                assert response.status in (200, 500)
                if response.status == 200:
                    whole = (path * 20_000).encode()
                    assert whole.startswith(response.body)
                    assert not response.complete or response.body == whole
    assert right
    served.until_idle()
    log.records.clear()  # one line for each that was killed


def test_a_process_that_cannot_be_replaced_is_told_of(serve: Serve, log: Log) -> None:
    """Without the process that starts them, those that are there go on."""
    served = serve(answering(lambda _: str(os.getpid())), processes=2)
    pid = int(served.get().body)
    os.kill(children(served).nursery.pid, signal.SIGKILL)
    log.take("they are no longer replaced")
    assert served.get().body == str(pid).encode()
    served.until_idle()  # the process's last word may come after the answer
    os.kill(pid, signal.SIGKILL)
    until(lambda: not children(served).able)
    assert served.get().status == 503


def test_one_request_too_many_is_refused(serve: Serve) -> None:
    """One has the process, one waits for it, and the third is one too many."""
    shared = Shared()
    served = serve(waiting(shared), processes=1, queue=1)
    first = served.request("/computes")
    until(lambda: shared["begun"])
    second = served.request("/pid")
    until(lambda: served.status.queued == 1)
    third = served.get("/pid")
    assert (third.status, third.header("Retry-After")) == (503, "1")
    until(lambda: len(served.server.requests()) == 2)  # the third has ended
    (running, queued) = served.server.requests()
    assert (running.state, running.thread.split()[0], queued.state) == (
        "running",
        "process",
        "queued",
    )
    assert (served.status.threads, served.status.threads_busy, served.status.threads_max) == (
        1,
    ) * 3
    first.close()
    shared["gate"] = 1
    assert second.response().status == 200


def still(shared: Shared) -> int:
    """Return the count once it has not grown for a while."""
    seen = [-1]

    def same() -> bool:
        seen.append(shared["count"])
        threading.Event().wait(0.2)
        return shared["count"] == seen[-1] > 0

    until(same)
    return shared["count"]


def test_a_slow_client_holds_up_the_application(serve: Serve) -> None:
    """Of 100 MB it has made a few when the client takes none; then it makes the rest."""
    shared = Shared()

    def application(_: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for _number in range(1600):
            shared["count"] += 1
            yield BLOCK

    served = serve(application, processes=1)
    client = served.connect(window=65536)
    client.send(request("/"))
    assert still(shared) < 800
    assert len(client.response().body) == 1600 * len(BLOCK)


def test_an_application_that_does_not_read_holds_up_the_client(serve: Serve) -> None:
    """Of 100 MB a few are taken; then it reads them all."""
    shared = Shared()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(1)
        shared.await_gate()
        count = 1
        while block := environ["wsgi.input"].read(1_000_000):
            count += len(block)
        start_response("200 OK", PLAIN)
        return [str(count).encode()]

    served = serve(application, processes=1, request_timeout=0.0)
    client = served.connect()
    size = 1600 * len(BLOCK)
    client.send(request("/", method="POST", headers=[f"Content-Length: {size}"]))

    def upload() -> None:
        for _ in range(1600):
            client.send(BLOCK)
            shared["count"] += 1

    uploads = threading.Thread(target=upload)
    uploads.start()
    assert still(shared) < 800
    shared["gate"] = 1
    uploads.join()
    assert client.response().body == str(size).encode()


def test_a_fork_of_the_application_s_is_not_the_process(serve: Serve, log: Log) -> None:
    """It sends nothing to the client, and keeps no socket open."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/fork":
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
        start_response("200 OK", PLAIN)
        return [str(os.getpid()).encode()]

    served = serve(application, processes=1)
    pid = served.get().body
    assert [served.get("/fork").body, served.get().body] == [pid, pid]


def test_what_starts_and_stops_is_called_in_each_process(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And makes the state that its requests see."""
    shared = Shared()
    monkeypatch.setattr("bide.serving.lifetime._starts", [])
    monkeypatch.setattr("bide.serving.lifetime._stops", [])

    def begin(state: dict[str, Any]) -> None:
        state["pid"] = os.getpid()

    def end(state: dict[str, Any]) -> None:
        if os.getpid() == state["pid"] != here:
            shared["caught"] += 1

    here = os.getpid()
    bide.on_start(begin)
    bide.on_stop(end)
    served = serve(
        answering(lambda environ: str(environ["bide.state"]["pid"] == os.getpid())), processes=1
    )
    assert served.get().text == "True"
    served.stop()
    assert shared["caught"] == 1


def test_a_process_that_cannot_start_is_named_and_tried_again(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for it is served by the next one."""
    shared = Shared()
    monkeypatch.setattr("bide.serving.lifetime._starts", [])
    monkeypatch.setattr("bide.children.executor.PAUSE", 0.05)
    here = os.getpid()

    def begin() -> None:
        if os.getpid() != here:
            shared["count"] += 1
            if shared["count"] == 1:
                raise LookupError("not yet")

    bide.on_start(begin)
    served = serve(answering(lambda _: "served"), processes=1)
    assert served.get().text == "served"
    assert "not yet" in log.take("cannot start").getMessage()
    log.take("cannot be started: has ended with exit code 1")


def test_the_sockets_of_the_server_are_its_own(serve: Serve) -> None:
    """Once it has stopped accepting, its address is free, whatever its processes do."""
    served = serve(answering(lambda _: "served"), processes=1)
    assert served.get().text == "served"
    host, _, port = served.address.rpartition(":")
    served.call(served.server.stop_accepting)
    with socket.socket() as sock:
        sock.bind((host, int(port)))
        sock.listen()


def test_a_server_that_cannot_start_leaves_no_process(
    executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is in use."""
    pids: list[int] = []

    class Noted(Nursery):
        def __init__(self, work: Any) -> None:
            super().__init__(work)
            pids.append(self.pid)

    monkeypatch.setattr("bide.children.executor.Nursery", Noted)
    application = bide.capable("processes")(answering(lambda _: "served"))

    async def start(address: str) -> None:
        await bide.Server(application, bind=address).start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BindError):
            asyncio.run(start(f"127.0.0.1:{taken.getsockname()[1]}"))
    assert [gone(each) for each in pids] == [True]
