"""A transport and an owner in memory, for tests of the HTTP/1 protocol on bytes alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.channel import Channel
from bide.exchange.limits import Limits
from bide.exchange.peer import Peer
from bide.exchange.stream import Stream
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import Owner, Transport, Way
from bide.waiting.outcome import Signal

Answer = Callable[[Stream], object]


class CountingLock:
    """A reentrant lock for one thread, which knows whether it is held.

    Attributes:
        once_released: what another thread does as soon as it is free.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.once_released: Callable[[], object] | None = None

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        act = self.once_released
        if act is not None and not self.depth:
            self.once_released = None
            act()


class FakeTransport(Transport):
    """Keeps what is sent; has the contract of a socket's transport, without the socket.

    Attributes:
        meanwhile: what another thread does in the middle of a "pause" or a "resume", once.
    """

    lock: CountingLock

    def __init__(self) -> None:
        self.lock = CountingLock()
        self.writes: list[bytes] = []
        self.blocks: list[bytes] = []  # the very objects
        self.reading = True
        self.gone = False  # the client takes nothing more
        self.closed = ""  # "close", "linger" or "abort", whichever came first
        self.full: Signal | None = None
        self.calls: list[str] = []
        self.meanwhile: dict[str, Callable[[], object]] = {}
        self.file_sends: deque[int] = deque()  # what each send_file answers
        self.files: list[tuple[int, int, int]] = []

    def look(self) -> None:
        """Find that nothing has come."""

    queued = 0

    @property
    def behind(self) -> bool:
        """Whether the test says that the client is."""
        return self.full is not None

    @property
    def sent(self) -> bytes:
        """All bytes that were sent."""
        return b"".join(self.writes)

    def write(self, data: bytes, *more: bytes) -> bool:
        """Keep the bytes, unless the client is gone or the end has come."""
        if self.gone or self.closed:
            return False
        self.blocks += [data, *more]
        self.writes.append(b"".join((data, *more)))
        return True

    def room(self) -> Signal | None:
        """Return what the test has put in ``full``."""
        return self.full

    def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Answer what the test has put in ``file_sends``."""
        self.files.append((descriptor, offset, count))
        return self.file_sends.popleft()

    def writable(self) -> Signal:
        """Return what the test may fire."""
        self.full = self.full or Signal()
        return self.full

    def pause_reading(self) -> None:
        """Note it."""
        self.reading = False
        self._call("pause")

    def resume_reading(self) -> None:
        """Note it."""
        self.reading = True
        self._call("resume")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.meanwhile.pop(name, lambda: None)()

    def close(self, linger: bool = False) -> None:
        """Note it; the first end counts."""
        self.closed = self.closed or ("linger" if linger else "close")

    def abort(self) -> None:
        """Note it; the first end counts."""
        self.closed = self.closed or "abort"


class FakeOwner(Owner):
    """A connection that answers its streams, and keeps what it was told.

    Attributes:
        begun: every stream that the protocol made, in order.
        errors: every error that requests were refused with, in order.
        answered: the streams whose response has ended and left the connection open.
        full: whether the protocol is to take as many requests to wait as may.
        upgrading: whether requests may change the protocol.
    """

    def __init__(self, answer: Answer | None) -> None:
        self.peer = Peer("http", ("127.0.0.1", 8000), ("192.0.2.1", 50000))
        self.begun: list[Stream] = []
        self.errors: list[RemoteProtocolError] = []
        self.answered: list[Stream] = []
        self.full = False
        self.upgrading = False
        self._answer = answer

    def begin(self, stream: Stream, way: Way | None = None) -> None:
        """Answer a stream, if the test does not."""
        if self._answer is not None:
            self._answer(stream)

    def ended(self, stream: Stream) -> None:
        """Keep a stream."""
        self.answered.append(stream)

    def refused(self, error: RemoteProtocolError) -> None:
        """Keep an error."""
        self.errors.append(error)

    def upgrades(self, stream: Stream) -> bool:
        """Answer as the test says."""
        return self.upgrading

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call it now."""
        function()


class Recorded(HTTP1):
    """A protocol whose every stream the test has at once, also one that waits for its turn.

    Any number may wait, unless its owner is full.
    """

    def __init__(self, transport: FakeTransport, owner: FakeOwner, limits: Limits) -> None:
        super().__init__(transport, owner, limits)
        self._keeper = owner

    @property
    def full(self) -> bool:
        """Whether the test says so."""
        return self._keeper.full

    def begin(self, stream: Stream) -> None:
        """Keep a stream, and begin it when it is its turn."""
        self._keeper.begun.append(stream)
        super().begin(stream)


@dataclass
class Client:
    """The two ends of one connection in memory."""

    protocol: HTTP1
    transport: FakeTransport
    owner: FakeOwner

    def send(self, *pieces: bytes) -> None:
        """Feed the protocol some pieces, each as the network may bring it."""
        for piece in pieces:
            self.protocol.data_received(piece)

    @property
    def stream(self) -> Stream:
        """The stream that was begun last."""
        return self.owner.begun[-1]

    @property
    def received(self) -> bytes:
        """What the client has got, its Date replaced by ``Date: now``."""
        lines = self.transport.sent.split(b"\r\n")
        return b"\r\n".join(b"Date: now" if line[:6] == b"Date: " else line for line in lines)


def connect(answer: Answer | None = None, limits: Limits | None = None) -> Client:
    """Make a connection.

    Args:
        answer: called with each stream when its turn has come; without it the test answers.
        limits: the defaults if none are given.
    """
    transport = FakeTransport()
    owner = FakeOwner(answer)
    protocol = Recorded(transport, owner, limits or Limits())
    return Client(protocol, transport, owner)


@dataclass(frozen=True)
class Received:
    """What came of a body: its bytes, and how it ended.

    Attributes:
        data: the bytes.
        end: "complete", "waiting" (more is to come), "left", or "malformed".
        status: of the answer to a malformed one.
    """

    data: bytes
    end: str
    status: int = 0


def drain(stream: Stream) -> Received:
    """Read a body as far as it has come, without the stream's flow control."""
    data = b""
    try:
        while True:
            block = stream.body.receive()
            if isinstance(block, Signal):
                return Received(data, "waiting")
            if not block:
                return Received(data, "complete")
            data += block
    except RemoteProtocolError as error:
        return Received(data, "malformed", error.status)
    except ClientDisconnected:
        return Received(data, "left")


@dataclass(frozen=True)
class Result:
    """What a sequence of bytes came to, for comparing one way to split it with another."""

    requests: list[tuple[object, ...]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


def feed(pieces: Iterable[bytes]) -> Result:
    """Receive some pieces on a fresh connection whose requests nobody answers."""
    client = connect()
    client.send(*pieces)
    requests: list[tuple[object, ...]] = []
    for stream in client.owner.begun:
        request = stream.request
        head = (
            request.method,
            request.target,
            request.raw_path,
            request.query,
            request.version,
            tuple(request.headers),
            request.persistent,
        )
        requests.append((*head, drain(stream)))
    return Result(requests, [error.status for error in client.owner.errors])


class FakeChannel(Channel):
    """A protocol that encodes nothing: it keeps what a stream sends and tells it.

    Attributes:
        pieces: what was sent: the state it was sent in, the block, whether it was the last.
        told: the names of the other calls, in order.
        peer: nobody in particular.
        alive: whether the client takes anything.
        behind: what fires when the client has caught up, if it is behind.
    """

    def __init__(self) -> None:
        self.lock: CountingLock = CountingLock()
        self.peer = Peer("http", None, None)
        self.pieces: list[tuple[str, bytes, bool]] = []
        self.told: list[str] = []
        self.alive = True
        self.behind: Signal | None = None
        self.file_sends: deque[int] = deque()
        self.caught_up = Signal()

    def send(self, stream: Stream, block: bytes, last: bool) -> bool:
        """Keep a piece."""
        assert self.lock.depth, "a piece is sent without the connection's lock"
        if self.alive:
            self.pieces.append((stream.state, block, last))
        return self.alive

    def send_file(self, stream: Stream, descriptor: int, offset: int, count: int) -> int:
        """Answer what the test has put in ``file_sends``."""
        assert not self.lock.depth, "a file is sent under the connection's lock"
        return self.file_sends.popleft()

    def writable(self, stream: Stream) -> Signal:
        """Return what the test may fire."""
        return self.caught_up

    def room(self, stream: Stream) -> Signal | None:
        """Return what the test has put in ``behind``."""
        return self.behind

    def wanted(self, stream: Stream) -> None:
        """Note it."""
        self.told.append("wanted")

    def taken(self, stream: Stream) -> None:
        """Note it, and read on."""
        stream.body.paused = False
        self.told.append("taken")

    def ended(self, stream: Stream) -> None:
        """Note it."""
        assert not self.lock.depth, "the end is told under the lock"
        self.told.append("ended")
