"""The soaked application: every way to answer, and every way to be left, as one WSGI application.

A path is `/KIND/TOKEN/NUMBER`. The token is the request's own and comes back in its answer; what
the number means (milliseconds, blocks, bytes) says the kind. Whatever may be left while it waits is
counted as present, so that a look inside (see `inside.py`) tells whether all of it has ended.

The module knows of Bide what applications know, and runs on the loop and in threads.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from flask import Flask, request

from bide import Cancelled, ClientDisconnected, capable, in_thread, iterate, wait, wait_all

from .inside import listen, look, present
from .places import lock, pool, semaphore

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TEXT = ("Content-Type", "text/plain")
BLOCK = 16 * 1024
FILE_SIZE = 4 * 1024 * 1024
FILE_PATTERN = b"the soaked file\n"
LANES = 4
"""Threads for the application that the server is started with."""
PUSHERS = 8
CROWD = 400
"""How many wait for each other in `crowd`: more than the load has clients at once."""
_DEEP = 150  # calls, which fill the 16 KB that Python takes for a stack at first
_LONG = 60.0  # seconds; longer than any client of the soak stays

View = Callable[["WSGIEnvironment", "StartResponse", str, int], "Iterable[Any] | None"]

_on_lanes = threading.Barrier(LANES)
_together = asyncio.Barrier(CROWD)
_pushers = ThreadPoolExecutor(PUSHERS, thread_name_prefix="soak-pusher")
_file = tempfile.NamedTemporaryFile(prefix="soak-")  # noqa: SIM115 - open as long as the process
_file.write(FILE_PATTERN * (FILE_SIZE // len(FILE_PATTERN)))
_file.flush()


class SoakedError(Exception):
    """What the application raises on purpose."""


def _say(start_response: StartResponse, text: str, status: str = "200 OK") -> list[bytes]:
    start_response(status, [TEXT])
    return [text.encode()]


# What answers at once ---------------------------------------------------------------------------


def hello(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    return _say(start_response, f"hello {token}")


def upload(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    size = check = 0
    while block := environ["wsgi.input"].read(BLOCK):
        size += len(block)
        check = zlib.crc32(block, check)
    return _say(start_response, f"{token} {size} {check}")


def file(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", str(number)), ("X-Token", token)])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](
        open(_file.name, "rb")  # noqa: SIM115 - the server closes it
    )
    return wrapped


def fail(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    raise SoakedError(token)


def late(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    yield token.encode()
    raise SoakedError(token)


def busy(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    with present.attend():
        if environ["wsgi.multithread"]:
            time.sleep(number / 1000)
        else:  # the loop's own thread: others would wait
            zlib.crc32(FILE_PATTERN * 4096)
    return _say(start_response, f"busy {token}")


# What waits -------------------------------------------------------------------------------------


def sleep(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    with present.attend():
        return _say(start_response, wait(asyncio.sleep(number / 1000, f"slept {token}")))


def future(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    promise: Future[str] = Future()
    _pushers.submit(promise.set_result, token)
    return _say(start_response, f"future {wait(promise)}")


def several(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    first, second = wait_all(asyncio.sleep(number / 1000, token), in_thread(str, token), timeout=20)
    return _say(start_response, f"{first} {second}")


def timeout(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    try:
        wait(asyncio.sleep(_LONG), timeout=number / 1000)
    except TimeoutError:
        return _say(start_response, f"timeout {token}")
    return _say(start_response, "no time-out")


def broken(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise SoakedError(token)

    try:
        wait(failing())
    except SoakedError as error:
        return _say(start_response, f"caught {error}")
    return _say(start_response, "nothing was raised")


# What streams -----------------------------------------------------------------------------------


def stream(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    with present.attend():
        for index in range(number):
            yield f"{token} {index}\n".encode()
            wait(asyncio.sleep(0))


def promised(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterator[Awaitable[bytes] | bytes]:
    start_response("200 OK", [TEXT])
    for index in range(number):
        yield asyncio.sleep(0, f"{token} {index}\n".encode())


async def _lines(token: str, number: int) -> AsyncIterator[bytes]:
    with present.attend():
        for index in range(number):
            yield f"{token} {index}\n".encode()
            await asyncio.sleep(0)


def generated(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Any:
    start_response("200 OK", [TEXT])
    return _lines(token, number)


def iterated(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return iterate(_lines(token, number), timeout=20)


def large(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    block = (token.encode() + b"\n") * (BLOCK // (len(token) + 1))
    with present.attend():
        while number > 0:
            yield block[:number]
            number -= len(block)


def push(environ: WSGIEnvironment, start_response: Any, token: str, number: int) -> None:
    write, finish = start_response("200 OK", [TEXT])

    def pushing() -> None:
        try:
            for index in range(number):
                write(f"{token} {index}\n".encode())
            finish()
        except ClientDisconnected:
            pass

    _pushers.submit(pushing)


# What is left -----------------------------------------------------------------------------------


def hold(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterator[bytes]:
    """Send a first block and wait; when left, wait once more to clean up."""
    start_response("200 OK", [TEXT])
    with present.attend():
        yield f"hold {token}\n".encode()
        try:
            wait(asyncio.sleep(_LONG))
        except Cancelled:
            wait(asyncio.sleep(number / 1000))
            raise


def endless(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Any:
    start_response("200 OK", [TEXT])
    return _lines(token, 10**9)


def trickle(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterator[bytes]:
    """Send a line every so many milliseconds, for ever."""
    start_response("200 OK", [TEXT])
    with present.attend():
        while True:
            yield f"trickle {token}\n".encode()
            wait(asyncio.sleep(number / 1000))


def pushed(environ: WSGIEnvironment, start_response: Any, token: str, number: int) -> None:
    """Push until the client has left."""
    write, _ = start_response("200 OK", [TEXT])

    def pushing() -> None:
        with present.attend():
            try:
                while True:
                    write(f"pushed {token}\n".encode())
                    time.sleep(0.001)
            except ClientDisconnected:
                pass

    _pushers.submit(pushing)


class Unfinished:
    """An iterable beside a `finish` that nobody calls; its `close` lets go of that."""

    def __init__(self, token: str, finish: Callable[[], None]) -> None:
        self._blocks = iter([f"unfinished {token}\n".encode()])
        self._finish: Callable[[], None] | None = finish
        self._attending = present.attend()
        self._attending.__enter__()

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        """Note the end."""
        self._finish = None
        self._attending.__exit__(None, None, None)


def unfinished(
    environ: WSGIEnvironment, start_response: Any, token: str, number: int
) -> Iterable[bytes]:
    _, finish = start_response("200 OK", [TEXT])
    return Unfinished(token, finish)


class Closing:
    """An iterable whose `close` waits."""

    def __init__(self, token: str, milliseconds: int) -> None:
        self._blocks = iter([f"closing {token}\n".encode()])
        self._seconds = milliseconds / 1000

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        """Take its time."""
        with present.attend():
            wait(asyncio.sleep(self._seconds))


def closing(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return Closing(token, number)


# All of it --------------------------------------------------------------------------------------


def warm(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    """Start the threads of both pools and the log's, so that none comes later. Count log lines."""
    listen()
    for name in ("bide", "asyncio"):  # each has a thread for the handler that counts
        logging.getLogger(name).warning("the soak begins")
    pushers = threading.Barrier(PUSHERS)
    wait_all(*[_pushers.submit(pushers.wait, 20) for _ in range(PUSHERS)], timeout=20)
    others = threading.Barrier(number)
    wait_all(*[in_thread(others.wait, 20) for _ in range(number)], timeout=20)
    return _say(start_response, f"warm {token}")


def _descend(levels: int) -> None:
    if levels:
        _descend(levels - 1)


def crowd(
    environ: WSGIEnvironment, start_response: StartResponse, token: str, number: int
) -> Iterable[bytes]:
    """Wait until all of the crowd wait, as many of them on each lane, in a deep call.

    So no later request is the first of so many, nor the first that uses a greenlet's whole stack;
    and every lane runs, for each blocks until all do.
    """
    if environ["wsgi.multithread"]:
        _on_lanes.wait(20)
    wait(_together.wait())
    _descend(_DEEP)
    return _say(start_response, f"crowd {token}")


flask = Flask(__name__)


@flask.post("/flask/<token>/<int:number>")
def echo(token: str, number: int) -> dict[str, Any]:
    """Return the JSON that came."""
    return {"token": token, "came": request.get_json()}


VIEWS: dict[str, View] = {
    view.__name__: view
    for view in (
        *(hello, upload, file, fail, late, busy),
        *(sleep, future, several, timeout, broken, semaphore, lock, pool),
        *(stream, promised, generated, iterated, large, push),
        *(hold, endless, trickle, pushed, unfinished, closing),
        *(warm, crowd, look),
    )
}


@capable("async", "threads")
def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    """Answer `/KIND/TOKEN/NUMBER`."""
    _, kind, token, number = environ["PATH_INFO"].split("/")
    if kind == "flask":
        return flask(environ, start_response)
    view = VIEWS.get(kind)
    if view is None:
        return _say(start_response, f"no {token}", "404 Not Found")
    return view(environ, start_response, token, int(number))
