"""The lines between a supervisor and its workers."""

import socket

from bide.process.links import Link
from tests.failures import same


def test_lines_come_in_order_with_their_sockets() -> None:
    """Also where several come at once, one of them in two parts."""
    link, sock = Link.pair()
    other = Link(sock)
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
    ):
        link.send("leave 3")
        link.send("accept 0 1", [first])
        link.send("accept 1 2", [second, first])
        link.socket.send(b"re")
        link.socket.send(b"tire\n")
        names = [each.getsockname() for each in (first, second, first)]
        same(
            other.receive(),
            [["leave", "3"], ["accept", "0", "1"], ["accept", "1", "2"], ["retire"]],
        )
        taken = [*other.take(1), *other.take(2)]
        same([each.getsockname() for each in taken], names)
        for each in taken:
            each.close()
    link.close()
    same(other.receive(), [])
    assert not other.open
    other.close()


def test_what_the_other_end_does_not_read_waits() -> None:
    """A blocked worker holds up nobody, and has its orders when it goes on."""
    link, sock = Link.pair()
    other = Link(sock)
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    number = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        while not link.behind:
            link.send(f"accept {number} 1", [server])
            number += 1
        link.send("stop")
        came: list[list[str]] = []
        while not came or came[-1] != ["stop"]:
            came += other.receive()
            link.flush()
        same(came, [["accept", str(each), "1"] for each in range(number)] + [["stop"]])
        for each in other.take(number):
            assert each.getsockname() == server.getsockname()
            each.close()
    link.close()
    other.close()


def test_sockets_that_are_given_away_are_closed_here() -> None:
    """When they are sent, or when nobody takes them."""
    link, sock = Link.pair()
    other = Link(sock)
    given, kept = socket.socketpair()
    link.send("fork 0 1", [given], closing=True)
    assert given.fileno() == -1
    other.receive()
    (taken,) = other.take(1)
    taken.close()
    other.close()
    link.send("fork 0 2", [kept], closing=True)
    assert kept.fileno() == -1
    link.close()
