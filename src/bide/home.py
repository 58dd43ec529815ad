"""The process's event loop for awaitables that are waited for outside a request."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import weakref
from typing import Any, Protocol

from bide.errors import Cancelled, ServerStopping
from bide.locks import holds_lock


class Blocked(Protocol):
    """What blocks a thread until something comes by a loop.

    Attributes:
        loop: that loop.
    """

    loop: asyncio.AbstractEventLoop

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait by raising; from any thread, and more than once."""


class _HomeLoop:
    """The process's loop for awaitables outside a request; any thread.

    A running server lends its own, so that a client made once for the process works in requests
    and in the threads they start; else one background thread runs a loop, started at first need.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: list[asyncio.AbstractEventLoop] = []
        self._own: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        # Who blocks is added and then looks at the loops that were taken back; taking back is the
        # other way round. So one of the two ends the wait.
        self._blocked: set[Blocked] = set()
        self._taken_back: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @holds_lock
    def lend(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lent.append(loop)
            self._taken_back.discard(loop)

    @holds_lock
    def take_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lend a loop no more, and end the waits of blocked threads: it may never turn again."""
        with self._lock:
            self._lent.remove(loop)
            if loop in self._lent:  # another server has lent it, too
                return
            self._taken_back.add(loop)
        for blocked in list(self._blocked):
            if blocked.loop is loop:
                _end(blocked)

    def was_taken_back(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a loop that a server has lent may never turn again; from any thread."""
        return loop in self._taken_back

    def block(self, blocked: Blocked) -> None:
        """Called before a thread blocks; ends its wait when the loop has been taken back."""
        self._blocked.add(blocked)
        if blocked.loop in self._taken_back:
            _end(blocked)

    def unblock(self, blocked: Blocked) -> None:
        """Called when the thread goes on."""
        self._blocked.discard(blocked)

    @holds_lock
    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._pid != os.getpid():  # a forked child has the objects, not the threads
                self._pid = os.getpid()
                self._own = None
            for loop in self._lent:
                if loop.is_running():
                    return loop
            if self._own is None:
                self._own = _start_loop()
            return self._own

    @holds_lock
    def close(self) -> None:
        """End the background loop when the program ends."""
        with self._lock:
            if self._own is not None and self._pid == os.getpid():
                self._own.call_soon_threadsafe(self._own.stop)


def _end(blocked: Blocked) -> None:
    blocked.cancel(ServerStopping("the server stops"), firm=True)


def _start_loop() -> asyncio.AbstractEventLoop:
    """Run a new loop in a daemon thread of the system's, also where gevent has put greenlets there.

    asyncio's running loop belongs to the thread: in a greenlet of the same one it would be
    everybody's. The loop is made in its own thread, as gevent's selector belongs to that.
    """
    made: list[asyncio.AbstractEventLoop] = []
    ready = threading.Lock()
    ready.acquire()

    def run() -> None:
        made.append(asyncio.new_event_loop())
        ready.release()
        made[0].run_forever()

    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        monkey.get_original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name="bide-background-loop", daemon=True).start()
    ready.acquire()
    return made[0]


home_loop = _HomeLoop()
atexit.register(home_loop.close)
# A lock held by another thread at the fork would stay held in the child for ever.
os.register_at_fork(after_in_child=home_loop.__init__)  # type: ignore[misc]
