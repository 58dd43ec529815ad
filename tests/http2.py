"""HTTP/2 for tests that write and read HTTP/1: a client's socket that translates.

What a test says in HTTP/1 is said to the server in HTTP/2, by h2's client side, and what the server
answers is given back as HTTP/1: a body without a length in chunks, one for each frame, and a stream
that was reset as a connection that ends. One request is under way at a time; those behind it wait
in the socket, as pipelined ones do in a server.
"""

from __future__ import annotations

import collections
import contextlib
import http
import io
import os
import select
import socket
from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import StreamClosedError

from tests import tls

WANTED = "TEST_OVER_HTTP2"
"""The variable that makes a run of the tests one over HTTP/2, where they have Bide's own server."""
PATIENCE = 2.0
"""Seconds for which a server's window is waited for before the test goes on without it."""
HEADER = 9
"""Bytes that each frame begins with."""
WIDE = 2**30
"""Bytes that a client lets a server send which it will not hear any more."""
GOAWAY, CONTINUATION, END_HEADERS = 7, 9, 4
OF_THE_CONNECTION = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
"""Headers that are for HTTP/1 alone (RFC 9113 section 8.2.2)."""

Fields = list[tuple[str, str]]


def wanted() -> bool:
    """Whether a test's client is to speak HTTP/2."""
    return os.environ.get(WANTED) == "1"


class _Request:
    """What of the request that is under way is still to be sent, and how its answer comes.

    Attributes:
        stream: its number.
        rest: bytes of the body, or of the chunk, that are to come.
        chunked: whether the body comes in chunks.
        sent: whether all of it was sent, or the server wants no more of it.
        head: whether it is a HEAD.
        framed: whether the answer's body is given back in chunks.
        due: bytes of the answer's body that are to come; None: its end is not its length.
        answered: whether the answer has ended.
    """

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.rest = 0
        self.chunked = False
        self.sent = False
        self.head = False
        self.framed = False
        self.due: int | None = None
        self.answered = False
        self.trailers: Fields = []


class HTTP2Socket:
    """A client's socket, as far as :class:`tests.served.Client` uses one.

    Args:
        below: connected: a socket, or one of :mod:`tests.tls`; its time-out counts here, too.
        window: bytes of a body that the server may send before the test takes some; 0: the usual.
        scheme: http or https.
        begins: whether to begin at once; else :meth:`shake` does.
    """

    def __init__(
        self, below: Any, window: int = 0, scheme: str = "http", begins: bool = True
    ) -> None:
        self.below = below
        if below.family != socket.AF_UNIX:  # else a frame may wait for the server's delayed ACK
            below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._scheme = scheme
        self._h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        if window:
            self._h2.local_settings.initial_window_size = window
            self._h2.local_settings.acknowledge()
        self._frames = b""  # received, the last frame of it not whole
        self._unsent = b""  # frames that the socket below has not taken
        self._asked = bytearray()  # written by the test, and not translated
        self._block = 0  # the stream of a head that has begun and is not complete
        self._request: _Request | None = None
        self._answer: collections.deque[tuple[bytes, int, int]] = collections.deque()
        self._over = False  # nothing more comes, unless the test makes another request
        self._cut = False  # an answer was cut: nothing more comes, whatever the test does
        self._leaving = False  # the server has said that the connection will end
        self._ended = False  # the server has closed the connection
        self._resetting = False
        self._mute = False  # the test has ended its side
        if begins:
            self._begin()

    def _begin(self) -> None:
        self._h2.initiate_connection()
        self._flush()

    def shake(self) -> None:
        """Make the handshake of TLS, and begin."""
        self.below.shake()
        self._begin()

    # Requests ----------------------------------------------------------------------------------

    def sendall(self, data: bytes) -> None:
        """Send all of it.

        What is behind an unanswered request is kept until its turn, and what the server's windows
        do not let through, until they do: a system keeps as much.
        """
        self._asked += data
        while not self._translate():
            self._flush()
            if self._quiet(PATIENCE):
                return
            if not self._fill():
                raise BrokenPipeError("the server has closed the connection")
        self._flush()

    def send(self, data: bytes) -> int:
        """Send all of it; raises BlockingIOError while other bytes are not sent."""
        with contextlib.suppress(BlockingIOError):
            while self._fill():
                pass
        self._translate()
        self._flush()
        if self._asked or self._unsent:
            raise BlockingIOError
        self._asked += data
        self._translate()
        self._flush()
        return len(data)

    def _translate(self) -> bool:
        """Send what may be sent now; return whether the server's window leaves nothing behind."""
        while self._asked:
            request = self._request
            if self._cut:
                self._asked.clear()
            elif request is None or request.sent:
                if request is not None and not request.answered:
                    return True  # its turn comes with the answer's end
                if not self._take_head():
                    return True
            elif request.rest:
                if not self._take_body(request):
                    return False
            elif not self._take_size(request):
                return True
        return True

    def _take_head(self) -> bool:
        """Send the head of a request, or that one begins; return whether it is complete."""
        while self._asked.startswith(b"\r\n"):
            del self._asked[:2]
        end = self._asked.find(b"\r\n\r\n")
        if end < 0:
            if self._asked and not self._block:
                self._begin_block()
            return False
        text = self._asked[:end]
        del self._asked[: end + 4]
        line, *lines = text.decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        assert version == "HTTP/1.1", f"a request of {version} is none of HTTP/2"
        headers = [(name.lower(), value.strip()) for name, _, value in _pairs(lines)]
        request = _Request(self._block or self._h2.get_next_available_stream_id())
        request.head = method == "HEAD"
        request.chunked = ("transfer-encoding", "chunked") in headers
        request.rest = int(dict(headers).get("content-length", 0))
        request.sent = not (request.chunked or request.rest)
        fields = [(":method", method), (":scheme", self._scheme), (":path", target)]
        hosts = [value for name, value in headers if name == "host"]
        fields += [(":authority", hosts[0])] if hosts else []
        fields += [each for each in headers if each[0] not in {"host", *OF_THE_CONNECTION}]
        self._request = request
        self._over = self._ended
        if self._block:
            self._end_block(fields, request)
        else:
            self._h2.send_headers(request.stream, fields, request.sent)
        return True

    def _begin_block(self) -> None:
        """Begin a head of which nothing is known yet: its frame says that others follow."""
        self._flush()
        self._block = self._h2.get_next_available_stream_id()
        self._unsent += bytes([0, 0, 0, 1, 0]) + self._block.to_bytes(4, "big")

    def _end_block(self, fields: Fields, request: _Request) -> None:
        """Send such a head; nothing else may have been sent meanwhile."""
        held = self._h2.data_to_send()
        self._h2.send_headers(request.stream, fields)
        block = self._h2.data_to_send()
        self._unsent += block[:3] + bytes([CONTINUATION, END_HEADERS]) + block[5:] + held
        self._block = 0
        if request.sent:
            self._h2.end_stream(request.stream)

    def _take_body(self, request: _Request) -> bool:
        """Send of the body what has come; return false if the server's window is shut."""
        size = min(len(self._asked), request.rest)
        if not self._over:
            room = self._h2.local_flow_control_window(request.stream)
            size = min(size, room, self._h2.max_outbound_frame_size)
            if not size:
                return False
            last = size == request.rest and not request.chunked
            self._h2.send_data(request.stream, bytes(self._asked[:size]), last)
        del self._asked[:size]
        request.rest -= size
        request.sent = not (request.rest or request.chunked)
        return True

    def _take_size(self, request: _Request) -> bool:
        """Take what stands between chunks; return whether that was complete."""
        if self._asked.startswith(b"\r\n"):  # behind a chunk
            del self._asked[:2]
            return True
        end = self._asked.find(b"\r\n")
        if end < 0:
            return False
        size = int(self._asked[:end].partition(b";")[0], 16)
        if size:
            request.rest = size
            del self._asked[: end + 2]
            return True
        end = self._asked.find(b"\r\n\r\n")
        if end < 0:
            return False
        text = self._asked[:end]
        del self._asked[: end + 4]
        request.sent = True
        if not self._over:
            lines = text.decode("latin-1").split("\r\n")[1:]
            trailers = [(name.lower(), value.strip()) for name, _, value in _pairs(lines)]
            if trailers:
                self._h2.send_headers(request.stream, trailers, True)
            else:
                self._h2.end_stream(request.stream)
        return True

    # Answers -----------------------------------------------------------------------------------

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive up to ``size`` bytes; none where a connection of HTTP/1 would end."""
        assert not flags
        while not self._answer:
            self._flush()
            if self._finished or not self._fill():
                return b""
        data, credit, stream = self._answer.popleft()
        if len(data) > size:
            self._answer.appendleft((data[size:], credit, stream))
            return data[:size]
        if credit:
            self._h2.acknowledge_received_data(credit, stream)
            self._flush()
        return data

    @property
    def _finished(self) -> bool:
        """Whether a connection of HTTP/1 would have ended behind what has come."""
        request = self._request
        return self._over or (self._leaving and (request is None or request.answered))

    def _fill(self) -> bool:
        """Receive once from the socket, and take it in; return false at its end."""
        if self._ended:
            return False
        data = self.below.recv(65536)
        if not data:
            self._ended = self._over = True
            return False
        self._frames += data
        while len(self._frames) >= HEADER:
            end = HEADER + int.from_bytes(self._frames[:3], "big")
            if len(self._frames) < end:
                break
            frame, self._frames = self._frames[:end], self._frames[end:]
            if frame[3] == GOAWAY:  # not for h2, which takes nothing more then
                self._leaving = True
                continue
            for event in self._h2.receive_data(frame):
                self._note(event)
        self._translate()
        self._flush()
        return True

    def _note(self, event: Event) -> None:
        request = self._request
        if request is None or getattr(event, "stream_id", 0) != request.stream:
            return
        if isinstance(event, InformationalResponseReceived):
            self._give(_head(_fields(event)))
        elif isinstance(event, ResponseReceived):
            self._note_head(request, _fields(event))
        elif isinstance(event, DataReceived):
            self._note_data(request, event)
        elif isinstance(event, TrailersReceived):
            request.trailers = _fields(event)
        elif isinstance(event, StreamEnded):
            if request.framed:
                lines = "".join(f"{name}: {value}\r\n" for name, value in request.trailers)
                self._give(f"0\r\n{lines}\r\n".encode("latin-1"))
            request.answered = True
        elif isinstance(event, StreamReset):
            self._cut = self._cut or not request.answered
            request.answered = self._over = True  # what is still written of it is dropped

    def _note_head(self, request: _Request, fields: Fields) -> None:
        named = dict(fields)
        bodiless = request.head or named[":status"] in ("204", "304")
        request.due = None if bodiless else int(named.get("content-length", -1))
        if request.due is not None and request.due < 0:
            request.framed, request.due = True, None
            fields.append(("transfer-encoding", "chunked"))
        if self._leaving:
            fields.append(("connection", "close"))
        request.answered = bodiless or request.due == 0  # whenever the end of the stream comes
        self._give(_head(fields))

    def _note_data(self, request: _Request, event: DataReceived) -> None:
        data, credit = event.data or b"", event.flow_controlled_length or 0
        if request.framed and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._give(data, credit)
        if request.due is not None:
            request.due -= len(data)
            # By HTTP/1 it is over, whenever the end of the stream comes.
            request.answered = request.answered or not request.due

    def _give(self, data: bytes, credit: int = 0) -> None:
        """Keep what the test may read, and what its reading lets the server send."""
        number = self._request.stream if self._request is not None else 0
        if data:
            self._answer.append((data, credit, number))
        elif credit:
            self._h2.acknowledge_received_data(credit, number)

    def is_silent(self) -> bool:
        """Whether nothing has come for the test, nor the end; what is for h2 is taken in."""
        while not (self._answer or self._finished):
            if self._quiet(0):
                return True
            self._fill()
        return False

    def _quiet(self, seconds: float) -> bool:
        """Whether nothing comes from the socket below, for so many seconds."""
        if not isinstance(self.below, socket.socket):
            if not self.below.is_silent():
                return False
            if not seconds:
                return True
        return not select.select([self.below], [], [], seconds)[0]

    # The connection ----------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send frames, as many as a socket takes that does not block."""
        if not self._block:
            self._unsent += self._h2.data_to_send()
        while self._unsent and not self._mute:
            try:
                sent = self.below.send(self._unsent)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._unsent = b""  # what has come before can still be read
                return
            self._unsent = self._unsent[sent:]

    def shutdown(self, how: int) -> None:
        """End the sending, as the socket does; windows, which cannot be opened then, are now."""
        request = self._request
        if not self._over:
            self._h2.increment_flow_control_window(WIDE)
            if request is not None and not request.answered:
                self._h2.increment_flow_control_window(WIDE, request.stream)
        self._flush()
        self._mute = True
        self.below.shutdown(how)

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Set an option of the socket; that it is to be reset means the stream under way."""
        if option == socket.SO_LINGER and self._open is not None:
            self._resetting = True
        else:
            self.below.setsockopt(level, option, value)

    @property
    def _open(self) -> _Request | None:
        """The request that is under way, and could be reset."""
        request = self._request
        if request is None or self._over or self._block or (request.answered and request.sent):
            return None
        return request

    def close(self) -> None:
        """Close the connection, or first reset the stream under way, if that was asked for."""
        request = self._open
        if self.below.fileno() == -1:
            return
        if not self._resetting:
            with contextlib.suppress(OSError):
                self.is_silent()  # what is left unread would make a reset of the end
        elif request is not None:
            with contextlib.suppress(StreamClosedError):  # its end has come, and was not read
                self._h2.reset_stream(request.stream, ErrorCodes.CANCEL)
            with contextlib.suppress(OSError):
                self._flush()
        self.below.close()

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader, which does not own the socket."""
        assert mode == "rb"
        return io.BufferedReader(tls.SocketReader(self))

    def __getattr__(self, name: str) -> Any:
        """Take all else, as ``settimeout`` and ``fileno``, from the socket."""
        return getattr(self.below, name)


def _pairs(lines: list[str]) -> Iterable[tuple[str, str, str]]:
    return [each.partition(":") for each in lines]


def _fields(event: Any) -> Fields:
    return [(str(name), str(value)) for name, value in event.headers or ()]


def _head(named: Fields) -> bytes:
    """Return the head of a response, with the reason that is usual for its status."""
    status = dict(named)[":status"]
    reason = http.HTTPStatus(int(status)).phrase if int(status) in set(http.HTTPStatus) else ""
    lines = [f"{name}: {value}" for name, value in named if name != ":status"]
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", *lines, "", ""]).encode("latin-1")
