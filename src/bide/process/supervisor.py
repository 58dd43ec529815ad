"""The process above the workers: it starts, watches, replaces and ends them.

It has one thread and no event loop, and never imports the application. So it can fork at any time,
and nothing that the application does holds it up. What is to be done is decided in
:mod:`bide.process.slots`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import Any, Final

from bide.environment import with_address
from bide.errors import BindError, StartError
from bide.process.counting import number_of_workers
from bide.process.crew import Crew, Forked
from bide.process.fleet import RELOAD, Fleet
from bide.process.heartbeat import BEAT
from bide.process.listeners import Listeners, told
from bide.process.member import Member, patience
from bide.process.processes import HANDLED
from bide.process.reception import Hands, Reception
from bide.process.service import Service
from bide.process.signals import answered, unheard
from bide.process.slots import START
from bide.process.terminal import has_terminal, how_at_once
from bide.process.upgrade import Versions
from bide.process.watch import Watch
from bide.process.wear import check_memory_is_known
from bide.process.worker import listed, scheme_of
from bide.process.zygote import adopt_orphans, check_is_possible
from bide.serving.lines import reopen, start_no_threads
from bide.serving.logs import configure
from bide.settings import Settings
from bide.transports.addresses import NOTHING
from bide.transports.handed_over import HandedOver

log = logging.getLogger("bide")

NEVER_READY: Final = 3
"""The exit code where no worker could be started; systemd and others need not try again."""


def _nothing_to_prepare() -> None:
    return


def supervise(
    settings: Settings,
    name: str,
    load: Callable[[], Any],
    handed_over: HandedOver = NOTHING,
    prepare: Callable[[], None] = _nothing_to_prepare,
) -> Member | int:
    """Run the supervisor of this server; on the main thread, before there are others.

    Args:
        settings: how many workers, and how they serve.
        name: what the application is called in the log.
        load: imports the application; called in another process.
        handed_over: sockets that listen already.
        prepare: called before the first worker is forked and at each reload, to make what all
            workers share. When it raises StartError, nothing is started or replaced.

    Returns:
        In the supervisor its exit code; in each worker what it is.

    Raises:
        StartError: the server cannot be started.
    """
    check_memory_is_known(settings)
    if settings.preload:
        check_is_possible(settings.reactor)
        adopt_orphans()
    start_no_threads()
    settle = configure(settings)
    if handed_over.warning:
        log.warning("%s", handed_over.warning)
    settings = with_address(settings, handed_over.enough, os.environ)
    listeners = Listeners(settings)
    crew = Crew(settings, load, settle, listeners)
    before = told(os.environ)
    supervisor = Supervisor(settings, name, crew, listeners, Versions(before), prepare)
    try:
        supervisor.listen(before, handed_over)
        return supervisor.run()
    except Forked as forked:
        return forked.member
    except StartError:
        supervisor.close()
        raise


class Supervisor:
    """See the module; :func:`supervise` makes it."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        crew: Crew,
        listeners: Listeners,
        versions: Versions,
        prepare: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._name = name
        self._listeners = listeners
        self._versions = versions
        self._prepare = prepare
        self._watch = Watch(crew, settings.worker_timeout)
        self._service = Service(settings, fresh=lambda: self._watch.fresh)
        self._watchdog_due = inf
        self._terminal = has_terminal()
        self._stop_at = inf  # the end of the drain's delay
        self._asked = False  # by a signal to stop
        self._code = 0
        size = number_of_workers(settings.workers)
        self._crew = crew
        self._crew.closing.append(self._close_here)
        self._fleet = self._crew.fleet = Fleet(size, self._crew, monotonic, patience(settings))
        hands = Hands(
            lambda: self._answer(signal.SIGTERM),
            lambda: self._reload("bide reload"),
            self._more,
            self._fleet.fewer,
        )
        self._reception = Reception(settings, name, lambda: listeners.addresses, self._fleet, hands)
        self._crew.asking = self._reception.asking
        self._reader, self._writer = socket.socketpair()
        for each in (self._reader, self._writer):
            each.setblocking(False)

    # Life ---------------------------------------------------------------------------------------

    def listen(self, before: Mapping[str, Any] | None, handed_over: HandedOver) -> None:
        """Have sockets.

        Args:
            before: what the version before has told; None: there is none.
            handed_over: sockets that listen already.

        Raises:
            StartError: an address cannot be listened on, or another server has the PID file.
        """
        if before is None:
            self._service.starting()
            self._listeners.open(handed_over)
            self._reception.open()
        else:
            self._listeners.inherit(before)
            self._crew.keep()  # the version before has them, too

    def run(self) -> int:
        """Start the workers and watch them until all have ended; return the exit code."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for handled in answered(HANDLED):  # behind that: none is lost to a handler of nothing
            signal.signal(handled, unheard)
        try:
            self._listeners.of(self._fleet.size - 1)
        except OSError as error:
            raise BindError(f"cannot listen for all workers: {error.strerror}") from error
        self._fleet.have_sockets(self._listeners.slots)
        number = self._fleet.size
        log.info(
            "listening on %s: starting %d %s (pid %d)",
            listed(self._listeners.addresses, scheme_of(self._settings)),
            number,
            "worker" if number == 1 else "workers",
            os.getpid(),
        )
        self._prepare()
        self._crew.begin()
        while not (self._fleet.stopping and not self._crew.processes):
            self._step()
        return self._finish()

    def _finish(self) -> int:
        self._crew.end()
        beside = self._versions.beside
        self.close()
        if self._fleet.failed:
            log.error("stopped: no worker could be started")
            return NEVER_READY
        if not beside:
            self._service.stopped(0.0)
        log.info("stopped")
        return self._code

    def close(self) -> None:
        """Close all that is open here; the sockets for all, unless another version goes on."""
        signal.set_wakeup_fd(-1)
        self._reception.remove()
        if self._versions.shared:
            self._listeners.close_here()
        else:
            self._listeners.close()
        self._close_here()

    def _step(self) -> None:
        """Wait until something happens, and do what is to be done then."""
        heard = self._wait()
        # Signals first: a worker's message may be of the same signal, sent to the whole group.
        for number in heard:
            self._answer(signal.Signals(number))
        self._reception.look()  # before the crew takes the ends of all children, its own too
        self._crew.hear()
        self._hear_successor()
        self._watch.look()
        now = monotonic()
        if now >= self._stop_at:
            log.info("stopping: %s", self._finishing())
            self._end()
        if now >= self._watchdog_due:
            self._watchdog_due = now + self._service.watchdog.look(now)
        self._fleet.tick()
        self._tell_completed()

    def _wait(self) -> bytes:
        watched = select.poll()
        watched.register(self._reader, select.POLLIN)
        for link in self._crew.links:
            watched.register(link, select.POLLIN | (select.POLLOUT if link.behind else 0))
        self._reception.register(watched)
        if self._versions.successor is not None:
            watched.register(self._versions.successor, select.POLLIN)
        until = min(self._fleet.next_due, self._watch.next_due, self._stop_at, self._watchdog_due)
        until = min(until, self._reception.next_due)
        seconds = min(max(0.0, until - monotonic()), BEAT)
        # Rounded up: else it would be asked again and again in the last millisecond.
        watched.poll(0 if self._crew.hurried else int(seconds * 1000) + 1)
        try:
            return self._reader.recv(4096)
        except BlockingIOError:
            return b""

    # Signals ------------------------------------------------------------------------------------

    def _answer(self, number: signal.Signals) -> None:
        fleet = self._fleet
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._stop(number)
        elif number == signal.SIGUSR1:
            self._crew.forward(number)
            self._reopen()
        elif fleet.stopping or number == signal.SIGCHLD:
            return
        elif number == signal.SIGHUP and self._terminal and not has_terminal():
            self._stop(number)  # nobody asks for a reload
        elif fleet.stops_soon and number in (signal.SIGHUP, signal.SIGUSR2):
            log.warning("%s is ignored: the server is about to stop", number.name)
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGUSR2:
            self._versions.start(self._listeners, self._reception.path, self._crew.keep)
        elif number == signal.SIGTTIN:
            if self._more():
                log.info("%d workers from now on (SIGTTIN)", fleet.size)
        elif number == signal.SIGTTOU:
            if fleet.fewer():
                log.info("%d workers from now on (SIGTTOU)", fleet.size)
            else:
                log.warning("there is only one worker: it is not ended (SIGTTOU)")

    def _stop(self, number: signal.Signals) -> None:
        again = self._asked and self._fleet.stopping  # else it stops for another version
        self._asked = True
        if again or number == signal.SIGQUIT:
            if again:
                log.warning("stopped at once, by a second signal")
            else:
                log.info("stopped at once (%s)", number.name)
            self._code = 128 + number
            self._fleet.kill()
            return
        delay = self._settings.drain_delay if number == signal.SIGTERM else 0.0
        if delay and self._stop_at == inf and self._fleet.serving and not self._fleet.stopping:
            log.info("stopping in %g s: accepting until then (%s)", delay, number.name)
            self._stop_at = monotonic() + delay
            self._crew.warn()
            self._service.stopping(delay)
            return
        log.info("stopping: %s; %s", self._finishing(), how_at_once(number))
        self._end()

    def _finishing(self) -> str:
        number = len(self._fleet.workers)
        whose = f"{number} workers" if number > 1 else "the worker"
        return f"finishing the requests of {whose}, {self._settings.graceful_timeout:g} s at most"

    def _end(self, handing_over: bool = False) -> None:
        """Have all workers end."""
        handing_over |= self._versions.shared
        self._stop_at = inf
        if not self._versions.beside:
            self._service.stopping(0.0)
        if not handing_over:
            self._listeners.remove_paths()
        self._fleet.stop(handing_over)
        self._listeners.close_here()

    def _more(self) -> bool:
        """Have one worker more, if there can be."""
        if self._versions.successor is not None:  # which would not have its sockets
            log.error("no worker can be added while another version takes over")
            return False
        try:
            self._listeners.of(self._fleet.size)
        except OSError as error:
            log.error("no worker can be added: %s", error.strerror)
            return False
        self._store()
        return self._fleet.more()

    def _store(self) -> None:
        """Have systemd keep the sockets over a restart, if it does that."""
        if self._service.store(self._listeners.all):
            self._listeners.leave_open()
            self._crew.keep()

    def _reload(self, by: str = "SIGHUP") -> None:
        log.info("reloading: workers are replaced, one after the other (%s)", by)
        self._service.reloading()
        self._reopen()  # also in workers that stay, if the reload is given up
        try:
            self._prepare()
        except StartError as error:
            self._fleet.refuse_reload(str(error))
            return
        self._crew.reload()

    def _reopen(self) -> None:
        """Open the log files anew, here and in all other processes."""
        reopen()
        self._crew.reopen()

    def _hear_successor(self) -> None:
        if successor := self._versions.hear():
            self._service.reloaded(successor)
            self._end(handing_over=True)

    def _tell_completed(self) -> None:
        what = self._fleet.completed()
        if not what:
            return
        if what == START:
            number = self._fleet.size
            workers = "1 worker" if number == 1 else f"{number} workers"
            where = listed(self._listeners.addresses, scheme_of(self._settings))
            status = f"serving {self._name} on {where}, with {workers}"
            self._store()
            self._service.serving(status)
            if self._service.watchdog.interval:
                self._watchdog_due = 0.0
            log.info("%s", status)
            if self._versions.predecessor is not None:
                self._reception.open(self._versions.control, beside=True)
                self._versions.serve()
                self._reopen()  # nobody could tell this process before
            return
        if what == RELOAD:
            log.info("reloaded: all workers are new")
        self._service.reloaded()

    def _close_here(self) -> None:
        """Close what is the supervisor's own, at its end or in a child."""
        self._reader.close()
        self._writer.close()
        self._versions.close()
        self._reception.close()
