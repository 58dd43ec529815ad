"""What a protocol does on the loop when a client that was behind has caught up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bide.protocols.interfaces import Owner
from bide.waiting.outcome import Sink


class CaughtUp(Sink):
    """Calls a function on the loop when the client has taken enough, or is gone."""

    __slots__ = ("_function", "_owner")

    def __init__(self, owner: Owner, function: Callable[[], None]) -> None:
        self._owner = owner
        self._function = function

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:  # noqa: ARG002
        """Call the loop; from any thread."""
        self._owner.call_soon(self._function)
        return True
