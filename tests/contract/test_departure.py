"""The client leaves: noticed in every state, raised at the line, and nothing is left behind."""

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response

from bide import ClientDisconnected, in_thread, wait
from tests.conftest import Serve
from tests.served import (
    Client,
    Closing,
    Environ,
    Gate,
    Log,
    Served,
    answering,
    happened,
    request,
    until,
)

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
PLAIN = [("Content-Type", "text/plain")]
ENDINGS = pytest.mark.parametrize("ending", ["close", "reset", "half_close"])
LEAVING = pytest.mark.parametrize("ending", ["close", "reset"])


@ENDINGS
def test_a_departure_is_noticed_while_nothing_is_written(serve: Serve, ending: str) -> None:
    """At once: no write is tried for it."""
    raised: list[type[BaseException]] = []

    def answer(environ: Environ) -> None:
        assert not environ["bide.disconnected"]()
        try:
            wait(Gate().promise())
        except BaseException as error:
            raised.append(type(error))
            assert environ["bide.disconnected"]()
            raise

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    getattr(client, ending)()
    served.until_idle()
    assert raised == [ClientDisconnected]
    if ending == "half_close":
        assert client.rest() == b""


@ENDINGS
def test_a_departure_is_noticed_between_two_blocks(serve: Serve, ending: str) -> None:
    """The response is cut; the generator cleans up on its own thread, in its own context."""
    seen: list[tuple[str, int, str]] = []

    def note(what: str) -> None:
        seen.append((what, threading.get_ident(), VARIABLE.get()))

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        VARIABLE.set("mine")
        start_response("200 OK", PLAIN)
        note("begin")
        try:
            yield b"1"
            wait(Gate().promise())
        except ClientDisconnected:
            note("left")
            raise
        finally:
            note("finally")

    served = serve(application)
    client = served.request()
    client.head()
    assert client.chunk() == b"1"
    served.until_waiting(1)
    getattr(client, ending)()
    served.until_idle()
    assert [what for what, _, _ in seen] == ["begin", "left", "finally"]
    assert len({(thread, value) for _, thread, value in seen}) == 1
    assert seen[0][2] == "mine"
    if ending == "half_close":
        assert client.rest() == b""


def test_a_departure_is_noticed_at_a_promise_in_the_iterable(serve: Serve) -> None:
    """It is thrown in at the yield."""
    raised: list[type[BaseException]] = []

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", PLAIN)
        try:
            yield Gate().promise()
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(application)
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert raised == [ClientDisconnected]


def test_except_exception_does_not_swallow_a_departure(serve: Serve) -> None:
    """A loop that retries whatever fails ends all the same."""
    tries: list[int] = []

    def answer(environ: Environ) -> None:
        while True:
            tries.append(1)
            try:
                wait(Gate().promise())
            except Exception:
                continue

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert len(tries) == 1


def test_flask_does_not_swallow_a_departure(serve: Serve) -> None:
    """Nor its error handlers; its teardown functions are run."""
    app = Flask(__name__)
    torn: list[Any] = []

    @app.get("/")
    def view() -> str:
        wait(Gate().promise())
        return "x"

    @app.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        torn.append("handled")
        return Response("x")

    @app.teardown_request
    def tear(error: BaseException | None) -> None:
        torn.append(type(error))

    served = serve(app)
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert torn == [ClientDisconnected]


def test_an_application_that_swallows_the_departure_answers_nobody(serve: Serve) -> None:
    """`except BaseException`: what it returns goes nowhere, and is closed."""
    iterable = Closing([b"1", b"2"])

    def application(environ: Environ, start_response: Any) -> Closing:
        try:
            wait(Gate().promise())
        except BaseException:
            start_response("200 OK", PLAIN)
        return iterable

    served = serve(application)
    client = served.request()
    served.until_waiting(1)
    client.reset()
    served.until_idle()
    assert iterable.count == 1


@pytest.mark.parametrize("executor", ["threads"])
@ENDINGS
def test_a_request_in_the_queue_is_not_begun_when_its_client_has_left(
    serve: Serve, ending: str
) -> None:
    """A half-closed one is: it can still be answered, if it does not wait."""
    begun, release = threading.Event(), threading.Event()
    called: list[str] = []

    def answer(environ: Environ) -> str:
        path: str = environ["PATH_INFO"]
        called.append(path)
        if path == "/block":
            begun.set()
            happened(release)
        return path

    served = serve(answering(answer), threads=1)
    blocking = served.request("/block")
    happened(begun)
    queued = served.request("/queued")
    until(lambda: served.status.queued == 1)
    getattr(queued, ending)()
    if ending == "half_close":
        served.call(lambda: None)
    else:
        until(lambda: served.status.connections == 1 or ending == "close")
        last = served.request("/last")
        until(lambda: served.status.queued == 2)
    release.set()
    assert blocking.response().complete
    if ending == "half_close":
        assert queued.response().text == "/queued"
    else:
        assert last.response().complete
    served.until_idle()
    assert ("/queued" in called) is (ending != "reset")


@pytest.mark.parametrize("executor", ["threads"])
@LEAVING
def test_running_code_is_not_interrupted_and_can_ask(serve: Serve, ending: str) -> None:
    """The departure is raised at its next wait, and at no line before."""
    begun = threading.Event()
    lines: list[Any] = []

    def answer(environ: Environ) -> None:
        begun.set()
        until(environ["bide.disconnected"])
        lines.append("asked")
        try:
            wait(Gate().promise())
        except BaseException as error:
            lines.append(type(error))
            raise

    served = serve(answering(answer))
    client = served.request()
    happened(begun)
    getattr(client, ending)()
    served.until_idle()
    assert lines == ["asked", ClientDisconnected]


@pytest.mark.parametrize("executor", ["threads"])
def test_a_block_that_is_yielded_after_the_departure_ends_the_iteration(serve: Serve) -> None:
    """The generator is closed at that yield."""
    begun = threading.Event()
    lines: list[Any] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        begun.set()
        until(environ["bide.disconnected"])
        try:
            yield b"1"
            lines.append("another")
        except BaseException as error:
            lines.append(type(error))
            raise

    served = serve(application)
    client = served.request()
    happened(begun)
    client.reset()
    served.until_idle()
    assert lines == [GeneratorExit]


@pytest.mark.parametrize("executor", ["threads"])
def test_write_after_the_departure_raises_at_the_line(serve: Serve) -> None:
    """In the call of the application."""
    begun = threading.Event()
    lines: list[Any] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        begun.set()
        until(environ["bide.disconnected"])
        try:
            write(b"1")
        except BaseException as error:
            lines.append(type(error))
            raise
        return []

    served = serve(application)
    client = served.request()
    happened(begun)
    client.reset()
    served.until_idle()
    assert lines == [ClientDisconnected]


def slow(served: Served) -> Client:
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    return client


@LEAVING
def test_a_departure_is_noticed_while_a_block_waits_for_the_client(
    serve: Serve, ending: str
) -> None:
    """Its window is full, and the request parked: the iterable is closed once."""

    def blocks() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    iterable = Closing(blocks())

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        return iterable

    served = serve(application)
    getattr(slow(served), ending)()
    served.until_idle()
    assert iterable.count == 1


@LEAVING
def test_a_departure_is_raised_where_write_waits_for_the_client(serve: Serve, ending: str) -> None:
    """At the line that writes."""
    raised: list[type[BaseException]] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        try:
            while True:
                write(b"x" * 65536)
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(application)
    getattr(slow(served), ending)()
    served.until_idle()
    assert raised == [ClientDisconnected]


def test_a_half_closed_client_is_still_written_to(serve: Serve) -> None:
    """Writing does not count as a wait: a client that has sent all may still read, slowly."""
    total = 16 * 1024 * 1024

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for _ in range(total // 65536):
            yield b"x" * 65536

    served = serve(application)
    client = slow(served)
    client.half_close()
    response = client.response()
    assert (len(response.body), response.complete) == (total, True)
    assert client.rest() == b""


@pytest.mark.parametrize("executor", ["threads"])
def test_a_half_closed_client_is_answered_if_the_application_runs(serve: Serve) -> None:
    """By default: only a wait is cancelled."""
    begun = threading.Event()

    def answer(environ: Environ) -> bytes:
        begun.set()
        until(environ["bide.disconnected"])
        return b"answered"

    served = serve(answering(answer))
    client = served.request()
    happened(begun)
    client.half_close()
    assert client.response().body == b"answered"
    assert client.rest() == b""


def test_a_half_closed_client_is_answered_after_a_wait_if_so_configured(serve: Serve) -> None:
    """half_close="answer": the wait goes on, and the connection ends with the answer."""
    gate = Gate()

    def answer(environ: Environ) -> str:
        wait(gate.promise())
        return f"answered {environ['bide.disconnected']()}"

    served = serve(answering(answer), half_close="answer")
    client = served.request()
    served.until_waiting(1)
    client.half_close()
    served.call(lambda: None)
    assert client.is_silent()
    gate.open()
    assert client.response().text == "answered False"
    assert client.rest() == b""


def test_requests_pipelined_before_a_half_close_are_all_answered(serve: Serve) -> None:
    """They had come whole."""
    served = serve(answering(lambda environ: environ["PATH_INFO"]), half_close="answer")
    client = served.connect()
    client.send(b"".join(request(f"/{number}") for number in range(5)))
    client.half_close()
    for number in range(5):
        assert client.response().text == f"/{number}"
    assert client.rest() == b""


def test_requests_pipelined_behind_one_that_was_cancelled_are_not_begun(serve: Serve) -> None:
    """The connection ended with it."""
    called: list[str] = []

    def answer(environ: Environ) -> None:
        called.append(environ["PATH_INFO"])
        wait(Gate().promise())

    served = serve(answering(answer))
    client = served.connect()
    client.send(request("/first") + request("/second"))
    served.until_waiting(1)
    client.close()
    served.until_idle()
    until(lambda: served.status.connections == 0)
    assert called == ["/first"]


def test_a_wait_for_another_thread_s_work_is_given_up(serve: Serve) -> None:
    """The call itself cannot be interrupted: it goes on for nobody."""
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def blocking() -> None:
        begun.set()
        happened(release)
        ended.set()

    served = serve(answering(lambda environ: wait(in_thread(blocking))))
    client = served.request()
    happened(begun)
    served.until_waiting(1)
    client.close()
    served.until_idle()
    release.set()
    happened(ended)


@LEAVING
def test_nothing_is_left_of_a_request_whose_client_has_left(serve: Serve, ending: str) -> None:
    """No environ, no frame, no task, no connection."""

    class Held:
        pass

    alive: list[weakref.ref[Held]] = []

    async def lasting() -> None:
        await asyncio.get_running_loop().create_future()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        environ["test.held"] = held = Held()
        alive.append(weakref.ref(held))
        local = Held()
        alive.append(weakref.ref(local))
        start_response("200 OK", PLAIN)
        yield b"1"
        wait(lasting())

    served = serve(application)
    before = served.call(lambda: len(asyncio.all_tasks()))
    clients = [served.request() for _ in range(10)]
    for client in clients:
        client.head()
    served.until_waiting(10)
    for client in clients:
        getattr(client, ending)()
    served.until_idle()
    until(lambda: served.status.connections == 0)
    until(lambda: served.call(lambda: len(asyncio.all_tasks())) == before)

    def gone() -> bool:
        gc.collect()
        return not any(each() for each in alive)

    assert len(alive) == 20
    until(gone, "something is kept")


def test_nothing_is_left_of_a_request_that_was_answered(serve: Serve) -> None:
    """While its connection is open, and idle."""

    class Held:
        pass

    alive: list[weakref.ref[Held]] = []

    async def value() -> None:
        pass

    def answer(environ: Environ) -> bytes:
        environ["test.held"] = held = Held()
        alive.append(weakref.ref(held))
        wait(value())
        return b"x"

    served = serve(answering(answer))
    client = served.request()
    assert client.response().complete
    served.until_idle()

    def gone() -> bool:
        gc.collect()
        return alive[0]() is None

    until(gone, "something is kept")
    assert served.status.connections == 1


def test_departures_are_no_failures_of_the_application(serve: Serve, log: Log) -> None:
    """Nothing above info is logged for them."""

    def answer(environ: Environ) -> None:
        wait(Gate().promise())

    served = serve(answering(answer))
    for ending in ("close", "reset", "half_close"):
        client = served.request()
        served.until_waiting(1)
        getattr(client, ending)()
        served.until_idle()
    assert [line for line in log.lines() if "failed" in line] == []


@pytest.mark.parametrize("where", ["iterable", "write", "read"])
def test_a_request_may_clean_up_wherever_it_learns_of_the_departure(
    serve: Serve, where: str
) -> None:
    """Not only a wait raises it: sending a block does, and reading the body; then waits go on."""
    cleaned: list[Any] = []

    async def cleaning() -> str:
        await asyncio.sleep(0)
        return "cleaned"

    def clean() -> None:
        cleaned.append(wait(cleaning()))
        cleaned.append(wait(in_thread(lambda: "twice")))

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", PLAIN)
        try:
            if where == "read":
                environ["wsgi.input"].read()
            while True:
                if where == "write":
                    write(b"x" * 65536)
                else:
                    yield b"x" * 65536
        finally:
            clean()

    served = serve(application)
    client = served.connect(window=4096)
    client.send(request(method="POST", headers=["Content-Length: 10", "Expect: 100-continue"]))
    served.until_waiting(1)
    client.reset()
    served.until_idle()
    assert cleaned == ["cleaned", "twice"]


@pytest.mark.parametrize("executor", ["threads"])
@pytest.mark.parametrize("call", ["write", "finish"])
def test_a_request_that_pushes_may_clean_up_when_its_call_raises(serve: Serve, call: str) -> None:
    """It ran when the client left: the first to tell it is the call itself."""
    begun = threading.Event()
    cleaned: list[Any] = []

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        begun.set()
        until(environ["bide.disconnected"])
        try:
            if call == "write":
                write(b"x")
            finish()
        finally:
            cleaned.append(wait(in_thread(lambda: "cleaned")))

    served = serve(application)
    client = served.request()
    happened(begun)
    client.reset()
    served.until_idle()
    assert cleaned == ["cleaned"]


def test_a_request_that_pushes_to_one_whose_client_left_goes_on(serve: Serve) -> None:
    """ClientDisconnected at its line is the other's: its own waits are as ever."""
    pairs: list[Any] = []
    outcomes: list[Any] = []

    def application(environ: Environ, start_response: Any) -> Any:
        write, finish = start_response("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/listen":
            pairs.append((write, finish))
            return None
        for push in (lambda: pairs[0][0](b"x"), pairs[0][1]):
            try:
                push()
            except ClientDisconnected:
                outcomes.append("left")
        write(wait(in_thread(lambda: b"as ever")))
        finish()
        return None

    served = serve(application)
    listener = served.request("/listen")
    served.until_waiting(1)
    listener.reset()
    served.until_idle()
    assert served.get("/push").body == b"as ever"
    assert outcomes == ["left", "left"]


UNREAD = 100_000  # bytes of a body: more than a window, less than the kernel takes beyond it


def uploading(served: Served) -> Client:
    """Send a body that the application does not read; it fills the window, and some more waits."""
    client = served.connect()
    client.send(request(method="POST", headers=[f"Content-Length: {UNREAD}"]))
    served.until_waiting(1)
    client.send(b"x" * UNREAD)
    return client


@ENDINGS
def test_a_departure_is_noticed_behind_a_body_that_nobody_reads(serve: Serve, ending: str) -> None:
    """The connection is not read, for its window is full: the end behind it is noticed."""
    raised: list[type[BaseException]] = []
    called = threading.Event()

    def answer(environ: Environ) -> None:
        called.set()
        try:
            wait(Gate().promise())
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(answering(answer))
    client = uploading(served)
    happened(called)
    served.until_waiting(1)
    getattr(client, ending)()
    served.until_idle()
    assert raised == [ClientDisconnected]


def test_a_half_closed_upload_is_read_to_its_end_if_so_configured(serve: Serve) -> None:
    """half_close="answer": the wait goes on, and the body is all there behind it."""
    gate = Gate()

    def answer(environ: Environ) -> str:
        wait(gate.promise())
        return str(len(environ["wsgi.input"].read()))

    served = serve(answering(answer), half_close="answer")
    client = uploading(served)
    client.half_close()
    served.call(lambda: None)
    gate.open()
    assert client.response().text == str(UNREAD)
    assert client.rest() == b""


@pytest.mark.parametrize("executor", ["threads"])
def test_a_half_closed_upload_is_answered_if_the_application_runs(serve: Serve) -> None:
    """It reads what is there without a wait, and answers."""
    begun = threading.Event()

    def answer(environ: Environ) -> str:
        begun.set()
        until(environ["bide.disconnected"])
        return str(len(environ["wsgi.input"].read()))

    served = serve(answering(answer))
    client = served.connect()
    client.send(request(method="POST", headers=[f"Content-Length: {UNREAD}"]) + b"x" * UNREAD)
    happened(begun)
    client.half_close()
    assert client.response().text == str(UNREAD)
