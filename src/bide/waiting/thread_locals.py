"""What a library keeps for each thread, made each request's own.

The requests of one thread take turns. What is registered here is put away when one of them waits
and brought back when it goes on; each begins with none of it, and what it has left is dropped at
its end. Where nothing is registered, a switch costs one look at an empty list.

All but the registering is on the thread that is switched.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar, overload

from bide.waiting.locks import holds_lock

log = logging.getLogger("bide")

T = TypeVar("T")
L = TypeVar("L", bound=threading.local)


class Kept(Protocol):
    """A state that each thread has one of; all of it concerns the calling thread's."""

    @property
    def of(self) -> object:
        """The object that has it; one is registered once."""

    def take(self) -> Any:
        """Return the state; it is not changed before ``put`` or ``begin``."""

    def put(self, state: Any, /) -> object:
        """Set what ``take`` has returned."""

    def begin(self) -> object:
        """Set what a new request has."""

    def end(self) -> object:
        """Drop what the request has left."""


kept: Final[list[Kept]] = []
"""What is registered; only added to, but by tests."""


@overload
def per_request(local: L, /, *, begin: Callable[[], object] | None = None) -> L: ...
@overload
def per_request(
    get: Callable[[], T],
    set: Callable[[T], object],
    /,
    *,
    begin: Callable[[], object] | None = None,
) -> None: ...


def per_request(local: Any, set: Any = None, /, *, begin: Any = None) -> Any:  # noqa: A002
    """Make a ``threading.local`` each request's own; or what a getter and a setter stand for.

    Called once, at import. From then on a request of Bide's finds after a wait what it had before
    it. It begins with an empty local, on which ``__init__`` is called as on a new thread, and what
    it leaves there is dropped at its end. What the thread has outside of requests is put away
    meanwhile. What a getter and a setter stand for begins as the thread has it, and is set back.

    What a request calls by :func:`bide.in_thread` begins and ends without it, too. Outside of
    requests, and in threads that a request starts itself, nothing changes.

    Args:
        local: the object; it is returned. Or the getter: called without arguments.
        set: the setter: called with what the getter has returned. Neither may wait.
        begin: called at the start of each request, in the place of ``__init__``.

    Raises:
        TypeError: ``local`` is neither; its ``__init__`` has arguments, and ``begin`` is not given.
    """
    if set is not None:
        keep(_Pair(local, set, begin))
        return None
    if not isinstance(local, threading.local):
        raise TypeError(
            "per_request() takes a threading.local, or a getter and a setter, not "
            f"{type(local).__name__}; what is kept in a ContextVar is each request's own already"
        )
    keep(Local(local, begin))
    return local


def keep(state: Kept) -> Callable[[], None]:
    """Register a state of each thread, once.

    Returns what takes it out again, between requests; nothing, where it was there before.
    """
    if any(each.of is state.of for each in kept):
        return nothing
    kept.append(state)
    return lambda: kept.remove(state)


class Local:
    """The attributes of a ``threading.local``."""

    def __init__(self, local: threading.local, begin: Callable[[], object] | None = None) -> None:
        self.of = local
        self._begin = begin if begin is not None else _initializer(local)

    def take(self) -> dict[str, Any]:
        """Return a copy of its attributes."""
        return self.of.__dict__.copy()

    def put(self, state: dict[str, Any]) -> None:
        """Set its attributes, and have no others."""
        attributes = self.of.__dict__
        attributes.clear()
        attributes.update(state)

    def begin(self) -> None:
        """Make it as it is on a new thread."""
        self.of.__dict__.clear()
        if self._begin is not None:
            self._begin()

    def end(self) -> None:
        """Drop its attributes."""
        self.of.__dict__.clear()


def _initializer(local: threading.local) -> Callable[[], object] | None:
    if type(local).__init__ is object.__init__:
        return None
    initialize: Callable[[], object] = local.__init__  # type: ignore[misc]
    try:
        inspect.signature(initialize).bind()
    except TypeError:
        raise TypeError(
            f"a new {type(local).__name__} needs arguments: give per_request() a function `begin` "
            "that makes it as it is on a new thread"
        ) from None
    return initialize


class _Pair:
    """What a getter and a setter stand for."""

    def __init__(
        self,
        get: Callable[[], Any],
        set: Callable[[Any], object],  # noqa: A002
        begin: Callable[[], object] | None,
    ) -> None:
        self.of: object = get
        self.take = get
        self.put = set
        self.begin = begin or nothing
        self.end = nothing


def nothing() -> None:
    """Do nothing."""


# The switches -----------------------------------------------------------------------------------


_FAILED: Final = "what was given to bide.per_request failed: %r"  # nothing else is ended for it


def apart(switch: Callable[[], object]) -> None:
    """Switch to what runs on this thread meanwhile; what is kept is put away until it returns."""
    states = _taken()
    try:
        switch()
    finally:
        _put(states)


@holds_lock  # no lock, but a wait here would switch in the midst of a switch
def _taken() -> list[tuple[Kept, Any]]:
    states: list[tuple[Kept, Any]] = []
    for each in kept:
        try:
            states.append((each, each.take()))
        except Exception:
            log.exception(_FAILED, each.of)  # it stays as the thread has it
    return states


@holds_lock
def _put(states: list[tuple[Kept, Any]]) -> None:
    for each, state in states:
        try:
            each.put(state)
        except Exception:
            log.exception(_FAILED, each.of)


def wait_apart(switch: Callable[[], object]) -> None:
    """Do the same for a request, which begins with none of what is registered meanwhile."""
    known = len(kept)
    try:
        apart(switch)
    finally:
        if len(kept) > known:
            begin(known)


@holds_lock
def begin(known: int = 0) -> None:
    """Have a request begin with none of what is kept, but for the first ``known``."""
    for each in kept[known:]:
        try:
            each.begin()
        except Exception:
            log.exception(_FAILED, each.of)


def own(run: Callable[[], object]) -> None:
    """Run a request from start to end, with a state of its own."""
    begin()
    try:
        run()
    finally:
        for each in kept:
            try:
                each.end()
            except Exception:
                log.exception(_FAILED, each.of)


def alone(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function with a state of its own, on a thread that calls others after it."""
    result: list[T] = []
    call = partial(function, *args, **kwargs)
    apart(partial(own, lambda: result.append(call())))
    return result[0]
