"""Under Twisted: a resource of twisted.web, and the reactor on asyncio's loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bide.hosts.twisted.resource import Resource as Resource


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: it imports Twisted's reactor, which is chosen once for a process.
    if name != "Resource":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bide.hosts.twisted.resource import Resource

    return Resource
