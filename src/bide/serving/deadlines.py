"""How long a connection's client may still be waited for, checked from time to time.

A head, and the time between requests, belong to the connection; a body and a response belong to
their stream. All of them are counted here, from what the protocol says at each check. A request
costs no timer, and a request that begins and ends between two checks costs nothing. How exact a
deadline is depends on how often the server checks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from bide.exchange.stream import Stream
from bide.exchange.totals import Total
from bide.protocols.interfaces import BODY, HEAD, IDLE, RESPONSE, WHOLE, Protocol
from bide.settings import Settings


@dataclass(frozen=True, slots=True)
class Allowances:
    """What a client may take; in seconds where nothing else is said.

    Attributes:
        idle: between requests, and for a body and a response to begin to move.
        head: for a head.
        response: for a response as a whole; 0 for any time.
        rate: bytes a second that a body or a response must move; 0 for any rate.
        held: for what is queued for a client, where that asks for more than ``rate``: who has much
            held must take it the faster.
        held_when_full: the same while as much is queued, for all clients together, as may be.
        hurry: what a client may lose then before it is given up; those with the most held go first.
    """

    idle: float
    head: float
    response: float = 0.0
    rate: float = 0.0
    held: float = 1800.0
    held_when_full: float = 60.0
    hurry: float = 5.0

    @staticmethod
    def of(settings: Settings) -> Allowances:
        """Return those that the settings ask for."""
        return Allowances(
            settings.idle_timeout,
            settings.head_timeout,
            settings.response_timeout,
            settings.min_rate,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """One check of the time of all clients.

    Attributes:
        elapsed: seconds since the last check.
        allowances: what a client may take.
        unsent: what waits for all clients together.
        crowded: whether others wait for idle connections to end.
    """

    elapsed: float
    allowances: Allowances
    unsent: Total
    crowded: bool = False


class ClientTime:
    """The seconds that a client has left, for a stream or for its connection.

    Each phase begins with an allowance: of a head, or of an idle connection; but a body and a
    response have one together, else who sends and takes by turns would begin anew for ever. Bytes
    of a body or a response that move earn time back, each ``rate`` of them a second, or more of
    them where much is held.

    Attributes:
        looks: how many checks have found the stream waiting for its body before it began.
    """

    __slots__ = ("_credit", "_fed", "_phase", "_responding", "_taken", "_worked", "looks")

    def __init__(self) -> None:
        self._phase = ""  # at the last check
        self._credit = 0.0  # seconds that this may still take
        self._fed = 0  # how far the client had come with a body
        self._taken = 0  # and with a response
        self._responding = 0.0  # seconds that the response has taken
        self._worked = False  # the application, at the last check
        self.looks = 0

    def begin(self) -> None:
        """Begin anew: a request has come since the last check."""
        self._phase = ""
        self._responding = 0.0

    def spend(
        self, look: Look, phase: str, responding: bool, fed: int, taken: int, held: int
    ) -> str:
        """Subtract the elapsed time from what the client has left; return the overdue phase, or "".

        Args:
            look: this check.
            phase: what the client is waited for; "" while the application is at work.
            responding: whether a response has begun, and the client does not have all of it.
            fed: bytes of the body that have come.
            taken: grows with each byte of the response that the client takes.
            held: bytes that wait for the client.
        """
        elapsed, allowances = look.elapsed, look.allowances
        self._responding = self._responding + elapsed if responding else 0.0
        if 0 < allowances.response <= self._responding:
            return WHOLE
        if not phase:
            self._worked = True
            return ""  # the client's time goes on where it was
        gained = fed - self._fed if phase == BODY else taken - self._taken
        self._fed, self._taken = fed, taken
        allowance = allowances.head if phase == HEAD else allowances.idle
        before, self._phase = self._phase, phase
        worked, self._worked = self._worked, False
        moving = phase in (BODY, RESPONSE)
        if before != phase:
            if not (moving and before in (BODY, RESPONSE)):
                self._credit = allowance
                return ""
            if worked:  # for some of the time since the last check
                return ""
        self._credit -= elapsed
        hurried = phase == RESPONSE and look.unsent.full
        if gained > 0 and moving:
            rate = _rate(allowances, held, hurried) if phase == RESPONSE else allowances.rate
            self._credit = min(allowance, self._credit + gained / rate) if rate else allowance
        least = max(0.0, allowance - allowances.hurry) if hurried else 0.0
        over = self._credit <= least or (look.crowded and phase == IDLE)
        return phase if over else ""


def _rate(allowances: Allowances, held: int, hurried: bool) -> float:
    """Return the bytes a second that a client must take of its response; 0: any."""
    if hurried:
        return max(allowances.rate, held / allowances.held_when_full)
    return allowances.rate and max(allowances.rate, held / allowances.held)


_NO_TIMES: Final[dict[Stream, ClientTime]] = {}  # never changed; most connections need no other


class Deadlines:
    """The time of one connection's client: the connection's own, and that of each of its streams.

    Attributes:
        begun: set when a stream begins: the connection's own time begins anew with it.
    """

    __slots__ = ("_own", "_times", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._own = ClientTime()
        self._times = _NO_TIMES  # of streams that their client was waited for

    def looks(self, stream: Stream) -> int:
        """Return how many checks have found a stream waiting for its body before it began."""
        time = self._times.get(stream)
        return 0 if time is None else time.looks

    def shaking(self, look: Look) -> bool:
        """Count the time of a handshake, which has that of a head; return whether it is over."""
        return bool(self._own.spend(look, HEAD, False, 0, 0, 0))

    def look(
        self, look: Look, protocol: Protocol, streams: list[Stream], held: Collection[Stream]
    ) -> list[tuple[str, Stream | None]]:
        """Count the elapsed time; return the phases that are overdue, with the stream of each.

        Args:
            look: this check.
            protocol: says what the client is waited for.
            streams: those in progress.
            held: those of them that begin when their bodies have come.
        """
        over: list[tuple[str, Stream | None]] = []
        if self._times:
            self._forget(protocol, streams)
        if self.begun:
            self.begun = False
            self._own.begin()
        for stream in streams:
            unsent = protocol.unsent(stream)
            if unsent is not None:
                phase = RESPONSE
            elif stream.body.awaited or stream in held:
                phase = BODY
            else:  # the application is at work: nothing is to be counted, in most cases
                phase = ""
            time = self._times.get(stream)
            if time is None:
                if not (phase or (look.allowances.response and stream.head_sent)):
                    continue
                if self._times is _NO_TIMES:
                    self._times = {}
                time = self._times[stream] = ClientTime()
            time.looks += stream in held
            responding = (unsent is not None or stream.head_sent) and not protocol.endless(stream)
            unsent = unsent or 0
            sent = stream.sent - unsent
            what = time.spend(look, phase, responding, stream.body.fed, sent, unsent)
            if what:
                over.append((what, stream))
        unsent = None if streams else protocol.unsent(None)
        phase = protocol.awaits if unsent is None else RESPONSE
        if phase:
            responding = unsent is not None and not protocol.endless(None)
            unsent = unsent or 0
            what = self._own.spend(look, phase, responding, 0, -unsent, unsent)
            if what:
                over.append((what, None))
        return over

    def _forget(self, protocol: Protocol, streams: list[Stream]) -> None:
        """Forget the times of streams that have ended, but for one whose last bytes wait."""
        for stream in [each for each in self._times if each not in streams]:
            time = self._times.pop(stream)
            if protocol.unsent(None) is not None:
                self._own = time
