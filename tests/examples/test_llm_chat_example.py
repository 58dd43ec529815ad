"""The chat that passes on a model's words, over a real server and a real upstream."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flask import Flask

from examples.llm_chat.upstream import Upstream, words
from tests.examples.serving import DEADLINE, Example, LoopThread, Serve, Served, until

CROWD = 100


@pytest.fixture
def app(example: Example, loop_thread: LoopThread) -> Iterator[Flask]:
    """Make an application of this test's own, whose upstream hardly pauses."""
    made: Flask = example("llm_chat.app").make_app(pause=0.001)
    yield made
    loop_thread.run(made.extensions["client"].aclose())
    made.extensions["upstream"].stop()


@pytest.fixture(scope="module", autouse=True)
def _the_application_of_the_import(example: Example, loop_thread: LoopThread) -> Iterator[None]:
    yield
    imported = example("llm_chat.app").app
    loop_thread.run(imported.extensions["client"].aclose())
    imported.extensions["upstream"].stop()


class Browser:
    """One chat on a plain socket, for hundreds of httpx's clients would take long to make."""

    def __init__(self, served: Served, message: str) -> None:
        self.sock = socket.create_connection((served.host, served.port), DEADLINE)
        body = f"message={message}".encode()
        head = (
            "POST /chat HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.sock.sendall(head.encode() + body)
        self.reader = self.sock.makefile("rb")

    def events(self) -> Iterator[str]:
        """Return what stands behind ``data:``, as it comes."""
        assert b" 200 " in self.reader.readline()
        for line in self.reader:
            if line.startswith(b"data: "):
                yield line[6:].decode().rstrip()

    def close(self) -> None:
        """Leave."""
        self.reader.close()
        self.sock.close()


def said(events: Iterator[str]) -> str:
    """Put an answer together; it must have come to its end."""
    *tokens, last = events
    assert last == "[DONE]"
    return "".join(json.loads(each)["token"] for each in tokens)


def test_a_hundred_chats_share_four_threads(serve: Serve, app: Flask) -> None:
    """All are on their way at once, each waits for the model, and each has its own words."""
    upstream: Upstream = app.extensions["upstream"]
    upstream.pause = 600.0  # the second word comes when the test says so
    with (
        serve(app, threads=4, limit_threads=4) as served,
        contextlib.ExitStack() as leaving,
    ):
        browsers = [Browser(served, f"m{number}") for number in range(CROWD)]
        for browser in browsers:
            leaving.callback(browser.close)
        chats = [browser.events() for browser in browsers]
        assert {next(chat) for chat in chats} == {'{"token": "You"}'}
        served.until_waiting(CROWD)
        status = served.status
        assert status is not None
        until(lambda: status().threads_busy == 0)
        assert upstream.streaming == CROWD
        assert status().threads_max == 4
        upstream.pause = 0.0
        upstream.hurry()
        for number, chat in enumerate(chats):
            assert f" said “m{number}”." in said(chat)
        assert status().threads <= 4
    until(lambda: upstream.finished == CROWD and upstream.streaming == 0)


def test_a_word_comes_before_the_next_one_is_said(serve: Serve, app: Flask) -> None:
    """Nothing is held back between the model and the browser."""
    upstream: Upstream = app.extensions["upstream"]
    upstream.pause = 600.0
    with serve(app, threads=1) as served, contextlib.closing(Browser(served, "hello")) as browser:
        chat = browser.events()
        for word in list(words("hello"))[:5]:
            assert json.loads(next(chat)) == {"token": word}
            upstream.hurry()  # only now is there another one


def test_the_models_connection_ends_when_the_browser_leaves(serve: Serve, app: Flask) -> None:
    """Though nothing is being written: the model would go on for nobody."""
    upstream: Upstream = app.extensions["upstream"]
    upstream.pause = 600.0
    with serve(app, threads=1) as served:
        browsers = [Browser(served, "hello") for _ in range(20)]
        for browser in browsers:
            next(browser.events())
        assert upstream.streaming == 20
        for browser in browsers:
            browser.close()
        until(lambda: upstream.abandoned == 20)
        served.until_waiting(0)
        assert upstream.streaming == 0


def test_a_model_that_does_not_answer_is_said_so(serve: Serve, app: Flask) -> None:
    """The response has begun, so that no status can say it any more."""
    app.extensions["upstream"].stop()
    app.extensions["upstream"] = Upstream()  # for the fixture to stop
    app.extensions["upstream"].start()
    with serve(app) as served, contextlib.closing(Browser(served, "hello")) as browser:
        assert list(browser.events()) == ['{"trouble": "The model does not answer."}']


@pytest.mark.parametrize("message", ["", "  ", "x" * 2001], ids=["none", "blank", "long"])
def test_a_message_that_is_none_is_refused(serve: Serve, app: Flask, message: str) -> None:
    """Before the model is asked."""
    with serve(app) as served:
        response = httpx.post(f"{served.url}/chat", data={"message": message}, trust_env=False)
    assert response.status_code == 400
    assert "characters" in response.json()["error"]


def test_the_page_and_the_numbers_are_there(serve: Serve, app: Flask) -> None:
    """What the page asks for by its script is there, too."""
    with serve(app, threads=4) as served:
        page = served.get().text
        numbers = served.get("/status").json()
    assert 'fetch("chat"' in page
    assert 'fetch("status")' in page
    assert numbers["server"] == "bide"
    assert numbers["threads_max"] == 4
    assert set(numbers) >= {"upstream", "waiting", "threads_busy", "abandoned"}


def test_the_upstream_refuses_what_is_no_prompt() -> None:
    """It is a server of its own, and stands for one that checks."""
    upstream = Upstream()
    upstream.start()
    try:
        with httpx.Client(base_url=upstream.url, trust_env=False) as client:
            assert client.post("/generate", json=["no prompt"]).status_code == 400
            assert client.post("/generate", content=b"{").status_code == 400
            assert client.get("/generate").status_code == 400
        assert upstream.streaming == 0
    finally:
        upstream.stop()


def test_another_server_serves_it_too() -> None:
    """Under wsgiref each wait blocks the thread, and the answer is the same."""
    program = """
import threading, httpx
from wsgiref.simple_server import WSGIRequestHandler, make_server
from examples.llm_chat.app import make_app
class Quiet(WSGIRequestHandler):
    def log_message(self, *args): pass
server = make_server("127.0.0.1", 0, make_app(pause=0.001), handler_class=Quiet)
thread = threading.Thread(target=server.serve_forever, args=(0.05,))
thread.start()
url = f"http://127.0.0.1:{server.server_port}"
with httpx.Client(base_url=url, trust_env=False) as client:
    print(client.post("/chat", data={"message": "hi"}).text.count('"token"'))
    print(client.get("/status").json()["finished"])
server.shutdown()
thread.join()
server.server_close()
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert result.stdout.split() == [str(len(list(words("hi")))), "1"], result.stderr
