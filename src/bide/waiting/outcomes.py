"""What a promise's end tells a sink: its result, its own error, or that it was cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable
from typing import Any

from bide.waiting.promises import Sink

log = logging.getLogger("bide")


def settle_from(future: Any, sink: Sink) -> None:
    """Tell ``sink`` what a finished future holds; a cancelled one is an error."""
    error: BaseException | None = None
    value = None
    try:
        # Asked for, not raised: a traceback through the callers' frames would hold the future, and
        # so the error itself.
        if asyncio.isfuture(future) or isinstance(future, concurrent.futures.Future):
            error = future.exception()
        if error is None:
            value = future.result()
    except BaseException as raised:  # noqa: BLE001 - whatever it is belongs to the waiting line
        error = raised
    try:
        sink.settle(value, error)
    finally:
        del error  # one that was raised here holds this frame, and its callers': no cycle


def give_up(sink: Sink) -> None:
    """Tell ``sink`` that nothing will come: what was promised is cancelled, or others' now."""
    sink.settle(error=asyncio.CancelledError())


def listen(subscribe: Callable[[], object], sink: Sink) -> None:
    """Subscribe; what that raises is the outcome, since nobody is there to catch it."""
    try:
        subscribe()
    except BaseException as error:  # noqa: BLE001 - it belongs to the waiting line
        sink.settle(error=error)


def withdraw(cancel: Callable[[], object], sink: Sink) -> None:
    """Cancel a promise. It may fail at that: the wait ends all the same, and the log says why."""
    try:
        cancel()
    except BaseException:
        log.exception("a promise failed when it was cancelled")
        give_up(sink)
