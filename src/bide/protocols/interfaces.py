"""What a protocol stands between: the transport below it and the owner of the connection above.

Any protocol's; each is written to and called as its docstrings say.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from bide.errors import RemoteProtocolError
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server; in bytes where nothing else is said."""

    request_line: int = 8 * 1024
    head: int = 64 * 1024
    fields: int = 100
    body: int = 1024**3
    """0: any size."""
    chunks: int = 10_000
    """How many chunks a body may have, and one more for each CHUNK_DUE bytes."""
    framing: int = 4 * 1024
    """How much a chunked body's sizes, extensions and trailers may take beyond their due."""
    window: int = 64 * 1024
    """How much of a body waits for the application before the connection is read no further."""
    discard: int = 256 * 1024
    """How much of a body that the application left unread is read to keep the connection."""
    unsent: int = 64 * 1024
    """How much of a response waits for the client before the application does."""
    pipeline: int = 16
    """Requests that may wait on one connection before it is read no further."""
    linger: float = 2.0
    """Seconds of silence for which a closing connection is read, so that the client gets the
    answer."""


class Transport:
    """Where the bytes of responses go; from any thread, but where noted.

    Attributes:
        lock: guards the connection; reentrant.
    """

    __slots__ = ()

    lock: AbstractContextManager[Any]

    def write(self, data: bytes, *more: bytes) -> bool:
        """Send or queue, by reference; return false when the client will never take it."""
        raise NotImplementedError

    def room(self) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        raise NotImplementedError

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; return the bytes sent, 0 if the client is behind, -1 if it is gone.

        Never called under the lock: a disk may be slow.
        """
        raise NotImplementedError

    def writable(self) -> Signal:
        """Return what fires when the client takes bytes again, or is gone."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Leave what the client sends to the system; on the loop."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Read again."""
        raise NotImplementedError

    def close(self, linger: bool = False) -> None:
        """Send what is queued, then close; with ``linger``, drop what still comes in first."""
        raise NotImplementedError

    def abort(self) -> None:
        """Reset the connection."""
        raise NotImplementedError


class Owner(Protocol):
    """Who owns the connection: begins streams in order, one after another."""

    @property
    def full(self) -> bool:
        """Whether no more streams should be brought before the protocol is told to read on."""

    def begin(self, stream: Stream) -> None:
        """Take a new stream, whose head is complete; on the loop."""

    def refuse(self, error: RemoteProtocolError) -> None:
        """Call the protocol's ``answer_refusal`` when it is its turn; on the loop."""

    def ended(self, stream: Stream) -> None:
        """Know that the connection is free for the next stream; any thread."""
