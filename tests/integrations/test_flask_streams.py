"""Async generators of Flask views stream, with the request's context, and are closed."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, after_this_request, g, request, session
from flask.globals import request_ctx
from werkzeug.wrappers import Response as AnyResponse

import bide
from bide.integrations.flask import Bide, stream
from bide.waiting.cleanups import cleanup_time
from tests.conftest import Serve
from tests.integrations.conftest import Run
from tests.served import DEADLINE, Gate, Log, happened, until


def made() -> Flask:
    """Make an application with the integration."""
    app = Flask("streams")
    app.secret_key = "a secret"
    Bide(app)
    return app


async def opened(gate: Gate) -> None:
    """Wait for a gate in a coroutine."""
    await asyncio.wrap_future(gate.promise())


def test_each_block_is_sent_as_it_comes_and_no_thread_is_held(run: Run) -> None:
    """The second is not there yet when the client has the first."""
    app, gate = made(), Gate()

    @app.get("/")
    async def view() -> Iterator[str]:
        async def blocks() -> AsyncIterator[str]:
            yield "first, "
            await opened(gate)
            yield "segundo: é"

        return stream(blocks())

    served = run(app)
    client = served.request()
    assert client.head().status == 200
    assert client.chunk() == b"first, "
    served.until_waiting(1)
    until(lambda: served.status.threads_busy == 0)
    gate.open()
    assert client.chunk() == "segundo: é".encode()
    assert client.chunk() == b""


class Countdown:
    """An async iterable that is not a generator, as clients of upstreams give."""

    def __init__(self, start: int) -> None:
        self.number = start
        self.closed = 0

    def __aiter__(self) -> "Countdown":
        asyncio.get_running_loop()
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        if not self.number:
            raise StopAsyncIteration
        self.number -= 1
        return b"%d" % self.number

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1


@stream
async def decorated() -> AsyncIterator[str]:
    """Yield what a decorated generator does."""
    yield request.path
    await asyncio.sleep(0)
    yield " and on"


async def blocks() -> AsyncIterator[str]:
    """Yield what the context has."""
    yield f"{request.args['name']}, "
    await asyncio.sleep(0)
    g.seen += 1
    yield f"{session['name']}, {g.seen}"


SHAPES: dict[str, Callable[[], Any]] = {
    "/returned": lambda: stream(blocks()),
    "/with-status": lambda: (stream(blocks()), 200, {"X-Kind": "a tuple"}),
    "/response": lambda: Response(stream(blocks()), mimetype="text/plain"),
    "/iterable": lambda: stream(Countdown(3)),
    "/decorated": decorated,
}
TEXTS = {"/iterable": "210", "/decorated": "/decorated and on"}


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("kind", ["async", "ordinary"])
def test_a_stream_is_returned_in_every_way_that_flask_takes(path: str, kind: str, run: Run) -> None:
    """From both kinds of views; the context that the view has made is the stream's."""
    app = made()

    def ordinary() -> Any:
        g.seen = 1
        session["name"] = "in the session"
        return SHAPES[path]()

    async def view() -> Any:
        return ordinary()

    app.add_url_rule(path, view_func=view if kind == "async" else ordinary)
    response = run(app).get(f"{path}?name=ada")
    assert response.text == TEXTS.get(path, "ada, in the session, 2")
    assert response.complete
    assert len(response.chunks) > 1


def test_functions_after_the_request_see_the_response_before_it_streams(run: Run) -> None:
    """Those that ``before_request`` has registered for this one, too."""
    app = made()

    @app.before_request
    async def before() -> None:
        @after_this_request
        async def after_this(response: AnyResponse) -> AnyResponse:
            await asyncio.sleep(0)
            response.headers["X-After"] = f"{g.begun}"
            return response

    @app.get("/")
    async def view() -> Iterator[str]:
        g.begun = False

        async def blocks() -> AsyncIterator[str]:
            g.begun = True
            yield "streamed"

        return stream(blocks())

    response = run(app).get()
    assert (response.text, response.header("X-After")) == ("streamed", "False")


class Watched:
    """An application with a stream that notes its end, and the teardown after it."""

    def __init__(self) -> None:
        self.app = made()
        self.notes: list[str] = []
        self.asleep = threading.Event()
        self.app.teardown_request(self.teardown)
        self.app.get("/")(self.view)
        self.app.get("/eager")(self.eager)

    async def teardown(self, error: BaseException | None) -> None:
        """Note what the request ends with."""
        self.notes.append(f"teardown: {type(error).__name__}")

    async def blocks(self, number: int) -> AsyncIterator[bytes]:
        """Yield some blocks, and sleep, or yield for ever."""
        try:
            yield b"first"
            while number < 0:
                yield bytes(65536)
            self.asleep.set()
            await asyncio.Event().wait()
        except BaseException as error:
            self.notes.append(type(error).__name__)
            raise
        finally:
            await asyncio.sleep(0.01)
            self.notes.append(f"closed: {request.path}")

    async def view(self) -> Iterator[bytes]:
        """Stream, and then wait."""
        return stream(self.blocks(1))

    def eager(self) -> Iterator[bytes]:
        """Stream without an end."""
        return stream(self.blocks(-1))


def test_a_stream_that_waits_is_cancelled_when_its_client_leaves(run: Run) -> None:
    """It cleans up, waiting for as long as that takes, in its context, before Flask's ends."""
    watched = Watched()
    served = run(watched.app)
    client = served.request()
    client.head()
    assert client.chunk() == b"first"
    happened(watched.asleep)
    client.close()
    served.until_idle()
    assert watched.notes == [
        "teardown: NoneType",
        "CancelledError",
        "closed: /",
        "teardown: ClientDisconnected",
    ]


def test_a_stream_is_closed_at_its_yield_when_its_client_leaves(run: Run) -> None:
    """As an ordinary generator is: ``GeneratorExit``, and not in the middle of a call."""
    watched = Watched()
    served = run(watched.app)
    client = served.connect(window=4096)
    client.send(b"GET /eager HTTP/1.1\r\nHost: test\r\n\r\n")
    client.head()
    assert client.chunk() == b"first"
    served.until_waiting(1)
    client.reset()
    served.until_idle()
    *notes, last = watched.notes
    assert notes == ["teardown: NoneType", "GeneratorExit", "closed: /eager"]
    # The request waited for its client then, or for the loop to fetch the next block.
    assert last in ("teardown: GeneratorExit", "teardown: ClientDisconnected")


def test_a_stream_that_is_asked_for_its_head_alone_is_not_begun(run: Run) -> None:
    """HEAD: Werkzeug closes it."""
    watched = Watched()
    served = run(watched.app)
    response = served.get(method="HEAD")
    assert (response.status, response.body) == (200, b"")
    served.until_idle()
    assert watched.notes == ["teardown: NoneType"]


def test_an_iterable_that_is_no_generator_is_closed_too(run: Run) -> None:
    """By ``aclose``, once, where it has one."""
    app, gate = made(), Gate()

    class Stuck(Countdown):
        async def __anext__(self) -> bytes:
            if self.number == 1:
                await opened(gate)
            return await super().__anext__()

    iterable = Stuck(2)
    app.get("/")(lambda: stream(iterable))
    served = run(app)
    client = served.request()
    client.head()
    assert client.chunk() == b"1"
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert iterable.closed == 1


@pytest.mark.parametrize("after", [0, 1])
def test_an_error_in_a_stream_is_the_applications(after: int, run: Run, log: Log) -> None:
    """Before the first block it is a 500; later the response is cut, and never looks complete."""
    app = made()

    @app.get("/")
    async def view() -> Iterator[str]:
        async def blocks() -> AsyncIterator[str]:
            for _ in range(after):
                yield "a block"
            raise LookupError("in the stream")

        return stream(blocks())

    response = run(app).get()
    assert (response.status, response.complete) == ((200, False) if after else (500, True))
    record = log.failure()
    assert record.exc_info
    assert record.exc_info[0] is LookupError


def test_hundreds_of_streams_wait_on_one_thread(serve: Serve) -> None:
    """What a chat or a page of events needs: all hear what is said at once."""
    app, gate = made(), Gate()

    @app.get("/<int:number>")
    async def view(number: int) -> Response:
        async def events() -> AsyncIterator[str]:
            yield "data: hello\n\n"
            await opened(gate)
            yield f"data: {number} {request.path}\n\n"

        return Response(stream(events()), mimetype="text/event-stream")

    served = serve(app, threads=1)
    clients = [served.request(f"/{n}") for n in range(200)]
    served.until_waiting(200)
    assert served.status.threads == 1
    gate.open()
    for number, client in enumerate(clients):
        assert client.response().text == f"data: hello\n\ndata: {number} /{number}\n\n"


def test_a_stream_needs_no_integration(serve: Serve) -> None:
    """An ordinary view of an application that has only imported ``stream``."""
    app = Flask("plain")
    app.get("/")(lambda: stream(Countdown(2)))
    assert serve(app).get().text == "10"


def test_a_stream_may_be_closed_by_hand(run: Run) -> None:
    """An iterator as any: who takes one block of it and closes it has it closed, at once."""
    app, notes = made(), []

    async def blocks() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            await asyncio.sleep(0)
            notes.append("closed")

    @app.get("/")
    def view() -> str:
        blocks_of = stream(blocks())
        first = next(blocks_of)
        blocks_of.close()  # type: ignore[attr-defined]
        return f"{first}, {notes}"

    assert run(app).get().text == "one, ['closed']"


async def coroutine() -> None:
    """A coroutine function that is not a generator."""


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (lambda: [b"a list"], "not list"),
        (lambda: coroutine(), "not coroutine"),
        (lambda: coroutine, "not function"),
        (lambda: Countdown, "not the class Countdown"),
    ],
)
def test_what_cannot_be_streamed_is_named(source: Callable[[], Any], named: str) -> None:
    """In one line, with what to write."""
    with Flask("x").test_request_context(), pytest.raises(TypeError, match=named) as raised:
        stream(source())
    assert "write `async def` with `yield`, and call it" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_stream_outside_a_request_is_refused() -> None:
    """There is no context to keep."""
    with pytest.raises(RuntimeError, match="call it in a view, and return its result"):
        stream(Countdown(1))


def test_a_stream_that_is_read_on_an_event_loop_says_what_to_do() -> None:
    """It waits, as ``wait`` does, and so it cannot be read where a loop runs."""

    async def main() -> None:
        with Flask("x").test_request_context(), pytest.raises(bide.WaitError, match="await"):
            next(stream(Countdown(1)))

    asyncio.run(main())


def test_a_stream_that_is_collected_on_a_loops_thread_is_closed_there(log: Log) -> None:
    """Nobody can wait there for the end of it, and nothing is raised."""
    app = Flask("dropped")
    context = contextvars.copy_context()
    closed = threading.Event()

    async def blocks() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            closed.set()

    def begin() -> Iterator[str]:
        app.test_request_context().push()
        begun = stream(blocks())
        assert next(begun) == "one"
        return begun

    async def close(begun: Any) -> None:
        done = asyncio.get_running_loop().create_future()

        def call() -> None:
            begun.close()
            done.set_result(None)

        asyncio.get_running_loop().call_soon(call, context=context)
        async with asyncio.timeout(DEADLINE):
            await done

    asyncio.run(close(context.run(begin)))
    happened(closed)
    context.run(lambda: request_ctx.pop())


def test_a_stream_of_a_client_that_has_left_is_not_begun(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to close, and nothing to wait for."""
    monkeypatch.setattr(cleanup_time, "seconds", 1000.0)
    app, begun = made(), []
    running = threading.Event()

    async def blocks() -> AsyncIterator[str]:
        begun.append(True)
        yield "one"

    @app.get("/")
    def view() -> Iterator[str]:
        running.set()
        until(request.environ["bide.disconnected"])
        return stream(blocks())

    served = serve(app)
    client = served.request()
    happened(running)
    client.close()
    served.until_idle()
    assert not begun
