"""Threads only ever run code; they never wait: many requests, few lanes, real sockets."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import httpx
import pytest
from flask import Flask

import bide.serving.server
from bide import capable, in_thread, iterate, wait
from tests.conftest import Serve
from tests.served import (
    DEADLINE,
    LONG,
    Environ,
    Gate,
    Log,
    answering,
    happened,
    request,
    until,
)

BOTH = pytest.mark.parametrize("executor", ["threads", "loop"])


@BOTH
def test_five_hundred_flask_requests_are_parked_on_a_few_threads(
    serve: Serve, executor: str
) -> None:
    """All at once, by the server's own numbers; released together, all are answered.

    Not on more threads than it may have, and on every one of these.
    """
    app = Flask(__name__)
    gate = Gate()

    @app.get("/<int:number>")
    def view(number: int) -> str:
        wait(gate.promise())
        return f"{number} {threading.current_thread().name}"

    served = serve(app, threads=4, limit_threads=6, executor=executor)
    clients = [served.request(f"/{number}") for number in range(500)]
    served.until_waiting(500)
    until(lambda: served.status.threads_busy == 0)
    status = served.status
    assert (status.connections, status.queued) == (500, 0)
    assert status.threads == (6 if executor == "threads" else 0)
    gate.open()
    threads = set()
    for number, client in enumerate(clients):
        answered, _, thread = client.response().text.partition(" ")
        assert int(answered) == number
        threads.add(thread)
    assert len(threads) == (6 if executor == "threads" else 1)
    served.until_idle()


def test_a_waiting_view_waits_with_httpx(serve: Serve) -> None:
    """One client for the process, on the server's loop; the upstream is another Bide."""
    gate = Gate()
    upstream = serve(answering(lambda environ: wait(gate.promise()) or b"upstream"), threads=1)
    app = Flask(__name__)
    made: list[httpx.AsyncClient] = []

    @app.get("/")
    def view() -> str:
        response = wait(made[0].get(upstream.url))
        return f"{response.status_code} {response.text}"

    served = serve(app, threads=1)
    made.append(served.call(lambda: httpx.AsyncClient(timeout=DEADLINE, trust_env=False)))
    clients = [served.request() for _ in range(20)]
    served.until_waiting(20)
    upstream.until_waiting(20)
    gate.open()
    for client in clients:
        assert client.response().text == "200 upstream"
    asyncio.run_coroutine_threadsafe(made[0].aclose(), served.loop).result(DEADLINE)


def test_a_blocking_view_delays_its_own_lane_only(serve: Serve) -> None:
    """Those that wait on the other lanes go on; those of its own after it."""
    gate = Gate()
    release = threading.Event()
    lanes: dict[str, list[str]] = {}
    parked_on: list[str] = []

    def answer(environ: Environ) -> str:
        name = threading.current_thread().name
        if environ["PATH_INFO"] == "/block":
            lanes.setdefault("blocked", []).append(name)
            happened(release)
        else:
            parked_on.append(name)
            wait(gate.promise())
        return name

    served = serve(answering(answer), threads=4, limit_threads=4)
    # Parked conversations on every lane: a new one goes to the lane that has the fewest.
    clients = []
    for number in range(40):
        clients.append(served.request("/wait"))
        served.until_waiting(number + 1)
    assert len(parked_on) == 40
    blocking = served.request("/block")
    until(lambda: lanes.get("blocked"))
    gate.open()
    (blocked,) = lanes["blocked"]
    # The lane of each, by what it was parked on.
    own = [client for client, lane in zip(clients, parked_on, strict=True) if lane == blocked]
    others = [client for client in clients if client not in own]
    for client in others:
        assert client.response().text != blocked
    assert all(client.is_silent() for client in own)
    release.set()
    for client in (blocking, *own):
        assert client.response().text == blocked


def test_new_requests_go_to_the_other_lanes_while_one_is_blocked(serve: Serve) -> None:
    """None stands behind it."""
    release = threading.Event()
    blocked = [threading.Event() for _ in range(3)]

    def answer(environ: Environ) -> str:
        path = environ["PATH_INFO"]
        if path.startswith("/block"):
            blocked[int(path[-1])].set()
            happened(release)
        return threading.current_thread().name

    served = serve(answering(answer), threads=4)
    blocking = [served.request(f"/block{number}") for number in range(3)]
    for event in blocked:
        happened(event)
    names = {served.get().text for _ in range(20)}
    assert len(names) == 1
    release.set()
    assert {client.response().text for client in blocking}.isdisjoint(names)


def test_threads_are_started_when_they_are_needed(serve: Serve) -> None:
    """One after another, and no more than allowed."""
    release = threading.Event()
    served = serve(answering(lambda environ: happened(release)), threads=3, limit_threads=3)
    assert served.status.threads == 0
    clients = []
    for number in range(1, 4):
        clients.append(served.request())
        until(lambda number=number: served.status.threads_busy == number)  # type: ignore[misc]
        assert served.status.threads == number
    clients.append(served.request())
    until(lambda: served.status.queued == 1)
    assert served.status.threads == 3
    release.set()
    for client in clients:
        assert client.response().complete


def test_a_full_queue_is_answered_503(serve: Serve) -> None:
    """At once, with Retry-After; what was queued is served, and the connection goes on."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)

    served = serve(answering(answer), threads=1, queue=2)
    running = served.request()
    happened(begun)
    queued = [served.request() for _ in range(2)]
    until(lambda: served.status.queued == 2)
    client = served.request()
    response = client.response()
    assert (response.status, response.header("Retry-After")) == (503, "1")
    assert response.complete
    release.set()
    for each in (running, *queued):
        assert each.response().status == 200
    client.send(request())
    assert client.response().status == 200


def test_without_a_queue_a_free_thread_is_enough(serve: Serve) -> None:
    """--queue 0: served when a lane is free, else 503."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)

    served = serve(answering(answer), threads=1, queue=0)
    running = served.request()
    happened(begun)
    assert served.get().status == 503
    release.set()
    assert running.response().status == 200
    served.until_idle()
    until(lambda: served.get().status == 200)


def test_a_request_that_waits_for_a_thread_for_too_long_is_answered_503(serve: Serve) -> None:
    """queue_timeout, in seconds; the one that has the thread goes on."""
    begun, release = threading.Event(), threading.Event()
    called: list[str] = []

    def answer(environ: Environ) -> None:
        called.append(environ["PATH_INFO"])
        begun.set()
        happened(release)

    served = serve(answering(answer), threads=1, queue_timeout=LONG)
    running = served.request("/running")
    happened(begun)
    queued = served.request("/queued")
    until(lambda: served.status.queued == 1)
    served.advance(LONG)
    response = queued.response()
    assert (response.status, response.header("Retry-After")) == (503, "1")
    release.set()
    assert running.response().status == 200
    served.until_idle()
    assert called == ["/running"]


def test_a_blocked_lane_is_named_in_the_log(serve: Serve, log: Log) -> None:
    """The request, its stack, how many are held up; and a line when it goes on."""
    begun, release = threading.Event(), threading.Event()
    gate = Gate()

    def deep_inside() -> None:
        begun.set()
        happened(release)

    def answer(environ: Environ) -> None:
        if environ["PATH_INFO"] == "/block":
            deep_inside()
        else:
            wait(gate.promise())

    served = serve(answering(answer), threads=1, blocked_thread=LONG)
    parked = [served.request("/wait") for _ in range(3)]
    served.until_waiting(3)
    blocking = served.request("/block?query")
    happened(begun)
    served.notice(LONG)
    message = log.take("has been blocked").getMessage()
    assert "GET /block?query of " in message
    assert "3 waiting requests on this thread are delayed" in message
    assert "deep_inside" in message
    assert "bide-thread-1" in message
    release.set()
    assert blocking.response().complete
    line = served.goes_on(log, "bide-thread-1").getMessage()
    assert "GET /block?query" in line
    gate.open()
    for client in parked:
        assert client.response().complete


@pytest.mark.parametrize("executor", ["loop"])
def test_a_blocked_loop_is_named_in_the_log(serve: Serve, log: Log, executor: str) -> None:
    """More loudly: everybody is held up."""
    begun, release = threading.Event(), threading.Event()
    gate = Gate()

    def answer(environ: Environ) -> None:
        if environ["PATH_INFO"] == "/block":
            begun.set()
            happened(release)
        else:
            wait(gate.promise())

    served = serve(answering(answer), executor=executor, blocked_loop=LONG)
    parked = served.request("/wait")
    served.until_waiting(1)
    blocking = served.request("/block")
    happened(begun)
    record = served.blocked_loop(log, LONG)
    assert record.levelname == "ERROR"
    assert "GET /block of " in record.getMessage()
    assert "1 other request in progress is delayed" in record.getMessage()
    assert "in answer" in record.getMessage()
    release.set()
    assert blocking.response().complete
    served.goes_on(log, "the event loop")
    gate.open()
    assert parked.response().complete


def test_a_coroutine_that_blocks_the_loop_is_named_too(serve: Serve, log: Log) -> None:
    """On the threads executor a coroutine runs on the loop as well."""
    begun, release = threading.Event(), threading.Event()

    async def blocking() -> None:
        begun.set()
        happened(release)

    served = serve(answering(lambda environ: wait(blocking())), blocked_loop=LONG)
    client = served.request()
    happened(begun)
    message = served.blocked_loop(log, LONG).getMessage()
    assert "a callback or a coroutine" in message
    assert "in blocking" in message
    release.set()
    assert client.response().complete
    served.goes_on(log, "the event loop")


@BOTH
def test_pipelined_requests_are_answered_in_order(serve: Serve, executor: str) -> None:
    """Though the later ones would be ready first; more than the server reads ahead."""
    gates = [Gate() for _ in range(40)]

    def answer(environ: Environ) -> str:
        number = int(environ["PATH_INFO"][1:])
        wait(gates[number].promise())
        return str(number)

    served = serve(answering(answer), executor=executor)
    client = served.connect()
    client.send(b"".join(request(f"/{number}") for number in range(40)))
    for gate in reversed(gates[1:]):
        gate.open()
    served.until_waiting(1)
    assert client.is_silent()
    gates[0].open()
    assert [client.response().text for _ in range(40)] == [str(number) for number in range(40)]


@BOTH
def test_pipelined_requests_in_one_piece_with_bodies(serve: Serve, executor: str) -> None:
    """Read and unread, chunked and with a length, cut at every place."""

    def answer(environ: Environ) -> bytes:
        body = environ["wsgi.input"]
        return bytes(body.read()) if environ["QUERY_STRING"] != "skip" else b"skipped"

    chunked = request("/", method="POST", headers=["Transfer-Encoding: chunked"])
    data = (
        request("/", method="POST", body=b"one")
        + request("/?skip", method="POST", body=b"x" * 1000)
        + chunked
        + b"3\r\ntwo\r\n0\r\n\r\n"
        + request("/")
    )
    served = serve(answering(answer), executor=executor)
    for size in (1, 7, len(data)):
        client = served.connect()
        for at in range(0, len(data), size):
            client.send(data[at : at + size])
        bodies = [client.response().body for _ in range(4)]
        assert bodies == [b"one", b"skipped", b"two", b""]


def test_slow_uploads_hold_no_thread(serve: Serve) -> None:
    """Fifty of them stall on one thread, and a quick request is answered."""
    served = serve(answering(lambda environ: str(len(environ["wsgi.input"].read()))), threads=1)
    slow = [served.connect() for _ in range(50)]
    for client in slow:
        client.send(request(method="POST", headers=["Content-Length: 10"]) + b"x" * 5)
    served.until_waiting(50)
    assert served.get(method="POST", body=b"quick").text == "5"
    for client in slow:
        client.send(b"x" * 5)
    for client in slow:
        assert client.response().text == "10"


def test_slow_readers_hold_no_thread(serve: Serve) -> None:
    """Twenty of them read nothing, and a quick request is answered on the one thread."""
    size = 8 * 1024 * 1024

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/quick":
            return [b"quick"]
        return (b"x" * 65536 for _ in range(size // 65536))

    served = serve(application, threads=1)
    slow = [served.connect(window=4096) for _ in range(20)]
    for client in slow:
        client.send(request("/slow"))
    served.until_waiting(20)
    assert served.get("/quick").body == b"quick"
    for client in slow[:3]:
        response = client.response()
        assert (len(response.body), response.complete) == (size, True)


def test_stalled_heads_hold_nothing(serve: Serve) -> None:
    """A hundred clients that have sent half a head; those that send nothing; a quick request."""
    served = serve(answering(lambda environ: b"quick"), threads=1)
    stalled = [served.connect() for _ in range(100)]
    for client in stalled[:50]:
        client.send(b"GET / HTTP/1.1\r\nHost:")
    assert served.get().body == b"quick"
    assert served.status.waiting == 0


def test_a_head_that_takes_too_long_is_answered_408(serve: Serve) -> None:
    """And an idle connection is closed, each after its own time."""
    served = serve(answering(lambda environ: b"x"), head_timeout=LONG, idle_timeout=3 * LONG)
    half, idle = served.connect(), served.request()
    assert idle.response().complete
    served.until_idle()  # the client has its answer a moment before its connection is idle
    half.send(b"GET / HTTP/1.1\r\n")
    until(lambda: served.receiving)
    served.advance(LONG)
    assert half.response().status == 408
    assert half.rest() == b""
    assert idle.is_silent()
    served.advance(3 * LONG)
    assert idle.rest() == b""


def test_a_server_runs_beside_somebody_s_own_asyncio_program() -> None:
    """`async with bide.Server`: on the program's loop, with its own tasks and its own client."""
    ticks: list[int] = []

    async def value() -> bytes:
        await asyncio.sleep(0)
        return b"waited"

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [wait(value())]

    async def ticking() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def program() -> None:
        task = asyncio.create_task(ticking())
        async with (
            bide.Server(application, bind="127.0.0.1:0", threads=2) as server,
            httpx.AsyncClient(timeout=DEADLINE, trust_env=False) as client,
        ):
            url = f"http://{server.addresses[0]}"
            responses = await asyncio.gather(*(client.get(url) for _ in range(20)))
            assert [response.content for response in responses] == [b"waited"] * 20
            assert server.status().connections > 0
        task.cancel()

    asyncio.run(program())
    assert len(ticks) > 1


def test_a_server_that_cannot_start_leaves_nothing(serve: Serve) -> None:
    """In somebody's own program: StartError, and no thread, no socket."""
    served = serve(answering(lambda environ: b"x"))

    async def program() -> None:
        with pytest.raises(bide.StartError):
            async with bide.Server(answering(lambda environ: b"x"), bind=served.address):
                raise AssertionError

    before = threading.active_count()
    asyncio.run(program())
    assert threading.active_count() == before


@BOTH
def test_server_sent_events_reach_many_viewers(serve: Serve, executor: str) -> None:
    """One source, many streams: each event reaches every viewer before the next is sent."""
    app = Flask(__name__)
    queues: list[asyncio.Queue[int]] = []

    async def source() -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue()
        queues.append(queue)
        while True:
            yield await queue.get()

    @app.get("/")
    def events() -> Any:
        return (f"data: {each}\n\n" for each in iterate(source())), {
            "Content-Type": "text/event-stream"
        }

    served = serve(app, threads=2, executor=executor)
    viewers = [served.request() for _ in range(30)]
    served.until_waiting(30)
    until(lambda: len(queues) == 30)
    for number in range(3):
        for queue in queues:
            served.call(queue.put_nowait, number)
        for viewer in viewers:
            if not number:
                viewer.head()
            assert viewer.chunk() == b"data: %d\n\n" % number
    for viewer in viewers:
        viewer.close()
    served.until_idle()


@BOTH
def test_many_clients_of_every_kind_at_once(serve: Serve, executor: str) -> None:
    """Waiting, threads, streams, uploads, departures: all are accounted for at the end."""

    async def value(of: int) -> int:
        await asyncio.sleep(0)
        return of

    @capable("async", "threads")
    def application(environ: Environ, start_response: Any) -> Any:
        number = int(environ["PATH_INFO"][1:])
        if number % 4 == 0:
            body = [b"%d" % wait(value(number))]
        elif number % 4 == 1:
            body = [b"%d" % wait(in_thread(lambda: number))]
        elif number % 4 == 2:
            body = [environ["wsgi.input"].read()]
        else:
            body = [b"%d" % each for each in (wait(value(number)),)]
        start_response("200 OK", [])
        return iter(body)

    served = serve(application, threads=3, executor=executor)
    answered: list[int] = []
    failed: list[BaseException] = []

    def client(first: int) -> None:
        try:
            connection = served.connect()
            for number in range(first, first + 40):
                body = b"%d" % number if number % 4 == 2 else b""
                connection.send(request(f"/{number}", method="POST", body=body))
                if number % 13 == 0:
                    connection.close()
                    connection = served.connect()
                    continue
                assert connection.response().text == str(number)
                answered.append(number)
        except BaseException as error:
            failed.append(error)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(0, 4000, 500)))
    assert not failed
    assert len(answered) == sum(
        number % 13 != 0 for first in range(0, 4000, 500) for number in range(first, first + 40)
    )
    served.until_idle()
