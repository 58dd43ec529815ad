"""What a second, sceptical reading of the source found: each fault once, so that it stays away."""

import asyncio
import contextlib
import gc
import logging
import math
import os
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bide.serving.server
import bide.waiting.waiter
from bide import ClientDisconnected, using, wait
from bide.errors import BindError, SettingError
from bide.exchange.messages import _FIELDS, _STATUSES, Head
from bide.executors.monitor import Monitor
from bide.executors.threads import ThreadsExecutor
from bide.serving.loggers import access
from bide.transports.addresses import Address, listen, parse_address
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from bide.waiting.waiter import background_loop
from tests.conftest import Serve
from tests.contract.test_races_of_lanes import Act, nothing, turn
from tests.served import (
    DEADLINE,
    LONG,
    Closing,
    Environ,
    Gate,
    Log,
    answering,
    happened,
    request,
    until,
)

both = pytest.mark.parametrize("executor", ["threads", "loop"])


def test_a_woken_lane_takes_its_job_before_a_wait_that_was_settled_since() -> None:
    """What the wait goes on with may block for long, and no other lane was told of the job."""
    loop = asyncio.new_event_loop()
    executor = ThreadsExecutor(loop, 2, queue=10)
    release, signal, late = threading.Event(), Signal(), threading.Event()

    def park_then_block(job: Act) -> None:
        job.waiter.wait(signal)
        late.set()
        happened(release)

    waiting, job = Act(executor, park_then_block), Act(executor, nothing)
    try:
        assert executor.submit(waiting)
        executor.flush()
        happened(waiting.begun)
        lane = executor.roster.lanes[0]
        until(lambda: lane.idle)
        # One after another without a turn for the lane: its queue gets the word, then the wait.
        assert executor.submit(job)
        executor.flush()
        signal.fire()
        happened(late)
        turn(loop, job.begun)
    finally:
        release.set()
        executor.stop()
        executor.join(DEADLINE)
        loop.close()


@pytest.mark.parametrize("kind", [iter, tuple])
def test_headers_that_are_no_list_are_sent_and_counted_alike(serve: Serve, kind: Any) -> None:
    """An iterator told its Content-Length, and was empty when it came to be sent."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", kind([("Content-Length", "5"), ("X-Kind", "some")]))
        return [b"hello"]

    client = serve(application, executor="loop").connect()
    for _ in range(2):
        client.send(request())
        response = client.response()
        assert response.body == b"hello"
        assert response.header("Content-Length") == "5"
        assert response.header("X-Kind") == "some"


def test_long_statuses_and_header_names_are_not_kept() -> None:
    """An application may make them up of what clients send: the tables stay small."""
    before = len(_STATUSES), len(_FIELDS)
    head = Head("200 " + "x" * 1000, [("X" * 1000, "value")])
    assert (head.code, len(_STATUSES), len(_FIELDS)) == (200, *before)


def test_the_server_stops_though_the_application_blocks_the_pool_of_the_loop(serve: Serve) -> None:
    """What was begun by ``asyncio.to_thread`` cannot be cancelled, and holds all its threads."""
    begun, release = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        release.wait()

    async def block_all() -> None:
        await asyncio.gather(*(asyncio.to_thread(block) for _ in range(64)))

    served = serve(answering(lambda environ: wait(block_all())), executor="threads")
    client = served.request()
    happened(begun)
    served.until_waiting(1)
    client.close()
    served.until_idle()
    try:
        asyncio.run_coroutine_threadsafe(served.server.stop(), served.loop).result(DEADLINE)
    finally:
        release.set()


@both
def test_a_second_stop_returns_when_the_server_has_stopped(serve: Serve, executor: str) -> None:
    """Whoever stops it may then take its address, or end the loop."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise())), executor=executor)
    client = served.request()
    served.until_waiting(1)
    first, second = (
        asyncio.run_coroutine_threadsafe(served.server.stop(), served.loop) for _ in range(2)
    )
    served.call(lambda: None)  # the second has had its turn
    served.call(lambda: None)
    assert not second.done()
    gate.open()
    assert client.response().complete
    client.close()
    first.result(DEADLINE)
    second.result(DEADLINE)


@both
def test_a_stop_that_is_cancelled_ends_the_server_at_once(serve: Serve, executor: str) -> None:
    """By ``asyncio.timeout``, say: requests are cut, and no thread, loop or socket is kept."""
    iterables: list[Closing] = []

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", [])
        iterables.append(Closing(iter([b"begun", Gate().promise()])))
        return iterables[0]

    async def stop() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await served.server.stop()

    served = serve(application, executor=executor)
    client = served.request()
    client.head()
    served.until_waiting(1)
    asyncio.run_coroutine_threadsafe(stop(), served.loop).result(DEADLINE)
    happened(iterables[0].closed)
    client.rest()
    asyncio.run_coroutine_threadsafe(served.server.stop(), served.loop).result(DEADLINE)
    assert not served.status.connections
    until(lambda: not served.server.dispatcher.executor.alive)
    assert served.loop not in background_loop._lent


def test_what_is_queued_for_a_client_is_sent_while_there_is_time_to_stop(serve: Serve) -> None:
    """The application has ended long ago; its response was cut a second after the stop."""
    body = b"x" * 8_000_000
    served = serve(answering(lambda environ: body), executor="loop")
    client = served.connect(window=4096)
    client.send(request())
    assert client.head().status == 200
    served.until_idle()
    served.begin_stop()
    until(lambda: served.server._draining.finish_by)
    moment = time.monotonic() + 1.1  # all that other connections have
    until(lambda: time.monotonic() > moment)
    assert client.read(len(body)) == body
    served.join()


def test_a_request_that_gets_no_thread_before_the_server_stops_is_answered(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ever begin it: its client was reset, and the log said that it was running."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)

    served = serve(answering(answer), executor="threads", threads=1, graceful_timeout=0.02)
    monkeypatch.setattr(cleanup_time, "seconds", 0.02)
    served.request("/running")
    happened(begun)
    queued = served.request("/queued")
    until(lambda: served.status.queued == 1)
    served.begin_stop()
    response = queued.response()
    assert (response.status, response.header("Connection")) == (503, "close")
    served.join()
    release.set()
    served.until_idle()
    log.take("1 requests have not ended in time")
    assert "GET /running" in log.take("left running").getMessage()


@both
def test_a_client_that_does_nothing_for_too_long_is_given_up(
    serve: Serve, log: Log, tmp_path: Path, executor: str
) -> None:
    """Whatever the server waits for: that it takes a response, or sends the body it announced."""
    iterables: list[Closing] = []
    file = tmp_path / "file"
    file.write_bytes(b"x" * 8_000_000)

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/reads":
            return [environ["wsgi.input"].read()]
        if environ["PATH_INFO"] == "/iterates":
            iterables.append(Closing(b"x" * 65536 for _ in range(1000)))
            return iterables[0]
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](file.open("rb"))
        return [b"x" * 8_000_000]

    served = serve(application, executor=executor, idle_timeout=LONG)
    closing = ["Connection: close"]
    clients = [served.connect(window=4096) for _ in range(4)]
    for client, path in zip(clients, ["/", "/ends", "/iterates", "/file"], strict=True):
        client.send(request(path, headers=closing if path == "/ends" else []))
        assert client.head().status == 200
    uploading = served.connect()
    uploading.send(request("/reads", method="POST", headers=["Content-Length: 10"]))
    served.until_waiting(3)  # the upload, and whoever iterates; and the others are not idle
    until(lambda: sum(each.sending for each in served.connections) == 4)
    served.advance(LONG)
    assert uploading.response().status == 408
    assert uploading.rest() == b""
    uploading.close()
    # Again and again: the systems between may have taken some more meanwhile.
    served.advance_until(lambda: not served.status.connections, LONG)
    happened(iterables[0].closed)
    assert iterables[0].count == 1


def test_a_client_that_is_slow_is_not_given_up_where_any_rate_will_do(serve: Serve) -> None:
    """It takes and sends a little from time to time, and the application takes its time too."""
    gate = Gate()

    def answer(environ: Environ) -> bytes:
        body: bytes = environ["wsgi.input"].read()
        wait(gate.promise())
        return body * 800_000

    served = serve(answering(answer), min_rate=0)
    client = served.connect(window=4096)
    client.send(request(method="POST", headers=["Content-Length: 10"]) + b"01234")
    served.until_waiting(1)
    (connection,) = served.connections
    (stream,) = connection._streams

    def look() -> None:
        """Check as if an hour had passed since the last check."""
        served.call(served.server.mind_time, 3600.0)

    look()
    client.send(b"5")
    until(lambda: stream.body.fed == 6)
    look()
    client.send(b"6789")
    until(lambda: not served.receiving)
    look()
    look()  # now it is the application that does nothing
    gate.open()
    assert client.head().header("Content-Length") == "8000000"
    until(lambda: connection._transport.queued)
    look()
    before = connection._transport.queued
    assert len(client.read(5_000_000)) == 5_000_000  # more than the kernel had taken
    until(lambda: connection._transport.queued < before)
    look()
    assert len(client.read(3_000_000)) == 3_000_000
    until(lambda: not connection._transport.queued)
    client.send(request(method="POST", body=b"x"))
    assert client.response().complete


@both
def test_an_iterable_that_swallows_its_cancellation_is_not_asked_for_ever(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    """It may clean up, and wait for that; with the time for it over, it spun on its thread."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.05)
    thrown: list[type[BaseException]] = []
    closed = threading.Event()

    class Stubborn:
        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return Gate().promise()

        def throw(self, error: BaseException) -> Any:
            thrown.append(type(error))
            if len(thrown) > 1000:
                raise error
            return Gate().promise()

        def close(self) -> None:
            closed.set()

    def application(environ: Environ, start_response: Any) -> Stubborn:
        start_response("200 OK", [])
        return Stubborn()

    served = serve(application, executor=executor)
    client = served.request()
    served.until_waiting(1)
    client.close()
    happened(closed)
    assert thrown == [ClientDisconnected]


@contextlib.asynccontextmanager
async def nothing_managed() -> AsyncIterator[None]:
    yield


def reads_a_body(environ: Environ) -> Any:
    return environ["wsgi.input"].read()


def waits_for_a_future(environ: Environ) -> Any:
    return wait(Gate().promise())


def waits_in_a_block(environ: Environ) -> Any:
    with using(nothing_managed()):
        return wait(asyncio.sleep(3600))


def yields_a_promise(environ: Environ) -> Any:
    def blocks(kept: Environ) -> Iterator[Any]:
        yield asyncio.sleep(3600)

    return blocks(environ)


@both
@pytest.mark.parametrize(
    "way", [reads_a_body, waits_for_a_future, waits_in_a_block, yields_a_promise]
)
def test_a_request_whose_client_left_is_freed_without_the_collector(
    serve: Serve, executor: str, way: Callable[[Environ], Any]
) -> None:
    """An error's traceback holds the frames that it passed: none of them may hold the error."""

    class Kept:
        """What lives as long as the request's environ."""

    kept: list[weakref.ref[Kept]] = []

    def application(environ: Environ, start_response: Any) -> Any:
        environ["kept"] = it = Kept()
        kept.append(weakref.ref(it))
        del it
        start_response("200 OK", [])
        return way(environ)

    served = serve(application, executor=executor)
    gc.disable()
    try:
        client = served.request(
            method="POST", headers=["Content-Length: 1", "Expect: 100-continue"]
        )
        served.until_waiting(1)
        client.close()
        until(lambda: kept[0]() is None, "the request is still alive")
    finally:
        gc.enable()


class Failing(logging.Handler):
    """A handler of the program's that raises, as one with a mistake in it does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise."""
        raise OSError("the disk of the log is full")


@both
def test_a_log_that_fails_costs_no_request_and_no_thread(
    serve: Serve, capsys: pytest.CaptureFixture[str], executor: str
) -> None:
    """A lane ended with the exception, and its waiting and its next requests with it."""
    gate = Gate()

    def answer(environ: Environ) -> bytes:
        if environ["PATH_INFO"] == "/fails":
            raise KeyError
        wait(gate.promise())
        return b"answered"

    served = serve(answering(answer), executor=executor, threads=1)
    waiting = served.request("/waits")
    served.until_waiting(1)
    logger, handler = logging.getLogger("bide"), Failing(logging.ERROR)
    logger.handlers.insert(0, handler)
    try:
        assert served.get("/fails").status == 500
        told: list[str] = []

        def is_told() -> bool:
            told.append(capsys.readouterr().err)
            return "the disk of the log is full" in "".join(told)

        until(is_told, "nothing is told on standard error")
    finally:
        logger.removeHandler(handler)
    gate.open()
    assert waiting.response().body == b"answered"
    assert served.get("/next").body == b"answered"


def test_requests_that_wait_for_a_thread_are_answered_though_the_access_log_fails(
    serve: Serve, log: Log
) -> None:
    """The looks once a second ended with the first failure, and every time limit with them."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> bytes:
        begun.set()
        happened(release)
        return b"x"

    served = serve(answering(answer), executor="threads", threads=1, queue_timeout=LONG)
    served.request()
    happened(begun)
    handler = Failing()
    access.addHandler(handler)
    try:
        for _ in range(2):
            client = served.request()
            until(lambda: served.status.queued == 1)
            served.advance(LONG)
            assert client.response().status == 503
            log.take("could not be rejected")
    finally:
        access.removeHandler(handler)
        release.set()


def test_a_request_gets_a_thread_when_one_can_be_started_again(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system gives no thread for a moment; nobody else asks for one meanwhile."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    served = serve(answering(lambda environ: b"x"), executor="threads")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    client = served.request()
    log.take("can't start new thread")
    served.tick()
    assert client.response().status == 200


@pytest.mark.parametrize("host", ["a" * 64, ".example", "two..dots"])
def test_a_host_that_can_be_no_name_gets_one_line(host: str) -> None:
    """The standard library's codec complains of it with an error of its own."""
    with pytest.raises(BindError, match="not a host name"):
        listen(Address(host, 0))


@pytest.mark.parametrize("text", ["127.0.0.1:" + "1" * 5000, "unix:/tmp/with\0zero"])
def test_an_address_that_python_would_not_take_gets_one_line(text: str) -> None:
    """More digits than ``int`` reads; a path that no system call takes."""
    with pytest.raises(SettingError):
        parse_address(text)


def test_of_a_name_s_addresses_those_that_the_machine_has_are_listened_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As localhost is in a container without IPv6; and one that the hosts file says twice."""
    stream = socket.SOCK_STREAM
    here = (socket.AF_INET, stream, 6, "", ("127.0.0.1", 0))
    elsewhere = (socket.AF_INET, stream, 6, "", ("203.0.113.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [elsewhere, here, here])
    (sock,) = listen(Address("some.name", 0))
    assert sock.getsockname()[0] == "127.0.0.1"
    sock.close()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [elsewhere])
    with pytest.raises(BindError, match="no such address"):
        listen(Address("some.name", 0))


def test_a_server_that_cannot_start_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives no thread for the monitor, when all sockets listen already."""

    def refuse(monitor: Monitor) -> None:
        raise RuntimeError("can't start new thread")

    async def start() -> str:
        server = bide.Server(answering(lambda environ: b"x"), bind="127.0.0.1:0")
        with monkeypatch.context() as patch:
            patch.setattr(Monitor, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                await server.start()
        await server.start()  # nothing stands in its way
        (address,) = server.addresses
        await server.stop()
        return address

    before = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(start()).startswith("127.0.0.1:")
    assert len(os.listdir("/proc/self/fd")) == before


def test_limits_may_be_infinite(serve: Serve) -> None:
    """Which says that there is none; the monitor's thread ended with an OverflowError."""
    never = math.inf
    served = serve(answering(lambda environ: b"x"), blocked_loop=never, blocked_thread=never)
    assert served.get().complete
    assert served.server.monitor is not None
    assert served.server.monitor.thread.is_alive()


@both
def test_requests_of_a_client_that_takes_no_answers_wait(serve: Serve, executor: str) -> None:
    """A few bytes ask for megabytes: 600 pipelined requests filled 600 MB."""
    asked: list[str] = []

    def answer(environ: Environ) -> bytes:
        path: str = environ["PATH_INFO"]
        asked.append(path)
        return path.encode() * 1_000_000

    served = serve(answering(answer), executor=executor)
    client = served.connect(window=4096)
    paths = [f"/{number:03}" for number in range(20)]
    client.send(b"".join(request(path) for path in paths))
    until(lambda: any(each.sending for each in served.connections))
    served.until_idle()
    for _ in range(3):
        served.call(lambda: None)  # what it would go on with, it has
    served.until_idle()
    assert len(asked) < 5
    for path in paths:
        assert client.response().body == path.encode() * 1_000_000
    assert asked == paths


@both
@pytest.mark.parametrize("way", ["yields", "writes"])
def test_a_client_that_takes_all_at_once_does_not_have_the_thread_to_itself(
    serve: Serve, executor: str, way: str
) -> None:
    """Nothing in its response ever waits: the loop did not go on before its end."""
    begun, answered, taken = threading.Event(), threading.Event(), threading.Event()

    def blocks() -> Iterator[bytes]:
        too_late = time.monotonic() + DEADLINE / 2
        while not answered.is_set():
            assert time.monotonic() < too_late, "the quick request never had its turn"
            yield b"block"
            begun.set()

    def application(environ: Environ, start_response: Any) -> Any:
        write = start_response("200 OK", [])
        if environ["PATH_INFO"] == "/quick":
            answered.set()
            return [b"quick"]
        if way == "yields":
            return blocks()
        for block in blocks():
            write(block)
        return []

    def take() -> None:
        while client.sock.recv(1 << 20):
            pass
        taken.set()

    served = serve(application, executor=executor, threads=1)
    client = served.request("/long", headers=["Connection: close"])
    threading.Thread(target=take).start()
    happened(begun)
    assert served.get("/quick").body == b"quick"
    happened(taken)
    assert served.get("/quick").body == b"quick"


@both
def test_no_request_is_begun_on_a_connection_that_is_to_be_closed(
    serve: Serve, executor: str
) -> None:
    """Its answer could not be sent any more, and the client could not see that it was begun."""
    asked: list[str] = []

    def answer(environ: Environ) -> bytes:
        asked.append(environ["PATH_INFO"])
        return b"x" * 60_000

    served = serve(answering(answer), executor=executor)
    client = served.connect(window=4096)
    until(lambda: served.connections)
    (connection,) = served.connections
    connection._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client.send(request("/first"))
    assert client.head().status == 200
    until(lambda: connection.sending)
    served.until_idle()
    served.call(connection.drain)
    client.send(request("/second", method="POST", body=b"x"))
    assert len(client.rest()) == 60_000
    until(lambda: not served.status.connections)
    assert asked == ["/first"]


@both
@pytest.mark.parametrize("way", ["waits", "sends"])
def test_the_access_log_says_what_a_client_that_left_was_sent(
    serve: Serve, log: Log, executor: str, way: str
) -> None:
    """It named the status that the application had chosen, and bytes that nobody took."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            wait(gate.promise())
        except ClientDisconnected:
            if way == "waits":
                raise
        return [b"answer"]

    served = serve(application, executor=executor)
    client = served.request("/left")
    served.until_waiting(1)
    client.reset()
    assert '"GET /left HTTP/1.1" - 0 ' in log.take("GET /left").getMessage()


@both
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_the_last_answer_arrives_though_its_client_sends_more(
    serve: Serve, executor: str, version: str
) -> None:
    """A reset for bytes that nobody reads any more would take the rest of the answer away."""
    served = serve(answering(lambda environ: b"x" * 600_000), executor=executor)
    client = served.connect(window=4096)
    client.send(request(version=version, headers=["Connection: close"]))
    head = client.head()
    until(lambda: not served.status.running)
    # The server has given all of it to the system, which has not sent it all.
    until(lambda: not any(each.held for each in served.connections))
    client.send(b"\r\n")
    assert head.header("Content-Length") == "600000"
    assert len(client.rest()) == 600_000
