"""What a server takes for an application: its executor, what makes its calls, other processes."""

from __future__ import annotations

from collections.abc import Callable

from bide.capabilities import TASKS, Decision
from bide.errors import LoadError
from bide.exchange.call import Call
from bide.executors.choice import Executors
from bide.executors.executor import Executor
from bide.serving.timing import timed
from bide.settings import Settings
from bide.waiting.process_bounds import bounds
from bide.wsgi.site import Site


def tasks(settings: Settings, name: str) -> Decision:
    """Return the decision for an ASGI application; raises LoadError where it was to run elsewhere.

    Args:
        settings: ``executor`` counts.
        name: the application's.
    """
    if settings.executor == "processes":
        raise LoadError(
            f"{name} is an ASGI application, which runs on the event loop: --executor processes is "
            "for WSGI applications; --workers runs the whole server in several processes"
        )
    return TASKS


def take(
    user: Site,
    make: Callable[..., Call],
    decision: Decision,
    executors: Executors,
    settings: Settings,
) -> tuple[Callable[..., Call], Executor]:
    """Return what makes an application's calls, and the executor for these; set its bounds.

    Args:
        user: the application's dispatcher.
        make: what makes them where they run in this process.
        decision: what was chosen.
        executors: those of the server.
        settings: the server's.

    Raises:
        StartError: the system has no room for a child process.
    """
    bounds.processes, bounds.queue = settings.process_pool, settings.process_queue
    if decision.executor != "processes":
        return make, executors.take(decision.executor, user)
    # Here, since few applications need what it loads.
    from bide.serving.in_children import in_children

    kind, executor = in_children(user, executors, settings)
    return timed(kind) if settings.server_timing else kind, executor
