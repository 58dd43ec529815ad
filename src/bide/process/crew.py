"""The processes of a server, as its supervisor handles them: forked, told, heard, ended.

It does what a :class:`bide.process.fleet.Fleet` decides, and tells that what has happened.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, NoReturn

from bide.forks import how_it_ended, reaped
from bide.process.asking import Asking
from bide.process.fleet import Fleet
from bide.process.heartbeat import Cells, Pulse
from bide.process.links import Link
from bide.process.listeners import SHARED, Listeners
from bide.process.member import Member
from bide.process.preloading import Zygotes
from bide.process.processes import Process, fork
from bide.process.slots import Hands, Worker
from bide.process.zygote import preload
from bide.settings import Settings

log = logging.getLogger("bide")


class Forked(BaseException):
    """Raised in a forked worker: the supervisor's calls end there.

    Args:
        member: what the process is.
    """

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member


class Crew(Hands):
    """All processes of a server.

    Args:
        settings: how the workers serve.
        load: imports the application; called in another process.
        settle: called in a worker when it has the application.
        listeners: the sockets.

    Attributes:
        fleet: decides; set before anything else is called.
        processes: those of workers.
        asking: asks the workers what they do; None: nobody wants to know.
        closing: functions that are called in each child, to close what is the supervisor's own.
    """

    fleet: Fleet

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Any],
        settle: Callable[[], None],
        listeners: Listeners,
    ) -> None:
        self._preloads = settings.preload
        self._load = load
        self._settle = settle
        self._listeners = listeners
        self._cells = Cells()
        self.processes: dict[Worker, Process] = {}
        self.asking: Asking | None = None
        self.closing: list[Callable[[], None]] = []
        self._unborn: list[Worker] = []  # to be forked when there is a zygote
        self._stillborn: list[Worker] = []  # that could not be forked
        self._warned = False
        self._kept = False
        self._zygotes = Zygotes(self._forked, self._be_zygote, self._fork_unborn)

    def begin(self) -> None:
        """Start the workers; with ``preload`` when the application is imported."""
        if self._preloads:
            self._zygotes.start(self.fleet)
        else:
            self.fleet.tick()

    def reload(self) -> None:
        """Replace the workers; with ``preload`` when the application is imported again."""
        if self._preloads:
            self._zygotes.reload(self.fleet)
        else:
            self.fleet.reload()

    @property
    def links(self) -> list[Link]:
        """What is to be polled."""
        found = [each.link for each in self._all]
        return [each for each in found if each.open]

    @property
    def hurried(self) -> bool:
        """Whether :meth:`hear` has something to do without being told."""
        return bool(self._stillborn)

    def hear(self) -> None:
        """Look at what has been said, and at who has ended."""
        for process in list(self.processes.values()):
            self._hear(process)
        if self._preloads:
            self._zygotes.hear(self.fleet)
        self._reap()
        while self._stillborn:
            self.fleet.ended(self._stillborn.pop())

    def keep(self) -> None:
        """Tell all workers, and those to come, that the sockets outlive the server."""
        self._kept = True
        for each in self.processes.values():
            each.link.send("keep")

    def warn(self) -> None:
        """Tell all workers, and those to come, that the server will stop soon."""
        self._warned = self.fleet.stops_soon = True
        for each in self.processes.values():
            if each.ready:
                each.link.send("warn")

    def reopen(self) -> None:
        """Have all open their log files anew; those to come have the files of this process."""
        for each in self._all:
            each.link.send("reopen")

    def forward(self, number: signal.Signals) -> None:
        """Send a signal to all workers that serve, and so have a handler for it.

        Unlike what is sent by a link, it is answered where the event loop is blocked, too.
        """
        for worker, each in self.processes.items():
            if each.ready and not worker.ending:
                each.send_signal(number)

    def count(self, process: Process) -> int:
        """Return a worker's signs of life."""
        return self._cells.count(process.cell)

    def end(self) -> None:
        """End the processes that are not workers, when all workers have ended."""
        for each in self._zygotes.all:
            each.kill()
            os.waitpid(each.pid, 0)

    @property
    def _all(self) -> list[Process]:
        return [*self.processes.values(), *self._zygotes.all]

    # Workers: what the fleet has decided --------------------------------------------------------

    def boot(self, slot: int) -> Worker:
        """Fork a worker, here or in the zygote."""
        worker = Worker(slot, monotonic())
        if not self._preloads:
            self._fork(worker)
        elif self._zygotes.ready is None:
            self._unborn.append(worker)
        else:
            self._ask(self._zygotes.ready, worker)
        return worker

    def _forked(self) -> tuple[int, Link, socket.socket]:
        """Fork a child; return its number, 0 in itself, and both ends of the pair."""
        link, theirs = Link.pair()

        def in_child() -> None:
            link.close()
            self._close_here()

        try:
            return fork(in_child), link, theirs
        except OSError:
            link.close()
            theirs.close()
            raise

    def _cannot_fork(self, worker: Worker, error: OSError) -> None:
        log.error("a worker cannot be started: %s", error.strerror)
        self._stillborn.append(worker)

    def _fork(self, worker: Worker) -> None:
        cell = self._cells.take()
        try:
            pid, link, theirs = self._forked()
        except OSError as error:
            self._cells.give_back(cell)
            self._cannot_fork(worker, error)
            return
        if pid == 0:
            member = Member(worker.slot, Link(theirs), self._cells, cell, self._settle)
            raise Forked(member)
        theirs.close()
        self.processes[worker] = Process(link, worker, pid, cell)
        self._welcome(worker)

    def _ask(self, zygote: Process, worker: Worker) -> None:
        """Have a zygote fork a worker."""
        try:
            link, theirs = Link.pair()
        except OSError as error:
            self._cannot_fork(worker, error)
            return
        cell = self._cells.take()
        zygote.link.send(f"fork {worker.slot} {cell}", [theirs], closing=True)
        self.processes[worker] = Process(link, worker, 0, cell)
        self._welcome(worker)

    def _welcome(self, worker: Worker) -> None:
        """Send a new worker the sockets that it accepts from in any case."""
        if self._kept:
            self._tell(worker, "keep")
        if self._listeners.shared:
            self.accept(worker, SHARED)
        for slot in worker.accepts:
            self.accept(worker, slot)

    def accept(self, worker: Worker, slot: int) -> None:
        """Send a worker the sockets of a slot."""
        process = self.processes.get(worker)
        if process is not None:  # else it is sent them when it is forked
            sockets = self._listeners.of(slot)
            process.link.send(f"accept {slot} {len(sockets)}", sockets)

    def leave(self, worker: Worker, slot: int) -> None:
        """Tell a worker to accept no more from a slot's sockets."""
        self._tell(worker, f"leave {slot}")

    def retire(self, worker: Worker) -> None:
        """Tell a worker to finish and end."""
        self._tell(worker, "retire")

    def stop(self, worker: Worker) -> None:
        """Tell a worker to close its sockets, too."""
        self._tell(worker, "stop")

    def kill(self, worker: Worker) -> None:
        """End a worker at once."""
        process = self.processes.get(worker)
        if process is not None:
            process.kill()
        elif worker in self._unborn:
            self._unborn.remove(worker)
            self._stillborn.append(worker)

    def _tell(self, worker: Worker, line: str) -> None:
        process = self.processes.get(worker)
        if process is not None:
            process.link.send(line)

    # Workers: what they say, and how they end ---------------------------------------------------

    def _hear(self, process: Process) -> None:
        worker = process.worker
        assert worker is not None
        process.link.flush()
        for words in process.link.receive():
            if words[0] == "pid":
                process.pid = int(words[1])
                if process.doomed:
                    process.kill()
            elif words[0] == "ready":
                process.ready = True
                self._introduce(process)
                if self._warned:
                    process.link.send("warn")
                process.pulse = Pulse(self._cells.count(process.cell))
                self.fleet.ready(worker)
            elif words[0] == "left":
                worker.accepting = False
            elif words[0] == "renew":
                self.fleet.renew(worker, " ".join(words[1:]))
            elif words[0] == "signalled":
                self.fleet.signalled(worker)
        if not process.link.open and not process.pid:
            self._ended(process, "could not be forked")

    def _introduce(self, process: Process) -> None:
        """Have a worker answer what it does, from a thread of its own."""
        if self.asking is None or process.worker is None:
            return
        try:
            theirs = self.asking.introduce(process.worker.slot + 1)
        except OSError as error:
            log.error("%s cannot be asked what it does: %s", process.name, error.strerror)
            return
        process.link.send("tell", [theirs], closing=True)

    def _reap(self) -> None:
        """Take the ends of all children, of strangers too, which process 1 is given."""
        for pid, status in reaped():
            process = self._process(pid)
            if process is None:
                continue
            how = how_it_ended(os.waitstatus_to_exitcode(status))
            if process.worker is None:
                self._zygotes.ended(process, how, self.fleet)
            else:
                self._ended(process, how)

    def _process(self, pid: int) -> Process | None:
        for each in self._all:
            if not each.pid:
                self._hear(each)  # it said which it is before it ended
            if each.pid == pid:
                return each
        return None

    def _ended(self, process: Process, how: str) -> None:
        worker = process.worker
        assert worker is not None
        del self.processes[worker]
        process.link.close()
        self._cells.give_back(process.cell)
        if worker.ending:
            log.debug("%s %s", process.name, how)
        elif process.ready:
            log.error("%s %s: it is replaced", process.name, how)
        else:
            log.error("%s %s before it was ready", process.name, how)
        self.fleet.ended(worker)

    # The zygote ---------------------------------------------------------------------------------

    def _be_zygote(self, link: Link) -> NoReturn:
        application, slot, cell, worker = preload(link, self._load)
        raise Forked(Member(slot, worker, self._cells, cell, self._settle, application))

    def _fork_unborn(self) -> None:
        waiting, self._unborn = self._unborn, []
        assert self._zygotes.ready is not None
        for worker in waiting:
            self._ask(self._zygotes.ready, worker)

    # In a forked child --------------------------------------------------------------------------

    def _close_here(self) -> None:
        """Close in a child what is the supervisor's."""
        self._listeners.close_here()
        for each in self._all:
            each.link.close()
        for close in self.closing:
            close()
