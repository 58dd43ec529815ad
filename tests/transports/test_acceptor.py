"""When connections are accepted: limits, exhausted descriptors, and how it goes on after them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bide.transports.acceptor import Acceptor, Name
from bide.transports.addresses import Address
from tests.conftest import Serve
from tests.served import DEADLINE, Log, answering


class Accepting:
    """An acceptor on a loop that turns when the test says so."""

    def __init__(self, limit: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.accepted: list[socket.socket] = []
        self.acceptor = Acceptor(self._accept, limit, pause=3600.0)
        self.acceptor.open([Address("127.0.0.1", 0)], backlog=10)
        self.acceptor.start(self.loop)
        self.clients: list[socket.socket] = []

    def _accept(self, sock: socket.socket, server: Any, client: Any) -> None:
        self.accepted.append(sock)

    def connect(self, number: int = 1) -> None:
        """Connect, as far as the backlog goes, and turn the loop."""
        host, _, port = self.acceptor.addresses[0].partition(":")
        for _ in range(number):
            self.clients.append(socket.create_connection((host, int(port)), DEADLINE))
        self.turn()

    def turn(self) -> None:
        """Run the loop for a few turns."""
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def end_pause(self) -> None:
        """End the pause, as if its time had passed."""
        pause = self.acceptor._resumption
        assert pause is not None
        pause.cancel()
        self.acceptor._watch()
        self.turn()

    def close(self) -> None:
        """Clean up."""
        self.acceptor.close()
        for each in [*self.accepted, *self.clients]:
            each.close()
        self.loop.close()


@pytest.fixture
def accepting() -> Iterator[Accepting]:
    """Return an acceptor with room for two; the test ends its pauses."""
    accepting = Accepting(2)
    yield accepting
    accepting.close()


def test_acceptor_leaves_in_the_backlog_what_it_has_no_room_for(
    accepting: Accepting, log: Log
) -> None:
    """And takes it when another connection ends: each time one."""
    accepting.connect(5)
    assert len(accepting.accepted) == 2
    assert accepting.acceptor.crowded
    for taken in (3, 4, 5):
        accepting.acceptor.left()
        accepting.turn()
        assert len(accepting.accepted) == taken
    record = log.take("all 2 connections are in use")
    assert record.levelname == "ERROR"  # and no other line: the fixture looks


def test_acceptor_is_not_crowded_when_there_is_room_again(accepting: Accepting, log: Log) -> None:
    """Then idle connections have their usual time."""
    accepting.connect(3)
    log.take("all 2 connections are in use")
    for _ in range(2):
        accepting.acceptor.left()
    accepting.turn()
    assert len(accepting.accepted) == 3
    assert not accepting.acceptor.crowded


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_acceptor_pauses_when_the_system_has_nothing_left(
    accepting: Accepting, log: Log, number: int
) -> None:
    """The listener stays readable: without a pause the loop would spin. One line tells of it."""
    real = next(iter(accepting.acceptor._listeners))
    failing = Failing(real, number)
    accepting.acceptor._listeners = {failing: ("127.0.0.1", "0")}  # type: ignore[dict-item]
    accepting.acceptor._unwatch()
    accepting.acceptor._watch()
    accepting.connect(1)
    assert failing.tries == 1
    assert accepting.acceptor.crowded
    log.take("no connections can be accepted for now")
    accepting.end_pause()
    assert failing.tries == 2  # it has tried again, once, and without a second line
    failing.number = 0
    accepting.end_pause()
    assert len(accepting.accepted) == 1
    assert not accepting.acceptor.crowded


class Failing:
    """A listener whose ``accept`` fails with an error, until that is 0."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real = real
        self.number = number
        self.tries = 0

    def accept(self) -> Any:
        """Fail, or accept."""
        self.tries += 1
        if self.number:
            raise OSError(self.number, "nothing left")
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_acceptor_accepts_what_waits_before_it_is_closed(accepting: Accepting) -> None:
    """Closing the listener would reset it."""
    accepting.connect(1)
    host, _, port = accepting.acceptor.addresses[0].partition(":")
    accepting.clients.append(socket.create_connection((host, int(port)), DEADLINE))
    assert len(accepting.accepted) == 1
    assert accepting.acceptor.accept_waiting()
    assert len(accepting.accepted) == 2


def test_acceptor_says_when_the_system_has_nothing_left_for_what_waits(
    accepting: Accepting,
) -> None:
    """Then the caller lets others end, and asks again; nothing is lost meanwhile."""
    host, _, port = accepting.acceptor.addresses[0].partition(":")
    accepting.clients.append(socket.create_connection((host, int(port)), DEADLINE))
    real = next(iter(accepting.acceptor._listeners))
    failing = Failing(real, errno.EMFILE)
    accepting.acceptor._listeners = {failing: ("127.0.0.1", "0")}  # type: ignore[dict-item]
    assert not accepting.acceptor.accept_waiting()
    failing.number = 0
    assert accepting.acceptor.accept_waiting()
    assert len(accepting.accepted) == 1


def test_acceptor_that_is_closed_is_not_woken_by_its_pause(accepting: Accepting, log: Log) -> None:
    """Its listeners are closed."""
    accepting.acceptor._fail(OSError(errno.EMFILE, "nothing left"))
    log.take("no connections can be accepted for now")
    pause = accepting.acceptor._resumption
    assert pause is not None
    accepting.acceptor.close()
    assert pause.cancelled()


def test_acceptor_reports_another_error_and_goes_on(accepting: Accepting, log: Log) -> None:
    """It belongs to one connection, not to the listener."""
    accepting.acceptor._fail(OSError(errno.EPERM, "a firewall's word"))
    log.take("accept failed")
    accepting.connect(1)
    assert len(accepting.accepted) == 1


def test_acceptor_serves_on_sockets_that_it_is_given(tmp_path: Path, log: Log) -> None:
    """And leaves the path of a Unix socket that it has not made."""
    path = tmp_path / "given.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    loop = asyncio.new_event_loop()
    accepted = []
    acceptor = Acceptor(lambda sock, server, client: accepted.append(sock), 10)
    acceptor.adopt([listener])
    acceptor.start(loop)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
    acceptor.close()
    loop.close()
    assert len(accepted) == 1
    accepted[0].close()
    assert path.exists()
    assert listener.fileno() == -1


def test_a_client_of_ipv4_has_its_own_address_on_a_socket_for_both() -> None:
    """Such as systemd opens for a port alone."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    loop = asyncio.new_event_loop()
    hosts: list[str] = []

    def accepted(sock: socket.socket, _: Name, client: Name) -> None:
        assert client is not None
        hosts.append(client[0])
        sock.close()

    acceptor = Acceptor(accepted, 10)
    acceptor.adopt([listener])
    acceptor.start(loop)
    port = listener.getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port)):
            for _ in range(3):
                loop.run_until_complete(asyncio.sleep(0))
    acceptor.close()
    loop.close()
    assert hosts == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("seconds", "interval"), [(60, 10), (2, 1), (0, None), (10**6, 5461)])
def test_connections_are_asked_for_when_they_are_silent(
    seconds: int, interval: int | None, given: bool
) -> None:
    """Each inherits its listener's times; 0: nobody is. A client may vanish without a word."""
    accepting = Accepting(2)
    accepting.acceptor.close()
    accepting.acceptor = Acceptor(accepting._accept, 2, seconds)
    if given:
        listener = socket.create_server(("127.0.0.1", 0))
        accepting.acceptor.adopt([listener])
    else:
        accepting.acceptor.open([Address("127.0.0.1", 0)], backlog=10)
    accepting.acceptor.start(accepting.loop)
    accepting.connect()
    (sock,) = accepting.accepted
    assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is bool(seconds)
    if interval is not None:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        values = [sock.getsockopt(socket.IPPROTO_TCP, each) for each in options]
        assert values == [min(seconds, 32767), interval, 3]
    accepting.close()


def test_a_server_has_its_clients_asked(serve: Serve) -> None:
    """By its setting; a client on a Unix socket cannot vanish."""
    served = serve(answering(lambda environ: b"x"), tcp_keepalive=30)
    served.request().response()
    (connection,) = served.connections
    sock = connection._transport.socket
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


def test_a_unix_socket_s_clients_are_not_asked(tmp_path: Path) -> None:
    """The system knows their ends."""
    acceptor = Acceptor(lambda sock, server, client: None, 2, 60)
    acceptor.open([Address(path=str(tmp_path / "s"))], backlog=1)
    acceptor._loop = asyncio.new_event_loop()
    (listener,) = acceptor._listeners
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    acceptor._loop.close()
    acceptor.close()
