"""What a server refuses, in few lines of the log: a count of each kind, once a second at most.

A few of the refused may have lines of their own. This knows nothing of requests: who refuses one
counts it here, by its kind.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from http import HTTPStatus
from typing import Final

log = logging.getLogger("bide")

EVERY: Final = 1.0
"""Seconds at least between two lines of one kind."""

QUEUE_FULL: Final = (
    "requests refused: {} were answered 503: all threads are busy, and the queue is full (--queue)"
)
QUEUE_TIMEOUT: Final = (
    "requests refused: {} were answered 503: they had waited too long for a thread "
    "(--queue-timeout)"
)
STOPPING: Final = (
    "requests refused: {} were answered 503: the server stops, and no thread had become free"
)
WAITED: Final = "connections delayed: {} waited until others had ended (--limit-connections)"
_OVERLOAD: Final = {QUEUE_FULL, QUEUE_TIMEOUT}


def refused(status: int) -> str:
    """Return the kind of the malformed requests that are answered with ``status``."""
    return f"requests refused: {{}} were refused with {status} {HTTPStatus(status).phrase}"


class Refusals:
    """Counts what is refused, and logs it from time to time.

    Args:
        told: how many refused requests may have lines of their own at once; one more each second.
    """

    def __init__(self, told: int = 20) -> None:
        # Appending is atomic. It is emptied once a second, so it stays small.
        self._seen: deque[str] = deque()
        self._quiet = 0.0  # until then nothing is logged
        self._told = told
        self._tokens = [True] * told  # taking one is atomic
        self._added = 0.0  # when the last token was

    @property
    def some(self) -> bool:
        """Whether some are counted that are not in the log yet."""
        return bool(self._seen)

    def count(self, kind: str) -> None:
        """Count one; from any thread."""
        self._seen.append(kind)

    def may_tell(self) -> bool:
        """Return whether one that was counted may have lines of its own; from any thread.

        A refused request costs its client nothing. So no client can fill a disk with them.
        """
        try:
            return self._tokens.pop()
        except IndexError:
            return False

    def report(self, now: float) -> None:
        """Log a line for each kind that was counted, unless the last ones are too recent.

        Args:
            now: monotonic seconds; infinite: whatever is left is logged.
        """
        if now - self._added >= EVERY and len(self._tokens) < self._told:
            self._added = now
            self._tokens.append(True)
        if not self._seen or now < self._quiet:
            return
        self._quiet = now + EVERY
        seen = Counter(self._seen.popleft() for _ in range(len(self._seen)))
        for kind, number in sorted(seen.items()):
            level = logging.WARNING if kind in _OVERLOAD else logging.INFO
            log.log(level, "%s", kind.format(number))
