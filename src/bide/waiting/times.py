"""Where the time of one call goes: it is queued, runs, waits, or waits for its own client.

Only the call's own thread writes: when the call begins, parks and goes on. Any thread may read. A
change replaces one reference, so what is read was true at one moment.

Invariant: the four sums of a call add up to its age. Running is the age less the other three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from bide.compiling import mypyc_attr
from bide.waiting.background import Blocked
from bide.waiting.outcome import Wait
from bide.waiting.parking import Parking


class Sums(NamedTuple):
    """Seconds of one call; together they are its age.

    Attributes:
        queued: from the end of the request's head until the application was called.
        running: in the application's code, or ready to go on in it.
        waiting: for the promises that the application waited for.
        sending: until the client took more of the response, or sent more of its body.
    """

    queued: float
    running: float
    waiting: float
    sending: float


Spent = tuple[float, float, Wait | None, float]
"""Seconds waiting; seconds sending; the wait in progress; its beginning, in monotonic seconds."""

_UNKNOWN: Final = math.inf
_NOTHING: Final[Spent] = (0.0, 0.0, None, 0.0)


@mypyc_attr(allow_interpreted_subclasses=True)
class Times(Blocked):
    """The clock of one call: what waits, and counts how long.

    Attributes:
        begun: when the call was begun, in monotonic seconds; 0 before.
        spent: the time that it has spent in waits.
    """

    __slots__ = ("begun", "spent")

    def __init__(self) -> None:
        self.begun = 0.0
        self.spent = _NOTHING

    def park(self, wait: Wait, parking: Parking) -> None:
        """Park in a wait until ``parking`` lets the call go on, and count the time."""
        waiting, sending, _, _ = self.spent
        self.spent = (waiting, sending, wait, monotonic())
        try:
            parking.park(wait)
        finally:
            waiting, sending, _, since = self.spent
            at = parking.since
            # The parking does not know when it has not parked since then, or reads no clock.
            if at < since or at == _UNKNOWN:
                at = monotonic()
            if wait.for_client:
                self.spent = (waiting, sending + at - since, None, 0.0)
            else:
                self.spent = (waiting + at - since, sending, None, 0.0)

    def run_meanwhile(self, function: Callable[[], None]) -> None:
        """Call a function while the call is parked in a wait; the time counts as running."""
        wait = self.spent[2]
        waiting, sending = _waited(self.spent, monotonic())
        self.spent = (waiting, sending, None, 0.0)
        try:
            function()
        finally:
            if wait is not None:
                waiting, sending, _, _ = self.spent
                self.spent = (waiting, sending, wait, monotonic())

    def sums(self, started: float) -> tuple[Wait | None, Sums, bool]:
        """Return the wait in progress, the sums up to now, and whether the call has begun.

        All of one moment; from any thread.

        Args:
            started: when the call was made, in monotonic seconds.
        """
        # The clock is read last, so that nothing read before it is later.
        begun = self.begun
        spent = self.spent
        now = monotonic()
        if not begun:
            return None, Sums(now - started, 0.0, 0.0, 0.0), False
        waiting, sending = _waited(spent, now)
        running = now - begun - waiting - sending
        return spent[2], Sums(begun - started, running, waiting, sending), True


def _waited(spent: Spent, now: float) -> tuple[float, float]:
    """Return the seconds waiting and sending, including the wait in progress."""
    waiting, sending, wait, since = spent
    if wait is None:
        return waiting, sending
    if wait.for_client:
        return waiting, sending + now - since
    return waiting + now - since, sending
