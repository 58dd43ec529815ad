"""Names of promises, for the status and the log: what a wait waits for.

A name is made on the thread that asks for it. No code of the application is called, so it may be
coarse.
"""

from __future__ import annotations

import asyncio
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from bide.waiting.actor import Call
from bide.waiting.adapters import All

_SHOWN: Final = 3
"""How many promises of a ``wait_all`` are named; the others are counted."""

_WRITTEN: Final = {
    CoroutineType: "coroutine",
    GeneratorType: "generator",
    AsyncGeneratorType: "async generator",
}
"""Kinds of promises that are named as their function is, and what each kind is called."""


def name_of_promise(promise: Any) -> str:
    """Return a promise's name: ``coroutine fetch``, ``task fetch``, ``Future``, ``Deferred``.

    A promise of a private class has the name of the first public one that the class inherits from.
    """
    kind = type(promise)
    if kind is All:
        names = [name_of_promise(each) for each in promise.promises[:_SHOWN]]
        more = len(promise.promises) - _SHOWN
        if more > 0:
            names.append(f"{more} more")
        return f"all of {', '.join(names)}" if names else "nothing"
    if kind is Call:
        return name_of_promise(promise.actor.subject)
    if kind in _WRITTEN:
        return f"{_WRITTEN[kind]} {_written(promise)}"
    if isinstance(promise, asyncio.Task):
        coroutine = asyncio.Task.get_coro(promise)
        return f"task {_written(coroutine)}" if type(coroutine) in _WRITTEN else "task"
    names = [each.__name__ for each in kind.__mro__[:-1]]
    return next((each for each in names if each[:1] != "_"), names[0] if names else kind.__name__)


def _written(made: Any) -> str:
    """Return the name of the function that made this, without the functions around it."""
    name: str = made.__qualname__
    return name.rpartition("<locals>.")[2]
