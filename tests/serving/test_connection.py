"""A connection's protocol is chosen late and replaced; its streams are as many as that brings.

The protocols here are toys of the tests, which only use what is promised to every protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from bide.errors import ClientDisconnected
from bide.exchange.limits import Limits
from bide.exchange.messages import Request
from bide.exchange.stream import Stream
from bide.protocols.http1.reading import HTTP1
from bide.protocols.interfaces import BODY, IDLE, Owner, Protocol, Transport
from bide.serving.deadlines import Allowances, Look
from bide.transports.poller import GONE, READ
from bide.waiting.outcome import Signal
from tests.contract.test_races_of_connections import Server, answer
from tests.failures import Failures, same
from tests.served import Log, request

UPGRADE = request("/up", headers=["Upgrade: toy", "Connection: Upgrade"])
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: toy\r\nConnection: Upgrade\r\n\r\n"


class Toy(Protocol):
    """Answers each byte by its capital.

    Attributes:
        got: all that has come.
        told: what else it was told.
    """

    def __init__(self, transport: Transport) -> None:
        self.lock = transport.lock
        self.transport = transport
        self.got = b""
        self.told: list[str] = []

    def data_received(self, data: bytes) -> None:
        """Answer."""
        self.got += data
        self.transport.write(data.upper())

    def eof_received(self) -> bool:
        """End."""
        self.told.append("eof")
        self.transport.close()
        return False

    def connection_lost(self) -> None:
        """Keep."""
        self.told.append("lost")

    def retire(self) -> None:
        """Keep."""
        self.told.append("retire")

    def drain(self) -> None:
        """Keep."""
        self.told.append("drain")

    def ended(self, stream: Stream) -> None:
        """Keep."""
        self.told.append(stream.state)


class Upgrading(Server):
    """A server whose requests may upgrade to the toy; the test says when they do."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.upgrading = True
        self.toy = Toy(self.transport)

    def agree(self, _: object = None) -> None:
        """Follow an Upgrade, as an application does that accepts."""
        self.transport.write(AGREED)
        self.connection.switch(self.toy)

    def send(self, data: bytes) -> None:
        """Send, as the client, and run the loop, which reads if it reads at all."""
        self.client.send(data)
        self.read()

    def read(self) -> None:
        """Run the loop, which reads if there is anything and it reads at all."""
        descriptor = next(iter(self.poller.watched))
        if self.poller.watched[descriptor] & READ:
            self.transport.ready(READ)

    def received(self) -> bytes:
        """Take what the client has got."""
        return self.client.recv(100_000)


@pytest.fixture
def server() -> Iterator[Upgrading]:
    """Connect."""
    server = Upgrading()
    yield server
    server.close()


def test_a_protocol_takes_over_after_an_upgrade_and_no_byte_is_lost_or_parsed_twice() -> None:
    """Whatever came behind the head, in which pieces, and whenever the application accepts."""
    other = b"get / http/1.1\r\n\r\n" + request("/2")  # as much the toy's as anything
    whole = UPGRADE + other
    head = len(UPGRADE)
    splits: list[list[bytes]] = [[whole], [UPGRADE, other], [whole[:10], whole[10:]]]
    splits += [
        [whole[: head + 5], whole[head + 5 :]],
        [whole[i : i + 1] for i in range(len(whole))],
    ]
    with Failures() as failures:
        for number, pieces in enumerate(splits):
            for when in ("at once", "after the first piece behind the head", "at the end"):
                with failures.of(f"split {number}, {when}"), closing(Upgrading()) as server:
                    if when == "at once":
                        server.at_submit = server.agree
                    agreed = when == "at once"
                    sent = 0
                    for piece in pieces:
                        server.send(piece)
                        sent += len(piece)
                        if sent > head and not agreed and when.startswith("after"):
                            server.agree()
                            agreed = True
                    if not agreed:
                        server.agree()
                    server.read()
                    same(server.paths, [b"/up"])
                    same(server.toy.got, other)
                    same(server.received(), AGREED + other.upper())


def test_a_response_to_an_upgrade_leaves_the_connection_to_http_1(server: Upgrading) -> None:
    """The application refuses, by an ordinary answer: what is behind is the next request."""
    server.send(UPGRADE + request("/2"))
    server.send(request("/3"))
    server.turn()
    assert server.paths == [b"/up"]
    for number in range(3):
        answer(server.begun[number].stream)
        server.turn()
        server.read()
    assert server.paths == [b"/up", b"/2", b"/3"]
    assert server.answers() == 3
    server.send(UPGRADE + b"toy")
    server.agree()
    assert server.toy.got == b"toy"


@pytest.mark.parametrize("first", ["drains", "goes on"])
def test_what_is_behind_a_refused_upgrade_is_served_when_the_server_drains(
    server: Upgrading, first: str
) -> None:
    """It had come, whether the loop goes on with it before it drains, or hears of the end after."""
    server.send(UPGRADE + request("/2"))
    answer(server.begun[0].stream)
    if first == "goes on":
        server.turn()
    server.draining = True
    server.connection.drain()
    server.turn()
    assert server.paths == [b"/up", b"/2"]
    answer(server.begun[1].stream)
    server.turn()
    assert b"Connection: close" in server.received()


@pytest.mark.parametrize(
    "head",
    [
        UPGRADE.replace(b"1.1", b"1.0"),
        request("/up", headers=["Upgrade: toy"]),
        request("/up", headers=["Upgrade: toy", "Connection: upgrade, close"]),
        request("/up", method="POST", headers=["Upgrade: toy", "Connection: upgrade"], body=b"x"),
    ],
    ids=["HTTP/1.0", "without Connection", "a last request", "with a body"],
)
def test_what_is_no_request_to_upgrade_asks_nobody(server: Upgrading, head: bytes) -> None:
    """RFC 9110 section 7.8; with a body it could be followed, and need not be."""
    asked: list[Stream] = []
    server.asked = asked.append
    server.send(head)
    assert server.paths == [b"/up"]
    assert asked == []


def test_an_upgrade_that_nobody_wants_is_ignored(server: Upgrading) -> None:
    """The requests behind it are pipelined as ever."""
    server.upgrading = False
    server.send(UPGRADE + request("/2"))
    answer(server.begun[0].stream)
    server.turn()
    assert server.paths == [b"/up", b"/2"]


@pytest.mark.parametrize("pipeline", [1, 2, 16])
def test_a_pipelined_upgrade_waits_for_its_turn(pipeline: int) -> None:
    """Those before it are answered; what is behind it is kept, however few may wait."""
    with closing(Upgrading(Limits(pipeline=pipeline))) as server:
        server.send(request("/1") + request("/2") + UPGRADE + b"toy")
        for number in range(2):
            answer(server.begun[number].stream)
            server.turn()
            server.read()
        assert server.paths == [b"/1", b"/2", b"/up"]
        server.send(b" and more")
        assert server.answers() == 2
        server.agree()
        server.read()
        assert server.toy.got == b"toy and more"


def test_what_is_read_behind_an_upgrade_after_all_is_kept(server: Upgrading) -> None:
    """A lane that ends an upload before it may resume the reading a moment later."""
    server.send(UPGRADE + b"one ")
    server.transport.resume_reading()
    server.send(b"two ")
    server.send(b"three")  # it is not read: TCP keeps it
    server.agree()
    server.read()
    assert server.toy.got == b"one two three"


def test_a_new_protocol_may_stop_reading_at_the_first_bytes(server: Upgrading) -> None:
    """They came with the request: whether more is read after them is that protocol's to say."""

    class Full(Toy):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    server.toy = Full(server.transport)
    server.send(UPGRADE + b"first")
    server.agree()
    server.send(b", second")
    assert server.toy.got == b"first"
    server.transport.resume_reading()
    server.read()
    assert server.toy.got == b"first, second"


def test_a_stream_goes_over_to_the_new_protocol(server: Upgrading) -> None:
    """Its call is in progress: its end is the new protocol's business, and ends no connection."""
    server.send(UPGRADE)
    server.agree()
    server.begun[0].stream.cut()
    server.turn()
    assert server.toy.told == ["cut"]
    server.send(b"still there")
    assert server.received() == AGREED + b"STILL THERE"


@pytest.mark.parametrize("state", ["drain", "retire", ""])
def test_a_new_protocol_hears_what_happens_to_the_connection(state: str) -> None:
    """That the server stops, also if it did before; that the client leaves, whose call is ended."""
    with closing(Upgrading()) as server:
        server.send(UPGRADE)
        server.retiring, server.draining = bool(state), state == "drain"
        server.agree()
        told = [state] if state else []
        assert server.toy.told == told
        server.connection.drain()
        server.end_of_client()
        server.turn()
        assert server.toy.told == [*told, "drain", "eof", "lost"]
        assert isinstance(server.begun[0].cancelled[-1], ClientDisconnected)
        assert server.begun[0].stream.gone


class First(Protocol):
    """Reads a line, and has another protocol take over: the toy, or HTTP/1 with or without it."""

    def __init__(self, transport: Transport, owner: Owner, limits: Limits) -> None:
        self.lock = transport.lock
        self._transport = transport
        self._owner = owner
        self._limits = limits
        self._kept = b""

    def data_received(self, data: bytes) -> None:
        """Choose, once the line is there."""
        self._kept += data
        line, end, rest = self._kept.partition(b"\n")
        if not end:
            return
        if line == b"toy":
            self._kept = rest
            self._owner.switch(Toy(self._transport))
            return
        if line.startswith(b"PROXY "):
            self._kept = rest
        self._owner.switch(HTTP1(self._transport, self._owner, self._limits))

    def hand_over(self) -> bytes:
        """Return what was not for this."""
        return self._kept


def test_a_protocol_is_chosen_after_the_first_bytes() -> None:
    """As by a preface, a PROXY line or ALPN: it begins where the other has ended."""

    class Choosing(Server):
        def protocol(self, transport: Transport, owner: Owner) -> Protocol:
            return First(transport, owner, self.limits)

    cases = [
        (b"toy\nabc", [], b"ABC"),
        (b"PROXY TCP4 a b 1 2\r\n" + request("/1") + request("/2"), [b"/1", b"/2"], None),
        (request("/1") + request("/2"), [b"/1", b"/2"], None),
    ]
    with Failures() as failures:
        for sent, paths, got in cases:
            for size in (1, 7, 1000):
                with (
                    failures.of(f"{sent[:10]!r} in pieces of {size}"),
                    closing(Choosing()) as server,
                ):
                    for at in range(0, len(sent), size):
                        server.receive(sent[at : at + size])
                    for number in range(len(paths)):
                        answer(server.begun[number].stream)
                        server.turn()
                    same(server.paths, paths)
                    if got is not None:
                        same(server.client.recv(100), got)
                    else:
                        same(server.answers(), len(paths))


# Several streams at once ------------------------------------------------------------------------


class Many(Protocol):
    """Streams side by side, told by lines: ``open 1``, ``data 1 xyz``, ``end 1``.

    Attributes:
        streams: by their numbers.
        over: what the client has had no time left for.
    """

    def __init__(self, transport: Transport, owner: Owner) -> None:
        self.lock = transport.lock
        self.peer = owner.peer
        self.streams: dict[bytes, Stream] = {}
        self.over: list[tuple[str, Stream | None]] = []
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        """Take some lines."""
        for line in data.splitlines():
            what, number, *rest = line.split()
            if what == b"open":
                head = Request("POST", number, number, b"", "2", [])
                stream = self.streams[number] = Stream(head, self, 1000)
                self._owner.begin(stream)
            elif what == b"data":
                self.streams[number].body.feed(rest[0])
            else:
                self.streams[number].body.finish()

    def connection_lost(self) -> None:
        """Nothing."""

    def ended(self, stream: Stream) -> None:
        """Go on."""
        self._owner.ended(stream)

    @property
    def awaits(self) -> str:
        """Something to do."""
        return IDLE

    def unsent(self, stream: Stream | None) -> int | None:
        """The client is quick."""
        return None

    def announced(self, stream: Stream) -> bool:
        """It is."""
        return True

    def timed_out(self, phase: str, stream: Stream | None) -> None:
        """Keep, and give a stream up."""
        self.over.append((phase, stream))
        if stream is not None:
            stream.body.fail(ClientDisconnected("too slow"))


class Parallel(Server):
    """A server whose connection brings several streams at once."""

    many: Many

    def protocol(self, transport: Transport, owner: Owner) -> Protocol:
        """Make it."""
        self.many = Many(transport, owner)
        return self.many


@pytest.fixture
def parallel() -> Iterator[Parallel]:
    """Connect."""
    server = Parallel()
    yield server
    server.close()


def test_streams_begin_when_their_own_bodies_have_come(parallel: Parallel) -> None:
    """In any order, while others are in progress."""
    parallel.receive(b"open 1\nopen 2\nopen 3\n")
    assert (len(parallel.held), parallel.paths) == (3, [])
    parallel.receive(b"data 1 a\nend 2\n")
    assert parallel.paths == [b"2"]
    parallel.receive(b"end 1\n")
    assert parallel.paths == [b"2", b"1"]
    assert len(parallel.held) == 1


def test_a_client_that_leaves_ends_all_its_streams(parallel: Parallel) -> None:
    """Those that run, and one that is held; not one that has ended."""
    parallel.receive(b"open 1\nend 1\nopen 2\nend 2\nopen 3\n")
    gone, ended = parallel.begun
    ended.stream.cut()
    parallel.transport.ready(GONE)
    assert [type(each) for each in gone.cancelled] == [ClientDisconnected]
    assert gone.stream.gone
    assert ended.cancelled == []
    assert [each.stream.request.target for each in parallel.dropped] == [b"3"]


def test_each_stream_has_its_own_time(parallel: Parallel) -> None:
    """One client is waited for on two streams: the one that moves goes on."""
    parallel.receive(b"open 1\nopen 2\nopen 3\nend 3\n")
    first, second = (parallel.many.streams[each] for each in (b"1", b"2"))
    allowances = Allowances(idle=60.0, head=15.0, rate=1.0)
    for _ in range(7):
        parallel.receive(b"data 2 0123456789\n")
        parallel.connection.mind_time(Look(10.0, allowances, parallel.unsent_total))
    assert [each for each in parallel.many.over if each[1] is not None] == [(BODY, first)]
    assert not second.body.failed
    assert not isinstance(second.receive(), Signal)


def test_streams_end_while_the_loop_ends_their_connection(parallel: Parallel) -> None:
    """In either order: a lane forgets its stream, or the loop finds it and cancels its call."""
    parallel.receive(b"open 1\nend 1\nopen 2\nend 2\n")
    one, two = parallel.begun
    one.at_cancel = two.stream.cut  # on its lane, when the loop is at the other
    parallel.transport.ready(GONE)
    assert len(one.cancelled) == len(two.cancelled) == 1
    assert parallel.connection._streams == {}


@pytest.mark.parametrize("how", ["eof_received", "eof_ahead", "connection_lost"])
def test_a_call_that_cannot_be_told_that_its_client_has_left_does_not_keep_the_others(
    server: Upgrading, log: Log, how: str
) -> None:
    """Nor the connection: the server forgets it as soon as it has ended."""
    server.send(request("/0"))
    for number in (1, 2):
        path = f"/{number}".encode()
        head = Request("GET", path, path, b"", "1.1", [])
        server.connection.begin(Stream(head, server.http, window=0))
    for conversation in server.begun[:2]:
        conversation.at_cancel = fail
    getattr(server.connection, how)()
    same([len(each.cancelled) for each in server.begun], [0, 0, 1])
    for _ in range(2):
        assert log.take("could not be told of its end").exc_info is not None
    same(log.records, [])
    same(server.lost, [server.connection] if how == "connection_lost" else [])


def test_a_connection_whose_protocol_fails_at_its_end_is_forgotten(
    server: Upgrading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its calls are told."""
    server.send(request("/0"))
    with monkeypatch.context() as patched:
        patched.setattr(server.http, "connection_lost", fail)
        with pytest.raises(ZeroDivisionError):
            server.connection.connection_lost()
    same(len(server.begun[0].cancelled), 1)
    same(server.lost, [server.connection])


def fail() -> None:
    """Raise."""
    raise ZeroDivisionError
