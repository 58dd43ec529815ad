"""The proxy that makes other tests' faults: each strikes where it is said to, and nowhere else."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.fault_proxy import Fault, FaultProxy
from tests.served import DEADLINE, until

WAYS = pytest.mark.parametrize("way", ["up", "down"])


class Ends:
    """Both ends of a connection through a proxy, the sending one and the receiving one."""

    def __init__(self, opened: ExitStack, way: str, fault: Fault | None = None) -> None:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(DEADLINE)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        up, down = (fault, None) if way == "up" else (None, fault)
        self.proxy = FaultProxy(address, up, down)
        opened.callback(self.proxy.close)
        host, _, port = self.proxy.address.rpartition(":")
        client = opened.enter_context(socket.create_connection((host, int(port))))
        server = opened.enter_context(listener.accept()[0])
        for each in (client, server):
            each.settimeout(DEADLINE)
        self.source, self.target = (client, server) if way == "up" else (server, client)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Return what closes a test's sockets and proxies with it."""
    with ExitStack() as opened:
        yield opened


def read(sock: socket.socket, size: int) -> bytes:
    """Read so many bytes; fewer at the end."""
    data = b""
    while len(data) < size and (block := sock.recv(size - len(data))):
        data += block
    return data


def ending(sock: socket.socket) -> str:
    """Read to the end; say how it came."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"


def silent(sock: socket.socket) -> bool:
    """Return whether neither bytes nor the end have come."""
    return not select.select([sock], [], [], 0)[0]


def round_trip(ends: Ends) -> None:
    """Have a byte go the other way, and be sure that the proxy has had its turn."""
    ends.target.sendall(b"?")
    assert read(ends.source, 1) == b"?"


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more for a while; give the bytes."""
    sent = 0
    while select.select([], [sock], [], 0.2)[1]:
        sent += sock.send(b"x" * 65536)
    return sent


@WAYS
def test_all_passes_where_no_fault_is_asked_for(opened: ExitStack, way: str) -> None:
    """Bytes, and a half-closed side as one; the other side goes on."""
    ends = Ends(opened, way)
    data = os.urandom(300_000)
    sender = threading.Thread(target=ends.source.sendall, args=(data,))
    sender.start()
    assert read(ends.target, len(data)) == data
    sender.join()
    ends.source.shutdown(socket.SHUT_WR)
    assert ending(ends.target) == "end"
    round_trip(ends)
    ends.target.close()
    assert ending(ends.source) == "end"


@WAYS
def test_a_delay_takes_what_comes_and_keeps_it_until_the_release(
    opened: ExitStack, way: str
) -> None:
    """The sender notices nothing: more than any kernel holds is taken from it."""
    ends = Ends(opened, way, Fault("delay", after=4))
    data = os.urandom(20_000_000)
    ends.source.sendall(data)
    ends.source.shutdown(socket.SHUT_WR)
    assert read(ends.target, 4) == data[:4]
    round_trip(ends)
    assert silent(ends.target)
    ends.proxy.release()
    assert read(ends.target, len(data)) == data[4:]
    assert ending(ends.target) == "end"


@WAYS
def test_a_stalled_reader_takes_nothing_until_the_release(opened: ExitStack, way: str) -> None:
    """The sender is held up by the kernel's buffers, and then goes on."""
    ends = Ends(opened, way, Fault("stall", after=4))
    sent = fill(ends.source)
    assert read(ends.target, 4) == b"xxxx"
    round_trip(ends)
    assert silent(ends.target)
    ends.proxy.release()
    assert len(read(ends.target, sent - 4)) == sent - 4
    round_trip(ends)


@WAYS
def test_a_drip_passes_so_many_bytes_in_a_turn(opened: ExitStack, way: str) -> None:
    """Here the second turn is an hour away, and comes with the release."""
    ends = Ends(opened, way, Fault("drip", after=2, size=3, pause=3600))
    ends.source.sendall(b"0123456789")
    ends.source.shutdown(socket.SHUT_WR)
    assert read(ends.target, 5) == b"01234"
    round_trip(ends)
    assert silent(ends.target)
    ends.proxy.release()
    assert read(ends.target, 6) == b"56789"
    assert ending(ends.target) == "end"


@WAYS
def test_a_drip_passes_all_in_its_turns(opened: ExitStack, way: str) -> None:
    """In order, and the end behind it."""
    ends = Ends(opened, way, Fault("drip", size=7))
    data = os.urandom(1000)
    ends.source.sendall(data)
    ends.source.shutdown(socket.SHUT_WR)
    assert read(ends.target, 2000) == data


@WAYS
@pytest.mark.parametrize(("kind", "end"), [("cut", "end"), ("reset", "reset")])
def test_both_sides_end_after_exactly_so_many_bytes(
    opened: ExitStack, way: str, kind: str, end: str
) -> None:
    """A FIN and no RST behind it, or a RST; also where more was sent that nobody has taken."""
    ends = Ends(opened, way, Fault(kind, after=4))  # type: ignore[arg-type]
    ends.source.sendall(b"0123456789")
    assert read(ends.target, 4) == b"0123"
    assert ending(ends.target) == end
    assert ending(ends.source) == end
    ends.proxy.close()
    assert ends.source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@WAYS
def test_a_half_close_ends_one_direction_after_exactly_so_many_bytes(
    opened: ExitStack, way: str
) -> None:
    """The other direction goes on."""
    ends = Ends(opened, way, Fault("half_close", after=4))
    ends.source.sendall(b"0123456789")
    assert read(ends.target, 6) == b"0123"
    round_trip(ends)


@pytest.mark.parametrize(
    ("call", "source", "target"),
    [("cut", "end", "end"), ("reset", "reset", "reset"), ("half_close", "open", "end")],
)
def test_a_fault_strikes_when_the_test_calls_for_it(
    opened: ExitStack, call: str, source: str, target: str
) -> None:
    """Whatever has passed."""
    ends = Ends(opened, "up")
    ends.source.sendall(b"01")
    assert read(ends.target, 2) == b"01"
    getattr(ends.proxy, call)()
    assert ending(ends.target) == target
    if source == "open":
        round_trip(ends)
    else:
        assert ending(ends.source) == source


@WAYS
def test_a_reset_of_one_side_resets_the_other(opened: ExitStack, way: str) -> None:
    """The proxy hides nothing of what it was not asked to."""
    ends = Ends(opened, way)
    ends.source.sendall(b"01")
    assert read(ends.target, 2) == b"01"
    ends.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    ends.source.close()
    assert ending(ends.target) == "reset"


def test_a_client_of_a_server_that_does_not_listen_is_reset(opened: ExitStack) -> None:
    """As near as a proxy can come to a refusal."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    proxy = opened.enter_context(FaultProxy(address))
    host, _, port = proxy.address.rpartition(":")
    client = opened.enter_context(socket.create_connection((host, int(port))))
    client.settimeout(DEADLINE)
    assert ending(client) == "reset"


@pytest.mark.parametrize("kind", ["delay", "stall", "drip", "half_close"])
def test_nothing_of_the_proxy_is_left_when_it_is_closed(kind: str) -> None:
    """In the midst of its faults: no thread, no descriptor, and each side told."""
    before = len(os.listdir("/proc/self/fd"))
    with ExitStack() as opened:
        ends = Ends(opened, "up", Fault(kind, after=1, pause=3600))  # type: ignore[arg-type]
        ends.source.sendall(b"0123456789")
        assert read(ends.target, 1) == b"0"
        ends.proxy.close()
        assert ending(ends.source) == "end"
        assert ending(ends.target) == "end"
    assert not [each for each in threading.enumerate() if each.name == "fault-proxy"]
    until(lambda: len(os.listdir("/proc/self/fd")) == before)
