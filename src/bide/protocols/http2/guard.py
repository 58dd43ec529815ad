"""What comes from an HTTP/2 client, cut into frames and counted, before anything is done with it.

Frames that cost the client little and the server more have an allowance each (CVE-2019-9512 to
9518, CVE-2023-44487, CVE-2024-27316). So have the frames of one header block, and its bytes. A
client that uses one up is told so (ENHANCE_YOUR_CALM), and its connection ends.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from h2.exceptions import FrameTooLargeError

from bide.protocols.http2.buckets import Bucket

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9
PRIORITY_UPDATE: Final = 16  # RFC 9218 section 7.1

END_STREAM: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8
PRIORITIZED: Final = 32

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with (RFC 9113 section 3.4)."""
HEADER: Final = 9
"""Bytes that each frame begins with."""
FRAME: Final = 16 * 1024
"""Bytes of a frame's payload at most: the least that may be said, and what is said here."""
SMALL: Final = 256
"""Bytes of a frame of data below which it is joined with those behind it: each costs the same."""
BLOCK_FRAMES: Final = 8
"""Frames of a header block behind its first one."""
RESETS: Final = (200, 20.0)
"""Streams that are reset, by the client or for what it has done: at once, and each second."""
ANSWERED: Final = 0.1
"""Such a stream for each request that was answered: a proxy sends those of many people."""
CONTROLS: Final = (100, 10.0)
"""Frames of other kinds that carry nothing of a request: at once, and each second."""
UPDATES: Final = (1000, 100.0)
"""Updates of windows, beside two for each frame of data that was sent: at once, each second."""


NAMES: Final = {PRIORITY: "PRIORITY", SETTINGS: "SETTINGS", PING: "PING", GOAWAY: "GOAWAY"}
"""What frames that carry nothing of a request are called in the log."""

# Why a connection is ended for what its client sends: one word each, for the metrics.
RESET_STREAMS: Final = "http2_resets"
EMPTY_FRAMES: Final = "http2_frames"
WINDOW_UPDATES: Final = "http2_window_updates"
HEADER_BLOCK: Final = "http2_header_block"
UNREAD_REPLIES: Final = "http2_unread_replies"
BROKEN_RULE: Final = "http2_error"

# Why a request is refused, which the client may send again; likewise.
TOO_MANY_STREAMS: Final = "http2_streams"
AFTER_GOAWAY: Final = "http2_goaway"


class AbuseError(Exception):
    """A client asks for more than it may, by its frames; its connection is to end.

    Attributes:
        reason: why, in one word.
    """

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Frame(NamedTuple):
    """One frame, as it came.

    Attributes:
        kind: its type.
        flags: as sent.
        stream: the stream that it is for; 0 for the connection.
        data: all of its bytes.
    """

    kind: int
    flags: int
    stream: int
    data: bytes


class Guard:
    """Cuts what comes into frames, and counts them; on the loop.

    Args:
        block: bytes that a header block may have, as it is sent.

    Attributes:
        resets: the allowance of streams that are reset, and of requests that are refused.
        updates: that of updates of windows; what is sent gives some.
        answered: requests that were answered; counted up from any thread, under the lock.
        in_block: whether a header block has begun to come and is not complete.
    """

    __slots__ = (
        "_at",
        "_block",
        "_buffer",
        "_controls",
        "_frames",
        "_most",
        "_preface",
        "_rewarded",
        "answered",
        "in_block",
        "resets",
        "updates",
    )

    def __init__(self, block: int) -> None:
        self._buffer = b""  # what has come
        self._at = 0  # how much of it was returned
        self._preface = len(PREFACE)  # bytes of it that are still to come
        self.resets = Bucket(*RESETS)
        self.updates = Bucket(*UPDATES)
        self._controls = Bucket(*CONTROLS)
        self.answered = 0
        self._rewarded = 0  # of those that were answered, for how many the client has its allowance
        self._most = block
        self._block = self._frames = 0  # bytes and frames of the header block that comes
        self.in_block = False

    def refill(self, elapsed: float) -> None:
        """Add to the allowances what some seconds bring."""
        for each in (self.resets, self.updates, self._controls):
            each.refill(elapsed)

    def preface(self, data: bytes) -> tuple[bytes, bytes]:
        """Split off what belongs to the client's preface; return that, and the rest."""
        if not self._preface:
            return b"", data
        begins = data[: self._preface]
        self._preface -= len(begins)
        return begins, data[len(begins) :]

    def feed(self, data: bytes) -> None:
        """Add what has come."""
        self._buffer = self._buffer[self._at :] + data if self._buffer else data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have come and were not returned yet."""
        return len(self._buffer) - self._at

    def next(self) -> Frame | None:
        """Return the next frame, counted; None if none is complete, and the rest is kept.

        Small frames of one body that have come together are returned as one.

        Raises:
            AbuseError: the client has used up an allowance.
            ProtocolError: a frame is too large; raised when its first bytes have come.
        """
        data, at = self._buffer, self._at
        size = len(data)
        if size - at >= HEADER:
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + HEADER + length
            if length > FRAME:
                raise FrameTooLargeError(f"a frame has {length} bytes, and may have {FRAME}")
            if end <= size:
                kind, flags = data[at + 3], data[at + 4]
                stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
                self._count(kind, flags, length, data[at + HEADER : at + HEADER + 1])
                if kind == DATA and not flags and 0 < length < SMALL:
                    whole, end = _joined(data, at, end)
                else:
                    whole = data[at:end]
                self._at = end
                return Frame(kind, flags, stream, whole)
        self._buffer = data[at:]
        self._at = 0
        return None

    def _count(self, kind: int, flags: int, length: int, first: bytes) -> None:
        if kind == DATA:
            padding = 1 + first[0] if flags & PADDED and first else 0
            if length <= padding and not flags & END_STREAM and not self._controls.take():
                raise AbuseError(EMPTY_FRAMES, "it sends too many DATA frames without data")
        elif kind in (HEADERS, CONTINUATION):
            self._count_block(kind, flags, length)
        elif kind == RST_STREAM:
            self.count_reset()
        elif kind == WINDOW_UPDATE:
            if not self.updates.take():
                raise AbuseError(WINDOW_UPDATES, "it updates windows too often")
        elif not self._controls.take():
            name = NAMES.get(kind, f"type {kind}")
            raise AbuseError(
                EMPTY_FRAMES,
                f"it sends too many frames that carry nothing of a request, here {name}",
            )

    def count_reset(self, times: int = 1) -> None:
        """Count a stream that is reset, or a request that is refused.

        Args:
            times: how often it counts: it may have cost the server more than others.

        Raises:
            AbuseError: there were too many.
        """
        answered = self.answered
        self.resets.give((answered - self._rewarded) * ANSWERED)
        self._rewarded = answered
        if not self.resets.take(times):
            raise AbuseError(
                RESET_STREAMS,
                "it resets too many streams, or sends too many requests to be refused",
            )

    def _count_block(self, kind: int, flags: int, length: int) -> None:
        if kind == HEADERS:
            self._block = self._frames = 0
            self._controls.give(1)  # a page of hundreds of images has their priorities changed
        else:
            self._frames += 1
        self._block += length
        if self._frames > BLOCK_FRAMES:
            raise AbuseError(
                HEADER_BLOCK, f"a header block has more than {1 + BLOCK_FRAMES} frames"
            )
        if self._block > self._most:
            raise AbuseError(HEADER_BLOCK, f"a header block has more than {self._most} bytes")
        self.in_block = not flags & END_HEADERS


def _joined(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Return a small frame of data and those like it behind it as one frame, and where they end.

    The windows count the same bytes. Else a body that comes byte by byte would keep the loop busy.
    """
    like = data[at + 3 : at + HEADER]  # the type, no flags, and the stream
    parts = [data[at + HEADER : end]]
    total, size = len(parts[0]), len(data)
    while data[end + 3 : end + HEADER] == like:
        length = int.from_bytes(data[end : end + 3], "big")
        begins = end + HEADER
        if not 0 < length < SMALL or begins + length > size or total + length > FRAME:
            break
        parts.append(data[begins : begins + length])
        total += length
        end = begins + length
    return total.to_bytes(3, "big") + like + b"".join(parts), end
