"""A queue whose waits park: as that of ``queue``. See :mod:`bide.waiting.sync`."""

from __future__ import annotations

import queue
from collections import deque
from typing import Generic, TypeVar

from bide.waiting.arguments import check_number
from bide.waiting.stores import NOTHING, Exclusive, Store
from bide.waiting.sync import Event

T = TypeVar("T")


class Queue(Generic[T]):
    """A queue, first in, first out; like ``queue.Queue``.

    It raises ``queue.Empty`` and ``queue.Full``.

    Args:
        maxsize: how many items it holds before ``put`` waits; 0: any number.

    Raises:
        TypeError: ``maxsize`` is not a whole number.
    """

    def __init__(self, maxsize: int = 0) -> None:
        check_number(maxsize, "a queue's maxsize")
        self.maxsize = maxsize
        self._items: Store[T] = Store(deque())
        self._room: Store[None] | None = Store(deque([None] * maxsize)) if maxsize > 0 else None
        self._unfinished = 0
        self._counting = Exclusive()
        self._all_done = Event()
        self._all_done.set()

    def qsize(self) -> int:
        """How many items it holds now."""
        return len(self._items.items)

    def empty(self) -> bool:
        """Whether it holds none now."""
        return not self._items.items

    def full(self) -> bool:
        """Whether it holds ``maxsize`` items now."""
        return self._room is not None and not self._room.items

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, waiting for room as :func:`bide.wait` does.

        Args:
            item: of any kind.
            block: whether to wait.
            timeout: seconds, 0 or more; None: no limit.

        Raises:
            queue.Full: there was no room in time.
        """
        room = self._room
        if room is not None and (room.take(timeout) if block else room.take_now()) is NOTHING:
            raise queue.Full
        self._counting.take_step(self._count, 1)
        self._items.give(item)

    def put_nowait(self, item: T) -> None:
        """Add an item without waiting; raises ``queue.Full`` if there is no room."""
        self.put(item, block=False)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the first item, waiting for it as :func:`bide.wait` does.

        Args:
            block: whether to wait.
            timeout: seconds, 0 or more; None: no limit.

        Raises:
            queue.Empty: there was none in time.
        """
        item = self._items.take(timeout) if block else self._items.take_now()
        if item is NOTHING:
            raise queue.Empty
        if self._room is not None:
            self._room.give(None)
        return item

    def get_nowait(self) -> T:
        """Take the first item without waiting; raises ``queue.Empty`` if there is none."""
        return self.get(block=False)

    def task_done(self) -> None:
        """Say that the work on an item from ``get`` is done, for :meth:`join`.

        Raises:
            ValueError: called more often than items were put.
        """
        self._counting.take_step(self._count, -1)

    def join(self) -> None:
        """Wait until the work on all items is done, as :func:`bide.wait` does."""
        self._all_done.wait()

    def _count(self, change: int) -> None:
        if self._unfinished + change < 0:
            raise ValueError("task_done() was called more often than items were put")
        self._unfinished += change
        if self._unfinished:
            self._all_done.clear()
        else:
            self._all_done.set()
