"""State that a library keeps for each thread, made each request's own.

The requests of one thread take turns. What is registered here is put away when one of them waits,
and brought back when it goes on. Each request begins with none of it, and what it has left is
dropped at its end. Where nothing is registered, a switch costs one check of an empty list.

All functions but those that register are called on the thread that is switched.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar, overload

from bide.waiting.locks import holds_lock

log = logging.getLogger("bide")

T = TypeVar("T")
L = TypeVar("L", bound=threading.local)


class Kept:
    """A base class of state that each thread has; all methods are about the calling thread's.

    Attributes:
        of: the object that keeps the state; each is registered once.
    """

    of: Any

    def take(self) -> Any:
        """Return the state; it is not changed before ``put`` or ``begin``."""
        raise NotImplementedError

    def put(self, state: Any) -> None:
        """Set a state that ``take`` has returned."""
        raise NotImplementedError

    def begin(self) -> None:
        """Set the state of a new request."""
        raise NotImplementedError

    def end(self) -> None:
        """Drop the state of a request that has ended."""
        raise NotImplementedError


kept: Final[list[Kept]] = []
"""The states that are registered; only tests take one out."""


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
    """Give each request its own ``threading.local``, or state behind a getter and a setter.

    Call this once, at import. From then on, each request of Bide finds the same values after a wait
    as before. It begins with an empty local, on which ``__init__`` is called as on a new thread.
    Its values are dropped at its end. The thread's own values are saved meanwhile, and restored.

    With a getter and a setter, a request begins with the value that the thread has. The thread's
    value is set back when the request waits or ends.

    A function that a request calls by :func:`bide.in_thread` does not see the request's state.
    Nothing changes outside of requests, and in threads that a request starts itself.

    Args:
        local: the local, which is returned; or the getter, called without arguments.
        set: the setter, called with a value that the getter has returned. Neither may wait.
        begin: called at the start of each request, instead of ``__init__``.

    Raises:
        TypeError: ``local`` is not a local or a getter; or its ``__init__`` needs arguments, and
            there is no ``begin``.
    """
    if set is not None:
        keep(_Pair(local, set, begin))
        return None
    if not isinstance(local, threading.local):
        raise TypeError(
            "per_request() takes a threading.local, or a getter and a setter, not "
            f"{type(local).__name__}; a ContextVar needs no per_request()"
        )
    keep(Local(local, begin))
    return local


def keep(state: Kept) -> Callable[[], None]:
    """Register a state, once.

    Return a function that takes it out again; call that between requests. It does nothing where
    the state was registered before.
    """
    if any(each.of is state.of for each in kept):
        return nothing
    kept.append(state)
    return lambda: kept.remove(state)


class Local(Kept):
    """The attributes of a ``threading.local``."""

    def __init__(self, local: threading.local, begin: Callable[[], object] | None = None) -> None:
        self.of = local
        self._begin = begin if begin is not None else _initializer(local)

    def take(self) -> dict[str, Any]:
        """Return a copy of its attributes."""
        attributes: dict[str, Any] = self.of.__dict__
        return attributes.copy()

    def put(self, state: dict[str, Any]) -> None:
        """Replace its attributes by those of ``state``."""
        attributes = self.of.__dict__
        attributes.clear()
        attributes.update(state)

    def begin(self) -> None:
        """Reset it to its state on a new thread."""
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
            f"a new {type(local).__name__} needs arguments: give per_request() a function "
            "`begin` that sets it up, as on a new thread"
        ) from None
    return initialize


class _Pair(Kept):
    """The state behind a getter and a setter."""

    def __init__(
        self,
        get: Callable[[], Any],
        set: Callable[[Any], object],  # noqa: A002
        begin: Callable[[], object] | None,
    ) -> None:
        self.of = get
        self._get = get
        self._set = set
        self._begin = begin or nothing

    def take(self) -> Any:
        """Return what the getter returns."""
        return self._get()

    def put(self, state: Any) -> None:
        """Call the setter."""
        self._set(state)

    def begin(self) -> None:
        """Call the function ``begin``, if there is one; else leave it as the thread has it."""
        self._begin()

    def end(self) -> None:
        """Drop nothing: ``put`` sets back what the thread has."""


def nothing() -> None:
    """Do nothing."""


# The switches -----------------------------------------------------------------------------------


_FAILED: Final = "what was given to bide.per_request failed: %r"  # logged; the request goes on


def apart(switch: Callable[[], object]) -> None:
    """Call ``switch``, which runs other code on this thread, with the state put away."""
    states = _taken()
    try:
        switch()
    finally:
        _put(states)


def _taken() -> list[tuple[Kept, Any]]:
    states: list[tuple[Kept, Any]] = []
    for each in kept:
        try:
            states.append((each, each.take()))
        except Exception:
            log.exception(_FAILED, each.of)  # it stays as the thread has it
    return states


def _put(states: list[tuple[Kept, Any]]) -> None:
    for each, state in states:
        try:
            each.put(state)
        except Exception:
            log.exception(_FAILED, each.of)


def wait_apart(switch: Callable[[], object]) -> None:
    """As :func:`apart`, for a request that waits; begin what is registered meanwhile."""
    known = len(kept)
    try:
        apart(switch)
    finally:
        if len(kept) > known:
            begin(known)


def begin(known: int = 0) -> None:
    """Begin each state for a request, except the first ``known``."""
    for each in kept[known:]:
        try:
            each.begin()
        except Exception:
            log.exception(_FAILED, each.of)


def own(run: Callable[[], object]) -> None:
    """Run a request from start to end, with state of its own."""
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
    """Call a function with state of its own, on a thread that calls other functions later."""
    result: list[T] = []
    call = partial(function, *args, **kwargs)
    apart(partial(own, lambda: result.append(call())))
    return result[0]


holds_lock(_taken, _put, begin)
