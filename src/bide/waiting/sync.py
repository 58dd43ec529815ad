"""Locks, events and conditions whose waits park: those of ``threading``, for code that waits.

A request that blocks in ``threading.Lock`` keeps its thread, and the one that has the lock may be
parked on that same thread: then both hang. These park instead, and free their thread. Outside a
request they block, as ``threading``'s do. Who came first is served first.

All of it may be called from any thread, from an event loop's where it does not wait, and from
destructors and signal handlers, where a wait is refused.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from bide.errors import Cancelled
from bide.waiting.api import wait
from bide.waiting.arguments import check_number
from bide.waiting.outcome import Signal
from bide.waiting.stores import NOTHING, Exclusive, Store

T = TypeVar("T")


class _Acquired:
    """What a ``with`` block acquires at its beginning, and releases at its end."""

    def acquire(self) -> bool:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Semaphore(_Acquired):
    """At most ``value`` at a time: ``with semaphore:``; like ``threading.Semaphore``.

    Args:
        value: how many may acquire it before one releases it.

    Raises:
        TypeError: ``value`` is not a whole number.
        ValueError: ``value`` is less than 0.
    """

    def __init__(self, value: int = 1) -> None:
        check_number(value, "a semaphore's value")
        if value < 0:
            raise ValueError(f"a semaphore's value is 0 or more, not {value}")
        self._places: Store[None] = Store(deque([None] * value))

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Acquire it, waiting as :func:`bide.wait` does; return whether it was free in time.

        Args:
            blocking: whether to wait.
            timeout: seconds, 0 or more; None: no limit.
        """
        place = self._places.take(timeout) if blocking else self._places.take_now()
        return place is not NOTHING

    def release(self, n: int = 1) -> None:
        """Release it ``n`` times, from any thread or request."""
        if n < 1:
            raise ValueError(f"a semaphore is released once or more, not {n} times")
        for _ in range(n):
            self._places.give(None)


class Lock(_Acquired):
    """One at a time: ``with lock:``; like ``threading.Lock``. It is not re-entrant."""

    def __init__(self) -> None:
        self._place: Store[None] = Store(deque([None]))

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire it, waiting as :func:`bide.wait` does; return whether it was free in time.

        Args:
            blocking: whether to wait.
            timeout: seconds, 0 or more; -1: no limit.
        """
        if blocking:
            place = self._place.take(None if timeout == -1 else timeout)
        else:
            place = self._place.take_now()
        return place is not NOTHING

    def release(self) -> None:
        """Release it, from any thread or request.

        Raises:
            RuntimeError: it is not locked.
        """
        self._place.take_step(self._give_back)

    def _give_back(self) -> None:
        if self._place.items:
            raise RuntimeError("release of a lock that is not locked")
        self._place.add(None)

    def locked(self) -> bool:
        """Whether somebody has it."""
        return not self._place.items


class Event(Exclusive):
    """An event that happens once, until it is cleared; like ``threading.Event``."""

    def __init__(self) -> None:
        super().__init__()
        self._set = False
        self._waiting: dict[Signal, None] = {}

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._set

    def set(self) -> None:
        """Wake all that wait. From now on, nobody waits."""
        self.take_step(self._happen)

    def clear(self) -> None:
        """From now on, ``wait`` waits again."""
        self.take_step(self._forget)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has happened, as :func:`bide.wait` does; return whether it has, in time.

        Args:
            timeout: seconds, 0 or more; None: no limit.
        """
        if self._set or timeout == 0:
            return self._set
        signal = Signal()
        self.take_step(self._enter, signal)
        try:
            wait(signal, timeout)
        except TimeoutError:
            return signal.fired
        finally:
            self.take_step(self._waiting.pop, signal, None)
        return True

    def _happen(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, {}
        for signal in waiting:
            signal.fire()

    def _forget(self) -> None:
        self._set = False

    def _enter(self, signal: Signal) -> None:
        if self._set:
            signal.fire()
        else:
            self._waiting[signal] = None


class Condition:
    """Wait for a change, under a lock; like ``threading.Condition``.

    Args:
        lock: the lock to use; None: a new one.
    """

    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = Lock() if lock is None else lock
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._waiting: deque[Signal] = deque()  # under the lock

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for a notification, and acquire the lock; return whether one came.

        The lock is acquired again in any case: also if the request is cancelled, and if its time to
        clean up is over. The end of the ``with`` block releases it.

        Args:
            timeout: seconds, 0 or more; None: no limit.

        Raises:
            RuntimeError: the lock is not locked.
        """
        self._require()
        signal = Signal()
        self._waiting.append(signal)
        self.release()
        ended = False
        try:
            try:
                wait(signal, timeout)
            except TimeoutError:
                pass
            ended = True
        finally:
            self._acquire_again()
            if not signal.fired:
                self._waiting.remove(signal)
            elif not ended:  # another may have what this one does not take
                self.notify()
        return signal.fired

    def _acquire_again(self) -> None:
        while True:
            try:
                self.acquire()
            except Cancelled:  # a wait without time to clean up takes a moment, and raises
                continue
            return

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until ``predicate`` returns a true value; return its last value.

        Args:
            predicate: called without arguments while the lock is held, at first and after each
                notification.
            timeout: seconds in all, 0 or more; None: no limit.
        """
        until = None if timeout is None else time.monotonic() + timeout
        result = predicate()
        while not result:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake ``n`` of those that wait. They go on when the lock is released.

        Raises:
            RuntimeError: the lock is not locked.
        """
        self._require()
        for _ in range(min(n, len(self._waiting))):
            self._waiting.popleft().fire()

    def notify_all(self) -> None:
        """Wake all that wait; raises the same errors as :meth:`notify`."""
        self.notify(len(self._waiting))

    def _require(self) -> None:
        if not self._lock.locked():
            raise RuntimeError("acquire the condition first: `with condition:`")
