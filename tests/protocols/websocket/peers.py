"""The client of one WebSocket over a real connection, frame by frame, by hand."""

from __future__ import annotations

import zlib
from typing import Any

from tests.protocols.websocket.wires import (
    BINARY,
    CONT,
    FIN,
    KEY,
    RSV1,
    TEXT,
    frame,
    frames_of,
)
from tests.served import Client, Served, request

ASKED = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY.decode()}",
]
STEP = 256
"""Bytes that are inflated at a time."""
LEAST = 64
"""Bytes of a message from which on the server compresses it."""


def upgraded(served: Served, behind: bytes = b"", path: str = "/") -> Client:
    """Open a WebSocket by hand, with bytes that come with the head; read the answer."""
    client = served.connect()
    client.send(request(path, headers=ASKED) + behind)
    assert client.head().status == 101
    return client


def read_frame(client: Client) -> tuple[int, bytes]:
    """Read one frame of the server's."""
    head = client.read(2)
    if head[1] >= 126:
        head += client.read(2 if head[1] == 126 else 8)
        size = int.from_bytes(head[2:])
    else:
        size = head[1]
    return next(frames_of(head + client.read(size)))


class Peer:
    """A client that offers extensions, and checks what the server does with them (RFC 7692).

    Attributes:
        client: the connection.
        agreed: the parameters of permessage-deflate that the server has answered; None: it is not
            used.
    """

    def __init__(self, served: Served, offered: str = "") -> None:
        self.client = served.connect()
        more = [f"Sec-WebSocket-Extensions: {offered}"] if offered else []
        self.client.send(request(headers=[*ASKED, *more]))
        head = self.client.head()
        assert head.status == 101
        answer = head.header("Sec-WebSocket-Extensions")
        self.agreed: dict[str, str] | None = None
        if answer is not None:
            name, *parameters = (each.strip() for each in answer.split(";"))
            assert name == "permessage-deflate"
            self.agreed = {key: value for key, _, value in (e.partition("=") for e in parameters)}
        self._encoder: Any = None
        self._decoder: Any = None

    def send(self, message: str | bytes, fragment: int = 0) -> None:
        """Send a message, compressed if that is agreed, in fragments of so many bytes."""
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        opcode, bits = TEXT if text else BINARY, 0
        if self.agreed is not None:
            data, bits = self._deflated(self.agreed, data), RSV1
        size = fragment or max(1, len(data))
        ends = range(size, len(data), size)
        frames = []
        for end in ends:
            frames.append(frame(opcode, data[end - size : end], bits))
            opcode, bits = CONT, 0
        frames.append(frame(opcode, data[len(ends) * size :], FIN | bits))
        self.client.send(b"".join(frames))

    def receive(self) -> str | bytes:
        """Read a message; it is one frame, compressed if that is agreed and it is long enough."""
        first, data = read_frame(self.client)
        compressed = bool(first & RSV1)
        if compressed:
            assert self.agreed is not None
            data = self._inflated(self.agreed, data)
        assert compressed == (self.agreed is not None and len(data) >= LEAST)
        assert first & ~RSV1 in (FIN | TEXT, FIN | BINARY)
        return data.decode() if first & TEXT else data

    def _deflated(self, agreed: dict[str, str], data: bytes) -> bytes:
        if self._encoder is None or "client_no_context_takeover" in agreed:
            bits = int(agreed.get("client_max_window_bits", 15))
            # zlib has no window of 8 bits; without references into it any is small enough.
            how = zlib.Z_DEFAULT_STRATEGY if bits > 8 else zlib.Z_HUFFMAN_ONLY
            self._encoder = zlib.compressobj(wbits=-max(9, bits), strategy=how)
        data = self._encoder.compress(data) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(b"\x00\x00\xff\xff")
        return data[:-4]

    def _inflated(self, agreed: dict[str, str], data: bytes) -> bytes:
        if self._decoder is None or "server_no_context_takeover" in agreed:
            bits = int(agreed.get("server_max_window_bits", 15))
            self._decoder = zlib.decompressobj(wbits=-bits)
        # In steps: what is in the buffer that zlib writes to, it finds there at any distance.
        blocks = [self._decoder.decompress(data + b"\x00\x00\xff\xff", STEP)]
        while len(blocks[-1]) == STEP:
            blocks.append(self._decoder.decompress(self._decoder.unconsumed_tail, STEP))
        assert not self._decoder.unconsumed_tail
        return b"".join(blocks)
