"""h2's side of a connection, as Bide wants it, and what the client is told at the beginning."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived, StreamEnded
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs
from hpack import HPACKError, OversizedHeaderListError

from bide.exchange.limits import Limits
from bide.protocols.http2.fields import FieldDecoder, FieldEncoder
from bide.protocols.http2.guard import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADER,
    HEADERS,
    PADDED,
    PRIORITIZED,
    Frame,
)
from bide.protocols.http2.heads import Fields
from bide.protocols.websocket.served import served

_HEADER: Final = Struct(">IBI").pack
"""A frame's length and type in four bytes, its flags, its stream (RFC 9113 section 4.1)."""
STREAMS: Final = 100
"""Streams at a time; each counts until its application has ended."""
WINDOW: Final = 65_535
"""Bytes of a body that a client may send before it has heard anything: no window is smaller."""
CONNECTION_WINDOW: Final = 1024 * 1024
"""Bytes of all bodies that may be on their way."""
OVERHEAD: Final = 32
"""Bytes that a field counts for beside its name and its value (RFC 9113 section 6.5.2)."""
PSEUDO: Final = 5
"""Pseudo-headers that a request may have."""
NO_PRIORITIES: Final = 9
"""SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218 section 2.1)."""


class _Stream(H2Stream):
    """A stream of h2 that leaves the length of the body alone.

    h2 ends the connection for a wrong one, and with it all other requests; RFC 9113 section 8.1.1
    asks for the end of the stream only.
    """

    def _initialize_content_length(self, *_: object) -> None:
        return

    def _track_content_length(self, *_: object) -> None:
        return


class HTTP2State(H2Connection):
    """h2's connection, with such streams; its frames of responses are made here.

    h2 makes an object of each frame, and checks once more what Bide has checked. It is told what
    was sent: its streams' states and windows are right at any time.
    """

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.encoder: Any = FieldEncoder()
        self.decoder: Any = FieldDecoder()
        self._made: list[bytes] = []
        self._in_block = False  # a header block has begun to come, and is not complete

    def _begin_new_stream(self, stream_id: int, allowed_ids: object) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)  # type: ignore[arg-type]
        stream.__class__ = _Stream
        return stream

    def receive(self, frame: Frame) -> list[Event]:
        """Take a frame; return what it means.

        Raises:
            ProtocolError: the connection must end.
        """
        kind, flags, number, _ = frame
        if kind == HEADERS:
            whole = flags & (END_HEADERS | PADDED | PRIORITIZED) == END_HEADERS
            new = number & 1 and number > self.highest_inbound_stream_id
            if whole and new and not self._in_block:
                return [self._request(frame)]
            self._in_block = not flags & END_HEADERS
        elif kind == CONTINUATION:
            self._in_block = not flags & END_HEADERS
        return self.receive_data(frame.data)

    def _request(self, frame: Frame) -> RequestReceived:
        """Take a request whose head is one frame: almost every one is."""
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        try:
            fields = self.decoder.decode(frame.data[HEADER:])
        except OversizedHeaderListError as error:
            raise DenialOfServiceError(str(error)) from error
        except (HPACKError, IndexError, TypeError, UnicodeDecodeError) as error:
            wrong = ProtocolError("a header block is malformed")
            wrong.error_code = ErrorCodes.COMPRESSION_ERROR
            raise wrong from error
        stream = self._begin_new_stream(frame.stream, AllowedStreamIDs.ODD)
        stream.state_machine.process_input(StreamInputs.RECV_HEADERS)
        event = RequestReceived(stream_id=frame.stream, headers=fields)
        if frame.flags & END_STREAM:
            stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)
            event.stream_ended = StreamEnded(stream_id=frame.stream)
        return event

    def forget(self, number: int) -> None:
        """Forget a stream that is closed, but for how it was closed.

        h2 looks for such ones among all, at each request.
        """
        stream = self.streams.get(number)
        if stream is not None and stream.closed:
            self._closed_streams[number] = stream.closed_by
            del self.streams[number]

    def head(self, number: int, fields: Fields, ended: bool = False) -> None:
        """Send the head of a response, or its trailers.

        Raises:
            ProtocolError: the stream is not open.
        """
        self._go(number, StreamInputs.SEND_HEADERS, ended)
        self._add_block(number, fields, END_STREAM if ended else 0)

    def hint(self, number: int, fields: Fields) -> None:
        """Send a head ahead of the response's own, of a status below 200."""
        self._go(number, StreamInputs.SEND_INFORMATIONAL_HEADERS, False)
        self._add_block(number, fields, 0)

    def _add_block(self, number: int, fields: Fields, flags: int) -> None:
        """Add a block of headers, in as many frames as it takes."""
        block = self.encoder.encode(fields)
        kind, piece, rest = HEADERS, block[:FRAME], block[FRAME:]
        while True:
            flags |= 0 if rest else END_HEADERS
            self._made += (_HEADER(len(piece) << 8 | kind, flags, number), piece)
            if not rest:
                return
            kind, flags, piece, rest = CONTINUATION, 0, rest[:FRAME], rest[FRAME:]

    def data(self, number: int, piece: bytes, ended: bool = False) -> None:
        """Send bytes of a body, which the windows have room for.

        Raises:
            ProtocolError: the stream is not open.
        """
        stream = self._go(number, StreamInputs.SEND_DATA, ended)
        size = len(piece)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        self._made += (_HEADER(size << 8 | DATA, END_STREAM if ended else 0, number), piece)

    def _go(self, number: int, what: StreamInputs, ended: bool) -> H2Stream:
        stream = self.streams[number]
        stream.state_machine.process_input(what)
        if ended:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        return stream

    def take(self) -> bytes:
        """Return what is to be sent: first these frames, then h2's own."""
        made, self._made = self._made, []
        made.append(self.data_to_send())
        return b"".join(made)

    def drop(self) -> None:
        """Drop what is to be sent."""
        self._made.clear()
        self.clear_outbound_data_buffer()


def new_connection(limits: Limits) -> HTTP2State:
    """Make h2's side of a connection. Its checks of what is sent are off: the heads are Bide's."""
    connection = HTTP2State(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
    )
    said: dict[Any, int] = {
        SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.head,
        SettingCodes.INITIAL_WINDOW_SIZE: max(WINDOW, limits.window),
        NO_PRIORITIES: 1,
    }
    if served():
        said[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
    connection.local_settings = Settings(client=False, initial_values=said)
    # Twice what a head may have: one that is a little too large is answered, and not cut off. Each
    # field counts for 32 bytes more here (RFC 9113 section 6.5.2).
    connection.decoder.most = 2 * limits.fields + 8
    connection.decoder.max_header_list_size = 2 * limits.head + OVERHEAD * (limits.fields + PSEUDO)
    return connection
