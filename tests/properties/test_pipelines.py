"""Pipelined requests, good and bad, on one connection, in any order of what both of its ends do.

Requests begin in order, one at a time, nothing behind an error or a last request; answers come in
order, each whole; what waits is bounded; and whoever still takes part gets to the end.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bide.errors import Cancelled, ClientDisconnected, RemoteProtocolError
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.exchange.totals import UNBOUND
from bide.executors.hub import Job
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.serving.connection import Connection, Serving
from bide.transports.poller import READ, WRITE
from bide.waiting.outcome import Signal
from tests.fakes import PEER, HandPoller, ManualLoop
from tests.fuzz.strict import Message, Reader, ShortError

WINDOW = 32
BUFFER = 4608
"""What a socket is given at least for what its peer has not taken: Linux allows no less."""

GOOD = {
    "get": b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    "old": b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "counted": b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 80\r\n\r\n" + b"b" * 80,
    "chunked": b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"28\r\n" + b"b" * 40 + b"\r\n28\r\n" + b"b" * 40 + b"\r\n0\r\n\r\n",
    "upgrade": b"GET /%d HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
}
LAST = {
    "close": b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "bad head": b"GET /%d HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
    "bad body": b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
}
KINDS = st.sampled_from([*GOOD, *GOOD, *LAST])
SIZES = st.sampled_from([0, 10, 20_000])
# Rare enough that something goes on before them.
ENDS = st.sampled_from([*[""] * 12, "half-close", "leave", "retire", "drain"])


class Conversation(Job):
    """Keeps what it is cancelled with."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.cancelled: list[Cancelled] = []

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """Keep."""
        self.cancelled.append(cancellation)


class Server(Serving):
    """The server that the connection belongs to; it begins requests, and answers none."""

    def __init__(self, limits: Limits) -> None:
        self.loop: ManualLoop = ManualLoop()
        self.errors: list[Any] = []  # in what the loop was asked to do
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self.poller: Any = HandPoller(self.loop)
        self.limits = limits
        self.unsent_total = self.unread_total = UNBOUND
        self.probes = ()
        self.ready = b""
        self.cancels_half_closed = True
        self.retiring = self.draining = False
        self.begun: list[Conversation] = []
        self.lost = 0

    @property
    def able(self) -> bool:
        """Always."""
        return True

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the one that every connection begins with."""
        return HTTP1(transport, owner, self.limits, UNBOUND)

    def upgrades(self, stream: Stream) -> bool:
        """Ignore it."""
        return False

    def conversation(self, stream: Stream) -> Any:
        """Make one."""
        return Conversation(stream)

    def hold(self, conversation: Any, connection: Any) -> None:
        """It is begun when its body has come."""

    def drop(self, conversation: Any) -> None:
        """Its client has left before that."""

    def submit(self, conversation: Any) -> None:
        """Begin it."""
        assert self.current is None, "two requests are in progress"
        self.begun.append(conversation)

    def flush(self) -> None:
        """Nothing is held back."""

    def refused(self, error: Any, client: str) -> None:
        """Count nothing."""

    def connection_lost(self, connection: Any) -> None:
        """Count."""
        self.lost += 1

    @property
    def current(self) -> Conversation | None:
        """The request that is in progress."""
        if self.begun and self.begun[-1].stream.state not in ("ended", "cut"):
            return self.begun[-1]
        return None


class Pipelines(RuleBasedStateMachine):
    """A connection, the server it belongs to, and the client; applications are the test.

    ``kinds`` are the requests that the client has made, ``unsent`` what it has not sent of them,
    ``got`` what it has received.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.unsent = b""
        self.got = b""
        self.largest = 0
        self.left = self.half_closed = False

    @initialize(pipeline=st.sampled_from([1, 2, 5]))
    def connect(self, pipeline: int) -> None:
        """Make the connection."""
        self.server = Server(Limits(window=WINDOW, unsent=4096, pipeline=pipeline))
        sock, self.client = socket.socketpair()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        sock.setblocking(False)
        self.client.setblocking(False)
        self.descriptor = sock.fileno()
        self.connection = Connection(self.server, sock, PEER)
        self.connection.start()

    @property
    def current(self) -> Conversation | None:
        """The request that is in progress."""
        return self.server.current

    # What happens

    def find(self, event: int) -> None:
        """Serve one ready socket; before the next, run the loop's callbacks."""
        if self.server.poller.watched.get(self.descriptor, 0) & event:
            self.connection._transport.ready(event)
            self.server.loop.settle()

    @precondition(lambda self: not self.kinds or self.kinds[-1] in GOOD)
    @rule(kinds=st.lists(KINDS, min_size=1, max_size=6), at_once=st.booleans())
    def ask(self, kinds: list[str], at_once: bool) -> None:
        """Make some requests, as the client; those behind a last one are not served."""
        for kind in kinds:
            self.unsent += {**GOOD, **LAST}[kind] % len(self.kinds)
            self.kinds.append(kind)
        if at_once:
            self.send(5000)

    @precondition(lambda self: self.unsent)
    @rule(size=st.sampled_from([1, 7, 40, 200, 5000]))
    def send(self, size: int) -> None:
        """Send some bytes, as the client; the server reads them if it reads at all."""
        self.transmit(size)
        self.find(READ)

    def transmit(self, size: int) -> None:
        """Send, if the client can."""
        if not (self.left or self.half_closed):
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                sent = self.client.send(self.unsent[:size])
                self.unsent = self.unsent[sent:]

    @rule(what=st.sampled_from(["read", "write", "turn", "later"]))
    def serve(self, what: str) -> None:
        """Serve a ready socket, or run the loop."""
        if what in ("read", "write"):
            self.find(READ if what == "read" else WRITE)
        else:
            self.server.loop.advance(what == "later")

    @rule(size=st.sampled_from([100, 3000, 100_000]))
    def take(self, size: int) -> None:
        """Read, as the client."""
        if not self.left:
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                self.got += self.client.recv(size)

    @precondition(lambda self: self.current is not None)
    @rule(most=st.sampled_from([1, 100]), size=SIZES)
    def read_and_answer(self, most: int, size: int) -> None:
        """Read all blocks there are, as the application, and answer once it has all."""
        current = self.current
        assert current is not None
        stream = current.stream
        try:
            for _ in range(most):
                block = stream.receive()
                if isinstance(block, Signal):
                    return
                if not block:
                    self.answer(size)
                    return
        except RemoteProtocolError:
            self.respond(stream, "400 Bad Request", b"bad")
        except ClientDisconnected:
            stream.cut()

    @precondition(lambda self: self.current is not None)
    @rule(size=SIZES)
    def answer(self, size: int) -> None:
        """Answer, as the application, whether it has read or not."""
        current = self.current
        assert current is not None
        self.respond(current.stream, "200 OK", current.stream.request.path + b"x" * size)

    def respond(self, stream: Stream, status: str, body: bytes) -> None:
        """Answer in two pieces, of which the client may take none."""
        try:
            old = stream.request.version == "1.0"  # its connection would end where this does
            stream.start(status, [("Content-Length", str(len(body) + 1))] if old else [])
            stream.send(body)
            stream.end(b"!")
        except ClientDisconnected:
            stream.cut()

    @rule(how=ENDS)
    def end_somehow(self, how: str) -> None:
        """Close the client's sending side, or leave, or begin to stop the server, or say so."""
        if how == "half-close" and not self.left:
            self.client.shutdown(socket.SHUT_WR)
            self.half_closed = True
        elif how == "leave":
            self.client.close()
            self.left = True
        elif how == "retire":
            self.server.retiring = True
            self.connection.retire()
        elif how == "drain":
            self.server.draining = True
            self.connection.drain()

    # What must be

    @property
    def served(self) -> int:
        """How many of the requests may begin: all up to the first that is the last or bad."""
        for number, kind in enumerate(self.kinds):
            if kind in LAST:
                return number + (kind != "bad head")
        return len(self.kinds)

    @invariant()
    def requests_begin_in_order(self) -> None:
        """As the client made them, and nothing behind an error or a last one."""
        targets = [each.stream.request.target for each in self.server.begun]
        assert targets == [b"/%d" % number for number in range(len(self.server.begun))]
        assert len(self.server.begun) <= self.served

    @invariant()
    def answers_come_in_order(self) -> None:
        """Each with its own request's body, none of them begun before its request."""
        answers = self.answers()
        for number, message in enumerate(answers):
            if message.first[1] == b"200":
                assert number < len(self.server.begun)
                assert message.body.startswith((b"/%d" % number)[: len(message.body)])
                assert message.end != "complete" or message.body.endswith(b"!")
            else:
                assert message.first[1] == b"400"
                assert self.kinds[number].startswith("bad")
                assert number == len(answers) - 1

    def answers(self) -> list[Message]:
        """Read what the client has; the last one may be incomplete."""
        found: list[Message] = []
        reader = Reader(self.got)
        with contextlib.suppress(ShortError):
            while reader.at < len(self.got):
                found.append(reader.response("GET"))
        return found

    @invariant()
    def what_waits_is_bounded(self) -> None:
        """Of a body, a window and one piece; of errors nothing in the log of the loop."""
        assert self.server.errors == []
        assert self.server.lost <= 1
        current = self.current
        if current is not None and not current.stream.body.complete:
            assert current.stream.body.unread < WINDOW + 5000

    def teardown(self) -> None:
        """Run all sides to the end, and clean up."""
        try:
            if hasattr(self, "client"):
                self.end()
        finally:
            if hasattr(self, "client"):
                self.connection.abort()
                self.server.loop.settle()
                self.client.close()
                self.server.loop.close()

    def progress(self) -> tuple[int, ...]:
        """Return what grows or shrinks as long as anything goes on."""
        answered = len(self.server.begun) - (self.current is not None)
        return len(self.unsent), len(self.got), len(self.server.begun), answered

    def end(self) -> None:
        """Serve all there is; who is still there has its answers, and nothing waits."""
        state: object = None
        while state != (state := self.progress()):
            self.server.loop.settle()
            self.transmit(5000)
            self.find(READ)
            self.find(WRITE)
            self.take(100_000)
            if self.current is not None:
                self.read_and_answer(100, 10)
            if self.current is not None and (self.left or self.half_closed):
                self.current.stream.cut()  # its wait was cancelled
        self.requests_begin_in_order()
        self.answers_come_in_order()
        self.what_waits_is_bounded()
        if not (self.left or self.half_closed or self.server.retiring or self.server.draining):
            answers = self.answers()
            lasts = [kind for kind in self.kinds if kind in LAST]
            refused = lasts[:1] == ["bad head"]
            assert len(answers) == self.served + refused, "somebody is left without an answer"
            assert all(message.end == "complete" for message in answers)
        if self.left:
            self.server.loop.advance(5)
            assert self.server.lost == 1, "the server does not notice that its client has left"


Pipelines.TestCase.settings = settings(stateful_step_count=30)
test_connection_serves_pipelines_in_any_order_of_events = Pipelines.TestCase
