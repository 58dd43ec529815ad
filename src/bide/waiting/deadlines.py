"""When a wait is over: its time-out, the time to clean up, or its promise's time to end.

The deadlines of one loop's waits are in its wheel. Each is rounded up, so that many share a moment.
The loop has one timer, for the first moment that has a deadline. A waiting thread puts its deadline
in, and takes it out again. It calls the loop only where the timer would come too late.

There is no lock, since a destructor may wait at any point. A thread puts a deadline in, and then
checks when the timer comes. The loop notes that no timer is set, and then checks the wheel. So one
of the two sees the other. This rests on what CPython makes atomic: single operations of
dictionaries and sets.
"""

from __future__ import annotations

import asyncio
import functools
import math
import weakref
from time import monotonic
from typing import Final

from bide.waiting.cleanups import cleanup_time
from bide.waiting.loops import behind, on_loop
from bide.waiting.outcome import Over, Subscription, Wait, give_up, withdraw

FINENESS: Final = 64
"""A time-out is rounded up by less than itself divided by this; or by less than FINEST."""
FINEST: Final = 2.0**-10
"""Seconds."""


class Deadline:
    """The deadline of one wait; put into the wheel on the waiting thread, passed on the loop.

    When it has passed, the promise is asked for its outcome: on the loop, in the same step. So a
    result that is there wins, and none can come in between. The promise then has
    ``cleanup_time.of_promise`` seconds to end. If it does not, the wait ends without it.

    Attributes:
        at: when it passes, by the loop's clock.
        moment: all deadlines of that moment, this one among them.
    """

    __slots__ = ("_asked", "_loop", "_subscription", "_wait", "_wheel", "_why", "at", "moment")

    def __init__(
        self, wait: Wait, subscription: Subscription, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._wait = wait
        self._subscription = subscription
        self._loop = loop
        self._wheel = wheel_of(loop)
        self._why: Over = "timeout"
        self._asked = False  # the promise has been asked to end; on the loop
        self.at = math.inf
        self.moment: set[Deadline] = _NOWHERE

    def set(self, seconds: float, why: Over) -> None:
        """End the wait after ``seconds``; called once, on the waiting thread, before it parks.

        Raises RuntimeError when the loop is closed.

        Args:
            seconds: from now on.
            why: the reason with which the wait then ends.
        """
        if self._loop.is_closed():
            raise RuntimeError("Event loop is closed")
        self._why = why
        self._wheel.put(self, seconds, self._loop)

    def bring_forward(self, seconds: float) -> None:
        """End the wait after ``seconds``, for a cancellation, unless its deadline is sooner.

        From any thread. Raises RuntimeError when the loop is closed.
        """
        on_loop(self._loop, self._move, seconds, True)

    def give_patience(self) -> None:
        """Start a cancelled promise's time to end; after it, the wait ends without the promise."""
        if not self._loop.is_closed():
            on_loop(self._loop, self._move, cleanup_time.of_promise, False)

    def _move(self, seconds: float, sooner: bool) -> None:
        if sooner:
            if self.at <= self._wheel.now(self._loop) + seconds:
                return
            self._why = "cancelled"
        else:
            self._asked = True
        self.drop()
        self._wheel.put(self, seconds, self._loop)
        if self._wait.reason:  # read last: the wait's thread may have dropped this meanwhile
            self.drop()

    def over(self, at: float) -> None:
        """Called on the loop when ``at`` has come."""
        wait = self._wait
        if wait.reason or at != self.at:  # the wait has ended, or this was moved meanwhile
            return
        if self._asked:  # and the promise has not ended
            give_up(wait)
            return
        if wait.ending == "cancelled":  # its own thread asks now, and then sets another time
            return
        # A cancellation that came first counts, even if the waiting thread has not seen it yet.
        wait.over = "cancelled" if wait.interrupted else self._why
        if self._subscription.on_thread:
            wait.interrupt()
        else:
            self._move(cleanup_time.of_promise, False)
            withdraw(self._subscription.cancel, wait)

    def drop(self) -> None:
        """Take the deadline out of the wheel; from any thread, more than once."""
        self.moment.discard(self)


_NOWHERE: Final[set[Deadline]] = set()


class Wheel:
    """The deadlines of the waits of one loop; it does not keep the loop alive."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._moments: dict[float, set[Deadline]] = {}
        self._next = math.inf  # when the timer comes; changed on the loop
        self._timer: asyncio.TimerHandle | None = None
        # uvloop's clock stands still while it waits, and Twisted's may be set back.
        asyncios = isinstance(loop, asyncio.BaseEventLoop)
        self._own_clock = asyncios and type(loop).time is not asyncio.BaseEventLoop.time

    def now(self, loop: asyncio.AbstractEventLoop) -> float:
        """Return the time of the loop's clock; from any thread."""
        return loop.time() if self._own_clock else monotonic()

    def put(self, deadline: Deadline, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        """Put in a deadline that passes after ``seconds``, or a little later; from any thread."""
        at = deadline.at = rounded_up(self.now(loop), seconds)
        moments = self._moments
        while True:
            moment = moments.get(at)
            if moment is None:
                moment = moments.setdefault(at, set())
            deadline.moment = moment
            moment.add(deadline)
            if moments.get(at) is moment:
                break
            # The moment has passed. If the loop has not taken this deadline out, it never will.
            try:
                moment.remove(deadline)
            except KeyError:
                return
        if at < self._next:
            on_loop(loop, self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass the deadlines that are over, and set the timer for the next; on the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = math.inf
        now = self.now(loop)
        for at in sorted(list(self._moments)):  # noqa: C414 - in one step, since others put some in
            if at > now:
                if self._moments[at]:
                    self._next = at
                    self._timer = loop.call_later(at - now, self._turn, loop)
                    break
                continue  # its deadlines were taken out; it is removed when it is over
            moment = self._moments.pop(at)
            while moment:
                # The wait may have begun just now. What was posted for it is done first.
                behind(loop, moment.pop().over, at)


def rounded_up(now: float, seconds: float) -> float:
    """Return a moment, shared by others, after ``seconds``: never sooner, and little later."""
    if not 0 < seconds < math.inf:
        return now + seconds
    grain = _grain(seconds)
    return math.ceil((now + seconds) / grain) * grain


@functools.lru_cache(maxsize=256)
def _grain(seconds: float) -> float:
    """Return a power of two, so that a moment has one number, whatever it was rounded by."""
    return max(FINEST, math.ldexp(1.0, math.frexp(seconds / FINENESS)[1] - 1))


_wheels: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Wheel] = weakref.WeakKeyDictionary()


def wheel_of(loop: asyncio.AbstractEventLoop) -> Wheel:
    """Return a loop's wheel; from any thread."""
    wheel = _wheels.get(loop)
    if wheel is None:
        wheel = _wheels.setdefault(loop, Wheel(loop))
    return wheel
