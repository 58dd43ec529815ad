"""The same application under Flask's own servers, under gunicorn, and without the integration."""

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask, g, request
from werkzeug.debug import DebuggedApplication

from bide.integrations.flask import Bide, stream
from tests.conftest import Serve
from tests.integrations.conftest import Run
from tests.live.processes import Program
from tests.served import Client, Response, until
from tests.served import request as message

MODULE = """
import asyncio, os, threading
from flask import Flask, request
from bide.integrations.flask import Bide, stream

app = Flask(__name__)
Bide(app)
lock = asyncio.Lock()


@app.get("/")
async def index():
    async with lock:
        await asyncio.sleep(0)
    return f"{request.path} {threading.current_thread().name}"


@app.get("/stream")
async def streaming():
    async def blocks():
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{number} {request.path}\\n"
    return stream(blocks())


@app.get("/broken")
async def broken():
    raise LookupError("broken in the coroutine")


if __name__ == "__main__":
    app.run(port=0, debug=True, use_reloader=False)
"""
TEXT = "0 /stream\n1 /stream\n2 /stream\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Program, str]]]:
    """Start a server of the module as a process; give it and its address."""
    (tmp_path / "shop.py").write_text(MODULE)
    programs = []

    def begin(*arguments: str, says: str) -> tuple[Program, str]:
        # Werkzeug makes sockets from descriptors that it never closes itself.
        program = Program([sys.executable, *arguments], tmp_path, PYTHONWARNINGS="default")
        programs.append(program)
        return program, program.until(says).partition("http://")[2].split()[0]

    yield begin
    for program in programs:
        program.signal(signal.SIGTERM)  # a reloader ends its child
        program.wait()
        program.close()


def fetch(address: str, path: str = "/") -> Response:
    """Make one request."""
    with contextlib.closing(Client(address)) as client:
        client.send(message(path, version="1.0"))
        return client.response()


SERVERS = {
    "app.run(debug=True)": (["shop.py"], "Running on"),
    "flask run": (["-m", "flask", "--app", "shop", "run", "--port", "0"], "Running on"),
    "gunicorn": (["-m", "gunicorn", "-b", "127.0.0.1:0", "shop:app"], "Listening at"),
    "gunicorn, threads": (
        ["-m", "gunicorn", "-b", "127.0.0.1:0", "--threads", "4", "shop:app"],
        "Listening at",
    ),
}


@pytest.mark.parametrize("server", SERVERS)
def test_async_views_and_streams_run_under_other_servers(
    server: str, start: Callable[..., tuple[Program, str]]
) -> None:
    """There waiting blocks the thread, and all coroutines share one loop in the background."""
    arguments, says = SERVERS[server]
    _, address = start(*arguments, says=says)
    for _ in range(3):
        assert fetch(address).text == "/ bide-background-loop"
    response = fetch(address, "/stream")
    assert response.text == TEXT


def test_the_debugger_shows_the_line_of_the_coroutine(
    start: Callable[..., tuple[Program, str]],
) -> None:
    """Under ``app.run(debug=True)``, as for an ordinary view."""
    _, address = start("shop.py", says="Running on")
    page = fetch(address, "/broken")
    assert page.status == 500
    assert "LookupError: broken in the coroutine" in page.text
    assert "raise LookupError(" in page.text
    assert "debugger.js" in page.text


def test_the_reloader_starts_the_application_anew(
    tmp_path: Path, start: Callable[..., tuple[Program, str]]
) -> None:
    """Though its background loop runs: the process is replaced as any other is."""
    program, address = start(
        "-m", "flask", "--app", "shop", "run", "--port", "0", "--reload", says="Running on"
    )
    assert fetch(address).text == "/ bide-background-loop"
    (tmp_path / "shop.py").write_text(MODULE.replace('f"{request.path} ', 'f"anew '))
    program.until("Detected change in")
    program.until("Restarting with")  # said when the old process has ended
    until(lambda: fetch(address).text == "anew bide-background-loop", "it was not reloaded")


def test_werkzeugs_debugger_goes_around_an_application_under_bide(run: Run) -> None:
    """Errors of coroutines are shown with their frames, and requests park below it."""
    app = Flask("debugged")
    app.debug = True
    Bide(app)
    arrived = asyncio.Event()

    @app.get("/")
    async def view() -> str:
        await arrived.wait()
        return "here"

    @app.get("/broken")
    async def broken() -> str:
        await asyncio.sleep(0)
        raise LookupError("broken in the coroutine")

    served = run(DebuggedApplication(app, evalex=True))
    client = served.request()
    served.until_waiting(1)
    until(lambda: served.status.threads_busy == 0)
    page = served.get("/broken")
    assert page.status == 500
    assert "LookupError: broken in the coroutine" in page.text
    assert "test_flask_elsewhere.py" in page.text
    served.call(arrived.set)
    assert client.response().text == "here"


def test_flasks_test_client_runs_async_views() -> None:
    """On the thread of the test, which blocks meanwhile; streams are read block by block."""
    app = Flask("tested")
    Bide(app)

    @app.get("/")
    async def view() -> Iterator[str]:
        g.name = "ada"
        await asyncio.sleep(0)

        async def blocks() -> AsyncIterator[str]:
            yield g.name
            await asyncio.sleep(0)
            yield request.path

        return stream(blocks())

    with app.test_client() as client:
        response = client.get("/", buffered=False)
        assert list(response.response) == [b"ada", b"/"]
        response.close()


def test_a_stream_is_closed_when_the_test_client_is() -> None:
    """Without a server, too, its clean-up has run when ``close`` returns."""
    app, notes = Flask("tested"), []

    async def blocks() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            await asyncio.sleep(0)
            notes.append("closed")

    app.get("/")(lambda: stream(blocks()))
    response = app.test_client().get("/", buffered=False)
    assert next(iter(response.response)) == b"one"
    response.close()
    assert notes == ["closed"]


def test_without_the_integration_an_async_view_runs_as_flask_alone_would(serve: Serve) -> None:
    """By asgiref, with a loop for each call, on the request's thread: nothing breaks."""
    app = Flask("alone")
    loops = set()

    @app.get("/")
    async def view() -> str:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        g.thread = threading.get_ident()
        return request.path

    @app.after_request
    async def after(response: Response) -> Response:
        assert g.thread
        return response

    served = serve(app)
    assert served.get().text == "/"
    assert served.get().text == "/"
    assert served.loop not in loops
    assert len(loops) == 2


def test_without_the_integration_the_loop_executor_cannot_run_async_views(serve: Serve) -> None:
    """Asgiref runs no loop beside one that runs; its message says so, and nothing hangs."""
    app = Flask("alone")

    @app.get("/")
    async def view() -> str:
        return "here"

    @app.errorhandler(RuntimeError)
    def refused(error: RuntimeError) -> str:
        return str(error)

    app.get("/ordinary")(lambda: "here")
    served = serve(app, executor="loop")
    assert "event loop" in served.get("/").text
    assert served.get("/ordinary").text == "here"
