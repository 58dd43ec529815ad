"""How a process that is a server ends: in bounded time, whatever its threads do.

Python waits for every thread that is not a daemon, for as long as it runs, before it calls the
``atexit`` functions. Here threads have until a deadline. Those that still run then are named in the
log. The ``atexit`` functions are called all the same, and the process ends without those threads.

Only the command line uses it, since it owns its process. Main thread only.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from types import FrameType
from typing import Any, Final, NoReturn

from bide.capabilities import name_of
from bide.executors.places import frames_of
from bide.forks import code_of
from bide.process.signals import end_behind, unheard
from bide.serving.lines import flush
from bide.serving.logs import say
from bide.waiting.cleanups import cleanup_time
from bide.waiting.thread_pool import Call

log = logging.getLogger("bide")

MOMENT: Final = 1.0
"""Seconds that threads have at least to end, once the server has stopped."""

_finish_by = [0.0]


def allow(seconds: float) -> None:
    """Set how long from now on threads of this process may run before it ends, in seconds."""
    _finish_by[0] = monotonic() + seconds


def left() -> float:
    """Return the seconds that threads of this process still have, at least a moment."""
    return max(_finish_by[0] - monotonic(), MOMENT)


def leave(program: Callable[[], None]) -> NoReturn:
    """Run a program, and end the process as Python would after it, but in bounded time.

    The exit code is Python's own: that of ``SystemExit``, 0 without, 1 after another error.
    """
    end_behind()
    outcome: BaseException = SystemExit(0)
    try:
        program()
    except BaseException as error:  # noqa: BLE001 - it is raised again
        outcome = error
    code = code_of(outcome)
    for number in (signal.SIGINT, signal.SIGTERM):  # from now on, too, one more ends it at once
        signal.signal(number, _end_at_once)
    for number in (signal.SIGHUP, signal.SIGUSR1):  # a rotation of logs must not end it
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, unheard)
    deadline = max(_finish_by[0], monotonic() + MOMENT)
    late = _left(deadline)
    last = threading.Timer(max(cleanup_time.seconds, deadline - monotonic()), _give_up, (code,))
    last.daemon = True
    with contextlib.suppress(RuntimeError):  # the system gives no thread, so the end is unbounded
        last.start()
    if late:
        log.warning("threads that still run are left behind: %s", "; ".join(map(_describe, late)))
    atexit._run_exitfuncs()
    if late:
        if not isinstance(outcome, SystemExit):
            sys.excepthook(type(outcome), outcome, outcome.__traceback__)
        _exit(code)
    last.cancel()
    for number in (signal.SIGHUP, signal.SIGUSR1):  # Python resets handlers before it ends
        if signal.getsignal(number) is unheard:
            signal.signal(number, signal.SIG_IGN)
    raise outcome


def _end_at_once(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def _give_up(code: int) -> None:
    say(logging.ERROR, "functions registered with atexit have not ended: the process ends")
    flush()
    os._exit(code)  # without flushing the streams: the function that hangs may hold their locks


def _exit(code: int) -> NoReturn:
    flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it is None, closed, or without a reader
            stream.flush()
    os._exit(code)


# Threads ----------------------------------------------------------------------------------------


def _left(deadline: float) -> list[threading.Thread]:
    """Wait for the threads that Python would wait for; return those that still run.

    Args:
        deadline: in monotonic seconds.
    """
    # The functions that tell the pools' threads to end also wait for them.
    ending = threading.Thread(target=_end_pools, name="bide-end", daemon=True)
    try:
        ending.start()
    except RuntimeError:  # the system gives no thread
        _end_pools()
    else:
        ending.join(max(0.0, deadline - monotonic()))
    pools = getattr(
        concurrent.futures.thread, "_threads_queues", {}
    )  # of threads that may be daemons
    threads = [
        each
        for each in threading.enumerate()
        if each is not threading.current_thread() and (not each.daemon or each in pools)
    ]
    for each in threads:
        each.join(max(0.0, deadline - monotonic()))
    return [each for each in threads if each.is_alive()]


def _end_pools() -> None:
    # As threading._shutdown does; there is no public way.
    functions: list[Callable[[], None]] = getattr(threading, "_threading_atexits", [])
    while functions:
        functions.pop()()


def _describe(thread: threading.Thread) -> str:
    """Return a thread's name and the function that it runs: the application's, or a pool's call."""
    frame = sys._current_frames().get(thread.ident or 0)
    own = frames_of(frame)
    if own:
        code = own[-1].f_code
        return f"{thread.name} in {code.co_qualname} ({code.co_filename}:{own[-1].f_lineno})"
    while frame is not None:
        called = _called(frame.f_locals.get("self"))
        if called is not None:  # written in C, or the standard library's
            return f"{thread.name} in {name_of(called)}"
        frame = frame.f_back
    return thread.name


def _called(caller: object) -> Any:
    """Return the function that a thread or a pool's call was given; None if there is none."""
    if isinstance(caller, Call):
        parts: list[Any] = [caller.function, *caller.args]
    elif isinstance(caller, threading.Thread):
        parts = [getattr(caller, "_target", None)]
    else:  # of concurrent.futures
        parts = [getattr(caller, "fn", None), *getattr(caller, "args", ())]
    while parts:
        each = parts.pop(0)
        if isinstance(each, functools.partial):  # asyncio.to_thread
            parts[:0] = [each.func, *each.args]
            continue
        own = str(getattr(each, "__module__", "")).startswith("bide.")
        if callable(each) and not own and not isinstance(getattr(each, "__self__", None), Context):
            return each
    return None
