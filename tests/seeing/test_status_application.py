"""The status page's application, on a real server, with an instance that is made by hand."""

import asyncio
import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bide.seeing.status_access import Access
from bide.seeing.status_application import VIEWERS, Application
from bide.seeing.status_feed import Feed
from bide.seeing.status_view import view
from tests.conftest import Serve
from tests.failures import Failures
from tests.seeing.instances import instance, request, snapshot
from tests.served import DEADLINE, Log, Served, until

TOKEN = "correct-horse-battery"


class Told:
    """A server as the page asks it, over a pair of sockets.

    Attributes:
        now: what it answers.
        asked: how often it was asked.
        answers: cleared, it is silent.
    """

    def __init__(self, theirs: socket.socket) -> None:
        self.now: dict[str, Any] = instance(snapshot(1, requests=[request(1)]))
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()
        self._socket = theirs
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                assert line == b"status\n"
                self.asked += 1
                self.answers.wait(DEADLINE)
                with contextlib.suppress(BrokenPipeError):  # the test is over
                    self._socket.sendall(json.dumps(self.now).encode() + b"\n")

    def close(self) -> None:
        """End."""
        self.answers.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self._socket.close()


class Page:
    """A status page.

    Attributes:
        told: the server that it shows.
        feed: asks that.
        served: the page's own server.
    """

    def __init__(
        self, serve: Serve, token: str = "", patience: float = DEADLINE, **settings: Any
    ) -> None:
        ours, theirs = socket.socketpair()
        self.told = Told(theirs)
        self.ended = threading.Event()
        self.feed = Feed(ours, view, self.ended.set, every=0.01, patience=patience)
        application = Application(self.feed, Access(token, by_name=False))
        self.served: Served = serve(application, **settings)
        asyncio.run_coroutine_threadsafe(self.feed.open(), self.served.loop).result(DEADLINE)

    def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """Make a request."""
        with self.served.http() as client:
            return client.request(method, path, headers=headers)

    def close(self) -> None:
        """End the server that is shown."""
        self.told.close()
        assert self.ended.wait(DEADLINE)
        self.served.call(self.feed._writer.close)
        self.served.turn(2)


@pytest.fixture
def page(serve: Serve) -> Iterator[Page]:
    """Return a page without a token."""
    made = Page(serve)
    yield made
    made.close()


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield what each event says."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_each_path_is_answered_and_may_not_be_kept_or_framed(page: Page) -> None:
    """Scripts and styles may be the page's own alone, so what comes from outside can be none."""
    answers = {
        ("GET", "/"): 200,
        ("HEAD", "/"): 200,
        ("GET", "/status.json"): 200,
        ("GET", "/health"): 200,
        ("HEAD", "/health"): 200,
        ("GET", "/nothing"): 404,
        ("HEAD", "/events"): 404,
        ("POST", "/status.json"): 405,
    }
    with Failures() as failures:
        for (method, path), status in answers.items():
            with failures.of(f"{method} {path}"):
                response = page.get(path, method)
                assert response.status_code == status
                assert response.headers["cache-control"] == "no-store"
                assert response.headers["x-content-type-options"] == "nosniff"
                policy = response.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'sha256-")
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
    assert page.get("/status.json").json() == page.told.now


def test_a_server_is_healthy_while_one_of_its_workers_answers(page: Page) -> None:
    """That is what the path is for; who asks gets no more."""
    page.told.now = instance(snapshot(1), snapshot(2), mute=[2])
    until(lambda: page.get("/health").status_code == 200)
    page.told.now = instance(snapshot(1), snapshot(2), mute=[1, 2])
    until(lambda: page.get("/health").status_code == 503)
    assert page.get("/health").text == "no worker answers\n"


def test_one_watch_is_for_all_viewers_and_none_is_for_nobody(page: Page) -> None:
    """Who leaves frees what was there for it; a stream begins with what is now."""
    assert page.told.asked == 0
    with page.served.http() as client:
        with (
            client.stream("GET", "/events") as first,
            client.stream("GET", "/events") as second,
        ):
            assert first.headers["content-type"] == "text/event-stream"
            one, other = events(first.iter_lines()), events(second.iter_lines())
            assert next(one)["states"]["waiting"] == next(other)["states"]["waiting"] == 1
            assert page.feed.viewers == 2
            tasks = page.served.call(lambda: len(asyncio.all_tasks()))
            page.told.now = instance(snapshot(1))
            until(lambda: not next(one)["requests"])
            until(lambda: not next(other)["requests"])
        until(lambda: page.feed.viewers == 0, "a viewer that has left is still there")
    page.served.until_idle()
    assert page.told.asked == page.feed.asked
    asked = page.feed.asked
    assert page.served.call(lambda: page.feed._watching) is None
    until(lambda: page.served.call(lambda: len(asyncio.all_tasks())) < tasks)
    assert page.feed.asked == asked


def test_a_server_that_is_silent_is_asked_once_however_many_ask(serve: Serve) -> None:
    """Each is told so, viewers too; the answer that comes at last is for all."""
    page = Page(serve, patience=0.01)
    try:
        page.told.answers.clear()
        for path in ("/status.json", "/health", "/status.json"):
            response = page.get(path)
            assert response.status_code == 503
            assert response.text == "the server does not answer\n"
        assert page.get("/").status_code == 200
        with page.served.http() as client, client.stream("GET", "/events") as response:
            came = events(response.iter_lines())
            assert "silent" in next(came)
            assert "silent" in next(came)
            assert page.feed.asked == 1
            page.told.answers.set()
            until(lambda: "states" in next(came))
    finally:
        page.close()


def test_too_many_viewers_are_refused(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on."""
    monkeypatch.setattr(page.feed, "viewers", VIEWERS)
    assert page.get("/events").status_code == 503
    monkeypatch.undo()
    assert page.get("/").status_code == 200


def test_a_view_that_fails_ends_the_stream_and_is_told(
    page: Page, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than to leave viewers without news; the next viewer may have more luck."""

    def fails(_: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("no such state")

    monkeypatch.setattr(page.feed, "_shown", fails)
    with page.served.http() as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/events")
    assert "no such state" in str(log.failure().exc_info)
    monkeypatch.undo()
    with page.served.http() as client, client.stream("GET", "/events") as response:
        assert next(events(response.iter_lines()))["requests"] == 1


def test_metrics_are_what_the_renderer_makes_or_a_line_says_what_is_missing(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported when it is first needed."""
    monkeypatch.setitem(sys.modules, "bide.seeing.metrics", None)
    response = page.get("/metrics")
    assert response.status_code == 501
    assert response.text.count("\n") == 1
    assert "pip install 'bide[metrics]'" in response.text
    monkeypatch.undo()
    response = page.get("/metrics")
    assert 'bide_requests{state="waiting"} 1.0' in response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_token_is_asked_for_and_exchanged_for_a_cookie_once(serve: Serve) -> None:
    """Without it nothing is told, and nothing asked of the server."""
    page = Page(serve, TOKEN)
    try:
        for path in ("/", "/status.json", "/events", "/metrics", "/health"):
            response = page.get(path)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert page.told.asked == 0
        assert 'name="token"' in page.get("/").text
        assert page.get("/?token=wrong-horse-battery").status_code == 401
        assert page.get(f"/status.json?token={TOKEN}").status_code == 401
        assert page.get("/status.json", Authorization=f"Bearer {TOKEN}").status_code == 200
        entered = page.get(f"/?token={TOKEN}")
        assert entered.status_code == 200
        assert TOKEN not in entered.text  # the browser goes on to an address without it
        assert 'content="0; url=./"' in entered.text
        cookie = entered.headers["set-cookie"].partition(";")[0]
        assert "canvas" in page.get("/", Cookie=cookie).text
        assert page.get("/status.json", Cookie=cookie).status_code == 200
    finally:
        page.close()


def test_it_ends_with_the_server(page: Page) -> None:
    """The end of the socket is the end of the server, though nobody looks."""
    assert not page.ended.is_set()
    page.told._socket.shutdown(socket.SHUT_RDWR)
    assert page.ended.wait(DEADLINE)
