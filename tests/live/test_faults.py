"""Faults and what becomes of them: of clients, applications, promises, threads and resources.

Tables first, each row one fault. Whatever the fault is, at the end a fresh request works, nothing
is left of the others, and the log has the lines of the row and no more.
"""

import asyncio
import concurrent.futures
import contextlib
import ctypes
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import greenlet
import pytest

from bide import ClientDisconnected, in_thread, wait, wait_all
from bide.serving.loggers import access
from bide.waiting.cleanups import cleanup_time
from tests.conftest import Serve
from tests.fault_proxy import Fault
from tests.live.faults import LEFT, PLAIN, Arena, stage_of, victim
from tests.served import (
    DEADLINE,
    Application,
    Environ,
    Gate,
    Log,
    answering,
    happened,
    request,
    until,
)

pytestmark = pytest.mark.usefixtures("arenas", "log_for_us_alone")
both = pytest.mark.parametrize("executor", ["threads", "loop"])
FAILED = "ERROR the application failed: "
CLOSE_FAILED = "ERROR the application failed in close(): "


def rows(table: list[Any]) -> pytest.MarkDecorator:
    """Make a test of each row, by its name."""
    return pytest.mark.parametrize("row", table, ids=[each.name for each in table])


# 1. Clients ---------------------------------------------------------------------------------


HEAD = request("/reads", method="POST", headers=["Content-Length: 100"])
HALF_A_BODY = HEAD + b"x" * 10
CHUNKED = request("/reads", method="POST", headers=["Transfer-Encoding: chunked"])
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))
IN_THE_HEAD = len(HEAD) // 2
IN_THE_BODY = len(HEAD) + 5


@dataclass(frozen=True)
class Client:
    """What a client does that means no good, or has an accident.

    Attributes:
        sends: its bytes.
        up: what becomes of them.
        down: what becomes of the response.
        sees: what it sees, as :meth:`Viewer.view` says it.
        calls: how often the application is called.
        raised: what is raised in the application.
        log: the lines.
        settings: the server's.
    """

    name: str
    sends: bytes
    up: Fault | None = None
    down: Fault | None = None
    sees: str = "closed"
    calls: int = 1
    raised: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


CLIENTS = [
    Client("port scan", b"", Fault("cut"), calls=0),
    Client("port scan with a reset", b"", Fault("reset"), sees="reset", calls=0),
    Client("half-closed at once", b"", Fault("half_close"), calls=0),
    Client("TLS on the plain port", TLS_HELLO, sees="400, closed", calls=0),
    Client("FIN in the head", HEAD, Fault("cut", IN_THE_HEAD), calls=0),
    Client("RST in the head", HEAD, Fault("reset", IN_THE_HEAD), sees="reset", calls=0),
    Client("half-closed in the head", HEAD, Fault("half_close", IN_THE_HEAD), calls=0),
    Client("FIN in the body", HALF_A_BODY, Fault("cut", IN_THE_BODY), raised=(LEFT,)),
    Client(
        "half-closed in the body", HALF_A_BODY, Fault("half_close", IN_THE_BODY), raised=(LEFT,)
    ),
    Client(
        "half-closed while waited for", request("/waits"),
        Fault("half_close", len(request("/waits"))), raised=(LEFT,),
    ),
    Client(
        "FIN in the response", request("/writes"), down=Fault("cut", 100_000),
        sees="200 cut, closed", raised=("GeneratorExit",),
    ),
    Client(
        "RST in the response", request("/writes"), down=Fault("reset", 100_000),
        sees="200 cut, reset", raised=("GeneratorExit",),
    ),
    Client(
        "half-closed in the response", request("/much"), Fault("half_close", len(request("/much"))),
        sees="200, closed",
    ),
    Client("slow in the head, but in time", HEAD + b"x" * 100, Fault("drip"), sees="200, goes on"),
    Client("slow to take the response", request("/much"), down=Fault("drip", size=5000),
           sees="200, goes on"),
]  # fmt: skip


LIMITS = [
    Client(
        "more than limit_body", request("/reads", method="POST", headers=["Content-Length: 101"]),
        sees="413, closed", calls=0, settings={"limit_body": 100},
    ),
    Client(
        "limit_body", HEAD + b"x" * 100, sees="200, goes on", settings={"limit_body": 100}
    ),
    Client(
        "chunks of more than limit_body", CHUNKED + b"60\r\n" + b"x" * 96 + b"\r\n5\r\nxxxxx\r\n",
        sees="413, closed", raised=("RemoteProtocolError",), settings={"limit_body": 100},
    ),
]  # fmt: skip


@both
@rows(CLIENTS + LIMITS)
def test_a_client_hurts_itself_alone(serve: Serve, log: Log, executor: str, row: Client) -> None:
    """What it is told, what its request is told, and that nobody else notices."""
    arena = Arena(serve, log, victim, executor=executor, **row.settings)
    client = arena.connect(arena.proxy(row.up, row.down))
    if row.sends:  # else its connection may have been reset already
        client.send(row.sends)
    assert client.view() == row.sees
    stage = arena.stage  # what the proxy tells the client, the server may not have heard yet
    until(lambda: len(stage.calls) >= row.calls and len(stage.raised) >= len(row.raised))
    arena.settle(*row.log)
    assert (len(stage.calls), tuple(stage.raised)) == (row.calls, row.raised)


@both
def test_a_client_that_is_gone_before_it_is_accepted_is_no_error(
    serve: Serve, log: Log, executor: str
) -> None:
    """Its address cannot be asked for any more; the loop is held until it has left."""
    arena = Arena(serve, log, victim, executor=executor)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        happened(release)

    arena.served.loop.call_soon_threadsafe(hold)
    happened(held)
    for number in range(20):
        client = arena.request() if number % 2 else arena.connect()
        client.reset()
    arena.connect().close()
    release.set()
    arena.settle()


# The client leaves, in every state that a request can be in ------------------------------------


@dataclass(frozen=True)
class State:
    """A state in which a request is left by its client, and what it learns of it.

    Attributes:
        act: what its iterable does.
        reached: returns once the state is there.
        sends: the client's bytes.
        after: what the test does once the client has left.
        fin: how often the application was called, and what was raised in it, sorted, when the
            client left with a FIN.
        rst: the same for a RST.
        closing: what the iterable's ``close`` does.
        log: the lines.
        executors: those that it is tried with.
        ends_in_time: whether the end of the time to clean up is what ends it.
    """

    name: str
    act: Callable[["Left"], Iterator[Any]]
    reached: Callable[["Left"], object]
    sends: bytes = request()
    after: Callable[["Left"], object] = lambda left: None
    fin: tuple[int, tuple[str, ...]] = (1, (LEFT,))
    rst: tuple[int, tuple[str, ...]] = (1, (LEFT,))
    closing: Callable[["Left"], object] = lambda left: None
    log: tuple[str, ...] = ()
    executors: tuple[str, ...] = ("threads", "loop")
    ends_in_time: bool = False


class Left:
    """One request that is going to be left: the application, and what the test holds of it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.arena: Arena
        self.environ: Environ = {}
        self.write: Any = None
        self.finish: Any = None
        self.ending = ""
        self.connections = 0  # with the one that is going to be left
        self.begun, self.release = threading.Event(), threading.Event()
        self.gate = Gate()

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Return an iterable that does what the state says."""
        stage = stage_of(environ)
        if environ["PATH_INFO"] == "/block":
            happened(self.release)
            start_response("200 OK", PLAIN)
            return [b"x"]
        self.environ = environ
        self.write = start_response("200 OK", PLAIN)

        def blocks() -> Iterator[Any]:
            with stage.noting():
                yield from self.state.act(self)

        def closing() -> None:
            with stage.noting():
                self.state.closing(self)

        return stage.watched(blocks(), closing)

    def forget(self) -> None:
        """Hold no more of the request than a program does that has ended it."""
        self.environ = {}
        self.write = self.finish = None

    def until_gone(self) -> None:
        """Return once the server has seen the end of the connection."""
        until(lambda: self.arena.served.status.connections < self.connections)

    def until_waiting(self) -> None:
        """Return once the application waits, and not the server for the body."""
        until(lambda: self.arena.stage.calls)
        self.arena.served.until_waiting(1)

    def until_held(self) -> None:
        """Return once the request waits for its body, and the application has not been called."""
        self.arena.served.until_waiting(1)

    def until_half_read(self) -> None:
        """Return once the server has begun to read a request."""
        until(lambda: self.arena.served.receiving)

    def until_queued(self) -> None:
        """Return once the request waits for a thread, and all threads are blocked."""
        until(lambda: self.arena.served.status.queued == 1)

    def until_idle(self) -> None:
        """Return once the request has been answered."""
        until(lambda: self.arena.stage.iterables and self.arena.stage.iterables[0].left)
        self.arena.served.until_idle()


def waits(left: Left) -> Iterator[Any]:
    yield wait(left.gate.promise())


def yields(left: Left) -> Iterator[Any]:
    yield left.gate.promise()


def awaits(left: Left) -> Iterator[Any]:
    async def sleeping() -> None:
        with left.arena.stage.noting():
            await asyncio.sleep(3600)

    yield wait(sleeping())


def runs(left: Left) -> Iterator[Any]:
    left.begun.set()
    happened(left.release)
    yield wait(left.gate.promise())


def reads(left: Left) -> Iterator[Any]:
    yield left.environ["wsgi.input"].read()


def writes(left: Left) -> Iterator[Any]:
    while True:
        yield b"x" * 65536


def calls_write(left: Left) -> Iterator[Any]:
    while True:
        left.write(b"x" * 65536)
        yield b""


def pushes(left: Left) -> Iterator[Any]:
    left.write, left.finish = left.write
    yield b"pushed"


def pushes_to_nobody(left: Left) -> None:
    """Both raise, and hold nothing."""
    left.arena.served.until_idle()
    for call in (lambda: left.write(b"x"), left.finish):
        with pytest.raises(ClientDisconnected):
            call()


def answers(left: Left) -> Iterator[Any]:
    yield b"x"


def fails(left: Left) -> Iterator[Any]:
    yield b"x"
    raise LookupError


def cleans_up(left: Left) -> Iterator[Any]:
    try:
        yield wait(left.gate.promise())
    finally:
        wait(asyncio.sleep(0))
        wait(in_thread(lambda: None))


def frees_the_threads(left: Left) -> None:
    if left.ending == "rst":
        left.until_gone()
    left.release.set()


def opens_the_gate(left: Left) -> None:
    left.until_gone()
    left.gate.open()


def waits_in_close(left: Left) -> None:
    wait(left.gate.promise())


NOTHING = (0, ())
QUIET = (1, ())
STOPPED = (1, ("GeneratorExit",))
LENGTH = "Content-Length: 10"
HALF = request(method="POST", headers=[LENGTH]) + b"x" * 5
# More than the window: the application is called before all of it has come.
UPLOAD = request(method="POST", headers=["Content-Length: 100000"]) + b"x" * 80000

STATES = [
    State("head half read", answers, Left.until_half_read, request()[:20],
          fin=NOTHING, rst=NOTHING),
    # With a FIN it is as one that has only closed its sending side: it is begun.
    State("queued", waits, Left.until_queued, after=frees_the_threads, rst=NOTHING,
          executors=("threads",)),
    State("running", runs, lambda left: happened(left.begun),
          after=lambda left: left.release.set()),
    State("waiting", waits, Left.until_waiting),
    State("waiting at a yield", yields, Left.until_waiting),
    State("awaiting a coroutine", awaits, Left.until_waiting,
          fin=(1, ("CancelledError", LEFT)), rst=(1, ("CancelledError", LEFT))),
    State("body half come", reads, Left.until_held, HALF, rst=NOTHING),
    State("body half read", reads, Left.until_waiting, UPLOAD),
    State("waiting, its body unread", waits, Left.until_waiting, UPLOAD),
    State("writing", writes, Left.until_waiting, fin=STOPPED, rst=STOPPED),
    State("in write()", calls_write, Left.until_waiting),
    State("pushed", pushes, Left.until_waiting, after=pushes_to_nobody, fin=QUIET, rst=QUIET),
    State("cleaning up", cleans_up, Left.until_waiting),
    # Its response is sent, and its client none of its business any more.
    State("in close()", answers, Left.until_waiting, after=opens_the_gate,
          fin=QUIET, rst=QUIET, closing=waits_in_close),
    State("in close() of one that failed", fails, Left.until_waiting, closing=waits_in_close,
          fin=(1, (LEFT, "LookupError")), rst=(1, (LEFT, "LookupError")), log=(FAILED + "GET /",),
          ends_in_time=True),
    State("answered", answers, Left.until_idle, fin=QUIET, rst=QUIET),
    State("pipelined behind one that waits", waits, Left.until_waiting, request() * 2),
]  # fmt: skip

DEPARTURES = [
    pytest.param(state, executor, ending, id=f"{state.name}-{ending}-{executor}")
    for state in STATES
    for executor in state.executors
    for ending in ("fin", "rst")
]


@pytest.mark.parametrize(("state", "executor", "ending"), DEPARTURES)
def test_a_client_leaves_in_every_state_and_nothing_is_left(
    serve: Serve,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    executor: str,
    ending: str,
) -> None:
    """``close()`` is called once, on its thread, in its context; the rest is in the table."""
    if state.ends_in_time:
        monkeypatch.setattr(cleanup_time, "seconds", 0.1)
    left = Left(state)
    left.ending = ending
    arena = left.arena = Arena(serve, log, left, executor=executor, limit_threads=4)
    if state.name == "queued":
        for _ in range(arena.served.status.threads_max):
            arena.request("/block")
        until(lambda: arena.served.status.threads_busy == arena.served.status.threads_max)
        arena.stage.calls.clear()
    proxy = arena.proxy(down=Fault("stall"), window=4096)
    arena.connect(proxy).send(state.sends)
    state.reached(left)
    left.connections = arena.served.status.connections
    (proxy.cut if ending == "fin" else proxy.reset)()
    state.after(left)
    calls, raised = state.fin if ending == "fin" else state.rst
    stage = arena.stage
    until(lambda: len(stage.calls) >= calls and len(stage.raised) >= len(raised))
    arena.served.until_idle()
    left.forget()
    arena.settle(*state.log)
    assert (len(stage.calls), tuple(sorted(stage.raised))) == (calls, raised)


# 2. Applications ----------------------------------------------------------------------------


class OfItsOwn(BaseException):
    """An application's own, beside Exception."""


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def recurse_in_c() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    try:
        json.dumps(nested)
    finally:
        while nested:
            nested = nested[0]


def raising(error: type[BaseException]) -> Callable[[], None]:
    def raise_it() -> None:
        raise error("the secret")

    return raise_it


ERRORS: dict[str, Callable[[], Any]] = {
    **{
        error.__name__: raising(error)
        for error in (
            ValueError,
            OfItsOwn,
            SystemExit,
            KeyboardInterrupt,
            GeneratorExit,
            StopIteration,
            asyncio.CancelledError,
            greenlet.GreenletExit,
        )
    },
    "MemoryError": lambda: bytes(1 << 62),
    "RecursionError": recurse,
    "RecursionError in C": recurse_in_c,
    "SystemError in C": ctypes.pythonapi.PyErr_BadInternalCall,
}


@dataclass(frozen=True)
class Mistake:
    """What an application does wrong, what its client sees, and the lines."""

    name: str
    application: Application
    sees: str = "500, goes on"
    log: tuple[str, ...] = (FAILED + "GET /",)
    method: str = "GET"


def sending(
    *blocks: Any,
    headers: Any = PLAIN,
    status: Any = "200 OK",
    failing: Callable[[], Any] = lambda: None,
    closing: Callable[[], Any] = lambda: None,
) -> Application:
    """Make an application that sends blocks, then fails, and fails in ``close``, if so told."""

    def application(environ: Environ, start_response: Any) -> Any:
        start_response(status, headers)

        class Blocks:
            def __iter__(self) -> Iterator[Any]:
                yield from blocks
                self.fail()

            def fail(self) -> None:
                failing()

        return stage_of(environ).watched(iter(Blocks()), closing)

    return application


def in_the_call(failing: Callable[[], Any]) -> Application:
    def application(environ: Environ, start_response: Any) -> Any:
        failing()

    return application


def returning(value: Any, *, started: bool = True) -> Application:
    def application(environ: Environ, start_response: Any) -> Any:
        if started:
            start_response("200 OK", PLAIN)
        return value

    return application


def starts_twice(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    start_response("200 OK", PLAIN)


def starts_again_too_late(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)(b"begun")
    try:
        raise LookupError
    except LookupError:
        start_response("500 Oh", PLAIN, sys.exc_info())


def writes_after_finish(environ: Environ, start_response: Any) -> Any:
    write, finish = start_response("200 OK", PLAIN)
    finish()
    write(b"late")


def drops_finish(environ: Environ, start_response: Any) -> Any:
    _, _ = start_response("200 OK", PLAIN)


def ignores_its_end(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)

    def blocks() -> Iterator[bytes]:
        try:
            yield b"x"
        finally:
            yield b"y"

    return blocks()


CLOSED = (CLOSE_FAILED + "GET /",)
MISTAKES = [
    *(Mistake(f"{name} in the call", in_the_call(it)) for name, it in ERRORS.items()),
    *(Mistake(f"{name} before a block", sending(failing=it)) for name, it in ERRORS.items()),
    *(
        Mistake(f"{name} after a block", sending(b"x", failing=it), "200 cut, closed")
        for name, it in ERRORS.items()
    ),
    *(
        Mistake(f"{name} in close()", sending(b"x", closing=it), "200, goes on", CLOSED)
        for name, it in ERRORS.items()
    ),
    Mistake("fails, and in close() too", sending(failing=recurse, closing=recurse),
            log=(*CLOSED, FAILED + "GET /")),
    Mistake("returns None", returning(None)),
    Mistake("returns a number", returning(1)),
    Mistake("returns a string", returning("text")),
    Mistake("yields a string", sending("text")),
    Mistake("yields a string after a block", sending(b"x", "text"), "200 cut, closed"),
    Mistake("yields a number", sending(1)),
    Mistake("never calls start_response", returning([b"x"], started=False)),
    Mistake("calls start_response twice", starts_twice),
    Mistake("starts again when it is too late", starts_again_too_late, "200 cut, closed"),
    Mistake("writes after finish", writes_after_finish, "200, goes on"),
    Mistake("drops finish", drops_finish),
    Mistake("ignores GeneratorExit", ignores_its_end, "200, goes on",
            (CLOSE_FAILED + "HEAD /",), "HEAD"),
    Mistake("too short for its length", sending(b"x", headers=[("Content-Length", "2")]),
            "200 cut, closed"),
    Mistake("too long for its length", sending(b"x", b"yz", headers=[("Content-Length", "2")]),
            "200 cut, closed"),
    Mistake("too long at once", sending(b"xyz", headers=[("Content-Length", "2")])),
    Mistake("two lengths", sending(b"x", headers=[("Content-Length", "1")] * 2)),
    Mistake("a length that is none", sending(b"x", headers=[("Content-Length", "+1")])),
    Mistake("a hop-by-hop header", sending(b"x", headers=[("Transfer-Encoding", "chunked")])),
    Mistake("splits its response", sending(b"x", headers=[("X", "y\r\n\r\nz")])),
    Mistake("a status that is none", sending(b"x", status="OK")),
    Mistake("a body for HEAD", sending(b"x", b"y"), "200, goes on", (), "HEAD"),
    Mistake("a body for 204", sending(b"x", status="204 No Content", headers=[]),
            "204, goes on", ()),
    Mistake("a body for 304", sending(b"x", status="304 Not Modified", headers=[]),
            "304, goes on", ()),
]  # fmt: skip


# 3. Promises --------------------------------------------------------------------------------


class Deferring:
    """The promise of 2004: ``addCallback``, and nothing else."""

    def __init__(self, subscribed: Callable[[Callable[[Any], Any]], object]) -> None:
        self._subscribed = subscribed

    def addCallback(self, callback: Callable[[Any], Any]) -> None:
        """Do what the test says."""
        self._subscribed(callback)


def waiting_for(make: Callable[[], Any], timeout: float | None = None) -> Application:
    return answering(lambda environ: wait(make(), timeout))


def twice(callback: Callable[[Any], Any]) -> None:
    callback(b"1")
    callback(b"2")


def refuses(callback: Callable[[Any], Any]) -> None:
    raise LookupError


async def rejected() -> bytes:
    await asyncio.sleep(0)
    raise LookupError


def cancelled() -> "concurrent.futures.Future[bytes]":
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
    future.cancel()
    return future


def rejects_after_a_block(environ: Environ, start_response: Any) -> Any:
    start_response("200 OK", PLAIN)
    return stage_of(environ).watched(each for each in (b"x", rejected()))


def from_a_thread(callback: Callable[[Any], Any]) -> None:
    threading.Thread(target=twice, args=(callback,)).start()


PROMISES = [
    Mistake("never resolved, with a time-out", waiting_for(Gate().promise, 0.02)),
    Mistake("rejected before the head", waiting_for(rejected)),
    Mistake("rejected after a block", rejects_after_a_block, "200 cut, closed"),
    Mistake("cancelled", waiting_for(cancelled)),
    Mistake("resolved twice, inside the registration", waiting_for(lambda: Deferring(twice)),
            "200, goes on", ()),
    Mistake("resolved twice, by a foreign thread", waiting_for(lambda: Deferring(from_a_thread)),
            "200, goes on", ()),
    Mistake("registration raises", waiting_for(lambda: Deferring(refuses))),
    Mistake("resolved with something other than a block", sending(asyncio.sleep)),
]  # fmt: skip


@both
@rows(MISTAKES + PROMISES)
def test_an_application_hurts_its_own_request_alone(
    serve: Serve, log: Log, executor: str, row: Mistake
) -> None:
    """What its client sees is never a good answer; the log says why, once."""
    arena = Arena(serve, log, row.application, executor=executor)
    client = arena.request(method=row.method)
    assert client.view(row.method) == row.sees
    arena.settle(*row.log)


@both
def test_ten_thousand_promises_are_cancelled_when_the_client_leaves(
    serve: Serve, log: Log, executor: str
) -> None:
    """And none of them is kept, once the collector has run."""
    made: list[weakref.ref[Any]] = []
    cancelled: list[bool] = []

    def pending() -> "concurrent.futures.Future[Any]":
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        made.append(weakref.ref(future))
        future.add_done_callback(lambda done: cancelled.append(done.cancelled()))
        return future

    arena = Arena(
        serve,
        log,
        answering(lambda environ: wait_all(*(pending() for _ in range(10_000)))[0]),
        executor=executor,
    )
    client = arena.request()
    arena.served.until_waiting(1)
    client.reset()
    arena.served.until_idle()
    until(lambda: len(cancelled) == 10_000)
    assert all(cancelled)
    until(lambda: not any(each() for each in made), "freed by the collector only")
    arena.settle()


@both
def test_a_result_and_a_departure_at_once_have_one_outcome(
    serve: Serve, log: Log, executor: str
) -> None:
    """Whichever is first; the request ends either way."""
    gates: list[Gate] = []
    outcomes: list[str] = []

    def answer(environ: Environ) -> bytes:
        gate = Gate()
        gates.append(gate)
        try:
            wait(gate.promise())
            outcomes.append("result")
        except ClientDisconnected:
            outcomes.append(LEFT)
            raise
        return b"x"

    arena = Arena(serve, log, answering(answer), executor=executor)
    for number in range(1, 51):
        client = arena.request()
        arena.served.until_waiting(1)
        opener = threading.Thread(target=gates[-1].open)
        opener.start()
        client.reset()
        opener.join()
        arena.served.until_idle()
        assert len(outcomes) == number
    arena.settle()


# 4, 6. Threads and resources ------------------------------------------------------------------


def test_a_full_queue_is_told_to_come_again_and_health_is_answered(serve: Serve, log: Log) -> None:
    """With every thread blocked."""
    release = threading.Event()

    def answer(environ: Environ) -> bytes:
        happened(release)
        return b"x"

    arena = Arena(serve, log, answering(answer), executor="threads", queue=2, health="/health")
    blocked = [arena.request() for _ in range(2)]
    until(lambda: arena.served.status.threads_busy == 2)
    queued = [arena.request() for _ in range(2)]
    until(lambda: arena.served.status.queued == 2)
    assert arena.request().response().status == 503
    assert arena.served.get("/health").text == "ok\n"
    refused = arena.request()
    response = refused.response()
    assert (response.status, response.header("Retry-After")) == (503, "1")
    release.set()
    for client in blocked + queued:
        assert client.view() == "200, goes on"
    arena.settle()


@both
def test_descriptors_run_out_and_accepting_goes_on_when_there_are_some(
    serve: Serve, log: Log, executor: str
) -> None:
    """One line; who is connected is served meanwhile; the listener is not tried for ever."""
    arena = Arena(serve, log, answering(lambda environ: b"x"), executor=executor)
    connected = arena.connect()
    connected.send(request())
    assert connected.response().complete
    late = socket.socket()
    host, _, port = arena.served.address.rpartition(":")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        late.connect((host, int(port)))
        line = log.take("no connections can be accepted for now")
        assert line.levelname == "ERROR"
        until(lambda: arena.served.crowded, "the listener is tried for ever")
        connected.send(request())
        assert connected.response().body == b"x"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late.settimeout(DEADLINE)
    late.sendall(request())
    assert late.recv(12) == b"HTTP/1.1 200"
    late.close()
    arena.settle()


@both
def test_the_wall_clock_jumps_and_nothing_is_late(
    serve: Serve, log: Log, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are counted by the monotonic clock."""
    gate = Gate()
    arena = Arena(
        serve,
        log,
        answering(lambda environ: wait(gate.promise(), 60) or b"x"),
        executor=executor,
        request_timeout=60,
    )
    waiting, idle, half = arena.request(), arena.connect(), arena.connect()
    half.send(request()[:20])
    arena.served.until_waiting(1)
    clock = time.time
    for jump in (1e8, -1e8):
        monkeypatch.setattr(time, "time", lambda jump=jump: clock() + jump)
        arena.served.tick()
        assert arena.served.get("/fresh").body == b"fresh"
    gate.open()
    assert waiting.response().complete
    half.send(request()[20:])
    assert half.response().complete
    idle.send(request())
    assert idle.response().complete
    arena.settle()


@both
def test_a_log_on_a_full_disk_or_a_broken_pipe_costs_no_request(
    serve: Serve, log: Log, executor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both logs; logging itself says so on standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "w") as full, open(writing, "w") as broken:
        handlers = [logging.StreamHandler(full), logging.StreamHandler(broken)]
        for handler in handlers:
            logging.getLogger("bide").addHandler(handler)
            access.addHandler(handler)
        try:
            arena = Arena(serve, log, in_the_call(raising(ValueError)), executor=executor)
            assert arena.request().view() == "500, goes on"
            arena.settle(FAILED + "GET /")
        finally:
            for handler in handlers:
                logging.getLogger("bide").removeHandler(handler)
                access.removeHandler(handler)
            for stream in (full, broken):
                with contextlib.suppress(OSError):
                    stream.close()
    assert "No space left on device" in capsys.readouterr().err


@both
def test_a_storm_of_signals_interrupts_nothing(serve: Serve, log: Log, executor: str) -> None:
    """System calls that are interrupted are made again."""
    arena = Arena(serve, log, victim, executor=executor)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    ended = threading.Event()

    def storm() -> None:
        while not ended.wait(0.0005):
            signal.pthread_kill(arena.served.thread, signal.SIGUSR1)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        client = arena.connect()
        for _ in range(50):
            client.send(request("/reads", method="POST", body=b"x" * 100))
            assert client.response().text == "100"
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # drops what has not been delivered yet
        signal.signal(signal.SIGUSR1, before)
    arena.settle()
