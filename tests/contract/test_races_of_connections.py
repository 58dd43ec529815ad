"""Every race between a connection's loop and the lane of its request, forced in each order."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from bide.errors import Cancelled, ClientDisconnected
from bide.exchange.limits import Limits
from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.executors.hub import Job
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import Owner, Protocol, Transport
from bide.serving.connection import Connection, Serving
from bide.transports.poller import ENDED, GONE, READ, WRITE
from bide.waiting.loops import close_mailbox, open_mailbox
from tests.fakes import PEER, HandPoller
from tests.served import request


class Conversation(Job):
    """Keeps what it is cancelled with.

    Attributes:
        at_cancel: called when the connection comes to cancel it, as a lane may come at any time.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.cancelled: list[Cancelled] = []
        self.at_cancel: Callable[[], object] = lambda: None

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """Keep."""
        self.at_cancel()
        self.cancelled.append(cancellation)


class Hooked(HTTP1):
    """HTTP/1 in which the other thread comes just before, or just after, one of its steps.

    Attributes:
        before, after: called before and after the steps of the name; the next request is queued, or
            the token is put back.
    """

    before: Mapping[str, Callable[[], object]] = {}
    after: Mapping[str, Callable[[], object]] = {}

    def _wait(self, item: Any) -> None:
        self.before.get("queue", nothing)()
        super()._wait(item)

    def _advance(self) -> None:
        self.after.get("queue", nothing)()  # what `_wait` does next
        super()._advance()

    def _put_back(self) -> None:
        self.before.get("put back", nothing)()
        super()._put_back()
        self.after.get("put back", nothing)()


class Server(Serving):
    """A server that begins requests and leaves their answers to the test.

    Attributes:
        at_submit: called with a conversation that is begun.
        upgrading: whether a request may change the protocol.
        asked: called with a request of which that is asked.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[Any] = []  # in what the loop was asked to do
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self.poller: Any = HandPoller(self.loop)
        self.limits = limits or Limits()
        self.unsent_total = Total(0)
        self.unread_total = Total(0)
        self.probes: tuple[bytes, ...] = ()
        self.retiring = False
        self.cancels_half_closed = True
        self.draining = False
        self.upgrading = False
        self.asked: Callable[[Stream], object] = lambda stream: None
        self.begun: list[Conversation] = []
        self.held: list[Conversation] = []
        self.dropped: list[Conversation] = []
        self.lost: list[Any] = []
        self.at_submit: Callable[[Conversation], object] = lambda conversation: None
        sock, self.client = socket.socketpair()
        sock.setblocking(False)
        self.client.setblocking(False)
        self.connection = Connection(self, sock, PEER)
        self.transport = self.connection._transport
        self.connection.start()

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make the one that every connection begins with."""
        self.http = Hooked(transport, owner, self.limits, self.unread_total)
        return self.http

    def upgrades(self, stream: Stream) -> bool:
        """Whether the test wants it."""
        self.asked(stream)
        return self.upgrading

    @property
    def stopped(self) -> bool:
        """Whether the protocol reads no further request."""
        return self.http.stopped

    def count_unsent(self, size: int) -> None:
        """Change by so many the bytes that wait for the client, as if it took some."""
        self.transport.queue._count(size)

    def conversation(self, stream: Stream) -> Any:
        """Make one."""
        return Conversation(stream)

    def hold(self, conversation: Any, connection: Any) -> None:
        """Keep it, until its body has come."""
        self.held.append(conversation)

    def drop(self, conversation: Any) -> None:
        """Keep it: its client has left."""
        self.held.remove(conversation)
        self.dropped.append(conversation)

    def submit(self, conversation: Any) -> None:
        """Begin it."""
        if conversation in self.held:
            self.held.remove(conversation)
        self.begun.append(conversation)
        self.at_submit(conversation)

    def flush(self) -> None:
        """Nothing is held back."""

    able = True

    def refused(self, error: Any, client: str) -> None:
        """Count nothing."""

    def connection_lost(self, connection: Any) -> None:
        """Keep."""
        self.lost.append(connection)

    # What the test does

    def receive(self, data: bytes) -> None:
        """Send as the client, and run the loop until it has read that."""
        self.client.send(data)
        self.transport.ready(READ)

    def end_of_client(self) -> None:
        """Close the client's sending side, and run the loop until it has read that."""
        self.client.shutdown(socket.SHUT_WR)
        self.transport.ready(READ)

    def turn(self) -> None:
        """Run the loop's callbacks."""
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    @property
    def paths(self) -> list[bytes]:
        """The targets of the requests that were begun."""
        return [each.stream.request.target for each in self.begun]

    def answers(self) -> int:
        """How many answers the client has got."""
        try:
            return self.client.recv(1_000_000).count(b"HTTP/1.1 200")
        except BlockingIOError:
            return 0

    def has_ended(self) -> None:
        """Check that the client is told the end, and that its own is waited for."""
        while self.client.recv(1_000_000):
            pass
        assert self.lost == []
        self.end_of_client()
        self.turn()
        assert len(self.lost) == 1

    def close(self) -> None:
        """Clean up."""
        self.transport.abort()
        self.turn()
        self.client.close()
        self.loop.close()
        assert self.errors == []


def answer(stream: Stream) -> None:
    """Answer as a lane does, which is not the loop's thread to the connection."""
    stream.start("200 OK", [])
    stream.end(b"x")


@pytest.fixture
def server() -> Iterator[Server]:
    """Connect."""
    server = Server()
    yield server
    server.close()


def nothing() -> None:
    pass


def test_a_request_that_comes_before_the_response_ends_is_begun_by_its_end(
    server: Server,
) -> None:
    """Queued; once, on the loop."""
    server.receive(request("/1"))
    server.receive(request("/2"))
    assert server.paths == [b"/1"]
    answer(server.begun[0].stream)
    assert server.paths == [b"/1"]
    server.turn()
    assert server.paths == [b"/1", b"/2"]
    answer(server.begun[1].stream)
    server.turn()
    assert (server.paths, server.answers()) == ([b"/1", b"/2"], 2)


def test_a_request_that_comes_after_the_response_ended_is_begun_at_once(server: Server) -> None:
    """The token is back."""
    server.receive(request("/1"))
    answer(server.begun[0].stream)
    server.receive(request("/2"))
    assert server.paths == [b"/1", b"/2"]
    server.turn()
    assert server.paths == [b"/1", b"/2"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_response_ends_while_the_next_request_is_being_queued(
    server: Server, when: str
) -> None:
    """The loop saw the token gone and queues: before that, or after, the lane brings it back."""
    server.receive(request("/1"))
    ended: list[bool] = []

    def end() -> None:
        if not ended:
            ended.append(True)
            answer(server.begun[0].stream)

    setattr(server.http, when, {"queue": end})
    server.receive(request("/2"))
    server.turn()
    assert ended
    assert server.paths == [b"/1", b"/2"]
    answer(server.begun[1].stream)
    server.turn()
    assert server.answers() == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_next_request_comes_while_the_token_is_put_back(server: Server, when: str) -> None:
    """The lane brings it: before that the loop queues the request, or after it begins it itself."""
    server.receive(request("/1"))
    came: list[bool] = []

    def come() -> None:
        if not came:
            came.append(True)
            server.receive(request("/2"))

    setattr(server.http, when, {"put back": come})
    answer(server.begun[0].stream)
    server.turn()
    assert came
    assert server.paths == [b"/1", b"/2"]


@pytest.mark.parametrize("asks", ["at once", "later"])
def test_a_client_that_takes_nothing_is_not_answered_the_next_request(
    server: Server, asks: str
) -> None:
    """Its request waits until enough of the response before is taken, and then begins."""
    both = request("/1") + request("/2")
    server.receive(both if asks == "at once" else request("/1"))
    server.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    stream.end(b"x" * 1_000_000)
    if asks == "later":
        server.receive(request("/2"))
    server.turn()
    assert server.paths == [b"/1"]
    while server.transport.behind:
        server.client.recv(1_000_000)
        server.transport.ready(WRITE)
    server.turn()
    assert server.paths == [b"/1", b"/2"]


def test_a_response_that_ends_inside_submit_lets_the_next_begin(server: Server) -> None:
    """As on the loop executor, or on a quick lane: the marks of the connection are not stale."""
    server.at_submit = lambda conversation: answer(conversation.stream)
    server.receive(request("/1") + request("/2") + request("/3"))
    server.turn()
    assert server.paths == [b"/1", b"/2", b"/3"]
    assert server.answers() == 3
    assert server.connection._streams == {}


def test_a_client_half_closes_before_the_response_ends(server: Server) -> None:
    """The wait is cancelled; the end closes the connection."""
    server.receive(request("/1"))
    server.end_of_client()
    assert [type(each) for each in server.begun[0].cancelled] == [ClientDisconnected]
    answer(server.begun[0].stream)
    server.turn()
    assert len(server.lost) == 1
    assert server.answers() == 1


def test_a_client_half_closes_after_the_response_ended(server: Server) -> None:
    """Nothing is left: the connection is closed by that."""
    server.receive(request("/1"))
    answer(server.begun[0].stream)
    server.end_of_client()
    server.turn()
    assert server.begun[0].cancelled == []
    assert len(server.lost) == 1
    assert server.answers() == 1


def test_the_response_ends_while_the_half_close_is_being_looked_at(server: Server) -> None:
    """The loop has seen that a request is in progress; when it comes to cancel it, none is."""
    server.receive(request("/1"))
    server.begun[0].at_cancel = lambda: answer(server.begun[0].stream)
    server.end_of_client()
    server.turn()
    assert len(server.lost) == 1
    assert server.answers() == 1


def test_a_client_half_closes_in_the_middle_of_the_next_request(server: Server) -> None:
    """The answer in progress is the last: what is half there will never be whole."""
    server.receive(request("/1") + b"GET /2 HTTP/1.1\r\n")
    server.end_of_client()
    answer(server.begun[0].stream)
    server.turn()
    assert server.paths == [b"/1"]
    assert len(server.lost) == 1
    assert server.answers() == 1


def test_the_server_drains_before_the_response_ends(server: Server) -> None:
    """It says that the connection ends, and ends it."""
    server.receive(request("/1"))
    server.draining = True
    server.connection.drain()
    answer(server.begun[0].stream)
    server.turn()
    assert b"Connection: close" in server.client.recv(1000)
    server.has_ended()


def test_the_server_drains_before_a_request_that_has_come_is_read(server: Server) -> None:
    """Closing would reset the connection, and lose it: it is served, and is the last."""
    server.client.send(request("/1"))
    server.draining = True
    server.connection.drain()
    assert server.paths == [b"/1"]
    answer(server.begun[0].stream)
    server.turn()
    assert b"Connection: close" in server.client.recv(1000)
    server.has_ended()


def test_the_server_drains_after_the_response_ended(server: Server) -> None:
    """The connection is idle, and closed."""
    server.receive(request("/1"))
    answer(server.begun[0].stream)
    server.draining = True
    server.connection.drain()
    server.turn()
    assert b"Connection: close" not in server.client.recv(1000)
    assert len(server.lost) == 1


def test_the_server_drains_between_a_head_and_the_response_s_end(server: Server) -> None:
    """The head has promised a connection that goes on; the end closes it."""
    server.receive(request("/1"))
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    stream.send(b"1")
    server.draining = True
    server.connection.drain()
    assert server.lost == []
    stream.end(b"2")
    server.turn()
    server.has_ended()


def test_the_server_drains_with_a_request_in_the_queue(server: Server) -> None:
    """It had come: it is answered, and is the last."""
    server.receive(request("/1") + request("/2") + request("/3"))
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    stream.send(b"1")
    server.draining = True
    server.connection.drain()
    stream.end()
    server.turn()
    assert server.paths == [b"/1", b"/2"]
    answer(server.begun[1].stream)
    server.turn()
    assert server.paths == [b"/1", b"/2"]
    server.has_ended()


def test_the_client_is_gone_before_the_response_ends(server: Server) -> None:
    """The request is cancelled, and its end raises."""
    server.receive(request("/1"))
    server.transport.ready(GONE)
    assert len(server.begun[0].cancelled) == 1
    assert server.begun[0].stream.gone
    with pytest.raises(ClientDisconnected):
        answer(server.begun[0].stream)
    server.begun[0].stream.cut()
    server.turn()
    assert len(server.lost) == 1


def test_the_client_is_gone_after_the_response_ended(server: Server) -> None:
    """The request that has ended is left alone."""
    server.receive(request("/1"))
    answer(server.begun[0].stream)
    server.transport.ready(GONE)
    server.turn()
    assert server.begun[0].cancelled == []
    assert len(server.lost) == 1


def test_the_client_is_gone_with_requests_in_the_queue(server: Server) -> None:
    """They are never begun, though the lane's word comes after."""
    server.receive(request("/1") + request("/2"))
    stream = server.begun[0].stream
    stream.start("200 OK", [])
    stream.end(b"x")  # its word is on the way to the loop
    server.transport.ready(GONE)
    server.turn()
    assert server.paths == [b"/1"]
    assert len(server.lost) == 1


def test_a_lane_ends_the_response_while_the_loop_reads_the_rest_of_its_body(
    server: Server,
) -> None:
    """The body is dropped; the next request is found behind it, in either order."""
    head = request("/1", method="POST", headers=["Content-Length: 200000"])
    server.receive(head + b"x" * 1000)
    for _ in range(99):  # more than a window: it is begun
        server.receive(b"x" * 1000)
    answer(server.begun[0].stream)
    for _ in range(100):
        server.receive(b"x" * 1000)
    server.receive(request("/2"))
    assert server.paths == [b"/1", b"/2"]
    server.receive(request("/3", method="POST", headers=["Content-Length: 1000"]) + b"x" * 1000)
    answer(server.begun[1].stream)
    server.turn()
    answer(server.begun[2].stream)
    server.turn()
    assert server.answers() == 3
    assert server.begun[0].stream.body.complete


def test_a_lane_makes_room_in_a_full_window_before_and_after_the_loop_pauses(
    server: Server,
) -> None:
    """The connection is read on whoever came first."""
    head = request("/1", method="POST", headers=["Content-Length: 200000"])
    server.receive(head)
    stream = server.held[0].stream
    descriptor = next(iter(server.poller.watched))

    def reading() -> bool:
        return bool(server.poller.watched[descriptor] & READ)

    def fill() -> None:
        while reading():
            server.receive(b"x" * 10_000)

    def empty() -> None:
        while isinstance(stream.receive(), bytes):
            pass

    fill()
    empty()  # after
    assert reading()
    body = stream.body
    real = server.poller.watch

    def read_first(descriptor: int, events: int) -> None:
        # The loop has marked that it pauses, and the lane comes before it has looked again.
        real(descriptor, events)
        if events == ENDED:
            empty()

    server.poller.watch = read_first
    came = 0
    while came < body.window:
        server.receive(b"x" * 10_000)
        came += 10_000
    assert reading()


def test_a_full_pipeline_is_read_on_when_half_of_it_is_answered(server: Server) -> None:
    """The client is held up meanwhile, and nothing is lost."""
    descriptor = next(iter(server.poller.watched))
    pipeline = server.limits.pipeline
    for number in range(pipeline + 1):
        assert server.poller.watched[descriptor] & READ
        server.receive(request(f"/{number}"))
    assert not server.poller.watched[descriptor] & READ
    answered = 0
    while not server.poller.watched[descriptor] & READ:
        answer(server.begun[answered].stream)
        answered += 1
        server.turn()
    assert 0 < answered < pipeline
    while answered < pipeline + 1:
        answer(server.begun[answered].stream)
        answered += 1
        server.turn()
    assert server.paths == [b"/%d" % number for number in range(pipeline + 1)]


def test_what_lanes_leave_to_the_loop_wakes_it_once_and_not_while_it_rests(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane is often behind: its client's next request is there before it has ended the first."""
    mailbox = open_mailbox(server.loop)
    wakes: list[bool] = []
    monkeypatch.setattr(server.loop, "_write_to_self", lambda: wakes.append(True))
    called: list[int] = []
    for number in range(3):
        server.connection.call_soon(partial(called.append, number))
    assert (called, len(wakes)) == ([], 1)
    server.turn()
    assert called == [0, 1, 2]
    wakes.clear()
    mailbox.hold()
    server.connection.call_soon(partial(called.append, 3))
    server.turn()
    assert (called, wakes) == ([0, 1, 2], [])
    mailbox.release()
    assert called == [0, 1, 2, 3]
    close_mailbox(server.loop)
