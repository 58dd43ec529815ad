"""Whether others wait for a promise too: then nobody who gives up may cancel it.

A promise keeps the callbacks of those who wait for it. Bookkeeping looks the same (a set's
``discard``, a metric), so a callback counts only where it is known to be a wait: one of Bide's own,
a coroutine's ``await``, or one of the libraries that promises come from.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

_LIBRARIES: Final = ("asyncio", "concurrent.futures", "twisted.internet.defer")

_PASS_ON: Final = ("_call_check_cancel", "_outer_done_callback", "_failthru", "passthru")
"""Callbacks of these libraries that do not wait: they cancel what is behind a promise, or pass a
result or a failure on where a ``Deferred`` was given one callback of the two."""


def waited_for(callbacks: Iterable[Callable[..., Any]], own: object) -> bool:
    """Whether one of these callbacks is a wait, but for those that are methods of ``own``."""
    return any(_waits(callback, own) for callback in callbacks)


def _waits(callback: Any, own: object) -> bool:
    owner = getattr(callback, "__self__", None)
    if owner is own:
        return False
    if getattr(owner, "waits", False) is True or isinstance(owner, asyncio.Future):
        return True
    if getattr(callback, "__name__", "") in _PASS_ON:
        return False
    module = getattr(callback, "__module__", None)
    return isinstance(module, str) and (
        module.startswith(tuple(f"{each}." for each in _LIBRARIES)) or module in _LIBRARIES
    )


def shared_future(future: Any, own: object) -> bool:
    """Whether others wait for an asyncio future; on its loop."""
    return waited_for([callback for callback, _ in _list(future, "_callbacks")], own)


def shared_concurrent(future: Any, own: object) -> bool:
    """Whether others wait for a ``concurrent.futures.Future`` or the like; from any thread."""
    if _list(future, "_waiters"):  # of concurrent.futures.wait and as_completed
        return True
    if _list(getattr(future, "_condition", None), "_waiters"):  # threads in result()
        return True
    return waited_for(_list(future, "_done_callbacks"), own)


def shared_deferred(deferred: Any, own: object) -> bool:
    """Whether others wait for a ``Deferred``; on the reactor's thread."""
    pairs = _list(deferred, "_callbacks" if hasattr(deferred, "_callbacks") else "callbacks")
    functions = [each[0] for pair in pairs for each in pair if isinstance(each, tuple)]
    return waited_for(functions, own)


def _list(thing: Any, name: str) -> list[Any]:
    """Return what is kept privately; nothing where it is kept in another way."""
    kept = getattr(thing, name, None)
    try:
        return list(kept) if kept else []
    except TypeError:
        return []


def is_cancelling(error: BaseException | None) -> bool:
    """Whether a promise ended with this because it was cancelled."""
    if isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
        return True
    defer: Any = sys.modules.get("twisted.internet.defer")
    return defer is not None and isinstance(error, defer.CancelledError)
