"""A request of a Flask application that is cancelled ends in order: coroutine, then teardown."""

import asyncio
import threading
from typing import Any

import pytest
from flask import Flask, g, request

import bide
from bide.integrations.flask import Bide
from bide.waiting.cleanups import cleanup_time
from bide.waiting.waiter import Waiter
from tests.conftest import Serve
from tests.integrations.conftest import Run
from tests.served import LONG, Gate, Log, happened, until


class Watched:
    """An application whose views wait, and note how they end."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.inside = threading.Event()  # a view waits, and not what comes before it
        self.app = app = Flask("watched")
        Bide(app)
        app.get("/forever")(self.forever)
        app.get("/stubborn")(self.stubborn)
        app.before_request(self.before)
        app.teardown_request(self.teardown)
        app.after_request(self.after)
        app.errorhandler(Exception)(self.failed)

    async def before(self) -> None:
        """Note that the request has begun."""
        g.cleaned = False

    async def forever(self) -> str:
        """Wait, and clean up by waiting again."""
        try:
            self.inside.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            g.cleaned = True
            self.notes.append("finally")
        return "never"

    async def stubborn(self) -> str:
        """Swallow the cancellation, and answer all the same."""
        try:
            self.inside.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.notes.append("swallowed")
        return "an answer for nobody"

    async def teardown(self, error: BaseException | None) -> None:
        """Note the end, after a turn of the loop."""
        await asyncio.sleep(0)
        self.notes.append(f"teardown: {type(error).__name__}, cleaned: {g.cleaned}")

    def after(self, response: Any) -> Any:
        """Note that there was an answer."""
        self.notes.append("after")
        return response

    def failed(self, error: Exception) -> str:
        """Note that the error was taken for the application's."""
        self.notes.append(f"handled: {type(error).__name__}")
        return "handled"


def test_the_coroutine_is_cancelled_when_the_client_leaves(run: Run) -> None:
    """Its ``finally`` has run before Flask tears down, and no error handler has taken it."""
    watched = Watched()
    served = run(watched.app)
    client = served.request("/forever")
    happened(watched.inside)
    client.close()
    served.until_idle()
    assert watched.notes == ["finally", "teardown: ClientDisconnected, cleaned: True"]


def test_a_coroutine_that_swallows_its_cancelling_does_not_keep_the_request(run: Run) -> None:
    """What it returns is for nobody: the request ends as one whose client has left."""
    watched = Watched()
    served = run(watched.app)
    client = served.request("/stubborn")
    happened(watched.inside)
    client.close()
    served.until_idle()
    assert watched.notes == ["swallowed", "teardown: ClientDisconnected, cleaned: False"]


def test_a_request_that_takes_too_long_is_cancelled_and_answered(run: Run, log: Log) -> None:
    """By the deployer's limit: 504, after the coroutine and the teardown."""
    watched = Watched()
    served = run(watched.app, request_timeout=LONG)
    client = served.request("/forever")
    happened(watched.inside)
    served.until_waiting(1)
    served.advance(LONG)
    assert client.response().status == 504
    log.take("its wait is ended")
    assert watched.notes == ["finally", "teardown: RequestTimeout, cleaned: True"]


def test_a_server_that_stops_cancels_its_coroutines(run: Run, log: Log) -> None:
    """They clean up on a loop that still runs."""
    watched = Watched()
    served = run(watched.app, graceful_timeout=0.0)
    client = served.request("/forever")
    happened(watched.inside)
    served.begin_stop()
    assert client.response().status == 503
    served.join(leaving=True)
    log.take("they are cancelled")
    assert watched.notes == ["finally", "teardown: ServerStopping, cleaned: True"]


def test_a_coroutine_is_not_begun_once_the_client_has_left(serve: Serve) -> None:
    """There is nothing to clean up then, and nothing to wait for."""
    notes: list[str] = []
    running = threading.Event()
    app = Flask("late")
    Bide(app)

    @app.get("/")
    def view() -> str:
        running.set()
        until(request.environ["bide.disconnected"])
        try:
            app.ensure_sync(ask)()
        except bide.ClientDisconnected:
            notes.append("raised")
            raise
        return "it went on"

    async def ask() -> None:
        notes.append("begun")

    served = serve(app)
    client = served.request()
    happened(running)
    client.close()
    served.until_idle()
    assert notes == ["raised"]


def test_time_outs_of_asyncio_are_the_applications_own(run: Run) -> None:
    """``asyncio.timeout`` cancels within the coroutine, and raises what Flask may handle."""
    app = Flask("patient")
    Bide(app)

    @app.get("/")
    async def view() -> str:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
        return "never"

    @app.errorhandler(TimeoutError)
    async def late(error: TimeoutError) -> tuple[str, int]:
        return "the other service takes too long", 504

    response = run(app).get()
    assert (response.status, response.text) == (504, "the other service takes too long")


def test_a_coroutine_that_cancels_itself_has_failed(run: Run, log: Log) -> None:
    """It is not a departure: the client is there, and is answered."""
    app = Flask("cancelled")
    Bide(app)

    @app.get("/")
    async def view() -> str:
        raise asyncio.CancelledError

    assert run(app).get().status == 500
    record = log.failure()
    assert record.exc_info
    assert record.exc_info[0] is asyncio.CancelledError


def slow_to_leave(gate: Gate, notes: list[str]) -> Flask:
    """Return a site whose coroutine cleans up once the gate is open; it notes that, and its end."""
    app = Flask("slow to leave")
    Bide(app)

    @app.get("/")
    async def view() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wrap_future(gate.promise())
            notes.append("cleaned up")
        return "never"

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        notes.append("teardown")

    return app


def test_a_cancelled_coroutine_has_a_limited_time_to_clean_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its request ends without it; the coroutine itself goes on to its end."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.05)
    notes: list[str] = []
    gate = Gate()

    served = run(slow_to_leave(gate, notes))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert notes == ["teardown"]
    gate.open()
    until(lambda: len(notes) == 2, "it never went on")


def test_a_cancelled_coroutine_has_all_of_that_time_before_its_request_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is left of it when its wait has been given up; then the teardown comes."""
    monkeypatch.setattr(cleanup_time, "share", 0.0)  # given up at once
    notes: list[str] = []
    gate, given_up, waits_again = Gate(), threading.Event(), threading.Event()
    real = Waiter.wait

    def noting(waiter: Waiter, promise: Any, timeout: float | None = None) -> Any:
        if waiter.cancelled:
            waits_again.set()
        try:
            return real(waiter, promise, timeout)
        finally:
            if waiter.cancelled:
                given_up.set()

    monkeypatch.setattr(Waiter, "wait", noting)

    served = run(slow_to_leave(gate, notes))
    client = served.request()
    served.until_waiting(1)
    client.close()
    happened(given_up)
    until(lambda: waits_again.is_set() or notes)
    gate.open()
    served.until_idle()
    until(lambda: len(notes) == 2)
    assert notes == ["cleaned up", "teardown"]
