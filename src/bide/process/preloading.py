"""``--preload`` as the supervisor sees it: the process that imports the application, and the next.

Workers are forked from the one that is ready. A reload takes another one; until that is ready,
workers are forked from the one before. Where there is none, they wait.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final, NoReturn

from bide.process.fleet import SETTLED, Fleet
from bide.process.links import Link
from bide.process.processes import Process
from bide.process.slots import pause

log = logging.getLogger("bide")

NOT_LOADED: Final = "the application cannot be loaded"


class Zygotes:
    """The zygotes of a server.

    Args:
        fork: forks a child; returns its number, 0 in itself, and both ends of the pair.
        become: called in a zygote with its end of the pair; it does not return.
        can_fork: called when workers can be forked.

    Attributes:
        ready: the one that workers are forked from; None: there is none yet, or it has ended.
    """

    def __init__(
        self,
        fork: Callable[[], tuple[int, Link, socket.socket]],
        become: Callable[[Link], NoReturn],
        can_fork: Callable[[], None],
    ) -> None:
        self.ready: Process | None = None
        self._coming: Process | None = None
        self._fork = fork
        self._become = become
        self._can_fork = can_fork
        self._reloading = False  # the one that is coming is for a reload
        self._failures = 0
        self._due = 0.0  # when one is started where there is none
        self._since = 0.0  # when the last one was ready

    @property
    def all(self) -> list[Process]:
        """Those that there are: the one that is ready, and the one that imports."""
        return [each for each in (self.ready, self._coming) if each is not None]

    def start(self, fleet: Fleet) -> None:
        """Start one.

        Args:
            fleet: is told when a reload is given up.
        """
        try:
            pid, link, theirs = self._fork()
        except OSError as error:
            log.error("%s: %s", NOT_LOADED, error.strerror)
            self._failures += 1
            self._due = monotonic() + pause(self._failures)
            self._give_up_reload(fleet)
            return
        if pid == 0:
            self._become(Link(theirs))
        theirs.close()
        self._coming = Process(link, pid=pid)

    def reload(self, fleet: Fleet) -> None:
        """Start one that has the application as it is now; all workers are replaced then."""
        if self._coming is not None:
            self._coming.kill()
            self._lose(self._coming)
        self._reloading = True
        self.start(fleet)

    def hear(self, fleet: Fleet) -> None:
        """Look at what has been said, and start one where there is none."""
        for each in self.all:
            each.link.flush()
        if not self.all and not fleet.stopping and monotonic() >= self._due:
            self.start(fleet)
        coming = self._coming
        if coming is None or not coming.link.receive():  # it says one thing: that it is ready
            return
        before, self.ready, self._coming = self.ready, coming, None
        coming.ready = True
        self._since = monotonic()
        self._can_fork()
        if before is not None:
            before.link.close()  # it ends
        if self._reloading:
            self._reloading = False
            fleet.reload()
        else:
            fleet.tick()

    def ended(self, process: Process, how: str, fleet: Fleet) -> None:
        """Called when one of them has ended.

        Args:
            process: the one.
            how: for the log.
            fleet: stops where nothing serves and nothing can be forked.
        """
        loading = process is self._coming
        self._lose(process)
        if fleet.stopping:
            return
        log.error("%s %s", process.name, how)
        if loading and self.ready is None and not fleet.ever_ready:
            fleet.fail()
        elif loading:
            self._give_up_reload(fleet)
        if self.ready is None:
            if process.ready and monotonic() - self._since > SETTLED:
                self._failures = 0
            self._failures += 1
            self._due = monotonic() + pause(self._failures - process.ready)

    def _give_up_reload(self, fleet: Fleet) -> None:
        if self._reloading:
            self._reloading = False
            fleet.refuse_reload(NOT_LOADED)

    def _lose(self, process: Process) -> None:
        process.link.close()
        if process is self.ready:
            self.ready = None
        elif process is self._coming:
            self._coming = None
