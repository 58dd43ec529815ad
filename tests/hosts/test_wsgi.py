"""``bide.blocking`` by itself: every order in which a host may call, ask and close."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from greenlet import greenlet

import bide
from bide import in_thread, iterate, per_request, using, wait, wait_all
from bide.waiting.thread_locals import kept
from tests.hosts.fake_host import FakeHost
from tests.served import Closing, Environ, Log, until

PLAIN = [("Content-Type", "text/plain")]
Pair = tuple[Callable[[bytes], None], Callable[[], None]]


async def soon(value: Any) -> Any:
    """Return a value after a turn of the loop."""
    await asyncio.sleep(0)
    return value


def later() -> "Future[bytes]":
    """Make a promise that the test fires."""
    return Future()


# What an application may do ------------------------------------------------------------------


def plain(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", PLAIN)
    return [b"123"]


def waiting(environ: Environ, start_response: Any) -> list[bytes]:
    value = wait(soon(b"1"))
    two, three = wait_all(soon(b"2"), in_thread(lambda: b"3"))
    start_response("200 OK", PLAIN)
    return [value, two, three]


def promising(environ: Environ, start_response: Any) -> Iterator[Any]:
    start_response("200 OK", PLAIN)
    yield soon(b"1")
    yield b""
    yield soon(None)
    yield in_thread(lambda: b"2")
    yield b"3"


def promising_first(environ: Environ, start_response: Any) -> Iterator[Any]:
    yield b""
    yield soon(b"")
    start_response("200 OK", PLAIN)
    yield soon(b"123")


def writing(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"1")
    write(b"2")
    return [b"3"]


def pushing(environ: Environ, start_response: Any) -> None:
    write, finish = start_response("200 OK", PLAIN)

    def push() -> None:
        with contextlib.suppress(bide.ClientDisconnected):
            for block in (b"1", b"2", b"3"):
                write(block)
            finish()

    threading.Thread(target=push).start()


async def coroutine(environ: Environ, start_response: Any) -> list[bytes]:
    await asyncio.sleep(0)
    start_response("200 OK", PLAIN)
    return [b"12", b"3"]


async def generating(environ: Environ, start_response: Any) -> AsyncIterator[bytes]:
    start_response("200 OK", PLAIN)
    for block in (b"1", b"2", b"3"):
        await asyncio.sleep(0)
        yield block


class Entered:
    """What `async with` takes."""

    async def __aenter__(self) -> bytes:
        return b"12"

    async def __aexit__(self, *info: Any) -> None:
        await asyncio.sleep(0)


def company(environ: Environ, start_response: Any) -> Iterator[bytes]:
    async def blocks() -> AsyncIterator[bytes]:
        yield b"3"

    start_response("200 OK", PLAIN)
    with using(Entered()) as block:
        yield block
    yield from iterate(blocks())


ALL = [
    plain,
    waiting,
    promising,
    promising_first,
    writing,
    pushing,
    coroutine,
    generating,
    company,
]


@pytest.mark.parametrize("application", ALL, ids=lambda each: each.__name__)
def test_a_host_gets_a_plain_iterable_whatever_the_application_does(application: Any) -> None:
    """The head before the first block, no block that is empty, no need for `write`."""
    host = FakeHost(application)
    assert host.run() == b"123"
    assert host.status == "200 OK"
    status = host.site.status()
    assert (status.running, status.waiting) == (0, 0)


@pytest.mark.parametrize("application", ALL, ids=lambda each: each.__name__)
def test_head_has_the_head_alone(application: Any) -> None:
    """And the application is run as for GET."""
    host = FakeHost(application, "HEAD")
    assert host.run() == b""
    assert host.status == "200 OK"
    assert host.header("Content-Length") == ("3" if application is plain else None)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_a_body_has_none_and_no_length(status: str) -> None:
    """Blocks that come all the same are dropped."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response(status, [])
        return [b"x"]

    host = FakeHost(application)
    assert host.run() == b""
    assert host.events == [(status, [])]


def test_the_length_is_given_where_it_is_known() -> None:
    """Of one block, and of none; not of several."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        return [b"1", b"2", b"3"][: int(environ["PATH_INFO"][1:])]

    lengths = []
    for number in range(3):
        host = FakeHost(application, PATH_INFO=f"/{number}")
        host.run()
        lengths.append(host.header("Content-Length"))
    assert lengths == ["0", "1", None]


def test_the_host_may_change_the_headers_it_is_given() -> None:
    """As PEP 3333 lets it, and wsgiref does; the application's list may be a constant."""
    site = bide.blocking(plain)
    for _ in range(2):
        kept: list[Any] = []
        site(
            FakeHost(plain).environ, lambda status, headers, kept=kept: kept.append(headers)
        ).close()
        kept[0].append(("X-Host", "1"))
    assert PLAIN == [("Content-Type", "text/plain")]


def test_one_in_another_is_as_one() -> None:
    """Middleware may wrap what is wrapped already; under Bide itself nothing is done."""
    assert FakeHost(bide.blocking(bide.blocking(promising))).run() == b"123"


# Threads and contexts ------------------------------------------------------------------------

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="none")


def test_the_application_sees_the_context_of_middleware_and_stays_on_the_host_s_thread() -> None:
    """From the call to close, also after a wait."""
    seen: list[tuple[int, str]] = []

    class Noting(Closing):
        def close(self) -> None:
            super().close()
            note()

    def note() -> None:
        seen.append((threading.get_ident(), REQUEST.get()))

    def blocks() -> Iterator[bytes]:
        note()
        wait(soon(None))
        note()
        yield b"1"
        note()
        yield b"2"

    def application(environ: Environ, start_response: Any) -> Any:
        note()
        start_response("200 OK", PLAIN)
        return Noting(blocks())

    token = REQUEST.set("this one")
    try:
        FakeHost(application).run()
    finally:
        REQUEST.reset(token)
    assert seen == [(threading.get_ident(), "this one")] * 5


def test_a_local_is_each_request_s_own_where_a_host_serves_several_by_turns() -> None:
    """It begins with what the host's middleware has set, and leaves nothing to it."""
    before = list(kept)
    local = per_request(threading.local())
    local.name = "outside"

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield local.name.encode()
        local.name = environ["PATH_INFO"]
        yield wait(soon(b" "))
        yield local.name.encode()

    hosts = [FakeHost(application, PATH_INFO=path).call() for path in ("/a", "/b")]
    try:
        for _ in range(3):
            for host in hosts:
                host.next()
                assert local.name == "outside"
        assert [host.rest() for host in hosts] == [b"outside /a", b"outside /b"]
    finally:
        kept[:] = before


def test_the_application_is_never_more_than_a_block_ahead_of_the_host() -> None:
    """The host asks for the next when it has sent the one before."""
    made: list[int] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", PLAIN)
        for number in range(3):
            made.append(number)
            write(b"%d" % number)
        for number in range(3, 6):
            made.append(number)
            yield b"%d" % number

    host = FakeHost(application).call()
    for number in range(6):
        assert host.next() == b"%d" % number
        assert made == list(range(number + 1))
    assert host.rest() == b"012345"


def test_pushes_of_several_threads_come_in_the_order_of_their_calls() -> None:
    """Interleaved with the iterable's own blocks; nothing is lost or repeated."""
    threads: list[threading.Thread] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        write, finish = start_response("200 OK", PLAIN)

        def push(name: str) -> None:
            for number in range(20):
                write(f"{name}{number} ".encode())

        threads.extend(threading.Thread(target=push, args=(name,)) for name in "abc")
        for thread in threads:
            thread.start()
        for number in range(20):
            yield f"d{number} ".encode()
        wait_all(*(in_thread(thread.join) for thread in threads))
        finish()

    words = FakeHost(application).run().decode().split()
    for name in "abcd":
        assert [word for word in words if word[0] == name] == [f"{name}{n}" for n in range(20)]
    assert len(words) == 80


def test_write_of_another_thread_waits_for_the_host() -> None:
    """As for any client that is slow; closing lets it go, with an error."""
    raised: list[BaseException] = []
    written: list[int] = []
    threads: list[threading.Thread] = []

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)

        def push() -> None:
            try:
                for number in range(100):
                    write(b"x")
                    written.append(number)
            except BaseException as error:
                raised.append(error)
            finally:
                del finish_kept[:]

        finish_kept = [finish]
        threads.append(threading.Thread(target=push))
        threads[0].start()

    host = FakeHost(application).call()
    host.next()
    host.next()
    host.close()
    threads[0].join(20)
    assert isinstance(raised[0], bide.ClientDisconnected)
    assert len(written) < 5


def test_a_wait_in_a_library_s_greenlet_goes_on_there() -> None:
    """And not in the conversation's own, which waits for that greenlet."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        gate: Future[bytes] = later()
        threading.Timer(0.01, gate.set_result, (b"x",)).start()
        start_response("200 OK", PLAIN)
        return [greenlet(lambda: wait(gate)).switch()]

    assert FakeHost(application).run() == b"x"


# The host's orders ---------------------------------------------------------------------------


def noting(events: list[str], *, waits: bool = False) -> Any:
    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            yield b"1"
            if waits:
                wait(Future())
            yield b"2"
            yield b"3"
        except GeneratorExit:
            events.append("GeneratorExit")
            raise
        except bide.ClientDisconnected:
            events.append("ClientDisconnected")
            raise
        finally:
            events.append(f"finally {threading.get_ident() == threading.main_thread().ident}")

    return application


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_host_that_closes_early_closes_the_application(asked: int) -> None:
    """Before the first block, or in the middle: once, on the host's thread, where it stands."""
    events: list[str] = []
    host = FakeHost(noting(events)).call()
    for _ in range(asked):
        host.next()
    host.close()
    assert events == ["GeneratorExit", "finally True"]
    assert (host.site.status().running, host.site.status().waiting) == (0, 0)


def test_close_twice_is_as_once() -> None:
    """Middleware and server may both do it."""
    events: list[str] = []
    host = FakeHost(noting(events))
    iterable = host.site(host.environ, lambda *args: None)
    next(iterable)
    iterable.close()
    iterable.close()
    assert events == ["GeneratorExit", "finally True"]
    with pytest.raises(StopIteration):
        next(iterable)


def test_close_after_the_end_is_nothing_more() -> None:
    """It was closed once."""
    closing = Closing([b"1", b"2"])

    def application(environ: Environ, start_response: Any) -> Closing:
        start_response("200 OK", PLAIN)
        return closing

    host = FakeHost(application)
    assert host.run() == b"12"
    host.iterable.close()
    assert closing.threads == [threading.get_ident()]


def test_a_host_that_never_closes_leaves_nothing() -> None:
    """Against PEP 3333, as some adapters do: what it drops is closed."""
    events: list[str] = []
    host = FakeHost(noting(events))
    iterable = host.site(host.environ, lambda *args: None)
    next(iterable)
    del iterable
    until(lambda: gc.collect() is None or events, "the application was not closed")
    assert events[-1] == "finally True"
    assert (host.site.status().running, host.site.status().waiting) == (0, 0)


def test_a_host_that_leaves_a_key_out_is_told_which_and_nothing_else_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a call is left, which is dropped and has nothing to close."""
    failed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", failed.append)
    host = FakeHost(plain)
    del host.environ["REQUEST_METHOD"]
    try:
        host.site(host.environ, lambda *args: None)
    except KeyError as error:
        said = str(error)
    gc.collect()
    assert said == "'REQUEST_METHOD'"
    assert failed == []
    assert host.site.status().running == 0


def test_the_end_comes_before_close_is_called() -> None:
    """The host sends it first: closing may take its time."""
    closed: list[str] = []

    class Slow(Closing):
        def close(self) -> None:
            wait(soon(None))
            closed.append("closed")

    def application(environ: Environ, start_response: Any) -> Slow:
        start_response("200 OK", PLAIN)
        return Slow([b"1", b"2"])

    host = FakeHost(application).call()
    host.next()
    host.next()
    with pytest.raises(StopIteration):
        host.next()
    assert closed == []
    host.close()
    assert closed == ["closed"]


def test_a_host_that_refuses_the_head_closes_the_application() -> None:
    """What `start_response` raises is the host's."""
    events: list[str] = []
    host = FakeHost(noting(events))

    def refusing(*args: Any) -> Any:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        host.site(host.environ, refusing)
    assert events[-1] == "finally True"


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt, StopIteration])
def test_an_error_before_the_head_is_raised_to_the_host(error: type[BaseException]) -> None:
    """From the call, before `start_response`: the host logs it, and answers 500."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        raise error("the application's")

    host = FakeHost(application)
    with pytest.raises(error, match="the application's"):
        host.call()
    assert host.events == []


@pytest.mark.parametrize("length", [None, "10"])
def test_an_error_after_the_head_is_raised_to_the_host(length: str | None) -> None:
    """In the iteration, after what was sent: never an end that looks like one."""
    headers = PLAIN if length is None else [*PLAIN, ("Content-Length", length)]

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", headers)
        yield b"begun"
        raise LookupError("the application's")

    host = FakeHost(application).call()
    assert host.next() == b"begun"
    with pytest.raises(LookupError, match="the application's"):
        host.next()
    host.close()


def test_an_error_after_finish_leaves_the_response_complete(log: Log) -> None:
    """Raised, it would have the host cut it."""

    def application(environ: Environ, start_response: Any) -> None:
        write, finish = start_response("200 OK", PLAIN)
        write(b"x")
        finish()
        raise LookupError("late")

    assert FakeHost(application).run() == b"x"
    log.failure()


def test_too_little_for_the_length_is_raised_to_the_host() -> None:
    """The host would have to invent the rest."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
        return [b"1", b"2"]

    host = FakeHost(application).call()
    host.next()
    host.next()
    with pytest.raises(bide.LocalProtocolError, match="ended after 2 bytes"):
        host.next()
    host.close()


def test_too_much_for_the_length_is_raised_to_the_host() -> None:
    """Nothing of it is given to the host."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
        return [b"1", b"22"]

    host = FakeHost(application).call()
    assert host.next() == b"1"
    with pytest.raises(bide.LocalProtocolError, match="longer than"):
        host.next()
    host.close()
    assert host.blocks == [b"1"]


def test_exc_info_replaces_the_head_before_the_first_block() -> None:
    """The host gets one head; afterwards the error is raised again in the application."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        try:
            raise LookupError("no")
        except LookupError as error:
            info = (type(error), error, error.__traceback__)
            start_response("503 Later", PLAIN, info)
            yield b"x"
            with pytest.raises(LookupError, match="no"):
                start_response("500 Too Late", PLAIN, info)

    host = FakeHost(application)
    assert host.run() == b"x"
    assert host.status == "503 Later"


def test_a_finish_that_nobody_can_call_is_an_error_of_the_request() -> None:
    """It is not left to hang."""

    def application(environ: Environ, start_response: Any) -> None:
        start_response("200 OK", PLAIN).finish  # noqa: B018 - taken, and dropped

    with pytest.raises(bide.LocalProtocolError, match="without calling it"):
        FakeHost(application).call()


def test_a_cancelled_response_that_has_begun_is_no_end() -> None:
    """Whatever ends a conversation in the middle, the host is told by an error."""

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"1"
        raise bide.ClientDisconnected("of another request")

    host = FakeHost(application).call()
    host.next()
    with pytest.raises(bide.LocalProtocolError, match="given its response up"):
        host.next()
    host.close()


# Where nobody can wait -----------------------------------------------------------------------


def test_a_wait_on_a_host_s_event_loop_is_a_clear_error() -> None:
    """It would stop the loop; what needs no wait is served."""

    async def on_loop(application: Any) -> bytes:
        return FakeHost(application).run()

    assert asyncio.run(on_loop(plain)) == b"123"
    with pytest.raises(bide.WaitError, match="and waiting would stop that"):
        asyncio.run(on_loop(waiting))


def test_the_promise_of_a_refused_wait_is_not_left_behind() -> None:
    """No warning of a coroutine that was never awaited: it would fail this test."""

    async def on_loop() -> None:
        with pytest.raises(bide.WaitError):
            FakeHost(coroutine).call()

    asyncio.run(on_loop())
    gc.collect()


# Nothing is left -----------------------------------------------------------------------------


class Marked(dict[str, Any]):
    """An environ that can be watched."""


@pytest.mark.parametrize("application", ALL, ids=lambda each: each.__name__)
@pytest.mark.parametrize("early", [False, True])
def test_nothing_keeps_the_environ_when_the_request_has_ended(
    application: Any, early: bool
) -> None:
    """However it ended."""
    site = bide.blocking(application)
    environ = Marked(FakeHost(application).environ)
    gone = weakref.ref(environ)
    iterable = site(environ, lambda *args: None)
    for _ in iterable:
        if early:
            break
    iterable.close()
    del environ, iterable
    until(lambda: gc.collect() is None or gone() is None, "something keeps the environ")


def test_an_error_does_not_keep_the_environ() -> None:
    """Its traceback is dropped with it."""

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        raise LookupError("no")

    site = bide.blocking(application)
    environ = Marked(FakeHost(application).environ)
    gone = weakref.ref(environ)
    try:
        site(environ, lambda *args: None)
    except LookupError:
        pass
    else:
        pytest.fail("nothing was raised")
    del environ
    until(lambda: gc.collect() is None or gone() is None, "something keeps the environ")


def test_a_wait_in_progress_is_counted() -> None:
    """By `bide.status`, too; each holds a thread of the host's."""
    promise = later()
    bodies: list[bytes] = []

    def application(environ: Environ, start_response: Any) -> list[bytes]:
        assert environ["bide.status"]().running == 1
        start_response("200 OK", PLAIN)
        return [wait(promise)]

    host = FakeHost(application)
    thread = threading.Thread(target=lambda: bodies.append(host.run()))
    thread.start()
    until(lambda: host.site.status().waiting == 1)
    assert host.site.status().threads_busy == 1
    (seen,) = (each for each in bide.status().requests if each.application == host.site.name)
    assert (seen.state, seen.waits_for, seen.thread) == ("waiting", "Future", "the host's thread")
    promise.set_result(b"x")
    thread.join(20)
    assert bodies == [b"x"]
    assert host.site.status().threads == 0
    assert host.site.requests() == ()


def test_the_environ_says_when_the_host_has_closed() -> None:
    """`bide.disconnected` is true from then on, also for a thread that outlives the request."""
    ask: list[Callable[[], bool]] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        ask.append(environ["bide.disconnected"])
        start_response("200 OK", PLAIN)
        yield b"1"
        yield b"2"

    host = FakeHost(application).call()
    host.next()
    assert ask[0]() is False
    host.close()
    assert ask[0]() is True


def test_a_request_is_named_in_the_log_as_it_was_sent(log: Log) -> None:
    """Encoded, with the root and the query: no client writes a line of its own into it."""

    class Failing(list[bytes]):
        def close(self) -> None:
            raise LookupError("in close")

    def application(environ: Environ, start_response: Any) -> Failing:
        start_response("200 OK", PLAIN)
        return Failing([b"x"])

    FakeHost(
        application, SCRIPT_NAME="/app", PATH_INFO="/a\nb/\xc3\xa9/100%", QUERY_STRING="q=%41"
    ).run()
    record = log.take("the application failed in close()")
    assert "GET /app/a%0Ab/%C3%A9/100%25?q=%41 of " in record.getMessage()
