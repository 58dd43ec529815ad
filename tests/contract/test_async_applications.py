"""Coroutine functions and async generators as applications: they run on the loop, as one task."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import bide
from bide import wait
from tests.conftest import Serve
from tests.served import Closing, Environ, Gate, Log, happened, request

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
PLAIN = [("Content-Type", "text/plain")]


async def listing(environ: Environ, start_response: Any) -> list[bytes]:
    """Return an iterable."""
    await asyncio.sleep(0)
    start_response("200 OK", PLAIN)
    return [b"1", b"2"]


async def returning_generator(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """Return a generator."""
    start_response("200 OK", PLAIN)
    await asyncio.sleep(0)
    return iter([b"1", b"2"])


async def generating(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
    """An async generator function."""
    start_response("200 OK", PLAIN)
    for block in (b"1", b"", b"2"):
        await asyncio.sleep(0)
        yield block


async def returning_async(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
    """Return an async generator."""
    await asyncio.sleep(0)
    return generating(environ, start_response)


def plain_returning_async(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
    """Return an async generator from an ordinary function."""
    return generating(environ, start_response)


class AsyncCallable:
    """An object whose ``__call__`` is a coroutine function."""

    async def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
        """Answer."""
        return await listing(environ, start_response)


class AsyncBlocks:
    """An async iterable that is not a generator."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._blocks()

    async def _blocks(self) -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"


def returning_iterable(environ: Environ, start_response: Any) -> AsyncBlocks:
    """Return an async iterable."""
    start_response("200 OK", PLAIN)
    return AsyncBlocks()


async def writing(environ: Environ, start_response: Any) -> list[bytes]:
    """Use ``write``."""
    write = start_response("200 OK", PLAIN)
    write(b"1")
    await asyncio.sleep(0)
    write(b"2")
    return []


ALL = [
    listing,
    returning_generator,
    generating,
    returning_async,
    plain_returning_async,
    AsyncCallable(),
    returning_iterable,
    writing,
]


@pytest.mark.parametrize(
    "application", ALL, ids=lambda each: getattr(each, "__name__", type(each).__name__)
)
def test_an_application_may_be_asynchronous(serve: Serve, application: Any) -> None:
    """In every shape, under either executor; twice on one connection, and to HEAD."""
    client = serve(application).connect()
    for method in ("GET", "HEAD", "GET"):
        client.send(request(method=method))
        response = client.response(method)
        assert (response.status, response.complete) == (200, True)
        assert response.chunks == ([] if method == "HEAD" else [b"1", b"2"])


@pytest.mark.parametrize("executor", ["auto"])
@pytest.mark.parametrize("application", [listing, generating, AsyncCallable()], ids=["1", "2", "3"])
def test_an_asynchronous_application_runs_on_the_loop_by_itself(
    serve: Serve, application: Any
) -> None:
    """Nobody needs to declare what can be seen."""
    served = serve(application)
    assert served.server.dispatcher.decision.executor == "loop"
    assert served.get().body == b"12"
    assert served.status.threads == 0


def test_a_coroutine_runs_on_the_server_s_loop(serve: Serve) -> None:
    """Under the threads executor, too: there the conversation waits for it on its lane."""
    threads: list[int] = []

    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        threads.append(threading.get_ident())
        start_response("200 OK", PLAIN)
        return [b"x"]

    served = serve(application)
    assert served.get().body == b"x"
    assert threads == [served.thread]


def test_an_async_generator_s_blocks_are_sent_at_once(serve: Serve) -> None:
    """Each before the next is asked for."""
    gates = [Gate() for _ in range(3)]

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        for number, gate in enumerate(gates):
            yield b"%d" % number
            await asyncio.wrap_future(gate.promise())

    client = serve(application).request()
    client.head()
    for number, gate in enumerate(gates):
        assert client.chunk() == b"%d" % number
        gate.open()
    assert client.chunk() == b""


def test_an_async_generator_runs_in_one_task_and_context(serve: Serve) -> None:
    """From its first block to its end."""
    tasks: list[Any] = []
    values: list[str] = []

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        VARIABLE.set("mine")
        for _ in range(3):
            tasks.append(asyncio.current_task())
            values.append(VARIABLE.get())
            yield b"x"

    assert serve(application).get().body == b"xxx"
    assert len(set(tasks)) == 1
    assert values == ["mine"] * 3


def test_an_async_generator_may_yield_promises(serve: Serve) -> None:
    """The conversation waits for them, wherever it runs."""

    async def value() -> bytes:
        return b"promised"

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[Any]:
        start_response("200 OK", PLAIN)
        yield b"1 "
        yield value()
        yield b" 2"

    assert serve(application).get().body == b"1 promised 2"


def failing_coroutine() -> tuple[Any, int]:
    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        await asyncio.sleep(0)
        raise LookupError("no")

    return application, 500


def failing_first() -> tuple[Any, int]:
    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        if environ:
            raise LookupError("no")
        yield b"x"

    return application, 500


def failing_later() -> tuple[Any, int]:
    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"x"
        raise LookupError("no")

    return application, 200


@pytest.mark.parametrize("make", [failing_coroutine, failing_first, failing_later])
def test_an_error_of_an_asynchronous_application_is_one_like_any(
    serve: Serve, log: Log, make: Callable[[], tuple[Any, int]]
) -> None:
    """500 before the head, cut after it, one record."""
    application, status = make()
    response = serve(application).get()
    assert (response.status, response.complete) == (status, status == 500)
    record = log.failure()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_a_wrong_block_of_an_async_generator_closes_it(serve: Serve, log: Log) -> None:
    """It has no `throw`: the failure is the application's, and `aclose` is called."""
    closed = threading.Event()

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[Any]:
        start_response("200 OK", PLAIN)
        try:
            yield "text"
        finally:
            closed.set()

    assert serve(application).get().status == 500
    happened(closed)
    log.failure()


@pytest.mark.parametrize("begun", [False, True])
def test_a_coroutine_is_cancelled_when_the_client_leaves(serve: Serve, begun: bool) -> None:
    """It gets CancelledError where it awaits, and may clean up."""
    cleaned = threading.Event()

    async def lasting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    async def coroutine(environ: Environ, start_response: Any) -> list[bytes]:
        await lasting()
        return []

    async def generator(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"x"
        await lasting()

    served = serve(generator if begun else coroutine)
    client = served.request()
    if begun:
        client.head()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    happened(cleaned)


def test_an_async_generator_is_closed_when_the_client_leaves_between_blocks(serve: Serve) -> None:
    """While a block is being written to a client that reads nothing."""
    closed = threading.Event()

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            while True:
                yield b"x" * 65536
        finally:
            await asyncio.sleep(0)
            closed.set()

    served = serve(application)
    client = served.connect(window=4096)
    client.send(request())
    served.until_waiting(1)
    client.close()
    served.until_idle()
    happened(closed, "aclose was not called")


def test_an_async_generator_that_sends_no_body_is_closed(serve: Serve) -> None:
    """To HEAD: the head is out with the first block, and the rest is not asked for."""
    closed = threading.Event()

    async def application(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            for _ in range(100):
                yield b"x"
            raise AssertionError("all was asked for")
        finally:
            closed.set()

    assert serve(application).get(method="HEAD").complete
    happened(closed)


def test_the_iterable_of_a_coroutine_runs_with_the_conversation(serve: Serve) -> None:
    """On its thread, in its context, where it may `wait`; `close` too."""
    threads: list[int] = []
    iterables: list[Closing] = []

    async def value() -> bytes:
        return b"waited"

    def blocks() -> Iterator[bytes]:
        threads.append(threading.get_ident())
        yield wait(value())
        threads.append(threading.get_ident())

    async def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        iterables.append(Closing(blocks()))
        return iterables[0]

    served = serve(application)
    assert served.get().body == b"waited"
    served.until_idle()
    assert len({*threads, *iterables[0].threads}) == 1
    assert iterables[0].count == 1


def test_write_in_a_coroutine_raises_when_the_client_is_behind(serve: Serve) -> None:
    """On the loop it cannot wait for the client; the block was not taken."""
    refused: list[int] = []

    async def application(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        sent = 0
        while True:
            try:
                write(b"x" * 65536)
            except bide.WriteWouldBlock:
                refused.append(sent)
                return [b"end"]
            sent += 65536

    client = serve(application).connect(window=4096)
    client.send(request())
    assert client.head().status == 200
    size = 0
    while chunk := client.chunk():
        size += len(chunk)
    assert size == refused[0] + 3
