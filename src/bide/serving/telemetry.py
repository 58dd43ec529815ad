"""The two instruments that OpenTelemetry's conventions ask of an HTTP server.

They are those of the application's ``MeterProvider``, also where it is set later. Without one, what
is recorded goes nowhere. Spans are made by the frameworks' instrumentations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from opentelemetry import metrics

from bide.exchange.call import Call
from bide.executors.spawning import Spawned
from bide.serving.counters import SECONDS, bounded, key_of, method_of
from bide.serving.status import insides

DURATION: Final = "http.server.request.duration"
ACTIVE: Final = "http.server.active_requests"

_seen: Final[set[tuple[str, str]]] = set()
"""The methods and schemes that requests in progress have had. There are few."""


class Instruments:
    """Tells OpenTelemetry of each request of a server; from any thread."""

    def __init__(self) -> None:
        self._duration = instruments()

    def ended(self, call: Call) -> None:
        """Record a request whose call has ended; on its thread."""
        method, scheme, code, version, error, route = bounded(key_of(call))
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": scheme,
            "network.protocol.version": version,
        }
        if code:
            attributes["http.response.status_code"] = code
        if error:
            attributes["error.type"] = error
        if route:
            attributes["http.route"] = route
        self._duration.record(sum(call.times.sums(call.started)[1]), attributes)


@cache
def instruments() -> metrics.Histogram:
    """Make both, once for all servers of the process; return the first.

    The requests in progress are counted when they are asked for, which costs no request anything.
    """
    meter = metrics.get_meter("bide")
    meter.create_observable_up_down_counter(
        ACTIVE, [active], "{request}", "Number of active HTTP server requests."
    )
    return meter.create_histogram(
        DURATION,
        "s",
        "Duration of HTTP server requests.",
        explicit_bucket_boundaries_advisory=SECONDS,
    )


def active(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
    """Count the requests in progress; called on the thread of a reader of metrics."""
    found = Counter(
        (method_of(call.stream.request.method), call.stream.peer.scheme)
        for each in insides()
        if each.settings.opentelemetry
        for call in each.calls
        if not isinstance(call, Spawned)
    )
    # What has been seen is told as 0 from then on: else it would stay as it was.
    _seen.update(found)
    return [
        metrics.Observation(found[key], {"http.request.method": key[0], "url.scheme": key[1]})
        for key in sorted(_seen)
    ]
