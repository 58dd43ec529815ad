"""A client of HTTP/2 that sends what the test says, frame by frame, and checks nothing.

It has hyperframe's frames and hpack's tables, and no state of its own: every mistake can be made.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from bide.protocols.http2.guard import PREFACE
from tests.served import DEADLINE

Fields = list[tuple[bytes, bytes]]
HEADER_TABLE_SIZE = 1
WINDOW = 2**31 - 1 - 65_535


def get(path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    """Return the fields of a request."""
    start = [(b":method", method), (b":scheme", b"http"), (b":path", path)]
    return [*start, (b":authority", b"test"), *more]


@dataclass
class Answer:
    """What came on one stream."""

    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """Of the response; 0 before it has come."""
        return int(self.fields.get(b":status", b"0"))


class Client:
    """One connection; every read has the deadline.

    Args:
        address: as for ``--bind``, without TLS.
        settings: what the client says at its beginning.
        window: by how much it opens the connection's window.

    Attributes:
        answers: what came, by the streams' numbers.
        gone: the code and the reason of the GOAWAY with an error, once it has come.
        closed: whether the server has closed the connection.
        pings: answers to PING that have come.
    """

    def __init__(
        self, address: str, settings: dict[int, int] | None = None, window: int = WINDOW
    ) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.create_connection((host.strip("[]"), int(port)), DEADLINE)
        self.encoder = Encoder()
        self._decoder = Decoder()
        self._data = b""
        self._next = 1
        self.answers: dict[int, Answer] = {}
        self.gone: tuple[int, str] | None = None
        self.closed = False
        self.pings = 0
        self.sock.sendall(PREFACE)
        self.send(SettingsFrame(0, settings=settings or {}))
        if window:
            self.send(WindowUpdateFrame(0, window_increment=window))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *frames: Frame | bytes) -> bool:
        """Send them at once; return whether the server still takes them."""
        data = b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames)
        try:
            self.sock.sendall(data)
        except OSError:
            self.closed = True
        return not self.closed

    def allow_table(self, size: int) -> None:
        """Allow the server so many bytes for the table of its responses' headers."""
        self._decoder.max_allowed_table_size = size
        self.send(SettingsFrame(0, settings={HEADER_TABLE_SIZE: size}))

    def number(self) -> int:
        """Return the number of the next stream."""
        number, self._next = self._next, self._next + 2
        self.answers[number] = Answer()
        return number

    def head(self, number: int, fields: Fields, ended: bool = True) -> HeadersFrame:
        """Return a request's HEADERS frame."""
        flags = ["END_HEADERS"] + ["END_STREAM"] * ended
        return HeadersFrame(number, self.encoder.encode(fields), flags=flags)

    def request(self, fields: Fields, body: bytes | None = None) -> list[Frame]:
        """Return the frames of a request that is not larger than windows and frames."""
        number = self.number()
        frames: list[Frame] = []
        head = self.head(number, fields, body is None)
        block, head.data = head.data[16_384:], head.data[:16_384]
        frames.append(head)
        if block:
            head.flags.discard("END_HEADERS")
            frames.append(ContinuationFrame(number, block, flags=["END_HEADERS"]))
        if body is not None:
            frames.append(DataFrame(number, body, flags=["END_STREAM"]))
        return frames

    def ask(self, fields: Fields, body: bytes | None = None) -> Answer:
        """Make a request; return what came of it when its stream has ended."""
        frames = self.request(fields, body)
        self.send(*frames)
        answer = self.answers[frames[0].stream_id]
        self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    def until(self, condition: Any) -> None:
        """Read until it is true, or the connection has ended."""
        while not condition() and not self.closed:
            self.read()

    def until_closed(self) -> None:
        """Read until the server has ended the connection."""
        self.until(lambda: False)

    def answered(self) -> bool:
        """Send a PING and wait for its answer: all before it has been taken in."""
        before = self.pings
        self.send(PingFrame(0, opaque_data=b"12345678"))
        self.until(lambda: self.pings > before)
        return self.pings > before

    def read(self) -> None:
        """Take what comes with one read."""
        try:
            data = self.sock.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
        self._data += data
        for frame in self._frames():
            self._take(frame)

    def _frames(self) -> Iterator[Frame]:
        while len(self._data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._data[:9]))
            if len(self._data) < 9 + length:
                return
            frame.parse_body(memoryview(self._data[9 : 9 + length]))
            self._data = self._data[9 + length :]
            yield frame

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, GoAwayFrame):
            if frame.error_code:
                self.gone = (frame.error_code, frame.additional_data.decode())
        elif isinstance(frame, SettingsFrame):
            if "ACK" not in frame.flags:
                with contextlib.suppress(OSError):
                    self.sock.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame):
            self.pings += 1
        else:
            self._take_stream(frame, self.answers.setdefault(frame.stream_id, Answer()))

    def _take_stream(self, frame: Frame, answer: Answer) -> None:
        if isinstance(frame, HeadersFrame):
            answer.fields.update(self._decoder.decode(frame.data, raw=True))
        elif isinstance(frame, DataFrame):
            answer.body += frame.data
        elif isinstance(frame, RstStreamFrame):
            answer.reset = frame.error_code
        if "END_STREAM" in frame.flags:
            answer.ended = True
