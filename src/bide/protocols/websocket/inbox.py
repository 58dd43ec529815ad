"""What one WebSocket's client has sent, and its application has not received.

Bytes are parsed step by step, until as many messages wait as may. The rest is kept as it came:
the bytes of one read may inflate to a thousand times as many. No locks: who calls it holds the
connection's.

Invariants:

- What waits is bounded by the window, one message beyond it, and what one step comes to.
- A message that is still coming counts as well, but nothing waits for its end: while all
  connections together hold as much as they may, one that is longer than the window is refused.
"""

from __future__ import annotations

from bide.exchange.messaging import BUSY, Message
from bide.exchange.totals import Total
from bide.protocols.websocket.frames import STEP_DEFLATED, Frames


class Inbox:
    """Messages that wait, and the bytes behind them.

    Args:
        frames: what parses, and counts.
        window: bytes that may wait.
        unread: the total of what waits for all applications.

    Attributes:
        messages: those that wait, each with what it counts.
        kept: the bytes that have come and were not parsed.
    """

    __slots__ = ("_arrivals", "_frames", "_held", "_unread", "_window", "kept", "messages")

    def __init__(self, frames: Frames, window: int, unread: Total) -> None:
        self._frames = frames
        self._window = window
        self._unread = unread
        self._held = 0  # what counts: messages, and of the one that is coming
        self._arrivals = frames.arrivals
        self.messages = self._arrivals.messages
        self.kept = b""

    @property
    def full(self) -> bool:
        """Whether as much waits as may; never once what comes is dropped."""
        waiting = self._arrivals.waiting
        return (
            waiting >= self._window or (waiting > 0 and self._unread.full)
        ) and not self._frames.dropping

    def take(self, data: bytes) -> None:
        """Parse what is kept, and these bytes, until it is full; keep the rest."""
        frames, arrivals = self._frames, self._arrivals
        if self.kept:
            data = self.kept + data
        at, size = 0, len(data)
        while at < size and not (arrivals.waiting and self.full):
            if arrivals.between:
                end = arrivals.take(data, at)
                if end:
                    at = end
                    self._weigh(0)
                    continue
            end = size if size - at <= STEP_DEFLATED else at + frames.step
            frames.receive_data(data[at:end])
            at = end
            self._weigh(len(frames.reader.buffer) + frames.size)
        self.kept = data[at:]

    def pop(self) -> Message | None:
        """Return the message that has waited longest; None: there is none."""
        if not self.messages:
            return None
        message, size = self._arrivals.pop()
        self._held -= size
        self._unread.add(-size)
        return message

    def clear(self) -> None:
        """Drop the messages that wait."""
        waiting = self._arrivals.clear()
        self._held -= waiting
        self._unread.add(-waiting)

    def end(self) -> None:
        """Called when nothing more will come: forget what is not a message."""
        self.kept = b""
        self._weigh(0)

    def _weigh(self, coming: int) -> None:
        held = self._arrivals.waiting + coming
        if held != self._held:
            self._unread.add(held - self._held)
            self._held = held
        if coming > self._window and self._unread.full and not self._frames.dropping:
            self._frames.fail(BUSY, "the server holds as much as it may")
