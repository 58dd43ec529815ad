"""What each request does and where its time goes: seen from outside, and in the access log.

Time passes when the test or its application says so, so each sum is exact.
"""

import asyncio
import concurrent.futures
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import pytest

import bide
from bide import RequestStatus, wait
from bide.asgi import call, http
from bide.executors import hub
from bide.serving import status as status_module
from bide.serving.requests import look_at
from bide.waiting import times
from bide.wsgi import conversation
from tests.asgi.sites import body, read, routed, start
from tests.conftest import Serve
from tests.each_executor import executor, serve
from tests.fakes import HandClock
from tests.served import LONG, Environ, Log, Served, happened, request, until

__all__ = ["executor", "serve"]

OK = "200 OK"
PLAIN = [("Content-Type", "text/plain")]
MUCH = b"x" * (16 * 1024 * 1024)
LINE = re.compile(
    r'"\S+ (\S+) HTTP/1.1" (\S+) \d+ ([\d.]+)s '
    r"queued=([\d.]+) running=([\d.]+) waiting=([\d.]+) sending=([\d.]+)"
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    """Time requests by a clock of the test's."""
    clock = HandClock()
    for module in (conversation, hub, times):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show no server that another test has left to the collector."""
    monkeypatch.setattr(status_module, "_shown", WeakKeyDictionary())


class Site:
    """An application in which nothing happens unless the test says so."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.promise: concurrent.futures.Future[Any]
        self.gate = threading.Event()
        self.finish: Any = None
        self.renew()

    def renew(self) -> None:
        """Promise anew."""
        self.promise = concurrent.futures.Future()
        self.gate.clear()

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        """Do what the path names."""
        name = environ["PATH_INFO"][1:]
        if name == "push":
            _, self.finish = start_response(OK, PLAIN)
            return None
        if name == "streams":
            return self.streams(start_response)
        result = getattr(self, name)(environ)
        start_response(OK, PLAIN)
        return [b"done"] if result is None else result

    def streams(self, start_response: Any) -> Iterator[bytes]:
        """Run before the first block and before the second, and have a measure of its own."""
        start_response(OK, [*PLAIN, ("Server-Timing", "db;dur=53")])
        for _ in range(2):
            self.clock.advance(2)
            yield b"block"

    def run(self, environ: Environ) -> None:
        """Run for two seconds."""
        self.clock.advance(2)

    def waits(self, environ: Environ) -> None:
        """Run, wait, run."""
        self.run(environ)
        wait(self.promise)
        self.run(environ)

    def fetch(self, environ: Environ) -> None:
        """Wait for a coroutine, and that for the promise."""

        async def fetch() -> None:
            await asyncio.wrap_future(self.promise)

        wait(fetch())

    def within(self, environ: Environ) -> None:
        """Wait for what waits itself when it is subscribed to."""
        inner = self.promise

        class Slow:
            """Takes its callback when the promise has fired."""

            def addCallback(self, callback: Any) -> None:
                wait(inner)
                callback(None)

        wait(Slow())

    def pinned(self, environ: Environ) -> None:
        """Wait below an event loop of its own, where others must not go on."""

        async def below() -> None:
            wait(self.promise)

        asyncio.run(below())

    def blocks(self, environ: Environ) -> None:
        """Block the thread until the gate is opened."""
        happened(self.gate)

    def reads(self, environ: Environ) -> None:
        """Read the body."""
        environ["wsgi.input"].read()

    def fails(self, environ: Environ) -> None:
        """Run, and fail."""
        self.run(environ)
        raise RuntimeError

    def sends(self, environ: Environ) -> Iterator[bytes]:
        """Send more than any client takes at once."""
        yield MUCH
        yield b"end"


class Watched:
    """A server, a client's view of it, and the lines of its access log."""

    def __init__(self, serve: Serve, log: Log, clock: HandClock, **settings: Any) -> None:
        self.site = Site(clock)
        self.served: Served = serve(
            self.site, access_format="times", threads=1, queue=1, queue_timeout=LONG, **settings
        )
        self.log = log

    def seen(self, path: str) -> RequestStatus:
        """Return the one request for a path, once there is one."""
        return self.until(path, "")

    def until(self, path: str, state: str) -> RequestStatus:
        """Return the one request for a path once it is in a state."""
        found: list[RequestStatus] = []

        def there() -> bool:
            found[:] = [each for each in bide.status().requests if each.target == path]
            return bool(found) and (not state or found[0].state == state)

        until(there, f"{path} is never {state}")
        (each,) = found
        assert each.total == each.queued + each.running + each.waiting + each.sending
        return each

    def sums(self, path: str, code: str = "200") -> tuple[float, ...]:
        """Take a request's line when it has ended; return its four sums, which are its total."""
        found = LINE.search(self.log.take(f"{path} HTTP").getMessage())
        assert found is not None
        assert found[2] == code
        total, *sums = map(float, found.groups()[2:])
        assert total == sum(sums)
        return tuple(sums)


def test_a_request_s_time_is_where_it_was_spent(serve: Serve, log: Log, clock: HandClock) -> None:
    """Running, waiting for one thing and another, and a wait within a wait."""
    watched = Watched(serve, log, clock)
    served, site = watched.served, watched.site
    assert served.get("/run").status == 200
    assert watched.sums("/run") == (0, 2, 0, 0)
    for path, name, ran in (
        ("/waits", "Future", 2),
        ("/fetch", "coroutine fetch", 0),
        ("/within", "Future", 0),
    ):
        site.renew()
        client = served.request(path)
        assert watched.until(path, "waiting").waits_for == name
        clock.advance(3)
        seen = watched.seen(path)
        assert (seen.running, seen.waiting) == (ran, 3)
        assert seen.thread == ("the event loop" if served.status.threads == 0 else "bide-thread-1")
        site.promise.set_result(None)
        assert client.response().status == 200
        assert watched.sums(path) == (0, 2 * ran, 3, 0), path


def test_a_request_that_pushes_waits_until_it_is_finished(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """By another thread; its own is free."""
    watched = Watched(serve, log, clock)
    client = watched.served.request("/push")
    assert watched.until("/push", "waiting").waits_for == "Signal"
    clock.advance(9)
    watched.site.finish()
    assert client.response().status == 200
    assert watched.sums("/push") == (0, 0, 9, 0)


def test_a_body_that_is_to_come_first_is_queued_time(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """And what the application waits for of it later, its client's; each is called reading."""
    watched = Watched(serve, log, clock)
    client = watched.served.connect()
    asked = request("/reads", method="POST", body=b"body")
    client.send(asked[:-2])
    seen = watched.until("/reads", "reading")
    assert (seen.method, seen.thread) == ("POST", "")
    clock.advance(4)
    assert watched.seen("/reads").queued == 4
    client.send(asked[-2:])
    assert client.response().status == 200
    assert watched.sums("/reads") == (4, 0, 0, 0)


def test_a_client_that_is_awaited_has_its_own_sum(serve: Serve, log: Log, clock: HandClock) -> None:
    """When it has to send its body, and when it has to take the response."""
    watched = Watched(serve, log, clock)
    client = watched.served.connect()
    headers = ["Expect: 100-continue", "Content-Length: 4"]
    client.send(request("/reads", method="POST", headers=headers))
    watched.until("/reads", "reading")
    clock.advance(5)
    assert watched.seen("/reads").sending == 5
    client.send(b"body")
    assert client.response().status == 200
    assert watched.sums("/reads") == (0, 0, 0, 5)
    client.send(request("/sends"))
    assert watched.until("/sends", "sending").waits_for == ""
    clock.advance(6)
    seen = watched.seen("/sends")
    assert (seen.sending, seen.sent) == (6, len(MUCH))
    assert len(client.response().body) == len(MUCH) + 3
    assert watched.sums("/sends") == (0, 0, 0, 6)


def test_a_request_whose_client_leaves_is_counted_up_to_then(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """Its wait is cancelled."""
    watched = Watched(serve, log, clock)
    client = watched.served.request("/waits")
    watched.until("/waits", "waiting")
    clock.advance(7)
    client.close()
    assert watched.sums("/waits", "-") == (0, 2, 7, 0)


def test_a_pipelined_request_has_its_time_from_its_turn_on(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """Its own connection makes it wait for the one before it."""
    watched = Watched(serve, log, clock)
    client = watched.served.connect()
    client.send(request("/waits") + request("/run"))
    watched.until("/waits", "waiting")
    clock.advance(3)
    watched.site.promise.set_result(None)
    assert [client.response().status, client.response().status] == [200, 200]
    assert watched.sums("/waits") == (0, 4, 3, 0)
    assert watched.sums("/run") == (0, 2, 0, 0)


def test_a_response_says_where_the_time_went_until_its_head(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """Once, beside what the application says itself; of a stream what is known when it begins."""
    watched = Watched(serve, log, clock, server_timing=True)
    served, site = watched.served, watched.site
    client = served.request("/waits")
    watched.until("/waits", "waiting")
    clock.advance(3)
    site.promise.set_result(None)
    response = client.response()
    assert response.all("Server-Timing") == [timing(run=4, wait=3)]
    client = served.connect()
    asked = request("/reads", method="POST", body=b"body")
    client.send(asked[:-2])
    watched.until("/reads", "reading")
    clock.advance(4)
    client.send(asked[-2:])
    assert client.response().all("Server-Timing") == [timing(queue=4)]
    assert served.get("/streams").all("Server-Timing") == ["db;dur=53", timing(run=2)]
    assert served.get("/fails", method="HEAD").all("Server-Timing") == [timing(run=2)]
    off = serve(site, threads=1)
    assert off.get("/run").all("Server-Timing") == []
    log.take("the application failed")


def test_a_response_of_asgi_says_where_the_time_went(
    serve: Serve, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a task awaits counts as running, but for its client."""
    for module in (call, http):
        monkeypatch.setattr(module, "monotonic", clock)

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        clock.advance(2)
        await read(receive)
        await send(start(200, (b"server-timing", b"db;dur=53")))
        clock.advance(1)
        await send(body(b"some", True))
        clock.advance(1)
        await send(body())

    served = serve(routed(reads=reads), server_timing=True)
    client = served.connect()
    asked = request("/reads", method="POST", body=b"body")
    client.send(asked[:-2])
    until(lambda: [each.state for each in bide.status().requests] == ["reading"], "it reads")
    clock.advance(5)
    client.send(asked[-2:])
    assert client.response().all("Server-Timing") == ["db;dur=53", timing(run=3, send=5)]


def timing(queue: float = 0, run: float = 0, wait: float = 0, send: float = 0) -> str:
    """Write the header of a response after so many seconds."""
    sums = {"queue": queue, "run": run, "wait": wait, "send": send}
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in sums.items())


@pytest.mark.parametrize("executor", ["threads"])
def test_a_request_that_never_begins_was_queued(serve: Serve, log: Log, clock: HandClock) -> None:
    """Until it was answered 503: at once, or when its time was over."""
    watched = Watched(serve, log, clock)
    served, site = watched.served, watched.site
    busy = served.request("/blocks")
    watched.until("/blocks", "running")
    late = served.request("/run?late")
    watched.until("/run?late", "queued")
    assert served.get("/run?full").status == 503
    assert watched.sums("/run?full", "503") == (0, 0, 0, 0)
    log.take("threads are busy")
    clock.advance(8)
    seen = watched.seen("/run?late")
    assert (seen.queued, seen.total, seen.thread) == (8, 8, "")
    served.advance(2 * LONG)
    assert late.response().status == 503
    assert watched.sums("/run?late", "503") == (8, 0, 0, 0)
    next_ = served.request("/run?next")
    watched.until("/run?next", "queued")
    clock.advance(1)
    site.gate.set()
    assert busy.response().status == 200
    assert next_.response().status == 200
    assert watched.sums("/blocks") == (0, 9, 0, 0)
    assert watched.sums("/run?next") == (1, 2, 0, 0)


def test_a_request_that_begins_while_it_is_looked_at_is_seen_as_of_one_moment() -> None:
    """Its state, its thread and its sums are those of before."""

    class Beginning(times.Times):
        def sums(self, started: float) -> tuple[Any, times.Sums, bool]:
            before = super().sums(started)
            self.begun = started + 1.0
            return before

    call: Any = SimpleNamespace(
        started=1.0,
        times=Beginning(),
        thread_name="bide-thread-1",
        awaited=None,
        stream=SimpleNamespace(
            request=SimpleNamespace(method="GET", target=b"/", version="1.1"),
            peer=SimpleNamespace(client_host=""),
            sent=0,
            state="idle",
        ),
    )
    (before,), (after,) = (look_at([call], (), "site") for _ in range(2))
    assert (before.state, before.thread, before.running) == ("queued", "", 0.0)
    assert before.queued == before.total
    assert (after.state, after.thread, after.queued) == ("running", "bide-thread-1", 1.0)


@pytest.mark.parametrize("executor", ["threads"])
def test_a_wait_that_blocks_its_thread_is_waiting_time(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """Though the thread is busy with it: below a loop of its own, others must not go on."""
    watched = Watched(serve, log, clock)
    client = watched.served.request("/pinned")
    seen = watched.until("/pinned", "waiting")
    assert (seen.waits_for, seen.thread) == ("Future", "bide-thread-1")
    assert (watched.served.status.waiting, watched.served.status.threads_busy) == (0, 1)
    clock.advance(4)
    watched.site.promise.set_result(None)
    assert client.response().status == 200
    assert watched.sums("/pinned") == (0, 0, 4, 0)


def test_the_status_is_that_of_all_servers_of_the_process(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """Each server's own status has its own numbers; without a server there is nothing."""
    nothing = bide.ProcessStatus(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, False, ())

    def told() -> bide.ProcessStatus:
        """Return it without what belongs to the process, and to no server."""
        return replace(bide.status(), limits=(), residents=(), processes=0)

    assert told() == nothing
    one, other = (Watched(serve, log, clock) for _ in range(2))
    clients = [each.served.request('/waits?"') for each in (one, other)]
    until(lambda: bide.status().waiting == 2)
    now = bide.status()
    assert [each.target for each in now.requests] == ["/waits?\\x22"] * 2
    assert {each.client for each in now.requests} == {"127.0.0.1"}
    assert now.connections == 2
    assert now.threads_max == one.served.status.threads_max * 2
    assert one.served.status.waiting == 1
    for each, client in zip((one, other), clients, strict=True):
        each.site.promise.set_result(None)
        assert client.response().status == 200
    for each in (one, other):
        each.served.stop()
    assert told() == nothing


def test_the_lines_of_refused_requests_have_no_time(
    serve: Serve, log: Log, clock: HandClock
) -> None:
    """In the same form, so that a program reads all of them alike."""
    watched = Watched(serve, log, clock)
    client = watched.served.connect()
    client.send(b"GET /refused HTTP/1.1\r\nBad Header: 1\r\n\r\n")
    assert client.response().status == 400
    assert watched.sums("/refused", "400") == (0, 0, 0, 0)
    log.take("refused")
