"""The states of reading: every move that there is, made by what a client sends, and no other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from bide.exchange.limits import Limits
from bide.protocols.http1.states import (
    CHUNKED,
    CHUNKS,
    COUNTED,
    END,
    GO_ON,
    HEAD,
    HELD,
    HOLD,
    IDLE,
    LENGTH,
    MOVES,
    PART,
    STOP,
    STOPPED,
    WHOLE,
)
from tests.failures import Failures, same
from tests.protocols.exchanges import CHUNKED_POST, GET, path_of, post
from tests.protocols.fakes import Client, Received, connect, drain

STATES = [IDLE, HEAD, COUNTED, CHUNKED, HELD, STOPPED]
EVENTS = [PART, WHOLE, LENGTH, CHUNKS, END, HOLD, GO_ON, STOP]
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

Step = Callable[[Client], object]


def sending(data: bytes) -> Step:
    return lambda client: client.send(data)


def fill(client: Client) -> None:
    """Queue as many requests as may wait, and receive one more with the last."""
    client.owner.full = True
    client.send(GET + GET)


def make_room(client: Client) -> None:
    client.owner.full = False
    client.protocol.read_on()


def upgrade(client: Client) -> None:
    """Ask for another protocol, which the owner may follow."""
    client.owner.upgrading = True
    client.send(UPGRADE)


def leave(client: Client) -> None:
    client.protocol.eof_received()


def end(client: Client) -> None:
    client.protocol.connection_lost()


TO: dict[str, list[Step]] = {
    IDLE: [],
    HEAD: [sending(GET[:-1])],
    COUNTED: [sending(post(2))],
    CHUNKED: [sending(CHUNKED_POST)],
    HELD: [fill],
    STOPPED: [leave],
}
"""How reading comes to a state."""

MADE: dict[tuple[str, str], dict[str, list[Step]]] = {
    (IDLE, PART): {"a byte": [sending(b"G")], "after an empty line": [sending(b"\r\nG")]},
    (IDLE, LENGTH): {
        "a head": [sending(post(2))],
        "and a byte": [sending(post(2) + b"a")],
        "beside an upgrade": [
            sending(post(2).replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
        ],
    },
    (IDLE, CHUNKS): {
        "a head": [sending(CHUNKED_POST)],
        "and all but the end": [sending(CHUNKED_POST + b"1\r\na\r\n0\r\n\r")],
    },
    (IDLE, HOLD): {"a full queue": [fill], "an upgrade": [upgrade]},
    (IDLE, STOP): {
        "the last request": [sending(LAST)],
        "the last request with a body": [
            sending(post(2).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"ab")
        ],
        "an error": [sending(b"bad\r\n\r\n")],
        "an error at once": [sending(b"\x00")],
        "the client's end": [leave],
        "the connection's": [end],
    },
    (HEAD, WHOLE): {"the last byte": [sending(GET[-1:])]},
    (HEAD, STOP): {
        "an error": [sending(b"\x00")],
        "the client's end": [leave],
        "the connection's": [end],
    },
    (COUNTED, END): {
        "the last byte": [sending(b"ab")],
        "in pieces": [sending(b"a"), sending(b"b")],
    },
    (COUNTED, STOP): {"the client's end": [leave], "the connection's": [end]},
    (CHUNKED, END): {"the last byte": [sending(b"0\r\n\r\n")]},
    (CHUNKED, STOP): {
        "an error": [sending(b"x")],
        "too much": [sending(b"b\r\n" + b"a" * 11 + b"\r\n")],
        "too much unread": [lambda client: path_of(client.stream), sending(b"a\r\n" + b"a" * 10)],
        "the client's end": [leave],
        "the connection's": [end],
    },
    (HELD, GO_ON): {"room": [make_room]},
    (HELD, STOP): {"the client's end": [leave], "the connection's": [end]},
}
"""What makes each move: each list of steps by itself."""

NOTHING: dict[str, dict[str, list[Step]]] = {
    IDLE: {
        "nothing": [sending(b"")],
        "a request": [sending(GET)],
        "an upgrade that nobody wants": [sending(UPGRADE)],
        "an empty line": [sending(b"\r\n")],
        "a whole body": [sending(post(2) + b"ab")],
        "a whole chunked body": [sending(CHUNKED_POST + b"1\r\na\r\n0\r\n\r\n")],
        "room": [make_room],
    },
    HEAD: {"more of it": [sending(GET[-1:-1])], "room": [make_room]},
    COUNTED: {"a part": [sending(b"a")], "room": [make_room]},
    CHUNKED: {"a part": [sending(b"1\r\na\r\n")], "room": [make_room]},
    HELD: {"more": [sending(GET)]},
    STOPPED: {
        "a request": [sending(GET)],
        "room": [make_room],
        "the client's end": [leave],
        "the connection's": [end],
    },
}
"""What changes no state."""


def come_to(state: str) -> Client:
    client = connect(limits=Limits(body=10, discard=5))
    for step in TO[state]:
        step(client)
    same(client.protocol.state, state)
    return client


def test_every_move_is_made_by_what_comes() -> None:
    """In each way."""
    assert set(MADE) == set(MOVES)
    with Failures() as failures:
        for (state, event), ways in MADE.items():
            for name, way in ways.items():
                with failures.of(f"{state}, {event}: {name}"):
                    client = come_to(state)
                    for step in way:
                        step(client)
                    same(client.protocol.state, MOVES[state, event])


def test_what_changes_no_state() -> None:
    """What is whole, what is not the end, and what comes too late."""
    with Failures() as failures:
        for state, ways in NOTHING.items():
            for name, way in ways.items():
                with failures.of(f"{state}: {name}"):
                    client = come_to(state)
                    for step in way:
                        step(client)
                    same(client.protocol.state, state)


def test_no_other_move_can_be_made() -> None:
    """The one function that changes the state raises, and changes nothing."""
    with Failures() as failures:
        for state, event in itertools.product(STATES, EVENTS):
            if (state, event) not in MOVES:
                with failures.of(f"{state}, {event}"):
                    client = come_to(state)
                    with pytest.raises(KeyError):
                        client.protocol._move(event)
                    same(client.protocol.state, state)


def test_what_comes_while_requests_are_held_stays_behind_them() -> None:
    """However it is split: it is parsed in order, and once."""
    rest = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(2))
    for size in (1, 7, len(rest)):
        client = connect()
        fill(client)
        client.send(*[rest[at : at + size] for at in range(0, len(rest), size)])
        same(len(client.owner.begun), 1)
        make_room(client)
        same([each.request.path for each in client.owner.begun], [b"/", b"/", b"/0", b"/1"])


def test_a_body_that_came_with_its_head_is_there_when_its_stream_begins() -> None:
    """So that the application need not wait for it; nothing behind it is."""
    seen: list[Received] = []
    for body in (post(5) + b"hello", CHUNKED_POST + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n"):
        client = connect(lambda stream: seen.append(drain(stream)))
        client.send(body + body)
        same(len(client.owner.begun), 2)
    same([(each.data, each.end) for each in seen], [(b"hello", "complete")] * 2)


def test_trailers_are_no_headers() -> None:
    """They are parsed as such, behind a head whose headers the request has."""
    client = connect()
    client.send(CHUNKED_POST, b"0\r\nA: b\r\nConnection: close\r\n\r\n")
    assert all(name != b"A" for name, _ in client.stream.request.headers)
    assert client.stream.request.persistent
    assert client.protocol.state is IDLE
