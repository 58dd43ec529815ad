"""A request's body between loop and application, in any order of what both of them do.

The window holds, nothing is lost or doubled, and never do both sides wait for each other.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bide.errors import ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.waiting.outcome import Signal
from tests.protocols.exchanges import CHUNKED_POST
from tests.protocols.fakes import connect

WINDOW = 16
DISCARD = 64
SIZES = st.integers(1, 40)
# Rare enough that something goes on before them.
ENDS = st.sampled_from([*[""] * 6, "complete", "complete", "malformed", "left"])
ANSWERS = st.sampled_from([*[None] * 4, b"", b"answer"])


class Bodies(RuleBasedStateMachine):
    """A chunked body: ``sent`` by the client, ``got`` by the application."""

    def __init__(self) -> None:
        super().__init__()
        self.client = connect(limits=Limits(window=WINDOW, discard=DISCARD))
        self.sent = b""
        self.got = b""
        self.largest = 0
        self.signal: Signal | None = None
        self.over = ""  # how the client ended it
        self.ended: object = None  # what the application found at the end
        self.answered = False

    @initialize(whole=st.booleans())
    def begin(self, whole: bool) -> None:
        """Receive the head, perhaps with the first chunk."""
        data = self.chunk(20) if whole else b""
        self.client.send(CHUNKED_POST + data)
        self.stream = self.client.stream

    def chunk(self, size: int) -> bytes:
        """Make a chunk; no two bytes near to each other are alike."""
        data = bytes((len(self.sent) + at) % 251 for at in range(size))
        self.sent += data
        self.largest = max(self.largest, size)
        return b"%x\r\n%b\r\n" % (size, data)

    def reads(self) -> bool:
        """Whether the transport brings what the client sends."""
        protocol, transport = self.client.protocol, self.client.transport
        return transport.reading and not transport.closed and not protocol.stopped and not self.over

    @precondition(reads)
    @rule(size=SIZES, taken=st.booleans())
    def feed(self, size: int, taken: bool) -> None:
        """Receive a chunk; the application may take one in the middle of the pause for it."""
        if taken:
            self.client.transport.meanwhile["pause"] = self.receive
        self.client.send(self.chunk(size))
        self.client.transport.meanwhile.clear()

    @rule(how=ENDS, more=st.booleans())
    def end(self, how: str, more: bool) -> None:
        """Receive the end, perhaps with a chunk before it, or what is not a chunk, or leave."""
        if how == "left":
            self.client.protocol.eof_received()
            self.over = self.over or how
        elif how and self.reads():
            last = b"0\r\n\r\n" if how == "complete" else b"no chunk\r\n"
            self.client.send((self.chunk(5) if more else b"") + last)
            self.over = how

    @precondition(lambda self: not self.answered)
    @rule()
    def receive(self) -> None:
        """Read a block, as the application."""
        if self.signal is not None and not self.signal.fired:
            return  # it waits
        try:
            block = self.stream.receive()
        except (RemoteProtocolError, ClientDisconnected) as error:
            self.ended = type(error)
            return
        self.signal = None
        if isinstance(block, Signal):
            self.signal = block
            return
        assert self.ended is None or not block
        self.got += block
        if not block:
            self.ended = "complete"

    @precondition(lambda self: not self.answered)
    @rule(data=ANSWERS)
    def answer(self, data: bytes | None) -> None:
        """Answer, as the application, whether it has read all or not."""
        if data is None:
            return
        self.answered = True
        self.stream.start("200 OK", [])
        self.stream.end(data)

    @invariant()
    def window_holds(self) -> None:
        """No more waits than a window and what came at one time; a left body is not a window."""
        body = self.stream.body
        if not body.discarding:
            assert body.unread < WINDOW + self.largest
            assert body.unread == len(self.sent) - len(self.got)
        elif not self.client.transport.closed:
            assert body.unread <= DISCARD

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """What the application has is what the client sent, from the start."""
        assert self.sent.startswith(self.got)
        if self.ended is not None:
            assert self.got == self.sent
            errors = {"malformed": RemoteProtocolError, "left": ClientDisconnected}
            assert self.ended == errors.get(self.over, "complete")
            assert self.over

    @invariant()
    def nobody_waits_for_each_other(self) -> None:
        """Who reads no more has something to give; who waits to read is told."""
        body, transport = self.stream.body, self.client.transport
        if not transport.reading and not body.complete and not body.failed:
            assert body.full
            assert body.paused
        if self.signal is not None and not self.signal.fired and not self.answered:
            assert transport.reading
            assert len(self.got) == len(self.sent)
            assert not self.over

    @invariant()
    def connection_goes_on_or_ends(self) -> None:
        """Behind an answer: on, when its request is complete; else to its end, or to a close."""
        if not self.answered:
            return
        transport, owner = self.client.transport, self.client.owner
        assert bool(transport.closed) or owner.answered == [self.stream]
        if self.over == "malformed":
            assert transport.closed
        if owner.answered and not transport.closed:
            assert transport.reading


Bodies.TestCase.settings = settings(stateful_step_count=30)
test_body_is_passed_on_in_any_order_of_events = Bodies.TestCase
