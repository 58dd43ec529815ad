"""The task of a call: whether it is cancelled, and how often; and that it ends whatever happens."""

import asyncio
import math

import pytest

from bide.asgi import call as calls
from bide.asgi.http import HTTPCall
from bide.errors import Cancelled, ClientDisconnected, RequestTimeout, ServerStopping
from bide.waiting.cleanups import cleanup_time
from tests.asgi.sites import Latch, Receive, Scope, Send, answer
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import LONG, Log, Served, until


class Cleaning:
    """An application whose requests, once they are cancelled, clean up behind a latch.

    Attributes:
        events: what has become of a request: each cancellation that has come, and its end.
        latch: lets the clean-up end.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.latch = Latch()

    async def application(self, scope: Scope, _: Receive, __: Send) -> None:
        """Wait for ever."""
        assert scope["type"] == "http"
        try:
            await asyncio.Event().wait()
        finally:
            self.events.append("cancelled")
            while True:
                try:
                    await self.latch.wait()
                    break
                except asyncio.CancelledError:
                    self.events.append("cancelled")
            self.events.append("cleaned up")


def turn(served: Served) -> None:
    """Let the loop do what is ready now, and what that makes ready."""
    for _ in range(3):
        served.call(lambda: None)


def test_a_client_that_leaves_does_not_disturb_a_clean_up(serve: Serve, log: Log) -> None:
    """Of a request that has taken too long."""
    cleaning = Cleaning()
    served = serve(cleaning.application, request_timeout=LONG, asgi_cancel=0.0)
    client = served.request("/")
    served.until_waiting(1)
    served.advance(2 * LONG)
    until(lambda: cleaning.events)
    log.take("GET / of tests.asgi.test_call.Cleaning.application has taken")
    client.reset()
    until(lambda: not served.connections)
    turn(served)
    assert cleaning.events == ["cancelled"]
    served.call(cleaning.latch.open)
    served.until_idle()
    assert cleaning.events == ["cancelled", "cleaned up"]


def test_a_task_is_cancelled_once_and_again_only_by_a_server_that_stops(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes first; half of the time for cleaning up is left then. The first is told."""
    monkeypatch.setattr(calls, "LAST_MOMENT", 0.0)
    monkeypatch.setattr(cleanup_time, "seconds", LONG)
    cleaning = Cleaning()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await cleaning.application(scope, receive, send)

    served = serve(application)

    def check(
        first: type[Cancelled], second: type[Cancelled], count: int, status: int | None
    ) -> None:
        client = served.request("/")
        served.until_waiting(1)
        [call] = served.server.dispatcher.calls
        try:
            call.cancel(first("the first"))
            if served.server.dispatcher.asgi_cancel == 0.0:
                until(lambda: cleaning.events)
            call.cancel(second("the second"))
            if count:
                until(lambda: len(cleaning.events) == count)
            turn(served)
            same(cleaning.events, ["cancelled"] * count)
        finally:
            served.call(cleaning.latch.open)
            if not count:  # it would wait for ever
                call.cancel(RequestTimeout("the third"))
        if status is None:
            same(client.rest(), b"")
        else:
            same(client.response().status, status)
        served.until_idle()
        same(cleaning.events[-1], "cleaned up")

    rows: list[tuple[type[Cancelled], float, type[Cancelled], float, int, int | None]] = [
        (RequestTimeout, 0.0, ClientDisconnected, 0.5, 1, 504),
        (RequestTimeout, 0.0, RequestTimeout, 0.5, 1, 504),
        (RequestTimeout, 0.0, ServerStopping, 0.5, 1, 504),
        (RequestTimeout, 0.0, ServerStopping, 0.0, 2, 504),
        (ClientDisconnected, 0.0, ClientDisconnected, 0.5, 1, None),
        (ClientDisconnected, 0.0, RequestTimeout, 0.5, 1, None),
        (ClientDisconnected, 0.0, ServerStopping, 0.5, 1, 503),
        (ClientDisconnected, 0.0, ServerStopping, 0.0, 2, 503),
        (ClientDisconnected, math.inf, ClientDisconnected, 0.5, 0, 504),
        (ClientDisconnected, math.inf, RequestTimeout, 0.5, 1, 504),
        (ClientDisconnected, math.inf, ServerStopping, 0.5, 1, 503),
        (ServerStopping, 0.0, ClientDisconnected, 0.5, 1, 503),
        (ServerStopping, 0.0, RequestTimeout, 0.5, 1, 503),
        (ServerStopping, 0.0, ServerStopping, 0.0, 2, 503),
    ]
    with Failures() as failures:
        for first, patience, second, share, count, status in rows:
            with failures.of((first.__name__, patience, second.__name__, share)):
                monkeypatch.setattr(cleanup_time, "share", share)
                served.server.dispatcher.asgi_cancel = patience
                cleaning = Cleaning()
                check(first, second, count, status)


def test_a_task_that_is_cancelled_before_its_first_step_ends_its_call(
    serve: Serve, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the server, or by the application: the client has its answer, and the call is over."""
    called: list[str] = []

    async def application(scope: Scope, _: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        called.append(scope["path"])
        await answer(send, b"ok")

    run = HTTPCall.run

    def hasty(call: HTTPCall) -> None:
        before = asyncio.all_tasks()
        run(call)
        [task] = asyncio.all_tasks() - before
        if call.stream.request.path == b"/late":
            call.cancel(RequestTimeout("it has taken too long"))
        elif call.stream.request.path == b"/cancelled":
            task.cancel()

    monkeypatch.setattr(HTTPCall, "run", hasty)
    served = serve(application)
    assert served.get("/late").status == 504
    assert served.get("/cancelled").status == 500
    log.failure()
    assert served.get("/usual").text == "ok"
    served.until_idle()
    assert called == ["/usual"]
