"""Every race of a connection's socket, forced: the loop's half and the lane's, in each order.

The test's own thread plays the lane and the loop by turns, and says when; where one must be inside
the lock while the other comes, a socket or a lock of the test's own holds it there.
"""

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bide.transports.connected import CLOSED
from bide.transports.pollable import Pollable
from bide.transports.poller import ENDED, GONE, READ, WRITE, EpollPoller, LoopPoller, make_poller
from tests.fakes import HIGH_WATER, HandPoller, Receiver, a_transport
from tests.served import DEADLINE, happened


class Lock:
    """The transport's lock, with something that happens just before it is taken."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.before: list[Callable[[], object]] = []

    def __enter__(self) -> None:
        if self.before:
            self.before.pop(0)()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Pair:
    """A transport, and the client's end of its connection."""

    def __init__(self, tcp: bool = False) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[Any] = []  # in what the loop was asked to do
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.client = socket.create_connection(listener.getsockname())
                sock, _ = listener.accept()
        else:
            sock, self.client = socket.socketpair()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.client.settimeout(DEADLINE)
        self.sock = sock
        self.poller = HandPoller(self.loop)
        self.receiver = Receiver()
        self.transport = a_transport(sock, self.poller, self.receiver)
        self.lock = Lock()
        self.transport.lock = self.lock
        self.descriptor = sock.fileno()

    def turn(self) -> None:
        """Run the loop's callbacks."""
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))

    @property
    def watched(self) -> int:
        """What the poller watches for."""
        return self.poller.watched.get(self.descriptor, 0)

    def fill(self) -> bytes:
        """Write more than the socket takes; give all of it."""
        data = os.urandom(1024 * 1024)
        assert self.transport.write(data)
        assert self.transport.queued
        return data

    def drain(self, size: int) -> bytes:
        """Read so many bytes at the client's end, the loop sending what is queued meanwhile."""
        blocks = []
        while size:
            if self.watched & WRITE:
                self.transport.ready(WRITE)
            block = self.client.recv(min(size, 65536))
            assert block, "the connection ended"
            blocks.append(block)
            size -= len(block)
        if self.watched & WRITE:
            self.transport.ready(WRITE)
        return b"".join(blocks)

    def close(self) -> None:
        """Clean up."""
        self.client.close()
        self.sock.close()
        self.turn()
        self.loop.close()
        assert self.errors == []


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Connect."""
    pair = Pair()
    yield pair
    pair.close()


# Writing against writing ---------------------------------------------------------------------


def test_a_write_behind_a_queue_waits_its_turn(pair: Pair) -> None:
    """Though the socket would take it by now: the bytes leave in the order of the calls."""
    first = pair.fill()
    # Room in the socket, and the loop does not know it yet.
    rest = len(first) - len(pair.client.recv(65536))
    assert pair.transport.write(b"second")
    assert pair.drain(rest + 6).endswith(b"second")


def test_a_write_after_the_loop_has_sent_all_is_sent_directly(pair: Pair) -> None:
    """The loop was first: nothing is queued, nothing to be watched."""
    first = pair.fill()
    assert pair.drain(len(first)) == first
    assert not pair.watched & WRITE
    assert pair.transport.write(b"second")
    assert pair.transport.queued == 0
    assert pair.client.recv(100) == b"second"


def test_the_loop_finds_nothing_to_send_when_it_comes_late(pair: Pair) -> None:
    """A readiness that was noticed before all was sent."""
    first = pair.fill()
    assert pair.drain(len(first)) == first
    pair.transport.ready(WRITE)
    assert pair.receiver.told == []


def test_a_block_is_sent_whole_before_another_thread_s(pair: Pair) -> None:
    """The second thread comes while the first is inside `send`."""
    inside, release, asked = threading.Event(), threading.Event(), threading.Event()

    class Held:
        """A socket whose first `send` is held."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def send(self, data: bytes) -> int:
            if not inside.is_set():
                inside.set()
                happened(release)
            return self._sock.send(data)

    pair.transport.socket = Held(pair.sock)  # type: ignore[assignment]
    first = threading.Thread(target=pair.transport.write, args=(b"first ",))
    first.start()
    happened(inside)
    pair.lock.before.append(asked.set)
    second = threading.Thread(target=pair.transport.write, args=(b"second",))
    second.start()
    happened(asked)
    release.set()
    first.join(DEADLINE)
    second.join(DEADLINE)
    pair.transport.socket = pair.sock
    assert pair.client.recv(100) == b"first second"


# Writing against ending ----------------------------------------------------------------------


def reuse(descriptor: int) -> tuple[socket.socket, socket.socket, list[socket.socket]]:
    """Open connections until one has the descriptor that was closed."""
    others: list[socket.socket] = []
    for _ in range(1000):
        one, other = socket.socketpair()
        if one.fileno() == descriptor:
            return one, other, others
        if other.fileno() == descriptor:
            return other, one, others
        others += [one, other]
    raise AssertionError("the descriptor was not used again")


def test_nothing_is_sent_on_a_descriptor_that_is_another_connection_s_by_now(pair: Pair) -> None:
    """The loop has closed it, and a new client has its number, when the lane comes to write."""
    pair.client.close()
    pair.transport.ready(GONE)
    one, other, rest = reuse(pair.descriptor)
    try:
        other.setblocking(False)
        assert pair.transport.write(b"misdirected") is False
        with tempfile.TemporaryFile() as file:
            file.write(b"misdirected")
            file.flush()
            assert pair.transport.send_file(file.fileno(), 0, 11) == -1
        pair.transport.close()
        pair.transport.abort()
        pair.turn()
        with pytest.raises(BlockingIOError):
            other.recv(100)
        one.send(b"still open")
        assert other.recv(100) == b"still open"
    finally:
        for each in (one, other, *rest):
            each.close()
    assert pair.receiver.told == ["lost"]


def test_the_loop_does_not_close_while_a_lane_is_sending(pair: Pair) -> None:
    """It waits for the lock: the descriptor stays the connection's until the send is over."""
    inside, release, asked = threading.Event(), threading.Event(), threading.Event()
    opened: list[int] = []

    class Held:
        """A socket whose `send` is held, and notes that the descriptor is open after it."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def send(self, data: bytes) -> int:
            inside.set()
            happened(release)
            opened.append(self._sock.fileno())
            return self._sock.send(data)

        def shutdown(self, how: int) -> None:
            self._sock.shutdown(how)

        def close(self) -> None:
            self._sock.close()

    pair.transport.socket = Held(pair.sock)  # type: ignore[assignment]
    lane = threading.Thread(target=pair.transport.write, args=(b"x",))
    lane.start()
    happened(inside)
    pair.lock.before.append(asked.set)
    loop = threading.Thread(target=pair.transport.ready, args=(GONE,))
    loop.start()
    happened(asked)
    assert pair.sock.fileno() == pair.descriptor
    release.set()
    lane.join(DEADLINE)
    loop.join(DEADLINE)
    assert opened == [pair.descriptor]
    assert pair.sock.fileno() == -1
    assert pair.receiver.told == ["lost"]


def test_a_lane_that_notices_first_has_the_loop_tell_it_once() -> None:
    """Its send fails; the loop learns it twice, by the lane and by the socket."""
    pair = Pair(tcp=True)
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.client.close()
    while pair.transport.write(b"x"):  # until the reset has come
        pass
    assert pair.receiver.told == []
    assert pair.transport.write(b"x") is False
    pair.transport.ready(READ)
    pair.turn()
    assert pair.receiver.told.count("lost") == 1
    assert pair.receiver.told[-1] == "lost"
    pair.close()


def test_the_loop_notices_first_and_the_lane_learns_it(pair: Pair) -> None:
    """In the other order."""
    pair.transport.ready(GONE)
    assert pair.receiver.told == ["lost"]
    assert pair.transport.write(b"x") is False
    pair.turn()
    assert pair.receiver.told == ["lost"]


def test_a_lane_closes_while_something_is_queued(pair: Pair) -> None:
    """The loop sends it first, then closes."""
    data = pair.fill()
    pair.transport.close()
    assert pair.transport.write(b"too late") is False
    pair.turn()
    assert pair.receiver.told == []
    assert pair.drain(len(data)) == data
    assert pair.receiver.told == ["lost"]
    assert pair.client.recv(1) == b""


def test_the_loop_sends_the_last_before_it_hears_of_the_close(pair: Pair) -> None:
    """Closed by the word that the lane left, not by the sending."""
    data = pair.fill()
    pair.transport.close()
    assert pair.drain(len(data)) == data
    pair.turn()
    assert pair.receiver.told == ["lost"]
    assert pair.client.recv(1) == b""


def test_the_connection_is_lost_before_the_loop_hears_of_the_close(pair: Pair) -> None:
    """Nothing is left to close."""
    pair.fill()
    pair.transport.close()
    pair.transport.ready(GONE)
    pair.turn()
    assert pair.receiver.told == ["lost"]


@pytest.mark.parametrize("first", ["abort", "close"])
def test_abort_and_close_in_either_order_end_once(pair: Pair, first: str) -> None:
    """What is queued is dropped."""
    pair.fill()
    second = {"abort": "close", "close": "abort"}[first]
    getattr(pair.transport, first)()
    getattr(pair.transport, second)()
    pair.turn()
    assert pair.receiver.told == ["lost"]
    assert pair.transport.queued == 0


@pytest.mark.parametrize("linger", [False, True])
@pytest.mark.parametrize("moment", ["before all is sent", "after", "at the end"])
def test_a_lane_aborts_around_the_loop_s_finishing(pair: Pair, linger: bool, moment: str) -> None:
    """The loop lets go of the lock between the last byte and what follows it."""
    pair.transport.close(linger)
    abort = pair.transport.abort
    # The loop takes the lock to finish, and then to end or to read on.
    pair.lock.before += {
        "before all is sent": [abort],
        "after": [lambda: None, abort],
        "at the end": [],
    }[moment]
    pair.turn()
    if moment == "at the end":
        abort()
        pair.turn()
    assert pair.lock.before == []
    assert pair.receiver.told == ["lost"]
    assert pair.transport.state is CLOSED
    assert pair.transport.lingering is None
    assert pair.sock.fileno() == -1


def test_a_lane_closes_after_the_client_has_sent_its_last(pair: Pair) -> None:
    """No lingering: there is nothing left to be read."""
    pair.client.shutdown(socket.SHUT_WR)
    pair.transport.ready(READ)
    assert pair.receiver.told == ["eof"]
    pair.transport.close(linger=True)
    pair.turn()
    assert pair.receiver.told == ["eof", "lost"]


def test_the_client_s_last_comes_after_a_lane_closed(pair: Pair) -> None:
    """What it still sends is dropped; its end closes."""
    pair.transport.close(linger=True)
    pair.turn()
    assert pair.client.recv(1) == b""
    pair.client.send(b"dropped")
    pair.transport.ready(READ)
    assert pair.receiver.told == []
    pair.client.shutdown(socket.SHUT_WR)
    pair.transport.ready(READ)
    assert pair.receiver.told == ["lost"]


# A file against everything else ------------------------------------------------------------------


class Disk:
    """A file on a disk that is slow: ``os.sendfile`` is held until the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
        self.pair = pair
        self.reading, self.release = threading.Event(), threading.Event()
        self.error: OSError | None = None
        self.open_after: list[bool] = []
        self.outcome: list[Any] = []
        self._real = os.sendfile
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the fixture
        self._file.write(b"0123456789")
        self._file.flush()
        monkeypatch.setattr(os, "sendfile", self._sendfile)
        self._lane = threading.Thread(target=self._send)

    def _sendfile(self, *args: Any) -> int:
        self.reading.set()
        happened(self.release)
        self.open_after.append(self.pair.sock.fileno() == self.pair.descriptor)
        if self.error is not None:
            raise self.error
        return self._real(*args)

    def _send(self) -> None:
        try:
            self.outcome.append(self.pair.transport.send_file(self._file.fileno(), 0, 10))
        except Exception as error:
            self.outcome.append(error)

    def begin(self) -> None:
        """Start a lane that sends the file, and is held up by the disk."""
        self._lane.start()
        happened(self.reading)

    def end(self) -> Any:
        """Let the disk go on; return the outcome for the lane."""
        self.release.set()
        self._lane.join(DEADLINE)
        return self.outcome[0]

    def close(self) -> None:
        """Clean up."""
        self.release.set()
        if self._lane.ident:
            self._lane.join(DEADLINE)
        self._file.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Iterator[Disk]:
    """Return a slow disk."""
    disk = Disk(monkeypatch, pair)
    yield disk
    disk.close()


def free(pair: Pair) -> bool:
    """Whether the loop would get the connection's lock."""
    got = pair.lock._lock.acquire(timeout=DEADLINE)
    if got:
        pair.lock._lock.release()
    return got


def test_nobody_waits_for_the_disk(pair: Pair, disk: Disk) -> None:
    """The loop reads what comes, and hears the client's end, while the file is on its way."""
    disk.begin()
    assert free(pair)
    pair.client.send(b"more")
    pair.transport.ready(READ)
    pair.client.shutdown(socket.SHUT_WR)
    pair.transport.pause_reading()
    pair.transport.ready(ENDED)
    pair.transport.resume_reading()
    pair.transport.ready(READ)
    assert pair.receiver.told == [b"more", "eof ahead", "eof"]
    assert disk.end() == 10
    assert pair.client.recv(100) == b"0123456789"


def test_the_loop_closes_while_a_file_is_sent(pair: Pair, disk: Disk) -> None:
    """It tells the end at once; the descriptor is nobody else's before the file is done with."""
    disk.begin()
    assert free(pair)
    pair.transport.ready(GONE)
    assert pair.receiver.told == ["lost"]
    assert pair.poller.watched == {}
    assert pair.transport.write(b"x") is False
    assert disk.end() == -1
    assert disk.open_after == [True]
    pair.turn()
    assert pair.sock.fileno() == -1
    assert pair.receiver.told == ["lost"]


def test_a_file_is_sent_before_the_loop_closes(pair: Pair, disk: Disk) -> None:
    """In the other order: the loop closes by itself, once."""
    disk.begin()
    assert disk.end() == 10
    pair.transport.ready(GONE)
    assert pair.sock.fileno() == -1
    pair.turn()
    assert pair.receiver.told == ["lost"]


def test_the_loop_closes_before_a_file_is_sent(pair: Pair, disk: Disk) -> None:
    """The disk is not even asked."""
    pair.transport.ready(GONE)
    disk.release.set()
    disk._lane.start()
    assert disk.end() == -1
    assert not disk.reading.is_set()


@pytest.mark.parametrize("order", ["abort", "lost", "abort, then lost"])
def test_a_reset_while_a_file_is_sent_is_told_at_once(pair: Pair, disk: Disk, order: str) -> None:
    """By the server that gives the client up, by the client, or by both."""
    disk.begin()
    assert free(pair)
    if "abort" in order:
        pair.transport.abort()
    if "lost" in order:
        pair.transport.ready(GONE)
    pair.turn()
    assert pair.receiver.told == ["lost"]
    assert disk.end() == -1
    pair.turn()
    assert pair.sock.fileno() == -1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BlockingIOError(), 0),
        (ConnectionResetError(), -1),
        (OSError(5, "the disk is broken"), OSError),
    ],
)
def test_a_file_that_fails_leaves_the_connection_usable_or_lost(
    pair: Pair, disk: Disk, error: OSError, outcome: Any
) -> None:
    """The client is behind, or gone; or it is the disk's own error, which the lane gets."""
    disk.error = error
    disk.begin()
    pair.transport.write(b"later")
    assert pair.transport.queued == 5
    result = disk.end()
    assert result == outcome or (isinstance(outcome, type) and isinstance(result, outcome))
    pair.turn()
    if outcome == -1:
        assert pair.receiver.told == ["lost"]
        assert pair.transport.queued == 0
    else:
        assert pair.drain(5) == b"later"


@pytest.mark.parametrize("error", [None, ConnectionResetError(), OSError(5, "the disk is broken")])
def test_a_file_fails_or_not_when_the_connection_is_lost_already(
    pair: Pair, disk: Disk, error: OSError | None
) -> None:
    """The descriptor is closed in any case, and once."""
    disk.error = error
    disk.begin()
    pair.transport.ready(GONE)
    result = disk.end()
    assert result == -1 or isinstance(result, OSError)
    pair.turn()
    assert pair.sock.fileno() == -1
    assert pair.receiver.told == ["lost"]


def test_what_is_written_while_a_file_is_sent_goes_out_behind_it(pair: Pair, disk: Disk) -> None:
    """The kernel takes a file page by page: nothing may come between; nor does the loop spin."""
    data = b"behind"
    disk.begin()
    assert pair.transport.write(data)
    assert not pair.watched & WRITE
    writable = pair.transport.writable()
    pair.transport.ready(WRITE)  # as the poller may say of a socket that takes bytes
    assert not pair.watched & WRITE
    assert not writable.fired
    assert disk.end() == 10
    assert pair.drain(10 + len(data)) == b"0123456789" + data
    assert writable.fired


def test_a_lane_closes_while_another_sends_a_file(pair: Pair, disk: Disk) -> None:
    """What is on its way still goes out, and then the connection is closed."""
    disk.begin()
    pair.transport.close()
    pair.turn()
    assert pair.receiver.told == []
    assert disk.end() == 10
    pair.turn()
    assert pair.receiver.told == ["lost"]
    assert pair.client.recv(100) == b"0123456789"
    assert pair.client.recv(100) == b""


@contextmanager
def closed_loop(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> Iterator[None]:
    """Make the loop refuse the calls of other threads, as a closed one does."""

    def closed(*_: Any, **__: Any) -> None:
        raise RuntimeError("Event loop is closed")

    with monkeypatch.context() as patched:
        patched.setattr(pair.loop, "call_soon_threadsafe", closed)
        patched.setattr(pair.loop, "is_closed", lambda: True)
        yield


def test_the_loop_is_closed_while_a_file_is_sent(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, disk: Disk
) -> None:
    """Nobody is left to close the descriptor but the lane."""
    disk.begin()
    pair.transport.ready(GONE)
    with closed_loop(monkeypatch, pair):
        assert disk.end() == -1
    assert pair.sock.fileno() == -1


@pytest.mark.parametrize("closed_before", ["the close", "the file's end"])
def test_the_loop_is_closed_where_a_file_is_sent_and_then_the_connection_closed(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, disk: Disk, closed_before: str
) -> None:
    """Whoever closes leaves it to the sending lane; the client gets the file, and the end."""
    disk.begin()
    if closed_before == "the file's end":
        pair.transport.close()  # which asks the loop, to no effect: the file is on its way
        pair.turn()
    with closed_loop(monkeypatch, pair):
        if closed_before == "the close":
            pair.transport.close()
        assert pair.sock.fileno() == pair.descriptor
        disk.end()
    assert disk.open_after == [True]
    assert pair.sock.fileno() == -1
    assert pair.client.recv(100) == b"0123456789"
    assert pair.client.recv(100) == b""


# Being told of room --------------------------------------------------------------------------


def test_room_is_asked_for_before_the_client_catches_up(pair: Pair) -> None:
    """It fires once little is queued, and not before."""
    data = pair.fill()
    signal = pair.transport.room()
    assert signal is not None
    assert pair.transport.room() is signal
    fired = []
    for size in (len(data) // 2, len(data) - len(data) // 2):
        pair.drain(size)
        fired.append(signal.fired)
    assert fired == [False, True]
    assert pair.transport.room() is None


def test_room_is_asked_for_after_the_client_caught_up(pair: Pair) -> None:
    """There is nothing to wait for."""
    data = pair.fill()
    pair.drain(len(data))
    assert pair.transport.room() is None


def test_the_client_catches_up_between_the_look_and_the_lock(pair: Pair) -> None:
    """The look without the lock saw a full queue, and the signal would never fire."""
    data = pair.fill()
    assert pair.transport.queued > HIGH_WATER
    pair.lock.before.append(lambda: pair.drain(len(data)))
    assert pair.transport.room() is None


def test_the_connection_ends_between_the_look_and_the_lock(pair: Pair) -> None:
    """Nobody would fire the signal any more."""
    pair.fill()
    pair.lock.before.append(lambda: pair.transport.ready(GONE))
    assert pair.transport.room() is None


@pytest.mark.parametrize("ask", ["room", "writable"])
@pytest.mark.parametrize("ending", ["lost", "abort"])
def test_who_waits_for_the_client_is_woken_when_it_is_gone(
    pair: Pair, ask: str, ending: str
) -> None:
    """By whatever ends the connection."""
    pair.fill()
    signal = getattr(pair.transport, ask)()
    if ending == "lost":
        pair.transport.ready(GONE)
    else:
        pair.transport.abort()
    assert signal.fired


def test_writable_after_the_end_fires_at_once(pair: Pair) -> None:
    """In the order that would hang otherwise."""
    pair.transport.ready(GONE)
    assert pair.transport.writable().fired


def test_writable_is_asked_for_while_the_socket_takes_bytes(pair: Pair) -> None:
    """The poller is asked, and tells at once."""
    signal = pair.transport.writable()
    assert pair.watched & WRITE
    pair.transport.ready(WRITE)
    assert signal.fired
    assert not pair.watched & WRITE


def test_two_who_wait_for_room_share_a_signal_and_the_next_gets_a_new_one(pair: Pair) -> None:
    """A signal fires once."""
    for _ in range(2):
        data = pair.fill()
        one, other = pair.transport.room(), pair.transport.room()
        assert one is not None
        assert one is other
        fired = [one.fired]
        pair.drain(len(data))
        assert [*fired, one.fired] == [False, True]


# Reading ---------------------------------------------------------------------------------------


def test_a_lane_resumes_reading_after_the_client_ended(pair: Pair) -> None:
    """The end was read: it would be found again and again."""
    pair.client.shutdown(socket.SHUT_WR)
    pair.transport.ready(READ)
    pair.transport.resume_reading()
    assert not pair.watched & READ


def test_a_lane_resumes_reading_after_the_connection_was_closed(pair: Pair) -> None:
    """The poller knows the descriptor no more, or as another connection's."""
    pair.transport.pause_reading()
    pair.transport.ready(GONE)
    pair.transport.resume_reading()
    pair.transport.pause_reading()
    assert pair.poller.watched == {}


def test_reading_and_writing_are_watched_apart(pair: Pair) -> None:
    """Neither switches the other off."""
    pair.transport.pause_reading()
    assert pair.watched == ENDED
    data = pair.fill()
    assert pair.watched == WRITE | ENDED
    pair.transport.resume_reading()
    assert pair.watched == READ | WRITE
    pair.drain(len(data))
    assert pair.watched == READ


def test_the_end_is_told_once_while_reading_is_paused_and_read_after_it(pair: Pair) -> None:
    """It stands behind what is unread; epoll would tell it for ever."""
    pair.client.send(b"unread")
    pair.transport.pause_reading()
    pair.client.shutdown(socket.SHUT_WR)
    pair.transport.ready(ENDED)
    assert pair.receiver.told == ["eof ahead"]
    assert pair.watched == 0
    pair.transport.resume_reading()
    pair.transport.ready(READ)
    pair.transport.ready(READ)
    assert pair.receiver.told == ["eof ahead", b"unread", "eof"]


def test_the_end_behind_unread_bytes_does_not_end_the_writing(pair: Pair) -> None:
    """Both are told in one event."""
    data = pair.fill()
    pair.transport.pause_reading()
    pair.transport.ready(ENDED | WRITE)
    assert pair.receiver.told == ["eof ahead"]
    assert pair.drain(len(data)) == data


# The pollers -----------------------------------------------------------------------------------


class Target(Pollable):
    """Keeps its events, and does something at the first."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.events: list[int] = []
        self.called = threading.Event()
        self._act = act

    def ready(self, events: int) -> None:
        """Keep."""
        self.events.append(events)
        self._act()
        self.called.set()

    def abort(self) -> None:
        """Not in these tests."""
        raise AssertionError


@pytest.mark.parametrize("kind", [EpollPoller, LoopPoller])
def test_a_descriptor_that_another_one_s_event_closed_is_not_served(kind: Any) -> None:
    """Both were ready; the first, when served, closed the second."""

    async def program() -> None:
        poller = kind(asyncio.get_running_loop(), lambda: None)
        pairs = [socket.socketpair() for _ in range(2)]
        targets: list[Target] = []

        def close_other(number: int) -> Callable[[], None]:
            def act() -> None:
                poller.unregister(pairs[number][0].fileno())
                poller.unregister(pairs[1 - number][0].fileno())

            return act

        for number, (server, client) in enumerate(pairs):
            targets.append(Target(close_other(number)))
            poller.register(server.fileno(), targets[number])
            client.send(b"x")
        for _ in range(5):
            await asyncio.sleep(0)
        assert sorted(len(target.events) for target in targets) == [0, 1]
        poller.close()
        for server, client in pairs:
            server.close()
            client.close()

    asyncio.run(program())


@pytest.mark.parametrize("kind", [EpollPoller, LoopPoller])
def test_another_thread_watches_and_the_loop_wakes(kind: Any) -> None:
    """The loop sleeps in its select when a lane asks for the socket to be watched."""

    async def program() -> None:
        loop = asyncio.get_running_loop()
        poller = kind(loop, lambda: None)
        server, client = socket.socketpair()
        written = asyncio.Event()
        target = Target(written.set)
        poller.register(server.fileno(), target)
        await loop.run_in_executor(None, poller.watch, server.fileno(), WRITE)
        async with asyncio.timeout(DEADLINE):
            await written.wait()
        assert target.events[0] & WRITE
        poller.unregister(server.fileno())
        poller.close()
        server.close()
        client.close()

    asyncio.run(program())


def test_a_late_word_of_a_lane_does_not_touch_the_next_connection() -> None:
    """The loop's own watching: the descriptor was closed and used again before the word came."""

    async def program() -> None:
        loop = asyncio.get_running_loop()
        poller = LoopPoller(loop, lambda: None)
        server, client = socket.socketpair()
        old, new = Target(), Target()
        poller.register(server.fileno(), old)
        thread = threading.Thread(target=poller.watch, args=(server.fileno(), WRITE))
        thread.start()
        thread.join(DEADLINE)  # the word is left, and the loop has not had its turn
        poller.unregister(server.fileno())
        poller.register(server.fileno(), new)
        for _ in range(5):
            await asyncio.sleep(0)
        assert (old.events, new.events) == ([], [])
        poller.unregister(server.fileno())
        server.close()
        client.close()

    asyncio.run(program())


def test_this_system_has_epoll() -> None:
    """What the other tests of a whole server run on."""

    async def program() -> str:
        poller = make_poller(asyncio.get_running_loop())
        poller.close()
        return type(poller).__name__

    expected = "EpollPoller" if os.uname().sysname == "Linux" else "LoopPoller"
    assert asyncio.run(program()) == expected
