"""How long a thread keeps the interpreter's lock while others want it.

CPython's default of 5 ms is long beside a request. With four threads that compute, the event loop
gets its turn after 20 ms and more, each time that it has waited for anything. So turns are
shortened for as long as any executor of the process has lanes. See
docs/decisions/0011-short-turns.md.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

from bide.systems import at_fork

INTERVAL: Final = 0.0005
"""Seconds."""
DEFAULT: Final = 0.005
"""CPython's own, in seconds. Any other value is the application's choice, and is left alone."""

_lock = threading.Lock()
# Under the lock:
_users = 0
_set = False  # the interval has been set here


def _after_fork() -> None:
    global _lock, _users, _set
    _lock = threading.Lock()  # a thread that the child does not have may hold the old one
    if _set:
        sys.setswitchinterval(DEFAULT)
    _users, _set = 0, False


at_fork(after_in_child=_after_fork)


def shorten() -> None:
    """Shorten the turns, unless the application has set the interval; from any thread."""
    global _users, _set
    with _lock:
        _users += 1
        if _users == 1 and sys.getswitchinterval() == DEFAULT:
            sys.setswitchinterval(INTERVAL)
            _set = True


def restore() -> None:
    """Undo one ``shorten``; from any thread.

    The last call restores the default, unless the application has set the interval.
    """
    global _users, _set
    with _lock:
        _users -= 1
        if _users == 0 and _set:
            _set = False
            if sys.getswitchinterval() == INTERVAL:
                sys.setswitchinterval(DEFAULT)
