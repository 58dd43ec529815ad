"""Limits that park: so many requests at a time do one thing, so many wait, and more are refused.

What a request waits for may have less room than the server: a model, a cluster, another service.
Without a bound those that wait for it would grow until their clients have left.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from bide.errors import Overloaded
from bide.systems import at_fork
from bide.waiting.arguments import check_number, seconds
from bide.waiting.served import is_served
from bide.waiting.stores import NOTHING, Store

F = TypeVar("F", bound=Callable[..., Any])

WAITING: Final = 1000
"""How many requests may wait for a limit, if it does not say; as for threads (``--queue``)."""

_numbers = itertools.count(1)
# By number. Single operations only, from any thread.
_shown: weakref.WeakValueDictionary[int, Limit] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """The numbers of a limit.

    Attributes:
        name: as given, or the name of the function, or ``limit-1`` and so on.
        most: how many may use it at a time.
        taken: how many use it now.
        waiting: how many wait for it now.
        refused: how many requests were answered 503, since the start.
    """

    name: str
    most: int
    taken: int
    waiting: int
    refused: int


class Limit(contextlib.ContextDecorator):
    """At most so many at a time: ``with limit:``, ``async with limit:``, or as a decorator.

    See :func:`limit`.
    """

    def __init__(self, most: int, waiting: int, timeout: float | None, name: str) -> None:
        """Make a limit."""
        self._most = most
        self._waiting = waiting
        self._timeout = timeout
        self._name = name
        number = next(_numbers)
        self._number = number
        self.begin()
        _shown[number] = self

    def begin(self) -> None:
        """Have all places free, and no request at it."""
        self._places: Store[object] = Store(deque([None] * self._most))
        self._refused = 0  # in a step of the places

    def __enter__(self) -> None:
        """Wait for a place, as :func:`bide.wait` does.

        Raises:
            Overloaded: too many wait, or it took too long. Only in a request that Bide serves.
        """
        self._require(self._places.take(*self._bounds()))

    async def __aenter__(self) -> None:
        """Await a place, in a task of asyncio's; raises as ``__enter__``."""
        self._require(await self._places.take_async(*self._bounds()))

    def _bounds(self) -> tuple[float | None, int | None]:
        """Return for how long one may wait, and how many may."""
        return (self._timeout, self._waiting) if is_served() else (None, None)

    def _require(self, place: object) -> None:
        if place is NOTHING:
            self._places.take_step(self._refuse)
            raise Overloaded(f"{self.name}: {self._most} at a time, and too many wait")

    def _refuse(self) -> None:
        self._refused += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the place to the first that waits."""
        self._places.take_step(self._leave)

    def _leave(self) -> None:
        places = self._places
        if len(places.items) < self._most:  # else it was taken before a fork
            places.add(None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the place, as ``__exit__`` does."""
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Return the function so that each call of it has a place; a coroutine until it has ended.

        Raises:
            TypeError: it is a generator function, whose call only makes an object.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"a limit above {function.__qualname__} would end before it runs: use "
                "`with limit:` in a generator, and `async with limit:` in an asynchronous one"
            )
        self._name = self._name or function.__qualname__
        if not inspect.iscoroutinefunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            async with self:
                return await function(*args, **kwargs)

        return cast(F, limited)

    @property
    def name(self) -> str:
        """What the status calls it."""
        return self._name or f"limit-{self._number}"

    def status(self) -> LimitStatus:
        """Return how many use it and wait for it; from any thread. It may be a moment old."""
        places = self._places
        return LimitStatus(
            self.name,
            self._most,
            self._most - len(places.items),
            places.awaited,
            self._refused,
        )


def limit(
    most: int, *, waiting: int = WAITING, timeout: float | None = None, name: str = ""
) -> Limit:
    """Limit how many do something at a time: ``with limit:``, or as a decorator of a function.

    If it is full, a request waits, in the order of arrival, and holds no thread. Coroutines use
    ``async with limit:``, and count with the others. If too many requests wait, or one waits too
    long, it is answered 503 with ``Retry-After: 1``. Under another server no request is refused,
    and a wait blocks its thread. Coroutines that a request waits for are refused as the request is.
    ``bide.status().limits`` shows each limit. May be called from any thread.

    Args:
        most: how many may use it at a time, 1 or more.
        waiting: how many requests may wait for it, 0 or more.
        timeout: seconds that a request may wait for it, 0 or more; None: as long as it takes.
        name: its name in the status; empty: the name of the function.

    Raises:
        TypeError: what should be a number is not one.
        ValueError: a number is too small.
    """
    check_number(most, "a limit's most")
    check_number(waiting, "a limit's waiting")
    if most < 1:
        raise ValueError(f"a limit is 1 or more at a time, not {most}")
    if waiting < 0:
        raise ValueError(f"0 or more may wait for a limit, not {waiting}")
    if timeout is not None:
        seconds(timeout)
    return Limit(most, waiting, timeout, name)


def limits() -> tuple[LimitStatus, ...]:
    """Return the status of each limit of this process, the oldest first; from any thread."""
    found = [each for reference in _shown.valuerefs() if (each := reference()) is not None]
    return tuple(each.status() for each in sorted(found, key=lambda each: each._number))


def _after_fork() -> None:
    """Called in a forked child: those that have a limit, and wait for it, are its parent's."""
    for each in list(_shown.values()):
        each.begin()


at_fork(after_in_child=_after_fork)
