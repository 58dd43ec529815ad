"""A socket is ended so that its client learns it, though a forked child has the descriptor too.

A copy of the descriptor is what a child has; so no test needs to fork.
"""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from bide.transports import closing
from bide.transports.closing import end, prepare_reset, reset
from tests.fakes import HandPoller, ManualLoop, Receiver, a_transport

TIMEOUT = 20.0


class Copied:
    """Both ends of a connection, the server's with a copy, as after a fork."""

    def __init__(self, server: socket.socket, client: socket.socket) -> None:
        self.server = server
        self.client = client
        self._copy = os.dup(server.fileno())
        client.settimeout(TIMEOUT)

    def close(self) -> None:
        """Clean up."""
        os.close(self._copy)
        self.client.close()
        self.server.close()


def tcp() -> tuple[socket.socket, socket.socket]:
    """Connect over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


@pytest.fixture(params=["tcp", "unix"])
def copied(request: pytest.FixtureRequest) -> Iterator[Copied]:
    """Return a connection of each kind."""
    copied = Copied(*(tcp() if request.param == "tcp" else socket.socketpair()))
    yield copied
    copied.close()


def test_a_client_reads_to_the_end_while_a_child_has_the_descriptor(copied: Copied) -> None:
    """The end comes by shutdown: a close alone would send nothing."""
    copied.server.send(b"all of it")
    end(copied.server)
    assert copied.client.recv(100) == b"all of it"
    assert copied.client.recv(100) == b""
    assert copied.server.fileno() == -1


def test_a_client_that_has_gone_is_no_error(copied: Copied) -> None:
    """It reset the connection, for instance."""
    copied.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    copied.client.close()
    end(copied.server)
    assert copied.server.fileno() == -1


def test_a_reset_reaches_the_client_while_a_child_has_the_descriptor(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not take what it has for all; a Unix socket knows only its end."""
    monkeypatch.setattr(closing.forks, "any", True)
    unix = copied.server.family == socket.AF_UNIX
    prepare_reset(copied.server)
    reset(copied.server)
    if unix:
        assert copied.client.recv(100) == b""
    else:
        with pytest.raises(ConnectionResetError):
            copied.client.recv(100)


def test_a_reset_needs_no_more_than_a_close_where_nothing_was_forked() -> None:
    """The descriptor is the only one."""
    server, client = tcp()
    with client:
        client.settimeout(TIMEOUT)
        prepare_reset(server)
        reset(server)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_a_fork_is_noted() -> None:
    """In the parent, which has the connections."""
    before, closing.forks.any = closing.forks.any, False
    try:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        assert closing.forks.any
    finally:
        closing.forks.any = before or closing.forks.any


@pytest.mark.parametrize("aborted", [False, True], ids=["closed", "aborted"])
def test_a_transport_tells_its_client_the_end(
    copied: Copied, monkeypatch: pytest.MonkeyPatch, aborted: bool
) -> None:
    """By close and by abort, each in its way."""
    monkeypatch.setattr(closing.forks, "any", True)
    loop = ManualLoop()
    copied.server.setblocking(False)
    tcp = copied.server.family != socket.AF_UNIX
    receiver = Receiver()
    transport = a_transport(copied.server, HandPoller(loop), receiver)
    if aborted:
        transport.abort()
    else:
        transport.close()
    loop.settle()
    loop.close()
    assert receiver.told == ["lost"]
    if aborted and tcp:
        with pytest.raises(ConnectionResetError):
            copied.client.recv(100)
    else:
        assert copied.client.recv(100) == b""
