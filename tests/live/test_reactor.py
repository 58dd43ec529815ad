"""``bide APP --reactor twisted``: Bide's loop is Twisted's reactor, in a process of its own."""

import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("twisted")

from tests.live.conftest import Start
from tests.live.processes import Program, get
from tests.served import Client, request

APP = """
import asyncio, sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutput
from twisted.web.client import Agent, readBody
import bide

agent = Agent(reactor)


def say(text):
    print(text, file=sys.stderr, flush=True)


def slowly():
    say("before")
    return deferLater(reactor, 0.01, say, "before has ended")


reactor.callWhenRunning(say, "the reactor runs")
reactor.addSystemEventTrigger("before", "shutdown", slowly)
reactor.addSystemEventTrigger("after", "shutdown", say, "after")


async def asked(url):  # on the reactor's thread, to which the agent belongs
    response = await agent.request(b"GET", url)
    return await readBody(response)


async def child():
    return await getProcessOutput(sys.executable, ["-c", "print('a child')"])


def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = b"plain"
    if path == "/ask":
        url = f"http://127.0.0.1:{environ['SERVER_PORT']}/".encode()
        body = b"asked: " + bide.wait(asked(url))
    elif path == "/both":
        async def both():
            await asyncio.sleep(0)
            return await deferLater(reactor, 0, lambda: b"both")
        body = bide.wait(both())
    elif path == "/process":
        body = bide.wait(child())
    elif path == "/wait":
        say("it waits")
        bide.wait(Deferred())
    elif path == "/stop":
        reactor.callFromThread(reactor.stop)
    start_response("200 OK", [])
    return [body]


looping = bide.capable("async")(lambda environ, start_response: app(environ, start_response))
"""


@pytest.fixture
def twisted(start: Start, tmp_path: Path) -> Start:
    """Return what starts the application on the reactor."""
    (tmp_path / "app.py").write_text(APP)

    def starting(*arguments: str, **options: str) -> Program:
        return start(*arguments, "--reactor", "twisted", "--bind", "127.0.0.1:0", **options)

    return starting


@pytest.mark.parametrize("app", ["app:app", "app:looping"])
def test_an_application_uses_clients_of_twisteds(twisted: Start, app: str) -> None:
    """In threads and on the loop: HTTP, a coroutine that awaits both kinds, a child process."""
    # A task goes on a turn after its Deferred, when the whole body may have come already, of which
    # readBody warns without need.
    warnings = "error,ignore:Using readBody with a transport:DeprecationWarning"
    program = twisted(app, PYTHONWARNINGS=warnings)
    program.until("the reactor runs")
    address = program.serving()
    assert get(address, "/ask").text == "asked: plain"
    assert get(address, "/both").text == "both"
    assert get(address, "/process").text == "a child\n"


@pytest.mark.parametrize("how", ["signal", "reactor.stop"])
def test_the_reactor_and_the_server_stop_together(twisted: Start, how: str) -> None:
    """Requests first; then the reactor's triggers, in their order, what they start awaited."""
    program = twisted("app:app", "--graceful-timeout", "0.5")
    address = program.serving()
    client = Client(address)
    client.send(request("/wait"))
    program.until("it waits")
    if how == "signal":
        program.signal(signal.SIGTERM)
    else:
        assert get(address, "/stop").text == "plain"
    assert client.response().status == 503
    client.close()
    assert program.wait() == 0
    said = [line for line in program.lines if line in ("before", "before has ended", "after")]
    assert said == ["before", "before has ended", "after"]
    assert program.lines[-1].endswith("stopped")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "from twisted.internet import pollreactor\npollreactor.install()",
            "reactor already installed",
        ),
        ("from twisted.internet import reactor\nreactor.run()", "Bide runs the reactor"),
    ],
    ids=["another", "run"],
)
def test_a_second_reactor_is_refused(twisted: Start, tmp_path: Path, code: str, line: str) -> None:
    """One line names the cause, in the application's own import."""
    (tmp_path / "app.py").write_text(f"{code}\napp = None\n")
    program = twisted("app:app")
    assert program.wait() == 1
    assert line in program.lines[-1]
    assert program.lines[-1].startswith("bide: ")


def test_a_reactor_that_was_there_first_is_refused(start: Start, tmp_path: Path) -> None:
    """A program that imports it before it calls ``bide.run``."""
    (tmp_path / "program.py").write_text(
        "from twisted.internet import reactor\n"
        "import bide\n"
        "bide.run(lambda *args: [], reactor='twisted')\n"
    )
    program = start(program=[sys.executable, "program.py"])
    assert program.wait() == 1
    assert "a reactor has been installed already" in program.lines[-1]


def test_a_missing_twisted_is_named(twisted: Start, tmp_path: Path) -> None:
    """And how to get it."""
    hidden = tmp_path / "hidden" / "twisted"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(hidden.parent), os.environ.get("PYTHONPATH", "")])
    program = twisted("app:app", PYTHONPATH=path)
    assert program.wait() == 1
    assert program.lines == [
        "bide: --reactor twisted needs Twisted, which cannot be imported (not here): "
        "pip install 'bide[twisted]'"
    ]


RUNNING = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
import bide


def app(environ, start_response):
    said = []

    def waits():
        try:
            bide.wait(deferLater(reactor, 0, lambda: "it has waited"))
        except bide.WaitError as error:
            said.append(str(error).encode())
        reactor.stop()

    reactor.callWhenRunning(waits)
    reactor.run(installSignalHandlers=False)
    start_response("200 OK", [])
    return said
"""


def test_a_wait_below_a_reactor_that_a_view_runs_is_refused(start: Start, tmp_path: Path) -> None:
    """On a thread, which would wait for the reactor that it runs itself."""
    (tmp_path / "app.py").write_text(RUNNING)
    program = start("app:app", "--bind", "127.0.0.1:0", "--threads", "1")
    answer = get(program.serving())
    assert answer.text.startswith("an event loop that runs below a request")
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
