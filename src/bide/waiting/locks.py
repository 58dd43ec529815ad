"""What stands in the way of a wait: a lock that is held, an import or a foreign event loop.

A destructor, the callback of a weak reference or a signal handler may run at any bytecode, and so
inside the server's own code, under one of its locks; a log handler runs under its own. If code of
the application waited there, the event loop would come for that lock, and nothing could end the
wait any more. So every function that holds a lock is named to :func:`holds_lock`, and a wait looks
for it, and for the others, among the frames that it is called from: locks cost nothing more.
Compiled code has no frames. There a lock of the server counts how many of them its thread holds.

An import in progress and an event loop of the application's own belong to the thread, too. Below
them a wait may block the thread, and must not let others run on it.
"""

from __future__ import annotations

import gc
import inspect
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import CodeType, FrameType
from typing import Any, Final

from bide.compiling import built
from bide.waiting.foreign import LOOPS

_module: Final = built("bide._locks")

Lock: Final[Callable[[], AbstractContextManager[bool]]] = (
    threading.RLock if _module is None else _module.Lock
)
"""Makes a lock of the server: re-entrant, for any thread, and held for microseconds."""

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

IMPORT: Final = (
    "a module that a request on the event loop imports cannot wait: the next request would find it "
    "partially initialized; import it when the application starts"
)
LOOP: Final = (
    "an event loop that runs below a request cannot wait here: the next request "
    "would find it running; use `await` in it, or run it in a thread (in_thread)"
)
PINS: Final = frozenset({IMPORT, LOOP})
"""Reasons to block the thread for a wait, where that may be blocked; they do not refuse it."""

_BEGINNING: Final = "the beginning of a conversation"
_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

# By the functions' qualified names, which seldom match: their modules, and what they stand for.
_marks: dict[str, dict[str, str]] = {
    "_find_and_load": {"importlib._bootstrap": IMPORT, "_frozen_importlib": IMPORT},
    "_load": {"importlib._bootstrap": IMPORT, "_frozen_importlib": IMPORT},
    "_exec": {"importlib._bootstrap": IMPORT, "_frozen_importlib": IMPORT},  # reload
    "_LazyModule.__getattribute__": {"importlib.util": IMPORT},
    "Handle._run": {"asyncio.events": LOOP},  # also where a loop is entered twice
    **{name: {module: LOOP} for name, module in LOOPS.items()},
}
_ends: list[CodeType] = []  # of the functions that begin a conversation


def holds_lock(*functions: Callable[..., Any]) -> None:
    """Mark functions that hold a lock of the server while other code may come in between."""
    for function in functions:
        _mark(function, SERVER)


def begins(*functions: Callable[..., Any]) -> None:
    """Mark functions that call all of a conversation's code, and are called under no lock.

    A wait looks at no frame below them.
    """
    for function in functions:
        _mark(function, _BEGINNING)
        if hasattr(function, "__code__") and function.__code__ not in _ends:
            _ends.append(function.__code__)


def _mark(function: Callable[..., Any], what: str) -> None:
    if hasattr(function, "__code__"):  # a compiled one has no frames to be found by
        _marks.setdefault(function.__code__.co_qualname, {})[function.__module__] = what


_mark(logging.Handler.handle, LOGGING)


class _Collector:
    """Which thread the garbage collector runs in. Only one runs at a time, in CPython."""

    def __init__(self) -> None:
        self.thread = 0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        self.thread = threading.get_ident() if phase == "start" else 0


_collector = _Collector()
gc.callbacks.append(_collector)


QUICK: Final = _module is not None
"""Whether there is a look that makes no objects of frames: :func:`is_clear`."""


def is_clear() -> bool:
    """Whether nothing stands in the way of a wait; only where QUICK.

    If not, :func:`obstacle` decides. A frame that it has looked at is an object, of some 200 bytes,
    for as long as its function runs. Looking at ten costs 450 opcodes.
    """
    if _collector.thread and _collector.thread == threading.get_ident():
        return False
    return bool(_module.is_plain(_marks, _ends))


def obstacle(frame: FrameType | None) -> str:
    """Return why code that ``frame`` runs must not park; empty where it may. On its thread.

    One of PINS is returned only where there is no other reason.
    """
    # A greenlet that is parked in a collection would leave it half done: its lists are on the C
    # stack, which others use then.
    if _collector.thread and _collector.thread == threading.get_ident():
        return COLLECTOR
    if _module is not None and _module.held():
        return SERVER
    marks = _marks
    pin = ""
    while frame is not None:
        code = frame.f_code
        if code.co_qualname in marks:  # seldom
            found = marks[code.co_qualname].get(frame.f_globals.get("__name__", ""), "")
            if found in PINS:
                pin = pin or found
            elif found is _BEGINNING:
                break
            elif found and (found is not LOGGING or _is_held(frame.f_locals["self"].lock)):
                return found
        # Whatever runs a coroutine below a request is an event loop to it: trio, curio, any other.
        if code.co_flags & _COROUTINE:
            pin = pin or LOOP
        frame = frame.f_back
    return pin


def _is_held(lock: Any) -> bool:
    # Before the handler's filters it is not; and a handler may have none.
    is_owned = getattr(lock, "_is_owned", None)
    return lock is not None and (is_owned is None or bool(is_owned()))
