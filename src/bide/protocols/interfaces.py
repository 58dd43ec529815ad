"""What a protocol stands between: the transport below it and the owner of the connection above.

Any protocol's; each is written to and called as its docstrings say.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from bide.errors import RemoteProtocolError
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal


class Transport(Protocol):
    """Where the bytes of responses go; any thread."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Reentrant."""

    def write(self, data: bytes, *more: bytes) -> bool:
        """Send or queue, by reference; false when the client is gone."""

    def room(self) -> Signal | None:
        """Give what fires when the client has caught up; None when it is not behind."""

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; give the bytes sent, 0 if the client is behind, -1 if it is gone.

        Never under the lock: a disk may be slow.
        """

    def writable(self) -> Signal:
        """Give what fires when the client takes bytes again, or is gone."""

    def pause_reading(self) -> None:
        """Take no more from the client for now."""

    def resume_reading(self) -> None:
        """Take from the client again."""

    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close; with ``linger``, drop what still comes in first."""

    def abort(self) -> None:
        """Reset the connection."""


class Owner(Protocol):
    """Who owns the connection: begins streams in order, one after another.

    Attributes:
        peer: the two ends of the connection.
    """

    peer: Peer

    @property
    def full(self) -> bool:
        """Whether no more streams should be brought before the protocol is told to read on."""

    def begin(self, stream: Stream) -> None:
        """Take a new stream, whose head is complete; on the loop."""

    def refuse(self, error: RemoteProtocolError) -> None:
        """Call the protocol's ``answer_refusal`` when it is its turn; on the loop."""

    def ended(self, stream: Stream) -> None:
        """Know that the connection is free for the next stream; any thread."""
