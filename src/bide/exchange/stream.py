"""One request and its response: legal order and lengths, for any protocol and interface.

A protocol makes a stream for each request, feeds its body, and encodes what the stream sends. An
interface (a WSGI conversation) reads the body and sends the response. The stream stands between
them and lets neither do what is not legal. It imports no sockets, threads or asyncio.

The response goes through these states; ``_LEGAL`` says what may be done in each::

    idle --start--> ready --send--> open --end--> ended
              (start again with exc_info)    any --cut--> cut
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from bide.errors import ClientDisconnected, LocalProtocolError
from bide.exchange.body import NO_BODY, Body
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.totals import UNBOUND, Total
from bide.waiting.locks import holds_lock
from bide.waiting.outcome import Signal

IDLE: Final = "idle"
READY: Final = "ready"
OPEN: Final = "open"
ENDED: Final = "ended"
CUT: Final = "cut"

_LEGAL: Final[dict[str, frozenset[str]]] = {
    "start": frozenset({IDLE, READY}),
    "send": frozenset({READY, OPEN}),
    "end": frozenset({READY, OPEN}),
}
_ILLEGAL: Final[dict[str, str]] = {
    IDLE: "start_response has not been called",
    READY: "the response has been started already",
    OPEN: "the response has been sent in part already",
    ENDED: "the response has ended",
    CUT: "the response has been cut",
}


class NotStartedError(LocalProtocolError):
    """A block, or the end, of a response that has no head."""


class Channel:
    """A stream's way to its client: encodes, writes, and knows the connection.

    It may be the channel of several streams, so each call names its own. From any thread.

    Attributes:
        lock: the connection's (reentrant): held while one piece is encoded and written.
        peer: the two ends of the connection.
        sends_files: whether ``send_file`` and ``writable`` are there to be called.
    """

    __slots__ = ()

    lock: AbstractContextManager[Any]
    peer: Peer
    sends_files = False

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, the head before it where it was not sent; false if the client is gone.

        Called under the lock. Of a block for a stream without a body only the length is of use.
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
        """Called when the application has made room in a window of the body that was full."""

    def ended(self, stream: Stream) -> None:
        """Called when the response is complete, or cut: the connection goes on or closes."""


class Stream:
    """One exchange. One conversation sends the response, and the threads that push for it.

    Attributes:
        request: what was asked.
        peer: who asked, and where.
        body: the request's body.
        state: the response's state.
        head: the response's head, once started.
        sent: bytes of the body that were sent, without framing.
        bodiless: whether no byte of the body may be sent: a HEAD request, or a 204 or 304.
        gone: whether the client has left; set by the loop, read by any thread.
    """

    __slots__ = (
        "_channel",
        "_lock",
        "bodiless",
        "body",
        "expects_continue",
        "gone",
        "head",
        "peer",
        "request",
        "sent",
        "state",
    )

    def __init__(
        self, request: Request, channel: Channel, window: int, unread: Total = UNBOUND
    ) -> None:
        """Make a stream.

        Args:
            request: what was asked.
            channel: the way to the client.
            window: bytes of the body that wait for the application; 0 for a request without one.
            unread: the total that counts what is unread of the body.
        """
        self.request = request
        self.peer = channel.peer
        self._channel = channel
        self._lock = channel.lock
        self.body = Body(window, unread) if window else NO_BODY
        self.bodiless = request.method == "HEAD"
        self.expects_continue = False
        self.head: Head | None = None
        self.state = IDLE
        self.sent = 0
        self.gone = False

    def after_fork(self) -> None:
        """Give the client up, in a forked child: the exchange is its parent's."""
        self._channel = _NOBODY
        self._lock = _NOBODY.lock  # the connection's may be held by a thread that is not here
        self.body = _LOST
        self.gone = True

    def switch(self, channel: Channel) -> None:
        """Have another channel, with the same lock: its connection's protocol is another now."""
        self._channel = channel

    # The request, on the application's thread ------------------------------------------------

    def receive(self) -> bytes | Signal:
        """Return the next block of the body; as :meth:`Body.receive`.

        Raises:
            LocalProtocolError: a refusal has begun to go out to a client that sends its body only
                when it is told to.
        """
        body = self.body
        block = body.receive()
        # The loop marks the pause, and then looks for room. Here room is made, and then the mark
        # is looked for.
        if body.paused and not body.full:
            self._channel.taken(self)
        if isinstance(block, Signal) and self.expects_continue:
            self._channel.wanted(self)
        return block

    # The response, from any thread -----------------------------------------------------------

    @property
    def head_sent(self) -> bool:
        """Whether it is too late for another head."""
        return self.state not in (IDLE, READY)

    @property
    def behind(self) -> bool:
        """Whether the client has more to take before it should be sent more."""
        return self._channel.room(self) is not None

    @property
    def sends_files(self) -> bool:
        """Whether :meth:`send_file` may be called."""
        return self._channel.sends_files

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Set the head, or replace one that has not been sent.

        Raises:
            LocalProtocolError: it is too late, or the head may not be sent.
        """
        if self.state != IDLE:
            self._require("start")
        head = Head(status, headers)
        self.head = head
        self.bodiless = head.bodiless or self.request.method == "HEAD"
        self.state = READY

    def announce(self, length: int) -> None:
        """Add a Content-Length, in bytes, to the head, which has none and has not been sent."""
        head = self.head
        assert head is not None
        head.announce(length)

    @holds_lock
    def send(self, block: bytes) -> Signal | None:
        """Send a block that is not empty, and before the first one the head.

        Return what to wait for before the next block when the client is behind, else None. After
        as much as Content-Length says there is no next block, and nothing to wait for.

        Raises:
            ClientDisconnected: the client has left.
            LocalProtocolError: not now, or more than Content-Length; nothing of it was sent.
        """
        with self._lock:
            self._require("send")
            self._write(block, False)
            head = self.head
            if head is not None and head.length == self.sent:
                return None
        return self._channel.room(self)

    @holds_lock
    def end(self, block: bytes = b"") -> None:
        """Send a last block, possibly empty, and end the response; raises as :meth:`send`.

        Raises:
            LocalProtocolError: that is less than Content-Length; all that is left is to cut it.
        """
        with self._lock:
            if self.state != READY:
                self._require("end")
            self._write(block, True)
            self.state = ENDED
        self._channel.ended(self)

    @holds_lock
    def send_file(self, descriptor: int, offset: int, count: int) -> int | Signal:
        """Send ``count`` bytes of a file at most, straight from the kernel, the head before them.

        The head has a Content-Length. Return the bytes sent, or what to wait for when the client
        takes none now; raises as :meth:`send`.
        """
        with self._lock:
            self._require("send")
            if self.state == READY:
                self._write(b"", False)
        # Not under the lock, which the loop takes too: a disk may be slow.
        sent = self._channel.send_file(self, descriptor, offset, count)
        with self._lock:
            if sent < 0:
                self.gone = True
                raise ClientDisconnected("the client has left")
            self._count(sent, False)
        return sent if sent else self._channel.writable(self)

    @holds_lock
    def cut(self) -> None:
        """Give the response up, so that the client sees that it is not complete.

        Without effect on a response that has ended; from any thread.
        """
        with self._lock:
            if self.state in (ENDED, CUT):
                return
            if self.state == READY:
                self.head = None  # it was never sent
            self.state = CUT
        self._channel.ended(self)

    def _count(self, size: int, last: bool) -> None:
        """Check ``size`` more bytes of body against Content-Length, and count them."""
        head = self.head
        assert head is not None
        if head.length is not None:
            total = self.sent + size
            if total > head.length:
                raise LocalProtocolError(
                    f"the body is longer than its Content-Length of {head.length} bytes"
                )
            if last and total < head.length:
                raise LocalProtocolError(
                    f"the body ended after {total} bytes of its Content-Length of {head.length}"
                )
        self.sent += size

    def _write(self, block: bytes, last: bool) -> None:
        if self.gone:
            raise ClientDisconnected("the client has left")
        if not self.bodiless:
            self._count(len(block), last)
        if not self._channel.send(self, block, last):
            if not self.bodiless:
                self.sent -= len(block)
            self.gone = True
            raise ClientDisconnected("the client has left")
        self.state = OPEN

    def _require(self, action: str) -> None:
        if self.state not in _LEGAL[action]:
            if self.gone and self.state == CUT:  # cut for that reason
                raise ClientDisconnected("the client has left")
            kind = NotStartedError if self.state == IDLE else LocalProtocolError
            raise kind(_ILLEGAL[self.state])


class _Nobody(Channel):
    """The channel of a stream that has no client."""

    __slots__ = ("lock", "peer")

    def __init__(self) -> None:
        self.lock = nullcontext()
        self.peer = Peer("http", None, None)

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:  # noqa: ARG002
        """Send nothing."""
        return False

    def send_file(self, *_: object) -> int:
        """Send nothing, also where a file had begun to be sent."""
        return -1

    def room(self, stream: Stream) -> Signal | None:  # noqa: ARG002
        """Return None."""
        return None


_NOBODY: Final = _Nobody()
_LOST: Final = Body(1)
_LOST.fail(ClientDisconnected("a forked child has no client: that is its parent's"))
