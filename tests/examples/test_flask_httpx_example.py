"""The Flask application that asks another service, over a real server."""

import concurrent.futures
import re
import threading
from collections.abc import Iterator

import pytest
from flask import Flask

from tests.examples.serving import DEADLINE, Example, LoopThread, Serve


@pytest.fixture
def app(example: Example, loop_thread: LoopThread) -> Iterator[Flask]:
    """Make an application of this test's own, with an upstream that does not dawdle."""
    module = example("flask_httpx.app")
    made: Flask = module.make_app()
    upstream = made.extensions["upstream"]
    upstream.RequestHandlerClass = type("Prompt", (upstream.RequestHandlerClass,), {"seconds": 0})
    yield made
    loop_thread.run(made.extensions["client"].aclose())
    upstream.stop()


@pytest.fixture(scope="module", autouse=True)
def _the_application_of_the_import(example: Example, loop_thread: LoopThread) -> Iterator[None]:
    yield
    imported = example("flask_httpx.app").app
    loop_thread.run(imported.extensions["client"].aclose())
    imported.extensions["upstream"].stop()


def test_the_template_waits_for_each_rating(serve: Serve, app: Flask) -> None:
    """The list comes from one call, each rating from one more, made below Jinja."""
    with serve(app) as served:
        page = served.get().text
    assert "Sense &amp; Sensibility" in page
    for rating in ("4.2 of 5", "4.6 of 5", "4.8 of 5"):
        assert rating in page


def test_each_page_is_complete_in_itself(serve: Serve, app: Flask) -> None:
    """Its style and its icon are in it; a link leads on from each."""
    with serve(app) as served:
        for path in ("/", "/books/2", "/books/9", "/broken"):
            page = served.get(path).text
            assert "<style>" in page
            assert re.search(r'<link rel="icon" href="data:', page)
            assert not re.search(r"""(?:src|href)=["'](?!data:|/)""", page)
            assert page.count('href="/') >= 3


def test_a_book_is_asked_for_by_two_calls_at_once(serve: Serve, app: Flask) -> None:
    """The upstream answers none of four calls before all four are there: two pages, one thread."""
    meeting = threading.Barrier(4, timeout=DEADLINE)
    upstream = app.extensions["upstream"]

    class Meeting(upstream.RequestHandlerClass):  # type: ignore[misc, name-defined]
        def do_GET(self) -> None:
            meeting.wait()
            super().do_GET()

    upstream.RequestHandlerClass = Meeting
    with (
        serve(app, threads=1) as served,
        concurrent.futures.ThreadPoolExecutor(2) as clients,
    ):
        one, other = clients.map(served.get, ["/books/2", "/books/3"])
    assert "Ursula K. Le Guin" in one.text
    assert "4.6 of 5" in one.text
    assert "Antoine de Saint-Exupéry" in other.text
    assert "4.8 of 5" in other.text


def test_the_upstreams_404_is_the_pages(serve: Serve, app: Flask) -> None:
    """A book that is not there is not a failure of the upstream."""
    with serve(app) as served:
        response = served.get("/books/9")
    assert response.status_code == 404
    assert "there is no book 9" in response.text


def test_a_slow_upstream_is_a_504(serve: Serve, app: Flask) -> None:
    """`wait(..., timeout=)` raises TimeoutError in the view, whose error handler answers."""
    with serve(app) as served:
        response = served.get("/slow")
    assert response.status_code == 504
    assert "took too long" in response.text


def test_a_failing_upstream_is_a_502(serve: Serve, app: Flask) -> None:
    """An exception of httpx comes out of `wait` at the view's line."""
    with serve(app) as served:
        response = served.get("/broken")
    assert response.status_code == 502
    assert "the other service failed" in response.text


def test_no_upstream_is_a_502(serve: Serve, app: Flask) -> None:
    """A refused connection is handled where every failure of the upstream is."""
    app.extensions["upstream"].stop()
    with serve(app) as served:
        assert served.get("/").status_code == 502


def test_the_log_is_passed_on_line_by_line(serve: Serve, app: Flask) -> None:
    """The upstream writes a line only after the page's client has read the one before."""
    read = [threading.Event() for _ in range(5)]
    upstream = app.extensions["upstream"]

    class InStep(upstream.RequestHandlerClass):  # type: ignore[misc, name-defined]
        def answer_log(self) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            for number, seen in enumerate(read):
                self.wfile.write(b"line %d\n" % number)
                assert seen.wait(DEADLINE)

    upstream.RequestHandlerClass = InStep
    with serve(app, threads=1) as served, served.stream("/log") as lines:
        for number, seen in enumerate(read):
            assert next(lines) == f"line {number}"
            seen.set()
        assert list(lines) == []


def test_the_log_stops_when_its_client_leaves(serve: Serve, app: Flask) -> None:
    """The upstream's connection is closed, though nothing was being written."""
    left = threading.Event()
    upstream = app.extensions["upstream"]

    class Endless(upstream.RequestHandlerClass):  # type: ignore[misc, name-defined]
        def answer_log(self) -> None:
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"line\n")
            self.connection.settimeout(DEADLINE)
            assert self.connection.recv(1) == b""
            left.set()

    upstream.RequestHandlerClass = Endless
    with serve(app) as served:
        with served.stream("/log") as lines:
            assert next(lines) == "line"
        assert left.wait(DEADLINE)
        served.until_waiting(0)
