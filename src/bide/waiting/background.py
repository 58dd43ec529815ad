"""The process's event loop for awaitables that are waited for outside a request."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable

from bide.compiling import mypyc_attr
from bide.errors import Cancelled, ServerStopping, WaitError
from bide.systems import at_fork
from bide.waiting.foreign import start_thread
from bide.waiting.locks import Lock, holds_lock

log = logging.getLogger("bide")


@mypyc_attr(allow_interpreted_subclasses=True)
class Blocked:
    """A thread that is blocked until a loop brings an outcome.

    Attributes:
        loop: that loop.
    """

    __slots__ = ()

    loop: asyncio.AbstractEventLoop

    def cancel(self, cancellation: Cancelled, firm: bool = False) -> None:
        """End the wait by raising; from any thread, and more than once."""
        raise NotImplementedError


class _BackgroundLoop:
    """The process's loop for awaitables outside a request; called from any thread.

    A running server lends its own loop. So a client object made once for the process works in
    requests, and in threads that they start. Without a server, a background thread runs a loop,
    started at first need. That loop turns for as long as the process lives, so that ``atexit``
    functions may wait, in any order.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew; in a forked child, too, which has the objects and not the threads."""
        self._lock = Lock()
        self._lent: list[asyncio.AbstractEventLoop] = []
        self._own: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        # `block` adds the thread, and then checks whether its loop was taken back. `take_back`
        # notes the loop, and then checks who is blocked. So one of the two ends the wait.
        self._blocked: set[Blocked] = set()
        self._taken_back: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def lend(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._lent.append(loop)
            self._taken_back.discard(loop)

    def take_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called when a server stops lending a loop: end the waits of threads blocked by it."""
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

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._pid != os.getpid():  # a forked child has the objects, not the threads
                self._pid = os.getpid()
                self._own = None
            for loop in self._lent:
                if loop.is_running():
                    return loop
            if self._own is None:
                self._own = _start_loop(self._turn)
            return self._own

    def keep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on running a loop whose server has ended, in a background thread.

        So what the application has made on it can still be closed: by ``atexit`` functions, or by
        the program that goes on after its server. From now on it is the process's background loop.
        """
        start_thread(self._turn, loop)
        with self._lock:
            self._taken_back.discard(loop)
            self._pid = os.getpid()
            self._own = loop

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run a loop for ever, even when the application raises into it or stops it."""
        try:
            while True:
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as error:
                    log.error(
                        "the application has raised an error in the event loop, which goes on",
                        exc_info=error,
                    )
        finally:  # an error of the loop itself, or it is closed
            if self._own is loop:
                self._own = None  # whoever waits next gets a new one


def _end(blocked: Blocked) -> None:
    blocked.cancel(ServerStopping("the server stops"), firm=True)


def _start_loop(turn: Callable[[asyncio.AbstractEventLoop], None]) -> asyncio.AbstractEventLoop:
    """Run a new loop in a thread. It is made there, since a selector may belong to its thread."""
    made: list[asyncio.AbstractEventLoop] = []
    ready = threading.Lock()
    ready.acquire()

    def run() -> None:
        try:
            made.append(asyncio.new_event_loop())
        finally:
            ready.release()
        turn(made[0])

    try:
        start_thread(run)
    except RuntimeError as error:  # the interpreter is ending (Python 3.12), or out of threads
        raise WaitError(
            f"waiting is not possible here: no event loop is started ({error})"
        ) from error
    ready.acquire()
    if not made:
        raise WaitError("waiting is not possible here: no event loop could be made")
    return made[0]


background_loop = _BackgroundLoop()
# A lock held by another thread at the fork would stay held in the child for ever.
at_fork(after_in_child=background_loop.forget)


holds_lock(
    _BackgroundLoop.lend,
    _BackgroundLoop.take_back,
    _BackgroundLoop.get,
    _BackgroundLoop.keep,
)
