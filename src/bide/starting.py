"""What the command line does with an application: serves it, explains how, or checks it.

Main thread only. It prints nothing: the command line does.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bide.applications.mounts import Mounts, named
from bide.applications.patched import refuse_patched
from bide.errors import StartError, UsageError
from bide.process.checks import check_all
from bide.process.importing import import_application
from bide.process.reloading import replace_on_change
from bide.process.signals import Signals
from bide.process.signals import StopHeard as StopHeard
from bide.process.worker import open_loop, run_on
from bide.serving.logs import configure
from bide.serving.server import Server
from bide.settings import DEFAULTS, Settings
from bide.transports.contexts import Contexts
from bide.transports.handed_over import HandedOver, take_over

if TYPE_CHECKING:
    from bide.process.member import Member


def start(
    app: tuple[str, ...], settings: Settings, *, explain: bool, watched: tuple[str, ...] | None
) -> Sequence[str]:
    """Serve applications until the server is stopped, or return how they would be run.

    Args:
        app: the applications, as the command line has them.
        settings: all settings.
        explain: do not serve; return a line for each application.
        watched: what is watched beside Python's files, to start anew when it changes; None: nothing
            is watched.

    Raises:
        SettingError: what uses a setting finds it wrong.
        StartError: the application cannot be imported, or the server cannot start.
        StopHeard: a signal has ended the start.
    """
    application = named(app)
    handed_over = take_over(os.environ)
    if watched is not None and not (explain or handed_over.parent):
        configure(dataclasses.replace(settings, access_log=""))
        sys.exit(replace_on_change(settings, handed_over, watched))
    # A parent of Bide's own is there for development: one process is enough.
    several = settings.workers and not (explain or handed_over.parent)
    member = _one_of_several(application, settings, handed_over) if several else None
    with Signals(deaf_to=(signal.SIGINT,) if handed_over.parent else ()) as signals:
        return _serve_until(signals, application, explain, settings, handed_over, member)


def check_application(app: tuple[str, ...], settings: Settings | None) -> list[str | StartError]:
    """Import the applications, and try what can be tried of the settings without serving.

    Args:
        app: the applications, as the command line has them.
        settings: all settings, or None if there are none for a mistake.

    Returns:
        All errors; and a line for each application that says how it would be run.
    """
    found: list[str | StartError] = []
    with Signals() as signals:
        try:
            if not app:
                raise UsageError("there is no application to import: write MODULE:NAME")
            application = import_application(named(app), settings or DEFAULTS, signals)
            found += _decided(application, settings or DEFAULTS)
        except StartError as error:
            found.append(error)
    return [*found, *(check_all(settings) if settings is not None else [])]


def _one_of_several(app: str | Mounts, settings: Settings, handed_over: HandedOver) -> Member:
    """Run the supervisor, which ends with ``SystemExit``; return in each of its workers."""
    # What only a server with several processes needs is not loaded for one that is alone.
    from bide.process.member import patience
    from bide.process.supervisor import supervise

    def load() -> Mounts:
        return import_application(app, settings, None)

    contexts: Contexts | None = None

    def prepare() -> None:
        nonlocal contexts
        contexts = Contexts.of(settings)

    outcome = supervise(settings, str(app), load, handed_over, prepare)
    if isinstance(outcome, int):
        sys.exit(outcome)
    outcome.contexts = contexts
    outcome.begin(patience(settings))
    return outcome


def _serve_until(
    signals: Signals,
    app: str | Mounts,
    explain: bool,
    settings: Settings,
    handed_over: HandedOver,
    member: Member | None,
) -> list[str]:
    """Serve; or, to explain it, import the application and return the lines."""
    loop = open_loop(settings)  # first: the application may import Twisted's reactor
    try:
        if member is not None:
            settle: Callable[[], None] | None = member.settle
        else:
            settle = None if explain else configure(settings)
        mounts = member.application if member is not None else None
        if mounts is None:
            mounts = import_application(app, settings, signals)
        refuse_patched()
        if settle is not None:
            settle()
    except BaseException:
        loop.close()
        raise
    if explain:
        loop.close()
        return _decided(mounts, settings)
    run_on(loop, mounts, settings, "", signals, handed_over, member)
    return []


def _decided(mounts: Mounts, settings: Settings) -> list[str]:
    """Return how each application would be run, and why."""
    where = {
        "loop": "on the event loop",
        "tasks": "on the event loop",
        "threads": f"in threads, up to {settings.threads}",
        "processes": f"in up to {settings.processes} child processes",
        "serial": "one request at a time, on a thread of its own",
    }
    told = {
        "auto": "it is told of the server's start and end if it knows lifespans",
        "on": "it must know lifespans (--lifespan on)",
        "off": "it is not told of the server's start and end (--lifespan off)",
    }
    lines = []
    decisions = Server(mounts, settings).dispatchers.decisions
    for mount, decision in decisions:
        line = f"{mount.path}  {mount.name} runs {where[decision.executor]}: {decision.reason}"
        lines.append(f"{line}; {told[settings.lifespan]}" if mount.interface == "asgi" else line)
    if all(mount.path != "/" for mount, _ in decisions):
        lines.append("/  no application: all other paths are answered 404")
    if settings.root_path:
        where_told = "in SCRIPT_NAME and root_path (--root-path)"
        lines.append(f"{settings.root_path} stands before each path {where_told}")
    return lines
