"""Who is told what happens on a connection."""

from __future__ import annotations

from typing import Protocol


class Receiver(Protocol):
    """Who is told what happens on the connection; on the loop."""

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""

    def eof_received(self) -> None:
        """Know that the client will send no more; it may still read."""

    def eof_ahead(self) -> None:
        """Know that ``eof_received`` will come, behind what reading was paused for."""

    def connection_lost(self) -> None:
        """Know that the connection has ended; once, and the last call."""
