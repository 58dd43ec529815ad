"""A WebSocket in memory, after its handshake, and frames written by hand (RFC 6455 section 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bide.errors import WebSocketClosed
from bide.exchange.handshake import fields_of
from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.exchange.messaging import Message, Messaging
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.interfaces import Protocol
from bide.protocols.websocket.connection import WebSocketProtocol
from bide.protocols.websocket.switching import answer_101
from bide.waiting.outcome import Signal
from tests.protocols.fakes import FakeChannel, FakeOwner, FakeTransport

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
DEFLATE = b"permessage-deflate; client_max_window_bits"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"

HEADERS = [
    (b"Host", b"a"),
    (b"Upgrade", b"websocket"),
    (b"Connection", b"keep-alive, Upgrade"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", KEY),
]


def frame(opcode: int, data: bytes = b"", first: int = FIN, mask: bytes = MASK) -> bytes:
    """Return a client's frame; ``first`` are the bits beside the opcode, ``b""`` masks nothing."""
    size = len(data)
    bit = 0x80 if mask else 0
    head = bytes((first | opcode,))
    if size < 126:
        head += bytes((bit | size,))
    elif size < 65536:
        head += bytes((bit | 126,)) + size.to_bytes(2)
    else:
        head += bytes((bit | 127,)) + size.to_bytes(8)
    if mask:
        # As one number: byte by byte a mebibyte would take a tenth of a second.
        key = (mask * (size // 4 + 1))[:size]
        data = (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)
    return head + mask + data


def closing(code: int, reason: bytes = b"") -> bytes:
    """Return a client's close frame."""
    return frame(CLOSE, code.to_bytes(2) + reason)


def messages_of(socket: Messaging) -> list[Message]:
    """Take the messages that have come."""
    messages: list[Message] = []
    while True:
        try:
            message = socket.receive()
        except WebSocketClosed:
            return messages
        if isinstance(message, Signal):
            return messages
        messages.append(message)


def frames_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what a server has sent: the first byte of each frame, and its data."""
    while data:
        first, size = data[0], data[1]
        assert size < 128, "a server's frame is masked"
        at = 2
        if size >= 126:
            more = 2 if size == 126 else 8
            size = int.from_bytes(data[2 : 2 + more])
            at += more
        assert len(data) >= at + size, "a frame is cut"
        yield first, data[at : at + size]
        data = data[at + size :]


class _Owner(FakeOwner):
    """A connection that switches at once.

    Attributes:
        later: the calls that the loop has not made yet; None: it makes each at once.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.switched: Protocol | None = None
        self.later: list[Callable[[], object]] | None = None

    def switch(self, protocol: Protocol) -> None:
        """Keep it."""
        self.switched = protocol

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call it now, or when the test says so."""
        if self.later is None:
            function()
        else:
            self.later.append(function)


class Wire:
    """One WebSocket that was accepted, and what its client got.

    Attributes:
        protocol, transport, owner, stream: its parts.
        head: the answer to its handshake.
    """

    def __init__(
        self,
        extensions: bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
        accept: Callable[[WebSocketProtocol], object] | None = None,
        **limits: Any,
    ) -> None:
        self.transport = FakeTransport()
        self.owner = _Owner()
        given = [*HEADERS, *(headers or [])]
        if extensions:
            given.append((b"Sec-WebSocket-Extensions", extensions))
        request = Request("GET", b"/", b"/", b"", "1.1", given)
        channel = FakeChannel()
        channel.lock = self.transport.lock
        self.stream = Stream(request, channel, 0)
        self.unread = Total(0)
        self.protocol = WebSocketProtocol(
            self.stream,
            fields_of(request),
            self.transport,
            self.owner,
            Limits(**limits),
            self.unread,
            partial(answer_101, self.transport, KEY.decode()),
        )
        if accept is None:
            self.protocol.accept(None, [])
        else:
            accept(self.protocol)
        self.head = self.transport.sent
        self.transport.writes.clear()

    def send(self, *pieces: bytes) -> None:
        """Feed what the client sends."""
        for piece in pieces:
            self.protocol.data_received(piece)

    def turn(self) -> None:
        """Make the calls that the loop has not made yet, and each from now on at once."""
        calls, self.owner.later = self.owner.later, None
        assert calls is not None
        for call in calls:
            call()

    def sent(self) -> list[tuple[int, bytes]]:
        """Take what the client has got: the first byte of each frame, and its data."""
        data = self.transport.sent
        self.transport.writes.clear()
        return list(frames_of(data))

    def received(self) -> list[Message]:
        """Take the messages that have come."""
        return messages_of(self.protocol)

    @property
    def over(self) -> tuple[int, str] | None:
        """The close code and reason that the application is told; None while it is open."""
        return self.protocol.over

    def reads(self) -> bool:
        """Whether what the client sends is read."""
        return self.transport.reading

    def closed(self) -> str:
        """Return how the connection was closed; "" while it is open."""
        return self.transport.closed

    def code(self) -> int | None:
        """Take the code of the close frame that the client has got; None without one."""
        codes = [int.from_bytes(data[:2]) for first, data in self.sent() if first == FIN | CLOSE]
        assert len(codes) < 2, "two close frames"
        return codes[0] if codes else None
