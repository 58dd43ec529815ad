"""web.py: ``web.ctx``, sessions and the database's connection stay a request's own while it waits.

``bide.integrations.webpy.install()``, once, at import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from web.utils import ThreadedDict

from bide.waiting.thread_locals import keep


def install() -> Callable[[], None]:
    """Make every ``ThreadedDict`` each request's own: web.py clears them all with each request.

    Returns what takes it back, between requests. Called again it changes nothing, and takes nothing
    back.
    """
    return keep(_Dicts())


class _Dicts:
    """What all of web.py's dictionaries of one thread hold; some are made while requests run."""

    of: object = ThreadedDict

    def take(self) -> list[tuple[Any, dict[str, Any]]]:
        """Return a copy of each."""
        return [(each, each.copy()) for each in list(ThreadedDict._instances)]

    def put(self, state: list[tuple[Any, dict[str, Any]]]) -> None:
        """Fill them with these, and with nothing else."""
        ThreadedDict.clear_all()
        for each, items in state:
            each.update(items)

    def begin(self) -> None:
        """Empty them."""
        ThreadedDict.clear_all()

    def end(self) -> None:
        """Empty them."""
        ThreadedDict.clear_all()
