"""How long a client may still be waited for, looked at from time to time.

This knows numbers only: what a connection does, and how far its client has come with it.
"""

from __future__ import annotations

from typing import Final

from bide.settings import Settings

# What a connection does, as far as time limits it; see ClientTime.
IDLE: Final = "idle"  # between requests
HEAD: Final = "head"  # a request has begun to come, or the rest of one that was answered comes
BODY: Final = "body"  # the application waits for more of a body
RESPONSE: Final = "response"  # the client has to take what was sent to it

HELD: Final = 1800.0
"""Seconds in which a client must take what is queued for it, where that asks for more than the rate
that is required of everybody: who has much held must take it the faster."""
HELD_WHEN_FULL: Final = 60.0
"""The same while as much is queued, for all clients together, as may be."""
HURRY: Final = 5.0
"""Seconds that a client may be slower then; those with the most held are given up first."""


class ClientTime:
    """The seconds that one client has left; on the loop.

    Each phase begins with an allowance: of ``head_timeout`` seconds, or of ``idle_timeout``; but a
    body and a response have one together, else who sends and takes by turns would begin anew for
    ever. Bytes of a body or a response that move earn time back, each ``min_rate`` of them a
    second, or more of them where much is held.

    Attributes:
        worked: whether the application was at work at the last look.
    """

    __slots__ = ("_credit", "_fed", "_phase", "_responding", "_taken", "worked")

    def __init__(self) -> None:
        self._phase = ""  # what the last look saw
        self._credit = 0.0  # seconds that this may still take
        self._fed = 0  # how far the client had come with a body
        self._taken = 0  # and with a response
        self._responding = 0.0  # seconds that the response has taken
        self.worked = False

    def begin(self) -> None:
        """Called when a request has begun since the last look."""
        self._phase = ""
        self._responding = 0.0

    def spent_on_response(self, elapsed: float, responding: bool) -> float:
        """Count and return the seconds that the response in progress has taken."""
        self._responding = self._responding + elapsed if responding else 0.0
        return self._responding

    def goes_on(
        self,
        elapsed: float,
        phase: str,
        settings: Settings,
        fed: int,
        taken: int,
        held: int,
        full: bool,
        crowded: bool,
    ) -> bool:
        """Take what has elapsed from what the client has; whether it has time left.

        Args:
            elapsed: seconds since the last look.
            phase: what the connection does.
            settings: the allowances.
            fed: bytes of the body that have come.
            taken: grows with each byte of the response that the client takes.
            held: bytes that wait for the client.
            full: whether as many wait for all clients together as may.
            crowded: whether others wait for an idle connection to end.
        """
        gained = fed - self._fed if phase is BODY else taken - self._taken
        self._fed, self._taken = fed, taken
        allowance = settings.head_timeout if phase is HEAD else settings.idle_timeout
        before, self._phase = self._phase, phase
        worked, self.worked = self.worked, False
        moving = phase is BODY or phase is RESPONSE
        if before is not phase:
            if not (moving and before in (BODY, RESPONSE)):
                self._credit = allowance
                return True
            if worked:  # the application, for some of the time since the last look
                return True
        self._credit -= elapsed
        hurried = phase is RESPONSE and full
        if gained > 0 and moving:
            rate = _rate(settings, held, hurried) if phase is RESPONSE else settings.min_rate
            self._credit = min(allowance, self._credit + gained / rate) if rate else allowance
        least = max(0.0, allowance - HURRY) if hurried else 0.0
        return self._credit > least and not (crowded and phase is IDLE)


def _rate(settings: Settings, held: int, hurried: bool) -> float:
    """Return the bytes a second that a client must take of its response; 0: any."""
    if hurried:
        return max(settings.min_rate, held / HELD_WHEN_FULL)
    return settings.min_rate and max(settings.min_rate, held / HELD)
