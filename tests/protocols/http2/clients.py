"""A client of HTTP/2 in memory, on h2's own client side, before Bide's protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.http2.connection import HTTP2
from bide.protocols.http2.receiving import TURN
from bide.protocols.interfaces import Way
from tests.protocols.fakes import Answer, FakeOwner, FakeTransport

Fields = list[tuple[bytes, bytes]]


class Owner(FakeOwner):
    """A connection that keeps its streams, and what they were told.

    Attributes:
        left_streams: those that the client has left, in order.
        ways: what WebSockets may take over, by their streams.
    """

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(answer)
        self.left_streams: list[Stream] = []
        self.soon: list[Callable[[], object]] = []
        self.ways: dict[Stream, Way] = {}

    def begin(self, stream: Stream, way: Way | None = None) -> None:
        """Keep a stream, and answer it, if the test does not."""
        self.begun.append(stream)
        if way is not None:
            self.ways[stream] = way
        super().begin(stream)

    def left(self, stream: Stream) -> None:
        """Keep it."""
        stream.gone = True
        self.left_streams.append(stream)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Keep it until the test lets the loop go on."""
        self.soon.append(function)


@dataclass
class Response:
    """What came on one stream."""

    informational: list[dict[bytes, bytes]] = field(default_factory=list)
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> bytes:
        """Of the response; empty before it has come."""
        return dict(self.fields).get(b":status", b"")


class Client:
    """Both ends of one connection.

    Attributes:
        hurried: whether a turn of the server's loop has time for one frame only; else for all.

    Args:
        answer: answers each stream when it begins; without it the test does.
        limits: of the server.
        window: the client's first window for each stream; None: the usual one.
        unread: the total of bodies; None: one without a bound.
    """

    hurried = False

    def __init__(
        self,
        answer: Answer | None = None,
        limits: Limits | None = None,
        window: int | None = None,
        unread: Total | None = None,
    ) -> None:
        self.transport = FakeTransport()
        self.owner = Owner(answer)
        self.now = 1000.0
        self.protocol = HTTP2(
            self.transport,
            self.owner,
            limits or Limits(),
            unread or Total(0),
            Total(0),
            clock=self._time,
        )
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        if window is not None:
            self.h2.local_settings.initial_window_size = window
            self.h2.local_settings.acknowledge()
        self.responses: dict[int, Response] = {}
        self.credits = True  # whether what comes is credited at once
        self.gone: list[tuple[int, int, bytes | None]] = []  # GOAWAY: code, last stream, why
        self._read = 0
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what the client has made, and take what the server sends."""
        while True:
            data = self.h2.data_to_send()
            if data:
                self.send(data)
            written = self.transport.sent[self._read :]
            self._read += len(written)
            if written:
                self._take(written)
            elif not data:
                return

    def send(self, data: bytes) -> None:
        """Send these bytes, and let the server take them."""
        self.protocol.data_received(data)
        self.turn()

    def turn(self, most: int = 1_000_000) -> None:
        """Let the loop take the frames that it had no time for, in so many turns at most."""
        go_on = self.protocol._go_on
        while most and go_on in self.owner.soon:
            self.owner.soon.remove(go_on)
            go_on()
            most -= 1

    def _time(self) -> float:
        if self.hurried:
            self.now += TURN
        return self.now

    def _take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            last = event.last_stream_id or 0
            self.gone.append((int(event.error_code or 0), last, event.additional_data))
            return
        number = getattr(event, "stream_id", None)
        if not number:
            return
        response = self.responses.setdefault(number, Response())
        if isinstance(event, InformationalResponseReceived):
            response.informational.append(dict(event.headers or ()))
        elif isinstance(event, ResponseReceived):
            response.fields = list(event.headers or ())
        elif isinstance(event, DataReceived):
            response.body += event.data or b""
            if self.credits and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, TrailersReceived):
            response.trailers = list(event.headers or ())
        elif isinstance(event, StreamEnded):
            response.ended = True
        elif isinstance(event, StreamReset):
            response.reset = int(event.error_code or 0)

    def begin(self, fields: Fields, ended: bool = True) -> int:
        """Make a request, without sending it; return its number."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, fields, ended)
        self.responses[number] = Response()
        return number

    def ask(self, fields: Fields | None = None, body: bytes | None = None) -> Response:
        """Send a request with its body, and return what comes of it."""
        number = self.begin(get() if fields is None else fields, body is None)
        if body is not None:
            self.h2.send_data(number, body, True)
        self.flush()
        return self.responses[number]

    def run_soon(self) -> None:
        """Let the loop go on."""
        while self.owner.soon:
            self.owner.soon.pop(0)()
        self.flush()


def get(path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    """Return the fields of a request."""
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"a.example"),
        *more,
    ]
