"""web.py: ``web.ctx``, sessions and the database's connection stay a request's own while it waits.

Call ``bide.integrations.webpy.install()`` once, at import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from web.utils import ThreadedDict

from bide.waiting.thread_locals import Kept, keep


def install() -> Callable[[], None]:
    """Make every ``ThreadedDict`` each request's own: web.py clears them all with each request.

    Returns:
        A function that undoes this; call it between requests. If this was installed already, the
        function does nothing.
    """
    return keep(_Dicts())


class _Dicts(Kept):
    """The contents of all web.py dictionaries of one thread; some are made while requests run."""

    of = ThreadedDict

    def take(self) -> list[tuple[Any, dict[str, Any]]]:
        """Return each dictionary with a copy of its contents."""
        return [(each, each.copy()) for each in list(ThreadedDict._instances)]

    def put(self, state: list[tuple[Any, dict[str, Any]]]) -> None:
        """Replace their contents by those of ``state``."""
        ThreadedDict.clear_all()
        for each, items in state:
            each.update(items)

    def begin(self) -> None:
        """Empty them."""
        ThreadedDict.clear_all()

    def end(self) -> None:
        """Empty them."""
        ThreadedDict.clear_all()
