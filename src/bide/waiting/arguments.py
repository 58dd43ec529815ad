"""What was given to ``wait`` and the functions beside it by mistake, and what to write instead.

Each check is for one kind of argument, and raises what the caller raises. Nothing here waits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

_REMEDIES: Final = {
    "in_thread": "wait({}())",
    "spawn": "spawn(lambda: wait({}()))",
}
"""What to write where a function that is async was given, to be called in a thread."""


def seconds(timeout: Any) -> float:
    """Return a time-out in seconds; a Fraction or a Decimal will do.

    Raises:
        TypeError: it is not a number.
        ValueError: it is less than 0.
    """
    said = f"a timeout is a number of seconds, 0 or more, not {timeout!r}"
    try:
        fits = timeout >= 0
    except TypeError:
        raise TypeError(f"{said}, of type {_kind(timeout)}") from None
    if not fits:
        raise ValueError(said)
    return float(timeout)


def check_number(number: Any, what: str) -> None:
    """Raise TypeError for what is not a whole number, as a text from the environment."""
    if not hasattr(number, "__index__"):  # numpy's integers have it, too
        raise TypeError(f"{what} is a whole number, not {number!r}, of type {_kind(number)}")


def check_function(function: Any, caller: str) -> None:
    """Check what is to be called later, elsewhere: a function, and not what it returns.

    Args:
        function: what was given.
        caller: the name of the function to which it was given.

    Raises:
        TypeError: it cannot be called, or is async. A coroutine is closed.
    """
    if inspect.iscoroutine(function):
        function.close()
        raise TypeError(
            f"{caller}() calls a function, and was given a coroutine: "
            f"{_instead(caller, _written(function))}"
        )
    if not callable(function):
        raise TypeError(
            f"{caller}() calls a function, and was given a value of type {_kind(function)}: "
            f"write {caller}(f, x), not {caller}(f(x))"
        )
    if inspect.iscoroutinefunction(function):
        name = getattr(function, "__qualname__", _kind(function)).rpartition("<locals>.")[2]
        raise TypeError(
            f"{caller}() calls a function that may block, and {name} is async: "
            f"{_instead(caller, name)}"
        )


def _instead(caller: str, name: str) -> str:
    remedy = _REMEDIES.get(caller)
    return f"write {remedy.format(name)}" if remedy else "give it a function that is not async"


def not_a_promise(given: Any) -> str:
    """Return what is wrong with what :func:`bide.wait` was given, and what to write instead."""
    if inspect.isroutine(given):
        name = _written(given)
        if inspect.iscoroutinefunction(given):
            return f"{name} is an async function, and not a promise: call it, wait({name}())"
        if inspect.isasyncgenfunction(given):
            return f"{name} is an async generator function: iterate({name}()) takes its items"
        return (
            f"{name} is a function, and not a promise: call it, wait({name}()), if it returns "
            f"one; if it blocks, write wait(in_thread({name}))"
        )
    if isinstance(given, (list, tuple, set)) or inspect.isgenerator(given):
        return (
            f"{_kind(given)} is not a promise: give several to wait_all, each by itself, "
            "wait_all(a, b) or wait_all(*promises)"
        )
    if given is None:
        return (
            "None is not a promise: what was called has returned nothing, and is done; "
            "wait(in_thread(f, x)) waits for a function that blocks"
        )
    hint = "; iterate() takes an async iterable" if hasattr(given, "__aiter__") else ""
    return (
        f"{_kind(given)} is not a promise: wait for an awaitable, or for an object with "
        f"add_done_callback and result, or with addCallback{hint}"
    )


def check_async_iterable(given: Any) -> None:
    """Raise TypeError for what ``async for`` does not take."""
    if hasattr(type(given), "__aiter__"):
        return
    hint = ""
    if inspect.iscoroutine(given):
        hint = ": wait for it first, iterate(wait(...))"
        given.close()
    elif inspect.isroutine(given):
        hint = f": call it, iterate({_written(given)}())"
    elif hasattr(given, "__iter__"):
        hint = ": a plain for takes it"
    raise TypeError(f"iterate() takes an async iterable, not {_kind(given)}{hint}")


def check_async_manager(given: Any) -> None:
    """Raise TypeError for what ``async with`` does not take."""
    if hasattr(given, "__aenter__") and not isinstance(given, type):
        return
    hint = ""
    if inspect.iscoroutine(given):
        hint = ": wait for it first, using(wait(...))"
        given.close()
    elif inspect.isroutine(given) or isinstance(given, type):
        hint = f": call it, using({_written(given)}())"
    elif hasattr(given, "__enter__"):
        hint = ": a plain with takes it"
    raise TypeError(f"using() takes an async context manager, not {_kind(given)}{hint}")


def _kind(given: Any) -> str:
    return type(given).__name__


def _written(made: Callable[..., Any] | Any) -> str:
    """Return the name of a function, a class or a coroutine, without the functions around it."""
    name: str = made.__qualname__
    return name.rpartition("<locals>.")[2]
