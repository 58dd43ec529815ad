"""An application's lifespan: its start, its state, its end, and what goes wrong with each."""

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import bide
from bide.applications.loading import ApplicationFailed
from bide.asgi import lifespan
from bide.asgi.lifespan import Lifespan, LifespanFailed
from bide.serving.lifetime import Lifetime
from tests.asgi.sites import Handler, Latch, Receive, Scope, Send, answer
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import DEADLINE, Log, answering

FOUND: contextvars.ContextVar[str] = contextvars.ContextVar("FOUND", default="unset")

STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


def living(events: list[str], name: str = "") -> Handler:
    """Return an application that notes its life, and answers what its requests find."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            task = asyncio.current_task()
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"][f"made{name}"] = events
            FOUND.set(f"lifespan{name}")
            events.append(f"start{name}")
            await send(STARTED)
            assert (await receive())["type"] == "lifespan.shutdown"
            assert asyncio.current_task() is task
            events.append(f"stop{name}")
            await send(STOPPED)
            return
        scope["state"]["own"] = True
        shared = scope["state"][f"made{name}"] is events
        await answer(send, f"{FOUND.get()} {shared} {sorted(scope['state'])}".encode())
        FOUND.set("a request")

    return application


def test_requests_find_what_the_lifespan_has_made(serve: Serve) -> None:
    """Its context variables and its state; each request has a copy of both."""
    events: list[str] = []
    served = serve(living(events))
    client = served.connect()
    for _ in range(2):
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.response().text == "lifespan True ['made', 'own']"
    assert events == ["start"]
    served.stop()
    assert events == ["start", "stop"]


def test_lifespans_and_functions_are_one_start_and_one_end(serve: Serve) -> None:
    """Functions first, then lifespans by mount; the reverse at the end. They share a state."""
    events: list[str] = []

    @bide.on_start
    def first(state: dict[str, Any]) -> None:
        state["function"] = 1
        events.append("function")

    @bide.on_stop
    def last() -> None:
        events.append("last")

    shop = answering(lambda environ: f"{sorted(environ['bide.state'])}")
    served = serve(
        bide.mount({"/a": living(events, "a"), "/": shop, "/b": living(events, "b")}),
        executor="threads",
    )
    assert served.get("/").text == "['function', 'madea', 'madeb']"
    assert served.get("/a").text == "lifespanb True ['function', 'madea', 'madeb', 'own']"
    served.stop()
    assert events == ["function", "starta", "startb", "stopb", "stopa", "last"]


async def ignorant(scope: Scope, _: Receive, send: Send) -> None:
    """Know no lifespan."""
    assert scope["type"] == "http"
    await answer(send, b"ok")


async def hasty(scope: Scope, _: Receive, send: Send) -> None:
    """Return at once."""
    if scope["type"] == "http":
        await answer(send, b"ok")


def failing(*messages: dict[str, Any], error: BaseException | None = None) -> Handler:
    """Return an application that receives, answers so, and raises or returns."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return application


def test_an_application_that_knows_no_lifespan_is_served(serve: Serve) -> None:
    """Unless it must; with off it is never asked."""
    assert serve(ignorant).get().text == "ok"
    assert serve(hasty).get().text == "ok"
    assert serve(ignorant, lifespan="off").get().text == "ok"
    events: list[str] = []

    async def counts(scope: Scope, _: Receive, send: Send) -> None:
        events.append(scope["type"])
        await answer(send, b"ok")

    assert serve(counts, lifespan="off").get().text == "ok"
    assert events == ["http"]


def test_what_goes_wrong_at_the_start_is_said_in_one_line(serve: Serve) -> None:
    """With what was raised as the cause, if anything was."""
    failed = {"type": "lifespan.startup.failed"}
    error = KeyError("DATABASE")
    group = ExceptionGroup("tasks", [ExceptionGroup("more", [error])])
    rows: list[tuple[str, Handler, dict[str, Any], str, BaseException | None]] = [
        ("after receive", failing(error=error), {}, "KeyError: 'DATABASE'", error),
        ("fails in a group", failing(error=group), {}, "KeyError: 'DATABASE'", error),
        ("exits", failing(error=SystemExit(4)), {}, "SystemExit: 4", None),
        ("says", failing({**failed, "message": "no\n database"}), {}, "start: no database", None),
        ("says no more", failing(failed), {}, "has failed to start", None),
        ("says and raises", failing(failed, error=error), {}, "KeyError: 'DATABASE'", error),
        ("returns", failing(), {}, "before it has answered lifespan.startup", None),
        ("sends nonsense", failing(STOPPED), {}, "'lifespan.shutdown.complete' was sent", None),
        ("knows none", ignorant, {"lifespan": "on"}, "AssertionError", None),
        ("returns early", hasty, {"lifespan": "on"}, "before it has answered", None),
    ]
    with Failures() as failures:
        for name, application, settings, says, cause in rows:
            with failures.of(name):
                with pytest.raises(ApplicationFailed) as caught:
                    serve(application, **settings)
                assert says in str(caught.value)
                assert "\n" not in str(caught.value)
                if cause is not None:
                    same(caught.value.__cause__, cause)


def test_the_first_application_stops_when_the_second_does_not_start(serve: Serve) -> None:
    """Nothing of it is left."""
    events: list[str] = []
    with pytest.raises(ApplicationFailed, match="has failed to start: no"):
        serve(
            bide.mount(
                {
                    "/": living(events),
                    "/b": failing({"type": "lifespan.startup.failed", "message": "no"}),
                }
            )
        )
    assert events == ["start", "stop"]


def unexpected(failed: LifespanFailed) -> None:
    """Fail the test."""
    raise AssertionError(failed)


def test_an_application_that_never_answers_is_given_up() -> None:
    """At its start and at its end; its task is cancelled."""

    async def never(_: Scope, receive: Receive, __: Send) -> None:
        await receive()
        await asyncio.Event().wait()

    async def live() -> None:
        life = Lifespan(never, "site", {}, contextvars.copy_context(), seconds=0.01)
        with pytest.raises(LifespanFailed, match=r"^site has not started within 0\.01 s$"):
            await life.start(unexpected)
        await asyncio.sleep(0)
        assert life._task.cancelled()

    asyncio.run(asyncio.wait_for(live(), DEADLINE))


def test_what_goes_wrong_at_the_end_is_logged(log: Log, monkeypatch: Any) -> None:
    """And nothing hangs."""
    monkeypatch.setattr(lifespan, "MOMENT", 0.01)

    def ending(end: Callable[[Send], Any]) -> Handler:
        async def application(_: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(STARTED)
            await receive()
            await end(send)

        return application

    async def raises(_: Send) -> None:
        raise ValueError("wrong")

    async def says(send: Send) -> None:
        await send({"type": "lifespan.shutdown.failed", "message": "wrong"})

    async def hangs(_: Send) -> None:
        await asyncio.Event().wait()

    async def lingers(send: Send) -> None:
        await send(STOPPED)
        await asyncio.Event().wait()

    async def live(end: Callable[[Send], Any], seconds: float) -> None:
        life = Lifespan(ending(end), "site", {}, contextvars.copy_context())
        assert await life.start(unexpected)
        await life.stop(seconds)
        assert life._task.done()

    with Failures() as failures:
        for end, seconds, line in (
            (raises, DEADLINE, "site has failed to stop"),
            (says, DEADLINE, "site has failed to stop: wrong"),
            (hangs, 0.01, "site has not stopped in time"),
            (lingers, DEADLINE, ""),
        ):
            with failures.of(end.__name__):
                asyncio.run(asyncio.wait_for(live(end, seconds), DEADLINE))
                if line:
                    log.take(line)


def breaking(end: Callable[[Receive, Send], Any]) -> Handler:
    """Return an application whose first request makes its lifespan go on to an end like this."""
    latch = Latch()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send(STARTED)
            await latch.wait()
            await end(receive, send)
            return
        latch.open()
        await answer(send, b"ok")

    return application


async def raises(_: Receive, __: Send) -> None:
    """End by an error."""
    raise ValueError("the pool has broken")


async def says(receive: Receive, send: Send) -> None:
    """Say that it has failed, and wait for the end."""
    await send({"type": "lifespan.shutdown.failed", "message": "no\n pool"})
    await receive()
    await send(STOPPED)


async def returns(_: Receive, __: Send) -> None:
    """End, as if the server did."""


def test_a_lifespan_that_fails_while_its_application_serves_ends_the_server(
    serve: Serve, log: Log
) -> None:
    """Which is asked to; requests are served until then. One that only returns is in the log."""
    with Failures() as failures:
        for end, failure in (
            (raises, "has failed while it served: ValueError: the pool has broken"),
            (says, "has failed while it served: no pool"),
            (returns, None),
        ):
            with failures.of(end.__name__):
                asked: list[str] = []
                served = serve(breaking(end))
                lifetime = served.server.dispatcher.lifetime
                lifetime.on_failure = partial(asked.append, "to end")
                assert served.get().text == "ok"
                record = log.take(failure or "has ended, while it serves")
                same(bool(record.exc_info), end is raises)
                assert served.get().text == "ok"
                same(asked, ["to end"] if failure else [])
                same(str(lifetime.failure).partition(" ")[2], failure or "")
                served.stop()


def test_a_lifespan_that_has_failed_just_before_its_server_stops_is_told(log: Log) -> None:
    """The stop finds that its task has ended before the loop has said so."""
    told: list[LifespanFailed] = []
    goes = asyncio.Event()

    async def breaks(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(STARTED)
        await goes.wait()
        raise ValueError("the pool has broken")

    async def main() -> None:
        life = Lifespan(breaks, "app", {}, contextvars.copy_context())
        assert await life.start(told.append)
        goes.set()
        while not life._task.done():
            await asyncio.sleep(0)
        assert not told
        await life.stop(DEADLINE)
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    log.take("has failed while it served: ValueError: the pool has broken")
    assert len(told) == 1


def test_an_application_that_fails_while_the_next_one_starts_ends_the_start(
    serve: Serve, log: Log
) -> None:
    """It would be served without what it needs."""
    events: list[str] = []
    first = breaking(raises)

    async def second(scope: Scope, receive: Receive, send: Send) -> None:
        await first({"type": "http"}, receive, ignore)
        for _ in range(10):
            await asyncio.sleep(0)
        await living(events)(scope, receive, send)

    async def ignore(_: Any) -> None:
        pass

    with pytest.raises(ApplicationFailed, match="has failed while it served: ValueError"):
        serve(bide.mount({"/": first, "/b": second}))
    log.take("has failed while it served: ValueError")
    assert events == ["start", "stop"]


class Hanging:
    """An application that hangs at its first start, and starts at the second.

    Attributes:
        begun: set when it hangs.
    """

    def __init__(self, events: list[str]) -> None:
        self._events = events
        self.begun = asyncio.Event()

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Live."""
        if self.begun.is_set():
            return await living(self._events, " last")(scope, receive, send)
        assert scope["type"] == "lifespan"
        await receive()
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self._events.append("cancelled")


def test_a_start_that_is_cancelled_stops_what_has_started() -> None:
    """As a signal does: all that has started, in the reverse order, then the functions."""
    events: list[str] = []
    bide.on_start(lambda: events.append("function"))
    bide.on_stop(lambda: events.append("last"))

    async def program() -> None:
        hanging = Hanging(events)
        mounts = {"/a": living(events, "a"), "/b": living(events, "b"), "/": hanging.application}
        server = bide.Server(bide.mount(mounts), bind="127.0.0.1:0")
        starting = asyncio.ensure_future(server.start())
        await hanging.begun.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(asyncio.wait_for(program(), DEADLINE))
    assert events == ["function", "starta", "startb", "cancelled", "stopb", "stopa", "last"]


def living_in(life: Lifetime, *applications: Handler) -> None:
    """Add to a lifetime the lifespans of some applications."""
    for number, each in enumerate(applications):
        life.lifespans.append(Lifespan(each, f"site{number}", life.state, life.context))


def test_a_start_goes_on_as_long_as_somebody_waits_for_it() -> None:
    """Who comes while it is given up has a start of its own, after that."""
    events: list[str] = []

    async def program() -> None:
        life = Lifetime()
        hanging = Hanging(events)
        living_in(life, living(events), hanging.application)
        one, two = (asyncio.ensure_future(life.start()) for _ in range(2))
        await hanging.begun.wait()
        one.cancel()
        await asyncio.wait((one,))
        assert events == ["start"]
        two.cancel()
        await asyncio.sleep(0)  # it is being given up
        assert not two.done()
        await life.start()
        assert two.cancelled()
        assert life.started
        assert events == ["start", "cancelled", "stop", "start", "start last"]
        await life.stop(DEADLINE)

    asyncio.run(asyncio.wait_for(program(), DEADLINE))
    assert events[-2:] == ["stop last", "stop"]


def test_a_start_that_is_cancelled_at_its_very_end_is_stopped_too() -> None:
    """All has started, and the server does not know it yet."""
    events: list[str] = []

    async def program() -> None:
        life = Lifetime()
        living_in(life, living(events))
        starting = asyncio.ensure_future(life.start_alone())
        while not life.started:
            await asyncio.sleep(0)
        assert not starting.done()
        starting.cancel()
        await asyncio.wait((starting,))
        assert starting.cancelled()
        assert not life.started

    asyncio.run(asyncio.wait_for(program(), DEADLINE))
    assert events == ["start", "stop"]
