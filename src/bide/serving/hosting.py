"""A dispatcher for a host, which brings requests of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from bide.applications.mounts import Mounts
from bide.executors.choice import Executors
from bide.serving.clients import Clients
from bide.serving.dispatcher import Dispatcher
from bide.serving.dispatchers import Dispatchers
from bide.serving.lifetime import Lifetime
from bide.serving.refusals import Refusals
from bide.serving.status import show
from bide.settings import Settings
from bide.wsgi.conversation import Application


def hosted(
    application: Application,
    settings: Settings,
    loop: asyncio.AbstractEventLoop,
    lifetime: Lifetime | None = None,
) -> Dispatcher:
    """Make a dispatcher for a host, with an executor of its own; on a running loop.

    Args:
        application: the WSGI callable.
        settings: ``executor``, ``threads``, ``queue`` and ``queue_timeout`` count.
        loop: the host's, which this is called on.
        lifetime: one for a loop that is not asyncio's.

    Raises:
        LoadError: ``application`` is not a WSGI application.
    """
    dispatcher = Dispatcher(application, settings, lifetime=lifetime)
    dispatcher.open(Executors(loop, settings.threads, settings.queue))
    show(dispatcher, Dispatcher.status, Dispatcher.requests)
    return dispatcher


def hosted_all(
    application: Any, settings: Settings, loop: asyncio.AbstractEventLoop
) -> Dispatchers:
    """Make the dispatchers of what may be several applications, WSGI and ASGI ones; as ``hosted``.

    Args:
        application: a callable, or what :func:`bide.mount` returns.
        settings: as for :func:`hosted`; ``lifespan``, ``interface`` and ``asgi_cancel`` count, too.
        loop: the host's, which this is called on.

    Raises:
        LoadError: there is something that is not an application.
    """
    dispatchers = Dispatchers(
        Mounts.of(application).resolve(settings),
        settings,
        lifetime=Lifetime(),
        refusals=Refusals(),
        connections=(),
        clients=Clients(0, 0),
    )
    dispatchers.open(Executors(loop, settings.threads, settings.queue), None)
    show(dispatchers, Dispatchers.status, Dispatchers.requests)
    return dispatchers
