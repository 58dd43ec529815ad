"""The thread of the handshakes: what it is given comes back, once, whatever happens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bide.settings import Settings
from bide.transports.contexts import Contexts
from bide.transports.handshakes import Handshakes
from bide.transports.poller import READ, WRITE
from tests.served import Log, happened, until
from tests.tls import certificates


class Target:
    """A connection whose handshake does what the test says.

    Attributes:
        says: what its steps come to, in order; then it is over.
        steps: how many were made.
        gone: set when it was let go of.
    """

    def __init__(self, *says: Any) -> None:
        self.sock, self.client = socket.socketpair()
        self.descriptor = self.sock.fileno()
        self.failure = ""
        self.says = list(says)
        self.steps = 0
        self.gone = threading.Event()
        self.times = 0

    def shake(self) -> int:
        """Make a step."""
        self.steps += 1
        said: Any = self.says.pop(0) if self.says else 0
        if isinstance(said, Exception):
            raise said
        return int(said)

    def let_go(self) -> None:
        """Keep that it was let go of, and free the descriptor, as a transport may."""
        self.times += 1
        self.sock.close()
        self.client.close()
        self.gone.set()


@pytest.fixture
def handshakes() -> Iterator[Handshakes]:
    """Return a thread that runs."""
    made = Handshakes(Contexts(Settings(**certificates().settings)))
    made.start()
    yield made
    made.close()


def test_a_step_is_made_when_the_socket_is_as_it_wants(handshakes: Handshakes) -> None:
    """And the next one when it is so again."""
    target = Target(WRITE, READ)
    handshakes.add(target)
    idle = Target()
    handshakes.add(idle)
    target.client.send(b"x")
    happened(target.gone)
    assert (target.steps, target.times) == (3, 1)
    assert (idle.steps, idle.times) == (0, 0)
    handshakes.drop(idle)
    happened(idle.gone)


def test_what_is_dropped_is_let_go_of_once(handshakes: Handshakes) -> None:
    """Before its first step, between two, and after its last, when it is nobody's any more."""
    for steps in (0, 1, 2):
        target = Target(READ)
        handshakes.add(target)
        if steps:
            target.client.send(b"x")
            until(lambda steps=steps, target=target: target.steps >= steps)  # type: ignore[misc]
        if steps == 2:
            happened(target.gone)
        handshakes.drop(target)
        happened(target.gone)
        barrier = Target()
        barrier.client.send(b"x")
        handshakes.add(barrier)
        happened(barrier.gone)
        assert target.times == 1


def test_an_error_of_ours_ends_one_handshake_and_not_the_thread(
    handshakes: Handshakes, log: Log
) -> None:
    """Nobody else would make the others."""
    broken, good = Target(KeyError("a bug")), Target()
    for each in (broken, good):
        each.client.send(b"x")
        handshakes.add(each)
        happened(each.gone)
    assert broken.failure == "an internal error"
    assert log.take("internal error in a TLS handshake").exc_info


def test_the_end_of_the_thread_lets_go_of_all() -> None:
    """Of those that were given to it last, too."""
    made = Handshakes(Contexts(Settings(**certificates().settings)))
    early, late = Target(READ), Target()
    made.add(early)
    early.client.send(b"x")
    made.start()
    until(lambda: early.steps)
    made._give(True, late)
    made.close()
    assert (early.times, late.times) == (1, 1)
    assert not [each for each in threading.enumerate() if each is made._thread]


def test_a_thread_that_has_ended_before_it_is_woken_is_closed_all_the_same() -> None:
    """It has seen that it is to end when something else had woken it."""

    class Late(Handshakes):
        def _wake(self) -> None:
            if self._closing:
                super()._wake()
                self._thread.join()
            super()._wake()

    made = Late(Contexts(Settings(**certificates().settings)))
    made.start()
    made.close()
    lost = Target()
    made.drop(lost)  # a connection that is lost later
    lost.let_go()
