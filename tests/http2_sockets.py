"""A client of HTTP/2 over a real connection, whose WebSockets are those of the package websockets.

One thread uses it: whoever waits for one stream reads for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from bide.protocols.http2.guard import GOAWAY
from tests.served import Served

Pairs = list[tuple[str, str]]


@dataclass
class Answer:
    """What has come on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """Of the response; 0 before it has come."""
        return int(self.headers.get(":status", 0))


class Line:
    """One connection.

    Args:
        served: the server.
        window: bytes that each stream may send before something is taken; None: the usual.

    Attributes:
        answers: what has come, by the streams' numbers.
        client: the connection below.
        stalled: streams of which nothing is credited but in the connection's window.
    """

    def __init__(self, served: Served, window: int | None = None) -> None:
        self.scheme = "http"
        context = served.context
        if context is not None:
            self.scheme = "https"
            context.set_alpn_protocols(["h2"])
        self.client = served.connect()
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="ascii"))
        if window is not None:
            self.h2.local_settings.initial_window_size = window
            self.h2.local_settings.acknowledge()
        self.answers: dict[int, Answer] = {}
        self.stalled: set[int] = set()
        self._takes: dict[int, Callable[[bytes], object]] = {}
        self._settled = False
        self._buffer = b""
        self.h2.initiate_connection()
        self.flush()
        self.until(lambda: self._settled)

    def flush(self) -> None:
        """Send what was made."""
        self.client.send(self.h2.data_to_send())

    def until(self, condition: Callable[[], object]) -> None:
        """Read until this is true, or the server has ended the connection."""
        while not condition():
            data = self.client.sock.recv(65_536)
            assert data, "the connection has ended"
            for frame in self._frames(data):
                for event in self.h2.receive_data(frame):
                    self._note(event)
            self.flush()

    def _frames(self, data: bytes) -> Iterator[bytes]:
        """Yield whole frames, but for GOAWAY, after which h2 takes nothing more."""
        self._buffer += data
        while len(self._buffer) >= 9:
            size = 9 + int.from_bytes(self._buffer[:3])
            if len(self._buffer) < size:
                break
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            if frame[3] != GOAWAY:
                yield frame

    def _note(self, event: Any) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self._settled = True
        elif isinstance(event, ResponseReceived):
            pairs: Any = event.headers or ()
            self.answers[event.stream_id or 0].headers = dict(pairs)
        elif isinstance(event, DataReceived):
            number, data = event.stream_id or 0, event.data or b""
            if event.flow_controlled_length:
                self._credit(event.flow_controlled_length, number)
            self.answers[number].body += data
            if number in self._takes:
                self._takes[number](data)
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id or 0].ended = True
        elif isinstance(event, StreamReset):
            self.answers[event.stream_id or 0].reset = int(event.error_code or 0)

    def _credit(self, size: int, number: int) -> None:
        self.h2.increment_flow_control_window(size)
        if number not in self.stalled and not self.h2.streams[number].closed:
            self.h2.increment_flow_control_window(size, number)

    def ask(self, path: str = "/", **more: Any) -> int:
        """Send a request without a body; return its number."""
        return self._begin("GET", path, [], True, **more)

    def get(self, path: str = "/") -> Answer:
        """Make a request, and return its whole answer."""
        return self.read(self.ask(path))

    def read(self, number: int) -> Answer:
        """Wait until an answer is whole."""
        answer = self.answers[number]
        self.until(lambda: answer.ended)
        return answer

    def _begin(
        self,
        method: str,
        path: str,
        headers: Pairs,
        ended: bool,
        pseudo: Pairs | None = None,
    ) -> int:
        number = self.h2.get_next_available_stream_id()
        first = [(":method", method), *(pseudo or []), (":scheme", self.scheme), (":path", path)]
        self.answers[number] = Answer()
        self.h2.send_headers(number, [*first, (":authority", "test"), *headers], ended)
        self.flush()
        return number

    def open(self, path: str = "/", headers: Pairs | None = None, deflate: bool = False) -> Socket:
        """Ask for a WebSocket; what comes of it is to be awaited."""
        given = [("sec-websocket-version", "13"), *(headers or [])]
        if deflate:
            given.append(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"))
        number = self._begin("CONNECT", path, given, False, [(":protocol", "websocket")])
        socket = Socket(self, number, deflate)
        self._takes[number] = socket.take
        return socket


class Socket:
    """One WebSocket of a client.

    Attributes:
        number: its stream's.
        protocol: its state.
    """

    def __init__(self, line: Line, number: int, deflate: bool) -> None:
        self.number = number
        factories = [ClientPerMessageDeflateFactory(client_max_window_bits=True)] if deflate else []
        uri = parse_uri("ws://test/")
        self.protocol = ClientProtocol(uri, state=OPEN, extensions=factories, max_size=None)
        self._line = line
        self._agreed = False

    @property
    def answer(self) -> Answer:
        """What has come on its stream."""
        return self._line.answers[self.number]

    def opened(self) -> Socket:
        """Wait until it is accepted."""
        answer = self.answer
        self._line.until(lambda: answer.headers or answer.reset is not None)
        assert answer.status == 200, answer
        self._agree()
        return self

    def _agree(self) -> None:
        if not self._agreed:
            self._agreed = True
            name = "sec-websocket-extensions"
            agreed = self.answer.headers.get(name)
            given = Headers([] if agreed is None else [(name, agreed)])
            self.protocol.extensions = self.protocol.process_extensions(given)

    def take(self, data: bytes) -> None:
        """Take what the server has sent on its stream."""
        if self.answer.status == 200:
            self._agree()
            self.protocol.receive_data(data)
            self._write()

    def _write(self) -> None:
        """Send what the protocol has made, as far as the windows take it, and wait for more."""
        line = self._line
        if line.h2.streams[self.number].closed:
            self.protocol.data_to_send()
            return
        for data in self.protocol.data_to_send():
            if not data:  # the end
                line.h2.end_stream(self.number)
            while data:
                line.until(lambda: line.h2.local_flow_control_window(self.number) > 0)
                size = min(16_384, line.h2.local_flow_control_window(self.number))
                line.h2.send_data(self.number, data[:size])
                data = data[size:]
                line.flush()
        line.flush()

    def send(self, message: str | bytes) -> None:
        """Send a message."""
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self._write()

    def close(self, code: int = 1000) -> None:
        """Send a close frame."""
        self.protocol.send_close(code)
        self._write()

    def end(self) -> None:
        """End the stream without one."""
        self._line.h2.end_stream(self.number)
        self._line.flush()

    def reset(self) -> None:
        """Reset the stream."""
        self._line.h2.reset_stream(self.number, 8)
        self._line.flush()

    def receive(self) -> str | bytes:
        """Wait for the next message; each is one frame."""
        while True:
            self._line.until(lambda: self.protocol.events)
            frame = self.protocol.events.pop(0)
            assert isinstance(frame, Frame)
            assert frame.fin
            if frame.opcode is Opcode.TEXT:
                return bytes(frame.data).decode()
            if frame.opcode is Opcode.BINARY:
                return bytes(frame.data)
            assert frame.opcode is not Opcode.CLOSE, "it was closed"

    def close_code(self) -> int | None:
        """Wait for the server's close frame; return its code."""
        self._line.until(lambda: self.protocol.close_rcvd is not None)
        close = self.protocol.close_rcvd
        return None if close is None else int(close.code)

    def closed(self) -> int:
        """Wait until the server has closed it and ended its stream; return the code."""
        self._line.until(lambda: self.answer.ended or self.answer.reset is not None)
        close = self.protocol.close_rcvd
        return 1006 if close is None else int(close.code)
