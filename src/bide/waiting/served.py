"""Whether code runs for a request that Bide itself answers, and so may refuse by an exception."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import Final

from bide.waiting.current import current_waiter

in_task: Final[ContextVar[bool]] = ContextVar("bide.in_task", default=False)
"""Set in the task of an ASGI request, and in a WSGI request that has had something run elsewhere.

Their tasks, and most threads that they call, have it too.
"""


def is_served() -> bool:
    """Whether Bide answers 503 for an :class:`bide.Overloaded` that is raised here."""
    return current_waiter() is not None or in_task.get()


def context_elsewhere() -> Context:
    """Return a copy of this context, for what this code has run on the loop, or in a thread.

    What that raises, the request raises that waits for it. So it may be refused as this code may.
    """
    # Once in a request, whose context is its own: a mark in each copy would cost a coroutine's wait
    # 4 % more instructions.
    if not in_task.get() and current_waiter() is not None:
        in_task.set(True)
    return copy_context()
