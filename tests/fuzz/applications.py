"""Whatever an application does, its client reads whole responses in order, or sees one is cut.

Never two heads for one request, never more than Content-Length, no header that the application has
not given, no end where none is; nothing raises, and in the end nobody waits. The input: requests,
the steps of their applications, and what happens meanwhile, all drawn in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from bide.errors import Cancelled, ClientDisconnected, RequestTimeout, ServerStopping
from bide.exchange.call import Call
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.waiting.cleanups import cleanup_time
from bide.waiting.outcome import Signal
from bide.waiting.waiter import Waiter
from bide.wsgi.conversation import Conversation
from bide.wsgi.environ import server_environ
from bide.wsgi.site import Site
from tests.fakes import Lane, ManualLoop
from tests.fuzz.drawing import Source, cut
from tests.fuzz.programs import INJECTED, MARK, Asked, Program
from tests.fuzz.strict import Message, Reader
from tests.protocols.fakes import FakeOwner, FakeTransport, Recorded

# Each with the body that it has when all of it has come; the last ones never end well.
GOOD: Final = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b""),
    (b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b""),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n40\r\n%b\r\n0\r\n\r\n" % (b"z" * 64),
        b"hello" + b"z" * 64,
    ),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
]
LAST: Final = [
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b""),
    (b"GET / HTTP/1.0\r\n\r\n", b""),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 80\r\n\r\n" + b"z" * 70, b"z" * 70),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 81\r\n\r\n", b""),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"40\r\n%b\r\n20\r\n%b\r\n" % (b"z" * 64, b"z" * 32),
        b"z" * 96,
    ),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx", b"hello"),
    (b"GET / HTTP/1.1\r\n\r\n", b""),
]
ANSWERS: Final = {b"400", b"413", b"500", b"503", b"504"}
LIMITS: Final = Limits(window=32, discard=64, body=80)
EVENTS: Final = 18


class Owner(FakeOwner):
    """Begins the next stream by the loop, as a connection does."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.begin)
        self._connection = connection

    def ended(self, stream: Stream) -> None:
        """The conversation may have some steps to do still."""
        super().ended(stream)
        self._connection.current = None

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call it by the loop."""
        self._connection.loop.call_soon(function)


class Connection(Site):
    """One connection, its conversations on one hub, and what happens to it; the site of them all.

    Attributes:
        asked: the requests whose application was called, in order.
        current: the last of them, while its response has not ended.
        name, application: of the conversation that is made.
    """

    name = "drawn"

    def __init__(self, source: Source) -> None:
        self.source = source
        self.loop = ManualLoop()
        self.failures: list[Any] = []
        self.loop.set_exception_handler(lambda loop, context: self.failures.append(context))
        self.lane = Lane(self.loop)
        self.program = Program(source, self.loop)
        self.transport = FakeTransport()
        self.owner = Owner(self)
        self.protocol = Recorded(self.transport, self.owner, LIMITS)
        self.environ = server_environ(True)
        self.asked: list[Asked] = []
        self.current: Asked | None = None
        self.done_with: list[Call] = []
        self.application: Any = None
        self.state: dict[str, Any] = {}
        self.left = False
        self.requests: list[tuple[bytes, bytes]] = []
        self.pieces: deque[bytes] = deque()
        for _ in range(source.below(4)):
            self.requests.append(source.choose(GOOD))
        self.requests.append(source.choose(GOOD + LAST))
        for wire, _ in self.requests:
            self.pieces += cut(wire, [source.below(256)])

    # The site's

    def status(self) -> Any:
        """Return nothing: no application asks."""

    def done(self, call: Call) -> None:
        """Keep that it has ended."""
        self.done_with.append(call)

    # The connection's

    def begin(self, stream: Stream) -> None:
        """Call an application."""
        asked = self.current = Asked(stream)
        self.asked.append(asked)
        self.application = self.program.application(asked)
        waiter = Waiter(self.loop, self.lane.hub)
        asked.conversation = Conversation(self, stream, waiter)
        self.lane.hub.run(asked.conversation)

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """Cancel what is in progress."""
        current = self.current
        if current is not None and current.conversation is not None:
            current.conversation.cancel(cancellation, firm)

    def half_close(self) -> None:
        """Close the client's sending side; it may still read."""
        if not self.left:
            self.pieces.clear()
            self.protocol.eof_received()
            self.cancel(ClientDisconnected("the client has closed the connection"))

    def leave(self) -> None:
        """Make the client leave, or the connection end."""
        if self.left:
            return
        self.left = True
        self.transport.gone = True
        self.pieces.clear()
        self.protocol.eof_received()
        current = self.current
        if current is not None:
            current.stream.gone = True
            current.stream.body.fail(ClientDisconnected("the client has left"))
        self.cancel(ClientDisconnected("the client has left"))
        self.catch_up()

    def catch_up(self) -> None:
        """Read all that was sent, as the client."""
        behind, self.transport.full = self.transport.full, None
        if behind is not None:
            behind.fire()

    def deliver(self) -> None:
        """Receive the next piece, if one is read."""
        if self.pieces and self.transport.reading and not self.transport.closed:
            piece = self.pieces.popleft()
            self.protocol.data_received(piece)

    def push(self, ends: bool) -> None:
        """Write once more, or finish, in a request whose application has done all else."""
        current = self.current
        if current is None or not current.pushing or self.transport.full is not None:
            return
        try:
            if not ends:
                self.program.push(current)
            elif current.finish is not None:
                self.program.end(current)
        except (Exception, Cancelled):
            pass

    def event(self, kind: int) -> None:
        """Do one step."""
        if kind < 5:
            self.deliver()
        elif kind < 8 and self.program.promises:
            self.program.promises.pop(0)()
        elif kind == 8:
            self.transport.full = self.transport.full or Signal()
        elif kind == 9:
            self.catch_up()
        elif kind < 12:
            self.push(ends=kind == 11)
        elif kind == 12:
            self.loop.advance(1)
        elif kind == 13:
            self.cancel(ServerStopping("the server stops"))
        elif kind == 14:
            self.protocol.drain()
        elif kind == 15:
            self.leave()
        elif kind == 16:
            self.cancel(RequestTimeout("the request took too long"), firm=True)
        elif kind == 17:
            self.half_close()

    def settle(self) -> None:
        """Run all sides until nothing happens."""
        self.lane.settle()
        if self.transport.closed:
            self.leave()
            self.lane.settle()

    def run(self) -> None:
        """Do the steps that are drawn, and then all that are left."""
        while not self.source.spent:
            self.event(self.source.below(EVENTS))
            self.settle()
        for _ in range(100):
            for kind in (9, 5, 0, 11):
                self.event(kind)
                self.settle()
        assert self.lane.hub.parked or not self.pieces, "a request is not read"
        self.leave()
        self.settle()
        # One that goes on behind its response's end has no client any more, but a server.
        for asked in self.asked:
            assert asked.conversation is not None
            asked.conversation.cancel(ServerStopping("the server stops"))
        for _ in range(3):
            self.loop.advance(cleanup_time.seconds + 1)
            self.settle()

    def close(self) -> None:
        """Clean up."""
        self.lane.hub.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Errors(logging.Handler):
    """Keeps the errors that are Bide's own."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one; what an application does wrong is not an error of Bide."""
        if record.getMessage().startswith("internal error"):
            self.messages.append(f"{record.getMessage()}: {record.exc_info}")


def check(data: bytes) -> None:
    """Run the connection, and check the invariant."""
    log = logging.getLogger("bide")
    errors = Errors()
    propagate, log.propagate = log.propagate, False
    log.addHandler(errors)
    connection = Connection(Source(data))
    try:
        connection.run()
        assert errors.messages == []
        assert connection.failures == []
        check_ends(connection)
        check_wire(connection)
    finally:
        connection.close()
        log.removeHandler(errors)
        log.propagate = propagate


def check_ends(connection: Connection) -> None:
    """Check that every application has ended, once, and every iterable was closed, once."""
    assert connection.lane.hub.parked == 0, "somebody waits for ever"
    assert not asyncio.all_tasks(connection.loop), "a task is left"
    conversations = {asked.conversation for asked in connection.asked}
    assert set(connection.done_with) == conversations, "not every conversation has ended"
    assert len(connection.done_with) == len(conversations), "one has ended twice"
    bodies = [body for _, body in connection.requests]
    for asked, body in zip(connection.asked, bodies, strict=False):
        assert body.startswith(asked.read), "bytes that are not this request's"
        assert asked.stream.state in ("ended", "cut"), "the response has no end"
        for result in asked.results:
            assert result.closed == 1, f"close() was called {result.closed} times"


def check_wire(connection: Connection) -> None:
    """Check what the client has got, response by response."""
    sent = connection.transport.sent
    reader = Reader(sent)
    last = False  # nothing may follow
    for asked in connection.asked:
        if reader.at == len(sent):
            # Only one that the client did not wait for, or that was cut before its head.
            assert asked.stream.state == "cut", "a response is missing"
            last = True
            continue
        assert not last, "there is more behind a connection's last response"
        message = read_response(reader, asked)
        if message is None:
            last = True
            continue
        last = check_response(connection, asked, message)
    if connection.owner.errors and not last and reader.at < len(sent):
        message = reader.response("GET")
        assert message.first[1] in (b"400", b"413")
        assert message.tokens(b"connection") == [b"close"]
        assert message.end == "complete"
    assert reader.at == len(sent), "there is more than responses"
    if last:
        assert connection.left, "the connection goes on behind its last response"


def read_response(reader: Reader, asked: Asked) -> Message | None:
    """Read one response and a 100 Continue before it; None when only that was sent."""
    request = asked.stream.request
    message = reader.response(request.method)
    if message.first[1] == b"100":
        assert (b"Expect", b"100-continue") in request.headers, "nobody has asked for it"
        if reader.at == len(reader.data):
            assert asked.stream.state == "cut"
            return None
        message = reader.response(request.method)
    return message


def check_response(connection: Connection, asked: Asked, message: Message) -> bool:
    """Check one response against what its application did; give whether it is the last one."""
    stream = asked.stream
    body = bytes(message.body)
    assert not message.all(INJECTED.lower().encode()), "a header was injected"
    assert len(message.all(b"content-length")) <= 1
    ours = [head for head in asked.heads if message.all(MARK.lower().encode())]
    if ours:
        check_head(message, *ours[-1])
    else:
        assert message.first[1] in ANSWERS, "a response that nobody has made"
    whole = message.end == "complete" or (
        message.end == "rest" and connection.transport.closed in ("close", "linger")
    )
    bodiless = stream.request.method == "HEAD" or message.first[1] in (b"204", b"304")
    if stream.state == "ended":
        assert whole, "a whole response does not look so"
    elif not bodiless and not message.all(b"content-length"):
        assert message.end in ("short", "rest"), "a cut response looks whole"
        assert message.end == "short" or connection.transport.closed == "abort" or connection.left
    if ours and not bodiless:
        assert asked.may_have(body, stream.state == "ended"), "these are not its blocks"
    if stream.request.version == "1.0":
        assert not message.all(b"transfer-encoding"), "chunks for who does not know them"
    closes = b"close" in message.tokens(b"connection")
    return closes or stream.state == "cut" or message.end == "rest"


def check_head(message: Message, status: str, headers: list[tuple[str, str]]) -> None:
    """Check that a head is what the application gave, and what every server adds."""
    code, _, reason = status.partition(" ")
    assert message.first[1] == code.encode()
    assert message.first[2].strip(b" \t") == reason.encode("latin-1").strip(b" \t")
    given = [
        (name.encode("latin-1"), value.encode("latin-1").strip(b" \t"))
        for name, value in headers
        if name.lower() != "connection" and (code != "204" or name.lower() != "content-length")
    ]
    assert message.fields[: len(given)] == given
    added = {name.lower() for name, _ in message.fields[len(given) :]}
    allowed = {b"date", b"server", b"content-length", b"transfer-encoding", b"connection"}
    assert added <= allowed, f"nobody gave {added - allowed}"
