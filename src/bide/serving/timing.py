"""The header Server-Timing: where the time of a request went, up to the head of its response.

W3C Server Timing, section 3: a metric has a name, and ``dur`` in milliseconds. Browsers show it in
their network tab.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bide.exchange.call import Call
from bide.waiting.times import Times

NAMES: Final = ("queue", "run", "wait", "send")
"""The metrics, in the order of :class:`bide.waiting.times.Sums`."""


class ServerTiming:
    """What one response says of its time. It keeps no call alive.

    Args:
        times: the clock of the call.
        started: when the call was made, in monotonic seconds.
    """

    __slots__ = ("_started", "_times")

    def __init__(self, times: Times, started: float) -> None:
        self._times = times
        self._started = started

    def __call__(self) -> tuple[str, str]:
        """Return the header, as things are now; from any thread."""
        sums = self._times.sums(self._started)[1]
        metrics = (
            f"{name};dur={1000 * seconds:.2f}" for name, seconds in zip(NAMES, sums, strict=True)
        )
        return "Server-Timing", ", ".join(metrics)


def timed(make: Callable[..., Call]) -> Callable[..., Call]:
    """Return what makes calls as ``make`` does, whose responses say where their time went."""

    def make_timed(*args: Any) -> Call:
        call = make(*args)
        call.stream.last_field = ServerTiming(call.times, call.started)
        return call

    return make_timed
