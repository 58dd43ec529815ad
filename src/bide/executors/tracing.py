"""What traces or profiles a thread: a request's own is put away while it waits.

``sys.settrace`` and ``sys.setprofile`` are the thread's. A debugger or a profiler that a request
has begun is to see that request alone. What the thread has, by ``threading.settrace``, stays.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

# A profiler is told of calls of C functions, but not of a partial's. The call that ends profiling,
# or begins it, would be told by half, and each of its figures would go to the caller of its own.
_sys_setprofile: Final = functools.partial(sys.setprofile)
_monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on


def put_away(trace: Any, profile: Any) -> Callable[[], None]:
    """Set the thread's tracing and profiling; return what brings back what there was.

    What is written in C and can only be set there stays where it is.
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
        # Python marks the code that runs when the first thread is traced. What was parked then has
        # no marks, and would be traced no more.
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
