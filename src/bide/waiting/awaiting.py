"""The coroutine that awaits a promise on the loop; interpreted, also where the rest is compiled.

A compiled coroutine has no frame, by which debuggers and ``Task.get_stack`` show where a task is.
And it throws a cancellation into what it awaits in a way that Python 3.12 and later warn about.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bide.waiting.adapters import TaskSubscription


async def awaiting(promise: Awaitable[Any], subscription: TaskSubscription) -> Any:
    """Await ``promise``, and tell its subscription what it brings."""
    try:
        value = await promise
    except (SystemExit, KeyboardInterrupt) as error:
        subscription.left(error)
        return None
    subscription.brought(value)
    return value
