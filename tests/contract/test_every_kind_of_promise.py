"""Every kind of promise, in every place that takes one, with every outcome, in every order."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from bide import ClientDisconnected, wait, wait_all
from tests.conftest import Serve
from tests.contract.hosted import HOSTS
from tests.contract.promised import KINDS, Bare, Promised
from tests.served import Application, Environ, Log, Served, answering, happened, until

Make = Callable[[Served], Promised]
Promise = Callable[[], Any]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Promised]:
    """Name a kind of promise."""
    chosen: type[Promised] = request.param
    return chosen


@pytest.fixture
def make(kind: type[Promised], reactor: Any) -> Make:
    """Make promises of this kind."""
    return lambda served: kind(served, reactor)


def text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()


def in_wait(promise: Promise, timeout: float | None = None) -> Application:
    """Wait in the application itself, and answer with the outcome."""

    def answer(environ: Environ) -> bytes:
        try:
            return text(wait(promise(), timeout))
        except Exception as error:
            return f"{type(error).__name__}: {error}".encode()

    return answering(answer)


def in_wait_all(promise: Promise, timeout: float | None = None) -> Application:
    """Wait for it together with another promise that fires at once."""

    async def other() -> bytes:
        return b"other"

    def answer(environ: Environ) -> bytes:
        try:
            first, second = wait_all(other(), promise(), timeout=timeout)
        except Exception as error:
            return f"{type(error).__name__}: {error}".encode()
        assert first == b"other"
        return text(second)

    return answering(answer)


def in_iterable(promise: Promise, timeout: float | None = None) -> Application:
    """Yield it, and answer with what was thrown in at the yield."""

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            yield promise()
        except Exception as error:
            yield f"{type(error).__name__}: {error}".encode()

    return application


PLACES = pytest.mark.parametrize("place", [in_wait, in_wait_all, in_iterable])
FAILING = pytest.mark.parametrize(
    "kind", [each for each in KINDS if each.fails], ids=lambda kind: kind.__name__, indirect=True
)
Place = Callable[..., Application]


def given(served_promises: list[Promised]) -> Promise:
    """Return the promise that the test makes once the server runs."""
    return lambda: served_promises[0].promise


@PLACES
def test_a_promise_that_fires_later_gives_its_result(
    serve: Serve, make: Make, place: Place
) -> None:
    """The request is parked until it fires, and goes on with the value."""
    promises: list[Promised] = []
    served = serve(place(given(promises)))
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    assert client.is_silent()
    promises[0].fire(b"the value")
    assert client.response().body == b"the value"


@PLACES
def test_a_promise_that_has_fired_gives_its_result(serve: Serve, make: Make, place: Place) -> None:
    """It fired before anyone waited."""
    promises: list[Promised] = []
    served = serve(place(given(promises)))
    promises.append(make(served))
    promises[0].fire(b"the value")
    assert served.get().body == b"the value"


@FAILING
@PLACES
def test_a_promise_that_fails_later_raises_at_the_line(
    serve: Serve, make: Make, place: Place
) -> None:
    """The error is the promise's own, and can be caught where it is raised."""
    promises: list[Promised] = []
    served = serve(place(given(promises)))
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    promises[0].fail(LookupError("no such thing"))
    assert client.response().body == b"LookupError: no such thing"


@FAILING
@PLACES
def test_a_promise_that_has_failed_raises_at_the_line(
    serve: Serve, make: Make, place: Place
) -> None:
    """It failed before anyone waited."""
    promises: list[Promised] = []
    served = serve(place(given(promises)))
    promises.append(make(served))
    promises[0].fail(LookupError("no such thing"))
    assert served.get().body == b"LookupError: no such thing"


@pytest.mark.parametrize("place", [in_wait, in_wait_all])
def test_a_promise_that_never_fires_times_out_and_is_cancelled(
    serve: Serve, make: Make, kind: type[Promised], place: Place
) -> None:
    """TimeoutError at the line; what nobody waits for any more is cancelled where it can be."""
    promises: list[Promised] = []
    served = serve(place(given(promises), timeout=0.01))
    promises.append(make(served))
    assert served.get().body == b"TimeoutError: no result within 0.01 s"
    if kind.cancels:
        happened(promises[0].cancelled, "it was not cancelled")


@PLACES
def test_a_wait_is_cancelled_when_the_client_leaves(
    serve: Serve, make: Make, kind: type[Promised], place: Place
) -> None:
    """`except Exception` in the application does not catch it; the promise is cancelled."""
    promises: list[Promised] = []
    served = serve(place(given(promises)))
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    if kind.cancels:
        happened(promises[0].cancelled, "it was not cancelled")


@PLACES
def test_a_promise_that_fires_after_the_request_has_ended_is_ignored(
    serve: Serve, make: Make, kind: type[Promised], place: Place
) -> None:
    """Nobody waits for it: not the ended request, and not the one that has its greenlet now."""
    promises: list[Promised] = []
    served = serve(place(given(promises)), threads=1)
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    late = promises.pop()
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    if kind.cancels:
        happened(late.cancelled)
    else:
        late.fire(b"late")
    assert client.is_silent()
    promises[0].fire(b"the value")
    assert client.response().body == b"the value"


def test_a_request_goes_on_in_its_thread_and_context(serve: Serve, make: Make) -> None:
    """From whatever thread the promise fires."""
    seen: list[tuple[int, int]] = []
    promises: list[Promised] = []

    def answer(environ: Environ) -> None:
        before = threading.get_ident()
        wait(promises[0].promise)
        seen.append((before, threading.get_ident()))

    served = serve(answering(answer))
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    promises[0].fire(b"")
    assert client.response().complete
    before, after = seen[0]
    assert before == after


@pytest.mark.parametrize(
    ("value", "body"),
    [(b"bytes", b"bytes"), (b"", b""), (None, b"")],
    ids=["bytes", "empty", "None"],
)
def test_what_a_promise_in_the_iterable_gives_is_sent(
    serve: Serve, make: Make, value: bytes | None, body: bytes
) -> None:
    """Bytes are a block; None and b"" are none."""
    promises: list[Promised] = []

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        yield b"before "
        yield promises[0].promise
        yield b" after"

    served = serve(application)
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    promises[0].fire(value)
    response = client.response()
    assert response.body == b"before " + body + b" after"
    assert response.chunks == [each for each in (b"before ", body, b" after") if each]


@pytest.mark.parametrize("value", ["text", 7, bytearray(b"x"), [b"x"]], ids=repr)
def test_a_promise_of_another_type_raises_type_error_at_the_yield(
    serve: Serve, make: Make, value: Any
) -> None:
    """Where the generator can catch it, and go on."""
    promises: list[Promised] = []
    served = serve(in_iterable(given(promises)))
    promises.append(make(served))
    promises[0].fire(value)
    response = served.get()
    assert response.body.startswith(b"TypeError: ")
    assert type(value).__name__.encode() in response.body


def test_a_promise_of_another_type_that_nobody_catches_fails_the_application(
    serve: Serve, make: Make, log: Log
) -> None:
    """Nothing was sent: the client gets a 500."""
    promises: list[Promised] = []

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        yield promises[0].promise

    served = serve(application)
    promises.append(make(served))
    promises[0].fire("text")
    assert served.get().status == 500
    assert log.failure()


def test_a_thousand_promises_that_have_fired_run_in_constant_stack(
    serve: Serve, make: Make, executor: str
) -> None:
    """In a row, in `wait` and in the iterable; each at once or with a turn of its thread."""
    # A host's conversations are the same code; a few show that its thread makes no difference.
    count = 100 if executor in HOSTS else 1000
    depths: set[int] = set()
    promises: list[Promised] = []

    def note() -> None:
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        depths.add(depth)

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        for each in promises[:count]:
            assert wait(each.promise) == b"x"
            note()
        assert len(depths) == 1, depths
        depths.clear()
        for each in promises[count:]:
            yield each.promise
            note()
        assert len(depths) == 1, depths

    served = serve(application)
    promises.extend(make(served) for _ in range(2 * count))
    for each in promises:
        each.fire(b"x")
    assert served.get().body == b"x" * count


def test_a_deferred_is_subscribed_to_and_cancelled_on_the_reactor_s_thread(
    serve: Serve, reactor: Any
) -> None:
    """It is not made for another; asyncio's own are, in the same way, left to their loop."""
    threads: list[tuple[str, int]] = []

    class Watched(Deferred[Any]):
        def addCallback(self, *args: Any, **kwargs: Any) -> Any:
            threads.append(("addCallback", threading.get_ident()))
            return super().addCallback(*args, **kwargs)

        def cancel(self) -> None:
            threads.append(("cancel", threading.get_ident()))
            super().cancel()

    def answer(environ: Environ) -> str:
        try:
            wait(Watched(), timeout=0.01)
        except TimeoutError:
            return "timeout"
        return "none"

    ident: list[int] = []
    reactor.callFromThread(lambda: ident.append(threading.get_ident()))
    served = serve(answering(answer))
    assert served.get().text == "timeout"
    until(lambda: len(threads) == 2)
    assert threads == [("addCallback", ident[0]), ("cancel", ident[0])]


def test_an_asyncio_future_is_subscribed_to_and_cancelled_on_its_loop_s_thread(
    serve: Serve,
) -> None:
    """From a lane, and from the loop itself."""
    threads: list[tuple[str, int]] = []

    class Watched(asyncio.Future[Any]):
        def add_done_callback(self, *args: Any, **kwargs: Any) -> None:
            threads.append(("add_done_callback", threading.get_ident()))
            super().add_done_callback(*args, **kwargs)

        def cancel(self, msg: Any = None) -> bool:
            threads.append(("cancel", threading.get_ident()))
            return super().cancel(msg)

    def answer(environ: Environ) -> str:
        try:
            wait(Watched(loop=served.loop), timeout=0.01)
        except TimeoutError:
            return "timeout"
        return "none"

    served = serve(answering(answer))
    assert served.get().text == "timeout"
    until(lambda: len(threads) == 2)
    assert threads == [("add_done_callback", served.thread), ("cancel", served.thread)]


def test_a_promise_that_fires_twice_counts_once(serve: Serve) -> None:
    """The second time, while the request waits for another one, changes nothing."""
    first, second = Bare(), Bare()

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        yield first
        yield second

    served = serve(application)
    client = served.request()
    served.until_waiting(1)
    first.fire(b"1")
    assert client.head().status == 200
    assert client.chunk() == b"1"
    served.until_waiting(1)
    first.fire(b"1 again")
    assert client.is_silent()
    second.fire(b"2")
    assert client.chunk() == b"2"
    assert client.chunk() == b""


def test_a_promise_that_fires_twice_inside_the_subscription_counts_once(serve: Serve) -> None:
    """Both times before the request could have parked."""
    promise = Bare()
    promise.fire(b"1")
    promise.fire(b"2")
    served = serve(in_iterable(lambda: promise))
    assert served.get().body == b"1"


def test_a_promise_that_fires_inside_the_subscription_from_another_thread(serve: Serve) -> None:
    """`addCallback` has not returned when a thread calls back."""

    class Hasty:
        def addCallback(self, callback: Callable[[Any], Any]) -> None:
            thread = threading.Thread(target=callback, args=(b"the value",))
            thread.start()
            thread.join()

    served = serve(in_wait(Hasty))
    assert served.get().body == b"the value"


def test_a_promise_that_refuses_to_be_subscribed_to_raises_at_the_line(serve: Serve) -> None:
    """What `addCallback` raises is the application's to catch."""

    class Refusing:
        def addCallback(self, callback: Callable[[Any], Any]) -> None:
            raise LookupError("no")

    served = serve(in_wait(Refusing))
    assert served.get().body == b"LookupError: no"
    served = serve(in_iterable(Refusing))
    assert served.get().body == b"LookupError: no"


def test_an_error_thrown_in_at_a_yield_can_be_caught_and_followed_by_a_promise(
    serve: Serve,
) -> None:
    """What the generator yields in its `except` is sent, or waited for, like anything else."""

    async def failing() -> bytes:
        raise LookupError("no such thing")

    async def working() -> bytes:
        return b"found"

    def application(environ: Environ, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        for number in range(3):
            try:
                yield failing()
            except LookupError as error:
                yield f"{number} {error}, ".encode()
                yield working()
                yield b"; "
        try:
            yield failing()
        except LookupError:
            return

    served = serve(application)
    response = served.get()
    assert response.body == b"".join(b"%d no such thing, found; " % number for number in range(3))
    assert response.complete


@pytest.mark.parametrize("head_sent", [False, True])
def test_an_iterable_without_throw_fails_with_the_promise(
    serve: Serve, log: Log, head_sent: bool
) -> None:
    """The failure is the application's: a 500 before the head, a cut response after it."""

    async def failing() -> bytes:
        raise LookupError("no such thing")

    def application(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        return iter([*([b"begun"] if head_sent else []), failing(), b"more"])

    served = serve(application)
    response = served.get()
    record = log.failure()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    if head_sent:
        assert (response.status, response.body, response.complete) == (200, b"begun", False)
    else:
        assert (response.status, response.complete) == (500, True)


def test_a_wait_that_nothing_ends_leaves_nothing_behind_when_it_is_over(
    serve: Serve, make: Make
) -> None:
    """The promise does not keep the request: what the application held is freed."""

    class Held:
        pass

    alive: list[Any] = []
    promises: list[Promised] = []

    def answer(environ: Environ) -> None:
        held = environ["test.held"] = Held()
        alive.append(weakref.ref(held))
        wait(promises[0].promise)

    served = serve(answering(answer))
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()

    def freed() -> bool:
        if alive[0]() is not None:
            gc.collect()
        return alive[0]() is None

    until(freed, "the environ is kept")


@pytest.mark.parametrize("place", [in_wait, in_iterable])
@pytest.mark.parametrize(
    "promise", [None, 7, "text", object(), Bare], ids=["None", "7", "text", "an object", "Bare"]
)
def test_what_is_no_promise_is_refused(serve: Serve, place: Place, promise: Any) -> None:
    """TypeError, which says what would be one."""
    served = serve(place(lambda: promise))
    body = served.get().text
    assert body.startswith("TypeError: ")
    assert "promise" in body or place is in_iterable


def test_a_cancelled_promise_raises_and_ends_the_request_with_an_error(
    serve: Serve, log: Log
) -> None:
    """Somebody else cancelled it: asyncio's CancelledError, as `await` would raise."""

    def answer(environ: Environ) -> bytes:
        future = served.loop.create_future()
        served.loop.call_soon_threadsafe(future.cancel)
        try:
            wait(future)
        except asyncio.CancelledError:
            return b"cancelled"
        return b"not"

    served = serve(answering(answer))
    assert served.get().body == b"cancelled"


def test_departure_is_raised_at_the_line_and_not_as_an_exception(serve: Serve, make: Make) -> None:
    """ClientDisconnected passes `except Exception`, and is seen by `except BaseException`."""
    seen: list[str] = []
    promises: list[Promised] = []

    def answer(environ: Environ) -> None:
        try:
            try:
                wait(promises[0].promise)
            except Exception:
                seen.append("swallowed")
        except ClientDisconnected:
            seen.append("at the line")
            raise

    served = serve(answering(answer))
    promises.append(make(served))
    client = served.request()
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert seen == ["at the line"]
