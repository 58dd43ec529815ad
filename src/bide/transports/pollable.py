"""What a poller calls; a module of its own, since it is compiled, and the pollers are not."""

from __future__ import annotations

from bide.compiling import mypyc_attr
from bide.protocols.interfaces import Transport


@mypyc_attr(allow_interpreted_subclasses=True)
class Pollable(Transport):
    """A transport whose socket a poller watches."""

    __slots__ = ()

    def ready(self, events: int) -> None:
        """Called when the socket can be read or written, or is gone; on the loop."""
        raise NotImplementedError
