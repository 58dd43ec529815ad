"""What waits is not held up by what blocks, while there are threads: by counts, not by times.

A thread that blocks is held by an event of the test's, and what must go on is seen to go on before
that is set.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response

from bide import wait
from tests.conftest import Serve
from tests.served import (
    Client,
    Environ,
    Gate,
    Served,
    answering,
    happened,
    request,
    until,
)

MB = 1024 * 1024


class Site:
    """An application with a path that waits, one that blocks, and one that is quick."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.release = threading.Event()
        self.blocked = threading.Semaphore(0)
        self.waiting_on: list[str] = []
        self.blocking: list[str] = []
        self.application = answering(self._answer)

    def _answer(self, environ: Environ) -> str:
        name = threading.current_thread().name
        if environ["PATH_INFO"] == "/wait":
            self.waiting_on.append(name)
            wait(self.gate.promise())
        elif environ["PATH_INFO"] == "/block":
            self.blocking.append(name)
            self.blocked.release()
            happened(self.release)
        return name

    def until_blocked(self, number: int) -> None:
        """Return once so many more requests block."""
        for _ in range(number):
            assert self.blocked.acquire(timeout=20)


def in_one_turn(served: Served, paths: list[str]) -> list[Client]:
    """Send all these requests so that the server finds them at once, on accepted connections."""
    clients = [served.connect() for _ in paths]
    until(lambda: served.status.connections >= len(clients))
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        holding.set()
        happened(release)

    served.loop.call_soon_threadsafe(hold)
    happened(holding)
    for client, path in zip(clients, paths, strict=True):
        client.send(request(path))
    release.set()
    return clients


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
def test_forty_that_wait_are_not_behind_the_one_that_blocks(serve: Serve, at_once: bool) -> None:
    """On a fresh server with four threads, whether they came one by one or in one turn."""
    site = Site()
    served = serve(site.application, threads=4)
    if at_once:
        clients = in_one_turn(served, ["/wait"] * 40)
    else:
        clients = [served.request("/wait") for _ in range(40)]
    served.until_waiting(40)
    blocking = served.request("/block")
    site.until_blocked(1)
    assert site.blocking[0] not in site.waiting_on
    site.gate.open()
    for client in clients:
        assert client.response().status == 200
    site.release.set()
    assert blocking.response().status == 200


def test_two_requests_have_two_of_eight_threads(serve: Serve) -> None:
    """One waits, and one blocks: the first goes on."""
    site = Site()
    served = serve(site.application, threads=8)
    waiting = served.request("/wait")
    served.until_waiting(1)
    blocking = served.request("/block")
    site.until_blocked(1)
    site.gate.open()
    assert waiting.response().status == 200
    site.release.set()
    assert blocking.response().status == 200


def test_more_block_than_there_are_threads_and_others_are_served(serve: Serve) -> None:
    """A thread that blocks does not run: another begins requests in its place, up to the limit."""
    site = Site()
    served = serve(site.application, threads=2, limit_threads=8)
    waiting = served.request("/wait")
    served.until_waiting(1)
    blocking = [served.request("/block") for _ in range(6)]
    site.until_blocked(6)
    assert site.waiting_on[0] not in site.blocking
    assert len(set(site.blocking)) == 6
    assert served.get("/quick").status == 200
    site.gate.open()
    assert waiting.response().status == 200
    site.release.set()
    for client in blocking:
        assert client.response().status == 200


def test_when_all_threads_have_waiting_requests_the_fewest_are_behind_a_blocking_one(
    serve: Serve,
) -> None:
    """Nine on four threads: it blocks one that has two of them."""
    site = Site()
    served = serve(site.application, threads=4, limit_threads=4)
    clients = []
    for number in range(9):
        clients.append(served.request("/wait"))
        served.until_waiting(number + 1)
    counts = sorted(site.waiting_on.count(name) for name in set(site.waiting_on))
    assert counts == [2, 2, 2, 3]
    blocking = served.request("/block")
    site.until_blocked(1)
    assert site.waiting_on.count(site.blocking[0]) == 2
    site.gate.open()
    for client, name in zip(clients, site.waiting_on, strict=True):
        if name != site.blocking[0]:
            assert client.response().status == 200
    site.release.set()
    assert blocking.response().status == 200


def test_with_one_thread_there_is_one(serve: Serve) -> None:
    """An application that needs it never runs in two."""
    site = Site()
    served = serve(site.application, threads=1)
    clients = [served.request("/wait") for _ in range(10)]
    served.until_waiting(10)
    assert served.status.threads == served.status.threads_max == 1
    site.gate.open()
    assert len({client.response().text for client in clients}) == 1


# Downloads -------------------------------------------------------------------------------------

BLOCK = b"x" * (20 * MB)


class Closing:
    """An iterable with ``close``, as middleware wraps them."""

    def __init__(self, made: list[bytes], closed: list[bool]) -> None:
        self._made = made
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._made)

    def close(self) -> None:
        """Note it."""
        self._closed.append(True)


def flask_site() -> Flask:
    app = Flask(__name__)

    @app.get("/download")
    def download() -> Response:
        return Response(BLOCK, mimetype="application/octet-stream")

    return app


def plain(make: Callable[[], Any], headers: list[tuple[str, str]]) -> Any:
    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", headers)
        return make()

    return application


LENGTH = [("Content-Length", str(len(BLOCK)))]
DOWNLOADS: dict[str, Callable[[list[bool]], Any]] = {
    "Flask": lambda closed: flask_site(),
    "one block": lambda closed: plain(lambda: [BLOCK], []),
    "a tuple": lambda closed: plain(lambda: (BLOCK[: 10 * MB], BLOCK[10 * MB :]), []),
    "blocks": lambda closed: plain(lambda: [BLOCK[:MB]] * 20, []),
    "an iterable": lambda closed: plain(lambda: Closing([BLOCK[:MB]] * 20, closed), []),
    "an iterable of one": lambda closed: plain(lambda: Closing([BLOCK], closed), []),
    "a generator": lambda closed: plain(lambda: (each for each in [BLOCK, b""]), LENGTH),
}


@pytest.mark.parametrize("executor", ["threads", "loop"])
@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_download_that_is_in_memory_leaves_its_thread_at_once(
    serve: Serve, name: str, executor: str
) -> None:
    """Its client has taken nothing when the conversation has ended, and close() was called."""
    closed: list[bool] = []
    served = serve(DOWNLOADS[name](closed), threads=1, executor=executor)
    client = served.connect(window=4096)
    client.send(request("/download"))
    until(lambda: any(each.sending for each in list(served.server._connections)))
    served.until_idle()
    assert any(each.sending for each in list(served.server._connections))
    assert closed == [True] * name.startswith("an iterable")
    response = client.response()
    assert (response.complete, response.body == BLOCK) == (True, True)


def test_a_download_is_not_held_up_by_a_view_that_blocks_the_only_thread(serve: Serve) -> None:
    """The loop sends it."""
    app = flask_site()
    blocked, release = threading.Event(), threading.Event()

    @app.get("/block")
    def block() -> str:
        blocked.set()
        happened(release)
        return "blocked"

    served = serve(app, threads=1)
    client = served.connect(window=4096)
    client.send(request("/download"))
    until(lambda: any(each.sending for each in list(served.server._connections)))
    blocking = served.request("/block")
    happened(blocked)
    assert len(client.response().body) == len(BLOCK)
    release.set()
    assert blocking.response().text == "blocked"


def test_a_response_of_large_blocks_has_a_length_and_one_of_small_blocks_comes_in_chunks(
    serve: Serve,
) -> None:
    """Chunks of what is all there would only be copies; each small block goes out as before."""
    large = serve(plain(lambda: [BLOCK[:MB]] * 2, []), threads=1).get()
    assert (large.header("Content-Length"), large.chunks) == (str(2 * MB), [])
    small = serve(plain(lambda: [b"one", b"", b"two"], []), threads=1).get()
    assert (small.header("Content-Length"), small.chunks) == (None, [b"one", b"two"])


def test_a_block_that_is_promised_is_waited_for_between_those_that_are_made(
    serve: Serve,
) -> None:
    """A list is an iterable like any other then."""
    gate = Gate()
    served = serve(plain(lambda: [b"one", gate.promise(), b"two"], []), threads=1)
    client = served.request()
    assert client.head().status == 200
    assert client.chunk() == b"one"
    served.until_waiting(1)
    gate.open()
    assert [client.chunk() for _ in range(2)] == [b"two", b""]
