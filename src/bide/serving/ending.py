"""The end of what an application has in progress, awaited on the loop and told from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Ending:
    """Whether something is still in progress.

    Args:
        busy: whether it is; called from any thread.

    Attributes:
        awaited: whether ``over`` has been called: only then somebody need ``look``.
    """

    def __init__(self, busy: Callable[[], object]) -> None:
        self._busy = busy
        self.awaited = False
        self._mark = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def look(self) -> None:
        """Called when some of it has ended; from any thread."""
        # What was left running may end after the loop was closed.
        if self.awaited and not self._busy():
            loop = self._loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._mark.set)

    async def over(self, seconds: float) -> bool:
        """Wait until nothing is in progress, for so long at most; return whether that came."""
        self._loop = loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self.awaited = True
        await asyncio.sleep(0)  # what has ended may have left something to be begun
        while self._busy():
            self._mark.clear()
            if not self._busy():  # ended before the mark was cleared
                break
            left = deadline - loop.time()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._mark.wait(), left)
            except TimeoutError:
                return not self._busy()
        return True
