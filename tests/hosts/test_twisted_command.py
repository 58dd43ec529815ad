"""``twist bide``: the plugin as Twisted finds it, and what a reactor's end means to requests."""

import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("twisted")

from tests.live.processes import Program, get
from tests.served import Client, request

APP = """
import sys, threading
from twisted.internet import reactor
from twisted.internet.defer import Deferred
import bide


def say(text):
    print(text, file=sys.stderr, flush=True)


def app(environ, start_response):
    start_response("200 OK", [])
    path = environ["PATH_INFO"]
    if path == "/deferred":
        deferred = Deferred()
        reactor.callFromThread(deferred.callback, b"fired")
        yield deferred
    elif path == "/wait":
        say("it waits")
        try:
            bide.wait(Deferred())
        finally:
            say("it waits no more")
    elif path == "/fail":
        raise ValueError("this is the application's")
    elif path == "/threads":
        yield ",".join(sorted(each.name for each in threading.enumerate())).encode()


@bide.on_start
async def opens(state):
    fired = Deferred()
    reactor.callLater(0, fired.callback, "opened")
    state["text"] = await fired
    say("it opens")


@bide.on_stop
def closes(state):
    say(f"it closes what was {state['text']}")


looping = bide.capable("async")(lambda *args: app(*args))


async def asgi(scope, receive, send):
    pass
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with the application."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


PLUGINS = Path(__file__).parent.parent.parent / "plugins"


class Twist(Program):
    """A running ``twist bide``."""

    def __init__(self, directory: Path, *arguments: str, reactor: str = "default") -> None:
        command = [sys.executable, "-m", "twisted", "--log-format=text", "--log-file=+"]
        super().__init__(
            [*command, f"--reactor={reactor}", "bide", *arguments],
            directory,
            PYTHONPATH=str(PLUGINS),  # else installed by bide-twisted
            PYTHONWARNINGS="default",  # other people's plugins are looked at, too
        )

    def listening(self) -> str:
        """Return its address."""
        return "127.0.0.1:" + self.until("Site starting on ").rpartition(" ")[2]


@pytest.fixture(params=["epoll", "asyncio"])
def reactor(request: pytest.FixtureRequest) -> str:
    """Name a reactor."""
    name: str = request.param
    return name


PORT = "tcp:0:interface=127.0.0.1"


def test_twist_serves_without_a_second_loop(directory: Path, reactor: str) -> None:
    """A yielded ``Deferred`` is waited for on the reactor: beside it there are only lanes."""
    program = Twist(directory, "--port", PORT, "--app", "app:app", reactor=reactor)
    try:
        address = program.listening()
        assert get(address, "/deferred").text == "fired"
        assert get(address, "/threads").text == "MainThread,bide-thread-1"
        assert get(address, "/fail").status == 500
        program.until("the application failed: GET /fail of ")
        program.until("ValueError: this is the application's")
    finally:
        program.close()


def test_an_async_capable_application_needs_no_thread_but_the_reactors(directory: Path) -> None:
    """It runs there; the application may be named without an option."""
    program = Twist(directory, "--port", PORT, "app:looping")
    try:
        address = program.listening()
        assert get(address, "/deferred").text == "fired"
        assert get(address, "/threads").text == "MainThread"
    finally:
        program.close()


@pytest.mark.parametrize("app", ["app:app", "app:looping"])
def test_requests_that_wait_are_ended_before_the_reactor_stops(
    directory: Path, reactor: str, app: str
) -> None:
    """They are answered, their code cleans up, and only then connections are closed.

    Around all of it, functions for the start and the stop are called.
    """
    program = Twist(directory, "--port", PORT, app, reactor=reactor)
    try:
        address = program.listening()
        program.until("it opens")
        client = Client(address)
        client.send(request("/wait"))
        program.until("it waits")
        program.signal(signal.SIGTERM)
        assert client.response().status == 503
        client.close()
        program.until("it waits no more")
        program.until("it closes what was opened")
        assert program.wait() == -signal.SIGTERM  # Twisted's way to end
    finally:
        program.close()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "name the application: twist bide MODULE:NAME"),
        (("nothing:app",), "there is no module 'nothing'"),
        (("app:asgi",), "ASGI"),
        (("--port", "nowhere:1", "app:app"), "--port is 'nowhere:1': "),
        (("--executor", "both", "app:app"), "--executor is 'both': auto, loop or threads"),
        (("--threads", "0", "app:app"), "--threads is 0: it must be 1 or more"),
        (("app:app", "--port", PORT), "options go before the application"),
    ],
)
def test_a_mistake_gets_a_line(directory: Path, arguments: tuple[str, ...], line: str) -> None:
    """And Twisted's exit code for wrong usage."""
    program = Twist(directory, *arguments)
    try:
        assert program.wait() != 0
        text = [each for each in program.lines + program.output if each.startswith("Error: ")]
        assert len(text) == 1
        assert line in text[0]
    finally:
        program.close()
