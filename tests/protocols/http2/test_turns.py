"""Frames are taken for a moment in each turn of the loop: other connections have theirs."""

import pytest
from hyperframe.frame import GoAwayFrame

from bide.exchange.stream import Stream
from bide.protocols.http2.guard import RESETS
from tests.failures import same
from tests.protocols.http2.clients import Client, get


def hello(stream: Stream) -> None:
    """Answer with a length."""
    stream.start("200 OK", [])
    stream.end(b"hello")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    """Return a client whose frames are taken one in each turn."""
    monkeypatch.setattr(Client, "hurried", True)
    return Client(hello)


def send(client: Client) -> None:
    """Send what the client has made, in one piece, and let no turn follow."""
    client.protocol.data_received(client.h2.data_to_send())


def ask(client: Client, count: int) -> list[int]:
    """Make requests; return their numbers."""
    return [client.begin(get()) for _ in range(count)]


def test_what_comes_at_once_is_taken_over_many_turns(client: Client) -> None:
    """Nothing more is read meanwhile, and nothing begins before all is taken."""
    ask(client, 5)
    send(client)
    same((client.transport.reading, client.protocol.frames_left), (False, True))
    client.turn(3)
    same((client.transport.reading, len(client.protocol.numbers)), (False, 4))
    same(client.owner.begun, [])
    client.turn()
    same((client.transport.reading, client.protocol.frames_left), (True, False))
    same(len(client.owner.begun), 5)
    client.flush()
    same([each.body for each in client.responses.values()], [b"hello"] * 5)


def test_a_request_that_is_reset_in_the_same_breath_never_begins(client: Client) -> None:
    """Also if its end comes many turns later."""
    first, *_ = ask(client, 5)
    client.h2.reset_stream(first)
    send(client)
    client.turn()
    same(len(client.owner.begun), 4)


@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_ends_between_two_turns_begins_nothing(
    client: Client, turns: int
) -> None:
    """What is left of its frames is dropped."""
    ask(client, 5)
    send(client)
    client.turn(turns)
    client.protocol.connection_lost()
    client.turn()
    same((client.owner.begun, client.transport.reading), ([], False))


def test_too_much_in_a_later_turn_ends_the_connection(client: Client) -> None:
    """As it does at once; nothing that came with it begins."""
    for _ in range(RESETS[0] + 1):
        client.h2.reset_stream(client.begin(get()))
    ask(client, 1)
    send(client)
    client.turn()
    client.flush()
    same((client.owner.begun, client.transport.closed), ([], "linger"))
    same(len(client.gone), 1)


def test_what_has_come_is_served_by_a_server_that_stops(client: Client) -> None:
    """A connection is not idle while frames are left."""
    ask(client, 3)
    send(client)
    client.protocol.drain()
    same(client.transport.closed, "")
    client.turn()
    same([each.head is not None for each in client.owner.begun], [True] * 3)
    same(client.transport.sent.count(b"hello"), 3)


def test_what_has_come_behind_a_farewell_is_served(client: Client) -> None:
    """The client has said that it will leave, in a frame before: the connection is not idle yet."""
    ask(client, 3)
    farewell = GoAwayFrame(0, last_stream_id=0).serialize()
    client.protocol.data_received(farewell + client.h2.data_to_send())
    same((client.transport.closed, client.protocol.ending), ("", True))
    client.turn()
    same(len(client.owner.begun), 3)
    same(client.transport.sent.count(b"hello"), 3)
    while client.owner.soon:
        client.owner.soon.pop(0)()
    same(client.transport.closed, "linger")
