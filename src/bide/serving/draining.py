"""How a server finishes what is in progress: what has come is served, the rest is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from bide.serving.arrival import Arrival
from bide.serving.connection import Connection
from bide.serving.dispatchers import Dispatchers
from bide.serving.rounds import abort_all, drain_all
from bide.transports.acceptor import Acceptor
from bide.waiting.cleanups import cleanup_time

log = logging.getLogger("bide")


def finishing(dispatchers: Dispatchers, seconds: float) -> str:
    """Return what a server that stops has to finish, for the log; from any thread.

    Args:
        dispatchers: the server's.
        seconds: how long that may take.
    """
    number = dispatchers.in_progress
    what = [f"{number} request{'s' if number > 1 else ''}"] if number else []
    if dispatchers.spawned:
        what.append("background work")
    if not what:
        return "no requests are in progress"
    return f"finishing {' and '.join(what)}, {seconds:g} s at most"


class Draining:
    """The end of one server's requests and connections; on its loop.

    Args:
        acceptor: the server's.
        dispatchers: the server's.
        connections: the server's, as they come and go.
        seconds: how long requests may take to end by themselves.
        flush: begins the calls that were submitted.

    Attributes:
        finish_by: when these seconds are over, by the loop's clock; 0 before the end.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        dispatchers: Dispatchers,
        connections: set[Connection | Arrival],
        seconds: float,
        flush: Callable[[], None],
    ) -> None:
        self._acceptor = acceptor
        self._dispatchers = dispatchers
        self._connections = connections
        self._seconds = seconds
        self._begin = flush
        self.finish_by = 0.0

    async def finish(self) -> None:
        """Accept what has come and no more; let requests end in time, then cancel those left."""
        loop = asyncio.get_running_loop()
        self.finish_by = loop.time() + self._seconds
        while not self._acceptor.accept_waiting() and loop.time() < self.finish_by:
            # No descriptor is left for them: idle connections make room, and those that end.
            loop.call_soon(self._drain)
            await asyncio.sleep(0.01)
        self._acceptor.close()
        # Not in this task's own step: what begins now would run as if it were the task.
        loop.call_soon(self._drain)
        await asyncio.sleep(0)
        dispatchers = self._dispatchers
        while await dispatchers.all_ended(self.finish_by - loop.time()):
            if not await self.flush() and not dispatchers.spawned:
                await dispatchers.end_spawned()
                return
        spawned = dispatchers.spawned
        number = dispatchers.cancel()
        if number:
            log.warning("%d requests have not ended in time: they are cancelled", number)
        if spawned:
            log.warning("background work has not ended in time: %s", ", ".join(spawned))
        if not await dispatchers.all_ended(cleanup_time.seconds):
            abort_all(self._connections)  # which ends those that hang on their own clients
            await dispatchers.all_ended(1.0)
            dispatchers.name_left()
        await dispatchers.end_spawned()
        await self.flush(last=True)

    async def flush(self, last: bool = False) -> bool:
        """Wait while clients take what is queued for them; then a second for all that are left.

        A request may begin meanwhile: where a handshake ends, or behind a response that the client
        had not taken. It has all the time that is left, so this returns true at once; else false.

        Args:
            last: whether the time is over, so that such a request is refused, and not waited for.
        """
        loop = asyncio.get_running_loop()
        # However many begin one after the other: a second behind the end of the time at most.
        soon = (loop.time() if last else min(loop.time(), self.finish_by)) + 1.0
        while self._connections:
            if self._dispatchers.in_progress and not last:
                return True
            now = loop.time()
            if now < self.finish_by and any(each.sending for each in self._connections):
                soon = now + 1.0  # the last bytes are still on their way when all were sent
            elif now >= soon:
                break
            loop.call_soon(self._drain)  # as above
            await asyncio.sleep(0.01)
        return False

    def _drain(self) -> None:
        try:
            drain_all(self._connections)
        finally:
            self._begin()
