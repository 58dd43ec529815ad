"""What a process has done since its start, in numbers that only grow; read without stopping it.

Each thread counts in numbers of its own, which no other thread writes, so there is no lock. Who
reads adds them up. A reader may see some of one request's numbers before the others; but each
number that it sees has never been higher.

A short request that has not waited is counted in one number, ``quick``, which stands for the first
bucket of each histogram.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from time import monotonic
from typing import Any, Final

from bide.exchange.call import Call
from bide.exchange.stream import ENDED
from bide.systems import at_fork

DURATION: Final = "http_server_request_duration_seconds"
RECEIVED: Final = "http_server_request_body_size_bytes"
SENT: Final = "http_server_response_body_size_bytes"
PARTS: Final = (
    "bide_request_queue_seconds",
    "bide_request_run_seconds",
    "bide_request_wait_seconds",
    "bide_request_send_seconds",
)
"""The histograms of where the time goes, in the order of :class:`bide.waiting.times.Sums`."""
REJECTED: Final = "bide_rejected_total"
BLOCKED: Final = "bide_blocked_total"
CONNECTIONS: Final = "bide_connections_opened_total"

SECONDS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""The upper bounds of the buckets of times: those that OpenTelemetry advises."""
SIZES: Final = (1000.0, 10_000.0, 100_000.0, 1e6, 1e7, 1e8)
"""The upper bounds of the buckets of sizes, in bytes."""

METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
"""The methods that are counted by their names: those of RFC 9110, and PATCH."""
OTHER: Final = "_OTHER"
MOST_ROUTES: Final = 300
"""How many routes have numbers of their own; more would be the names of things."""
LONGEST_ROUTE: Final = 200
"""Characters of one."""

_TIMES: Final = 15  # buckets of a time: one more than it has bounds
_BYTES: Final = 7
# Where the buckets of each histogram begin: the duration, the four parts, the two sizes.
_OF_PARTS: Final = _TIMES
_ALL: Final = 5 * _TIMES + 2 * _BYTES

Key = tuple[str, str, int, str, str, str]
"""Method, scheme, status (0: none was sent), version of HTTP, kind of error, route."""
Counters = dict[str, dict[str, float]]
"""By name, and by the values of the labels, joined by tabs.

A histogram has two names: that of its buckets, whose last label is the upper bound, each with what
is in it and not in those before it; and that of its sum.
"""


class Alike:
    """The requests of one thread that have the same labels.

    Attributes:
        quick: those that were short, without a wait and without a body, and a small response.
        queued, running, waiting, sending: seconds, of all.
        received, sent: bytes of bodies, of all.
        buckets: how many of the others are in each bucket of each histogram; empty at first.
    """

    __slots__ = (
        "buckets",
        "queued",
        "quick",
        "received",
        "running",
        "sending",
        "sent",
        "waiting",
    )

    def __init__(self) -> None:
        self.quick = 0
        self.queued = 0.0
        self.running = 0.0
        self.waiting = 0.0
        self.sending = 0.0
        self.received = 0
        self.sent = 0
        self.buckets: list[int] = []


class Counts:
    """What one thread counts. When it has ended, another one goes on with its numbers.

    Attributes:
        requests: those that have ended.
        numbers: what is counted more seldom, by the names of the number and of its label.
    """

    __slots__ = ("numbers", "requests")

    def __init__(self) -> None:
        self.requests: dict[Key, Alike] = {}
        self.numbers: dict[tuple[str, str], int] = {}


class Holder:
    """Belongs to one thread alone, and so ends with it."""

    __slots__ = ("_free", "counts")

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self._free = _free  # whose name is gone when the process ends

    def __del__(self) -> None:
        self._free.append(self.counts)


# Single operations only, from any thread. There are as many as threads at one time.
_all: Final[list[Counts]] = []
_free: Final[deque[Counts]] = deque()
_routes: Final[dict[str, str]] = {}
_local: Final[Any] = threading.local()


def after_fork() -> None:
    """Called in a forked child, which has done nothing yet."""
    for counts in _all:
        counts.requests.clear()
        counts.numbers.clear()


at_fork(after_in_child=after_fork)


def _begin() -> Counts:
    """Return what this thread counts in, when it counts for the first time."""
    try:
        counts = _free.pop()
    except IndexError:
        counts = Counts()
        _all.append(counts)
    _local.holder = Holder(counts)
    _local.requests, _local.numbers = counts.requests, counts.numbers
    return counts


def count(name: str, label: str = "") -> None:
    """Count one of what is seldom: a refusal, a connection; from any thread."""
    try:
        numbers = _local.numbers
    except AttributeError:
        numbers = _begin().numbers
    numbers[name, label] = numbers.get((name, label), 0) + 1


def count_request(call: Call) -> None:
    """Count a request whose call has ended; on the thread that has ended it."""
    # Most requests go this way. It takes 3 % of the instructions of the shortest request.
    stream = call.stream
    times = call.times
    begun = times.begun
    # Not compared with what it is at first: compiled, a tuple of known types is not an object.
    waiting, sending, wait, _ = times.spent
    if (
        wait is None
        and not waiting
        and not sending
        and begun
        and stream.sent <= 1000
        and stream.state is ENDED
    ):
        request = stream.request
        head = stream.head
        started = call.started
        now = monotonic()
        if now - started <= 0.005 and head is not None and not request.has_body:
            try:
                alike: Alike = _local.requests[
                    request.method, stream.peer.scheme, head.code, request.version, "", stream.route
                ]
            except (AttributeError, KeyError):  # the first one; or it has failed
                pass
            else:
                alike.quick += 1
                alike.queued += begun - started
                alike.running += now - begun
                alike.sent += stream.sent
                return
    _count_any(call)


def _count_any(call: Call) -> None:
    """Count a request of any kind."""
    stream = call.stream
    times = call.times
    waiting, sending, wait, _ = times.spent
    if wait is not None:  # of a task that the application has left behind
        waiting, sending = times.sums(call.started)[1][2:]
    now = monotonic()
    begun = times.begun or now  # it is queued until the end that has not begun
    running = now - begun - waiting - sending
    if running < 0.0:  # by rounding, and no sum may fall
        running = 0.0
    received = stream.body.fed if stream.request.has_body else 0
    _add(key_of(call), begun - call.started, running, waiting, sending, received, stream.sent)


def count_malformed(scheme: str, status: int) -> None:
    """Count a request that was refused before it was one, which takes no time; on the loop."""
    error = str(status) if status >= 500 else ""
    _add((OTHER, scheme, status, "", error, ""), 0.0, 0.0, 0.0, 0.0, 0, 0)


def key_of(call: Call) -> Key:
    """Return by what a request is counted that has ended, as it was sent; see :func:`bounded`."""
    stream = call.stream
    request = stream.request
    head = stream.head
    code = head.code if head is not None else 0
    error = ""
    if code >= 500 or stream.state is not ENDED:
        if not stream.head_sent:
            code = 0
        error = error_of(call, code)
    return request.method, stream.peer.scheme, code, request.version, error, stream.route


def error_of(call: Call, code: int) -> str:
    """Return what went wrong with a request that has ended, in one of a few words; "" for nothing.

    Args:
        call: its call.
        code: the status that was sent; 0 for none.
    """
    stream = call.stream
    if call.expired:
        return "timeout"
    if stream.state is not ENDED:
        return "response_cut" if stream.broken else "client_disconnected"
    return str(code) if code >= 500 else ""


def _add(
    key: Key,
    queued: float,
    running: float,
    waiting: float,
    sending: float,
    received: int,
    sent: int,
) -> None:
    try:
        requests: dict[Key, Alike] = _local.requests
    except AttributeError:
        requests = _begin().requests
    alike = requests.get(key)
    if alike is None:
        alike = _first(requests, key)
    buckets = alike.buckets or [0] * _ALL
    buckets[bisect_left(SECONDS, queued + running + waiting + sending)] += 1
    at = _OF_PARTS
    for part in (queued, running, waiting, sending):
        # Most are in the first one, and a call costs as much as all else in this loop.
        buckets[at if part <= 0.005 else at + bisect_left(SECONDS, part)] += 1
        at += _TIMES
    buckets[at if received <= 1000 else at + bisect_left(SIZES, received)] += 1
    at += _BYTES
    buckets[at if sent <= 1000 else at + bisect_left(SIZES, sent)] += 1
    alike.buckets = buckets
    alike.queued += queued
    alike.running += running
    alike.waiting += waiting
    alike.sending += sending
    alike.received += received
    alike.sent += sent


def _first(requests: dict[Key, Alike], key: Key) -> Alike:
    """Return where requests of a kind are counted that may be new."""
    key = bounded(key)
    alike = requests.get(key)
    if alike is None:
        alike = requests[key] = Alike()
    return alike


def bounded(key: Key) -> Key:
    """Return a key as it is counted: of few there are, whatever is asked for, and said."""
    method, scheme, code, version, error, route = key
    # An odd character would be in the way of who reads: a tab joins the labels, and a surrogate
    # cannot be encoded.
    if route and _routes.get(route) is None:
        if len(_routes) < MOST_ROUTES and len(route) <= LONGEST_ROUTE and route.isprintable():
            _routes[route] = route
        else:
            route = OTHER
    return method_of(method), scheme, code, version, error, route


def method_of(method: str) -> str:
    """Return a method as it is counted."""
    return method if method in METHODS else OTHER


# Reading ----------------------------------------------------------------------------------------


def counters() -> Counters:
    """Return what this process has counted, of all its servers; from any thread.

    No thread is stopped for this, and none waits.
    """
    found: Counters = {}
    for counts in _all:
        for (name, label), number in _items(counts.numbers):
            _put(found, name, label, number)
        for key, alike in _items(counts.requests):
            _put_requests(found, key, alike)
    return found


def made() -> list[Counts]:
    """Return what threads have counted in, of those that have ended, too."""
    return list(_all)


def add(one: Counters, other: Counters) -> Counters:
    """Return the sums of two processes' counters, or of one's and those of what has ended."""
    total = {name: dict(numbers) for name, numbers in one.items()}
    for name, numbers in other.items():
        for label, number in numbers.items():
            _put(total, name, label, number)
    return total


def texts_of(bounds: tuple[float, ...]) -> list[str]:
    """Return the upper bounds of all buckets as Prometheus writes them, the last one's as well."""
    return [*(f"{bound:g}" for bound in bounds), "+Inf"]


def _items(counted: dict[Any, Any]) -> list[tuple[Any, Any]]:
    # The keys are copied in one step. They stay, but for a fork.
    return [(key, counted[key]) for key in list(counted)]


def _put(found: Counters, name: str, label: str, number: float) -> None:
    numbers = found.setdefault(name, {})
    numbers[label] = numbers.get(label, 0) + number


def _put_requests(found: Counters, key: Key, alike: Alike) -> None:
    method, scheme, code, version, error, route = key
    labels = "\t".join((method, scheme, str(code) if code else "", version, error, route)) + "\t"
    # Each once: the thread may count meanwhile.
    quick = alike.quick
    buckets = alike.buckets[:] or [0] * _ALL
    parts = (alike.queued, alike.running, alike.waiting, alike.sending)
    sizes = (alike.received, alike.sent)
    _put_histogram(found, DURATION, labels, SECONDS, buckets[:_TIMES], quick, sum(parts))
    at = _OF_PARTS
    for name, part in zip(PARTS, parts, strict=True):
        _put_histogram(found, name, "", SECONDS, buckets[at : at + _TIMES], quick, part)
        at += _TIMES
    for name, size in zip((RECEIVED, SENT), sizes, strict=True):
        _put_histogram(found, name, labels, SIZES, buckets[at : at + _BYTES], quick, size)
        at += _BYTES


def _put_histogram(
    found: Counters,
    name: str,
    labels: str,
    bounds: tuple[float, ...],
    buckets: list[int],
    quick: int,
    total: float,
) -> None:
    buckets[0] += quick
    for bound, number in zip(texts_of(bounds), buckets, strict=True):
        if number:
            _put(found, f"{name}_bucket", f"{labels}{bound}", number)
    _put(found, f"{name}_sum", labels.removesuffix("\t"), total)
