"""CherryPy: ``cherrypy.request``, ``response`` and ``session`` stay a request's own while it waits.

``bide.integrations.cherrypy.install()``, once, at import.
"""

from __future__ import annotations

from collections.abc import Callable

import cherrypy

from bide.waiting.thread_locals import Local, keep


def install() -> Callable[[], None]:
    """Make ``cherrypy.serving`` each request's own; see :func:`bide.per_request`.

    ``cherrypy.thread_data`` stays each thread's.

    Returns what takes it back, between requests. Called again it changes nothing, and takes nothing
    back.
    """
    return keep(Local(cherrypy.serving))
