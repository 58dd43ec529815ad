"""More than the server can do at once: of requests, of connections, of the system's descriptors.

Each is answered, or waits where it costs nothing; nothing hangs, and all is well again afterwards.
"""

import contextlib
import http.client
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bide import in_thread, wait
from bide.transports.acceptor import PAUSE
from tests.conftest import Serve
from tests.live.conftest import Start
from tests.live.processes import get
from tests.served import (
    DEADLINE,
    LONG,
    Application,
    Busy,
    Client,
    Environ,
    Gate,
    Log,
    Response,
    Served,
    answering,
    request,
    until,
)

both = pytest.mark.parametrize("executor", ["threads", "loop"])


@pytest.fixture
def busy() -> Iterator[Busy]:
    """Return the application; it is released with the test."""
    busy = Busy()
    yield busy
    busy.release.set()


def is_refused(response: Response) -> bool:
    """Whether it is the answer of a server whose threads are busy."""
    return (response.status, response.header("Retry-After"), response.complete) == (503, "1", True)


def fill(served: Served, busy: Busy, threads: int, queue: int) -> list[Client]:
    """Occupy each thread and each place in the queue; give the clients."""
    clients = [served.request(f"/running/{number}") for number in range(threads)]
    until(lambda: len(busy.called) == threads, "not all threads are busy")
    clients += [served.request(f"/queued/{number}") for number in range(queue)]
    until(lambda: served.status.queued == queue, "the queue is not full")
    return clients


# Threads and their queue -------------------------------------------------------------------------


def test_each_request_beyond_the_queue_is_answered_and_may_come_again(
    serve: Serve, busy: Busy
) -> None:
    """503 with Retry-After for each, on connections that go on; the health answer meanwhile."""
    served = serve(busy.application, threads=2, limit_threads=2, queue=3, health="/health")
    admitted = fill(served, busy, 2, 3)
    refused = [served.request("/refused") for _ in range(20)]
    for client in refused:
        assert is_refused(client.response())
    assert served.get("/health").text == "ok\n"
    for client in refused:
        client.send(request("/health"))
        assert client.response().text == "ok\n"
    assert (served.status.queued, served.status.threads_busy) == (3, 2)
    busy.release.set()
    for client in admitted:
        assert client.response().text == "served"
    served.until_idle()
    for client in refused:
        client.send(request("/again"))
        assert client.response().text == "served"
    assert "/refused" not in busy.called


def test_requests_that_were_queued_for_too_long_are_answered_and_never_run(
    serve: Serve, busy: Busy
) -> None:
    """Each of them, at the head of the queue or behind; the place is free for others then."""
    served = serve(busy.application, threads=1, queue=4, queue_timeout=LONG, health="/health")
    running, *queued = fill(served, busy, 1, 4)
    served.advance(LONG)
    for client in queued:
        assert is_refused(client.response())
    assert served.get("/health").text == "ok\n"
    late = served.request("/late")
    busy.release.set()
    assert running.response().text == "served"
    assert late.response().text == "served"
    assert sorted(busy.called) == ["/late", "/running/0"]


def test_the_health_path_is_answered_behind_a_pipeline_that_is_refused(
    serve: Serve, busy: Busy
) -> None:
    """In its turn, as all answers are; what is refused needs no thread either."""
    served = serve(busy.application, threads=1, queue=0, health="/health")
    fill(served, busy, 1, 0)
    client = served.connect()
    client.send(request("/") * 5 + request("/health") + request("/", method="POST", body=b"x"))
    assert [client.response().status for _ in range(7)] == [503] * 5 + [200, 503]


# Connections -------------------------------------------------------------------------------------


def waiting_at(gate: Gate) -> Application:
    """Make an application that waits for a gate, without a thread; ``/quick`` does not."""

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] != "/quick":
            wait(gate.promise())
        return str(environ["PATH_INFO"])

    return answering(answer)


@both
def test_one_connection_too_many_waits_and_is_served_when_another_ends(
    serve: Serve, log: Log, executor: str
) -> None:
    """In the backlog, with its request; whoever is being served is not disturbed. One log line."""
    gate = Gate()
    served = serve(waiting_at(gate), executor=executor, limit_connections=3)
    inside = [served.request("/wait") for _ in range(3)]
    served.until_waiting(3)
    outside = [served.request("/quick") for _ in range(4)]
    log.take("all 3 connections are in use")
    assert served.status.connections == 3
    assert all(client.is_silent() for client in outside)
    inside.pop().close()  # the first of those outside takes its place, and ends in its turn
    for client in outside:
        assert client.response().text == "/quick"
        client.close()
    gate.open()
    for client in inside:
        assert client.response().text == "/wait"


@both
def test_idle_connections_make_room_for_new_ones(serve: Serve, log: Log, executor: str) -> None:
    """Those that wait for nothing and were kept alive; not those with a request."""
    gate = Gate()
    served = serve(waiting_at(gate), executor=executor, limit_connections=4)
    working = served.request("/wait")
    half = served.connect()
    half.send(b"GET /quick HTTP/1.1\r\nHost:")
    idle = [served.request("/quick") for _ in range(2)]
    for client in idle:
        assert client.response().complete
    until(lambda: served.receiving)
    outside = served.request("/quick")
    log.take("all 4 connections are in use")
    served.advance(0.0)
    assert outside.response().text == "/quick"
    for client in idle:
        assert client.rest() == b""
    half.send(b" test\r\n\r\n")
    assert half.response().text == "/quick"
    gate.open()
    assert working.response().text == "/wait"


def test_the_health_path_is_answered_when_hardly_a_connection_is_left(
    serve: Serve, busy: Busy
) -> None:
    """With all threads and the queue full as well."""
    served = serve(busy.application, threads=1, queue=2, limit_connections=5, health="/health")
    fill(served, busy, 1, 2)
    assert served.status.connections == 3
    for _ in range(3):
        assert served.get("/health", headers=["Connection: close"]).text == "ok\n"
        until(lambda: served.status.connections == 3)


# Descriptors -------------------------------------------------------------------------------------

LIMITED = """
import asyncio, errno, os, resource, socket
from pathlib import Path
from bide import wait

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
notes = os.open("failed", os.O_CREAT | os.O_WRONLY)
failed = 0
accept = socket.socket.accept

def counting(listener):
    global failed
    try:
        return accept(listener)
    except OSError as error:
        if error.errno == errno.EMFILE:
            failed += 1
            os.pwrite(notes, b"%d" % failed, 0)
        raise

socket.socket.accept = counting

async def opened():
    while not Path("open").exists():  # needs no descriptor
        await asyncio.sleep(0.01)

def app(environ, start_response):
    wait(opened())
    start_response("200 OK", [])
    return []
"""


def test_accepting_pauses_when_the_descriptors_run_out(start: Start, tmp_path: Path) -> None:
    """It tries again after each pause and no more often, says so once, and then serves them all."""
    (tmp_path / "mysite.py").write_text(LIMITED)
    # Without a control socket, whose accepting would be counted, too.
    program = start("mysite:app", "--bind", "127.0.0.1:0", "--no-control")
    address = program.serving()
    descriptors = Path(f"/proc/{program.pid}/fd")
    before = set(os.listdir(descriptors))
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(contextlib.closing(Client(address))) for _ in range(60)]
        began = time.monotonic()
        for client in clients:
            client.send(request(headers=["Connection: close"]))
        program.until("no connections can be accepted for now: Too many open files")
        until(lambda: tries(tmp_path) >= 3)
        # A bound from above, which no slow machine can break: what spins tries thousands of times.
        assert tries(tmp_path) <= (time.monotonic() - began) / PAUSE + 2
        (tmp_path / "open").touch()
        for client in clients:
            assert client.response().status == 200
            client.close()  # else the server reads on for a while, and its descriptor is in use
    until(lambda: set(os.listdir(descriptors)) == before, "descriptors were left open")
    assert get(address).status == 200
    program.close()
    assert sum("Too many open files" in line for line in program.lines) == 1


def tries(directory: Path) -> int:
    """Return how often accepting has failed."""
    text = (directory / "failed").read_text()
    return int(text) if text else 0


# An application that calls its own server --------------------------------------------------------


def fetch(environ: Environ, path: str, timeout: float = DEADLINE) -> str:
    """Get a path of the server that serves this request, and block meanwhile; say what came."""
    connection = http.client.HTTPConnection(
        environ["SERVER_NAME"], environ["SERVER_PORT"], timeout=timeout
    )
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return f"{response.status} {response.read().decode()}"


async def fetch_later(environ: Environ, path: str) -> str:
    """Get a path of that server, and hold no thread meanwhile; say what came."""
    url = f"http://{environ['SERVER_NAME']}:{environ['SERVER_PORT']}{path}"
    async with httpx.AsyncClient(timeout=DEADLINE, trust_env=False, verify=False) as client:
        response = await client.get(url)
        return f"{response.status_code} {response.text}"


@pytest.mark.parametrize("settings", [{"queue": 0}, {"queue_timeout": LONG}])
def test_blocking_calls_to_the_own_server_are_answered_503(
    serve: Serve, settings: dict[str, float]
) -> None:
    """All threads wait for requests that wait for a thread: some are refused, and all go on."""
    everyone = threading.Barrier(4)

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] != "/outer":
            return "inner"
        everyone.wait(DEADLINE)
        return fetch(environ, "/inner")

    served = serve(answering(answer), threads=3, limit_threads=3, **settings)
    clients = []
    for number in range(3):
        clients.append(served.request("/outer"))
        until(lambda number=number: everyone.n_waiting == number + 1)  # type: ignore[misc]
    everyone.wait(DEADLINE)
    if "queue_timeout" in settings:
        until(lambda: served.status.queued == 3)
        served.advance(LONG)
    answers = set()
    for client in clients:
        answers.add(client.response().text)
    # The first to be refused sets its thread free, perhaps in time for the next one.
    refused = "503 All threads are busy.\n"
    assert answers in ({refused}, {refused, "200 inner"})
    served.until_idle()
    assert served.get("/inner").text == "inner"


def test_a_blocking_call_to_the_own_server_on_the_loop_ends_with_its_own_time_out(
    serve: Serve,
) -> None:
    """Nobody else can end it; the connection that it made is then accepted, and nothing is lost."""

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] != "/outer":
            return "inner"
        with pytest.raises(TimeoutError):
            fetch(environ, "/inner", timeout=0.2)
        return "gave up"

    served = serve(answering(answer), executor="loop")
    assert served.get("/outer").text == "gave up"
    assert served.get("/inner").text == "inner"


@both
@pytest.mark.parametrize("how", ["awaited", "in a thread"])
def test_waiting_calls_to_the_own_server_just_work(serve: Serve, executor: str, how: str) -> None:
    """On one thread, many at once, and through more than one request."""

    def answer(environ: Environ) -> str:
        depth = int(environ["PATH_INFO"][1:])
        if not depth:
            return "the end"
        inner = f"/{depth - 1}"
        if how == "awaited":
            return f"{depth} {wait(fetch_later(environ, inner))}"
        return f"{depth} {wait(in_thread(fetch, environ, inner))}"

    served = serve(answering(answer), executor=executor, threads=1, queue=100)
    # A call in a thread has one of the loop's own, of which there are at least five.
    clients = [served.request("/2") for _ in range(20 if how == "awaited" else 2)]
    for client in clients:
        assert client.response().text == "2 200 1 200 the end"
