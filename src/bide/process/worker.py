"""A process that is a server: it serves one application until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

from bide.applications.patched import refuse_patched
from bide.capabilities import Decision
from bide.errors import StartError
from bide.forks import Threads, share_loop
from bide.process.interruptions import end_tasks, run_through
from bide.process.leaving import allow
from bide.process.signals import Signals
from bide.serving.lines import flush
from bide.serving.logs import configure
from bide.serving.server import Server
from bide.settings import Settings
from bide.waiting.cleanups import cleanup_time
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application

log = logging.getLogger("bide")


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


async def serve(application: Application, settings: Settings, name: str, signals: Signals) -> None:
    """Serve until SIGINT or SIGTERM; a second one ends the process at once.

    With ``reactor="twisted"`` the running loop must be from :func:`open_loop`.
    """
    server = Server(application, settings, name=name)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    twisted = _reactor().running_on(loop, stopping.set) if settings.reactor == "twisted" else None
    with signals.attach(loop, stopping.set):
        if not await _start(server, stopping):
            return
        log.info(
            "serving %s on %s, %s",
            server.dispatcher.name,
            ", ".join(_clickable(each) for each in server.addresses),
            _how(server.dispatcher.decision, settings),
        )
        try:
            await stopping.wait()
        finally:
            allow(settings.graceful_timeout)
            await server.stop()
            if twisted is not None:
                await twisted.finish(settings.graceful_timeout)
            log.info("stopped")


async def _start(server: Server, stopping: asyncio.Event) -> bool:
    """Start a server; return false if a signal came first, while ``on_start`` functions ran."""
    starting = asyncio.ensure_future(server.start())
    heard = asyncio.ensure_future(stopping.wait())
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


def _clickable(address: str) -> str:
    return address if address.startswith("unix:") else f"http://{address}"


def _how(decision: Decision, settings: Settings) -> str:
    if decision.executor == "loop":
        return "on the event loop"
    if decision.executor == "serial":
        return "one request at a time on a thread of its own"
    return "in one thread" if settings.threads == 1 else f"in up to {settings.threads} threads"


def run(
    application: Application, settings: Settings | None = None, *, name: str = "", **options: Any
) -> None:
    """Serve a WSGI application until SIGINT or SIGTERM, then finish what is in progress.

    Blocks the calling thread, which must be the main one and run no event loop. Logging is
    configured for a program that is the server; to serve inside your own asyncio program use
    :class:`Server`.

    Args:
        application: the WSGI callable.
        settings: how to serve.
        name: what to call the application in the log.
        **options: single settings by name instead, as in :class:`Settings`.

    Raises:
        StartError: the server cannot start; the message is one line for the deployer.
    """
    if threading.current_thread() is not threading.main_thread():
        raise StartError(
            "bide.run is for the main thread, the only one to which Python gives signals: on "
            "another one, run bide.Server in an event loop of its own"
        )
    if asyncio._get_running_loop() is not None:
        raise StartError(
            "bide.run makes an event loop, and one runs on this thread already: use "
            "'async with bide.Server(app)' in that"
        )
    refuse_patched()
    chosen = settings if settings is not None else Settings(**options)
    with Signals() as signals:
        configure(chosen)
        run_on(open_loop(chosen), application, chosen, name, signals)


def run_on(
    loop: asyncio.AbstractEventLoop,
    application: Application,
    settings: Settings,
    name: str,
    signals: Signals,
) -> None:
    """Serve, as :func:`run`, on a loop from :func:`open_loop`.

    The loop runs on afterwards, in a thread, so that what was made on it can be closed there. One
    that is Twisted's reactor is closed.

    Args:
        loop: made before the application was imported.
        application: the WSGI callable.
        settings: how to serve.
        name: what to call the application in the log.
        signals: entered before the application was imported.
    """
    try:
        try:
            run_through(loop, serve(application, settings, name, signals))
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
