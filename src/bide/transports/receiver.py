"""Who is told what happens on a connection."""

from __future__ import annotations


class Receiver:
    """What a transport calls, on the loop."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Called with what the client has sent."""
        raise NotImplementedError

    def eof_received(self) -> None:
        """Called when the client will send no more; it may still read."""
        raise NotImplementedError

    def eof_ahead(self) -> None:
        """Called while reading is paused, when ``eof_received`` will follow what is unread."""
        raise NotImplementedError

    def connection_lost(self) -> None:
        """Called when the connection has ended: once, and last."""
        raise NotImplementedError
