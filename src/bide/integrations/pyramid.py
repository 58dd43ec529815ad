"""Pyramid: ``get_current_request`` and ``get_current_registry`` tell the truth after a wait.

``bide.integrations.pyramid.install()``, once, at import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyramid.threadlocal import defaults, manager

from bide.waiting.thread_locals import Local, keep


def install() -> Callable[[], None]:
    """Make Pyramid's stack of each thread each request's own; see :func:`bide.per_request`.

    Returns what takes it back, between requests. Called again it changes nothing, and takes nothing
    back.
    """
    return keep(Local(manager, partial(manager.__init__, default=defaults)))
