"""What type checkers accept, and the types that they see; checked, never run."""

import asyncio
import concurrent.futures
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, assert_type
from wsgiref import types as standard

import flask
from twisted.internet.defer import Deferred

import bide
from bide import StartResponse, WSGIApplication
from bide.testing import Client, LiveServer
from bide.typing import Promise, WSGIEnvironment


async def number() -> int:
    """Return a number."""
    return 1


async def text() -> str:
    """Return a text."""
    return ""


async def numbers() -> AsyncIterator[int]:
    """Yield a number."""
    yield 1


def convert(value: int, base: str = "", *, signed: bool = False) -> float:
    """Take arguments of each kind."""
    return 0.0


class Later:
    """A promise of the proposal of 2004."""

    def addCallback(self, callback: Callable[[bytes], object]) -> None:
        """Call back."""


def waits(
    future: asyncio.Future[int],
    task: asyncio.Task[str],
    deferred: Deferred[bytes],
    promised: Promise[complex],
    unknown: Any,
) -> None:
    """Each kind of promise has the type of its result."""
    assert_type(bide.wait(number()), int)
    assert_type(bide.wait(number(), 1), int)
    assert_type(bide.wait(future, timeout=0.5), int)
    assert_type(bide.wait(task), str)
    assert_type(bide.wait(concurrent.futures.Future[bytes]()), bytes)
    assert_type(bide.wait(deferred), bytes)
    assert_type(bide.wait(Later()), bytes)
    assert_type(bide.wait(promised), complex)
    assert_type(bide.wait(unknown), Any)


def waits_for_several(future: asyncio.Future[int], deferred: Deferred[bytes]) -> None:
    """By position up to six, and of one type where there may be more."""
    assert_type(bide.wait_all(number()), tuple[int])
    assert_type(bide.wait_all(number(), text(), timeout=5), tuple[int, str])
    assert_type(bide.wait_all(future, deferred, Later()), tuple[int, bytes, bytes])
    assert_type(bide.wait_all(text(), text(), text(), number()), tuple[str, str, str, int])
    five = bide.wait_all(text(), text(), text(), text(), number())
    assert_type(five, tuple[str, str, str, str, int])
    six = bide.wait_all(text(), text(), text(), text(), text(), bide.in_thread(convert, 1))
    assert_type(six, tuple[str, str, str, str, str, float])
    assert_type(bide.wait_all(*[number() for _ in range(9)]), list[int])
    assert_type(bide.wait_all(*[bide.in_thread(convert, 1)], timeout=1), list[float])
    first, second = bide.wait_all(number(), text())
    assert_type((first, second), tuple[int, str])


def calls_elsewhere() -> None:
    """The arguments are those of the function, and the promise is of its result."""
    assert_type(bide.in_thread(convert, 1), concurrent.futures.Future[float])
    assert_type(bide.wait(bide.in_thread(convert, 1, "", signed=True)), float)
    assert_type(bide.wait(bide.in_process(convert, 1, base="")), float)
    assert_type(bide.wait(bide.spawn(convert, 1, "", daemon=True)), float)
    assert_type(bide.wait(bide.spawn(lambda: 1)), int)
    for each in bide.iterate(numbers(), timeout=1):
        assert_type(each, int)
    with bide.using(asyncio.timeout(1)) as limit:
        assert_type(limit, asyncio.Timeout)


def pushes(environ: WSGIEnvironment, start_response: StartResponse) -> None:
    """Push has the types of both functions; ``write`` alone is PEP 3333's."""
    write, finish = start_response("200 OK", [("Content-Type", "text/plain")])
    assert_type(write, Callable[[bytes], None])
    assert_type(finish, Callable[[], None])
    only = start_response("500 Oh", [], sys.exc_info())
    only(b"block")
    only.finish()


def plain(environ: WSGIEnvironment, start_response: standard.StartResponse) -> list[bytes]:
    """An application of PEP 3333."""
    start_response("200 OK", [])(b"block")
    return [b""]


def promises(
    environ: WSGIEnvironment, start_response: standard.StartResponse
) -> Iterator[bytes | Later | concurrent.futures.Future[bytes]]:
    """An application that yields promises."""
    yield Later()


async def returns(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A coroutine function."""
    return []


async def generates(
    environ: WSGIEnvironment, start_response: StartResponse
) -> AsyncIterator[bytes]:
    """An async generator function."""
    yield b""


APPLICATIONS: list[WSGIApplication] = [
    pushes,
    plain,
    promises,
    returns,
    generates,
    flask.Flask(__name__),
    bide.capable("async", "threads")(pushes),
]


async def serves() -> None:
    """Settings by name, and what a server says."""
    async with bide.Server(pushes, bind="127.0.0.1:0", threads=4, request_timeout=1.5) as server:
        assert_type(server.addresses[0], str)
    bide.run(bide.mount({"/": plain, "/live": flask.Flask("live")}), log_level="info")
    bide.run("shop:app", bide.Settings(threads=2))


def tests(client: Client) -> None:
    """The testing kit."""
    response = client.get("/", params={"a": [1]}, headers={"X": "1"}, follow_redirects=True)
    assert_type(response.status_code, int)
    assert_type(response.text, str)
    client.post("/", data={"a": "b"}, timeout=1, environ={"REMOTE_USER": "ada"})
    client.post("/", data=(b"x" for _ in range(3)))
    with client.stream("POST", "/", json=[1]) as stream:
        assert_type(next(stream), bytes)
    with client.websocket("/chat", subprotocols=["chat"], params="room=1") as socket:
        assert_type(socket.receive(), str | bytes)
    with LiveServer(plain, threads=2, executor="threads") as server:
        assert_type(server.url, str)
