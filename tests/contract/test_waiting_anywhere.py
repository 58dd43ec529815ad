"""`wait` works anywhere below the application, and leaves it where, and as, it was."""

import asyncio
import concurrent.futures
import contextvars
import gc
import itertools
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import greenlet
import pytest
from flask import Flask, g, render_template_string, request, stream_with_context
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from bide import ClientDisconnected, in_thread, wait, wait_all
from bide.waiting.cleanups import cleanup_time
from tests.conftest import Serve
from tests.served import Application, Closing, Environ, Gate, Log, answering, happened, until

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def value(of: Any = b"the value") -> Any:
    """Return a value after a turn of the loop."""
    await asyncio.sleep(0)
    return of


def test_a_flask_view_waits(serve: Serve) -> None:
    """With Flask's request and `g` the same before and after."""
    app = Flask(__name__)

    @app.get("/<name>")
    def view(name: str) -> str:
        g.name = name
        before = request.path
        result = wait(value("waited"))
        assert request.path == before
        return f"{g.name} {result}"

    served = serve(app)
    assert served.get("/one").body == b"one waited"


def test_flask_views_that_wait_at_once_keep_their_own_request(serve: Serve) -> None:
    """All of them parked on one thread, and resumed in another order."""
    app = Flask(__name__)
    gates = [Gate() for _ in range(5)]

    @app.get("/<int:number>")
    def view(number: int) -> str:
        g.number = number
        wait(gates[number].promise())
        return f"{g.number} {request.path}"

    served = serve(app, threads=1)
    clients = [served.request(f"/{number}") for number in range(5)]
    served.until_waiting(5)
    for number in (3, 0, 4, 2, 1):
        gates[number].open()
        assert clients[number].response().body == b"%d /%d" % (number, number)


def test_a_flask_stream_waits_in_its_context(serve: Serve) -> None:
    """`stream_with_context` is resumed in the context that it was begun in."""
    app = Flask(__name__)

    @app.get("/")
    def view() -> Any:
        def lines() -> Iterator[str]:
            for number in range(3):
                yield f"{wait(value(number))} {request.path}\n"

        return stream_with_context(lines())

    served = serve(app)
    assert served.get().chunks == [b"0 /\n", b"1 /\n", b"2 /\n"]


def test_a_template_waits(serve: Serve) -> None:
    """Jinja calls a function that waits, in the middle of its own generators."""
    app = Flask(__name__)

    @app.get("/")
    def view() -> str:
        return render_template_string(
            "{% for each in range(3) %}{{ fetch(each) }},{% endfor %}",
            fetch=lambda each: wait(value(each)),
        )

    served = serve(app)
    assert served.get().body == b"0,1,2,"


def test_a_library_below_waits(serve: Serve) -> None:
    """Through frames that know nothing of it: sorting, itertools, decompression."""

    def answer(environ: Environ) -> bytes:
        numbers = sorted([3, 1, 2], key=lambda each: wait(value(each)))
        blocks = itertools.chain.from_iterable(wait(value([b"%d" % each])) for each in numbers)
        compress = zlib.compressobj()
        packed = b"".join(compress.compress(block) for block in blocks) + compress.flush()
        return zlib.decompress(packed)

    served = serve(answering(answer))
    assert served.get().body == b"123"


def joining(application: Application) -> Application:
    """Wrap with middleware that joins the body, as many do."""

    def middleware(environ: Environ, start_response: Any) -> list[bytes]:
        iterable = application(environ, start_response)
        try:
            return [b"".join(iterable)]
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()

    return middleware


def test_a_wait_works_below_middleware_that_joins_the_body(serve: Serve) -> None:
    """Which a promise in the iterable cannot: this is what `wait` is for."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(3):
            yield wait(value())

    served = serve(joining(application))
    assert served.get().body == b"the value" * 3


def test_middleware_waits_between_the_blocks(serve: Serve) -> None:
    """Before, between and after the inner application's blocks."""

    def inner(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"1", b"2"]

    def middleware(environ: Environ, start_response: Any) -> Iterator[bytes]:
        assert wait(value()) == b"the value"
        for block in inner(environ, start_response):
            yield block + wait(value(b","))
        yield wait(value(b"end"))

    served = serve(middleware)
    assert served.get().chunks == [b"1,", b"2,", b"end"]


def test_a_generator_waits_before_start_response(serve: Serve) -> None:
    """The head may come of what was waited for."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response(wait(value("418 Teapot")), [])
        yield b"short and stout"

    served = serve(application)
    assert served.get().status == 418


def test_close_may_wait(serve: Serve) -> None:
    """On the conversation's own thread, and the request has not ended before."""
    gate = Gate()
    seen: list[str] = []

    class Iterable(Closing):
        def close(self) -> None:
            wait(gate.promise())
            seen.append("closed")
            super().close()

    iterable = Iterable([b"x"])

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", [])
        return iterable

    served = serve(application)
    client = served.request()
    assert client.response().body == b"x"
    served.until_waiting(1)
    assert not seen
    gate.open()
    happened(iterable.closed)
    served.until_idle()
    assert iterable.count == 1


def test_context_variables_and_the_thread_are_the_same_after_a_wait(serve: Serve) -> None:
    """In the call, in the iteration and in `close`; each request has its own context."""
    seen: list[tuple[str, int]] = []
    gate = Gate()
    ended = threading.Event()

    class Iterable:
        def __init__(self, name: str) -> None:
            self.name = name

        def __iter__(self) -> Iterator[bytes]:
            for _ in range(2):
                wait(gate.promise())
                seen.append((VARIABLE.get(), threading.get_ident()))
                yield self.name.encode()

        def close(self) -> None:
            seen.append((VARIABLE.get(), threading.get_ident()))
            if len(seen) == 8:
                ended.set()

    def application(environ: Environ, start_response: Any) -> Iterable:
        assert VARIABLE.get() == "unset"
        VARIABLE.set(environ["PATH_INFO"])
        wait(value())
        seen.append((VARIABLE.get(), threading.get_ident()))
        start_response("200 OK", [])
        return Iterable(environ["PATH_INFO"])

    served = serve(application)
    clients = [served.request(path) for path in ("/a", "/b")]
    served.until_waiting(2)
    gate.open()
    assert [client.response().body for client in clients] == [b"/a/a", b"/b/b"]
    happened(ended)
    assert sorted(name for name, _ in seen) == ["/a"] * 4 + ["/b"] * 4
    for path in ("/a", "/b"):
        assert len({thread for name, thread in seen if name == path}) == 1


def test_a_coroutine_sees_the_context_of_the_request_that_waits(serve: Serve) -> None:
    """A copy of it: what the coroutine sets does not come back."""

    async def look() -> str:
        seen = VARIABLE.get()
        VARIABLE.set("the coroutine's")
        return seen

    def answer(environ: Environ) -> str:
        VARIABLE.set("the request's")
        seen = wait(look())
        return f"{seen}, {VARIABLE.get()}"

    served = serve(answering(answer))
    assert served.get().text == "the request's, the request's"


def test_sqlite_is_used_before_and_after_a_wait(serve: Serve) -> None:
    """A connection refuses every thread but its own."""

    def answer(environ: Environ) -> str:
        connection = sqlite3.connect(":memory:")
        try:
            connection.execute("create table numbers (number)")
            connection.execute("insert into numbers values (1)")
            wait(value())
            (count,) = connection.execute("select count(*) from numbers").fetchone()
            return f"{count} row"
        finally:
            connection.close()

    served = serve(answering(answer))
    assert served.get().text == "1 row"


def test_a_wait_in_finally_while_being_cancelled_is_allowed(serve: Serve) -> None:
    """Cleaning up may take a moment; then the cancellation goes on."""
    gate = Gate()
    cleaned: list[Any] = []

    def answer(environ: Environ) -> None:
        try:
            wait(gate.promise())
        finally:
            cleaned.append(wait(value("once")))
            cleaned.append(wait(in_thread(lambda: "twice")))

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert cleaned == ["once", "twice"]


def test_waits_in_finally_while_being_cancelled_are_bounded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all of them together: the second one has no time left, and raises at once."""
    monkeypatch.setattr(cleanup_time, "seconds", 0.05)
    gate, never = Gate(), Gate()
    raised: list[type[BaseException]] = []
    late: list[concurrent.futures.Future[Any]] = []

    def answer(environ: Environ) -> None:
        try:
            wait(gate.promise())
        finally:
            for _ in range(2):
                late.append(never.promise())
                try:
                    wait(late[-1])
                except BaseException as error:
                    raised.append(type(error))

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert raised == [ClientDisconnected, ClientDisconnected]
    assert late[0].cancelled()


def test_a_timeout_of_its_own_ends_a_wait_in_finally_as_a_timeout(serve: Serve) -> None:
    """Shorter than what cleaning up may take: the application's own word counts."""
    gate = Gate()
    raised: list[type[BaseException]] = []

    def answer(environ: Environ) -> None:
        try:
            wait(gate.promise())
        finally:
            try:
                wait(Gate().promise(), timeout=0.01)
            except BaseException as error:
                raised.append(type(error))

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert raised == [TimeoutError]


def in_greenlet(function: Callable[[], Any]) -> Any:
    """Run a function in a plain greenlet of its own, as libraries that bridge to asyncio do."""
    return greenlet.greenlet(function).switch()


def test_a_library_that_runs_greenlets_of_its_own_waits(serve: Serve) -> None:
    """The wait below parks the whole request, and comes back into that greenlet."""

    def answer(environ: Environ) -> bytes:
        before = threading.get_ident()
        result = in_greenlet(lambda: in_greenlet(lambda: wait(value(b"1"))) + wait(value(b"2")))
        assert threading.get_ident() == before
        return bytes(result + wait(value(b"3")))

    served = serve(answering(answer), threads=1)
    assert served.get().body == b"123"


def test_a_departure_is_raised_in_the_greenlet_that_waits(serve: Serve) -> None:
    """And passes through it into the application."""
    gate = Gate()
    seen: list[str] = []

    def inner() -> None:
        try:
            wait(gate.promise())
        except ClientDisconnected:
            seen.append("inner")
            raise

    def answer(environ: Environ) -> None:
        try:
            in_greenlet(inner)
        except ClientDisconnected:
            seen.append("outer")
            raise

    served = serve(answering(answer))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert seen == ["inner", "outer"]


@pytest.mark.parametrize("executor", ["threads"])
def test_a_wait_below_a_foreign_running_loop_blocks_the_lane(serve: Serve) -> None:
    """Were it to park, the lane's next request would find that loop running."""
    gate = Gate()
    loops: list[Any] = []
    order: list[str] = []
    begun = threading.Event()

    def callback() -> Any:
        begun.set()
        return wait(gate.promise())

    async def foreign() -> None:
        await asyncio.sleep(0)
        callback()

    def answer(environ: Environ) -> None:
        if environ["PATH_INFO"] == "/nested":
            asyncio.run(foreign())
            order.append("nested")
        else:
            loops.append(asyncio._get_running_loop())
            order.append("other")

    served = serve(answering(answer), threads=1)
    nested = served.request("/nested")
    happened(begun)
    other = served.request("/other")
    until(lambda: served.status.queued)
    assert served.status.waiting == 0
    gate.open()
    assert nested.response().complete
    assert other.response().complete
    assert (loops, order) == ([None], ["nested", "other"])


@pytest.mark.parametrize("executor", ["threads"])
def test_a_wait_below_a_foreign_loop_is_cancelled_when_the_client_leaves(serve: Serve) -> None:
    """Blocking, it is as much a wait as any."""
    begun = threading.Event()
    raised: list[type[BaseException]] = []

    async def foreign() -> None:
        begun.set()
        try:
            wait(Gate().promise())
        except BaseException as error:
            raised.append(type(error))
            raise

    served = serve(answering(lambda environ: asyncio.run(foreign())), threads=1)
    client = served.request()
    happened(begun)
    client.close()
    served.until_idle()
    assert raised == [ClientDisconnected]


@pytest.mark.parametrize("executor", ["threads"])
def test_a_lane_is_parked_on_after_a_foreign_loop_has_ended(serve: Serve) -> None:
    """`asyncio.run` in a view leaves nothing that keeps later waits from parking."""
    gate = Gate()

    def answer(environ: Environ) -> bytes:
        assert asyncio.run(value(1)) == 1
        wait(gate.promise())
        return b"x"

    served = serve(answering(answer), threads=1)
    clients = [served.request() for _ in range(2)]
    served.until_waiting(2)
    gate.open()
    assert [client.response().body for client in clients] == [b"x", b"x"]


def test_wait_all_gives_results_in_order_and_starts_together(serve: Serve) -> None:
    """Each of the two ends only because the other one runs."""

    def answer(environ: Environ) -> str:
        first, second = asyncio.Event(), asyncio.Event()

        async def one() -> str:
            first.set()
            await second.wait()
            return "one"

        async def two() -> str:
            await first.wait()
            second.set()
            return "two"

        return " ".join(wait_all(one(), two(), value("three")))

    served = serve(answering(answer))
    assert served.get().text == "one two three"


def test_wait_all_raises_the_first_error_and_cancels_the_others(serve: Serve) -> None:
    """The others are cancelled at once: nobody waits for them."""
    cancelled = threading.Event()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    async def lasting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def answer(environ: Environ) -> str:
        try:
            wait_all(lasting(), failing(), Gate().promise())
        except LookupError as error:
            return str(error)
        return "nothing raised"

    served = serve(answering(answer))
    assert served.get().text == "no"
    happened(cancelled)


def test_gather_works_on_the_loop_and_names_wait_all_elsewhere(serve: Serve, executor: str) -> None:
    """It wants a loop on its own thread: asyncio's error, which libraries catch, says more."""

    def answer(environ: Environ) -> str:
        calls = [value(1), value(2)]
        try:
            return repr(wait(asyncio.gather(*calls)))
        except RuntimeError as error:
            for call in calls:
                call.close()
            return str(error)

    served = serve(answering(answer))
    text = served.get().text
    if executor in ("loop", "asgi-loop"):
        assert text == "[1, 2]"
    elif executor in ("threads", "asgi-threads", "twisted"):
        assert text.startswith("There is no current event loop in thread 'bide-thread-1' (")
        assert "wait_all(f(), g()) for asyncio.gather(f(), g())" in text
    else:  # a host's thread
        assert "no current event loop" in text


def test_wait_all_of_nothing_is_an_empty_list(serve: Serve) -> None:
    """Without a wait."""
    served = serve(answering(lambda environ: repr(wait_all())))
    assert served.get().text == "[]"


def test_wait_all_refuses_what_is_no_promise_and_starts_none(serve: Serve) -> None:
    """TypeError before anything was begun; the coroutines are closed without a warning."""
    begun: list[int] = []

    async def coroutine() -> None:
        begun.append(1)

    def answer(environ: Environ) -> str:
        try:
            wait_all(coroutine(), 7, coroutine())  # type: ignore[call-overload]
        except TypeError as error:
            return str(error)
        return "nothing raised"

    served = serve(answering(answer))
    assert served.get().text.startswith("int is not a promise")
    assert not begun


def test_the_timeout_of_wait_all_is_for_all_together(serve: Serve) -> None:
    """All of them are cancelled."""
    promises = [Gate().promise() for _ in range(3)]

    def answer(environ: Environ) -> str:
        try:
            wait_all(*promises, timeout=0.01)
        except TimeoutError:
            return "timeout"
        return "none"

    served = serve(answering(answer))
    assert served.get().text == "timeout"
    until(lambda: all(promise.cancelled() for promise in promises))


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_no_duration_is_refused(serve: Serve, timeout: float) -> None:
    """ValueError at the call; the coroutine is not run, and Python does not warn about it."""

    class Awaitable:
        def __await__(self) -> Any:
            return value().__await__()

    def answer(environ: Environ) -> str:
        kinds = []
        for promise in (value(), Awaitable(), Gate().promise()):
            try:
                wait(promise, timeout)
            except ValueError:
                kinds.append(type(promise).__name__)
        return " ".join(kinds)

    served = serve(answering(answer))
    assert served.get().text == "coroutine Awaitable Future"


@pytest.mark.parametrize("kind", ["coroutine", "awaitable", "task", "future", "deferred"])
def test_a_promise_is_cancelled_when_the_client_had_left_before_the_wait(
    serve: Serve, kind: str, executor: str, reactor: Any, log: Log
) -> None:
    """As when it leaves in the wait: the promise is cancelled, and nothing of it is run."""
    run: list[int] = []
    cancelled = threading.Event()
    raised: list[type[BaseException]] = []

    async def coroutine() -> None:
        run.append(1)

    class Awaitable:
        def __await__(self) -> Any:
            return coroutine().__await__()

    async def lasting() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def make() -> Any:
        if kind == "coroutine":
            return coroutine()
        if kind == "awaitable":
            return Awaitable()
        if kind == "task":
            return asyncio.run_coroutine_threadsafe(lasting(), served.loop)
        if kind == "future":
            future = Gate().promise()
            future.add_done_callback(lambda _: cancelled.set())
            return future
        return Deferred(lambda _: cancelled.set())

    def answer(environ: Environ) -> None:
        try:
            wait(Gate().promise())
        except ClientDisconnected:
            pass  # swallowed, and so it is raised again at the next wait that has no time left
        try:
            wait(make())
        except BaseException as error:
            raised.append(type(error))

    # The first wait gets the departure; no time is left for the second.
    served = serve(answering(answer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleanup_time, "seconds", 0.0)
        client = served.request()
        served.until_waiting(1)
        client.close()
        served.until_idle()
    assert raised == [ClientDisconnected]
    if kind in ("coroutine", "awaitable"):
        assert not run
    else:
        happened(cancelled, "it was not cancelled")


def test_twisted_has_nothing_to_say_about_a_deferred_that_was_cancelled(
    serve: Serve, reactor: Any
) -> None:
    """Its failure is taken, whether it was cancelled in the wait or before anyone listened."""
    said: list[Any] = []
    observe: Any = said.append
    cancelled: list[Any] = []

    def answer(environ: Environ) -> None:
        try:
            wait(Deferred(cancelled.append))
        finally:
            wait(Deferred(cancelled.append))

    globalLogPublisher.addObserver(observe)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cleanup_time, "seconds", 0.0)
            served = serve(answering(answer))
            client = served.request()
            served.until_waiting(1)
            client.close()
            served.until_idle()
        until(lambda: len(cancelled) == 2)
        done = threading.Event()
        reactor.callFromThread(done.set)  # after the last callback
        happened(done)
        cancelled.clear()
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert [event for event in said if event.get("log_failure")] == []
