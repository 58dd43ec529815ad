"""Whether a wait would happen while a lock is held that others need for it to end.

A destructor, the callback of a weak reference or a signal handler may run at any bytecode, and so
inside the server's own code, under one of its locks; a log handler runs under its own. If code of
the application waited there, the event loop would come for that lock, and nothing could end the
wait any more. So every function that holds a lock says so by :func:`holds_lock`, and a wait looks
for it, and for the others, among the frames that it is called from: locks cost nothing more.

This rests on frames: a module that is compiled to C has none. The tests would fail.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

SERVER: Final = (
    "code that has interrupted the server (a destructor, a callback of a weak reference, a signal "
    "handler) cannot wait: have it hand its work to a thread or a task"
)
LOGGING: Final = (
    "a logging handler cannot wait: it holds a lock that other threads need; put a QueueHandler "
    "before it, whose listener has a thread of its own"
)
COLLECTOR: Final = (
    "code that the garbage collector runs cannot wait: nothing would be collected meanwhile; "
    "have it hand its work to a thread or a task"
)

_holders: dict[str, set[str]] = {}  # by file: the qualified names of the functions


def holds_lock(function: F) -> F:
    """Mark a function that holds a lock of the server's while other code may come in between."""
    code = function.__code__
    _holders.setdefault(code.co_filename, set()).add(code.co_qualname)
    return function


holds_lock(logging.Handler.handle)
_LOGGING: Final = logging.Handler.handle.__code__


class _Collector:
    """Which thread the garbage collector runs in. Only one runs at a time, in CPython."""

    def __init__(self) -> None:
        self.thread = 0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        self.thread = threading.get_ident() if phase == "start" else 0


_collector = _Collector()
gc.callbacks.append(_collector)


def obstacle(frame: FrameType | None) -> str:
    """Say why code that ``frame`` runs must not wait; empty where it may. On its thread."""
    # A greenlet that is parked in a collection would leave it half done: its lists are on the C
    # stack, which others use then.
    if _collector.thread and _collector.thread == threading.get_ident():
        return COLLECTOR
    holders = _holders
    while frame is not None:
        code = frame.f_code
        names = holders.get(code.co_filename)
        if names is not None and code.co_qualname in names:
            if code is not _LOGGING:
                return SERVER
            if _is_held(frame.f_locals["self"].lock):
                return LOGGING
        frame = frame.f_back
    return ""


def _is_held(lock: Any) -> bool:
    # Before the handler's filters it is not; and a handler may have none.
    is_owned = getattr(lock, "_is_owned", None)
    return lock is not None and (is_owned is None or bool(is_owned()))
