"""The processes executor: each of its calls has a child process for itself; all on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Container
from time import monotonic
from typing import Any, Final, NoReturn

from bide.children.call import ProcessCall
from bide.children.frames import STOPPING
from bide.children.link import Link
from bide.children.nursery import TOLD, Nursery
from bide.executors.executor import Executor
from bide.executors.hub import Hub
from bide.forks import give_up_each, how_it_ended
from bide.waiting.each import NOT_TOLD, to_each
from bide.waiting.times import Times

log = logging.getLogger("bide")

PAUSE: Final = 1.0
"""Seconds before a child is started in the place of one that has ended before it took a call."""


class ProcessesExecutor(Executor):
    """Makes calls in children, which are started when they are needed.

    Args:
        loop: the server's.
        processes: how many children there may be.
        queue: how many calls may wait for one.
        name: the application's, for the log.
        work: what a child does with its socket; does not return.

    Raises:
        OSError: the system has no room for another process.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        processes: int,
        queue: int,
        name: str,
        work: Callable[[socket.socket], NoReturn],
    ) -> None:
        self._loop = loop
        self._limit = queue
        self._name = name
        self.threads_max = processes
        self._numbers = 0
        self._links: dict[int, Link] = {}  # that have not ended
        self._idle: list[Link] = []  # that are ready
        self._waiting: deque[ProcessCall] = deque()
        self._busy = 0
        self._ending = False
        self._stopping = False
        self._pause: asyncio.TimerHandle | None = None
        self._told = bytearray()
        self._nursery_lives = True
        self.nursery = Nursery(work)
        loop.add_reader(self.nursery.socket, self._listen)

    # What an executor does ------------------------------------------------------------------------

    @property
    def hubs(self) -> list[Hub]:
        """None: its calls wait in their own processes."""
        return []

    @property
    def queued(self) -> int:
        """How many calls wait for a child."""
        return len(self._waiting)

    @property
    def threads(self) -> int:
        """How many children there are."""
        return len(self._links)

    @property
    def threads_busy(self) -> int:
        """How many children make a call."""
        return self._busy

    @property
    def alive(self) -> bool:
        """Whether any of its processes still runs."""
        return self.nursery.lives

    @property
    def able(self) -> bool:
        """Whether there is a child, or one could be started."""
        return self._nursery_lives or bool(self._links)

    def waiter(self) -> Times:
        """Make what counts a new call's time; its waits are the child's."""
        return Times()

    def submit(self, job: Any) -> bool:
        """Begin a call, or let it wait for a child; return false when too many wait."""
        if self._stopping or not self.able:
            return False
        if len(self._waiting) >= self._limit + max(0, self.threads_max - self._busy):
            return False
        job.queue(self, self._busy + len(self._waiting) >= self.threads_max)
        self._waiting.append(job)
        self._go_on()
        return True

    def drop(self, call: ProcessCall) -> None:
        """Remove a call from those that wait."""
        with contextlib.suppress(ValueError):  # an expired one
            self._waiting.remove(call)

    def expire(self, age: float, jobs: Container[object]) -> list[Any]:
        """Remove and return those of ``jobs`` that have waited for a child for so long."""
        before = monotonic() - age
        expired = [each for each in self._waiting if each.queued_at <= before and each in jobs]
        for each in expired:
            self._waiting.remove(each)
        return expired

    def begin_to_stop(self) -> None:
        """Tell each child."""
        self._ending = True
        to_each(self._links.values(), lambda each: each.send(STOPPING), NOT_TOLD)

    def stop(self) -> None:
        """End the children, when every call has ended; what still runs is cancelled, and killed."""
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        to_each(self._links.values(), self._stop, NOT_TOLD)
        if self._nursery_lives:
            self._nursery_lives = False
            self._loop.remove_reader(self.nursery.socket)
            self.nursery.let_end()

    def _stop(self, link: Link) -> None:
        if link.call is not None or not link.pid:
            # It has had the time to clean up; or it has not started yet.
            with contextlib.suppress(OSError):  # the nursery has ended
                self.nursery.kill(link.number)
        link.close()

    def after_fork(self) -> None:
        """Drop the children, in a fork of the server."""
        self._stopping = True
        self._nursery_lives = False
        self.nursery.after_fork()
        give_up_each(self._links.values(), lambda each: each.after_fork())

    # Calls and children -------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Begin what waits, as far as children are ready; start as many as are missing."""
        while self._waiting and self._idle:
            link = self._idle.pop()
            call = self._waiting.popleft()
            self._busy += 1
            if not call.begin(self, link):
                self._busy -= 1
                self._idle.append(link)
        if not self.able:
            while self._waiting:
                self._waiting.popleft().reject(1)
        if self._pause is not None or self._stopping:
            return
        starting = len(self._links) - self._busy - len(self._idle)
        missing = min(len(self._waiting) - starting, self.threads_max - len(self._links))
        for _ in range(missing):
            if not self._start():
                return

    def _start(self) -> bool:
        """Have a child started; return whether that was possible."""
        if not self._nursery_lives:
            return False
        self._numbers += 1
        try:
            link = Link(self._loop, self, self._numbers)
        except OSError as error:
            self._cannot_start(str(error))
            return False
        try:
            self.nursery.fork(link.number, link.its)
        except OSError as error:
            link.close()
            self._cannot_start(str(error))
            return False
        link.its.close()
        self._links[link.number] = link
        return True

    def _cannot_start(self, why: str) -> None:
        log.error("a process of %s cannot be started: %s", self._name, why)
        if self._pause is None and not self._stopping:
            self._pause = self._loop.call_later(PAUSE, self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        self._go_on()

    def ready(self, link: Link) -> None:
        """Called when a child takes calls."""
        if link.ended:
            return
        if self._ending:
            link.send(STOPPING)
        self._idle.append(link)
        self._go_on()

    def release(self, link: Link) -> None:
        """Called when a child's call has ended."""
        self._busy -= 1
        if link.open and not link.ended:
            self._idle.append(link)
        self._go_on()

    def kill(self, link: Link) -> None:
        """End a child at once."""
        link.doomed = True
        with contextlib.suppress(OSError):  # the nursery has ended
            self.nursery.kill(link.number)
            return
        link.close()  # it ends by itself
        self._loop.call_soon(self._gone, link, "was given up")

    def closed(self, link: Link) -> None:
        """Called when a child has closed its socket: it has ended, or must."""
        if link.ended:
            return
        if link in self._idle:
            self._idle.remove(link)
        if self._nursery_lives:
            self.kill(link)  # how it has ended is told
        else:
            self._gone(link, "has ended")

    def _gone(self, link: Link, how: str) -> None:
        """Called when a child has ended."""
        if self._links.pop(link.number, None) is None:
            return
        link.ended = how
        if link in self._idle:
            self._idle.remove(link)
        link.read_rest()
        call = link.call
        if call is not None:
            link.call = None
            assert isinstance(call, ProcessCall)
            if call.died():
                self._busy -= 1
                self._waiting.appendleft(call)
        elif not link.pid and not self._stopping:
            self._cannot_start(how)
        self._go_on()

    # From the nursery ---------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            data = self.nursery.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._nursery_ended()
            return
        self._told += data
        while len(self._told) >= TOLD.size:
            number, _, status, failed = TOLD.unpack_from(self._told)
            del self._told[: TOLD.size]
            link = self._links.get(number)
            if link is not None:
                if failed:
                    self._gone(link, os.strerror(status))
                else:
                    self._gone(link, how_it_ended(os.waitstatus_to_exitcode(status)))

    def _nursery_ended(self) -> None:
        self._nursery_lives = False
        self._loop.remove_reader(self.nursery.socket)
        self.nursery.let_end()
        log.error(
            "the process that starts the processes of %s has ended: they are no longer replaced",
            self._name,
        )
        for link in list(self._links.values()):
            if link.doomed or not link.open:
                self._gone(link, "has ended")  # or will, when it finds its socket closed
