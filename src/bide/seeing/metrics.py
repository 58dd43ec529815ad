"""A server's numbers in the text format of Prometheus, made of what it has answered.

The names are OpenTelemetry's where it has some, else ``bide_``. Counters of several workers, and of
those that have ended, are added up. What cannot be added has the label ``worker``.

It needs ``prometheus-client``: who imports this says what to install where that is missing.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from bide.serving.counters import (
    BLOCKED,
    CONNECTIONS,
    DURATION,
    PARTS,
    RECEIVED,
    REJECTED,
    SECONDS,
    SENT,
    SIZES,
    Counters,
    add,
    method_of,
    texts_of,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of what :func:`render` returns."""

_LABELS: Final = (
    "http_request_method",
    "url_scheme",
    "http_response_status_code",
    "network_protocol_version",
    "error_type",
    "http_route",
)
_LOOP: Final = "the event loop"
_STATES: Final = ("reading", "queued", "running", "waiting", "sending")
_HISTOGRAMS: Final = (
    (DURATION, "From the end of a request's head to the end of the request.", _LABELS, SECONDS),
    (RECEIVED, "Bytes of the bodies of requests.", _LABELS, SIZES),
    (SENT, "Bytes of the bodies of responses, as they were sent.", _LABELS, SIZES),
    (PARTS[0], "Until the application was called.", (), SECONDS),
    (PARTS[1], "In the application's code, or ready to go on in it.", (), SECONDS),
    (PARTS[2], "For what the application waited for, without a thread.", (), SECONDS),
    (PARTS[3], "Until the client took more, or sent more of its body.", (), SECONDS),
)
_COUNTERS: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    (
        REJECTED,
        "Requests and connections that the server has refused.",
        "reason",
        ("queue_full", "queue_timeout", "stopping"),
    ),
    (BLOCKED, "Times that the event loop or a thread was blocked.", "where", ("loop", "thread")),
    (CONNECTIONS, "Connections that were accepted.", "", ("",)),
)
"""Name, help, label, and the values of that label which are told from the start."""


def render(instance: dict[str, Any]) -> bytes:
    """Return an instance's numbers in Prometheus' text format, as :data:`CONTENT_TYPE`.

    Args:
        instance: what a server answers to ``status`` at its control socket.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(instance))
    return generate_latest(registry)


class _Told(Collector):
    """One answer of an instance, as Prometheus' client collects it."""

    def __init__(self, instance: dict[str, Any]) -> None:
        self._instance = instance
        self._workers: list[dict[str, Any]] = instance["workers"]

    def collect(self) -> Iterator[Metric]:
        """Return all of it."""
        counted: Counters = self._instance["ended"]
        for worker in self._workers:
            counted = add(counted, worker["counters"])
        for name, text, labels, bounds in _HISTOGRAMS:
            yield _histogram(name, text, labels, texts_of(bounds), counted)
        for name, text, label, always in _COUNTERS:
            yield _counter(name, text, label, dict.fromkeys(always, 0) | counted.get(name, {}))
        yield _counter(
            "bide_worker_restarts_total",
            "Workers that were replaced.",
            "reason",
            self._instance["restarts"],
        )
        yield from self._requests()
        yield from self._server()
        yield from self._each_worker()

    def _requests(self) -> Iterator[Metric]:
        """Return what is in progress."""
        rows = [row for worker in self._workers for row in worker["requests"]]
        requests = [row for row in rows if row["method"] != "spawn"]
        methods: Counter[str] = Counter(method_of(row["method"]) for row in requests)
        yield _gauge(
            "http_server_active_requests",
            "Requests in progress.",
            "http_request_method",
            methods,
        )
        states = Counter(row["state"] for row in requests)
        yield _gauge(
            "bide_requests",
            "Requests in progress, by what they do.",
            "state",
            {state: states[state] for state in _STATES},
        )
        yield _gauge(
            "bide_spawned",
            "Background work in progress (bide.spawn).",
            "",
            {"": len(rows) - len(requests)},
        )

    def _server(self) -> Iterator[Metric]:
        """Return how full the server is."""
        threads = [
            row for worker in self._workers for row in worker["threads"] if row["name"] != _LOOP
        ]
        states = Counter(row["state"] for row in threads)
        yield _gauge(
            "bide_threads",
            "Threads for requests, by what they do.",
            "state",
            {state: states[state] for state in ("idle", "running", "blocked")},
        )
        for name, text, count in (
            ("bide_threads_limit", "Threads that may begin requests at a time.", "threads_max"),
            ("bide_queue_length", "Requests that wait for a thread.", "queued"),
            ("bide_queue_limit", "Requests that may wait for a thread.", "queue_limit"),
            ("bide_websockets", "Open WebSockets, also on HTTP/2.", "websockets"),
        ):
            yield _gauge(name, text, "", {"": self._sum(count)})
        spoken: Counter[str] = Counter()
        for worker in self._workers:
            spoken.update(worker["connections"])
        yield _gauge("bide_connections", "Open connections.", "protocol", spoken)

    def _each_worker(self) -> Iterator[Metric]:
        """Return what is each worker's own."""
        answering = {str(worker["worker"]): worker for worker in self._workers}
        up: dict[str, float] = dict.fromkeys(map(str, self._instance["mute"]), 0)
        up |= dict.fromkeys(answering, 1)
        yield _gauge("bide_worker_up", "Whether a worker answers.", "worker", up)
        for name, text, key in (
            ("bide_worker_uptime_seconds", "Seconds since a worker's start.", "up"),
            ("bide_worker_rss_bytes", "Memory that a worker has in use.", "rss_bytes"),
            ("bide_loop_lag_seconds", "How late a worker's event loop answers.", "loop_lag"),
        ):
            values = {number: worker[key] for number, worker in answering.items()}
            yield _gauge(name, text, "worker", values)
        built = GaugeMetricFamily(
            "bide_build_info",
            "What serves; the value is 1.",
            labels=("version", "form", "python_version"),
        )
        for form in sorted({worker["form"] for worker in self._workers}):
            built.add_metric((self._instance["version"], form, platform.python_version()), 1)
        yield built

    def _sum(self, count: str) -> float:
        numbers: list[float] = [worker["counts"][count] for worker in self._workers]
        return sum(numbers)


def _histogram(
    name: str, text: str, labels: Iterable[str], bounds: Iterable[str], counted: Counters
) -> Metric:
    """Return a histogram; ``counted`` has in each bucket what is not in those before it."""
    family = HistogramMetricFamily(name, text, labels=tuple(labels))
    found: dict[str, dict[str, float]] = {}
    for joined, number in counted.get(f"{name}_bucket", {}).items():
        before, _, bound = joined.rpartition("\t")
        found.setdefault(before, {})[bound] = number
    if not labels:
        found.setdefault("", {})
    for joined, numbers in sorted(found.items()):
        total = 0.0
        buckets: list[Any] = []
        for bound in bounds:
            total += numbers.get(bound, 0)
            buckets.append((bound, total))
        values = joined.split("\t") if labels else ()
        family.add_metric(values, buckets, counted[f"{name}_sum"][joined] if numbers else 0)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=(label,) if label else ())
    for value, number in sorted(values.items()):
        family.add_metric((value,) if label else (), number)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,) if label else ())
    for value, number in sorted(values.items()):
        family.add_metric((value,) if label else (), number)
    return family
