"""The server stops: what is in flight is finished, what is not in time is ended, in any order."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import bide
from bide import ClientDisconnected, ServerStopping, wait
from bide.serving.draining import Draining
from bide.waiting.cleanups import cleanup_time
from tests.conftest import Serve
from tests.served import (
    DEADLINE,
    LONG,
    Busy,
    Client,
    Closing,
    Environ,
    Gate,
    HandClock,
    Log,
    Served,
    answering,
    happened,
    request,
    until,
)
from tests.tls import certificates

PLAIN = [("Content-Type", "text/plain")]


def test_a_request_in_flight_is_finished(serve: Serve) -> None:
    """One that waits, and one that has been answered in part."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/begun":
            yield b"begun, "
        wait(gate.promise())
        yield b"finished"

    served = serve(application)
    begun, waiting = served.request("/begun"), served.request("/waiting")
    begun.head()
    served.until_waiting(2)
    served.tell_to_stop()
    gate.open()
    response = waiting.response()
    assert (response.body, response.header("Connection")) == (b"finished", "close")
    assert [begun.chunk(), begun.chunk(), begun.chunk()] == [b"begun, ", b"finished", b""]
    assert waiting.rest() == begun.rest() == b""
    served.join(leaving=True)


def test_idle_connections_are_closed_at_once(serve: Serve) -> None:
    """Those that were used, and those that never were, and half a head."""
    served = serve(answering(lambda environ: b"x"))
    used, unused, half = served.request(), served.connect(), served.connect()
    assert used.response().complete
    half.send(b"GET / HT")
    until(lambda: served.status.connections == 3)
    served.begin_stop()
    assert used.rest() == unused.rest() == half.rest() == b""
    half.close()
    served.join()


def test_nobody_is_accepted_any_more(serve: Serve) -> None:
    """The address is free for the next server while the old one finishes."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise())))
    client = served.request()
    served.until_waiting(1)
    served.tell_to_stop()
    with pytest.raises(ConnectionRefusedError):
        served.connect()
    second = serve(answering(lambda environ: b"the next"), bind=served.address)
    assert second.get().body == b"the next"
    gate.open()
    assert client.response().complete
    served.join(leaving=True)


def test_a_request_that_is_not_finished_in_time_is_cancelled_and_answered(
    serve: Serve, log: Log
) -> None:
    """ServerStopping at the line; the client gets a 503."""
    raised: list[type[BaseException]] = []

    def answer(environ: Environ) -> None:
        try:
            wait(Gate().promise())
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(answering(answer), graceful_timeout=0.02)
    client = served.request()
    served.until_waiting(1)
    served.begin_stop()
    response = client.response()
    assert (response.status, response.complete) == (503, True)
    served.join(leaving=True)
    assert raised == [ServerStopping]
    log.take("1 requests have not ended in time")


def test_a_cancelled_request_may_clean_up_before_the_server_has_stopped(
    serve: Serve, log: Log
) -> None:
    """Its waits in `finally` are still served."""
    cleaned: list[str] = []

    async def cleaning() -> str:
        await asyncio.sleep(0.01)
        return "cleaned"

    def answer(environ: Environ) -> None:
        try:
            wait(Gate().promise())
        finally:
            cleaned.append(wait(cleaning()))

    served = serve(answering(answer), graceful_timeout=0.02)
    client = served.request()
    served.until_waiting(1)
    served.begin_stop()
    assert client.response().status == 503
    served.join(leaving=True)
    assert cleaned == ["cleaned"]
    log.take("they are cancelled")


@pytest.mark.parametrize("direction", ["writes", "reads"])
def test_a_request_that_hangs_on_its_own_client_is_ended_too(
    serve: Serve, log: Log, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes to a full window, or reads a body that does not come: closed once, all the same."""
    ended: list[type[BaseException]] = []

    def blocks(body: Any) -> Iterator[bytes]:
        try:
            if direction == "reads":
                yield body.read()
            while True:
                yield b"x" * 65536
        except BaseException as error:
            ended.append(type(error))
            raise

    iterables: list[Closing] = []

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        iterables.append(Closing(blocks(environ["wsgi.input"])))
        return iterables[0]

    monkeypatch.setattr(cleanup_time, "seconds", 0.05)
    served = serve(application, graceful_timeout=0.02)
    client = served.connect(window=4096)
    client.send(request(method="POST", headers=["Content-Length: 10", "Expect: 100-continue"]))
    served.until_waiting(1)
    served.begin_stop()
    served.join()
    assert iterables[0].count == 1
    if direction == "reads":
        assert ended[0] in (ServerStopping, ClientDisconnected)
    log.take("they are cancelled")


@pytest.mark.parametrize("executor", ["threads"])
def test_code_that_runs_on_is_left_and_said_so(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that blocks cannot be ended; the server stops without it."""
    begun, release, done = threading.Event(), threading.Event(), threading.Event()

    def answer(environ: Environ) -> None:
        begun.set()
        happened(release)
        done.set()

    monkeypatch.setattr(cleanup_time, "seconds", 0.02)
    served = serve(answering(answer), graceful_timeout=0.02)
    served.request("/path")
    happened(begun)
    served.begin_stop()
    served.join()
    log.take("they are cancelled")
    assert "GET /path" in log.take("left running").getMessage()
    release.set()
    happened(done)
    served.until_idle()


@pytest.mark.parametrize("executor", ["threads"])
def test_requests_in_the_queue_are_finished_too(serve: Serve) -> None:
    """They have been taken: they get their turn."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> bytes:
        begun.set()
        happened(release)
        return b"x"

    served = serve(answering(answer), threads=1)
    clients = [served.request() for _ in range(3)]
    happened(begun)
    until(lambda: served.status.queued == 2)
    served.tell_to_stop()
    release.set()
    for client in clients:
        assert client.response().body == b"x"
    served.join(leaving=True)


def test_a_pipelined_request_whose_turn_comes_as_the_server_stops_is_finished(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it has ended, and it has not begun, when the server looks what is left."""
    first, second = Gate(), Gate()
    unfinished: list[int] = []  # when the server believes that all is done
    flush = Draining.flush

    async def watched_flush(draining: Draining) -> bool:
        unfinished.append(served.server.dispatcher.in_progress)
        return await flush(draining)

    monkeypatch.setattr(Draining, "flush", watched_flush)

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/first":
            yield b"1"
            wait(first.promise())
        else:
            wait(second.promise())
            yield b"2"

    served = serve(application)
    client = served.connect()
    client.send(request("/first") + request("/second"))
    client.head()
    served.until_waiting(1)

    # The server looks when the first has ended, and the loop has not been able to begin the second.
    server = served.server
    if executor_is_loop(served):

        def end_and_stop() -> None:
            first.open()
            assert served.stopping is not None
            served.stopping.set()

        served.call(end_and_stop)
    else:
        close = server._acceptor.close

        def close_listeners() -> None:
            close()
            first.open()
            until(lambda: not server.dispatcher.in_progress)

        monkeypatch.setattr(server._acceptor, "close", close_listeners)
        served.begin_stop()
    assert client.chunk() == b"1"
    assert client.chunk() == b""
    served.until_waiting(1)
    assert unfinished == [], "the server does not wait for it"
    second.open()
    response = client.response()
    assert (response.body, response.complete) == (b"2", True)
    served.join(leaving=True)
    assert unfinished == [0]


def executor_is_loop(served: Served) -> bool:
    return served.server.dispatcher.decision.executor == "loop"


def test_a_request_ends_between_the_mark_and_the_look(serve: Serve) -> None:
    """The server clears its mark and then looks: one that ended before the clearing is seen."""
    gate = Gate()
    served = serve(answering(lambda environ: wait(gate.promise())))
    client = served.request()
    served.until_waiting(1)

    class Mark(asyncio.Event):
        """An event before whose clearing the last request ends."""

        def clear(self) -> None:
            if executor_is_loop(served):
                return super().clear()
            gate.open()
            until(lambda: not served.server.dispatcher.in_progress)
            return super().clear()

    def exchange() -> None:
        served.server.dispatcher._ending._mark = Mark()

    served.call(exchange)
    served.begin_stop()
    if executor_is_loop(served):
        until(lambda: served.server.draining)
        gate.open()
    assert client.response().complete
    served.join(leaving=True)


def test_stopping_twice_is_stopping_once(serve: Serve) -> None:
    """The second call finds it under way."""
    served = serve(answering(lambda environ: b"x"))
    assert served.get().complete
    asyncio.run_coroutine_threadsafe(served.server.stop(), served.loop).result(10)
    served.begin_stop()
    served.join()


def test_nothing_runs_after_the_server_has_stopped(serve: Serve) -> None:
    """Its lanes and its monitor have ended."""
    served = serve(answering(lambda environ: b"x"))
    assert served.get().complete
    served.begin_stop()
    served.join()

    def left() -> list[str]:
        return [
            thread.name
            for thread in threading.enumerate()
            if thread.name.startswith(("bide-thread", "bide-monitor"))
        ]

    until(lambda: not left(), "a thread is left")


def test_two_servers_of_one_program_stop_apart(serve: Serve) -> None:
    """Each has its lanes; the process lends the loop of the one that still runs."""

    async def value() -> bytes:
        return b"x"

    one, other = (serve(answering(lambda environ: wait(value()))) for _ in range(2))
    assert one.get().complete
    assert other.get().complete
    one.stop()
    assert other.get().complete
    assert wait(value()) == b"x"


def test_a_request_that_waits_for_its_client_is_ended_when_the_time_is_over(
    serve: Serve, log: Log
) -> None:
    """One that sends nothing of its body, and one that takes nothing of its response."""
    iterables: list[Closing] = []

    def application(environ: Environ, start_response: Any) -> Any:
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        iterables.append(Closing(b"x" * 100_000 for _ in range(1000)))
        return iterables[-1]

    served = serve(application, graceful_timeout=0.1)
    sending = served.connect()
    sending.send(request(method="POST", headers=["Content-Length: 10"]))
    taking = served.connect(window=4096)
    taking.send(request())
    served.until_waiting(2)
    served.begin_stop()
    assert sending.response("POST").status == 503
    log.take("2 requests have not ended in time")
    until(lambda: iterables[0].count == 1)
    assert not taking.response().complete
    served.join(leaving=True)


def test_a_request_that_nobody_has_read_yet_is_served(serve: Serve) -> None:
    """On a new connection, on one that nobody has accepted yet, and on a kept one."""
    served = serve(answering(lambda environ: environ["PATH_INFO"]))
    kept = served.request("/before")
    assert kept.response().complete
    until(lambda: served.status.connections == 1)
    new: list[Client] = []

    def stop_behind_their_backs() -> None:
        # The loop does not turn meanwhile: it reads and accepts nothing before it stops.
        kept.send(request("/kept"))
        new.extend(served.connect() for _ in range(3))
        for number, client in enumerate(new):
            client.send(request(f"/{number}"))
        assert served.stopping is not None
        served.stopping.set()

    served.call(stop_behind_their_backs)
    assert kept.response().text == "/kept"
    for number, client in enumerate(new):
        assert client.response().text == f"/{number}"
    for client in [kept, *new]:
        assert client.rest() == b""
    served.join(leaving=True)


class Watched:
    """Tells when a stopping server has begun to wait for its connections alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits = threading.Event()
        flush = Draining.flush

        async def watched(draining: Draining, *args: Any, **kwargs: Any) -> Any:
            self.waits.set()
            return await flush(draining, *args, **kwargs)

        monkeypatch.setattr(Draining, "flush", watched)


def answered_later(
    served: Served, clock: HandClock, gate: Gate, client: Client, body: bytes
) -> None:
    """Check that a request which waits while the server stops is answered after half its time."""
    served.until_waiting(1)
    clock.advance(LONG / 2)
    clock.turn()
    gate.open()
    response = client.response()
    assert (response.body, response.complete) == (body, True)


def in_its_handshake(served: Served) -> Client:
    """Connect, and send what TLS begins with."""
    client = served.connect(shakes=False)
    client.sock.greet()
    until(lambda: served.status.connections == 1)
    return client


def test_a_request_that_begins_in_the_last_second_has_the_time_of_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client was in the handshake while the server only waited for that."""
    gate, watched = Gate(), Watched(monkeypatch)
    served = serve(
        answering(lambda environ: wait(gate.promise()) or b"served"),
        graceful_timeout=LONG,
        **certificates().settings,
    )
    client = in_its_handshake(served)
    with HandClock(served) as clock:
        served.begin_stop()
        happened(watched.waits)
        client.sock.shake()
        client.send(request())
        answered_later(served, clock, gate, client, b"served")
    served.join(leaving=True)


def test_a_handshake_that_does_not_end_in_the_last_second_is_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long requests might have had."""
    watched = Watched(monkeypatch)
    served = serve(
        answering(lambda environ: b"x"), graceful_timeout=LONG, **certificates().settings
    )
    client = in_its_handshake(served)
    with HandClock(served) as clock:
        served.begin_stop()
        happened(watched.waits)
        clock.advance(1.1)
        served.join()
    with pytest.raises((OSError, ssl.SSLError)):
        client.sock.shake()


def test_a_request_that_begins_when_the_time_is_over_is_refused(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last second, which a handshake has all the same."""
    watched = Watched(monkeypatch)
    served = serve(
        answering(lambda environ: wait(Gate().promise())),
        graceful_timeout=0.5,
        **certificates().settings,
    )
    client = in_its_handshake(served)
    with HandClock(served) as clock:
        served.begin_stop()
        happened(watched.waits)
        clock.advance(0.6)
        client.sock.shake()
        client.send(request())
        served.until_waiting(1)
        clock.advance(0.1)
        assert client.response().status == 503
        log.take("1 requests have not ended in time")
    served.join(leaving=True)


def test_a_request_behind_a_response_that_was_slowly_taken_has_the_time_of_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins when the client has taken that, and the server waits for this alone."""
    gate, watched = Gate(), Watched(monkeypatch)
    large = bytes(8 * 1024 * 1024)

    def answer(environ: Environ) -> bytes:
        if environ["PATH_INFO"] == "/large":
            return large
        wait(gate.promise())
        return b"small"

    served = serve(answering(answer), graceful_timeout=LONG)
    client = served.connect(window=4096)
    client.send(request("/large") + request("/small"))
    until(lambda: served.pipelined == 1)
    until(lambda: any(each.sending for each in served.connections))
    served.until_idle()
    with HandClock(served) as clock:
        served.begin_stop()
        happened(watched.waits)
        assert client.response().body == large
        answered_later(served, clock, gate, client, b"small")
    served.join(leaving=True)


def test_a_pipelined_request_whose_turn_comes_too_late_is_refused(serve: Serve, log: Log) -> None:
    """The one before it was cancelled, and has ended its response all the same."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/first":
            yield b"1"
        with contextlib.suppress(ServerStopping):
            wait(Gate().promise())

    served = serve(application, graceful_timeout=0.02)
    client = served.connect()
    client.send(request("/first") + request("/second"))
    client.head()
    served.until_waiting(1)
    served.begin_stop()
    assert [client.chunk(), client.chunk()] == [b"1", b""]
    assert client.response().status == 503
    log.take("1 requests have not ended in time")
    served.join(leaving=True)


def test_requests_of_all_applications_are_waited_for(serve: Serve) -> None:
    """One that begins when those of its application had ended, behind one of another's."""
    first, second = Gate(), Gate()
    served = serve(
        bide.mount(
            {
                "/first": answering(lambda environ: wait(first.promise())),
                "/second": answering(lambda environ: wait(second.promise())),
            }
        )
    )
    client = served.request("/first")
    client.send(request("/second"))
    served.until_waiting(1)
    until(lambda: served.pipelined == 1)
    ended = asyncio.run_coroutine_threadsafe(served.server.dispatchers.all_ended(LONG), served.loop)
    served.turn(5)  # it has looked at both
    first.open()
    assert client.response().complete
    served.until_waiting(1)
    served.turn(5)  # it would have been told
    assert not ended.done()
    second.open()
    assert ended.result(DEADLINE)


@pytest.mark.parametrize("executor", ["threads"])
def test_threads_that_another_application_blocks_are_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are shared, and its request was left running."""
    busy = Busy()
    served = serve(bide.mount({"/busy": busy.application, "/": answering(lambda environ: b"x")}))
    client = served.request("/busy")
    happened(busy.begun)
    monkeypatch.setattr(cleanup_time, "seconds", LONG)
    threads = asyncio.run_coroutine_threadsafe(
        served.server.dispatchers.threads_ended(), served.loop
    )
    threads.result(DEADLINE)
    busy.release.set()
    assert client.response().complete
