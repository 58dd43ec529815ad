"""What conversations have in common with the others of their application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from bide.exchange.call import Call
from bide.forks import end_child


class Site:
    """What the conversations of one application share; a base of who begins them.

    Attributes:
        application: the WSGI callable.
        name: what it is called in the log.
        environ: the keys that all environs have; from ``server_environ``.
        state: what ``on_start`` functions have made; becomes ``environ["bide.state"]``.
    """

    application: Callable[..., Any]
    name: str
    environ: dict[str, Any]
    state: dict[str, Any]

    def status(self) -> Any:
        """Return a snapshot; becomes ``environ["bide.status"]``. From any thread."""
        raise NotImplementedError

    def done(self, call: Call) -> None:
        """Called when a call has ended; on its thread."""
        raise NotImplementedError


class ForkedSite(Site):
    """What a conversation belongs to in a forked child: with its end the process ends."""

    def __init__(self, site: Site) -> None:
        self.application = site.application
        self.name = site.name
        self.environ = site.environ
        self.state = site.state
        self._site = site

    def status(self) -> Any:
        """Return what the parent's site can still say."""
        return self._site.status()

    def done(self, call: Call) -> NoReturn:  # noqa: ARG002 - a site's signature
        """Leave."""
        end_child()
