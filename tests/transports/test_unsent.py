"""What waits for a client: the very objects, sent in pieces, and counted for all together."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bide.exchange.totals import Total
from bide.exchange.unsent import PIECE, SMALL, Unsent
from bide.transports.poller import GONE, WRITE
from bide.transports.tcp import SocketTransport
from tests.failures import Failures, same
from tests.fakes import HIGH_WATER, HandPoller, ManualLoop, Receiver, a_transport

LARGE = 4 * 1024 * 1024
LOOPS: list[ManualLoop] = []


def manual_loop() -> ManualLoop:
    """Make a loop that is closed with the test."""
    LOOPS.append(ManualLoop())
    return LOOPS[-1]


@pytest.fixture(autouse=True)
def closed_loops() -> Iterator[None]:
    """Close the loops at the end."""
    yield
    while LOOPS:
        LOOPS.pop().close()


class Client:
    """A socket whose client takes as much as the test says, at each call."""

    family = socket.AF_INET

    def __init__(self, *takes: int) -> None:
        self.takes = list(takes)
        self.calls: list[int] = []
        self.got = b""

    def send(self, data: Any) -> int:
        """Take some."""
        return self.sendmsg([data])

    def sendmsg(self, blocks: list[Any]) -> int:
        """Take some of several blocks."""
        data = b"".join(bytes(each) for each in blocks)
        self.calls.append(len(data))
        if not self.takes:
            raise BlockingIOError
        size = min(self.takes.pop(0), len(data))
        self.got += data[:size]
        return size

    def shutdown(self, how: int) -> None:
        """End it."""

    def fileno(self) -> int:
        """Any."""
        return 5

    def setsockopt(self, *_: object) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def transport(client: Client, total: Total, high_water: int = HIGH_WATER) -> SocketTransport:
    return a_transport(client, HandPoller(manual_loop()), Receiver(), high_water, total)


def objects(made: SocketTransport) -> list[object]:
    """Return the objects that a queue refers to."""
    blocks = made.queue._blocks or ()
    return [each.obj if isinstance(each, memoryview) else each for each in blocks]


def test_a_large_block_is_queued_by_reference() -> None:
    """For as many clients as there are: one object, which nobody copies."""
    block = b"x" * LARGE
    total = Total(0)
    clients = [transport(Client(1000), total) for _ in range(60)]
    for each in clients:
        assert each.write(block)
        assert each.queued == LARGE - 1000
        (held,) = objects(each)
        assert held is block
    assert total.used == 60 * (LARGE - 1000)


def test_a_large_block_stays_itself_between_its_head_and_its_end() -> None:
    """What stands before and behind it is queued beside it."""
    head, block, end = b"head", bytes(range(256)) * 4000, b"\r\n"
    client = Client(10)
    made = transport(client, Total(0))
    made.write(head, block, end)
    assert objects(made)[0] is block
    assert objects(made)[1] is end
    client.takes = [10**9] * 1000
    while made.queued:
        made.ready(WRITE)
    assert client.got == head + block + end


@pytest.mark.parametrize("blocks", [(b"x" * LARGE,), (b"head", b"x" * LARGE, b"\r\n")])
def test_the_system_is_handed_a_piece_at_a_time(blocks: tuple[bytes, ...]) -> None:
    """Also where it would take all: others wait for the lock, and for the loop, meanwhile."""
    client = Client(*[10**9] * 1000)
    made = transport(client, Total(0))
    made.write(*blocks)
    assert client.calls == [PIECE]
    turns = 0
    while made.queued:
        before = sum(client.calls)
        made.ready(WRITE)
        assert sum(client.calls) - before <= PIECE
        turns += 1
    assert turns >= LARGE // PIECE - 1
    assert client.got == b"".join(blocks)


SHORT = [b"h", b"block", b"", b"\r\n", b"3\r\n", b"abc", b"\r\n"]
LONG = [b"h" * 5, b"b" * SMALL, b"\r\n", b"c" * SMALL, b"d" * (SMALL - 1), b"e"]


def splits(blocks: list[bytes]) -> list[int]:
    """Return how much a client may take at once: around each edge of a block, and of the whole."""
    edges = [0, *itertools.accumulate(map(len, blocks))]
    return sorted({size for edge in edges for size in range(edge - 1, edge + 2) if size >= 0})


@pytest.mark.parametrize("blocks", [SHORT, LONG], ids=["joined", "side by side"])
def test_blocks_go_out_in_order_wherever_the_client_stops(blocks: list[bytes]) -> None:
    """At each edge between two blocks and in them; as one write, and as one write for each."""
    whole = b"".join(blocks)
    with Failures() as failures:
        for first, second, together in itertools.product(
            splits(blocks), splits(blocks), (True, False)
        ):
            with failures.of(f"{first}, then {second}, in one write: {together}"):
                total = Total(0)
                client = Client(first)
                made = transport(client, total)
                for each in [blocks] if together else [[block] for block in blocks]:
                    assert made.write(*each)
                    same(total.used, made.queued)
                client.takes += [second] + [len(whole)] * len(blocks)
                while made.queued:
                    made.ready(WRITE)
                    same(total.used, made.queued)
                same(client.got == whole, True)
                same(objects(made), [])


def test_many_small_blocks_go_out_together() -> None:
    """Also beside a large one, which stays as it is."""
    client = Client()
    made = transport(client, Total(0))
    blocks = [b"%d," % number for number in range(1000)]
    large = b"x" * SMALL
    for block in [*blocks, large, *blocks]:
        made.write(block)
    client.takes = [1000] * 100
    made.ready(WRITE)
    assert objects(made)[1] is large
    while made.queued:
        made.ready(WRITE)
    assert client.got == b"".join(blocks) + large + b"".join(blocks)
    assert len(client.calls) < 20 + len(client.got) // 1000


def test_a_block_after_which_the_application_would_wait_is_tried_at_once() -> None:
    """The client may have caught up, and the loop not know it. Before that nobody asks."""
    client = Client()
    made = transport(client, Total(0))
    made.write(b"x" * (HIGH_WATER - 1))
    client.takes = [10**9] * 10
    assert made.write(b"")
    assert (client.got, made.queued) == (b"", HIGH_WATER - 1)
    made.write(b"y")
    assert (client.got, made.queued) == (b"x" * (HIGH_WATER - 1) + b"y", 0)
    assert made.room() is None
    made.ready(WRITE)  # the loop comes for what it was asked to send
    assert made.write(b"more")


def test_what_ends_a_connection_gives_back_what_it_held() -> None:
    """Each way once: the reset, the loss, the loss after a reset."""
    total = Total(0)
    for end in ("abort", "lost", "both"):
        made = transport(Client(), total)
        made.write(b"x" * 1000)
        assert total.used == 1000
        if end != "lost":
            made.abort()
            assert total.used == 0
        if end != "abort":
            made.ready(GONE)
        assert (total.used, made.queued) == (0, 0)


def test_at_the_bound_each_waits_until_its_own_client_has_taken_all() -> None:
    """Whatever is queued is too much then, and a quarter of the high water is not room."""
    total = Total(50_000)
    other = transport(Client(), total)
    other.write(b"x" * 49_999)
    client = Client()
    made = transport(client, total, high_water=8000)
    made.write(b"x" * 1000)
    room = made.room()
    assert room is not None
    fired = []
    for size in (999, 1):
        client.takes = [size]
        made.ready(WRITE)
        fired.append(room.fired)
    assert fired == [False, True]
    assert made.room() is None
    assert other.room() is None  # below the bound, and below its high water


def test_below_the_bound_again_each_has_its_high_water() -> None:
    """It needs no word of the others for that: its own client goes on, or nothing does."""
    total = Total(50_000)
    other = transport(Client(), total)
    other.write(b"x" * 49_000)
    client = Client()
    made = transport(client, total, high_water=8000)
    made.write(b"x" * 1000)
    room = made.room()
    assert room is not None
    other.end()
    assert made.room() is None
    client.takes = [1]
    made.ready(WRITE)
    assert room.fired


def test_a_response_alone_that_is_larger_than_the_bound_goes_on() -> None:
    """It waits for nobody but its own client."""
    total = Total(1000)
    client = Client()
    made = transport(client, total)
    for _ in range(3):
        assert made.room() is None
        made.write(b"x" * 100_000)
        room = made.room()
        assert room is not None
        client.takes = [60_000, 50_000]
        fired = []
        for _ in range(2):
            made.ready(WRITE)
            fired.append(room.fired)
        assert fired == [False, True]
    assert client.got == b"x" * 300_000
    assert total.used == 0


def test_a_queue_of_an_idle_connection_takes_no_memory() -> None:
    """There are thousands of them, and a deque takes 600 bytes."""
    assert Unsent(HIGH_WATER, Total(0))._blocks is None


def test_a_real_socket_takes_head_and_block_together() -> None:
    """One packet for a head and the beginning of its block."""
    server, client = socket.socketpair()
    server.setblocking(False)
    made = a_transport(server, HandPoller(manual_loop()), Receiver())
    made.write(b"head", b"x" * 20_000, b"end")
    assert client.recv(100_000) == b"head" + b"x" * 20_000 + b"end"
    made.ready(GONE)
    client.close()
