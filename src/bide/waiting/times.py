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
        self._stop(wait)
        try:
            parking.park(wait)
        finally:
            self._go_on(parking.since)

    def run(self, function: Callable[[], None]) -> None:
        """Call a function while the call is stopped in a wait: it runs meanwhile."""
        wait = self.spent[2]
        self._go_on(math.inf)
        try:
            function()
        finally:
            if wait is not None:
                self._stop(wait)

    def _stop(self, wait: Wait) -> None:
        waiting, sending, _, _ = self.spent
        self.spent = (waiting, sending, wait, monotonic())

    def _go_on(self, at: float) -> None:
        """Count the wait, up to when the parking says that the call has gone on.

        A parking that has not stopped since the wait began, or reads no clock (infinite), does not
        know: it has gone on now.
        """
        waiting, sending, wait, since = self.spent
        if wait is None:
            return
        if not since <= at < math.inf:
            at = monotonic()
        self.spent = _added(waiting, sending, wait, at - since)

    def look(self, started: float) -> tuple[Wait | None, Sums]:
        """Return the wait that the call is stopped in, and the sums up to now; from any thread.

        Args:
            started: when the call was made, in monotonic seconds.
        """
        # The clock last: nothing that is seen has happened later.
        begun = self.begun
        spent = waiting, sending, wait, since = self.spent
        now = monotonic()
        if not begun:
            return None, Sums(now - started, 0.0, 0.0, 0.0)
        if wait is not None:
            spent = _added(waiting, sending, wait, now - since)
        waiting, sending, _, _ = spent
        return wait, Sums(begun - started, now - begun - waiting - sending, waiting, sending)


def _added(waiting: float, sending: float, wait: Wait, seconds: float) -> Spent:
    if wait.for_client:
        return waiting, sending + seconds, None, 0.0
    return waiting + seconds, sending, None, 0.0
