"""Whether an application has failed, or has only lost its client."""

from __future__ import annotations

from typing import Final

from bide.errors import ClientGone

_NAMES: Final = frozenset({"WebSocketDisconnect"})
"""What frameworks raise when they are told that a WebSocket has ended: Starlette, Litestar."""


def is_departure(error: BaseException, told: bool = False) -> bool:
    """Whether an error says only that the client has left, also as a group, or as a cause.

    Args:
        error: what the application has raised.
        told: whether it may have been told so: what frameworks then raise counts, too.
    """
    seen = 0
    while seen < 16:
        if isinstance(error, ClientGone) or (told and type(error).__name__ in _NAMES):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(is_departure(each, told) for each in error.exceptions)
        if error.__cause__ is None:
            return False
        error = error.__cause__
        seen += 1
    return False
