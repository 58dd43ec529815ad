"""Items, and those that wait for them: what locks, semaphores and queues are made of.

Nothing here blocks for longer than a step, and no code of an application runs in one, but for
destructors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from bide.waiting.api import wait
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.loops import on_loop
from bide.waiting.outcome import Signal, Sink

log = logging.getLogger("bide")

T = TypeVar("T")

NOTHING: Final[Any] = object()
"""What is there in place of an item, where there is none."""


class Exclusive:
    """Takes steps one at a time, each for microseconds.

    A destructor may interrupt a step on its own thread, and ask for another one: that is taken at
    the end of the first.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._entered = False  # written under the lock
        self._later: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    def take_step(self, step: Callable[..., Any], *args: Any) -> Any:
        """Take a step; return its result, or ``NOTHING`` when it is put off."""
        with self._lock:
            if self._entered:
                self._later.append((step, args))
                return NOTHING
            self._entered = True
            try:
                return step(*args)
            finally:
                self._entered = False
                while self._later:
                    later, its = self._later.popleft()
                    self._entered = True
                    try:
                        later(*its)
                    except (RuntimeError, ValueError):  # who asked for it has gone on
                        log.exception("code that has interrupted a lock or a queue failed")
                    finally:
                        self._entered = False


class _Taker(Generic[T]):
    """One that waits for an item of a store."""

    __slots__ = ("granted", "item", "signal")

    def __init__(self) -> None:
        self.signal = Signal()
        self.granted = False
        self.item: T

    def grant(self, item: T) -> None:
        """Give it an item; in a step of the store."""
        self.granted = True
        self.item = item
        self.signal.fire()


class _Future(Sink):
    """Sets a future of a task that waits."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self._loop = loop
        self._future = future

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:  # noqa: ARG002
        """Wake the task; from any thread."""
        try:
            on_loop(self._loop, self._wake)
        except RuntimeError:  # the loop is closed, and the task with it
            return False
        return True

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Store(Exclusive, Generic[T]):
    """Items, and those that wait for one; never both.

    An item that was given to one that waits no more goes to the next, or back to the front.
    """

    def __init__(self, items: deque[T]) -> None:
        super().__init__()
        self.items = items
        self._takers: OrderedDict[_Taker[T], None] = OrderedDict()

    def give(self, item: T) -> None:
        """Add an item, for the first that waits."""
        self.take_step(self.add, item)

    def add(self, item: T) -> None:
        """Add an item, in a step."""
        if self._takers:
            self._takers.popitem(last=False)[0].grant(item)
        else:
            self.items.append(item)

    def take_now(self) -> T:
        """Take an item without waiting; return ``NOTHING`` if there is none."""
        with self._lock:
            if self._entered or not self.items:
                return NOTHING  # type: ignore[no-any-return]
            return self.items.popleft()

    @property
    def awaited(self) -> int:
        """How many wait for an item; from any thread, a moment old."""
        return len(self._takers)

    def take(self, timeout: float | None, most: int | None = None) -> T:
        """Take an item; return ``NOTHING`` if there is none in time. Raises as ``wait``.

        Args:
            timeout: seconds, 0 or more; None: no limit.
            most: how many may wait; with more, ``NOTHING`` is returned at once. None: no limit.
        """
        item = self.take_now()
        if item is not NOTHING or timeout == 0:
            return item
        with self._taking(most) as taker:
            wait(taker.signal, timeout)
        return taker.item if taker.granted else NOTHING

    async def take_async(self, timeout: float | None, most: int | None = None) -> T:
        """Take an item, in a task of asyncio's; as :meth:`take`."""
        item = self.take_now()
        if item is not NOTHING or timeout == 0:
            return item
        with self._taking(most) as taker:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            taker.signal.listen(_Future(loop, future))
            async with asyncio.timeout(timeout):
                await future
        return taker.item if taker.granted else NOTHING

    @contextlib.contextmanager
    def _taking(self, most: int | None) -> Iterator[_Taker[T]]:
        """Have one wait for an item in the block; a TimeoutError of the block ends that, no more.

        On any other error an item that has come is put back.
        """
        taker: _Taker[T] = _Taker()
        self.take_step(self._enter, taker, most)
        try:
            yield taker
        except TimeoutError:
            self.take_step(self._leave, taker)
        except BaseException:
            self.take_step(self._give_up, taker)
            raise

    def _enter(self, taker: _Taker[T], most: int | None) -> None:
        if self.items:
            taker.grant(self.items.popleft())
        elif most is None or len(self._takers) < most:
            self._takers[taker] = None
        else:
            taker.signal.fire()  # with nothing

    def _leave(self, taker: _Taker[T]) -> bool:
        """Remove one that waits no more; return false when it has its item."""
        if taker.granted:
            return False
        self._takers.pop(taker, None)  # it is not there if it was not let in
        return True

    def _give_up(self, taker: _Taker[T]) -> None:
        if not self._leave(taker):
            if self._takers:
                self._takers.popitem(last=False)[0].grant(taker.item)
            else:
                self.items.appendleft(taker.item)


holds_lock(Exclusive.take_step, Store.take_now)
