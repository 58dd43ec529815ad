"""A request under an ASGI server ends in many ways, some at once: each order is forced here.

Whatever comes first: one outcome, ``close()`` once on the conversation's thread, nothing left over.
"""

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide import ClientDisconnected, wait
from bide.hosts.asgi import ASGI, Message, asgi
from bide.waiting.waiter import background_loop
from tests.hosts.asgi_server import DISCONNECT, Exchange, chunk, run, scope, until
from tests.served import Closing, Environ, Gate, Log, answering, happened
from tests.served import until as until_true

PLAIN = [("Content-Type", "text/plain")]
EXECUTORS = pytest.mark.parametrize("executor", ["threads", "loop"])


class Waiting:
    """An application that streams one block and waits; it notes what is raised there, and close().

    Attributes:
        gate: opens to let it go on.
        notes: what happened, in order, and on which thread.
        hosted: it, under ASGI.
    """

    def __init__(self, executor: str, **options: Any) -> None:
        self.gate = Gate()
        self.notes: list[str] = []
        self.threads: set[int] = set()
        self.hosted = asgi(self, executor=executor, **options)

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Return an iterable whose close() is noted."""
        start_response("200 OK", PLAIN)
        blocks = Closing(self._blocks())
        closing = blocks.close

        def close() -> None:
            self._note("close")
            closing()

        blocks.close = close  # type: ignore[method-assign]
        return blocks

    def _blocks(self) -> Iterator[bytes]:
        self._note("begin")
        yield b"1"
        try:
            wait(self.gate.promise())
        except BaseException as error:
            self._note(type(error).__name__)
            raise
        self._note("result")
        yield b"2"

    def _note(self, what: str) -> None:
        self.notes.append(what)
        self.threads.add(threading.get_ident())

    async def until_waiting(self) -> None:
        """Return once it waits."""
        await until(lambda: self.hosted.dispatchers().status().waiting == 1)

    async def check(self, *notes: str) -> None:
        """See that these have been noted, on one thread, and that nothing is in progress."""
        assert self.notes == ["begin", *notes]
        assert len(self.threads) == 1
        status = self.hosted.dispatchers().status()
        assert (status.running, status.waiting, status.queued) == (0, 0, 0)
        await self.hosted.stop()


LEFT = ("ClientDisconnected", "close")
DONE = ("result", "close")


def disconnect(request: Exchange) -> None:
    request.give(DISCONNECT)


def receive_fails(request: Exchange) -> None:
    request.give(OSError("gone"))


def cancel(request: Exchange) -> None:
    request.task.cancel()


LEAVING = pytest.mark.parametrize("leave", [disconnect, receive_fails, cancel])
Leave = Callable[[Exchange], None]


@EXECUTORS
@LEAVING
def test_a_departure_is_noticed_while_the_application_waits(
    log: Log, executor: str, leave: Leave
) -> None:
    """However the server tells it; the server's task ends when the application has."""

    async def steps() -> None:
        application = Waiting(executor)
        request = Exchange(application.hosted)
        await application.until_waiting()
        leave(request)
        with contextlib.suppress(asyncio.CancelledError):
            await request.task
        await application.check(*LEFT)
        assert request.task.cancelled() is (leave is cancel)
        assert not request.complete

    run(steps())


@EXECUTORS
@LEAVING
@pytest.mark.parametrize("first", ["departure", "result"])
def test_the_first_of_departure_and_result_counts(
    log: Log, executor: str, leave: Leave, first: str
) -> None:
    """Both in one turn of the loop, in either order."""

    async def steps() -> None:
        application = Waiting(executor)
        request = Exchange(application.hosted)
        await application.until_waiting()
        if first == "departure":
            leave(request)
            # The server's message reaches the application in the loop's next turns.
            await until(lambda: request.task.done() or len(application.notes) > 1)
            application.gate.open()
        else:
            application.gate.open()
            leave(request)
        with contextlib.suppress(asyncio.CancelledError):
            await request.task
        if first == "departure":
            await application.check(*LEFT)
        else:
            await application.check(*DONE)

    run(steps())


@EXECUTORS
@pytest.mark.parametrize("first", ["gate", "leave"])
def test_a_departure_in_the_same_moment_as_the_end_has_one_outcome(
    log: Log, executor: str, first: str
) -> None:
    """Either is right; what is wrong is both, or none."""

    async def steps() -> None:
        for _ in range(10):
            application = Waiting(executor)
            request = Exchange(application.hosted)
            await application.until_waiting()
            if first == "gate":
                application.gate.open()
                request.give(DISCONNECT)
            else:
                request.give(DISCONNECT)
                application.gate.open()
            await request.task
            assert application.notes[1:] in ([*LEFT], [*DONE])
            await application.check(*application.notes[1:])

    run(steps())


@EXECUTORS
def test_a_client_that_leaves_during_close_does_not_disturb_it(log: Log, executor: str) -> None:
    """The response was complete: there is nothing to give up. The server's task ends afterwards."""
    gate = Gate()
    closed: list[str] = []

    class Iterable(Closing):
        def close(self) -> None:
            wait(gate.promise())
            closed.append("closed")

    def application(environ: Environ, start_response: Any) -> Iterable:
        start_response("200 OK", PLAIN)
        return Iterable([b"1", b"2"])

    async def steps() -> None:
        hosted = asgi(application, executor=executor)
        request = Exchange(hosted)
        await until(lambda: request.complete)
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        request.give(DISCONNECT)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not request.task.done()
        gate.open()
        await request.task
        assert request.body == b"12"

    run(steps())
    assert closed == ["closed"]


@EXECUTORS
def test_a_client_that_leaves_before_its_last_block_is_sent_does_not_disturb_close(
    log: Log, executor: str
) -> None:
    """The application has given all; that the client did not take it is nothing to it."""
    gate = Gate()
    closed: list[str] = []

    class Iterable(Closing):
        def close(self) -> None:
            wait(gate.promise())
            closed.append("closed")

    def application(environ: Environ, start_response: Any) -> Iterable:
        start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
        return Iterable([b"12"])

    async def steps() -> None:
        hosted = asgi(application, executor=executor)
        request = Exchange(hosted)
        request.taking.clear()
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        request.give(DISCONNECT)
        for _ in range(20):
            await asyncio.sleep(0)
        gate.open()
        request.fail(OSError("gone"))
        await request.task

    run(steps())
    assert closed == ["closed"]


@EXECUTORS
@pytest.mark.parametrize("server", ["raises", "drops"])
@pytest.mark.parametrize("told", [True, False])
def test_a_client_that_leaves_while_it_is_behind_frees_the_application(
    log: Log, executor: str, server: str, told: bool
) -> None:
    """Servers differ: `send` raises OSError, or takes and drops; `receive` tells it, or not yet."""
    raised: list[type[BaseException]] = []

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            for _ in range(1000):
                yield bytes(16 * 1024)
        except BaseException as error:
            raised.append(type(error))
            raise

    async def steps() -> None:
        hosted = asgi(application, executor=executor)
        request = Exchange(hosted)
        request.taking.clear()
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        if told or server == "drops":
            request.give(DISCONNECT)
            await until(lambda: hosted.dispatchers().status().waiting == 0)
        if server == "raises":
            request.fail(OSError("gone"))
        else:
            request.taking.set()
        await request.task
        status = hosted.dispatchers().status()
        assert (status.running, status.waiting) == (0, 0)
        assert not request.complete

    run(steps())
    assert raised == [GeneratorExit]


@EXECUTORS
def test_a_departure_is_raised_where_the_body_is_read(log: Log, executor: str) -> None:
    """What has come before is read first."""
    read: list[bytes] = []

    def answer(environ: Environ) -> None:
        read.append(environ["wsgi.input"].read(2))
        try:
            environ["wsgi.input"].read(2)
        except ClientDisconnected:
            read.append(b"left")
            raise

    async def steps() -> None:
        request = Exchange(
            asgi(answering(answer), executor=executor),
            chunk(b"123"),
            method="POST",
            headers=[(b"content-length", b"9")],
        )
        await until(lambda: read)
        request.give(DISCONNECT)
        await request.task
        assert not request.sent

    run(steps())
    assert read == [b"12", b"left"]


@EXECUTORS
def test_a_full_window_is_left(log: Log, executor: str) -> None:
    """The task waits for room then, and is not asking; what the server cancels ends it."""
    gate = Gate()

    async def steps() -> None:
        hosted = asgi(answering(lambda environ: wait(gate.promise())), executor=executor)
        request = Exchange(
            hosted,
            chunk(bytes(1024 * 1024)),
            method="POST",
            headers=[(b"content-length", b"9999999")],
        )
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        assert request.asked == 1
        request.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request.task
        assert hosted.dispatchers().status().waiting == 0

    run(steps())


def test_a_client_that_has_left_before_it_was_served_is_not_served(log: Log) -> None:
    """Nothing is run for nobody."""
    called: list[Environ] = []

    async def steps() -> None:
        hosted = asgi(answering(called.append))
        request = Exchange(hosted, DISCONNECT)
        await request.task
        assert not request.sent

    run(steps())
    assert not called


class LateLoop(asyncio.SelectorEventLoop):
    """A loop on which the application begins when the test says so: tasks may begin before it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] = []

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        """Hold back a beginning."""
        if getattr(callback, "__name__", "") == "_begin" and not self.held:
            self.held.append((callback, args, context))
            return None
        return super().call_soon(callback, *args, context=context)


@EXECUTORS
@LEAVING
def test_a_client_that_leaves_before_the_application_begins_is_not_served(
    log: Log, executor: str, leave: Leave
) -> None:
    """As on a loop whose tasks begin at once."""
    called: list[Environ] = []

    async def steps() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LateLoop)
        hosted = asgi(answering(called.append), executor=executor)
        request = Exchange(hosted)
        await until(lambda: loop.held)
        leave(request)
        for _ in range(20):
            await asyncio.sleep(0)
        callback, args, context = loop.held[0]
        loop.call_soon(callback, *args, context=context)
        with contextlib.suppress(asyncio.CancelledError):
            await request.task
        assert not request.sent

    with asyncio.Runner(loop_factory=LateLoop) as runner:
        runner.run(steps())
    assert not called


@EXECUTORS
def test_a_server_that_fails_to_send_has_its_error_back(log: Log, executor: str) -> None:
    """And the application is told that nobody takes more."""

    async def steps() -> None:
        application = Waiting(executor)
        request = Exchange(application.hosted)
        request.taking.clear()
        await application.until_waiting()
        request.fail(RuntimeError("too long"))
        with pytest.raises(RuntimeError, match="too long"):
            await request.task
        await until(lambda: "close" in application.notes)
        await until(lambda: not application.hosted.dispatchers().in_progress)
        await application.check(*LEFT)

    run(steps())


@EXECUTORS
def test_a_server_that_fails_to_receive_has_its_error_back(log: Log, executor: str) -> None:
    """The same."""

    async def steps() -> None:
        application = Waiting(executor)
        request = Exchange(application.hosted)
        await application.until_waiting()
        request.give(RuntimeError("broken"))
        with pytest.raises(RuntimeError, match="broken"):
            await request.task
        await application.check(*LEFT)

    run(steps())


@EXECUTORS
def test_a_receive_that_gives_the_same_message_for_ever_does_not_hold_the_loop(
    log: Log, executor: str
) -> None:
    """Such are the callables that tests of applications are written with."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def steps() -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        hosted = asgi(answering(lambda environ: wait(asyncio.sleep(0, "x"))), executor=executor)
        await hosted(scope(), receive, send)
        assert sent[0]["status"] == 200

    run(steps())


@EXECUTORS
def test_a_server_that_cancels_leaves_time_to_clean_up(log: Log, executor: str) -> None:
    """The task ends, as cancelled, after the application's own waits in its ``finally``."""
    notes: list[str] = []

    def answer(environ: Environ) -> None:
        try:
            wait(Gate().promise())
        finally:
            wait(asyncio.sleep(0.01))
            notes.append("cleaned")

    async def steps() -> None:
        hosted = asgi(answering(answer), executor=executor)
        request = Exchange(hosted)
        await until(lambda: hosted.dispatchers().status().waiting == 1)
        request.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request.task
        assert notes == ["cleaned"]

    run(steps())


def test_a_server_that_cancels_twice_waits_no_longer(log: Log) -> None:
    """Code that runs is not interrupted, and not waited for by one in a hurry."""
    begun, release = threading.Event(), threading.Event()

    def answer(environ: Environ) -> str:
        begun.set()
        happened(release)
        return "x"

    async def steps() -> None:
        hosted = asgi(answering(answer))
        request = Exchange(hosted)
        await until(begun.is_set)
        request.task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not request.task.done()
        request.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request.task
        release.set()
        await until(lambda: not hosted.dispatchers().in_progress)

    run(steps())


# Loops that end ------------------------------------------------------------------------------


@EXECUTORS
def test_each_loop_has_its_own_and_a_closed_one_leaves_no_threads(log: Log, executor: str) -> None:
    """Tests make a loop each, and call one application in all of them."""
    gate = Gate()
    gate.open()
    hosted = asgi(answering(lambda environ: wait(gate.promise()) or "x"), executor=executor)
    before = set(threading.enumerate())

    async def steps() -> None:
        request = Exchange(hosted)
        await request.task
        assert request.body == b"x"

    for _ in range(5):
        run(steps())
        until_true(lambda: len(set(threading.enumerate()) - before) <= 2)


def test_threads_end_with_the_last_reference(log: Log) -> None:
    """Nobody has to stop what is dropped."""
    before = set(threading.enumerate())

    async def steps() -> None:
        hosted = asgi(answering(lambda environ: "x"))
        await Exchange(hosted).task
        assert set(threading.enumerate()) - before

    run(steps())
    gc.collect()
    until_true(lambda: not set(threading.enumerate()) - before)
    lent = len(background_loop._lent)
    run(steps())
    gc.collect()
    assert len(background_loop._lent) <= lent  # nor is the first loop kept


def test_an_application_that_pushes_when_the_loop_is_closed_learns_that_nobody_is_there(
    log: Log,
) -> None:
    """As of any client that has left: in its own thread, at the line."""
    started, closed = threading.Event(), threading.Event()
    raised: list[type[BaseException]] = []

    def push(write: Any, finish: Any) -> None:
        write(b"1")
        started.set()
        happened(closed)
        try:
            write(b"2")
            finish()
        except BaseException as error:
            raised.append(type(error))

    threads: list[threading.Thread] = []

    def application(environ: Environ, start_response: Any) -> None:
        threads.append(threading.Thread(target=push, args=start_response("200 OK", PLAIN)))
        threads[0].start()

    hosted = asgi(application)
    abandoned = _abandon(hosted, started.is_set)
    closed.set()
    threads[0].join()
    assert raised == [ClientDisconnected]
    _throw_away(abandoned, log)


def test_what_waits_when_the_loop_is_closed_ends_with_the_next_one(log: Log) -> None:
    """Its thread cleans up, and is no longer there."""
    notes: list[str] = []
    gate = Gate()

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/next":
            return "x"
        try:
            wait(gate.promise())
        except BaseException as error:
            notes.append(type(error).__name__)
            raise
        return "never"

    hosted = asgi(answering(answer))
    abandoned = _abandon(hosted, lambda: hosted.dispatchers().status().waiting == 1)

    async def steps() -> None:
        request = Exchange(hosted, path="/next")
        await request.task
        assert request.body == b"x"
        await until(lambda: notes)

    run(steps())
    assert notes == ["ServerStopping"]
    _throw_away(abandoned, log)


def _abandon(hosted: ASGI, ready: Callable[[], object]) -> list[Exchange]:
    """Begin a request on a loop, and close that loop under it without a word."""
    loop = asyncio.new_event_loop()
    exchanges: list[Exchange] = []

    async def begin() -> None:
        exchanges.append(Exchange(hosted))
        await until(ready)

    loop.run_until_complete(begin())
    loop.close()
    return exchanges


def _throw_away(exchanges: list[Exchange], log: Log) -> None:
    """Collect what can never end; asyncio logs a line for each of the tasks."""
    task = weakref.ref(exchanges[0].task)
    exchanges.clear()

    def gone() -> bool:
        gc.collect()
        return task() is None

    until_true(gone, "something is kept")  # the conversation's thread may be about to let it go
    words = [log.take("Task was destroyed but it is pending").getMessage() for _ in range(2)]
    assert all(any(name in each for each in words) for name in ("__call__", "_feed"))
