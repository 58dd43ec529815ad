"""Tracing and profiling: what a request has set is removed from its thread while it waits.

``sys.settrace`` and ``sys.setprofile`` belong to the thread. A debugger or a profiler that a
request has started must see that request alone. What ``threading.settrace`` has set for the thread
stays.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

# A profiler is told of the calls of C functions, but not of a partial's. It would see only one half
# of the call that begins or ends profiling, and count what follows for the wrong caller.
_sys_setprofile: Final = functools.partial(sys.setprofile)
_monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on


def put_away(trace: Any, profile: Any) -> Callable[[], None]:
    """Set a thread's tracing and profiling; return a function that brings back what was set before.

    A tracer written in C, which only C code can set, stays where it is.
    """
    own_trace, own_profile = sys.gettrace(), sys.getprofile()
    profiles = own_profile is not profile and _can_be_set(own_profile) and _can_be_set(profile)
    traces = own_trace is not trace and _can_be_set(own_trace) and _can_be_set(trace)
    if profiles:
        _set_profile(profile)
    if traces:
        sys.settrace(trace)

    def bring_back() -> None:
        if traces:
            sys.settrace(own_trace)
        if profiles:
            _set_profile(own_profile)
        # Python instruments the code that runs when the first thread is traced. Code that was
        # parked then is not instrumented, and would not be traced any more.
        if _monitoring is not None:
            _monitoring.restart_events()

    return bring_back


def _can_be_set(function: Any) -> bool:
    return function is None or callable(function) or hasattr(function, "enable")


def _set_profile(profile: Any) -> None:
    if profile is None or callable(profile):
        _sys_setprofile(profile)
    else:
        # cProfile, before Python 3.12: not a function. It goes on with the calls in progress.
        functools.partial(profile.enable)()
