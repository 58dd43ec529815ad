"""Frames of one WebSocket: parsed and checked by the package ``websockets``, and put together.

Bounded: a message and its fragments by one size, before it is inflated; deflate's windows by 12
bits; what comes of the bytes that are received at a time, if they are no more than ``step``. No
locks: who calls it holds the connection's.
"""

from __future__ import annotations

import logging
import zlib
from codecs import getincrementaldecoder
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final

from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from bide.exchange.messaging import Message
from bide.protocols.websocket.arrivals import FRAGMENT, Arrivals

LEAST: Final = 64
"""Bytes of a message from which on it is compressed."""
STEP: Final = 64 * 1024
"""Bytes that are parsed at a time: a whole read; as empty messages they count 683 KiB."""
STEP_DEFLATED: Final = 1024
"""The same where messages may be compressed: they inflate to 1 MiB at most."""

# An enumeration's members are looked up by three hundred instructions each.
_CONT: Final = Opcode.CONT
_TEXT: Final = Opcode.TEXT
_CLOSE: Final = Opcode.CLOSE
_DATA: Final = (_TEXT, Opcode.BINARY, _CONT)
_Decoder: Final = getincrementaldecoder("utf-8")

log = logging.getLogger("bide.websocket")
log.setLevel(logging.WARNING)  # the library tells of each end


class Deflate(Extension):
    """permessage-deflate (RFC 7692), whose encoder is made at the first long message."""

    name = ServerPerMessageDeflateFactory.name

    def __init__(self, agreed: PerMessageDeflate) -> None:
        self.dropping = False
        self._agreed = agreed
        self._lasting = not agreed.local_no_context_takeover
        if self._lasting:
            del agreed.encoder

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame, to ``max_size`` bytes at most; empty one that is dropped."""
        if self.dropping and frame.opcode in _DATA:
            return replace(frame, data=b"", rsv1=False)
        return self._agreed.decode(frame, max_size=max_size)

    def encode(self, frame: Frame) -> Frame:
        """Compress a frame that is long enough."""
        if len(frame.data) < LEAST or frame.opcode not in _DATA:
            return frame
        agreed = self._agreed
        if self._lasting:
            agreed.encoder = zlib.compressobj(
                wbits=-agreed.local_max_window_bits, **agreed.compress_settings
            )
            self._lasting = False
        return agreed.encode(frame)


class _Factory(ServerPerMessageDeflateFactory):
    """Agrees to windows of 12 bits, or to nothing."""

    def process_request_params(self, params: Any, accepted_extensions: Any) -> Any:
        """Return the answer's parameters and the extension."""
        answer, agreed = super().process_request_params(params, accepted_extensions)
        return answer, Deflate(agreed)


_DEFLATE: Final = _Factory(
    server_max_window_bits=12,
    client_max_window_bits=12,
    require_client_max_window_bits=True,
    compress_settings={"memLevel": 5},
)


class _Reader(StreamReader):
    """Knows how much it is asked for.

    Attributes:
        wanted: the bytes that are read next: for most of the time, what a frame holds.
    """

    wanted = 0

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        """Read so many bytes."""
        self.wanted = n
        return super().read_exact(n)

    def at_eof(self) -> Generator[None, None, bool]:
        """Wait for the next frame, or the end."""
        self.wanted = 0
        return super().at_eof()


class Frames(ServerProtocol):
    """The protocol of ``websockets``, after the handshake; it keeps whole messages.

    Attributes:
        arrivals: the messages that have come.
        deflates: whether messages may be compressed.
        dropping: whether messages that come are dropped.
        size: what the fragments count of the message that is still coming.
    """

    def __init__(self, limit: int, deflate: bool) -> None:
        """Make it; ``limit`` is the bytes of a message."""
        factories: Sequence[_Factory] = (_DEFLATE,) if deflate else ()
        super().__init__(state=OPEN, extensions=factories, max_size=limit, logger=log)
        self._limit = limit
        self._parts: list[Any] = []
        self._decoder: Any = None  # of the text that comes in fragments
        self._unfinished = False  # more fragments of a message are to come
        self.size = 0
        self.dropping = False
        self.arrivals = Arrivals(limit)

    def negotiate(self, offered: str) -> str:
        """Agree to extensions; return what to answer, "" for none."""
        offered = ",".join(each for each in offered.split(",") if each.strip(" \t"))
        if not offered:
            return ""
        answer, self.extensions = self.process_extensions(
            Headers([("Sec-WebSocket-Extensions", offered)])
        )
        if self.extensions:
            self.reader = _Reader()
            self.parser = self.parse()
            next(self.parser)
        return answer or ""

    def drop(self) -> None:
        """Drop messages from now on, and do not inflate them; control frames are still taken."""
        self.dropping = True
        self.arrivals.between = False
        self._parts, self._decoder, self.size = [], None, 0
        for each in self.extensions:
            if isinstance(each, Deflate):
                each.dropping = True

    @property
    def deflates(self) -> bool:
        """Whether messages may be compressed."""
        return bool(self.extensions)

    @property
    def step(self) -> int:
        """How many bytes to receive at a time: up to a frame's end, or so that not much comes."""
        reader = self.reader
        if self.dropping or not isinstance(reader, _Reader):
            return STEP
        return max(STEP_DEFLATED, reader.wanted - len(reader.buffer))

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes; where they end with a message, the next frame may be a plain one."""
        self.arrivals.between = False
        super().receive_data(data)

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame; what is raised here fails the connection with its close code."""
        if self._unfinished and frame.opcode is _CLOSE:
            # It may come between fragments (RFC 6455 section 5.4), and gives their message up.
            super().recv_frame(Frame(_CONT, b""))
        super().recv_frame(frame)
        self.events.clear()
        if frame.opcode not in _DATA:
            ready = self.state is OPEN and not (self._unfinished or self.dropping)
            self.arrivals.between = ready and not self.reader.buffer
            return
        self._unfinished = not frame.fin
        if self.dropping:
            return
        whole: Message
        data, fin = frame.data, frame.fin
        size = len(data) + FRAGMENT
        if frame.opcode is not _CONT:
            if fin:
                whole = str(data, "utf-8") if frame.opcode is _TEXT else bytes(data)
                self._keep(whole, size)
                return
            self._decoder = _Decoder() if frame.opcode is _TEXT else None
        self.size += size
        if (
            self.size > self._limit + FRAGMENT
        ):  # the last fragment, as a message's only one, is free
            raise PayloadTooBig(None, self._limit)
        self._parts.append(data if self._decoder is None else self._decoder.decode(data, fin))
        if fin:
            whole = b"".join(self._parts) if self._decoder is None else "".join(self._parts)
            self._keep(whole, self.size)
            self._parts, self._decoder, self.size = [], None, 0

    def _keep(self, message: Message, size: int) -> None:
        self.arrivals.add(message, size)
        self.arrivals.between = not self.reader.buffer

    def encoded(self, opcode: int, data: bytes) -> bytes:
        """Return a message's whole frame; in the order in which they are sent."""
        return Frame(Opcode(opcode), data).serialize(mask=False, extensions=self.extensions)
