"""One request and its response: legal order and lengths, for any protocol and interface.

A protocol makes a stream for each request, feeds its body, and encodes what the stream sends. An
interface (a WSGI conversation) reads the body and sends the response. The stream stands between
them, and refuses what is not legal. It imports no sockets, threads or asyncio.

The response goes through these states; ``_LEGAL`` says what may be done in each::

    idle --start--> ready --send--> open --end--> ended
              (start again with exc_info)    any --cut--> cut
    idle --follow--> switched --leave--> ended
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

from bide.errors import Cancelled, ClientDisconnected, LocalProtocolError
from bide.exchange.body import NO_BODY, Body
from bide.exchange.breaches import NotStartedError, SwitchedError
from bide.exchange.channel import Channel
from bide.exchange.identity import Identity
from bide.exchange.messages import Head, Request
from bide.exchange.peer import Peer
from bide.exchange.totals import UNBOUND, Total
from bide.waiting.locks import holds_lock
from bide.waiting.outcome import Signal

IDLE: Final = "idle"
READY: Final = "ready"
OPEN: Final = "open"
SWITCHED: Final = "switched"
ENDED: Final = "ended"
CUT: Final = "cut"

_LEGAL: Final[dict[str, frozenset[str]]] = {
    "start": frozenset({IDLE, READY}),
    "send": frozenset({READY, OPEN}),
    "end": frozenset({READY, OPEN}),
    "follow": frozenset({IDLE}),
    "leave": frozenset({SWITCHED}),
}
_ILLEGAL: Final[dict[str, str]] = {
    IDLE: "start_response has not been called",
    READY: "the response has been started already",
    OPEN: "the response has been sent in part already",
    SWITCHED: "the connection has another protocol: it was accepted as a WebSocket",
    ENDED: "the response has ended",
    CUT: "the response has been cut",
}


class Stream:
    """One exchange. Its conversation, and threads that push for it, send the response.

    Attributes:
        request: the request's head.
        peer: the two ends of the connection.
        body: the request's body.
        state: the response's state.
        head: the response's head, once started.
        sent: bytes of the body that were sent, without framing.
        bodiless: whether no byte of the body may be sent: a HEAD request, or a 204 or 304.
        broken: whether the response was cut for another reason than that its client had left.
        gone: whether the client has left; set by the loop, read by any thread.
        identity: the request's id, where requests have one; set before its call begins.
        last_field: returns one more header, when the head is sent; None: there is none. Set before
            its call begins.
        route: the kind of path that the application has found, as ``/items/{id}``; "": it has told
            none. Set before its call has ended.
        trailers: headers that go behind the body, if that is chunked; set before its end.
    """

    __slots__ = (
        "_channel",
        "_lock",
        "bodiless",
        "body",
        "broken",
        "expects_continue",
        "gone",
        "head",
        "identity",
        "last_field",
        "peer",
        "request",
        "route",
        "sent",
        "state",
        "trailers",
    )

    def __init__(
        self, request: Request, channel: Channel, window: int, unread: Total = UNBOUND
    ) -> None:
        """Make a stream.

        Args:
            request: the request's head.
            channel: the way to the client.
            window: bytes of the body that wait for the application; 0 for a request without one.
            unread: the total in which the unread bytes of the body count.
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
        self.broken = False
        self.gone = False
        self.identity: Identity | None = None
        self.last_field: Callable[[], tuple[str, str]] | None = None
        self.route = ""
        self.trailers: list[tuple[str, str]] | None = None

    def after_fork(self) -> None:
        """Called in a forked child: drop the client, which is the parent's."""
        self._channel = _NOBODY
        self._lock = _NOBODY.lock  # the connection's may be held by a thread that is not here
        self.body = _LOST
        self.gone = True

    def switch(self, channel: Channel) -> None:
        """Called when the connection has changed its protocol: set a channel with the same lock."""
        self._channel = channel

    # The request, on the application's thread ------------------------------------------------

    def receive(self) -> bytes | Signal:
        """Return the next block of the body; as :meth:`Body.receive`.

        Raises:
            LocalProtocolError: as :meth:`asks_for_body`.
        """
        body = self.body
        block = body.receive()
        # The loop marks the pause, and then checks for room. Here room is made, and then the mark
        # is checked.
        if body.paused and not body.full:
            self._channel.taken(self)
        if isinstance(block, Signal) and self.expects_continue:
            self._channel.wanted(self)
        return block

    def asks_for_body(self) -> bool:
        """Whether the client is to be told now to send its body; once, under the channel's lock.

        Raises:
            LocalProtocolError: the response has begun without it, so the body would never come.
        """
        if not self.expects_continue:
            return False
        if self.head_sent:
            raise LocalProtocolError(
                "the response has begun, and the client has not been told to send its body "
                "(Expect: 100-continue): read wsgi.input before the answer"
            )
        self.expects_continue = False
        return True

    # The response, from any thread -----------------------------------------------------------

    @property
    def head_sent(self) -> bool:
        """Whether it is too late for another head."""
        return self.state not in (IDLE, READY)

    def answered(self) -> bool:
        """Return whether the response has ended; after a last piece that is just being sent."""
        with self._lock:
            return self.state is ENDED

    @property
    def behind(self) -> bool:
        """Whether the client must take more before the next block should be sent."""
        return self._channel.room(self) is not None

    @property
    def sends_files(self) -> bool:
        """Whether :meth:`send_file` may be called."""
        return self._channel.sends_files

    def start(self, status: Any, headers: Any) -> None:
        """Set the head, or replace one that has not been sent.

        Raises:
            LocalProtocolError: it is too late, or the head may not be sent.
        """
        if self.state != IDLE:
            self._require("start")
        head = Head(status, headers)
        identity = self.identity
        if identity is not None and identity.id:
            head.add(identity.header, identity.id)
        self.head = head
        self.bodiless = head.bodiless or self.request.method == "HEAD"
        self.state = READY

    def inform(self, fields: list[tuple[str, str]]) -> Signal | None:
        """Send headers ahead of the head, which has not been sent; as :meth:`Channel.inform`.

        Return what to wait for before more is sent if the client is behind, else None.
        """
        with self._lock:
            self._require("start")
            if self.gone:
                return None
            self._channel.inform(self, fields)
        return self._channel.room(self)

    def announce(self, length: int) -> None:
        """Add a Content-Length, in bytes, to the head, which has none and has not been sent."""
        head = self.head
        assert head is not None
        head.announce(length)

    def send(self, block: bytes) -> Signal | None:
        """Send a block that is not empty, and before the first one the head.

        Return what to wait for before the next block if the client is behind, else None. Return
        None also when the whole Content-Length was sent: then there is no next block.

        Raises:
            ClientDisconnected: the client has left.
            LocalProtocolError: not now, or more than Content-Length; nothing of it was sent.
        """
        with self._lock:
            if self.state is not OPEN:
                self._require("send")
            self._write(block, False)
            head = self.head
            if head is not None and head.length == self.sent:
                return None
        return self._channel.room(self)

    def send_head(self) -> None:
        """Send the head alone, if it was not sent; raises as :meth:`send`."""
        with self._lock:
            self._require("send")
            if self.state == READY:
                self._write(b"", False)

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

    def follow(self, head: Head, channel: Channel) -> None:
        """Follow an Upgrade: the exchange is another protocol's, which sends this head (101).

        Args:
            head: what the client is told.
            channel: has the same lock; it is told the end.

        Raises:
            LocalProtocolError: an ordinary response has begun.
        """
        with self._lock:
            self._require("follow")
            if self.identity is not None and self.identity.id:
                head.add(self.identity.header, self.identity.id)
            self.head = head
            self._channel = channel
            self.state = SWITCHED

    def leave(self) -> None:
        """End an exchange that is another protocol's, in order."""
        with self._lock:
            self._require("leave")
            self.state = ENDED
        self._channel.ended(self)

    def break_off(self, why: Cancelled) -> None:
        """Cut, and tell another protocol, whose the exchange is, why."""
        if self.state is SWITCHED:
            self._channel.broken_off(self, why)
        self.cut()

    def send_file(self, descriptor: int, offset: int, count: int) -> int | Signal:
        """Send ``count`` bytes of a file at most, straight from the kernel, the head before them.

        The head has a Content-Length. Return the bytes sent, or what to wait for when the client
        takes none now; raises as :meth:`send`.
        """
        self.send_head()
        # Not under the lock, which the loop takes too: a disk may be slow.
        sent = self._channel.send_file(self, descriptor, offset, count)
        with self._lock:
            if sent < 0:
                self.gone = True
                raise ClientDisconnected("the client has left")
            self._check(sent, False)
            self.sent += sent
        return sent if sent else self._channel.writable(self)

    def cut(self) -> None:
        """Break the response off, so that the client sees that it is not complete.

        Without effect on a response that has ended; from any thread.
        """
        with self._lock:
            if self.state in (ENDED, CUT):
                return
            if self.state == READY:
                self.head = None  # it was never sent
            self.broken = not self.gone
            self.state = CUT
        self._channel.ended(self)

    def _check(self, size: int, last: bool) -> None:
        """Check ``size`` more bytes of body against Content-Length."""
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

    def _write(self, block: bytes, last: bool) -> None:
        if self.gone:
            raise ClientDisconnected("the client has left")
        size = 0 if self.bodiless else len(block)
        if not self.bodiless:
            self._check(size, last)
        if self.last_field is not None:
            self._add_last_field(self.last_field)
        self.sent += size
        if not self._channel.send(self, block, last):
            self.sent -= size
            self.gone = True
            raise ClientDisconnected("the client has left")
        self.state = OPEN

    def _add_last_field(self, make: Callable[[], tuple[str, str]]) -> None:
        """Add a header to the head that is about to be sent, whatever else it has of that name."""
        head = self.head
        assert head is not None
        self.last_field = None
        head.headers.append(make())

    def _require(self, action: str) -> None:
        if self.state not in _LEGAL[action]:
            if self.gone and self.state == CUT:  # cut for that reason
                raise ClientDisconnected("the client has left")
            if self.state == IDLE:
                raise NotStartedError(_ILLEGAL[IDLE])
            kind = SwitchedError if self.state == SWITCHED else LocalProtocolError
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


holds_lock(Stream.answered, Stream.send, Stream.send_head, Stream.end, Stream.send_file, Stream.cut)
holds_lock(Stream.follow, Stream.leave, Stream.inform)
