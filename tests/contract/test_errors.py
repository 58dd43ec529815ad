"""Errors of the application: what the client sees, what is logged, and that the server goes on."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bide import wait
from tests.conftest import Serve
from tests.served import Application, Environ, Log, answering, request

PLAIN = [("Content-Type", "text/plain")]


def recurse() -> None:
    recurse()


ERRORS = pytest.mark.parametrize(
    "error",
    [
        LookupError,
        SystemExit,
        KeyboardInterrupt,
        MemoryError,
        RecursionError,
        GeneratorExit,
        StopIteration,
        asyncio.CancelledError,
        TimeoutError,
        OSError,
        BrokenPipeError,
        BaseExceptionGroup,
    ],
)


def raising(error: type[BaseException]) -> None:
    """Raise an error of a kind, as Python itself does it where it can."""
    if error is RecursionError:
        recurse()
    if error is BaseExceptionGroup:
        raise BaseExceptionGroup("the secret", [KeyboardInterrupt()])
    raise error("the secret")


@ERRORS
def test_an_error_in_the_call_is_a_500_without_details(
    serve: Serve, log: Log, error: type[BaseException]
) -> None:
    """One record with the traceback, method and path; the same connection goes on."""

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/fail":
            raising(error)
        return "fine"

    client = serve(answering(answer)).request("/fail?query")
    response = client.response()
    assert (response.status, response.reason) == (500, "Internal Server Error")
    assert response.body == b"Internal Server Error\n"
    assert response.complete
    record = log.failure()
    assert "GET /fail?query of tests.contract.test_errors." in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is error
    traceback = record.exc_info[2]
    names = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert "answer" in names
    client.send(request("/other"))
    assert client.response().body == b"fine"


@ERRORS
def test_an_error_after_the_head_cuts_the_response(
    serve: Serve, log: Log, error: type[BaseException]
) -> None:
    """No final chunk; the next connection is served."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        if environ["PATH_INFO"] == "/fail":
            raising(error)

    served = serve(application)
    response = served.get("/fail")
    assert (response.status, response.body, response.complete) == (200, b"begun", False)
    log.failure()
    assert served.get("/other").complete


@ERRORS
def test_an_error_in_a_promise_is_one_like_any(
    serve: Serve, log: Log, error: type[BaseException]
) -> None:
    """Raised at the line that waits, whatever it is."""

    async def failing() -> None:
        await asyncio.sleep(0)
        raising(error)

    served = serve(answering(lambda environ: wait(failing())))
    assert served.get().status == 500
    log.failure()
    assert served.get().status == 500
    log.failure()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("length", [None, "100"])
def test_a_cut_response_never_looks_complete(
    serve: Serve, log: Log, version: str, length: str | None
) -> None:
    """Chunked: no final chunk. With a length: less. To the connection's end: a reset."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", length)] if length else PLAIN)
        yield b"begun"
        raise LookupError

    client = serve(application).request(version=version)
    response = client.response()
    assert (response.status, response.complete) == (200, False)
    log.failure()


def test_a_failed_request_among_pipelined_ones(serve: Serve, log: Log) -> None:
    """A 500 is an answer: those behind it are answered too. After a cut nothing is."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        path = environ["PATH_INFO"]
        if path == "/500":
            raise LookupError("before the head")
        start_response("200 OK", PLAIN)
        yield b"1"
        if path == "/cut":
            raise LookupError("after it")

    client = serve(application).connect()
    client.send(b"".join(request(path) for path in ("/500", "/ok", "/cut", "/ok")))
    assert client.response().status == 500
    assert client.response().complete
    assert not client.response().complete
    assert client.rest() == b""
    log.failure()
    log.failure()


def test_an_error_handler_in_middleware_answers(serve: Serve) -> None:
    """An error that it catches is not a failure."""

    def failing(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        raising(LookupError)
        yield b""

    def handling(application: Application) -> Application:
        def middleware(environ: Environ, start_response: Any) -> list[bytes]:
            try:
                return [b"".join(application(environ, start_response))]
            except LookupError as error:
                start_response("502 Handled", PLAIN, sys.exc_info())
                return [str(error).encode()]

        return middleware

    response = serve(handling(failing)).get()
    assert (response.status, response.body) == (502, b"the secret")


def test_an_error_of_head_is_a_500_without_a_body(serve: Serve, log: Log) -> None:
    """And the connection goes on."""

    def answer(environ: Environ) -> None:
        raise LookupError("no")

    client = serve(answering(answer)).request(method="HEAD")
    assert client.response("HEAD").status == 500
    client.send(request(method="HEAD"))
    assert client.response("HEAD").status == 500
    log.failure()
    log.failure()


def test_an_error_while_a_body_is_unread_is_answered(serve: Serve, log: Log) -> None:
    """However much of it there is to come."""

    def answer(environ: Environ) -> None:
        raise LookupError("no")

    served = serve(answering(answer))
    client = served.connect()
    client.send(request(method="POST", headers=["Content-Length: 100000000"]) + b"x" * 100_000)
    response = client.response()
    assert (response.status, response.complete) == (500, True)
    log.failure()
