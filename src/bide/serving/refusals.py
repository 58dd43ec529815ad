"""What a server refuses, in few lines of the log: a count of each kind, once a second at most.

A few of the refused may have lines of their own. This knows nothing of requests: who refuses one
counts it here, by its kind.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from http import HTTPStatus
from typing import Final

from bide.errors import RemoteProtocolError
from bide.serving.counters import REJECTED, count, count_malformed

log = logging.getLogger("bide")

EVERY: Final = 1.0
"""Seconds at least between two lines of one kind."""

_REASONS: Final[dict[str, str]] = {}


def kind(line: str, reason: str) -> str:
    """Return a kind of what is refused; in the metrics it is counted by its reason, one word.

    Args:
        line: the line of the log, with a place for the number, and perhaps one for an example.
        reason: why.
    """
    _REASONS[line] = reason
    return line


QUEUE_FULL: Final = kind(
    "requests refused: {} were answered 503: all threads are busy, and the queue is full (--queue)",
    "queue_full",
)
QUEUE_TIMEOUT: Final = kind(
    "requests refused: {} were answered 503: they had waited too long for a thread "
    "(--queue-timeout)",
    "queue_timeout",
)
STOPPING: Final = kind(
    "requests refused: {} were answered 503: the server stops, and no thread had become free",
    "stopping",
)
WAITED: Final = "connections delayed: {} waited until others had ended (--limit-connections)"
_OVERLOAD: Final = {QUEUE_FULL, QUEUE_TIMEOUT}


def refused(status: int) -> str:
    """Return the kind of the malformed requests that are answered with ``status``."""
    phrase = HTTPStatus(status).phrase
    line = f"requests refused: {{}} were refused with {status} {phrase}; the last: {{}}"
    return kind(line, str(status))


class Refusals:
    """Counts what is refused, and logs it from time to time.

    Args:
        told: how many refused requests may have lines of their own at once; one more each second.
    """

    def __init__(self, told: int = 20) -> None:
        # Appending is atomic. It is emptied once a second, so it stays small.
        self._seen: deque[tuple[str, str]] = deque()
        self._quiet = 0.0  # until then nothing is logged
        self._told = told
        self._tokens = [True] * told  # taking one is atomic
        self._added = 0.0  # when the last token was
        self._insecure = 0
        self._reason = ""  # of the last one

    @property
    def some(self) -> bool:
        """Whether some are counted that are not in the log yet."""
        return bool(self._seen)

    def count(self, kind: str, example: str = "") -> None:
        """Count one; from any thread.

        Args:
            kind: its kind, which is the line of the log.
            example: the last one that comes before a line is in it.
        """
        reason = _REASONS.get(kind)
        if reason is not None:  # else it is only delayed, or not believed
            count(REJECTED, reason)
        self._seen.append((kind, example))

    def malformed(self, error: RemoteProtocolError, scheme: str) -> None:
        """Count a request that is answered with an error before it was one; on the loop."""
        self.count(refused(error.status), str(error))
        count_malformed(scheme, error.status)

    def unanswered(self, error: RemoteProtocolError, client: str) -> None:
        """Count a connection that is ended for what its client sends, or a stream that is refused.

        On the loop. The reasons are few: each has a line of its own.
        """
        what = "connections ended" if error.ends else "requests refused"
        reason = error.ends or error.again
        line = kind(f"{what}: {{}} ({reason}), the last: {{}}", reason)
        self.count(line, f"{error} ({client or 'on a Unix socket'})")

    def insecure(self, reason: str) -> None:
        """Count a TLS handshake that has failed; on the loop. All of them have one line."""
        count(REJECTED, "tls_handshake")
        self._insecure += 1
        self._reason = reason

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
        if not (self._seen or self._insecure) or now < self._quiet:
            return
        self._quiet = now + EVERY
        if self._insecure:
            log.info("TLS handshakes failed: %d, the last: %s", self._insecure, self._reason)
            self._insecure = 0
        examples: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for _ in range(len(self._seen)):
            kind, examples[kind] = self._seen.popleft()
            seen[kind] += 1
        for kind, number in sorted(seen.items()):
            level = logging.WARNING if kind in _OVERLOAD else logging.INFO
            log.log(level, "%s", kind.format(number, examples[kind]))
