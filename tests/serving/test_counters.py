"""Each request is counted once, whatever becomes of it, and no count is lost or falls."""

import json
import os
import threading
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import bide
from bide.exchange.call import Call
from bide.exchange.messages import Head
from bide.exchange.stream import ENDED
from bide.serving import counters
from bide.serving.counters import (
    BLOCKED,
    CONNECTIONS,
    DURATION,
    LONGEST_ROUTE,
    MOST_ROUTES,
    PARTS,
    RECEIVED,
    REJECTED,
    SENT,
    Counters,
    add,
    count,
    count_request,
)
from bide.waiting.times import Times
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.fakes import a_stream
from tests.served import DEADLINE, LONG, Gate, Log, until
from tests.websocket_clients import client_of, end_of


class Counted:
    """What is counted from now on."""

    def __init__(self) -> None:
        self._before = counters.counters()

    def now(self) -> Counters:
        """Return what was counted since then."""
        less = {
            name: {label: -number for label, number in numbers.items()}
            for name, numbers in self._before.items()
        }
        return {
            name: {label: number for label, number in numbers.items() if number}
            for name, numbers in add(counters.counters(), less).items()
        }

    def requests(self) -> dict[str, float]:
        """Return how many requests have ended, by their labels; blanks join these."""
        found: dict[str, float] = {}
        for label, number in self.now().get(f"{DURATION}_bucket", {}).items():
            labels = " ".join(label.split("\t")[:-1])
            found[labels] = found.get(labels, 0) + number
        return found

    def rejected(self) -> dict[str, float]:
        """Return how many were rejected, by the reason."""
        return self.now().get(REJECTED, {})


def an_answer(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer, or do what the path says."""
    path = environ["PATH_INFO"]
    environ["bide.route"] = "/{what}"
    if path == "/fails":
        raise ValueError("as the test says")
    if path == "/waits":
        bide.wait(GATES[0].promise())
    if path == "/reads":
        environ["wsgi.input"].read()
    if path == "/socket":
        bide.websocket(environ).send("hello")
        return []
    start_response("200 OK", [("Content-Length", "3")])
    if path == "/breaks":
        return (block for block in [b"ab"])
    return [b"abc"]


GATES: list[Gate] = []


@pytest.mark.parametrize("executor", ["threads", "loop"])
def test_each_request_is_counted_once_whatever_becomes_of_it(
    serve: Serve, log: Log, gate: Gate, executor: str
) -> None:
    """By what it asked for, what it was answered, and what went wrong."""
    GATES[:] = [gate]
    served = serve(
        an_answer, executor=executor, request_timeout=LONG, limit_body=10, half_close="cancel"
    )
    with Failures() as failures:

        def gives(name: str, labels: str, rejected: dict[str, float] | None = None) -> None:
            with failures.of(name):
                until(lambda: seen.requests() == {labels: 1}, name)
                same(seen.rejected(), rejected or {})

        for name, asked, labels in (
            ("GET", {}, "GET http 200 1.1  /{what}"),
            ("HEAD", {"method": "HEAD"}, "HEAD http 200 1.1  /{what}"),
            ("HTTP/1.0", {"version": "1.0"}, "GET http 200 1.0  /{what}"),
            ("another method", {"method": "BREW"}, "_OTHER http 200 1.1  /{what}"),
            ("a body", {"method": "PUT", "body": b"123"}, "PUT http 200 1.1  /{what}"),
            ("a failure", {"path": "/fails"}, "GET http 500 1.1 500 /{what}"),
            ("a short one", {"path": "/breaks"}, "GET http 200 1.1 response_cut /{what}"),
        ):
            seen = Counted()
            served.get(**asked)
            gives(name, labels)
        log.take("the application failed: GET /fails")
        log.take("the application failed: GET /breaks")

        seen = Counted()
        client = served.request("/waits")
        served.until_waiting(1)
        client.close()
        gives("a client that leaves", "GET http  1.1 client_disconnected /{what}")

        seen = Counted()
        client = served.request("/waits")
        served.until_waiting(1)
        served.advance(LONG)
        client.response()
        log.take("its wait is ended")
        gives("a time-out", "GET http 504 1.1 timeout /{what}")

        seen = Counted()
        client = served.connect()
        client.send(b"GET /\r\n\r\n")
        client.response()
        gives("no HTTP", "_OTHER http 400   ", {"400": 1})

        seen = Counted()
        client = served.connect()
        chunked = b"POST /reads HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(chunked + b"b\r\n12345678901\r\n")
        client.response()
        gives("a body that is too long", "POST http 413 1.1  /{what}", {"413": 1})

        seen = Counted()
        with client_of(served, "/socket") as socket:
            assert socket.recv() == "hello"
        gives("a WebSocket", "GET http 101 1.1  /{what}")


def test_what_is_refused_is_counted_by_its_reason_and_as_a_request(
    serve: Serve, log: Log, gate: Gate
) -> None:
    """Which request it was is known of those that had come."""
    GATES[:] = [gate]
    refused = "GET http 503 1.1 503 "
    with Failures() as failures:
        for reason, settings, labels in (
            ("queue_full", {"queue": 0}, refused),
            ("queue_timeout", {"queue": 1, "queue_timeout": LONG}, refused),
            ("stopping", {"queue": 1, "graceful_timeout": 0.0}, refused),
            ("client_requests", {"client_requests": 1}, "GET http 429 1.1  "),
        ):
            served = serve(
                a_blocking_one, executor="threads", threads=1, limit_threads=1, **settings
            )
            BLOCKED_BY.clear()
            first = served.request()
            until(lambda: served.status.running == 1)  # noqa: B023 - it is called here
            seen = Counted()
            second = served.request()
            if reason in ("queue_timeout", "stopping"):
                until(lambda: served.status.queued == 1)  # noqa: B023 - as above
                if reason == "stopping":
                    served.begin_stop()
                else:
                    served.advance(LONG)
            second.response()
            with failures.of(reason):
                until(lambda: seen.requests() == {labels: 1})  # noqa: B023 - as above
                same(seen.rejected(), {reason: 1})
            BLOCKED_BY.set()
            first.response()
            served.stop()
    log.take("have not ended in time")


BLOCKED_BY = threading.Event()


def a_blocking_one(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Block the thread, until the test lets it go on."""
    assert BLOCKED_BY.wait(DEADLINE)
    start_response("200 OK", [("Content-Length", "0")])
    return []


async def an_asgi_one(scope: Any, receive: Any, send: Any) -> None:
    """Do as the WSGI application does."""
    path = scope["path"]
    scope["route"] = Route("/{what}") if path == "/object" else "/{what}"
    if path == "/fails":
        raise ValueError("as the test says")
    if path == "/waits":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    length = [(b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"abc"})


class Route:
    """A route, as Starlette has it."""

    def __init__(self, path: str) -> None:
        self.path = path


def test_requests_of_asgi_applications_are_counted_as_well(serve: Serve, log: Log) -> None:
    """Their route is in the scope, as text or as an object that has a path."""
    served = serve(an_asgi_one, lifespan="off")
    with Failures() as failures:
        for path, labels in (
            ("/", "GET http 200 1.1  /{what}"),
            ("/object", "GET http 200 1.1  /{what}"),
            ("/fails", "GET http 500 1.1 500 /{what}"),
            ("/waits", "GET http  1.1 client_disconnected /{what}"),
            ("/socket", "GET http 101 1.1  /{what}"),
        ):
            seen = Counted()
            if path == "/waits":
                client = served.request(path)
                served.until_waiting(1)
                client.close()
            elif path == "/socket":
                with client_of(served, path) as socket:
                    end_of(socket)
            else:
                served.get(path)
            with failures.of(path):
                until(lambda: seen.requests() == {labels: 1}, path)  # noqa: B023 - it is called here
    log.take("the application failed: GET /fails")


# A module of its own, without a server ------------------------------------------------------------


def a_call(seconds: float = 0.0, *, method: str = "GET", status: str = "200 OK") -> Call:
    """Make the call of a request that began so many seconds ago, and has just been answered."""
    call = Call()
    call.stream = stream = a_stream()
    stream.request.method = method
    stream.head = Head(status, [])
    stream.state = ENDED
    call.times = Times()
    call.started = call.times.begun = monotonic() - seconds
    call.expired = False
    return call


def test_a_request_is_in_one_bucket_of_each_histogram_and_its_times_add_up() -> None:
    """A short one, one whose parts differ, and one that has not begun."""
    seen = Counted()
    count_request(a_call())
    count_request(a_call())  # the way of most, which the first of its kind does not go
    long = a_call(100.0)
    long.times.begun = long.started + 20.0
    long.times.spent = (3.0, 0.04, None, 0.0)
    long.stream.request.has_body = True
    long.stream.body.feed(b"x" * 1001)
    long.stream.sent = 10**9
    count_request(long)
    queued = a_call(0.06, status="429 Too Many Requests")
    queued.times.begun = 0.0
    count_request(queued)
    now = seen.now()
    labels = "GET\thttp\t200\t1.1\t\t"
    other = "GET\thttp\t429\t1.1\t\t"
    buckets = {name: now[f"{name}_bucket"] for name in (DURATION, RECEIVED, SENT, *PARTS)}
    with Failures() as failures:
        for name, expected in (
            (DURATION, {f"{labels}\t0.005": 2, f"{labels}\t+Inf": 1, f"{other}\t0.075": 1}),
            (RECEIVED, {f"{labels}\t1000": 2, f"{labels}\t10000": 1, f"{other}\t1000": 1}),
            (SENT, {f"{labels}\t1000": 2, f"{labels}\t+Inf": 1, f"{other}\t1000": 1}),
            (PARTS[0], {"0.005": 2, "+Inf": 1, "0.075": 1}),
            (PARTS[1], {"0.005": 3, "+Inf": 1}),
            (PARTS[2], {"0.005": 3, "5": 1}),
            (PARTS[3], {"0.005": 3, "0.05": 1}),
        ):
            with failures.of(name):
                same(buckets[name], expected)
        with failures.of("sums"):
            sums = [now[f"{name}_sum"].get("", 0.0) for name in PARTS]
            assert sum(sums) == pytest.approx(sum(now[f"{DURATION}_sum"].values()))
            assert sums[2] == pytest.approx(3.0)
            same(now[f"{RECEIVED}_sum"], {labels: 1001})
            same(now[f"{SENT}_sum"], {labels: 10**9})


def test_no_count_of_many_threads_is_lost() -> None:
    """Each has numbers of its own, also where it has those of a thread that has ended."""
    seen = Counted()
    made = len(counters.made())
    start = threading.Barrier(9)

    def counts() -> None:
        start.wait()
        for number in range(2000):
            count_request(a_call(1.0 if number % 10 == 0 else 0.0, method="PATCH"))
            count(BLOCKED, "here")

    for _ in range(2):
        threads = [threading.Thread(target=counts) for _ in range(8)]
        for each in threads:
            each.start()
        start.wait()
        highest = 0.0
        while any(each.is_alive() for each in threads):
            now = sum(seen.requests().values())
            assert now >= highest
            highest = now
        for each in threads:
            each.join()
    same(seen.requests(), {"PATCH http 200 1.1  ": 32000})
    same(seen.now()[BLOCKED], {"here": 32000})
    assert len(counters.made()) <= made + 8  # the second eight have those of the first


def test_labels_are_bounded_and_join_no_others() -> None:
    """Whatever a client asks for, and whatever an application says."""
    seen = Counted()
    routes = [f"/{number}" for number in range(MOST_ROUTES + 10)]
    odd = ["/a\tb", "/\ud800", "/a\nb", "/" + LONGEST_ROUTE * "a"]
    for route in [*odd, *routes, *odd, *routes]:
        call = a_call()
        call.stream.route = route
        count_request(call)
    for number in range(1000):
        count_request(a_call(method=f"M{number}"))
    counted = seen.requests()
    assert counted["_OTHER http 200 1.1  "] == 1000
    assert counted["GET http 200 1.1  _OTHER"] >= 2 * len(odd) + 20
    assert sum(counted.values()) == 2 * (len(routes) + len(odd)) + 1000
    assert len(counted) <= MOST_ROUTES + 2
    assert json.loads(json.dumps(seen.now())) == seen.now()


def test_the_monitor_counts_what_it_finds_blocked_and_the_entrance_who_comes(
    serve: Serve, log: Log
) -> None:
    """Once for each time, however often it looks."""
    BLOCKED_BY.clear()
    served = serve(a_blocking_one, executor="threads", blocked_thread=LONG)
    seen = Counted()
    client = served.request()
    until(lambda: served.status.running == 1)
    served.notice(LONG)
    served.notice(LONG)
    BLOCKED_BY.set()
    client.response()
    same(seen.now().get(BLOCKED), {"thread": 1})
    same(seen.now().get(CONNECTIONS), {"": 1})
    log.records.clear()


def test_a_forked_child_begins_at_nothing(tmp_path: Path) -> None:
    """It is another process, which has served nothing."""
    count(REJECTED, "queue_full")
    child = os.fork()
    if not child:
        os._exit(0 if not any(counters.counters().values()) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert counters.counters()[REJECTED]["queue_full"]


def test_counters_of_two_processes_are_added() -> None:
    """Of whatever one of them alone has, too; neither is changed."""
    one: Counters = {"a": {"x": 1, "y": 2}}
    other: Counters = {"a": {"y": 3}, "b": {"": 0.5}}
    same(add(one, other), {"a": {"x": 1, "y": 5}, "b": {"": 0.5}})
    same(one, {"a": {"x": 1, "y": 2}})
