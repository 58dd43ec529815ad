"""A connection over TLS: every move that OpenSSL may ask for, forced by one that is not there.

What each call of OpenSSL comes to is the test's choice; the poller and the thread of the handshakes
are the test, too. That each call is made under the lock is looked at in all of them.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest

from bide.exchange.peer import Secured
from bide.exchange.totals import UNBOUND, Total
from bide.transports.beginnings import NOT_HTTPS, NOT_TLS, PLAIN
from bide.transports.connected import BROKEN, CLOSED, LINGERING, OPEN
from bide.transports.poller import READ, WRITE
from bide.transports.streaming import SMALL_READ
from bide.transports.tls import FRAMED, MOST, RECORD, TLSTransport
from tests.failures import Failures, same
from tests.fakes import HIGH_WATER, LINGER, HandPoller, ManualLoop, Receiver

HANDSHAKE = b"\x16\x03\x01"
WANT_READ = ssl.SSLWantReadError()
WANT_WRITE = ssl.SSLWantWriteError()
CUT = ssl.SSLEOFError("the client's end came without a close_notify")
DAMAGED = ssl.SSLError("bad record mac")
DAMAGED.reason = "BAD_RECORD_MAC"


class Noted(AbstractContextManager[Any]):
    """A lock that knows whether it is held, and how much was encrypted since it was taken."""

    def __init__(self) -> None:
        self.depth = 0
        self.moved = 0
        self.most = 0

    def __enter__(self) -> Any:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            self.most, self.moved = max(self.most, self.moved), 0


class Fake:
    """A socket whose TLS is the test's: what it says next of a call, else that it is done.

    Attributes:
        says: by the name of a call, what its next calls come to: an error, or a value.
        calls: those that were made, in order.
        written: each piece that was given to OpenSSL, whether it took it or not.
        sent: what OpenSSL has taken.
    """

    def __init__(self, sock: socket.socket, lock: Noted) -> None:
        self._sock = sock
        self._lock = lock
        self.says: dict[str, deque[Any]] = {}
        self.calls: list[str] = []
        self.written: list[bytes] = []
        self.sent = b""

    def say(self, call: str, *what: Any) -> None:
        """Say what the next calls come to."""
        self.says.setdefault(call, deque()).extend(what)

    def _call(self, name: str, otherwise: Any) -> Any:
        assert self._lock.depth, f"{name} without the lock"
        self.calls.append(name)
        said = self.says.get(name)
        what = said.popleft() if said else otherwise
        if isinstance(what, Exception):
            if type(what) is ssl.SSLError and said is not None:
                said.appendleft(what)  # what is broken stays so
            raise what
        return what

    def do_handshake(self) -> None:
        """Come to what the test says."""
        self._call("do_handshake", None)

    def read(self, size: int) -> Any:
        """Return what the test says, and keep what was not asked for."""
        data = self._call("read", WANT_READ)
        if len(data) > size:
            self.says["read"].appendleft(data[size:])
        self._lock.moved += min(size, len(data))
        return data[:size]

    def pending(self) -> int:
        """Return how much of a record is left."""
        said = self.says.get("read")
        block = said[0] if said else b""
        return self._call("pending", 0 if isinstance(block, Exception) else len(block))  # type: ignore[no-any-return]

    def write(self, data: Any) -> int:
        """Take all of it, unless the test says otherwise."""
        self.written.append(bytes(data))
        self._call("write", None)
        self.sent += data
        self._lock.moved += len(data)
        return len(data)

    def unwrap(self) -> None:
        """Send the ``close_notify``; the client's has not come."""
        self._call("unwrap", WANT_READ)

    def cipher(self) -> Any:
        """Return any."""
        return ("A", "TLSv1.3", 256)

    def version(self) -> str:
        """Return one."""
        return "TLSv1.3"

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return none."""
        return None

    def selected_alpn_protocol(self) -> str:
        """Return one."""
        return "http/1.1"

    session_reused = False

    def shutdown(self, how: int) -> None:
        """End the socket."""
        self.calls.append("shutdown")
        self._sock.shutdown(how)

    def __getattr__(self, name: str) -> Any:
        if name not in ("recv", "send", "close", "fileno", "setsockopt", "family"):
            raise AttributeError(name)
        return getattr(self._sock, name)


class Pair(Receiver):
    """A transport, what its receiver was told, and the client's end.

    Args:
        shaken: whether the handshake has been made.
        unread: what waits for all applications.
    """

    def __init__(self, *, shaken: bool = True, unread: Total = UNBOUND) -> None:
        super().__init__()
        self.loop = ManualLoop()
        self.poller = HandPoller(self.loop)
        self.server, self.client = socket.socketpair()
        self.server.setblocking(False)
        self.lock = Noted()
        self.fake = Fake(self.server, self.lock)
        self.shaking: list[Any] = []
        self.pauses = False
        handshakes: Any = self
        self.transport = TLSTransport(
            handshakes, self.server, self.poller, self, HIGH_WATER, LINGER, UNBOUND, unread
        )
        self.transport.lock = self.lock
        self.transport.start()
        if shaken:
            self.client.send(HANDSHAKE)
            assert self.transport.shake() == 0
            self.let_go()
            self.told.clear()

    # The thread of the handshakes

    def add(self, target: Any) -> None:
        """Keep it."""
        self.shaking.append(target)

    def drop(self, target: Any) -> None:
        """Let go of it."""
        if target in self.shaking:
            self.let_go()

    def wrap(self, sock: Any) -> Any:
        """Return the test's."""
        return self.fake

    def let_go(self) -> None:
        """Let go of the transport, and run the loop."""
        self.shaking.clear()
        self.transport.let_go()
        self.loop.settle()

    # The receiver

    def secured(self, secured: Secured) -> None:
        """Keep it."""
        self.told.append(secured.alpn)

    def insecure(self, reason: str) -> None:
        """Keep it."""
        self.told.append(f"insecure: {reason}")

    def data_received(self, data: bytes) -> None:
        """Keep it, and pause if the test says so."""
        super().data_received(data)
        if self.pauses:
            self.transport.pause_reading()

    # The test

    @property
    def watched(self) -> int:
        """What the poller watches for."""
        (events,) = self.poller.watched.values()
        return events & (READ | WRITE)

    @property
    def state(self) -> str:
        """The transport's."""
        return self.transport.state

    def close(self) -> None:
        """Close what is open."""
        self.server.close()
        self.client.close()
        self.loop.settle()
        self.loop.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return a transport whose handshake is made."""
    with closing(Pair()) as pair:
        yield pair


# The handshake ---------------------------------------------------------------------------------


def test_a_handshake_waits_for_what_openssl_wants() -> None:
    """It is in nobody's way: the poller does not know the socket before it has ended."""
    with closing(Pair(shaken=False)) as pair:
        assert pair.transport.shake() == READ  # nothing has come
        pair.client.send(HANDSHAKE)
        pair.fake.say("do_handshake", WANT_READ, WANT_WRITE, WANT_READ)
        assert [pair.transport.shake() for _ in range(4)] == [READ, WRITE, READ, 0]
        assert not pair.transport.write(b"too early")
        assert pair.poller.watched == {}
        pair.let_go()
        assert pair.told == ["http/1.1"]
        assert pair.watched == READ
        assert pair.transport.write(b"hello")
        assert pair.fake.sent == b"hello"


def test_what_does_not_begin_as_tls_is_refused() -> None:
    """Plain HTTP in its own words, in clear; all else is closed; who only looks is not named."""
    cases = {b"GET / HTTP/1.1": PLAIN, b"\x80\x2e": NOT_TLS, b"\x00": NOT_TLS, b"": ""}
    with Failures() as failures:
        for first, reason in cases.items():
            with failures.of(str(first)), closing(Pair(shaken=False)) as pair:
                if first:
                    pair.client.send(first)
                else:
                    pair.client.shutdown(socket.SHUT_WR)
                assert pair.transport.shake() == 0
                pair.let_go()
                same(pair.fake.calls, [])
                told = [f"insecure: {reason}"] if reason else []
                if reason == PLAIN:
                    same(pair.told, told)
                    same(pair.state, LINGERING)
                    same(pair.client.recv(1000), NOT_HTTPS)
                    pair.client.close()
                    pair.transport.ready(READ)
                    pair.transport.ready(READ)
                same(pair.told, [*told, "lost"])
                same(pair.server.fileno(), -1)


def test_a_handshake_that_fails_says_why() -> None:
    """The alert is sent by OpenSSL itself."""
    with closing(Pair(shaken=False)) as pair:
        pair.client.send(HANDSHAKE)
        pair.fake.say("do_handshake", DAMAGED)
        assert pair.transport.shake() == 0
        pair.let_go()
        assert pair.told == ["insecure: bad record mac", "lost"]


def test_the_loop_ends_a_connection_in_its_handshake_before_and_after_its_last_step() -> None:
    """Its descriptor is closed once, and only when nobody uses it any more."""
    with Failures() as failures:
        for name in ("close", "abort"):
            for when in ("before the bytes", "in the middle", "made", "let go"):
                with failures.of(f"{name}, {when}"), closing(Pair(shaken=False)) as pair:
                    transport = pair.transport
                    pair.fake.say("do_handshake", WANT_READ)
                    if when != "before the bytes":
                        pair.client.send(HANDSHAKE)
                        same(transport.shake(), READ)
                    if when in ("made", "let go"):
                        same(transport.shake(), 0)
                    if when == "let go":
                        pair.shaking.clear()
                        transport.let_go()  # and the loop has not heard of it yet
                    dropped = pair.drop
                    pair.drop = lambda target: None  # type: ignore[method-assign]
                    getattr(transport, name)()
                    pair.loop.settle()
                    same(pair.state, CLOSED)
                    told = ["http/1.1"] if when == "let go" and name == "close" else []
                    same(pair.told, [*told, "lost"])
                    if pair.shaking:
                        assert pair.server.fileno() != -1
                        same(transport.shake(), 0)
                        dropped(transport)
                    same(pair.server.fileno(), -1)
                    same(pair.told, [*told, "lost"])
                    assert "unwrap" not in pair.fake.calls


# Writing ---------------------------------------------------------------------------------------


def test_what_openssl_has_begun_is_given_again_unchanged_before_all_else(pair: Pair) -> None:
    """Whatever is written meanwhile, small blocks that are joined or large ones (SSL_write(3))."""
    with Failures() as failures:
        for size in (1, 100, 5000, RECORD, RECORD + 1, 5 * RECORD):
            for behind in ([b"b" * 10], [b"b" * 10] * 500, [b"b" * 100_000], [b"b", b"c" * 20_000]):
                with failures.of(f"{size}, {len(behind)}"), closing(Pair()) as pair:
                    pair.fake.say("write", WANT_WRITE)
                    whole = b"a" * size
                    assert pair.transport.write(whole)
                    same(pair.watched, READ | WRITE)
                    for block in behind:
                        pair.fake.say("write", WANT_WRITE)
                        assert pair.transport.write(block)
                        whole += block
                    pair.fake.says.clear()
                    first = pair.fake.written[0]
                    same(first, b"a" * min(size, RECORD))
                    pair.transport.ready(WRITE)
                    tries = pair.fake.written[: pair.fake.written.index(first) + 1]
                    same(set(tries), {first})
                    for _ in range(20):
                        if pair.transport.queued:
                            pair.transport.ready(WRITE)
                    same(pair.fake.sent, whole)
                    same(pair.watched, READ)
                    assert max(map(len, pair.fake.written)) <= RECORD


def test_a_write_that_wants_to_read_is_tried_again_when_something_has_come(pair: Pair) -> None:
    """Also while the application reads nothing: what came is then left where it is."""
    with Failures() as failures:
        for paused in (False, True):
            with failures.of(f"paused: {paused}"), closing(Pair()) as pair:
                if paused:
                    pair.transport.pause_reading()
                pair.fake.say("write", WANT_READ, WANT_READ)
                assert pair.transport.write(b"hello")
                same(pair.watched, READ)
                pair.fake.say("read", b"data")
                pair.transport.ready(READ)
                same(pair.told, [] if paused else [b"data"])
                same(pair.watched, READ)  # it wants to read once more
                pair.transport.ready(READ)
                same(pair.fake.sent, b"hello")
                same(pair.watched, 0 if paused else READ)


def test_a_read_that_wants_to_write_is_tried_again_when_the_socket_takes_bytes(pair: Pair) -> None:
    """Else a socket that has bytes, which OpenSSL does not take, would be ready for ever."""
    pair.fake.say("read", WANT_WRITE, b"data")
    pair.transport.ready(READ)
    assert pair.watched == WRITE
    pair.transport.ready(READ)  # it was found before that
    assert pair.told == []
    pair.transport.ready(WRITE)
    assert pair.told == [b"data"]
    assert pair.watched == READ


def test_reading_and_writing_may_both_want_the_other(pair: Pair) -> None:
    """Each event goes to who waits for it."""
    pair.fake.say("write", WANT_READ)
    assert pair.transport.write(b"hello")
    pair.fake.say("read", WANT_WRITE)
    pair.fake.say("write", WANT_READ)
    pair.transport.ready(READ)
    assert pair.watched == READ | WRITE
    pair.fake.say("read", b"data")
    pair.transport.ready(WRITE)
    assert pair.told == [b"data"]
    assert pair.fake.sent == b""
    pair.transport.ready(READ)
    assert pair.fake.sent == b"hello"
    assert pair.watched == READ


def test_no_more_than_a_bounded_part_is_encrypted_for_one_hold_of_the_lock(pair: Pair) -> None:
    """1 MiB would keep the loop from this connection for 1.5 ms."""
    block = os.urandom(1024 * 1024)
    assert pair.transport.write(b"head", block)
    turns = 0
    while pair.transport.queued:
        pair.transport.ready(WRITE)
        turns += 1
    assert pair.fake.sent == b"head" + block
    assert RECORD < pair.lock.most <= FRAMED
    assert turns >= len(block) // FRAMED
    pair.lock.most = 0
    pair.fake.say("read", *[b"x" * RECORD] * 100)
    pair.transport.ready(READ)
    assert pair.lock.most <= MOST


def test_a_thread_that_goes_on_writing_needs_the_loop_only_when_the_socket_is_full(
    pair: Pair,
) -> None:
    """What was left for the loop since it was much does not make the client one that is behind."""
    block = os.urandom(MOST)
    assert pair.transport.write(block, block)
    assert pair.transport.queued
    for _ in range(10):
        assert pair.transport.write(block)
    assert pair.transport.queued <= MOST
    pair.fake.say("write", WANT_WRITE, WANT_WRITE)
    assert pair.transport.write(block)
    written = len(pair.fake.written)
    assert pair.transport.write(b"x")
    assert len(pair.fake.written) == written + 1  # it is high: the client is looked at
    while pair.transport.queued:
        pair.transport.ready(WRITE)
    assert pair.fake.sent == block * 13 + b"x"


def test_a_head_and_its_block_are_one_record(pair: Pair) -> None:
    """A record of its own for the head would cost 3 µs, and be a packet of its own."""
    assert pair.transport.write(b"head", b"block", b"end")
    assert pair.fake.written == [b"headblockend"]
    assert pair.transport.write(b"")
    assert pair.fake.written == [b"headblockend"]


def test_a_client_that_is_gone_is_found_by_a_write(pair: Pair) -> None:
    """Whatever OpenSSL says of it, at once or later."""
    errors = [ConnectionResetError(), BrokenPipeError(), DAMAGED, ValueError("unwrapped")]
    with Failures() as failures:
        for error in errors:
            for later in (False, True):
                with failures.of(f"{error!r} {later}"), closing(Pair()) as pair:
                    pair.fake.say("write", *([WANT_WRITE] if later else []), error)
                    same(pair.transport.write(b"x"), later)
                    if later:
                        pair.transport.ready(WRITE)
                    same(pair.state, BROKEN)
                    pair.loop.settle()
                    same(pair.told, ["lost"])
                    assert "unwrap" not in pair.fake.calls


# Reading ---------------------------------------------------------------------------------------


def test_what_openssl_holds_is_read_although_no_poller_tells_of_it() -> None:
    """While bodies, together, hold as much as they may, little is read at once of a record."""
    total = Total(1)
    total.add(1)
    assert total.full
    record = os.urandom(RECORD)
    with closing(Pair(unread=total)) as pair:
        pair.fake.say("read", record)
        pair.transport.ready(READ)
        assert b"".join(pair.told) == record
        assert {len(each) for each in pair.told} == {SMALL_READ}


def test_what_openssl_holds_at_a_pause_is_read_when_reading_goes_on() -> None:
    """Piece by piece, as often as the application pauses; nothing is lost, nothing told early."""
    total = Total(1)
    total.add(1)
    record = os.urandom(RECORD)
    with closing(Pair(unread=total)) as pair:
        pair.pauses = True
        pair.fake.say("read", record)
        pair.transport.ready(READ)
        for number in range(1, RECORD // SMALL_READ + 1):
            pair.loop.settle()
            assert b"".join(pair.told) == record[: number * SMALL_READ]
            pair.transport.resume_reading()
        pair.loop.settle()
        assert b"".join(pair.told) == record


def test_several_records_are_read_together(pair: Pair) -> None:
    """A large upload costs the protocol one piece for four of them."""
    pair.fake.say("read", *[b"x" * RECORD] * 9, b"y")
    for _ in range(3):
        pair.transport.ready(READ)
    assert [len(each) for each in pair.told] == [MOST, MOST, RECORD + 1]


def test_the_client_s_end_is_told_behind_its_bytes() -> None:
    """A ``close_notify`` is a half-close; a bare end, or damage, loses the connection."""
    full = b"x" * RECORD
    with Failures() as failures:
        for end, told in ((b"", "eof"), (CUT, "lost"), (DAMAGED, "lost")):
            for before in ([], [full], [full, full]):
                with failures.of(f"{end!r} behind {len(before)}"), closing(Pair()) as pair:
                    pair.fake.say("read", *before, end, end)
                    pair.transport.ready(READ)
                    same(pair.told, [*([b"".join(before)] if before else []), told])
                    same(pair.state, OPEN if told == "eof" else CLOSED)
                    if told == "eof":  # the answer may still go
                        same(pair.watched, 0)
                        assert pair.transport.write(b"answer")


# Ending ----------------------------------------------------------------------------------------


def test_an_end_is_said_by_tls_and_then_by_the_socket() -> None:
    """In that order, behind all that was written, with and without lingering."""
    with Failures() as failures:
        for linger in (True, False):
            for full in (False, True):
                with failures.of(f"linger {linger}, full {full}"), closing(Pair()) as pair:
                    pair.fake.say("write", WANT_WRITE)
                    pair.transport.write(b"answer")
                    pair.transport.close(linger=linger)
                    assert "unwrap" not in pair.fake.calls
                    if full:  # the socket takes the answer, and not the close_notify
                        pair.fake.say("unwrap", WANT_WRITE)
                        pair.transport.ready(WRITE)
                        same(pair.watched & WRITE, WRITE)
                        assert "shutdown" not in pair.fake.calls
                    pair.transport.ready(WRITE)
                    pair.loop.settle()
                    same(pair.fake.calls[-2:], ["unwrap", "shutdown"])
                    same(pair.fake.calls.count("unwrap"), 1 + full)
                    same(pair.state, LINGERING if linger else CLOSED)
                    assert not pair.transport.write(b"in clear")
                    same(pair.fake.sent, b"answer")


def test_a_closing_connection_drops_what_comes_undecrypted(pair: Pair) -> None:
    """After its ``close_notify`` OpenSSL reads no more."""
    pair.transport.close(linger=True)
    pair.loop.settle()
    calls = list(pair.fake.calls)
    pair.client.send(b"\x17\x03\x03 more")
    pair.transport.ready(READ)
    assert (pair.state, pair.told) == (LINGERING, [])
    pair.client.close()
    pair.transport.ready(READ)
    assert (pair.state, pair.told) == (CLOSED, ["lost"])
    assert pair.fake.calls == [*calls, "shutdown"]


def test_a_cut_says_no_end(pair: Pair) -> None:
    """What is truncated must look so: a reset, and no ``close_notify`` before it."""
    pair.fake.say("write", WANT_WRITE)
    pair.transport.write(b"a part")
    pair.transport.abort()
    pair.loop.settle()
    assert pair.state is CLOSED
    assert "unwrap" not in pair.fake.calls
    assert pair.told == ["lost"]


# Files -----------------------------------------------------------------------------------------


def test_a_file_is_read_and_encrypted_and_never_sent_by_the_kernel(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would leave in clear."""
    monkeypatch.delattr(os, "sendfile")
    with tempfile.TemporaryFile() as file:
        data = os.urandom(MOST + 1000)
        file.write(data)
        file.flush()
        send = pair.transport.send_file
        assert send(file.fileno(), 0, 1_000_000) == MOST
        pair.fake.say("write", WANT_WRITE)
        assert send(file.fileno(), MOST, 1_000_000) == 1000
        assert send(file.fileno(), 0, 1) == 0  # the client is behind
        fired = pair.transport.writable()
        pair.transport.ready(WRITE)
        assert fired.fired
        assert pair.fake.sent == data
        with pytest.raises(EOFError):
            send(file.fileno(), len(data), 1)
        pair.transport.abort()
        assert send(file.fileno(), 0, 1) == -1
