"""The process of the status page: started by a server, and ended with it.

It has a socket that leads to the server, and is sent over it where it listens. It knows nothing
else of the server, so it goes on whatever that does: with all threads blocked, with its event loop
blocked, while it stops.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from math import inf
from typing import Final

from bide.seeing.status_access import Access
from bide.seeing.status_application import VIEWERS, Application
from bide.seeing.status_feed import Feed
from bide.seeing.status_view import view
from bide.serving.lines import flush
from bide.serving.logs import configure
from bide.serving.server import Server
from bide.settings import Settings
from bide.waiting.child import open_socket

LISTENERS: Final = 64
"""Sockets that it can be sent, and so IP addresses of one name."""
LONGEST: Final = 8192
"""Bytes of the line that goes with them."""


def serve(descriptor: int) -> None:
    """Serve the page until the server has ended; never return.

    Args:
        descriptor: of the socket that leads to the server.
    """
    sock = open_socket(descriptor)
    try:
        listeners, told = receive(sock)
    except EOFError:  # the server has ended
        return
    settings = Settings(
        executor="loop",
        limit_connections=2 * VIEWERS,
        limit_body=1,
        graceful_timeout=0.0,
        log_level="warning",
        log_format=told["log_format"],
        blocked_loop=inf,  # nothing hangs on it
    )
    configure(settings)
    by_name = any(each.family != socket.AF_UNIX for each in listeners)
    access = Access(told["token"], by_name)
    asyncio.run(_serve(sock, listeners, access, settings))


def receive(sock: socket.socket) -> tuple[list[socket.socket], dict[str, str]]:
    """Return where to listen, and what else the server tells: who may look, and how to log.

    It comes this way, so that nothing shows the token that shows processes.

    Raises:
        EOFError: there is nothing more to come.
    """
    line, descriptors, _, _ = socket.recv_fds(sock, LONGEST, LISTENERS)
    if not line:
        raise EOFError
    return [socket.socket(fileno=each) for each in descriptors], json.loads(line)


def _end() -> None:
    flush()  # the log
    os._exit(0)


async def _serve(
    sock: socket.socket, listeners: list[socket.socket], access: Access, settings: Settings
) -> None:
    feed = Feed(sock, view, _end)
    await feed.open()
    application = Application(feed, access)
    async with Server(application, settings, name="the status page", listeners=listeners):
        await asyncio.Event().wait()
