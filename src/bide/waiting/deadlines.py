"""When a wait is over: its time-out, the end of the time to clean up, or that of its promise."""

from __future__ import annotations

import asyncio
import math

from bide.waiting.loops import on_loop
from bide.waiting.outcome import Over, Subscription, Wait, give_up, withdraw


class Deadline:
    """One wait's; asked for on the waiting thread, kept on the loop.

    When it is over, the promise is asked for its outcome: on the loop, in the same step. So a
    result that is there has won, and none can come between. The promise then has a while to end;
    if it does not, the wait ends without it.

    Args:
        patience: seconds that a promise has to end in.
    """

    __slots__ = ("_at", "_handle", "_loop", "_patience", "_subscription", "_wait")

    def __init__(
        self,
        wait: Wait,
        subscription: Subscription,
        loop: asyncio.AbstractEventLoop,
        patience: float,
    ) -> None:
        self._wait = wait
        self._subscription = subscription
        self._loop = loop
        self._patience = patience
        self._handle: asyncio.TimerHandle | None = None
        self._at = math.inf

    def set(self, seconds: float, why: Over, sooner: bool = False) -> None:
        """End the wait in so many seconds, in place of the time that was set before.

        Raises RuntimeError when the loop is closed.

        Args:
            seconds: from now on.
            why: what the wait is over for then.
            sooner: keep what was said before, if that is sooner.
        """
        on_loop(self._loop, self._arm, seconds, why, sooner)

    def give_patience(self) -> None:
        """Bound the time that a cancelled promise has to end; then the wait ends without it."""
        if not self._loop.is_closed():
            on_loop(self._loop, self._arm, self._patience, "cancelled", False)

    def _arm(self, seconds: float, why: Over, sooner: bool) -> None:
        at = self._loop.time() + seconds
        if self._handle is not None:
            if sooner and self._at <= at:
                return
            self._handle.cancel()
        if not self._wait.reason:
            self._at = at
            self._handle = self._loop.call_later(seconds, self._pass, why)

    def _pass(self, why: Over) -> None:
        wait = self._wait
        if wait.reason:
            return
        if wait.over or wait.ending == "cancelled":  # it was asked, and has not ended
            give_up(wait)
            return
        # A cancellation that was first, and that the waiting thread has still to see, counts.
        wait.over = "cancelled" if wait.interrupted else why
        if self._subscription.on_thread:
            wait.interrupt()
        else:
            self._handle = self._loop.call_later(self._patience, self._pass, why)
            withdraw(self._subscription.cancel, wait)

    def drop(self) -> None:
        """Drop the deadline; from the waiting thread."""
        if not self._loop.is_closed():
            on_loop(self._loop, self._drop)

    def _drop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
