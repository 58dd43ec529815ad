"""A socket's write queue, in any order of writing, taking, closing and losing it.

Whatever is taken to be sent leaves in order, once, and whoever waits is told.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bide.transports.poller import GONE, READ, WRITE
from bide.waiting.outcome import Signal
from tests.fakes import HandPoller, ManualLoop, Receiver, a_transport

HIGH = 4096
BUFFER = 4608
"""What a socket is given at least for what its peer has not taken: Linux allows no less."""
# Rare enough that something goes on before them.
ENDS = st.sampled_from(
    [
        *[""] * 9,
        *("close", "linger", "abort", "leave", "leave found"),
        *("close abort", "abort leave found", "linger leave", "linger leave found"),
    ]
)


class Told(Receiver):
    """Keeps what the transport tells."""

    def __init__(self, writing: Writing) -> None:
        super().__init__()
        self._writing = writing

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        assert "lost" not in self.told
        assert not self._writing.closing, "what comes behind the end is nobody's"


class Writing(RuleBasedStateMachine):
    """A transport on one end of a pair of sockets, and the client on the other.

    ``taken`` is what the transport took to send, ``got`` what the client has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = ManualLoop()
        self.errors: list[Any] = []  # in what the loop was asked to do
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self.poller = HandPoller(self.loop)
        server, self.client = socket.socketpair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        server.setblocking(False)
        self.client.setblocking(False)
        self.server = server
        self.descriptor = server.fileno()
        self.receiver = Told(self)
        self.transport = a_transport(server, self.poller, self.receiver, HIGH)
        self.taken = b""
        self.got = b""
        self.signals: list[Signal] = []
        self.rooms: list[Signal] = []
        self.closing = self.aborted = self.client_closed = False

    # What happens

    @property
    def lost(self) -> bool:
        """Whether the receiver was told that it is over."""
        return "lost" in self.receiver.told

    def watches(self, event: int) -> bool:
        """Whether the poller would find this."""
        return bool(self.poller.watched.get(self.descriptor, 0) & event)

    def find(self, event: int) -> None:
        """Serve one ready socket; before the next, run the loop's callbacks."""
        self.transport.ready(event)
        self.loop.settle()

    @rule(size=st.sampled_from([1, 100, 2000, 20_000]))
    def write(self, size: int) -> None:
        """Write a block; no two bytes near to each other are alike."""
        block = bytes((len(self.taken) + at) % 251 for at in range(size))
        ended = self.lost or self.closing or self.aborted
        if self.transport.write(block):
            assert not ended, "bytes were taken that nobody will send"
            self.taken += block
        else:
            assert ended or self.client_closed, "bytes were refused without a reason"

    @precondition(lambda self: not self.client_closed)
    @rule(size=st.sampled_from([1, 1000, 100_000]))
    def take(self, size: int) -> None:
        """Read, as the client."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            self.got += self.client.recv(size)

    @precondition(lambda self: self.watches(WRITE))
    @rule()
    def ready_to_write(self) -> None:
        """Serve a socket that has room."""
        self.find(WRITE)

    @precondition(lambda self: self.watches(READ))
    @rule()
    def ready_to_read(self) -> None:
        """Serve a socket that can be read, or none."""
        self.find(READ)

    @precondition(lambda self: not self.lost)
    @rule()
    def pause(self) -> None:
        """Read no more for now."""
        self.transport.pause_reading()

    @precondition(lambda self: not self.lost)
    @rule()
    def resume(self) -> None:
        """Read again."""
        self.transport.resume_reading()

    @rule()
    def ask_for_room(self) -> None:
        """Ask what to wait for before more is written."""
        signal = self.transport.room()
        ended = self.lost or self.aborted
        assert signal is None or not ended
        if signal is not None:
            assert self.transport.queued >= HIGH
            self.signals.append(signal)
            self.rooms.append(signal)

    @rule()
    def ask_when_writable(self) -> None:
        """Ask for what fires once nothing is queued and the socket takes bytes."""
        self.signals.append(self.transport.writable())

    @precondition(lambda self: not self.client_closed)
    @rule()
    def send(self) -> None:
        """Send something, as the client."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self.client.send(b"x")

    @rule(found=st.booleans())
    def catch_up(self, found: bool) -> None:
        """Read all, as the client, and perhaps serve the room for more, to the end."""
        while not self.client_closed:
            before = len(self.got)
            self.take(100_000)
            if found and self.watches(WRITE):
                self.find(WRITE)
            elif len(self.got) == before:
                return

    @rule(how=ENDS)
    def end_somehow(self, how: str) -> None:
        """Close behind what is queued, reset, or have the client leave with what it has not taken.

        Or more than one of these, before the loop goes on.
        """
        if "close" in how or "linger" in how:
            self.transport.close(linger="linger" in how)
            self.closing = True
        if "abort" in how:
            self.transport.abort()
            self.aborted = True
        if "leave" in how and not self.client_closed:
            self.client.close()
            self.client_closed = True
            if "found" in how and self.descriptor in self.poller.watched:
                self.transport.ready(GONE)

    @rule(seconds=st.sampled_from([0, 0, 1, 5]))
    def turn(self, seconds: float) -> None:
        """Run the loop."""
        self.loop.advance(seconds)

    # What must be

    @invariant()
    def bytes_leave_in_order_and_once(self) -> None:
        """What the client has is what was written, from the start."""
        assert self.taken.startswith(self.got)
        assert 0 <= self.transport.queued <= len(self.taken) - len(self.got)

    @invariant()
    def what_is_queued_is_sent_in_time(self) -> None:
        """The poller looks for room as long as something waits for it."""
        if self.transport.queued:
            assert self.watches(WRITE)

    @invariant()
    def who_waits_is_told(self) -> None:
        """Of room, once a quarter is left; of everything, at the end."""
        for signal in self.signals:
            if self.lost or self.aborted:
                assert signal.fired, "somebody waits for a connection that has ended"
            elif not signal.fired:
                assert self.watches(WRITE), "nobody will find that there is room"
        for signal in self.rooms:
            assert signal.fired or self.transport.queued > HIGH // 4, "there is room"

    @invariant()
    def end_is_told_once(self) -> None:
        """And then the descriptor is closed, and not watched."""
        assert self.errors == []
        assert self.receiver.told.count("lost") <= 1
        assert self.receiver.told.count("eof") <= 1
        if self.lost:
            assert self.receiver.told[-1] == "lost"
            assert self.server.fileno() == -1
            assert self.poller.watched == {}
            assert not self.transport.queued

    def teardown(self) -> None:
        """Run it to its end, and clean up."""
        try:
            self.end()
        finally:
            self.client.close()
            self.server.close()
            self.loop.close()

    def end(self) -> None:
        """Close; the client takes all, or nothing more."""
        self.transport.close()
        for _ in range(1000):
            self.loop.advance(3)
            if self.lost:
                break
            if not self.client_closed:
                self.take(100_000)
            if self.watches(WRITE):
                self.find(WRITE)
        assert self.lost, "the connection never ends"
        if not self.client_closed and not self.aborted:
            with contextlib.suppress(ConnectionResetError):
                while block := self.client.recv(100_000):
                    self.got += block
            assert self.got == self.taken, "what was taken was not sent"
        self.bytes_leave_in_order_and_once()
        self.who_waits_is_told()
        self.end_is_told_once()


Writing.TestCase.settings = settings(stateful_step_count=25)
test_transport_sends_in_any_order_of_events = Writing.TestCase
