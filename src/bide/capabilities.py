"""Declaring, and reading, where an application can run.

A server cannot know whether an application will block. So the application declares, in an attribute
of its callable, where it can run. This module reads that, and chooses an executor by name. It does
not import executors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

Capability = Literal["async", "threads", "processes"]
ExecutorName = Literal["loop", "threads", "serial", "tasks", "processes"]

ATTRIBUTE: Final = "__capabilities__"
ALL: Final[frozenset[str]] = frozenset({"async", "threads", "processes"})
UNDECLARED: Final[frozenset[str]] = frozenset({"threads", "processes"})
"""Where an application that declares nothing can run (PEP 3333, "Thread Support")."""

# The attributes in which middleware keeps what it wraps, by convention: most classes, Flask's own,
# and Werkzeug's. ``__wrapped__`` is not among them: functools.wraps copies the declaration to the
# wrapper, and a declaration on the wrapper is meant for both.
_INNER: Final = ("app", "application", "wsgi_app")

T = TypeVar("T")


def capable(*capabilities: Capability) -> Callable[[T], T]:
    """Declare where an application can run: a decorator for functions, classes and instances.

    - ``"async"``: it never blocks its thread; it waits with ``wait``, promises or ``await``. It
      runs on the event loop.
    - ``"threads"``: it may be called by several threads at once.
    - ``"processes"``: it may be run by several processes at once.

    Bide trusts the declaration. An application that blocks the event loop all the same is named in
    the log. An application that declares nothing has ``"threads"`` and ``"processes"`` (PEP 3333,
    "Thread Support").

    Args:
        capabilities: one or more of the above.

    Returns:
        A decorator, which sets an attribute of the application and returns the application.

    Raises:
        ValueError: no capability was given, or an unknown one.
        TypeError: from the decorator: no attribute can be set on this object.
    """
    declared = frozenset(capabilities)
    if not declared or not declared <= ALL:
        called = any(callable(each) for each in capabilities)
        hint = ': write @capable("async") above the application' if called else ""
        raise ValueError(
            f"capable() takes one or more of {', '.join(sorted(ALL))}, not {capabilities!r}{hint}"
        )

    def declare(application: T) -> T:
        try:
            setattr(application, ATTRIBUTE, declared)
        except (AttributeError, TypeError):
            raise TypeError(
                f"capable() cannot set an attribute on {application!r}: declare what it belongs "
                "to, or wrap it in a function of your own and declare that"
            ) from None
        return application

    return declare


@dataclass(frozen=True, slots=True)
class Decision:
    """Which executor an application gets, and why."""

    executor: ExecutorName
    reason: str


TASKS: Final = Decision(
    "tasks", "it is an ASGI application, whose calls are tasks of the event loop"
)
"""That of every ASGI application."""


def decide(application: Any, override: str = "auto", processes: bool = True) -> Decision:
    """Choose an executor that the whole stack can run on: loop, else threads, else processes.

    Args:
        application: the WSGI callable.
        override: the executor that the deployer wants; "auto": as the application declares.
        processes: whether there can be child processes here; else it runs one by one in their
            place.
    """
    if override == "loop":
        return Decision("loop", "--executor loop was given")
    if override == "threads":
        return Decision("threads", "--executor threads was given")
    if override == "processes":
        return _in_processes("--executor processes was given", processes)
    if _is_coroutine(application):
        return Decision("loop", "it is a coroutine function, which runs on the event loop")
    declared_by_all = ALL
    reasons = []
    for part in parts(application):
        declared = declaration(part)
        declared_by_all &= UNDECLARED if declared is None else declared
        reasons.append(f"{name_of(part)} {_says(declared)}")
    said = "; ".join(reasons)
    if "async" in declared_by_all:
        return Decision("loop", said)
    if "threads" in declared_by_all:
        return Decision("threads", said)
    if "processes" in declared_by_all:
        return _in_processes(said, processes)
    return Decision(
        "serial",
        f"{said}: nowhere can all of them run, so one request at a time on a thread of its own",
    )


def _in_processes(why: str, possible: bool) -> Decision:
    if possible:
        return Decision("processes", why)
    return Decision(
        "serial",
        f"{why}: there are no child processes under another server, so one request at a time "
        "on a thread of its own",
    )


def declaration(application: Any) -> frozenset[str] | None:
    """Return what a callable, or its class, declares; None where it declares nothing.

    A method without a declaration has that of its object: middleware often wraps ``app.wsgi_app``,
    where the declaration is on ``app``.
    """
    declared: frozenset[str] | None = getattr(application, ATTRIBUTE, None)
    if declared is None and inspect.ismethod(application):
        return declaration(application.__self__)
    return declared


def parts(application: Any) -> Iterator[Any]:
    """Yield the application and what it wraps, outermost first, as far as attributes show it."""
    seen: set[int] = set()
    part = application
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        yield part
        part = _inner(part)


def _inner(part: Any) -> Any:
    for name in _INNER:
        inner = inspect.getattr_static(part, name, None)
        if inner is None or isinstance(inner, property):
            continue
        inner = getattr(part, name, None)
        own = getattr(inner, "__self__", None) is part
        if callable(inner) and not own and not isinstance(part, type):
            return inner
    return None


def _is_coroutine(application: Any) -> bool:
    call = getattr(application, "__call__", None)  # noqa: B004 - the method is what is wanted
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (application, call)
    )


def _says(declared: frozenset[str] | None) -> str:
    if declared is None:
        return "declares nothing, so it is assumed safe for threads and processes"
    return f"declares {', '.join(sorted(declared))}"


def name_of(application: Any) -> str:
    """Return an application's name: ``module.function`` or ``module.Class instance``."""
    if isinstance(application, type) or hasattr(application, "__qualname__"):
        return f"{application.__module__}.{application.__qualname__}"
    kind = type(application)
    return f"{kind.__module__}.{kind.__qualname__} instance"
