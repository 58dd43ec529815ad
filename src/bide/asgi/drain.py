"""The extension ``bide.drain``: what an endless response awaits, to end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any


class Drain:
    """Fires once, when its server begins to stop; may be awaited by any number of tasks.

    On the server's loop.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._fired = False

    def fire(self) -> None:
        """Let everything go on that awaits this, now and later."""
        self._fired = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def _wait(self) -> None:
        if self._fired:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until the server begins to stop."""
        return self._wait().__await__()
