"""One request and its response: legal order, lengths and windows, for any protocol and interface.

A protocol makes a stream for each request, feeds its body, and encodes what the stream sends. An
interface (a WSGI conversation) reads the body and sends the response. The stream stands between
them and lets neither do what is not legal. It imports no sockets, threads or asyncio; what is
shared between threads says so.

The response goes through these states; ``_LEGAL`` says what may be done in each::

    idle --start--> ready --send--> open --end--> ended
              (start again with exc_info)    any --cut--> cut
"""

from __future__ import annotations

import re
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from bide.errors import ClientDisconnected, LocalProtocolError
from bide.promises import Signal

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


class Request:
    """The head of a request, as any protocol can state it.

    Attributes:
        method: the method's token, as sent.
        target: the request target as sent.
        path: its path, still percent-encoded.
        query: what follows the first ``?``, without it.
        version: "1.0", "1.1", …
        headers: pairs of name and value as sent, in order, values without outer blanks.
        has_body: whether the head announces one.
        persistent: whether the client lets the connection be used again.
    """

    __slots__ = (
        "has_body",
        "headers",
        "method",
        "path",
        "persistent",
        "query",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        path: bytes,
        query: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.version = version
        self.headers = headers
        self.has_body = False
        self.persistent = True


class Channel(Protocol):
    """The protocol's side of a stream: encodes, writes, and knows the connection. Any thread."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """The connection's lock (reentrant): held while one piece is encoded and written."""

    def prepare(self, head: Head) -> None:
        """Encode a head's fields, or raise LocalProtocolError for what cannot be sent."""

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Write a block, the head before it where it was not sent; false if the client is gone.

        Of a block for a stream without a body, only the length is of use.
        """

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Send from a file; give the bytes sent, 0 if the client is behind, -1 if it is gone."""

    def writable(self) -> Signal:
        """Give what fires when the client takes bytes again, or is gone."""

    def room(self) -> Signal | None:
        """Give what fires when the client has caught up; None when it is not behind."""

    def wanted(self, stream: Stream) -> None:
        """Know that the application waits for the body (100 Continue)."""

    def taken(self, stream: Stream) -> None:
        """Know that the application has made room in a full window."""

    def ended(self, stream: Stream) -> None:
        """Know that the response is complete, or cut: the connection goes on or closes."""


_MOST_BLOCKS: Final = 1024
"""Blocks that may wait to be read: one of 2 bytes takes 50 bytes of memory."""


class Body:
    """A request's body on its way: a window of blocks between the loop and the application.

    ``feed``, ``finish`` and ``fail`` are the loop's; ``receive`` belongs to one other thread at a
    time. They meet without a lock: each side first writes its own mark (a block appended, a
    signal published), then looks for the other's.
    """

    __slots__ = (
        "_blocks",
        "_error",
        "_fed",
        "_finished",
        "_signal",
        "_taken",
        "complete",
        "discarding",
        "failed",
        "paused",
        "window",
    )

    def __init__(self, window: int) -> None:
        self.window = window
        self._blocks: deque[bytes] = deque()
        self._fed = 0  # bytes in, by the loop
        self._taken = 0  # bytes out, by the reader
        self._signal: Signal | None = None
        self._finished = False
        self._error: BaseException | None = None
        self.complete = False  # on the wire: the last byte has come; by the loop
        self.failed = False  # it broke off: nothing behind it can be a request; by the loop
        self.discarding = False
        self.paused = False  # by the loop: the connection is not read, since this is full

    @property
    def unread(self) -> int:
        """Bytes that have come and that the application has not read, dropped ones among them."""
        return self._fed - self._taken

    @property
    def full(self) -> bool:
        """Whether a window waits to be read, or so many blocks that they take more than one."""
        return (
            self._fed - self._taken >= self.window or len(self._blocks) >= _MOST_BLOCKS
        ) and not self.discarding

    def feed(self, block: bytes) -> None:
        """Add a block; on the loop."""
        self._fed += len(block)
        if not self.discarding:
            self._blocks.append(block)
            self._notify()

    def finish(self) -> None:
        """Mark the end; on the loop."""
        self.complete = True
        self._finished = True
        self._notify()

    def fail(self, error: BaseException) -> None:
        """Let reads raise ``error`` once what came before is read; on the loop."""
        if not self._finished:
            self._error = error
            self.failed = True
            self._finished = True
            self._notify()

    def discard(self) -> None:
        """Keep nothing more: the application will not read; from any thread."""
        self.discarding = True
        self._blocks.clear()

    def receive(self) -> bytes | Signal:
        """Give the next block, ``b""`` at the end, or a signal to wait for and then ask again.

        Raises:
            ClientDisconnected: the client left before the body was complete.
            RemoteProtocolError: the rest of the body is malformed.
        """
        block = self._next()
        if block is not None:
            return block
        signal = self._signal = Signal()
        block = self._next()  # fed between the look and the publication
        return signal if block is None else block

    def _next(self) -> bytes | None:
        # First the end, then the blocks: the loop adds the last block before it marks the end.
        finished = self._finished
        try:
            block = self._blocks.popleft()
        except IndexError:
            if not finished:
                return None
            if self._error is not None:
                raise self._error from None
            return b""
        self._taken += len(block)
        return block

    def _notify(self) -> None:
        signal, self._signal = self._signal, None
        if signal is not None:
            signal.fire()


NO_BODY: Final = Body(0)
"""The body of every request without one: ended, so that nothing in it changes any more."""
NO_BODY.finish()


class Head:
    """A response's status and headers, checked for what any protocol forbids.

    Attributes:
        code: the status code, 200 to 999.
        reason: the reason phrase, possibly empty.
        headers: pairs of name and value, Latin-1 strings.
        bodiless: whether a response of this status has no body (RFC 9110 section 6.4.1).
        length: Content-Length as the application gave it, in bytes, or None.
        dated, served: whether the application gave ``Date`` and ``Server`` itself.
        fields: for the channel to keep the encoded headers in.
    """

    __slots__ = ("bodiless", "code", "dated", "fields", "headers", "length", "reason", "served")

    def __init__(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.code, self.reason = _STATUSES.get(status) or _parse_status(status)
        self.bodiless = self.code == 204 or self.code == 304
        if type(headers) is not list:
            headers = list(headers)  # an iterator would be empty when it is looked at again
        self.headers = headers
        self.length: int | None = None
        self.dated = False
        self.served = False
        self.fields: Any = None
        for name, value in headers:
            if type(value) is not str:
                raise LocalProtocolError(f"the header {name!r} has the value {value!r}, no string")
            kind = _FIELDS.get(name)
            if kind is None:
                kind = _classify(name)
            if kind:
                self._note(kind, name, value)

    def _note(self, kind: str, name: str, value: str) -> None:
        if kind == "date":
            self.dated = True
        elif kind == "server":
            self.served = True
        elif kind == "content-length":
            if self.length is not None:
                raise LocalProtocolError("two Content-Length headers: give one")
            # isascii, since isdigit alone takes the digits of every script.
            if not (value.isascii() and value.isdigit()) or len(value) > 18:
                raise LocalProtocolError(f"Content-Length {value!r} is no number of bytes")
            self.length = int(value)
        else:
            raise LocalProtocolError(
                f"the header {name!r} belongs to the connection, which is the server's "
                "(PEP 3333, Other HTTP Features): leave it out"
            )


_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONNECTION_FIELDS: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
# Header names that have been looked at: what they need. Bounded, for an application could make
# up names without end; any thread, by single dict operations.
_FIELDS: Final[dict[str, str]] = {}
_STATUSES: Final[dict[str, tuple[int, str]]] = {}
_CACHED: Final = 1024


def _classify(name: str) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise LocalProtocolError(f"{name!r} is no header name")
    lower = name.lower()
    kind = ""
    if lower in ("date", "server", "content-length"):
        kind = lower
    elif lower in _CONNECTION_FIELDS:
        kind = "connection"
    if len(_FIELDS) < _CACHED and len(name) <= 64:
        _FIELDS[name] = kind
    return kind


def _parse_status(status: str) -> tuple[int, str]:
    if not isinstance(status, str) or not re.fullmatch(r"[2-9][0-9][0-9]( [^\r\n\0]*)?", status):
        raise LocalProtocolError(f"{status!r} is no status: it must be like '200 OK'")
    parsed = (int(status[:3]), status[4:])
    if len(_STATUSES) < _CACHED and len(status) <= 64:
        _STATUSES[status] = parsed
    return parsed


class Stream:
    """One exchange. The response side is for one conversation, and for the threads it pushes from.

    Attributes:
        request: what was asked.
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
        "request",
        "sent",
        "state",
    )

    def __init__(self, request: Request, channel: Channel, window: int) -> None:
        """Make a stream; a ``window`` of 0 bytes is for a request without a body."""
        self.request = request
        self._channel = channel
        self._lock = channel.lock
        self.body = Body(window) if window else NO_BODY
        self.bodiless = request.method == "HEAD"
        self.expects_continue = False
        self.head: Head | None = None
        self.state = IDLE
        self.sent = 0
        self.gone = False

    # The request, on the application's thread ------------------------------------------------

    def receive(self) -> bytes | Signal:
        """Give the next block of the body; as :meth:`Body.receive`."""
        body = self.body
        block = body.receive()
        # The loop marks the pause and then looks whether there is room; here the other way round.
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
        return self._channel.room() is not None

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        """Set the head, or replace one that has not been sent.

        Raises:
            LocalProtocolError: it is too late, or the head is none that may be sent.
        """
        if self.state != IDLE:
            self._require("start")
        head = Head(status, headers)
        self._channel.prepare(head)
        self.head = head
        self.bodiless = head.bodiless or self.request.method == "HEAD"
        self.state = READY

    def send(self, block: bytes) -> Signal | None:
        """Send a block that is not empty, and before the first one the head.

        Gives None, or what to wait for before the next block, since the client is behind.

        Raises:
            ClientDisconnected: the client has left.
            LocalProtocolError: not now, or more than Content-Length; nothing of it was sent.
        """
        with self._lock:
            self._require("send")
            self._write(block, False)
        return self._channel.room()

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

    def send_file(self, descriptor: int, offset: int, count: int) -> int | Signal:
        """Send ``count`` bytes of a file at most, straight from the kernel, the head before them.

        The head has a Content-Length. Gives the bytes sent, or what to wait for when the client
        takes none now; raises as :meth:`send`.
        """
        with self._lock:
            self._require("send")
            if self.state == READY:
                self._write(b"", False)
            sent = self._channel.send_file(descriptor, offset, count)
            if sent < 0:
                self.gone = True
                raise ClientDisconnected("the client has left")
            self._count(sent, False)
        return sent if sent else self._channel.writable()

    def cut(self) -> None:
        """Give the response up: the client must see that it is not complete.

        Without effect on a response that has ended; from any thread.
        """
        with self._lock:
            if self.state in (ENDED, CUT):
                return
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
            self.gone = True
            raise ClientDisconnected("the client has left")
        self.state = OPEN

    def _require(self, action: str) -> None:
        if self.state not in _LEGAL[action]:
            if self.gone and self.state == CUT:  # cut for that reason
                raise ClientDisconnected("the client has left")
            raise LocalProtocolError(_ILLEGAL[self.state])
