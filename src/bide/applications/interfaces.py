"""Which interface an application has, WSGI or ASGI: by the arguments that it takes.

Not by whether it is a coroutine function: a WSGI application of Bide's may be one.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, Final, Literal

from bide.capabilities import parts
from bide.errors import LoadError

Interface = Literal["wsgi", "asgi"]

_TAKES: Final[dict[Interface, int]] = {"wsgi": 2, "asgi": 3}
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def interface_of(application: Any, spec: str, wanted: str = "auto") -> Interface:
    """Return the interface of an application: 2 required arguments are WSGI's, 3 are ASGI's.

    One whose arguments cannot be known, as it is written in C, is taken for WSGI.

    Args:
        application: anything.
        spec: what to call it in errors.
        wanted: "wsgi" or "asgi", if it is known; "auto".

    Raises:
        LoadError: it cannot be called, has neither interface, or may have both.
    """
    if not callable(application):
        raise LoadError(
            f"{spec} is not an application: {type(application).__name__} is not callable"
        )
    if wanted == "wsgi":
        return "wsgi"
    if wanted == "asgi":
        return "asgi"
    try:
        signature = inspect.signature(application, follow_wrapped=False)
    except (TypeError, ValueError):  # written in C: calling it will tell
        return "wsgi"
    found = _by(signature)
    if len(found) > 1:  # a wrapper that passes on what it gets, perhaps
        wrapped = {each for inner in _wrapped(application) for each in _known(inner)}
        found = list(wrapped) if len(wrapped) == 1 else found
    if len(found) == 1:
        return found[0]
    if found:
        raise LoadError(
            f"{spec} could be a WSGI or an ASGI application: write "
            f"{_written('wsgi', spec)} or {_written('asgi', spec)}, or give --interface"
        )
    raise _neither(signature, spec)


def _wrapped(application: Any) -> Iterator[Any]:
    """Yield what a wrapper may call: what it says that it wraps, or has, or is closed over."""
    yield inspect.unwrap(application)
    yield from parts(application)
    for cell in getattr(application, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # it is empty
            yield cell.cell_contents


def _known(application: Any) -> list[Interface]:
    """Return the interface of an application that has one alone; else nothing."""
    if not callable(application):
        return []
    try:
        found = _by(inspect.signature(application, follow_wrapped=False))
    except (TypeError, ValueError):
        return []
    return found if len(found) == 1 else []


def _written(interface: Interface, spec: str) -> str:
    return f"{interface}:{spec}" if ":" in spec else f'interface="{interface}"'


def _by(signature: inspect.Signature) -> list[Interface]:
    """Return the interfaces that a signature fits."""
    parameters = signature.parameters.values()
    required = sum(p.kind in _POSITIONAL and p.default is p.empty for p in parameters)
    fitting = [each for each, number in _TAKES.items() if _binds(signature, number)]
    return [each for each in fitting if _TAKES[each] == required] or fitting


def _binds(signature: inspect.Signature, number: int) -> bool:
    try:
        signature.bind(*[None] * number)
    except TypeError:
        return False
    return True


def _neither(signature: inspect.Signature, spec: str) -> LoadError:
    hint = ""
    if _binds(signature, 0):
        hint = f"; if it makes an application, write {spec}()"
    elif _binds(signature, 1) and "scope" in signature.parameters:
        hint = (
            "; one of ASGI 2, which takes (scope) alone, is to be wrapped: "
            "asgiref.compatibility.double_to_single_callable"
        )
    return LoadError(
        f"{spec} is not a WSGI application: it does not take (environ, start_response); nor an "
        f"ASGI one, which takes (scope, receive, send){hint}"
    )


def check(application: Any, spec: str) -> None:
    """Check that a thing is a WSGI application, where nothing else is served.

    Raises:
        LoadError: it is not.
    """
    if not callable(application):
        interface_of(application, spec)
    try:
        # Not that of a wrapped function: a decorator may make a WSGI application of something else.
        signature = inspect.signature(application, follow_wrapped=False)
    except (TypeError, ValueError):  # as above
        return
    if "wsgi" in _by(signature):
        return
    if _by(signature):
        raise LoadError(
            f"{spec} is an ASGI application, but only WSGI applications are served here"
        )
    raise _neither(signature, spec)
