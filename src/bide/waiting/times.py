"""Where the time of one call goes: it is queued, runs, waits, or waits for its own client.

Only the call's own thread writes, when the call begins, stops and goes on. Any thread may look: a
change replaces one reference, so what is seen was true at one moment.

Invariant: the four sums of a call add up to its age, since running is what the others leave of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from bide.waiting.outcome import Wait
from bide.waiting.parking import Parking


class Sums(NamedTuple):
    """Seconds of one call; together they are its age.

    Attributes:
        queued: from the end of the request's head until the application was called.
        running: in the application's code, or ready for it.
        waiting: until what the application waited for was there.
        sending: until the client took more of the response, or brought more of its body.
    """

    queued: float
    running: float
    waiting: float
    sending: float


Spent = tuple[float, float, Wait | None, float]
"""Seconds waiting and sending; the wait that goes on, and since when, in monotonic seconds."""

_UNKNOWN: Final = math.inf
_NOTHING: Final[Spent] = (0.0, 0.0, None, 0.0)


class Times:
    """The clock of one call.

    Attributes:
        begun: when the call was begun, in monotonic seconds; 0 before.
        spent: what it has spent in waits.
    """

    __slots__ = ("begun", "spent")

    def __init__(self) -> None:
        self.begun = 0.0
        self.spent = _NOTHING

    def park(self, wait: Wait, parking: Parking) -> None:
        """Stop in a wait until ``parking`` has the call go on, and count the time."""
        waiting, sending, _, _ = self.spent
        self.spent = (waiting, sending, wait, monotonic())
        try:
            parking.park(wait)
        finally:
            waiting, sending, _, since = self.spent
            at = parking.since
            # A parking that has not stopped since then, or reads no clock, does not know.
            if at < since or at == _UNKNOWN:
                at = monotonic()
            if wait.for_client:
                self.spent = (waiting, sending + at - since, None, 0.0)
            else:
                self.spent = (waiting + at - since, sending, None, 0.0)

    def run(self, function: Callable[[], None]) -> None:
        """Call a function while the call is stopped in a wait: it runs meanwhile."""
        wait = self.spent[2]
        waiting, sending = _waited(self.spent, monotonic())
        self.spent = (waiting, sending, None, 0.0)
        try:
            function()
        finally:
            if wait is not None:
                waiting, sending, _, _ = self.spent
                self.spent = (waiting, sending, wait, monotonic())

    def look(self, started: float) -> tuple[Wait | None, Sums]:
        """Return the wait that the call is stopped in, and the sums up to now; from any thread.

        Args:
            started: when the call was made, in monotonic seconds.
        """
        # The clock last: nothing that is seen has happened later.
        begun = self.begun
        spent = self.spent
        now = monotonic()
        if not begun:
            return None, Sums(now - started, 0.0, 0.0, 0.0)
        waiting, sending = _waited(spent, now)
        return spent[2], Sums(begun - started, now - begun - waiting - sending, waiting, sending)


def _waited(spent: Spent, now: float) -> tuple[float, float]:
    """Return the seconds waiting and sending, with the wait that goes on."""
    waiting, sending, wait, since = spent
    if wait is None:
        return waiting, sending
    if wait.for_client:
        return waiting, sending + now - since
    return waiting + now - since, sending
