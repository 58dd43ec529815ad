"""A connected socket: read by the loop, written to from any thread, closed by the loop only.

The sockets are real pairs; the poller is the test, so each order of reading, writing, closing and
losing the connection is the test's choice.
"""

import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.exchange.totals import Total
from bide.transports.lingering import MOST_BYTES, MOST_PERIODS
from bide.transports.poller import ENDED, GONE, READ, WRITE
from bide.transports.streaming import LARGE_READ, READ_SIZE, SMALL_READ
from bide.transports.tcp import SocketTransport
from bide.waiting.outcome import Signal
from tests.fakes import (
    HIGH_WATER,
    LINGER,
    HandPoller,
    ManualLoop,
    Outcomes,
    Receiver,
    a_transport,
)
from tests.served import until

TIMEOUT = 20.0
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system does not say what it holds")


class Pair(Receiver):
    """A transport, what its receiver was told, and the client's end."""

    def __init__(self, server: Any, client: socket.socket) -> None:
        super().__init__()
        self.loop = ManualLoop()
        self.poller = HandPoller(self.loop)
        self.server = server
        self.client = client
        server.setblocking(False)
        client.settimeout(TIMEOUT)
        self.descriptor = server.fileno()
        self.transport = a_transport(server, self.poller, self)

    @property
    def watched(self) -> int:
        """What the poller watches for."""
        return self.poller.watched[self.descriptor]

    def is_closed(self) -> bool:
        """Whether the descriptor is."""
        return bool(self.server.fileno() == -1)

    def fill(self) -> int:
        """Write until some is queued; say how much was written."""
        block = b"x" * 4096
        total = 0
        while not self.transport.queued:
            assert self.transport.write(block)
            total += len(block)
        return total

    def drain(self, total: int) -> bytes:
        """Read so much at the client, while the loop sends what is queued."""
        data = b""
        while len(data) < total:
            data += self.client.recv(65536)
            if self.transport.queued:
                self.transport.ready(WRITE)
        return data

    def half_close(self) -> None:
        """Close the client's sending side, and run the loop until it has read that."""
        self.client.shutdown(socket.SHUT_WR)
        self.transport.ready(READ)

    def end(self) -> None:
        """Close what is open."""
        self.server.close()
        self.client.close()
        self.loop.settle()
        self.loop.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return a transport on one end of a pair of sockets."""
    pair = Pair(*socket.socketpair())
    yield pair
    pair.end()


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """Return a transport over TCP, which knows resets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    pair = Pair(server, client)
    yield pair
    pair.end()


def in_a_thread(function: Callable[[], Any]) -> Any:
    """Call a function in another thread, to its end."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(TIMEOUT)
    (result,) = results
    return result


def has_nothing(sock: socket.socket) -> bool:
    """Return whether there is nothing to read."""
    sock.setblocking(False)
    try:
        return not sock.recv(1)
    except BlockingIOError:
        return True


# Reading ---------------------------------------------------------------------------------------


def test_what_comes_is_given_to_the_receiver(pair: Pair) -> None:
    """In pieces of a bounded size."""
    pair.client.sendall(b"one")
    pair.transport.ready(READ)
    assert pair.told == [b"one"]
    pair.client.sendall(b"x" * (READ_SIZE + 1))
    pair.transport.ready(READ)
    pair.transport.ready(READ)
    assert [len(each) for each in pair.told[1:] if isinstance(each, bytes)] == [READ_SIZE, 1]


class Sending:
    """A socket whose client has sent much; it keeps how much it was asked for."""

    family = socket.AF_INET

    def __init__(self, *sent: int) -> None:
        self.sent = list(sent)
        self.asked: list[int] = []

    def recv(self, size: int) -> bytes:
        """Return what is there, as much as is asked for at most."""
        self.asked.append(size)
        return b"x" * min(size, self.sent.pop(0))

    def fileno(self) -> int:
        """Any."""
        return 5

    def setblocking(self, flag: bool) -> None:
        """Nothing."""


class Waiting(Receiver):
    """One that waits for what comes, or not."""

    waiting = True

    def waits(self) -> bool:
        """Say so."""
        return self.waiting


def test_more_is_read_at_once_of_what_comes_fast_and_is_waited_for() -> None:
    """Behind a read that found all it might take; never where others send, or much is held."""
    total = Total(1000)
    sock = Sending(10, *[LARGE_READ] * 7, 5, 5)
    receiver = Waiting()
    loop = ManualLoop()
    poller: Any = HandPoller(loop)
    made = SocketTransport(sock, poller, receiver, 1, LINGER, unread=total)  # type: ignore[arg-type]
    for _ in range(3):
        made.ready(READ)
    receiver.waiting = False
    made.ready(READ)
    receiver.waiting = True
    total.add(1000)
    made.ready(READ)
    total.add(-1000)
    for _ in range(2):
        made.ready(READ)
    poller.filled = 6
    for _ in range(3):
        made.ready(READ)
    small, much = READ_SIZE, LARGE_READ
    assert sock.asked == [small, small, much, small, SMALL_READ, small, much, small, much, small]
    loop.close()


def test_a_socket_that_has_nothing_after_all_is_no_error(pair: Pair) -> None:
    """A poller may be wrong."""
    pair.transport.ready(READ)
    assert pair.told == []
    assert not pair.is_closed()


def test_the_end_of_what_comes_is_told_once_and_not_watched_for(pair: Pair) -> None:
    """A half-closed socket stays readable: the loop would turn for ever."""
    pair.half_close()
    assert pair.told == ["eof"]
    assert pair.watched == 0
    pair.transport.resume_reading()
    assert pair.watched == 0


def test_a_half_closed_connection_can_be_written_to(pair: Pair) -> None:
    """The client may still read."""
    pair.half_close()
    assert pair.transport.write(b"answer")
    assert pair.client.recv(10) == b"answer"


def test_reading_can_be_paused_and_resumed_from_any_thread(pair: Pair) -> None:
    """What the client sends meanwhile waits in TCP's window."""
    pair.transport.pause_reading()
    assert not pair.watched & READ
    in_a_thread(pair.transport.resume_reading)
    assert pair.watched == READ


def test_to_pause_or_to_resume_reading_is_one_call_of_the_system(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large upload pauses and resumes for each piece; its end is watched for between."""
    seen: list[int] = []
    monkeypatch.setattr(pair.poller, "watch", lambda _, events: seen.append(events))
    for _ in range(2):
        pair.transport.pause_reading()
        pair.transport.pause_reading()
        pair.transport.resume_reading()
        pair.transport.resume_reading()
    assert seen == [ENDED, READ, ENDED, READ]


def test_that_a_client_is_gone_is_noticed_while_reading_is_paused(tcp: Pair) -> None:
    """The poller tells it without being asked."""
    tcp.transport.pause_reading()
    tcp.transport.ready(GONE)
    assert tcp.told == ["lost"]
    assert tcp.is_closed()


def test_a_reset_loses_the_connection(tcp: Pair) -> None:
    """Once."""
    tcp.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.client.close()
    tcp.transport.ready(READ | GONE)
    tcp.transport.ready(READ | GONE)
    assert tcp.told == ["lost"]
    assert tcp.is_closed()
    assert tcp.poller.watched == {}


# Writing ---------------------------------------------------------------------------------------


def test_the_thread_that_writes_sends_itself(pair: Pair) -> None:
    """Nothing is left for the loop."""
    assert in_a_thread(lambda: pair.transport.write(b"block"))
    assert pair.client.recv(10) == b"block"
    assert pair.watched == READ
    assert pair.transport.queued == 0


def test_what_the_client_does_not_take_is_queued_for_the_loop(pair: Pair) -> None:
    """And sent in the order of the writes, whoever made them."""
    total = pair.fill()
    assert pair.watched == READ | WRITE
    assert in_a_thread(lambda: pair.transport.write(b"after"))
    data = pair.drain(total + 5)
    assert data == b"x" * total + b"after"
    assert pair.transport.queued == 0
    assert pair.watched == READ


def test_there_is_room_until_much_is_queued(pair: Pair) -> None:
    """Below HIGH_WATER nobody waits; then until a quarter of it is left."""
    assert pair.transport.room() is None
    total = pair.fill()
    assert pair.transport.room() is None
    total += HIGH_WATER
    assert pair.transport.write(b"y" * HIGH_WATER)
    room = pair.transport.room()
    assert room is not None
    assert pair.transport.room() is room
    while not room.fired:
        assert pair.transport.queued > HIGH_WATER // 4
        total -= len(pair.client.recv(4096))
        pair.transport.ready(WRITE)
    assert pair.transport.queued <= HIGH_WATER // 4
    assert room.error is None
    assert pair.transport.room() is None
    pair.drain(total)


@pytest.mark.parametrize("how", ["abort", "close", "lost"])
def test_who_waits_for_room_is_told_when_there_will_be_none(tcp: Pair, how: str) -> None:
    """By the next write, which gives false."""
    tcp.fill()
    tcp.transport.write(b"y" * HIGH_WATER)
    room = tcp.transport.room()
    assert room is not None
    writable = tcp.transport.writable()
    if how == "abort":
        in_a_thread(tcp.transport.abort)
    elif how == "lost":
        tcp.transport.ready(GONE)
    else:
        tcp.transport.close()
        tcp.transport.ready(GONE)
    assert room.fired
    assert writable.fired
    assert not tcp.transport.write(b"more")
    assert tcp.transport.room() is None


def test_writing_to_a_client_that_is_gone_gives_false(tcp: Pair) -> None:
    """The loop tells the receiver, once."""
    tcp.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.client.close()
    in_a_thread(lambda: [tcp.transport.write(b"x") for _ in range(3)])
    assert not tcp.transport.write(b"x")
    assert tcp.told == []
    assert not tcp.is_closed()
    tcp.loop.settle()
    assert tcp.told == ["lost"]
    assert tcp.is_closed()


def test_the_loop_finds_a_client_gone_while_it_sends(tcp: Pair) -> None:
    """What is queued is dropped."""
    tcp.fill()
    tcp.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.client.close()
    tcp.transport.ready(WRITE)
    assert tcp.transport.queued == 0
    tcp.loop.settle()
    assert tcp.told == ["lost"]


# Files -----------------------------------------------------------------------------------------


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Return a file of ten bytes."""
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        yield file.fileno()


def test_a_file_is_sent_by_the_kernel(pair: Pair, descriptor: int) -> None:
    """A part of it, where one asks for that."""
    assert in_a_thread(lambda: pair.transport.send_file(descriptor, 2, 5)) == 5
    assert pair.client.recv(10) == b"23456"


def test_a_thread_that_is_struck_as_it_begins_a_file_leaves_the_socket_to_others(
    pair: Pair, descriptor: int
) -> None:
    """An exception from outside may come as soon as the socket is marked as in use."""

    class Stray(BaseException):
        pass

    class Lock:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            if pair.transport.in_use:
                pair.transport.lock = lock
                raise Stray

    lock, pair.transport.lock = pair.transport.lock, Lock()
    with pytest.raises(Stray):
        pair.transport.send_file(descriptor, 0, 10)
    pair.transport.abort()
    pair.loop.settle()
    assert pair.is_closed()


def test_a_file_that_is_shorter_than_it_was_is_an_error(pair: Pair, descriptor: int) -> None:
    """Else one would ask for ever."""
    with pytest.raises(EOFError, match="shorter than it was"):
        pair.transport.send_file(descriptor, 10, 5)


def test_no_file_goes_before_what_is_queued(pair: Pair, descriptor: int) -> None:
    """Nor to a client that is behind; then ``writable`` says when to ask again."""
    total = pair.fill()
    assert pair.transport.send_file(descriptor, 0, 10) == 0
    writable = pair.transport.writable()
    assert pair.transport.writable() is writable
    total -= len(pair.client.recv(total // 2))  # now the socket would take it
    assert pair.transport.send_file(descriptor, 0, 10) == 0
    pair.drain(total)
    assert writable.fired
    assert pair.transport.send_file(descriptor, 0, 10) == 10
    assert pair.client.recv(20) == b"0123456789"


def test_writable_fires_though_nothing_is_queued(pair: Pair) -> None:
    """A file's bytes are never queued."""
    writable = pair.transport.writable()
    assert pair.watched == READ | WRITE
    outcomes = Outcomes()
    writable.listen(outcomes)
    assert outcomes.told == []
    pair.transport.ready(WRITE)
    assert outcomes.value is None
    assert pair.watched == READ


def test_a_file_to_a_client_that_is_gone_gives_less_than_nothing(
    tcp: Pair, descriptor: int
) -> None:
    """-1, and ``writable`` fires at once."""
    tcp.transport.abort()
    assert tcp.transport.send_file(descriptor, 0, 10) == -1
    outcomes = Outcomes()
    tcp.transport.writable().listen(outcomes)
    assert outcomes.value is None


# Ending ----------------------------------------------------------------------------------------


def test_closing_ends_the_connection_on_the_loop(pair: Pair) -> None:
    """Whoever asks for it; from then on nothing is taken."""
    in_a_thread(pair.transport.close)
    assert not pair.is_closed()
    assert not pair.transport.write(b"late")
    pair.loop.settle()
    assert pair.is_closed()
    assert pair.told == ["lost"]
    assert pair.client.recv(10) == b""


def test_closing_sends_first_what_is_queued(pair: Pair) -> None:
    """All of it."""
    total = pair.fill()
    pair.transport.close()
    pair.loop.settle()
    assert not pair.is_closed()
    assert pair.drain(total) == b"x" * total
    assert pair.is_closed()
    assert pair.told == ["lost"]


def test_closing_twice_closes_once(pair: Pair) -> None:
    """Also after it is closed."""
    pair.transport.close()
    pair.transport.close()
    pair.loop.settle()
    pair.transport.close()
    pair.loop.settle()
    assert pair.told == ["lost"]


def test_a_lingering_close_drops_what_still_comes(pair: Pair) -> None:
    """The client has its answer and its end; ours comes with its own."""
    pair.transport.pause_reading()
    pair.transport.write(b"answer")
    pair.transport.close(linger=True)
    pair.loop.settle()
    assert pair.client.recv(10) == b"answer"
    assert pair.client.recv(10) == b""
    assert not pair.is_closed()
    assert pair.watched == READ
    pair.client.sendall(b"late")
    pair.transport.ready(READ)
    assert pair.told == []
    pair.client.close()
    pair.transport.ready(READ)
    assert pair.told == ["lost"]
    assert pair.is_closed()
    assert pair.loop.timers == 0


def test_a_lingering_close_goes_on_while_bytes_come_within_a_bound(pair: Pair) -> None:
    """An upload that was refused: its client reads the answer when it has sent all."""
    pair.transport.close(linger=True)
    pair.loop.settle()
    for _ in range(MOST_PERIODS - 1):
        pair.client.sendall(b"more")
        pair.transport.ready(READ)
        pair.loop.advance(LINGER)
        assert not pair.is_closed()
    pair.client.sendall(b"more")
    pair.transport.ready(READ)
    pair.loop.advance(LINGER)
    assert pair.told == ["lost"]
    assert pair.is_closed()


def test_a_lingering_close_ends_when_much_has_come(pair: Pair) -> None:
    """However fast it comes."""
    pair.transport.close(linger=True)
    pair.loop.settle()
    assert pair.transport.lingering is not None
    pair.transport.lingering.take(MOST_BYTES - 8)
    for closed in (False, True):
        pair.client.sendall(b"more")
        pair.transport.ready(READ)
        assert pair.is_closed() == closed
    assert pair.loop.timers == 0


def test_a_lingering_close_ends_by_itself(pair: Pair) -> None:
    """A silent client does not keep the connection."""
    pair.transport.close(linger=True)
    pair.loop.settle()
    pair.loop.advance(LINGER / 2)
    assert not pair.is_closed()
    pair.loop.advance(LINGER / 2)
    assert pair.told == ["lost"]
    assert pair.is_closed()


def sent_and_not_taken(pair: Pair, linger: bool = True) -> int:
    """Close it when the system has taken more than the client has; return how much was written."""
    total = pair.fill()
    pair.client.settimeout(TIMEOUT)
    data = pair.client.recv(total // 2)
    pair.transport.ready(WRITE)
    assert not pair.transport.queued
    pair.transport.close(linger)
    pair.loop.settle()
    return total - len(data)


@LINUX
@pytest.mark.parametrize("linger", [True, False])
def test_a_client_that_has_not_taken_all_is_read_on_within_a_bound(tcp: Pair, linger: bool) -> None:
    """It may answer what it reads, as those of HTTP/2 do: that would be a reset after a close."""
    rest = sent_and_not_taken(tcp, linger)
    for _ in range(MOST_PERIODS - 1):
        tcp.loop.advance(LINGER)
        assert (tcp.is_closed(), tcp.transport.under_way) == (False, True)
    assert len(tcp.drain(rest)) == rest
    until(lambda: not tcp.transport.under_way)
    tcp.loop.advance(LINGER)
    assert tcp.is_closed()


@LINUX
def test_a_client_that_takes_nothing_is_not_read_for_ever(tcp: Pair) -> None:
    """What the system holds then is the system's."""
    rest = sent_and_not_taken(tcp)
    for _ in range(MOST_PERIODS):
        assert not tcp.is_closed()
        tcp.loop.advance(LINGER)
    assert tcp.is_closed()
    assert len(tcp.drain(rest)) == rest
    assert tcp.client.recv(1) == b""


@LINUX
def test_an_abort_takes_nothing_from_who_was_sent_all(tcp: Pair) -> None:
    """Nothing is incomplete that a reset could show."""
    rest = sent_and_not_taken(tcp)
    tcp.transport.abort()
    tcp.loop.settle()
    assert tcp.is_closed()
    assert len(tcp.drain(rest)) == rest
    assert tcp.client.recv(1) == b""


def test_there_is_nothing_to_linger_for_when_the_client_has_ended(pair: Pair) -> None:
    """It sends no more."""
    pair.half_close()
    pair.transport.close(linger=True)
    pair.loop.settle()
    assert pair.told == ["eof", "lost"]


def test_aborting_resets_the_connection(tcp: Pair) -> None:
    """The client must not take what it has for all."""
    tcp.transport.write(b"part")
    in_a_thread(tcp.transport.abort)
    tcp.loop.settle()
    assert tcp.told == ["lost"]
    with pytest.raises(ConnectionResetError):
        list(iter(lambda: tcp.client.recv(10), b""))


def test_aborting_a_unix_socket_closes_it(pair: Pair) -> None:
    """It knows no reset."""
    pair.transport.abort()
    pair.loop.settle()
    assert pair.told == ["lost"]
    assert pair.client.recv(10) == b""


ENDS: dict[str, Callable[[Pair], object]] = {
    "close": lambda pair: pair.transport.close(),
    "linger": lambda pair: pair.transport.close(linger=True),
    "abort": lambda pair: pair.transport.abort(),
    "reset": lambda pair: pair.transport.ready(GONE),
    "turn": lambda pair: pair.loop.turn(),
    "wait": lambda pair: pair.loop.advance(LINGER),
    "write": lambda pair: pair.transport.write(b"x"),
    "flush": lambda pair: pair.transport.ready(WRITE),
    "eof": lambda pair: pair.half_close(),
}


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
@pytest.mark.parametrize("third", ["close", "abort", "reset"])
def test_whatever_ends_the_connection_the_receiver_is_told_once(
    pair: Pair, first: str, second: str, third: str
) -> None:
    """In every order of closing, resetting, writing and reading; and last of all."""
    pair.fill()
    for each in (first, second, third):
        try:
            ENDS[each](pair)
        except OSError:
            assert each == "eof", "the client's own socket may be closed already"
    pair.loop.settle()
    if not pair.is_closed():  # it is closing, and the client has not taken all
        assert pair.told.count("lost") == 0
        pair.client.close()
        pair.transport.ready(WRITE | GONE)
        pair.loop.settle()
        pair.loop.advance(LINGER)
    assert pair.told.count("lost") == 1
    assert pair.told[-1] == "lost"
    assert pair.is_closed()
    assert pair.poller.watched == {}
    assert pair.loop.timers == 0


# Threads -----------------------------------------------------------------------------------------


class Meddled:
    """A socket in whose ``send`` another thread does something, as it may at any time."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.meddle: Callable[[], object] | None = None
        self.takes = 1 << 20
        self.thread: threading.Thread | None = None
        self.was_open = True

    def send(self, data: bytes) -> int:
        """Send a part, while another thread tries to come in between."""
        self._let_meddle()
        return self._socket.send(bytes(data[: self.takes]))

    def setsockopt(self, *options: Any) -> None:
        """Set an option, while another thread tries to come in between."""
        self._let_meddle()
        self._socket.setsockopt(*options)

    def _let_meddle(self) -> None:
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            self.thread = threading.Thread(target=meddle)
            self.thread.start()
            self.thread.join(0.05)  # it cannot end before this: the lock is held
            self.was_open = self._socket.fileno() != -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


@pytest.fixture
def meddled() -> Iterator[tuple[Pair, Meddled]]:
    """Return a transport in whose sends other threads meddle."""
    server, client = socket.socketpair()
    sock = Meddled(server)
    pair = Pair(sock, client)
    yield pair, sock
    pair.end()


def finish(sock: Meddled) -> None:
    """Wait for the thread that meddles."""
    assert sock.thread is not None
    sock.thread.join(TIMEOUT)
    assert not sock.thread.is_alive()


def test_a_second_write_does_not_come_between_the_halves_of_the_first(
    meddled: tuple[Pair, Meddled],
) -> None:
    """A half-written block is continued by the loop, and the other follows."""
    pair, sock = meddled
    sock.takes = 3
    sock.meddle = lambda: pair.transport.write(b"second")
    assert pair.transport.write(b"first!")
    finish(sock)
    sock.takes = 1 << 20
    while pair.transport.queued:
        pair.transport.ready(WRITE)
    assert pair.client.recv(20) == b"first!second"


def test_a_write_does_not_come_between_the_loops_own(meddled: tuple[Pair, Meddled]) -> None:
    """Which sends what is queued."""
    pair, sock = meddled
    sock.takes = 3
    assert pair.transport.write(b"first!")
    sock.takes = 1 << 20
    sock.meddle = lambda: pair.transport.write(b"second")
    pair.transport.ready(WRITE)
    finish(sock)
    while pair.transport.queued:
        pair.transport.ready(WRITE)
    assert pair.client.recv(20) == b"first!second"


def test_the_descriptor_is_not_closed_under_a_write(meddled: tuple[Pair, Meddled]) -> None:
    """The loop waits for the write in progress; the next one gives false."""
    pair, sock = meddled
    sock.meddle = lambda: pair.transport.ready(GONE)
    assert pair.transport.write(b"block")
    assert sock.was_open
    finish(sock)
    assert pair.is_closed()
    assert not pair.transport.write(b"more")
    assert pair.client.recv(20) == b"block"
    assert pair.client.recv(20) == b""


def test_the_descriptor_is_not_closed_under_an_abort(meddled: tuple[Pair, Meddled]) -> None:
    """The loop learns that the client is gone in the very moment in which a lane aborts."""
    pair, sock = meddled
    sock.meddle = lambda: pair.transport.ready(GONE)
    pair.transport.abort()
    assert sock.was_open
    finish(sock)
    pair.loop.settle()
    assert pair.is_closed()
    assert pair.told == ["lost"]


@pytest.mark.parametrize("how", ["write", "close", "abort"])
def test_who_ends_a_connection_whose_loop_is_closed_closes_it(tcp: Pair, how: str) -> None:
    """A thread that was left running when its server stopped: nobody else will."""
    tcp.loop.close()
    if how == "write":
        tcp.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tcp.client.close()
        until(lambda: not tcp.transport.write(b"x"))
    else:
        getattr(tcp.transport, how)()
    assert tcp.is_closed()
    assert not tcp.transport.write(b"x")


@pytest.mark.parametrize("end", ["close", "abort", "reset"])
def test_a_descriptor_that_is_used_again_is_never_written_to(
    pair: Pair, descriptor: int, end: str
) -> None:
    """Another connection has it now."""
    total = pair.fill()
    number = pair.descriptor
    ENDS[end](pair)
    pair.loop.settle()
    if end == "close":
        pair.drain(total)
    assert pair.is_closed()
    others = [socket.socketpair()]
    while not any(each.fileno() == number for pairs in others for each in pairs):
        others.append(socket.socketpair())
    assert not pair.transport.write(b"stray")
    assert pair.transport.send_file(descriptor, 0, 10) == -1
    pair.transport.ready(READ | WRITE)
    pair.transport.resume_reading()
    pair.transport.pause_reading()
    pair.transport.abort()
    pair.transport.close(linger=True)
    pair.loop.settle()
    pair.loop.advance(LINGER)
    assert os.fstat(number)
    for pairs in others:
        assert all(has_nothing(each) for each in pairs)
        for each in pairs:
            each.close()
    assert pair.told.count("lost") == 1


def test_many_threads_write_whole_blocks(pair: Pair) -> None:
    """In whatever order, none of them torn, to a client that is slow."""
    blocks = 50
    size = 3000

    def write(letter: bytes) -> None:
        for _ in range(blocks):
            assert pair.transport.write(letter * size)

    writers = [threading.Thread(target=write, args=[bytes([65 + n])]) for n in range(4)]
    for each in writers:
        each.start()
    data = b""
    while len(data) < 4 * blocks * size:
        pair.transport.ready(WRITE)
        try:
            data += pair.client.recv(1000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
    for each in writers:
        each.join(TIMEOUT)
    for start in range(0, len(data), size):
        assert len(set(data[start : start + size])) == 1


def test_signals_fire_though_nobody_listens() -> None:
    """A room that was asked for and forgotten costs nothing."""
    pair = Pair(*socket.socketpair())
    pair.fill()
    pair.transport.write(b"y" * HIGH_WATER)
    assert isinstance(pair.transport.room(), Signal)
    pair.transport.abort()
    pair.loop.settle()
    assert pair.told == ["lost"]
    pair.end()
