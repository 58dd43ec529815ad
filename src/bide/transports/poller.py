"""Which sockets are ready: all connections of a server behind one entry in the event loop.

asyncio makes a handle, and runs a context, for each ready socket. Here the loop is told once for
all that are ready, and what all of them brought is passed on together. On Linux the loop's one
entry is an epoll of our own. Elsewhere the loop watches each socket.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from typing import Final

from bide.forks import share, unshare
from bide.transports.pollable import Pollable
from bide.waiting.loops import on_loop

log = logging.getLogger("bide")

# epoll's own figures, so that what it finds needs no translation.
READ: Final = 0x001
WRITE: Final = 0x004
GONE: Final = 0x008 | 0x010  # an error, or hung up; found without being watched for
ENDED: Final = 0x2000  # the client has closed its side, behind what is unread; by epoll only

REST: Final = 0.001
"""Seconds of a rest; what comes meanwhile is noticed so much later."""
BATCH: Final = 256
"""Sockets served before the loop's other callbacks have their turn."""


class Poller:
    """Watches descriptors. On the loop, but for ``watch``.

    Attributes:
        loop: the event loop.
        after: called when all that were ready have been served.
        filled: the descriptor that was read last, if as much was there as was asked for, or -1;
            set by whoever reads.
    """

    loop: asyncio.AbstractEventLoop
    after: Callable[[], None]
    filled = -1

    def register(self, descriptor: int, target: Pollable) -> None:
        """Begin to watch a descriptor, to read."""
        raise NotImplementedError

    def watch(self, descriptor: int, events: int) -> None:
        """Set what a registered descriptor is watched for.

        From any thread, under the lock of its transport.
        """
        raise NotImplementedError

    def unregister(self, descriptor: int) -> None:
        """Stop watching a descriptor; called before it is closed."""
        raise NotImplementedError

    def rest(self, then: Callable[[], None]) -> None:
        """Do not poll for REST seconds, or until ``wake``; then call ``then``."""
        raise NotImplementedError

    def wake(self) -> None:
        """End the rest: poll again."""
        raise NotImplementedError

    def serve(self, target: Pollable, events: int) -> None:
        """Serve a target whose socket is not ready, for it holds itself what has come."""
        _serve(target, events)
        self.after()

    def close(self) -> None:
        """End; called when no descriptor is left."""
        raise NotImplementedError


def _nothing() -> None:
    pass


def _serve(target: Pollable, events: int) -> None:
    try:
        target.ready(events)
    except BaseException as error:
        # Perhaps half of what came was taken, so nothing more of it can be right. The error may be
        # one that a signal handler of the application has raised.
        target.abort()
        if not isinstance(error, Exception):
            raise
        log.exception("internal error on a connection: it is closed")


class EpollPoller(Poller):
    """Linux: an epoll whose descriptor the loop watches. ``watch`` is epoll_ctl, any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self.loop = loop
        self.after = after
        self._epoll = select.epoll()
        self._targets: dict[int, Pollable] = {}
        self._timer: asyncio.TimerHandle | None = None  # of the rest
        self._then: Callable[[], None] = _nothing  # called at its end
        self._serving = False
        self._entered = False  # the loop has come again while it was serving
        loop.add_reader(self._epoll.fileno(), self._poll)
        share(self, EpollPoller.after_fork)

    def register(self, descriptor: int, target: Pollable) -> None:
        """Begin to watch a descriptor, to read."""
        self._targets[descriptor] = target
        self._epoll.register(descriptor, READ)

    def watch(self, descriptor: int, events: int) -> None:
        """Set what a descriptor is watched for."""
        self._epoll.modify(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        del self._targets[descriptor]
        self._epoll.unregister(descriptor)

    def rest(self, then: Callable[[], None]) -> None:
        """Do not poll for a while."""
        if self._timer is None:
            self._then = then
            self.loop.remove_reader(self._epoll.fileno())
            self._timer = self.loop.call_later(REST, self.wake)

    def wake(self) -> None:
        """End the rest: poll again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.loop.add_reader(self._epoll.fileno(), self._poll)
            self._then()

    def after_fork(self) -> None:
        """Close the child's descriptor, and take nothing out: the parent's epoll is the same."""
        self._epoll.close()

    def close(self) -> None:
        """End."""
        unshare(self)
        self.wake()
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _poll(self) -> None:
        if self._serving:
            # A request runs the loop a second time (nest_asyncio). What is served now would
            # overtake the rest of the batch. Not watched, for the loop would turn again and again.
            self._entered = True
            self.loop.remove_reader(self._epoll.fileno())
            return
        targets = self._targets
        self._serving = True
        try:
            for descriptor, events in self._epoll.poll(0, BATCH):
                target = targets.get(descriptor)
                if target is None:  # closed by one that was served before it
                    continue
                _serve(target, events)
        finally:
            self._serving = False
            if self._entered:
                self._entered = False
                if self._timer is None and not self._epoll.closed:
                    self.loop.add_reader(self._epoll.fileno(), self._poll)
        self.after()


class LoopPoller(Poller):
    """Anywhere: the event loop watches each descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, after: Callable[[], None]) -> None:
        self.loop = loop
        self.after = after
        self._targets: dict[int, Pollable] = {}
        self._events: dict[int, int] = {}  # watched for, as set last; under the transport's lock
        self._serving = False
        self._entered: list[tuple[int, Pollable]] = []  # ready while another was being served

    def register(self, descriptor: int, target: Pollable) -> None:
        """Begin to watch a descriptor, to read."""
        self._targets[descriptor] = target
        self._events[descriptor] = READ
        self._set(descriptor, target)

    def watch(self, descriptor: int, events: int) -> None:
        """Set what a descriptor is watched for: on the loop at once, from another thread soon."""
        target = self._targets.get(descriptor)
        if target is not None:
            self._events[descriptor] = events
            on_loop(self.loop, self._set, descriptor, target)

    def unregister(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        self._events[descriptor] = 0
        self._set(descriptor, self._targets[descriptor])
        del self._targets[descriptor], self._events[descriptor]

    def rest(self, then: Callable[[], None]) -> None:
        """Rest for one turn of the loop: to unwatch all of them would cost more."""
        self.loop.call_soon(then)

    def wake(self) -> None:
        """Do nothing: it never rests."""

    def close(self) -> None:
        """End."""

    def _set(self, descriptor: int, target: Pollable) -> None:
        if self._targets.get(descriptor) is not target:
            return  # closed, and perhaps used again, before this call came from another thread
        # What was set last: the loop may have set something else since this call was asked for.
        events = self._events[descriptor]
        if events & READ:
            self.loop.add_reader(descriptor, self._ready, descriptor, target, READ)
        else:
            self.loop.remove_reader(descriptor)
        if events & WRITE:
            self.loop.add_writer(descriptor, self._ready, descriptor, target, WRITE)
        else:
            self.loop.remove_writer(descriptor)

    def _ready(self, descriptor: int, target: Pollable, events: int) -> None:
        if self._serving:  # as in EpollPoller
            self._entered.append((descriptor, target))
            self.loop.remove_reader(descriptor)
            self.loop.remove_writer(descriptor)
            return
        self._serving = True
        try:
            _serve(target, events)
        finally:
            self._serving = False
            entered, self._entered = self._entered, []
            for each in entered:
                self._set(*each)
        self.after()


def make_poller(loop: asyncio.AbstractEventLoop, after: Callable[[], None] = _nothing) -> Poller:
    """Make the best poller that this system has."""
    kind = EpollPoller if hasattr(select, "epoll") else LoopPoller
    return kind(loop, after)
