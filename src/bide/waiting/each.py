"""Something is done to many, one after the other: to each, whatever fails on another."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

NOT_TOLD: Final = "internal error: what is in progress could not be told of its end"
NOT_REJECTED: Final = "internal error: a request could not be rejected"

log = logging.getLogger("bide")


def to_each(these: Iterable[T], do: Callable[[T], object], failure: str) -> None:
    """Do something to each; where it raises, the log says so, once for each error.

    Where the log itself fails, as a handler of the program's may, the errors are printed.

    Args:
        these: in this order, as they are now: they may come and go meanwhile.
        do: what is done.
        failure: what the log says, with the traceback.
    """
    for each in list(these):
        try:
            do(each)
        except Exception:  # noqa: BLE001 - it is reported
            _report(failure)


def _report(failure: str) -> None:
    try:
        log.exception(failure)
    except Exception:  # noqa: BLE001 - it is printed, with what it could not log
        with contextlib.suppress(OSError, ValueError):  # nobody reads, or it is closed
            traceback.print_exc()
