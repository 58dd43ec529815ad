"""Published attacks by WebSocket frames, on bytes alone."""

from tests.protocols.websocket.wires import BINARY, CONT, frame
from tests.protocols.websocket.wires import Wire as Socket

LIMIT = 1000


def test_messages_and_frames_are_bounded_whether_they_are_complete_or_not() -> None:
    """Of any size (CVE-2026-44545), and such as never end (CVE-2026-54274)."""
    for attack in (
        frame(BINARY, bytes(LIMIT + 1)),
        frame(BINARY, bytes(2**20))[:10],  # announced, and no more
        frame(BINARY, b"", 0) + frame(CONT, b"a", 0) * LIMIT,
    ):
        socket = Socket(message=LIMIT)
        socket.send(attack)
        assert socket.code() == 1009
        assert socket.received() == []
        assert not socket.protocol._frames.reader.buffer
    waits = Socket(message=LIMIT)
    waits.send(frame(BINARY, bytes(LIMIT))[:-1])
    assert len(waits.protocol._frames.reader.buffer) < LIMIT
