"""What is done with each request of a server once its call has ended: it is counted, and told."""

from __future__ import annotations

from collections.abc import Callable

from bide.errors import StartError
from bide.exchange.call import Call
from bide.serving.counters import count_request
from bide.settings import Settings

Ended = Callable[[Call], None]
"""Called when a call has ended, on its thread."""


def recorded(ended: Ended | None, settings: Settings) -> Ended:
    """Return what counts a request, tells OpenTelemetry where that is wanted, and calls ``ended``.

    Raises:
        StartError: OpenTelemetry is wanted, and is not installed.
    """
    wanted: list[Ended] = [count_request]
    if settings.opentelemetry:
        try:
            # Here, since only who wants it has it.
            from bide.serving.telemetry import Instruments
        except ImportError:
            raise StartError(
                "--opentelemetry needs opentelemetry-api, which is not installed: "
                "pip install 'bide[otel]'"
            ) from None
        wanted.append(Instruments().ended)
    if ended is not None:
        wanted.append(ended)
    if len(wanted) == 1:
        return count_request

    def tell_all(call: Call) -> None:
        for each in wanted:
            each(call)

    return tell_all
