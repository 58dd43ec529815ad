"""The proposals of 2004, each over a real server."""

import concurrent.futures
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.serving import DEADLINE, Example, Serve, until
from tests.ports import free_port

BOTH = pytest.mark.parametrize("executor", ["loop", "threads"])
PROMISING = pytest.mark.parametrize("name", ["2004.deferred", "2004.bare_callback"])


def chunks(reader: Any) -> Iterator[bytes]:
    """Yield the chunks of a chunked body as they arrive (RFC 9112 section 7.1)."""
    while size := int(reader.readline(), 16):
        yield reader.read(size)
        assert reader.readline() == b"\r\n"
    assert reader.readline() == b"\r\n"


@contextlib.contextmanager
def raw_request(host: str, port: int) -> Iterator[Any]:
    """Send GET / and give a reader that stands at the first byte of the body."""
    with socket.create_connection((host, port), DEADLINE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as reader:
            assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
            while reader.readline() != b"\r\n":
                pass
            yield reader


def test_blocks_are_sent_as_fifty_chunks(serve: Serve, example: Example) -> None:
    """Each block that the generator yields is one chunk: none is held back, none is joined."""
    with (
        serve(example("2004.blocks").an_application) as served,
        raw_request(served.host, served.port) as reader,
    ):
        assert list(chunks(reader)) == [b"Block %d" % number for number in range(1, 51)]
        assert reader.read() == b""


def test_each_block_reaches_the_client_before_the_next_is_asked_for(
    serve: Serve, example: Example
) -> None:
    """The generator is not asked for a block until the test has read the one before."""
    application = example("2004.blocks").an_application
    read: list[concurrent.futures.Future[None]] = [concurrent.futures.Future() for _ in range(50)]

    def in_step(environ: Any, start_response: Any) -> Iterator[bytes]:
        for block, seen in zip(application(environ, start_response), read, strict=True):
            yield block
            seen.result(DEADLINE)

    with serve(in_step) as served, raw_request(served.host, served.port) as reader:
        for seen, _ in zip(read, chunks(reader), strict=True):
            seen.set_result(None)


@BOTH
@PROMISING
def test_a_promise_in_the_iterable_is_sent_in_its_place(
    serve: Serve, example: Example, name: str, executor: str
) -> None:
    """The lines before and after the promise stand before and after its value."""
    with serve(example(name).application, executor=executor) as served:
        lines = served.get("/?seconds=0.01").text.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("Hang on")
    assert lines[1].startswith("Now I am")
    assert lines[2] == "That was all."


@BOTH
@PROMISING
def test_pages_that_promise_hold_no_thread(
    serve: Serve, example: Example, name: str, executor: str
) -> None:
    """On one thread two pages wait at once, a third is answered, and both end with their client."""
    with serve(example(name).application, executor=executor, threads=1) as served:
        with served.stream("/?seconds=30") as one, served.stream("/?seconds=30") as other:
            assert next(one).startswith("Hang on")
            assert next(other).startswith("Hang on")
            served.until_waiting(2)
            assert served.get("/?seconds=0").text.endswith("That was all.\n")
        served.until_waiting(0)


@BOTH
def test_a_pushed_page_ends_when_a_timer_calls_finish(
    serve: Serve, example: Example, executor: str
) -> None:
    """The application has returned None long before its timers write and finish."""
    with serve(example("2004.push").application, executor=executor) as served:
        lines = served.get("/?ticks=3&seconds=0").text.splitlines()
    assert [re.sub(r", from .*", "", line) for line in lines] == [
        "Tick 1 of 3",
        "Tick 2 of 3",
        "Tick 3 of 3",
    ]
    threads = {line.partition(", from ")[2] for line in lines}
    assert len(threads) == 3  # each timer is a thread of its own


@BOTH
def test_pushed_pages_hold_no_thread(serve: Serve, example: Example, executor: str) -> None:
    """On one thread two pages are unfinished at once and a third is answered."""
    application = example("2004.push").application
    with serve(application, executor=executor, threads=1) as served:
        with (
            served.stream("/?ticks=100000&seconds=0.01") as one,
            served.stream("/?ticks=100000&seconds=0.01") as other,
        ):
            assert next(one).startswith("Tick 1 ")
            assert next(other).startswith("Tick 1 ")
            assert served.get("/?ticks=1&seconds=0").text.startswith("Tick 1 of 1")
            assert next(one).startswith("Tick 2 ")
        # The clients have left: `write` raises in the timers' threads, and the timers end.
        until(lambda: not any(isinstance(each, threading.Timer) for each in _threads("tick")))


def _threads(function: str) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if getattr(getattr(thread, "function", None), "__name__", "") == function
    ]


@BOTH
def test_the_xmlrpc_page_escapes_what_it_shows(
    serve: Serve, example: Example, executor: str
) -> None:
    """What a guest wrote as markup is shown as text."""
    with serve(example("2004.xmlrpc_page").application, executor=executor) as served:
        response = served.get()
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert (
        "<dt>Tom &amp; Jerry</dt><dd>&lt;b&gt;We&lt;/b&gt; were here first.</dd>" in response.text
    )


def test_the_xmlrpc_page_answers_502_when_the_call_fails(serve: Serve, example: Example) -> None:
    """A fault of the guestbook is the page's 502, escaped like everything."""
    with serve(example("2004.xmlrpc_page").application) as served:
        response = served.get("/?book=<i>")
    assert response.status_code == 502
    assert "there is no guestbook &lt;&lt;i&gt;&gt;" in response.text


def test_the_xmlrpc_page_answers_502_when_there_is_no_server(
    serve: Serve, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection prints no traceback."""
    monkeypatch.setenv("GUESTBOOK_URL", f"http://127.0.0.1:{free_port()}/")
    with serve(example("2004.xmlrpc_page").application) as served:
        assert served.get().status_code == 502


@BOTH
def test_xmlrpc_pages_hold_no_thread(
    serve: Serve, example: Example, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guestbook answers neither of two pages before both have asked, on one thread."""
    page = example("2004.xmlrpc_page")
    meeting = threading.Barrier(2, timeout=DEADLINE)

    def entries(book: Any) -> Any:
        meeting.wait()
        return [{"name": "both", "says": "have asked"}]

    guestbook = page.GuestbookServer(("127.0.0.1", 0), logRequests=False)
    guestbook.register_function(entries, "guestbook.entries")
    with guestbook, running(guestbook):
        monkeypatch.setenv("GUESTBOOK_URL", f"http://127.0.0.1:{guestbook.server_address[1]}/")
        with (
            serve(page.application, executor=executor, threads=1) as served,
            concurrent.futures.ThreadPoolExecutor(2) as clients,
        ):
            for response in clients.map(served.get, ["/", "/"]):
                assert "have asked" in response.text


@contextlib.contextmanager
def running(server: Any) -> Iterator[None]:
    """Run a socketserver in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(DEADLINE)


def test_the_guestbook_is_a_real_xmlrpc_server(example: Example) -> None:
    """The standard library's client can talk to it."""
    with xmlrpc.client.ServerProxy(example("2004.xmlrpc_page")._start_guestbook()) as proxy:
        found: Any = proxy.guestbook.entries("visitors")
    assert [entry["name"] for entry in found] == ["Ada", "Tom & Jerry"]


@BOTH
def test_the_telnet_page_shows_each_line_when_it_arrives(
    serve: Serve, example: Example, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line is sent only after the one before was seen on the page; the client's end is theirs."""
    page = example("2004.telnet_page")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        monkeypatch.setenv("TELNET_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        with serve(page.application, executor=executor, threads=1) as served:
            with served.stream("/?type=hello") as lines:
                assert next(lines).endswith("<pre>")
                session, _ = listener.accept()
                session.settimeout(DEADLINE)
                typed = session.makefile("rb")
                assert typed.readline() == b"hello\r\n"
                for number in range(5):
                    session.sendall(b"<line %d>\r\n" % number)
                    assert next(lines) == f"&lt;line {number}&gt;"
                served.until_waiting(1)
            # The client has left while the page waited for a line: the page hangs up.
            with session, typed:
                assert typed.read() == b""
            served.until_waiting(0)


@BOTH
def test_the_telnet_page_ends_with_the_session(
    serve: Serve, example: Example, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the server that the example starts: a greeting, the numbers, the end."""
    page = example("2004.telnet_page")
    monkeypatch.setattr(page.Counter, "seconds", 0)
    with serve(page.application, executor=executor) as served:
        assert served.get("/?type=3").text.splitlines()[1:] == [
            "Good evening. How far shall I count?",
            "1",
            "2",
            "3",
            "Good night.",
            "</pre></html>",
        ]
        assert "&lt;three&gt; is no number" in served.get("/?type=three").text


def test_the_asynchronous_page_runs_on_the_loop(serve: Serve, example: Example) -> None:
    """It declares async, so it gets the event loop's own thread."""
    with serve(example("2004.capabilities").asynchronous) as served:
        assert "thread: the loop's thread;" in served.get("/?seconds=0").text


def test_asynchronous_pages_wait_at_once(serve: Serve, example: Example) -> None:
    """Ten of them are parked on the one thread of the loop."""
    with serve(example("2004.capabilities").asynchronous) as served:
        with contextlib.ExitStack() as clients:
            for _ in range(10):
                client = socket.create_connection((served.host, served.port), DEADLINE)
                clients.enter_context(client)
                client.sendall(b"GET /?seconds=30 HTTP/1.1\r\nHost: here\r\n\r\n")
            served.until_waiting(10)
        served.until_waiting(0)


def test_the_threaded_page_runs_on_threads_of_the_pool(serve: Serve, example: Example) -> None:
    """It blocks, so it is kept off the loop, and told that it is not alone."""
    with serve(example("2004.capabilities").threaded) as served:
        text = served.get("/?seconds=0").text
    assert "the loop's thread" not in text
    assert "wsgi.multithread: True" in text


def test_the_blocking_page_is_never_run_twice_at_once(serve: Serve, example: Example) -> None:
    """It counts in a global without a lock: no two of eight visits at once get the same number."""
    with (
        serve(example("2004.capabilities").blocking, processes=2) as served,
        concurrent.futures.ThreadPoolExecutor(8) as clients,
    ):
        texts = [response.text for response in clients.map(served.get, ["/?seconds=0.02"] * 8)]
    visits: dict[str, list[int]] = {}
    for text in texts:
        _, number, _, _, process = text.partition(";")[0].split()
        visits.setdefault(process, []).append(int(number))
    assert 1 <= len(visits) <= 2
    assert str(os.getpid()) not in visits
    for numbers in visits.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    keys = "wsgi.multithread: False; wsgi.multiprocess: True"
    assert all(keys in text for text in texts)


DOCUMENTED = {
    "examples.2004.blocks:an_application": "threads",
    "examples.2004.deferred:application": "loop",
    "examples.2004.bare_callback:application": "loop",
    "examples.2004.push:application": "loop",
    "examples.2004.xmlrpc_page:application": "loop",
    "examples.2004.telnet_page:application": "loop",
    "examples.2004.capabilities:blocking": "in up to 4 child processes",
    "examples.2004.capabilities:threaded": "threads",
    "examples.2004.capabilities:asynchronous": "loop",
    "examples.flask_httpx.app:app": "threads",
    "examples.demo.app:app": "/live  examples.demo.loop:live runs on the event loop",
}


@pytest.mark.parametrize("target", DOCUMENTED)
def test_the_documented_command_finds_the_example_and_explains_how_it_runs(target: str) -> None:
    """``bide TARGET --explain``, from the checkout's root, as the docstrings say."""
    done = subprocess.run(
        [Path(sys.executable).with_name("bide"), target, "--explain"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert DOCUMENTED[target] in done.stdout
