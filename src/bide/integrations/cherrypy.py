"""CherryPy: ``cherrypy.request``, ``response`` and ``session`` stay a request's own while it waits.

Call ``bide.integrations.cherrypy.install()`` once, at import.
"""

from __future__ import annotations

from collections.abc import Callable

import cherrypy

from bide.waiting.thread_locals import Local, keep


def install() -> Callable[[], None]:
    """Make ``cherrypy.serving`` each request's own; see :func:`bide.per_request`.

    ``cherrypy.thread_data`` stays each thread's.

    Returns:
        A function that undoes this; call it between requests. If this was installed already, the
        function does nothing.
    """
    return keep(Local(cherrypy.serving))
