"""An application under an ASGI server: what it is given, what it sends, and on which thread.

Over a server of which the test takes every step; the real ones are in ``test_asgi_servers``.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bide import capable, in_thread, wait
from bide.errors import LoadError, SettingError
from bide.hosts.asgi import ResponseCut, asgi
from tests.hosts.asgi_server import Exchange, chunk, run, until
from tests.served import LONG, Closing, Environ, Gate, Log, answering, happened

PLAIN = [("Content-Type", "text/plain")]
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
EXECUTORS = pytest.mark.parametrize("executor", ["threads", "loop"])


@EXECUTORS
def test_a_response_of_one_block_has_its_length(log: Log, executor: str) -> None:
    """So that the server needs no chunks for it, and the connection can go on."""

    async def steps() -> None:
        request = Exchange(asgi(answering(lambda environ: "hello"), executor=executor))
        await request.task
        assert request.status == 200
        assert request.headers == {b"content-type": b"text/plain", b"content-length": b"5"}
        assert request.sent[1:] == [
            {"type": "http.response.body", "body": b"hello", "more_body": False}
        ]

    run(steps())


@EXECUTORS
@pytest.mark.parametrize("blocks", [[b"1", b"2"], [b"12", b""]])
def test_a_response_of_several_blocks_has_no_length(
    log: Log, executor: str, blocks: list[bytes]
) -> None:
    """However quick it is: the head does not depend on which thread is first."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        return blocks

    async def steps() -> None:
        hosted = asgi(application, executor=executor)
        for _ in range(10):
            request = Exchange(hosted)
            await request.task
            assert request.headers == {b"content-type": b"text/plain"}
            assert request.body == b"12"
            assert request.complete

    run(steps())


@EXECUTORS
def test_a_block_is_sent_before_the_next_is_made(log: Log, executor: str) -> None:
    """It streams: nothing is gathered."""
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"1"
        wait(gate.promise())
        yield b"2"

    async def steps() -> None:
        request = Exchange(asgi(application, executor=executor))
        await until(lambda: request.blocks == [b"1"])
        assert not request.complete
        gate.open()
        await request.task
        assert request.body == b"12"
        assert request.complete

    run(steps())


@EXECUTORS
def test_an_application_is_not_asked_for_more_while_the_client_is_behind(
    log: Log, executor: str
) -> None:
    """64 KiB, and the block that goes beyond, wait in memory; not the whole of it."""
    made: list[int] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for number in range(200):
            made.append(number)
            yield bytes(16 * 1024)

    async def steps() -> None:
        application_ = asgi(application, executor=executor)
        request = Exchange(application_)
        request.taking.clear()
        await until(lambda: application_.dispatchers().status().waiting == 1)
        assert len(made) == 4
        request.taking.set()
        await request.task
        assert len(request.body) == 200 * 16 * 1024

    run(steps())


@EXECUTORS
def test_the_server_is_not_asked_for_more_than_a_window_of_the_body(
    log: Log, executor: str
) -> None:
    """What the application has not read is the client's to keep; then all of it comes, in order."""
    gate = Gate()
    blocks = [bytes([number]) * 16 * 1024 for number in range(20)]

    def answer(environ: Environ) -> bytes:
        wait(gate.promise())
        data: bytes = environ["wsgi.input"].read()
        return data

    async def steps() -> None:
        messages = [chunk(block, block is not blocks[-1]) for block in blocks]
        length = (b"content-length", b"%d" % (20 * 16 * 1024))
        request = Exchange(
            asgi(answering(answer), executor=executor), *messages, method="POST", headers=[length]
        )
        await until(lambda: request.asked == 4)
        for _ in range(20):
            await asyncio.sleep(0)
        assert request.asked == 4
        gate.open()
        await request.task
        assert request.body == b"".join(blocks)

    run(steps())


@EXECUTORS
def test_a_body_is_read_as_it_comes(log: Log, executor: str) -> None:
    """The application has a line before the client has sent the next."""
    lines: list[bytes] = []

    def answer(environ: Environ) -> str:
        lines.extend(environ["wsgi.input"])
        return str(len(lines))

    async def steps() -> None:
        headers = [(b"transfer-encoding", b"chunked")]
        request = Exchange(
            asgi(answering(answer), executor=executor),
            chunk(b"one\ntw"),
            method="POST",
            headers=headers,
        )
        await until(lambda: lines == [b"one\n"])
        request.give(chunk(b"o\n"))
        await until(lambda: lines == [b"one\n", b"two\n"])
        request.give(chunk(b"", more=False))
        await request.task
        assert request.body == b"2"

    run(steps())


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
def test_a_coroutine_finds_the_end_of_a_body_that_is_none(log: Log, method: str) -> None:
    """It cannot wait in read(), as it does not have to under Bide's own server."""

    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        assert environ["wsgi.input"].read() == b""
        start_response("200 OK", PLAIN)
        return [b"x"]

    async def steps() -> None:
        request = Exchange(asgi(application), method=method)
        await request.task
        assert request.status == 200

    run(steps())


@pytest.mark.parametrize(("method", "version"), [("POST", "1.1"), ("POST", "2"), ("GET", "1.1")])
def test_an_application_begins_before_the_body_comes(log: Log, method: str, version: str) -> None:
    """It may refuse, or answer as it reads; HTTP/2 announces no body."""
    begun = threading.Event()
    headers = [(b"content-length", b"1")] if version == "1.1" else []

    def answer(environ: Environ) -> bytes:
        begun.set()
        data: bytes = environ["wsgi.input"].read()
        return data

    async def steps() -> None:
        messages = [chunk(b"", more=True)]
        request = Exchange(
            asgi(answering(answer)),
            *messages,
            method=method,
            http_version=version,
            headers=headers,
        )
        await until(begun.is_set)
        request.give(chunk(b"x", more=False))
        await request.task
        assert request.body == b"x"

    run(steps())


@EXECUTORS
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Mod")]
)
def test_a_response_without_a_body_is_sent_none(
    log: Log, executor: str, method: str, status: str
) -> None:
    """Whatever the application gives; not each server drops it."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response(status, PLAIN)
        return [b"1", b"2"]

    async def steps() -> None:
        request = Exchange(asgi(application, executor=executor), method=method)
        await request.task
        assert request.status == int(status[:3])
        assert request.body == b""
        assert b"content-length" not in request.headers
        assert request.complete

    run(steps())


@EXECUTORS
def test_an_error_before_the_head_is_answered_500(log: Log, executor: str) -> None:
    """And logged; the server itself sees none."""

    def fail(environ: Environ) -> None:
        raise ValueError("no")

    async def steps() -> None:
        request = Exchange(asgi(answering(fail), executor=executor))
        await request.task
        assert request.status == 500
        assert request.complete

    run(steps())
    assert "no" in str(log.failure().exc_info)


@EXECUTORS
def test_an_error_after_the_head_is_raised_to_the_server(log: Log, executor: str) -> None:
    """Which must not end the response as if it were complete."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"1"
        raise ValueError("no")

    async def steps() -> None:
        request = Exchange(asgi(application, executor=executor))
        with pytest.raises(ResponseCut):
            await request.task
        assert request.body == b"1"
        assert not request.complete

    run(steps())
    log.failure()


def test_a_client_is_answered_503_when_the_queue_is_full(log: Log) -> None:
    """Threads are bounded, and what waits for them is; the client is told when to come again."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> str:
        begun.set()
        happened(release)
        return "x"

    async def steps() -> None:
        application = asgi(answering(answer), threads=1, queue=1)
        first = Exchange(application)
        await until(begun.is_set)
        second = Exchange(application)
        await until(lambda: application.dispatchers().status().queued == 1)
        third = Exchange(application)
        await third.task
        assert (third.status, third.headers[b"retry-after"]) == (503, b"1")
        release.set()
        await first.task
        await second.task
        assert (first.status, second.status) == (200, 200)

    run(steps())


def test_a_request_that_has_waited_too_long_for_a_thread_is_answered_503(log: Log) -> None:
    """The one that has the thread goes on."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> str:
        begun.set()
        happened(release)
        return "x"

    async def steps() -> None:
        application = asgi(answering(answer), threads=1, queue_timeout=LONG)
        first = Exchange(application)
        await until(begun.is_set)
        second = Exchange(application)
        await until(lambda: application.dispatchers().status().queued == 1)
        application.dispatchers().mind_time(LONG)
        await second.task
        assert second.status == 503
        release.set()
        await first.task
        assert first.status == 200

    run(steps())


@EXECUTORS
def test_two_hundred_requests_wait_at_once(log: Log, executor: str) -> None:
    """On four threads at most, or none."""
    gate = Gate()

    def answer(environ: Environ) -> str:
        wait(gate.promise())
        return environ["PATH_INFO"]  # type: ignore[no-any-return]

    async def steps() -> None:
        application = asgi(answering(answer), executor=executor)
        requests = [Exchange(application, path=f"/{number}") for number in range(200)]
        await until(lambda: application.dispatchers().status().waiting == 200)
        status = application.dispatchers().status()
        assert status.running == status.queued == 0
        assert 1 <= status.threads <= 4 if executor == "threads" else status.threads == 0
        gate.open()
        for number, request in enumerate(requests):
            await request.task
            assert request.body == b"/%d" % number

    run(steps())


@EXECUTORS
def test_blocks_are_pushed_from_a_thread(log: Log, executor: str) -> None:
    """In the order of the calls, until finish."""

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)

        def push() -> None:
            for number in range(100):
                write(b"%d." % number)
            finish()

        threading.Thread(target=push).start()

    async def steps() -> None:
        request = Exchange(asgi(application, executor=executor))
        await request.task
        assert request.body == b"".join(b"%d." % number for number in range(100))
        assert request.complete

    run(steps())


def test_what_may_run_on_the_loop_does_so_outside_the_servers_task(log: Log) -> None:
    """A conversation that is parked would else leave its task current for all others."""
    seen: list[Any] = []

    @capable("async")
    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        seen.append((threading.get_ident(), asyncio.current_task()))
        wait(asyncio.sleep(0))
        seen.append((threading.get_ident(), asyncio.current_task()))
        start_response("200 OK", PLAIN)
        yield environ["wsgi.input"].read()
        seen.append((threading.get_ident(), asyncio.current_task()))

    async def steps() -> None:
        messages = [chunk(b"x"), chunk(b"y", more=False)]
        request = Exchange(
            asgi(application), *messages, method="POST", headers=[(b"content-length", b"2")]
        )
        await request.task
        assert request.body == b"xy"

    run(steps())
    assert seen == [(threading.get_ident(), None)] * 3


@EXECUTORS
def test_head_has_the_length_that_get_would_have(log: Log, executor: str) -> None:
    """And no byte of the body."""

    async def steps() -> None:
        request = Exchange(asgi(answering(lambda _: "hello"), executor=executor), method="HEAD")
        await request.task
        assert request.headers[b"content-length"] == b"5"
        assert request.body == b""

    run(steps())


def test_threads_of_the_application_wait_on_the_servers_loop(log: Log) -> None:
    """So that a client that was made once for the process works there, too; until it stops."""

    async def ask() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def steps() -> None:
        loop = asyncio.get_running_loop()
        hosted = asgi(answering(lambda _: str(wait(in_thread(lambda: wait(ask()))) is loop)))
        request = Exchange(hosted)
        await request.task
        assert request.body == b"True"
        await hosted.stop()
        assert await asyncio.to_thread(wait, ask()) is not loop

    run(steps())


def test_coroutines_run_on_the_servers_loop(log: Log) -> None:
    """So that a client that belongs to it can be used; an async generator streams."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)

        async def blocks() -> AsyncIterator[bytes]:
            loops.append(asyncio.get_running_loop())
            yield b"1"
            await asyncio.sleep(0)
            yield b"2"

        return blocks()

    def answer(environ: Environ) -> str:
        async def ask() -> str:
            loops.append(asyncio.get_running_loop())
            return "x"

        return wait(ask()) + wait(in_thread(str, 1))

    async def steps() -> None:
        request = Exchange(asgi(application))
        await request.task
        assert request.body == b"12"
        request = Exchange(asgi(answering(answer)))
        await request.task
        assert request.body == b"x1"
        assert loops == [asyncio.get_running_loop()] * 2

    run(steps())


@EXECUTORS
def test_an_application_has_the_context_of_the_middleware_above(log: Log, executor: str) -> None:
    """What it changes itself stays its own, and is there until close."""
    seen: list[str] = []

    class Iterable(Closing):
        def close(self) -> None:
            seen.append(VARIABLE.get())

    def application(environ: Environ, start_response: Any) -> Iterable:
        seen.append(VARIABLE.get())
        VARIABLE.set("application")
        start_response("200 OK", PLAIN)
        wait(asyncio.sleep(0))
        seen.append(VARIABLE.get())
        return Iterable([b"x"])

    async def steps() -> None:
        hosted = asgi(application, executor=executor)
        VARIABLE.set("middleware")
        for _ in range(2):
            await Exchange(hosted).task
        assert VARIABLE.get() == "middleware"

    run(steps())
    assert seen == ["middleware", "application", "application"] * 2


def test_an_application_can_ask_for_the_status_and_for_its_client(log: Log) -> None:
    """`bide.status` counts this host's requests; `asgi.scope` is there for what WSGI has not."""

    def answer(environ: Environ) -> str:
        assert not environ["bide.disconnected"]()
        status = environ["bide.status"]()
        return f"{status.running} {status.threads} {environ['asgi.scope']['state']}"

    async def steps() -> None:
        request = Exchange(asgi(answering(answer)), state={"key": 1})
        await request.task
        assert request.body == b"1 1 {'key': 1}"

    run(steps())


@EXECUTORS
def test_lifespan_ends_what_waits_and_the_threads(log: Log, executor: str) -> None:
    """A request in progress is answered 503, or cut, and closed; and it may start anew."""
    iterable = Closing([b"1", b"2"])
    gate = Gate()

    def application(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/wait":
            wait(gate.promise())
        start_response("200 OK", PLAIN)
        return iterable if environ["PATH_INFO"] == "/stream" else [b"x"]

    def blocks() -> Iterator[bytes]:
        yield b"1"
        wait(gate.promise())

    async def steps() -> None:
        hosted = asgi(application, executor=executor)
        for _ in range(2):
            iterable.__init__(blocks())  # type: ignore[misc]
            life = Exchange(hosted, {"type": "lifespan.startup"}, type="lifespan")
            await until(lambda life=life: life.sent)  # type: ignore[misc]
            waiting, streaming = Exchange(hosted, path="/wait"), Exchange(hosted, path="/stream")
            await until(lambda: hosted.dispatchers().status().waiting == 2)
            threads = {each for each in threading.enumerate() if "bide-thread" in each.name}
            life.give({"type": "lifespan.shutdown"})
            await life.task
            assert [each["type"] for each in life.sent] == [
                "lifespan.startup.complete",
                "lifespan.shutdown.complete",
            ]
            await waiting.task
            assert waiting.status == 503
            with pytest.raises(ResponseCut):
                await streaming.task
            assert iterable.count == 1
            await until(lambda threads=threads: not any(each.is_alive() for each in threads))  # type: ignore[misc]
            later = Exchange(hosted)
            await later.task
            assert later.status == 200
            await hosted.stop()

    run(steps())


def test_a_request_that_comes_while_it_stops_is_answered_503(log: Log) -> None:
    """No threads are started for it that nobody would end."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> str:
        begun.set()
        happened(release)
        return "x"

    async def steps() -> None:
        hosted = asgi(answering(answer))
        first = Exchange(hosted)
        await until(begun.is_set)
        stopping = asyncio.ensure_future(hosted.stop())
        await until(lambda: hosted.dispatchers().status().stopping)
        second = Exchange(hosted)
        await second.task
        assert second.status == 503
        release.set()
        await stopping
        await first.task
        assert first.status == 200  # it ran, and was not interrupted

    run(steps())


def test_a_scope_of_another_kind_is_an_error(log: Log) -> None:
    """As ASGI has it: the server knows then that there is no such thing here."""

    async def steps() -> None:
        request = Exchange(asgi(answering(lambda environ: "x")), type="mqtt")
        with pytest.raises(ValueError, match="mqtt"):
            await request.task

    run(steps())


def test_what_is_no_wsgi_application_is_refused_when_it_is_given() -> None:
    """Not with the first request: the deployer looks on now."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with pytest.raises(LoadError, match="ASGI"):
        asgi(application)


@pytest.mark.parametrize(
    "option",
    [
        {"executor": "fibers"},
        {"threads": 0},
        {"threads": "4"},
        {"queue": -1},
        {"queue_timeout": -1},
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(option: dict[str, Any]) -> None:
    """With what it may be."""
    with pytest.raises(SettingError, match=next(iter(option))):
        asgi(answering(lambda environ: "x"), **option)
