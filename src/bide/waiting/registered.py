"""Kinds of promises that somebody registers: how each is turned into one that is known.

What ``wait`` is to take as a promise may be no awaitable, and call nothing back. A conversion gives
another promise for it, which ends the work when it is cancelled.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from bide.systems import at_fork
from bide.waiting.adapters import adapter_for
from bide.waiting.locks import Lock, holds_lock
from bide.waiting.outcome import Sink, Subscription

Conversion = Callable[[Any], Any]

ENGINES: Final = {
    "celery.result.AsyncResult": "of_celery",
    "celery.result.EagerResult": "of_celery",
    "celery.result.ResultSet": "of_celery",
    "distributed.client.Future": "of_dask",
    "django.tasks.base.TaskResult": "of_django_task",
    "ray.ObjectRef": "of_ray",
}
"""Full names of classes, and the functions of :mod:`bide.waiting.engines` that convert them."""

_lock = Lock()
# Written under the lock; what listens to promises of a class is read without it, too.
_registered: dict[type | str, Conversion] = {}  # by class, or by its full name
_found: weakref.WeakKeyDictionary[type, type[Subscription] | None] = weakref.WeakKeyDictionary()


class Converted(Subscription):
    """Listens to what a promise is converted to; its subclasses are made for one kind each."""

    __slots__ = ("_inner",)

    conversion: Conversion

    def __init__(self, promise: Any, sink: Sink) -> None:
        other = type(self).conversion(promise)
        if type(other) is type(promise):
            raise TypeError(
                f"the conversion of {type(promise).__name__} returned the same kind again"
            )
        self._inner = adapter_for(other)(other, sink)

    @property
    def begins(self) -> bool:
        """Whether ``start`` begins the promised work."""
        return self._inner.begins

    @property
    def on_thread(self) -> bool:
        """Whether ``cancel`` must be called on the waiting thread."""
        return self._inner.on_thread

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen."""
        self._inner.start(loop)

    def cancel(self) -> None:
        """Cancel it."""
        self._inner.cancel()


def register(kind: type | str, conversion: Conversion) -> None:
    """Have ``wait``, ``wait_all`` and ``yield`` take a kind of promise that is not known to Bide.

    It counts for subclasses, too, and before all that Bide itself sees in such an object. A second
    registration of a kind takes the place of the first, for promises that come later. From any
    thread.

    Args:
        kind: the class; or its full name, such as ``"engine.futures.Job"``, where the module that
            defines it is not to be imported for this.
        conversion: called with a promise, on the thread that waits; returns another promise, one
            that is known: an awaitable, or an object with ``add_done_callback`` and ``result``,
            such as a ``concurrent.futures.Future``. When the wait ends early, its ``cancel`` is
            called, which should end the work.

    Raises:
        TypeError: ``kind`` is neither, or ``conversion`` cannot be called.
    """
    if not isinstance(kind, (type, str)):
        raise TypeError(f"register() takes a class or its full name, not {kind!r}")
    if not callable(conversion):
        raise TypeError(f"register() takes a function that converts, not {conversion!r}")
    with _lock:
        _registered[kind] = conversion
        _found.clear()


def find(kind: type) -> type[Subscription] | None:
    """Return what listens to promises of this class; None if it is not registered."""
    try:
        return _found[kind]
    except KeyError:
        with _lock:
            found = _found[kind] = _look_for(kind)
            return found


def _look_for(kind: type) -> type[Subscription] | None:
    for each in kind.__mro__:
        name = f"{each.__module__}.{each.__qualname__}"
        conversion = _registered.get(each) or _registered.get(name)
        if conversion is None and name in ENGINES:
            conversion = getattr(import_module("bide.waiting.engines"), ENGINES[name])
        if conversion is not None:
            return type("Converted", (Converted,), {"conversion": staticmethod(conversion)})
    return None


def _after_fork() -> None:
    """Called in a forked child: a thread of its parent's may have held the lock."""
    global _lock
    _lock = Lock()


at_fork(after_in_child=_after_fork)
holds_lock(register, find)
