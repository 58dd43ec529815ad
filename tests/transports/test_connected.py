"""The states of a connection: every move that there is, made as in life, and no other."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

import pytest

from bide.transports.connected import (
    BREAK,
    BROKEN,
    CLOSE,
    CLOSED,
    CLOSING,
    END,
    LINGERING,
    MOVES,
    OPEN,
    SENT,
    Connected,
)
from bide.transports.poller import GONE, READ, WRITE
from tests.failures import Failures, same
from tests.fakes import LINGER, HandPoller, ManualLoop, Receiver, a_transport

STATES = [OPEN, CLOSING, LINGERING, BROKEN, CLOSED]
EVENTS = [CLOSE, SENT, BREAK, END]


class Pair:
    """A transport whose client has not taken all, and the client."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        server, self.client = socket.socketpair()
        server.setblocking(False)
        self.server = server
        self.receiver = Receiver()
        self.poller = HandPoller(self.loop)
        self.transport = a_transport(server, self.poller, self.receiver)
        self.fill()

    def fill(self) -> None:
        """Write more than the client takes."""
        while not self.transport.queued:
            self.transport.write(b"x" * 4096)

    def drain(self) -> None:
        """Read all that is queued, as the client."""
        while self.transport.queued:
            self.client.recv(65536)
            self.transport.ready(WRITE)

    def close(self) -> None:
        """Close what is open."""
        self.server.close()
        self.client.close()
        self.loop.settle()
        self.loop.close()


def close(pair: Pair) -> None:
    pair.transport.close(linger=True)


def close_at_once(pair: Pair) -> None:
    pair.transport.close()


def drain(pair: Pair) -> None:
    pair.drain()


def abort(pair: Pair) -> None:
    pair.transport.abort()


def fail(pair: Pair) -> None:
    """Make a send of the queue, or of a new block, fail."""
    pair.client.close()
    pair.transport.ready(WRITE)


def fail_to_write(pair: Pair) -> None:
    pair.drain()
    pair.client.close()
    assert not pair.transport.write(b"x")


def lose(pair: Pair) -> None:
    pair.transport.ready(GONE)


def turn(pair: Pair) -> None:
    """Run the loop's callbacks."""
    pair.loop.settle()


def fall_silent(pair: Pair) -> None:
    pair.loop.advance(LINGER)


def leave(pair: Pair) -> None:
    """Close the client's side, and run the loop until it has read that."""
    pair.client.shutdown(socket.SHUT_WR)
    pair.transport.ready(READ)


Step = Callable[[Pair], None]
TO: dict[str, list[Step]] = {
    OPEN: [],
    CLOSING: [close],
    LINGERING: [drain, close, turn],
    BROKEN: [abort],
    CLOSED: [lose],
}
"""How a connection comes to a state."""

MADE: dict[tuple[str, str], list[list[Step]]] = {
    (OPEN, CLOSE): [[close], [close_at_once]],
    (OPEN, BREAK): [[abort], [fail], [fail_to_write]],
    (OPEN, END): [[lose]],
    (CLOSING, SENT): [[drain], [turn, drain]],
    (CLOSING, BREAK): [[abort], [fail]],
    (CLOSING, END): [[lose], [leave, drain]],
    (LINGERING, BREAK): [[abort]],
    (LINGERING, END): [[lose], [leave], [fall_silent]],
    (BROKEN, END): [[lose], [turn]],
}
"""What makes each move: each list of steps by itself."""

NOTHING: dict[str, list[Step]] = {
    OPEN: [drain, turn],
    CLOSING: [close, close_at_once, turn, leave],
    LINGERING: [close, close_at_once, turn, drain],
    BROKEN: [close, close_at_once, abort, leave],
    CLOSED: [close, close_at_once, abort, lose, turn, fall_silent],
}
"""What changes no state."""


def come_to(state: str) -> Pair:
    pair = Pair()
    for step in TO[state]:
        step(pair)
    same(pair.transport.state, state)
    return pair


def test_every_move_is_made_by_what_happens() -> None:
    """In each way; the receiver is told at the end, once, and no sooner."""
    assert set(MADE) == set(MOVES)
    with Failures() as failures:
        for (state, event), ways in MADE.items():
            for way in ways:
                names = ", ".join(each.__name__ for each in way)
                with failures.of(f"{state}, {event}: {names}"):
                    pair = come_to(state)
                    for step in way:
                        step(pair)
                    same(pair.transport.state, MOVES[state, event])
                    ended = pair.transport.state is CLOSED
                    same(pair.receiver.told.count("lost"), int(ended))
                    same(pair.server.fileno() == -1, ended)
                    pair.close()
                    same(pair.receiver.told.count("lost"), int(pair.transport.state is CLOSED))


def test_what_comes_too_late_changes_no_state() -> None:
    """A second close, an abort of what is broken, a late word of the poller's."""
    with Failures() as failures:
        for state, steps in NOTHING.items():
            for step in steps:
                with failures.of(f"{state}: {step.__name__}"):
                    pair = come_to(state)
                    step(pair)
                    same(pair.transport.state, state)
                    pair.close()


def test_bytes_are_taken_in_the_first_state_only() -> None:
    """To be sent, and from the client."""
    with Failures() as failures:
        for state in STATES:
            with failures.of(state):
                pair = come_to(state)
                same(pair.transport.write(b"x"), state == OPEN)
                same(pair.transport.room() is None, True)
                if state != CLOSED:
                    pair.client.send(b"data")
                    pair.transport.ready(READ)
                same(pair.receiver.told.count(b"data"), int(state == OPEN))
                pair.close()


def test_no_other_move_can_be_made() -> None:
    """The one function that changes the state raises, and changes nothing."""
    with Failures() as failures:
        for state, event in itertools.product(STATES, EVENTS):
            if (state, event) not in MOVES:
                with failures.of(f"{state}, {event}"):
                    pair = come_to(state)
                    with pytest.raises(KeyError):
                        pair.transport._move(event)
                    same(pair.transport.state, state)
                    pair.close()


def test_a_connection_moves_on_and_never_back() -> None:
    """So that whoever has seen a state knows what cannot come any more."""
    for (state, _), following in MOVES.items():
        assert STATES.index(state) < STATES.index(following)


def test_a_forked_child_closes_its_descriptor_in_every_state() -> None:
    """And sends nothing: the client is the parent's."""
    with Failures() as failures:
        for state in STATES:
            with failures.of(state):
                pair = come_to(state)
                transport: Connected = pair.transport
                transport.after_fork()
                same(transport.state, CLOSED)
                same(pair.server.fileno(), -1)
                same(transport.write(b"x"), False)
                same(transport.room() is None, True)
                pair.loop.settle()
                pair.client.close()
                pair.loop.close()
