"""What the conversations of one application share."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NoReturn

from bide.exchange.call import Call
from bide.forks import end_child
from bide.waiting.locks import begins


class Site:
    """What the conversations of one application share; a base class of what begins them.

    Attributes:
        application: the WSGI callable.
        name: what it is called in the log.
        environ: the keys that all environs have; from ``server_environ``.
        state: made by ``on_start`` functions; becomes ``environ["bide.state"]``.
    """

    application: Callable[..., Any]
    name: str
    environ: dict[str, Any]
    state: dict[str, Any]

    def status(self) -> Any:
        """Return the server's counts; becomes ``environ["bide.status"]``. From any thread."""
        raise NotImplementedError

    def done(self, call: Call) -> None:
        """Called when a call has ended; on its thread."""
        raise NotImplementedError


class ForkedSite(Site):
    """The site of a conversation in a forked child: at the conversation's end the process ends."""

    def __init__(self, site: Site) -> None:
        self.application = site.application
        self.name = site.name
        self.environ = site.environ
        self.state = site.state
        self._site = site

    def status(self) -> Any:
        """Return the counts of the parent's site."""
        return self._site.status()

    def done(self, call: Call) -> NoReturn:  # noqa: ARG002 - a site's signature
        """End the process."""
        end_child()


def without_slot(application: Callable[..., Any]) -> Callable[..., Any]:
    """Return what calls an application as Python code calls Python code.

    An object's ``__call__`` is reached by way of C else, whose stack is kept while the call waits:
    736 bytes in CPython 3.11. ``__call__`` is looked up for each call, since others replace it.
    """
    kind = type(application)
    if type(getattr(kind, "__call__", None)) is not FunctionType:  # noqa: B004 - the class's own
        return application

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return kind.__call__(application, environ, start_response)

    begins(call)
    return call
