"""Importing the application into the process that is to serve it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from bide.applications.loading import ApplicationFailed
from bide.applications.mounts import Mounts
from bide.forks import end_child
from bide.process.signals import Signals
from bide.settings import Settings


def import_application(
    app: Any, settings: Settings, signals: Signals | None, name: str = ""
) -> Mounts:
    """Import an application, or several. A child that one forks while it is imported ends here.

    Args:
        app: its name, as ``module:name``; or several by their paths; or what is imported already.
        settings: ``app_dir`` and ``interface`` count.
        signals: entered before; one that comes meanwhile ends the import. None: it does as the
            system does.
        name: what to call it in the log.

    Raises:
        LoadError: there is no such application, or its own code has failed.
        StopHeard: a signal came.
    """
    process = os.getpid()
    called = str(app) if isinstance(app, (str, Mounts)) else "the application"
    ending = signals.ending(f"{called} was imported") if signals is not None else nullcontext()
    try:
        with ending:
            mounts = Mounts.of(app).resolve(settings, name)
    except ApplicationFailed as error:
        if os.getpid() != process:
            end_child(error.__cause__)
        raise
    if os.getpid() != process:
        end_child()
    return mounts
