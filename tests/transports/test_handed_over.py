"""Sockets that were handed over: whose they are, what becomes of them, and what is not taken."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bide.errors import StartError
from bide.transports import handed_over as module
from bide.transports.acceptor import Acceptor
from bide.transports.addresses import parse_address
from bide.transports.handed_over import OWN, HandedOver, for_child, take_over
from tests.served import until


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Return a list whose sockets are closed at the end."""
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def copies(sockets: list[socket.socket], first: int = 200) -> int:
    """Give sockets descriptors in a row, as systemd does from 3 on; return the first."""
    for number, sock in enumerate(sockets, first):
        os.dup2(sock.fileno(), number, inheritable=True)
    return first


def open_acceptor(addresses: list[str], handed_over: HandedOver) -> Acceptor:
    acceptor = Acceptor(lambda *_: None, 10)
    acceptor.open([parse_address(each) for each in addresses], 16, handed_over=handed_over)
    return acceptor


def test_sockets_of_systemd_are_taken_over_once(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their names; no child takes them for its own, by a variable or by a descriptor."""
    opened += [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    monkeypatch.setattr(module, "FIRST", copies(opened))
    told = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": f"{OWN}:web"}
    environ = told | {"PATH": "/bin"}
    taken = take_over(environ)
    assert environ == {"PATH": "/bin"}
    assert list(take_over(environ).take_rest()) == []
    assert not os.get_inheritable(200)
    (left,) = taken.take_rest()  # Bide's own, of an earlier configuration, is closed
    opened.append(left)
    assert left.getsockname() == opened[1].getsockname()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(200)


def test_what_is_another_process_s_is_not_taken(opened: list[socket.socket]) -> None:
    """As behind a shell that has not replaced itself; the log says it."""
    for pid in (str(os.getppid()), ""):
        taken = take_over({"LISTEN_FDS": "1", "LISTEN_PID": pid})
        assert list(taken.take_rest()) == []
        assert "start it directly, or by exec" in taken.warning
    opened.append(socket.create_server(("127.0.0.1", 0)))
    assert not take_over(dict(for_child(opened))).enough  # it names this process, not its parent


def test_a_parent_s_sockets_are_taken_over(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the numbers that they have there."""
    opened += [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    variables = dict(for_child(opened))
    names = [each.getsockname() for each in opened]
    for each in opened:
        each.detach()
    monkeypatch.setattr(os, "getppid", os.getpid)
    taken = take_over(variables)
    assert variables == {}
    assert taken.enough
    opened[:] = [taken.take(socket.AF_INET, name) or opened[0] for name in names]
    assert [each.getsockname() for each in opened] == names


def test_only_listening_stream_sockets_are_taken(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket unit with Accept=yes hands over a connection; the line says what it must have."""
    opened += [
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    ]
    told = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "connection"}
    for each in opened:
        monkeypatch.setattr(module, "FIRST", copies([each]))
        with pytest.raises(StartError, match=r"200 \(connection\) was handed over, and is not a"):
            take_over(dict(told))
    monkeypatch.setattr(module, "FIRST", 201)
    with pytest.raises(StartError, match=r"201 .*: Bad file descriptor"):
        take_over(dict(told))


def test_addresses_and_handed_over_sockets_are_put_together(
    opened: list[socket.socket], tmp_path: Path
) -> None:
    """One that has the address is taken for it; others' are used beside it; what is left is new."""
    path = str(tmp_path / "sock")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    tcp, own, unused, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(4))
    opened += [unix, tcp, own, unused, other]
    port = own.getsockname()[1]
    handed_over = HandedOver(
        [(unix, "web"), (tcp, "web"), (own, OWN), (unused, OWN), (other, "web")]
    )
    names = [f"127.0.0.1:{each.getsockname()[1]}" for each in (tcp, own, unused, other)]
    acceptor = open_acceptor(
        [f"unix:{path}", names[0], f"127.0.0.1:{port}", "[::1]:0"], handed_over
    )
    used = acceptor.addresses
    assert used[:3] == [f"unix:{path}", names[0], names[1]]
    assert used[3].startswith("[::1]:")
    assert used[4:] == [names[3]]
    assert unused.fileno() == -1
    acceptor.close()
    assert os.path.exists(path)  # it is systemd's


def test_a_kept_unix_socket_without_its_path_is_replaced(
    opened: list[socket.socket], tmp_path: Path
) -> None:
    """Its directory was removed when the service stopped: nobody could connect."""
    path = str(tmp_path / "sock")
    kept = socket.socket(socket.AF_UNIX)
    kept.bind(path)
    kept.listen()
    os.unlink(path)
    opened.append(kept)
    acceptor = open_acceptor([f"unix:{path}"], HandedOver([(kept, OWN)]))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    acceptor.close()
    assert kept.fileno() == -1


def test_any_port_is_one_that_was_kept(opened: list[socket.socket]) -> None:
    """So a restart has the port that was free the first time."""
    kept = socket.create_server(("127.0.0.1", 0))
    opened.append(kept)
    name = f"127.0.0.1:{kept.getsockname()[1]}"
    acceptor = open_acceptor(["127.0.0.1:0"], HandedOver([(kept, OWN)]))
    assert acceptor.addresses == [name]
    acceptor.close()


def test_what_bide_has_opened_itself_is_not_enough_without_an_address(
    opened: list[socket.socket],
) -> None:
    """It is for the addresses that are asked for now; another's socket is one to listen on."""
    opened += [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    own, other = opened
    assert not HandedOver([(own, OWN)]).enough
    assert HandedOver([(own, OWN), (other, "web")]).enough


def test_listeners_that_are_left_open_go_on_where_others_have_them(tmp_path: Path) -> None:
    """Who connects while the server is away waits, and is not refused."""
    path = tmp_path / "sock"
    acceptor = open_acceptor(["127.0.0.1:0", f"unix:{path}"], HandedOver())
    kept = [each.dup() for each in acceptor.listeners]
    acceptor.leave_open()
    acceptor.close()
    for sock in kept:
        with socket.socket(sock.family) as client:
            client.connect(sock.getsockname())
            until(lambda sock=sock: sock.accept()[0].close() or True)  # type: ignore[misc]
        sock.close()
    assert path.exists()
