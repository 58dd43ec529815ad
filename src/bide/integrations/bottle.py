"""Bottle: ``request`` and ``response`` stay a request's own while it waits.

Call ``bide.integrations.bottle.install()`` once, at import. Bottle keeps what they hold in locals
of the thread, inside properties of two classes. These are replaced by properties over one local of
Bide's, which is each request's own; see :func:`bide.per_request`. Modules that have already
imported ``request`` and ``response`` use the new properties, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import bottle

from bide.errors import StartError
from bide.waiting.thread_locals import Local, keep, nothing

_NEEDED: Final = {"environ", "_status_line", "_status_code", "_cookies", "_headers", "body"}

_local: Final = threading.local()
_replaced: list[tuple[type, str, property]] = []
_forget: list[Callable[[], None]] = []


def install() -> Callable[[], None]:
    """Make ``bottle.request`` and ``bottle.response`` each request's own.

    Call it once, while no request is in progress.

    Returns:
        A function that undoes this; call it between requests. If this was installed already, the
        function does nothing.

    Raises:
        StartError: this version of Bottle keeps them in another way.
    """
    if _replaced:
        return nothing
    found = [
        (kind, name, value)
        for kind in (bottle.LocalRequest, bottle.LocalResponse)
        for name, value in vars(kind).items()
        if isinstance(value, property)
    ]
    missing = _NEEDED.difference(name for _, name, _ in found)
    if missing:
        raise StartError(
            f"bide.integrations.bottle does not support Bottle {bottle.__version__}, whose request "
            f"and response do not have {', '.join(sorted(missing))}: it is made for Bottle 0.13"
        )
    for kind, name, value in found:
        setattr(kind, name, _property(name))
        _replaced.append((kind, name, value))
    _forget.append(keep(Local(_local)))
    return uninstall


def uninstall() -> None:
    """Undo ``install``, if it was called; between requests."""
    while _replaced:
        setattr(*_replaced.pop())
    while _forget:
        _forget.pop()()


def _property(name: str) -> property:
    def get(_: object) -> Any:
        try:
            return getattr(_local, name)
        except AttributeError:
            # Bottle's own words.
            raise RuntimeError("Request context not initialized.") from None

    def put(_: object, value: Any) -> None:
        setattr(_local, name, value)

    def delete(_: object) -> None:
        delattr(_local, name)

    return property(get, put, delete)
