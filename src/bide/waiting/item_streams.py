"""The items of one call of a resident: from the thread that receives them to who iterates.

So many are kept, and no more are asked for until one is taken. Who leaves, or drops the stream,
ends the call. No lock is held here: one thread adds, and one takes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any, Final

from bide.waiting.process_pools import Outcome, ProcessPromise

ITEMS: Final = 16
"""How many items of a stream are kept here."""


class Items:
    """What has come of a stream, and its end.

    Args:
        drop: called with this when nobody wants more.

    Attributes:
        left: whether nobody does.
    """

    def __init__(self, drop: Callable[[Items], bool]) -> None:
        self._drop = drop
        self._came: deque[Any] = deque()
        self._end: tuple[BaseException | None] | None = None
        self._room: SimpleQueue[None] = (
            SimpleQueue()
        )  # one for each item that may be added, but one
        for _ in range(ITEMS - 1):
            self._room.put(None)
        self.left = False
        # `take` notes the arrival, and then looks for an item. `_tell` is called when there is
        # something, and then looks for the arrival. So one of the two sees the other.
        self._arrival: concurrent.futures.Future[None] | None = None

    # On the thread that receives -----------------------------------------------------------------

    def add(self, item: Any) -> bool:
        """Add an item, and wait for room for the next one; return whether it is wanted."""
        self._came.append(item)
        self._tell()
        self._room.get()
        return not self.left

    def settle(self, _: Any = None, /, error: BaseException | None = None) -> bool:
        """Add the end: an error, or none; return true."""
        self._end = (error,)
        self._tell()
        return True

    def _tell(self) -> None:
        arrival = self._arrival
        if arrival is not None:
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # told, or cancelled
                arrival.set_result(None)

    # On the thread that iterates -----------------------------------------------------------------

    async def take(self) -> Any:
        """Return the next item; raises StopAsyncIteration, or the call's error, at the end."""
        while True:
            arrival = self._arrival = concurrent.futures.Future()
            end = self._end  # before the items: when it is there, they all are
            if self._came:
                item = self._came.popleft()
                self._room.put(None)
                return item
            if end is not None:
                (error,) = end
                self._end = (None,)  # it is raised once
                if error is None:
                    raise StopAsyncIteration
                raise error
            if self.left and self._end is None:  # by the end of the program
                raise concurrent.futures.CancelledError
            await asyncio.wrap_future(arrival)

    def cancel(self) -> bool:
        """End the call, unless it is over; from any thread. Return whether it was not."""
        self.left = True
        self._room.put(None)
        dropped = self._drop(self)
        self._tell()
        return dropped


class ItemStream(AsyncIterator[Any]):
    """What a method of a resident streams: an async iterator, which is iterated once.

    When it is left (``aclose``), or dropped, its call is ended.
    """

    def __init__(self, items: Items) -> None:
        self._items = items
        self._closed = False

    async def __anext__(self) -> Any:
        """Return the next item."""
        if self._closed:
            raise StopAsyncIteration
        return await self._items.take()

    async def aclose(self) -> None:
        """End the call, unless it is over."""
        self._closed = True
        self._items.cancel()

    def __del__(self) -> None:
        """End the call that nobody can take anything of any more."""
        self._items.cancel()


class ResidentPromise(ProcessPromise):
    """The promise of what a method returns; of one that streams, also the stream itself."""

    def __init__(self, drop: Callable[[Outcome], bool], name: str) -> None:
        super().__init__(drop)
        self._name = name

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over what the method streams."""
        stream = await asyncio.wrap_future(self)
        if not isinstance(stream, ItemStream):
            raise TypeError(f"{self._name} returned {type(stream).__name__}, which is not a stream")
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()
