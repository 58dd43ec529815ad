"""A stream's way to its client, whatever the protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from bide.compiling import mypyc_attr
from bide.errors import Cancelled
from bide.exchange.peer import Peer
from bide.waiting.outcome import Signal

if TYPE_CHECKING:
    from bide.exchange.stream import Stream


@mypyc_attr(allow_interpreted_subclasses=True)
class Channel:
    """A stream's way to its client: encodes, writes, and knows the connection.

    It may be the channel of several streams, so each call names its own. From any thread.

    Attributes:
        lock: the connection's (reentrant): held while one piece is encoded and written.
        peer: the two ends of the connection.
        sends_files: whether ``send_file`` and ``writable`` may be called.
    """

    __slots__ = ()

    lock: AbstractContextManager[Any]
    peer: Peer
    sends_files = False

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, and the head first if it was not sent; return false if the client is gone.

        Called under the lock. If the stream may send no body, only the block's length counts.
        """
        raise NotImplementedError

    def send_file(self, stream: Stream, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; return the bytes sent, 0 if the client is behind, -1 if it is gone.

        Never called under the lock: a disk may be slow.
        """
        raise NotImplementedError

    def writable(self, stream: Stream) -> Signal:
        """Return what fires when the client takes bytes of a file again, or is gone."""
        raise NotImplementedError

    def room(self, stream: Stream) -> Signal | None:
        """Return what fires when the client has caught up; None when it is not behind."""
        raise NotImplementedError

    def wanted(self, stream: Stream) -> None:
        """Called when the application waits for the body (100 Continue).

        Raises:
            LocalProtocolError: it is too late to ask the client for it.
        """

    def taken(self, stream: Stream) -> None:
        """Called when the application has made room in the body, which was full."""

    def ended(self, stream: Stream) -> None:
        """Called when the response is complete, or cut: the connection goes on or closes."""

    def broken_off(self, stream: Stream, why: Cancelled) -> None:
        """Called before the cut of an exchange that has followed an Upgrade, with the reason."""

    def inform(self, stream: Stream, fields: list[tuple[str, str]]) -> None:
        """Send headers ahead of the response's own (103, RFC 8297), if that can be.

        Called under the lock, before the head is sent.
        """
