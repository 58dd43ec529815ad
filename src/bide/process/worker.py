"""A process that is a server: it serves one application until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Unpack

from bide.applications.mounts import Mounts
from bide.applications.patched import refuse_patched
from bide.capabilities import Decision
from bide.configuration import from_keywords
from bide.environment import with_address
from bide.errors import StartError
from bide.forks import Threads, share_loop
from bide.keywords import Keywords
from bide.process.importing import import_application
from bide.process.instance import answering
from bide.process.interruptions import end_tasks, run_through
from bide.process.leaving import allow, left
from bide.process.notify import Watchdog
from bide.process.service import Service
from bide.process.signals import Signals
from bide.serving.draining import finishing
from bide.serving.lines import flush, reopen
from bide.serving.logs import configure
from bide.serving.server import Server
from bide.settings import Settings
from bide.systems import refuse_windows
from bide.transports.addresses import NOTHING
from bide.transports.handed_over import HandedOver, take_over
from bide.waiting.cleanups import cleanup_time
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application

if TYPE_CHECKING:
    from bide.process.member import Member

log = logging.getLogger("bide")

ORPHANED: Final = 1.0
"""Seconds after which it is looked whether a parent is still there."""


def open_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """Make the process's event loop; with ``reactor="twisted"`` it is Twisted's reactor, too.

    Call it before the application is imported, since that may import the reactor.

    Raises:
        StartError: Twisted is not installed, or has another reactor already.
    """
    loop = asyncio.new_event_loop()
    share_loop(loop)
    loop.set_default_executor(Threads(thread_name_prefix="asyncio"))
    if settings.reactor == "twisted":
        try:
            _reactor().install(loop)
        except BaseException:
            loop.close()
            raise
    return loop


def _reactor() -> Any:
    try:
        from bide.hosts.twisted import reactor
    except ImportError as error:
        raise StartError(
            f"--reactor twisted needs Twisted, which cannot be imported ({error}): "
            "pip install 'bide[twisted]'"
        ) from error
    return reactor


def reactor_of(
    settings: Settings, loop: asyncio.AbstractEventLoop, stop: Callable[[], object]
) -> Any:
    """Start Twisted's reactor if the settings want it; return it, or None.

    Args:
        settings: the setting ``reactor``.
        loop: the running loop.
        stop: called when the application stops the reactor.
    """
    return _reactor().running_on(loop, stop) if settings.reactor == "twisted" else None


async def serve(
    application: Application | Mounts,
    settings: Settings,
    name: str,
    signals: Signals,
    handed_over: HandedOver = NOTHING,
) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends the process at once.

    With ``reactor="twisted"`` the running loop must be from :func:`open_loop`.

    Raises:
        ApplicationFailed: an ASGI application could not go on, so the server has stopped.
    """
    if handed_over.warning:
        log.warning("%s", handed_over.warning)
    settings = with_address(settings, handed_over.enough, os.environ)
    server = Server(application, settings, name=name, handed_over=handed_over)
    loop = asyncio.get_running_loop()
    stop = Stop()
    lifetime = server.dispatcher.lifetime
    lifetime.on_failure = stop.ask
    service = Service(settings)
    service.starting()

    def reload() -> None:
        service.reloading()
        reopen()
        if settings.certificate:
            server.renew_certificates()
        log.info("SIGHUP: log files were reopened; restart the server to load new code")
        service.reloaded()

    def left_to_finish() -> str:
        return finishing(server.dispatchers, settings.graceful_timeout)

    twisted = reactor_of(settings, loop, stop.ask)
    # Who develops waits for the next version.
    delay = 0.0 if handed_over.parent else settings.drain_delay
    if handed_over.parent:
        _end_with(handed_over.parent, loop, stop)
    application_name = server.dispatchers.decisions[0][0].name
    with (
        answering(settings, application_name, lambda: server.addresses),
        signals.attach(loop, stop.ask, delay, reload, left_to_finish),
    ):
        if not await start(server, stop):
            return
        status = _status(server, settings)
        try:
            if service.store(server.acceptor.listeners):
                server.acceptor.leave_open()
            service.serving(status)
            log.info("%s", status)
            _keep_watch(loop, service.watchdog)
            await stop.asked.wait()
            server.retire()
            service.stopping(stop.seconds)
            if await stop.delay():
                log.info("stopping: %s", left_to_finish())
                service.stopping(0.0)
        finally:
            allow(settings.graceful_timeout)
            await server.stop()
            if twisted is not None:
                await twisted.finish(settings.graceful_timeout)
            service.stopped(left())
            log.info("stopped")
    if lifetime.failure is not None:
        raise lifetime.failure


def _status(server: Server, settings: Settings) -> str:
    served = [mount for mount, _ in server.dispatchers.decisions]
    one = len(served) == 1
    names = served[0].name if one else " ".join(f"{each.path}={each.name}" for each in served)
    where = listed(server.addresses, scheme_of(settings))
    return f"serving {names} on {where}, {how_all_run(server, settings)}"


def how_all_run(server: Server, settings: Settings) -> str:
    """Return in words on which threads a server's applications run."""
    decisions = server.dispatchers.decisions
    if len(decisions) == 1:
        return how_it_runs(decisions[0][1], settings)
    return ", ".join(
        f"{mount.path} {how_it_runs(decision, settings)}" for mount, decision in decisions
    )


def _end_with(parent: int, loop: asyncio.AbstractEventLoop, stop: Stop) -> None:
    if os.getppid() != parent:  # it was killed: nobody else ends this process
        stop.ask()
    else:
        loop.call_later(ORPHANED, _end_with, parent, loop, stop)


def _keep_watch(loop: asyncio.AbstractEventLoop, watchdog: Watchdog) -> None:
    # A loop that is blocked does not come here: that is enough to see that it lives.
    if watchdog.interval:
        loop.call_later(watchdog.look(monotonic()), _keep_watch, loop, watchdog)


class Stop:
    """Whether a server is to stop, and when; on its loop.

    Attributes:
        asked: set when it is to stop, at once or later.
        seconds: how much later.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._due = asyncio.Event()
        self.seconds = 0.0

    def ask(self, seconds: float = 0.0) -> None:
        """Have it stop after some seconds; or, if it was asked already, at once."""
        if seconds and not self.asked.is_set():
            self.seconds = seconds
        else:
            self._due.set()
        self.asked.set()

    async def delay(self) -> bool:
        """Wait until it is to stop; return false if it was to stop at once."""
        if not self.seconds:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._due.wait(), self.seconds)
        return True


async def start(server: Server, stop: Stop) -> bool:
    """Start a server; return false if a signal came first, while ``on_start`` functions ran."""
    starting = asyncio.ensure_future(server.start())
    heard = asyncio.ensure_future(stop.asked.wait())
    await asyncio.wait((starting, heard), return_when=asyncio.FIRST_COMPLETED)
    heard.cancel()
    if starting.done():
        starting.result()
        return True
    allow(0.0)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    log.info("stopped")
    return False


def scheme_of(settings: Settings) -> str:
    """Return what the server's URLs begin with."""
    return "https" if settings.certificate else "http"


def listed(addresses: Iterable[str], scheme: str) -> str:
    """Return addresses for the log, so that a terminal makes links of them."""
    return ", ".join(
        each if each.startswith("unix:") else f"{scheme}://{each}" for each in addresses
    )


def how_it_runs(decision: Decision, settings: Settings) -> str:
    """Return in words on which threads an application runs."""
    if decision.executor in ("loop", "tasks"):
        return "on the event loop"
    if decision.executor == "processes":
        one = settings.processes == 1
        return "in one child process" if one else f"in up to {settings.processes} child processes"
    if decision.executor == "serial":
        return "one request at a time on a thread of its own"
    return "in one thread" if settings.threads == 1 else f"in up to {settings.threads} threads"


def run(
    application: Application | Mounts | str,
    settings: Settings | None = None,
    *,
    name: str = "",
    **options: Unpack[Keywords],
) -> None:
    """Serve an application until SIGINT or SIGTERM; then finish the requests in progress.

    It blocks the calling thread, which must be the main thread and must not run an event loop. It
    configures logging for the whole program. To serve inside your own asyncio program, use
    :class:`bide.Server`.

    Args:
        application: a callable, WSGI (PEP 3333) or ASGI (3.0); ``"module:name"``; or the result of
            :func:`bide.mount`.
        settings: all settings at once. None: they come from ``options``, then from the variables
            ``BIDE_...`` of the environment, then from the defaults.
        name: what to call the application in the log.
        **options: single settings by name, as in :class:`bide.Settings`.

    Raises:
        StartError: the server cannot start; this is not the main thread; or the server has stopped
            because an ASGI application failed. The message is one line.
        TypeError: there is no such option; or settings were given, and options too.
    """
    refuse_windows()
    if threading.current_thread() is not threading.main_thread():
        raise StartError(
            "bide.run needs the main thread, because Python delivers signals only there: on "
            "another thread, run bide.Server in an event loop"
        )
    if asyncio._get_running_loop() is not None:
        raise StartError(
            "bide.run starts an event loop, but this thread runs one already: use 'async with "
            "bide.Server(app)' in it; in a notebook 'server = bide.Server(app)' and "
            "'await server.start()'"
        )
    chosen = from_keywords(settings, options, os.environ)
    refuse_patched()
    # Not for a variable, which a hoster may have set for all programs.
    if options.get("workers") or (settings is not None and settings.workers):
        raise StartError(
            "bide.run serves in this process: start several workers by the command line, as in "
            "'bide --workers 4 module:app'"
        )
    handed_over = take_over(os.environ)
    with Signals() as signals:
        settle = configure(chosen)
        loop = open_loop(chosen)
        try:
            imported = import_application(application, chosen, signals, name)
            refuse_patched()
            settle()
        except BaseException:
            loop.close()
            raise
        run_on(loop, imported, chosen, name, signals, handed_over)


def run_on(
    loop: asyncio.AbstractEventLoop,
    application: Application | Mounts,
    settings: Settings,
    name: str,
    signals: Signals,
    handed_over: HandedOver = NOTHING,
    member: Member | None = None,
) -> None:
    """Serve, as :func:`run`, on a loop from :func:`open_loop`.

    The loop runs on afterwards, in a thread, so that what was made on it can be closed there. One
    that is Twisted's reactor is closed.

    Args:
        loop: made before the application was imported.
        application: the callable, or several.
        settings: how to serve.
        name: what to call the application in the log.
        signals: entered before the application was imported.
        handed_over: sockets that listen already.
        member: what this process is among several workers; None: it is the only one.
    """
    if member is None:
        serving = serve(application, settings, name, signals, handed_over)
    else:
        serving = member.serve(application, settings, name, signals)
    try:
        try:
            run_through(loop, serving)
        finally:
            if not loop.is_closed():
                run_through(loop, end_tasks(cleanup_time.seconds))
    except BaseException:
        loop.close()
        raise
    finally:
        flush()
    if settings.reactor == "twisted":
        loop.close()  # as its reactor is
    else:
        background_loop.keep(loop)
