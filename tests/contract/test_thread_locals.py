"""What is registered by ``bide.per_request`` is each request's own, however it waits and ends."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bide import ClientDisconnected, per_request, wait
from bide.waiting.thread_locals import kept
from tests.conftest import Serve
from tests.served import Environ, Gate, answering, until

PLAIN = [("Content-Type", "text/plain")]


class Current(threading.local):
    """What many libraries have: something of the request at hand."""

    name = ""


@pytest.fixture
def current() -> Iterator[Current]:
    """Return a local that is registered for the time of the test."""
    before = list(kept)
    yield per_request(Current())
    kept[:] = before


def test_iterables_and_pushes_find_their_own_on_each_turn(serve: Serve, current: Current) -> None:
    """All of them on one thread: blocks, promises of blocks, `write` and what closes."""
    gates = {name: Gate() for name in ("/stream", "/promise", "/push")}
    closed: list[str] = []

    def stream(path: str) -> Iterator[bytes]:
        try:
            yield b"begun "
            wait(gates[path].promise())
            yield current.name.encode()
        finally:
            wait(asyncio.sleep(0))
            closed.append(current.name)

    def promises(path: str) -> Iterator[Any]:
        yield b"begun "
        yield gates[path].promise()
        yield current.name.encode()

    def app(environ: Environ, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        assert current.name == ""
        current.name = path
        if path == "/stream":
            start_response("200 OK", PLAIN)
            return stream(path)
        if path == "/promise":
            start_response("200 OK", PLAIN)
            return promises(path)
        write, finish = start_response("200 OK", PLAIN)
        write(b"begun ")
        wait(gates[path].promise())
        write(current.name.encode())
        finish()
        return None

    served = serve(app, threads=1)
    clients = {path: served.request(path) for path in gates}
    served.until_waiting(3)
    for path in ("/promise", "/stream", "/push"):
        gates[path].open()
        assert clients[path].response().body == f"begun {path}".encode()
    until(lambda: closed == ["/stream"])


def test_a_request_that_is_cancelled_cleans_up_with_its_own(serve: Serve, current: Current) -> None:
    """And leaves nothing to the next one on its thread."""
    seen: list[str] = []
    never = Gate()

    def answer(environ: Environ) -> bytes:
        seen.append(current.name)
        current.name = environ["PATH_INFO"]
        if current.name == "/short":
            return b"short"
        try:
            wait(never.promise())
        except ClientDisconnected:
            seen.append(current.name)
            raise
        finally:
            wait(asyncio.sleep(0))
            seen.append(current.name)
        return b""

    served = serve(answering(answer), threads=1)
    client = served.request("/leaves")
    served.until_waiting(1)
    assert served.get("/short").body == b"short"
    client.close()
    served.until_idle()
    assert served.get("/short").body == b"short"
    assert seen == ["", "", "/leaves", "/leaves", ""]


def test_a_coroutine_does_not_see_the_request_s(serve: Serve, current: Current) -> None:
    """It runs beside the thread's requests, on the loop, whichever executor it is."""

    async def look() -> str:
        return current.name

    def answer(environ: Environ) -> bytes:
        current.name = "mine"
        return f"{wait(look())}/{current.name}".encode()

    served = serve(answering(answer))
    assert served.get().body == b"/mine"
    assert served.call(lambda: current.name) == ""
