"""Blocks that come fast leave together, soon; whatever happens, in order and once.

The clock is the test's, and so is each look of the loop's.
"""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bide.exchange.totals import Total
from bide.transports.gathering import ALONE, BESIDE, MOST, SOON
from bide.transports.poller import GONE, WRITE
from bide.transports.tcp import SocketTransport
from tests.failures import Failures, same
from tests.fakes import HIGH_WATER, HandPoller, ManualLoop, Receiver, a_transport
from tests.transports.test_unsent import Client

ALL = 10**9


class Taking(Client):
    """A client that takes all, unless the test says otherwise."""

    gone = False

    def sendmsg(self, blocks: list[Any]) -> int:
        """Take all, or what the test says."""
        if self.gone:
            raise BrokenPipeError
        if not self.takes:
            self.takes = [ALL]
        return super().sendmsg(blocks)


class Fast:
    """A transport whose application makes blocks fast; as many have come as are sent alone."""

    def __init__(self, total: Total | None = None, high_water: int = HIGH_WATER) -> None:
        self.loop = ManualLoop()
        self.client = Taking()
        self.poller = HandPoller(self.loop)
        self.receiver = Receiver()
        self.transport: SocketTransport = a_transport(
            self.client, self.poller, self.receiver, high_water, total or Total(0)
        )
        self.expected = b""
        self.number = 0
        for _ in range(ALONE):
            self.make()
        same(self.client.calls, [len(b"3\r\n000\r\n")] * ALONE)

    def make(self) -> bool:
        """Make a block."""
        block = b"%03d" % self.number
        self.number += 1
        self.expected += b"3\r\n" + block + b"\r\n"
        with self.transport.lock:
            return self.transport.gather(block, b"3\r\n", b"\r\n")

    @property
    def held(self) -> int:
        """Bytes that the client has not got and that are not queued."""
        return len(self.expected) - len(self.client.got) - self.transport.queued

    def close(self) -> None:
        """Let the loop look, and end."""
        self.loop.settle()
        self.loop.advance(1)
        self.loop.close()


@pytest.fixture
def fast() -> Iterator[Fast]:
    """Return one."""
    made = Fast()
    yield made
    made.close()


def test_what_comes_fast_is_held_until_the_loop_looks(fast: Fast) -> None:
    """Soon after the first that is held; together, and asked for once."""
    for _ in range(10):
        assert fast.make()
    fast.loop.settle()
    assert (fast.held, fast.loop.timers) == (80, 1)
    fast.loop.advance(SOON)
    assert fast.client.got == fast.expected
    assert fast.client.calls[ALONE:] == [80]
    assert fast.loop.timers == 0


def test_what_comes_slowly_is_sent_at_once(fast: Fast) -> None:
    """Also behind much that came fast."""
    fast.make()
    fast.loop.settle()
    for _ in range(2 * ALONE):
        fast.loop.advance(2 * SOON)
        assert fast.make()
        assert fast.held == 0


def test_much_is_sent_without_the_loop(fast: Fast) -> None:
    """And what comes behind it is fast, too."""
    count = MOST // (3 + BESIDE) + 1
    for _ in range(count - 1):
        fast.make()
    assert fast.held == 8 * (count - 1)
    fast.make()
    assert fast.held == 0
    assert fast.client.calls[ALONE:] == [8 * count]
    fast.make()
    assert fast.held == 8


def test_nothing_is_held_on_a_thread_that_runs_an_event_loop(fast: Fast) -> None:
    """It is the one that would have to look, and the application may keep it."""
    seen: list[int] = []

    def make() -> None:
        for _ in range(3):
            fast.make()
            seen.append(fast.held)

    fast.loop.call_soon(make)
    fast.loop.settle()
    assert seen == [0, 0, 0]


def test_what_is_held_is_neither_queued_nor_counted(fast: Fast) -> None:
    """It is on its way: nobody waits for the client, whose time does not begin."""
    fast.make()
    assert fast.held == 8
    assert (fast.transport.queued, fast.transport.behind, fast.transport.room()) == (0, False, None)
    assert fast.transport.queue.total.used == 0


def test_no_more_is_held_than_may_be_unsent() -> None:
    """Neither for one client, nor, at the bound, for all of them."""
    small = Fast(high_water=2 * (3 + BESIDE))
    small.make()
    assert small.held == 8
    small.make()
    assert small.held == 0
    small.close()
    total = Total(1000)
    full = Fast(total)
    total.add(1000)
    full.make()
    assert full.held == 0
    full.close()


def write(fast: Fast) -> None:
    fast.expected += b"large"
    assert fast.transport.write(b"la", b"rge")


def flush(fast: Fast) -> None:
    assert fast.transport.flush()


def close(fast: Fast) -> None:
    fast.transport.close()


def linger(fast: Fast) -> None:
    fast.transport.close(linger=True)


def look(fast: Fast) -> None:
    fast.loop.advance(2 * SOON)


def fill(fast: Fast) -> None:
    for _ in range(MOST // (3 + BESIDE) + 1):
        fast.make()
    flush(fast)


SENDING: list[Callable[[Fast], None]] = [write, flush, close, linger, look, fill]


def test_whatever_sends_sends_what_is_held_first() -> None:
    """In order, and once: also where the loop looks before it, or behind it."""
    with Failures() as failures:
        for steps in itertools.product([*SENDING, None], SENDING, [look, None]):
            names = ", ".join("-" if each is None else each.__name__ for each in steps)
            with failures.of(names):
                fast = Fast()
                for step in steps:
                    if fast.transport.state == "open":
                        fast.make()
                        fast.make()
                    if step is not None and fast.transport.state == "open":
                        step(fast)
                fast.transport.close()
                fast.loop.advance(1)
                same(fast.client.got, fast.expected)
                fast.close()


def test_what_the_client_does_not_take_is_queued_wherever_it_stops() -> None:
    """At each byte; and nothing is held behind it."""
    with Failures() as failures:
        for taken in range(3 * 8 + 1):
            with failures.of(taken):
                fast = Fast()
                for _ in range(3):
                    fast.make()
                fast.client.takes = [taken]
                fast.transport.flush()
                same(fast.transport.queued, 3 * 8 - taken)
                same(fast.transport.queue.total.used, 3 * 8 - taken)
                fast.make()
                same(fast.held, 0 if taken < 3 * 8 else 8)
                fast.client.takes = [1, 2, 3]
                fast.loop.settle()
                fast.loop.advance(SOON)
                while fast.transport.queued:
                    fast.transport.ready(WRITE)
                fast.close()
                same(fast.client.got, fast.expected)


@pytest.mark.parametrize("how", ["sent to", "lost", "reset"])
def test_a_client_that_is_gone_gets_nothing_of_what_is_held(fast: Fast, how: str) -> None:
    """The next block is refused, and the end is told once."""
    fast.make()
    if how == "sent to":
        fast.client.gone = True
        assert not fast.transport.flush()
    elif how == "lost":
        fast.transport.ready(GONE)
    else:
        fast.transport.abort()
    assert not fast.make()
    fast.loop.settle()
    fast.loop.advance(1)
    assert fast.receiver.told == ["lost"]
    assert len(fast.client.got) == 8 * ALONE


def test_a_file_is_sent_behind_what_is_held() -> None:
    """The file goes past the queue, straight from the kernel."""
    server, client = socket.socketpair()
    server.setblocking(False)
    loop = ManualLoop()
    made = a_transport(server, HandPoller(loop), Receiver())
    with tempfile.TemporaryFile() as file, made.lock:
        file.write(b"file")
        file.flush()
        for _ in range(ALONE + 3):
            made.gather(b"a")
        assert made.send_file(file.fileno(), 0, 4) == 4
        assert client.recv(100) == b"a" * (ALONE + 3) + b"file"
    made.ready(GONE)
    loop.advance(1)
    loop.close()
    client.close()


@pytest.mark.parametrize("order", ["look first", "block first"])
def test_the_loop_looks_while_a_block_comes(fast: Fast, order: str) -> None:
    """Either the look sends what is held, and the block begins anew; or it takes the block too."""
    fast.make()
    fast.loop.settle()
    if order == "look first":
        fast.loop.advance(SOON)
        fast.make()
        assert fast.held == 8
        fast.loop.advance(0)
        assert fast.loop.timers == 1  # it was asked for once more
    else:
        fast.make()
    fast.loop.advance(SOON)
    assert fast.client.got == fast.expected


def test_many_threads_gather_and_write_whole_blocks() -> None:
    """In whatever order: each block of a thread behind its last, whole."""
    server, client = socket.socketpair()
    server.setblocking(False)
    loop = ManualLoop()
    made = a_transport(server, HandPoller(loop), Receiver())
    count = 300

    def run(letter: int) -> None:
        for number in range(count):
            block = b"%c%03d" % (letter, number)
            with made.lock:
                made.gather(block) if number % 50 else made.write(block)

    threads = [threading.Thread(target=run, args=[65 + each]) for each in range(4)]
    for thread in threads:
        thread.start()
    data = b""
    while len(data) < 4 * 4 * count:
        loop.advance(SOON)
        made.ready(WRITE)
        try:
            data += client.recv(1000, socket.MSG_DONTWAIT)
        except BlockingIOError:
            os.sched_yield()
    for thread in threads:
        thread.join()
    blocks = [data[at : at + 4] for at in range(0, len(data), 4)]
    for letter in b"ABCD":
        own = [int(block[1:]) for block in blocks if block[0] == letter]
        assert own == list(range(count))
    made.ready(GONE)
    loop.advance(1)
    loop.close()
    client.close()
