"""An application whose calls are made in child processes: what these are told of it."""

from __future__ import annotations

from typing import Any

from bide.children.call import ProcessCall
from bide.children.executor import ProcessesExecutor
from bide.children.worker import ChildSite
from bide.errors import StartError
from bide.executors.choice import Executors
from bide.executors.executor import Executor
from bide.forks import share
from bide.serving.lifetime import Lifetime
from bide.serving.loggers import log
from bide.serving.status import Status
from bide.settings import Settings
from bide.wsgi.site import Site


def in_children(
    user: Site, executors: Executors, settings: Settings
) -> tuple[type[ProcessCall], Executor]:
    """Return what makes an application's calls, and the executor that makes them in children.

    Args:
        user: the application's dispatcher.
        executors: those of the server, of which it becomes one.
        settings: ``processes`` and ``queue`` count.

    Raises:
        StartError: the system has no room for another process.
    """
    lifetime = Lifetime()

    def start() -> dict[str, Any]:
        log.relay = None  # its thread is the server's; what is logged is sent there
        lifetime.start_here()
        return lifetime.state

    site = ChildSite(user.application, user.name, start, lifetime.stop_here, _status)
    try:
        executor = ProcessesExecutor(
            executors.loop, settings.processes, settings.queue, user.name, site.work
        )
    except OSError as error:
        raise StartError(f"no child process can be started: {error}") from error
    share(executor, ProcessesExecutor.after_fork)
    return ProcessCall, executors.adopt(executor, user)


def _status(stopping: bool) -> Status:
    """Return the counts of a child, which makes one call."""
    return Status(
        running=1,
        waiting=0,
        queued=0,
        threads=1,
        threads_busy=1,
        threads_max=1,
        connections=1,
        client_connections_refused=0,
        client_requests_refused=0,
        spawned=0,
        stopping=stopping,
    )
