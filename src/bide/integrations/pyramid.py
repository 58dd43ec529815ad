"""Pyramid: ``get_current_request`` and ``get_current_registry`` are right after a wait, too.

Call ``bide.integrations.pyramid.install()`` once, at import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyramid.threadlocal import defaults, manager

from bide.waiting.thread_locals import Local, keep


def install() -> Callable[[], None]:
    """Make Pyramid's stack of each thread each request's own; see :func:`bide.per_request`.

    Returns:
        A function that undoes this; call it between requests. If this was installed already, the
        function does nothing.
    """
    return keep(Local(manager, partial(manager.__init__, default=defaults)))
