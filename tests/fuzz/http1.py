"""However bytes are split, each message is read once, as a strict reader does, in bounded memory.

No bytes raise or hang, no byte of a message is read as a part of another, nothing is parsed behind
an error, each request is answered once and in its turn, and what is kept never exceeds the limits.
The input: how to split, how the application behaves, and then the bytes.
"""

from __future__ import annotations

from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.waiting.outcome import Signal
from tests.fuzz.drawing import Source, cut
from tests.fuzz.strict import MalformedError, Message, Reader, ShortError
from tests.protocols.fakes import Client, connect

# Framing beyond its due depends on the split, by design: the target `chunked` has it.
LIMITS = Limits(framing=1024**2)
SMALL = Limits(
    request_line=128, head=512, fields=8, body=200, window=32, discard=64, framing=1024**2
)
"""Small, so that every one of the others is reached."""

READ_ALL, READ_FULL, READ_NONE, READ_ONE = range(4)
"""What the application reads: all at once; when the window is full; nothing; one block."""


def seed(sample: bytes, number: int) -> bytes:
    """Make an input of a sample; the number decides how it is split and read."""
    cuts = bytes((number * 37 + each * 89) % 256 for each in range(number % 4))
    return bytes([len(cuts), number // 4 % 16]) + cuts + sample


class Exchange:
    """One connection whose application reads its requests, and answers them, in one way."""

    def __init__(self, reading: int, answering: bool, limits: Limits) -> None:
        self.limits = limits
        self.reading = reading
        self.answering = answering
        self.client: Client = connect(self.answer, limits)
        self.bodies: dict[int, bytearray] = {}
        self.ends: dict[int, str] = {}

    def answer(self, stream: Stream) -> None:
        """Begin to read, or answer at once."""
        if self.answering and self.reading in (READ_NONE, READ_ONE):
            if self.reading == READ_ONE:
                self.read(stream, most=1)
            self.end(stream)

    def end(self, stream: Stream) -> None:
        """Answer; a body that broke off is the application's to answer, here with no answer."""
        stream.start("200 OK", [])
        stream.end(b"good")

    def read(self, stream: Stream, most: int = 1000) -> None:
        """Read blocks of a body as far as they have come."""
        key = id(stream)
        body = self.bodies.setdefault(key, bytearray())
        while most and key not in self.ends:
            most -= 1
            try:
                block = stream.receive()
            except Exception as error:
                self.ends[key] = f"malformed {getattr(error, 'status', '')}"
                return
            if isinstance(block, Signal):
                return
            if not block:
                self.ends[key] = "complete"
            body += block

    def send(self, pieces: list[bytes]) -> None:
        """Receive pieces as a transport brings them, which stops when it is told to."""
        most = 0
        for piece in pieces:
            self.client.send(piece)
            most = max(most, len(piece))
            self.mind(most)
            if self.reading == READ_ALL or not self.client.transport.reading:
                self.read_all()
            if not self.client.transport.reading:
                return

    def read_all(self) -> None:
        """Read what has come of every body, and answer each request that is complete."""
        for stream in list(self.client.owner.begun):
            if stream.state == "idle":
                self.read(stream)
                if self.answering and self.ends.get(id(stream)) == "complete":
                    self.end(stream)

    def mind(self, size: int) -> None:
        """Check what is kept, ``size`` bytes having come at a time at most."""
        protocol = self.client.protocol
        kept = 0 if protocol.stopped else len(protocol._buffer)
        assert kept <= self.limits.head, "a head beyond its limit is kept"
        for stream in self.client.owner.begun:
            body = stream.body
            bound = self.limits.discard + 1 if body.discarding else self.limits.window
            assert body.unread < bound + size, "more of a body is taken than its window"

    @property
    def requests(self) -> list[tuple[object, ...]]:
        """What was understood, and how each body ended."""
        found: list[tuple[object, ...]] = []
        for stream in self.client.owner.begun:
            request, key = stream.request, id(stream)
            head = (request.method, request.target, request.version, tuple(request.headers))
            body, end = bytes(self.bodies.get(key, b"")), self.ends.get(key, "waiting")
            if end == "malformed 413":  # how much of it was taken is how much came at a time
                body = body[: self.limits.body]
            found.append((*head, request.persistent, body, end))
        return found

    @property
    def statuses(self) -> list[int]:
        """What was refused."""
        return [error.status for error in self.client.owner.errors]


def check(data: bytes) -> None:
    """Feed the input, and check the invariant."""
    source = Source(data)
    cuts = source.below(8)
    mode = source.below(16)
    places = [source.below(256) for _ in range(cuts)]
    wire = source.rest()
    limits = SMALL if mode & 8 else LIMITS
    reading, answering = mode & 3, bool(mode & 4)
    exchange = Exchange(reading, answering, limits)
    exchange.send(cut(wire, places))
    exchange.read_all()
    expected = messages(wire)
    check_requests(exchange, expected)
    check_answers(exchange)
    if reading in (READ_ALL, READ_FULL) and not answering and exchange.client.transport.reading:
        whole = Exchange(READ_ALL, False, limits)
        whole.send([wire])
        assert whole.requests == exchange.requests, "it depends on the split"
        statuses = {*whole.statuses, *exchange.statuses}
        assert len(whole.statuses) == len(exchange.statuses), "the refusal depends on the split"
        # What is wrong in two ways may be found too long first, or wrong otherwise.
        assert len(statuses) < 2 or statuses & {414, 431}, "the status depends on the split"


def messages(wire: bytes) -> list[Message]:
    """Read requests, one behind the other, up to the last one or the first that is not good."""
    found: list[Message] = []
    reader = Reader(wire)
    try:
        while not found or (found[-1].end == "complete" and persists(found[-1])):
            found.append(reader.request())
    except (ShortError, MalformedError):
        pass
    return found


def persists(message: Message) -> bool:
    """Whether there may be another request behind this one (RFC 9112 section 9.3)."""
    options = message.tokens(b"connection")
    return b"close" not in options and (message.first[2] == b"1.1" or b"keep-alive" in options)


def check_requests(exchange: Exchange, expected: list[Message]) -> None:
    """Check that whatever was begun is what the strict reader reads, in order."""
    begun = exchange.client.owner.begun
    assert len(begun) <= len(expected), "there is a request that is none"
    assert len(exchange.client.owner.errors) <= 1, "something was parsed behind an error"
    for stream, message in zip(begun, expected, strict=False):
        request = stream.request
        method, target, version = message.first
        assert request.method.encode() == method
        assert request.target == target
        assert request.version.encode() == version
        if target.startswith(b"/") or target == b"*":
            assert request.headers == message.fields
        body, end = bytes(exchange.bodies.get(id(stream), b"")), exchange.ends.get(id(stream))
        assert message.body.startswith(body), "bytes that are not the body's"
        if end == "complete":
            assert message.end == "complete", "the end of a body that has not ended"
            assert bytes(message.body) == body, "a part of a body is missing"
        if stream is not begun[-1] or exchange.statuses:
            # Only behind the end of one message can there be another.
            assert message.end == "complete", "a message was read on from its middle"
            assert request.persistent, "a request behind the last one"


def check_answers(exchange: Exchange) -> None:
    """Check that the wire has one whole answer for each request that was answered, in order."""
    client = exchange.client
    reader = Reader(client.transport.sent)
    answered = [stream for stream in client.owner.begun if stream.state == "ended"]
    for stream in answered:
        message = reader.response(stream.request.method)
        while message.first[1] == b"100":
            assert stream.request.version == "1.1", "100 Continue for who does not know it"
            message = reader.response(stream.request.method)
        assert message.first[1] == b"200"
        assert message.end == "complete"
        assert bytes(message.body) == (b"" if stream.request.method == "HEAD" else b"good")
    left = client.transport.sent[reader.at :]
    if client.owner.errors and len(answered) == len(client.owner.begun) and left:
        message = reader.response("GET")
        assert message.first[1] == b"%d" % exchange.statuses[0]
        assert message.tokens(b"connection") == [b"close"]
        assert client.transport.closed
        left = client.transport.sent[reader.at :]
    while left:  # of a request that is not answered
        assert reader.response("GET").first[1] == b"100"
        left = client.transport.sent[reader.at :]
