"""The sockets that a supervisor keeps for its workers."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bide
from bide import Settings
from bide.errors import BindError
from bide.process.listeners import SHARED, Listeners
from tests.failures import same


@pytest.fixture
def opened() -> Any:
    """Return what opens the sockets of some settings, which are closed after the test."""
    found = []

    def opening(*bind: str) -> Listeners:
        found.append(Listeners(Settings(bind=bind)))
        found[-1].open()
        return found[-1]

    yield opening
    for each in found:
        each.close()


Opened = Callable[..., Listeners]


def test_clients_are_shared_out_among_the_slots(opened: Opened) -> None:
    """Each slot has a socket of its own on the same port."""
    listeners = opened("127.0.0.1:0")
    listeners.of(3)
    host, _, port = listeners.addresses[0].partition(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(200)]
    counts = []
    for slot in range(4):
        (listener,) = listeners.of(slot)
        counts.append(0)
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            counts[-1] += 1
    for each in clients:
        each.close()
    same(sum(counts), 200)
    assert min(counts) > 10, counts


def test_a_port_of_another_server_is_not_joined(opened: Opened) -> None:
    """Though both would share it: a second start by mistake is told so."""
    address = opened("127.0.0.1:0").addresses[0]
    with pytest.raises(BindError, match="it is in use"):
        opened(address)


def test_a_unix_socket_is_shared_and_its_file_removed_at_the_end(
    opened: Opened, tmp_path: Path
) -> None:
    """But not where another process goes on with it."""
    path = tmp_path / "bide.sock"
    listeners = opened(f"unix:{path}", "127.0.0.1:0")
    same([len(listeners.of(each)) for each in (SHARED, 0, 5)], [1, 1, 1])
    listeners.close_here()
    assert path.exists()
    listeners = opened(f"unix:{path}")
    listeners.close()
    assert not path.exists()


def test_a_new_version_takes_over_all_of_them(opened: Opened, tmp_path: Path) -> None:
    """By what the old one says of its descriptors."""
    path = tmp_path / "bide.sock"
    old = opened(f"unix:{path}", "127.0.0.1:0")
    old.of(2)
    descriptors, told = old.inheritable()
    assert len(descriptors) == 4
    new = Listeners(Settings())
    new.inherit(
        {
            **told,
            "slots": [[duplicate(each) for each in slot] for slot in told["slots"]],
            "shared": [duplicate(each) for each in told["shared"]],
        }
    )
    same(new.addresses, old.addresses)
    same(new.slots, 3)
    old.close_here()
    assert path.exists()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    new.close()
    assert not path.exists()


def duplicate(descriptor: int) -> int:
    """Return a second descriptor of a socket, as an inherited one is."""
    with socket.socket(fileno=descriptor) as sock:
        copy = sock.dup()
        sock.detach()
        return copy.detach()


def test_bide_run_is_refused_with_workers() -> None:
    """The application is there already, in one process."""
    with pytest.raises(bide.StartError, match="serves in this process"):
        bide.run(lambda environ, start: [b""], workers="2")
