"""Where a conversation waits under another WSGI server: on that server's thread, blocked."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from functools import partial
from threading import Lock
from typing import Any

from greenlet import getcurrent, greenlet

from bide.errors import WaitError
from bide.waiting.adapters import discard
from bide.waiting.outcome import Wait
from bide.waiting.parking import refuse_under_lock
from bide.waiting.thread_locals import apart
from bide.waiting.waiter import Parking, Waiter, background_loop


class HostWaiter(Waiter):
    """Waits on the host's thread."""

    __slots__ = ("_outside",)

    def __init__(self, parking: Parking) -> None:
        super().__init__(background_loop.get(), parking)
        self._outside = asyncio._get_running_loop()  # below which the host calls

    def wait(self, promise: Any, timeout: Any = None) -> Any:
        """Block the thread; raises WaitError where that would stop the host's event loop."""
        if self._outside is not None and asyncio._get_running_loop() is self._outside:
            discard(promise)
            raise WaitError(
                "this server calls the application on a thread that runs an event loop, and "
                "waiting would stop that: make it call applications in threads, or use "
                "bide.hosts.asgi"
            )
        return super().wait(promise, timeout)

    def place_for_client(self) -> Parking:
        """Return where a wait for the request's own client parks: the host goes on meanwhile."""
        refuse_under_lock()
        assert self.parking is not None
        return self.parking


class HostParking(Parking):
    """Where a conversation waits: the host's thread goes on with its own work.

    It must not refer to the host's iterable, so that an iterable which the host drops unclosed is
    closed then.
    """

    def __init__(self, waiting: set[int]) -> None:
        self.since = math.inf  # no other request waits for this thread
        self.name = "the host's thread"
        self._waiting = waiting
        # Settled waits, and None for "check again". Under gevent's patches, a lock can be released
        # from another thread, but a queue cannot be filled from there.
        self._events: deque[Wait | None] = deque()
        self._turnstile = Lock()
        self._turnstile.acquire()
        self.look = partial(self.wake, None)
        self._host: greenlet | None = None
        self.parked: greenlet  # what goes on: the conversation's own, or a library's below it

    def park(self, wait: Wait) -> None:  # noqa: ARG002 - Parking's signature
        """Go back to the host, until the wait is settled."""
        assert self._host is not None
        self.parked = getcurrent()
        self._waiting.add(id(self))
        try:
            apart(self._host.switch)
        finally:
            self._waiting.discard(id(self))

    def wake(self, wait: Wait | None) -> None:
        """Tell the host's thread to go on with the conversation; from any thread."""
        self._events.append(wait)
        try:
            self._turnstile.release()
        except RuntimeError:  # it is open: the thread that comes through takes all events
            pass

    def await_event(self) -> None:
        """Block until the conversation has gone on, or there may be something to send."""
        while not self._events:
            self._turnstile.acquire()
        if self._events.popleft() is not None:
            self.go_on()

    def go_on(self) -> None:
        """Run the conversation until it waits, or has ended."""
        self._host = getcurrent()
        try:
            apart(self.parked.switch)
        finally:
            self._host = None
