"""A waiting WSGI application under an ASGI server (ASGI 3), or mounted in its application.

There may be several applications, and ASGI ones among them, each at its path. Request and response
stream both ways, and WebSockets are passed on. A request that waits holds no thread. The others run
on a few threads of Bide's own, or on the server's event loop if the application declares that it
can.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from typing import Final

from bide.applications.interfaces import check
from bide.applications.mounts import Mount, Mounts
from bide.capabilities import name_of
from bide.errors import StartError
from bide.hosts.asgi_mounts import below, inner
from bide.hosts.asgi_requests import (
    Exchange,
    Message,
    Receive,
    ResponseCut,
    Scope,
    Send,
    request_of,
)
from bide.hosts.asgi_websockets import WebSocketExchange
from bide.serving.dispatchers import Dispatchers
from bide.serving.hosting import hosted_all
from bide.settings import DEFAULTS, Settings
from bide.waiting.each import NOT_TOLD, to_each
from bide.waiting.waiter import background_loop
from bide.wsgi.conversation import Application

__all__ = ["ASGI", "Message", "Receive", "ResponseCut", "Scope", "Send", "asgi"]

_lent: Final[deque[asyncio.AbstractEventLoop]] = deque()
"""Loops that were lent for applications that have ended, to be taken back."""


class ASGI:
    """An ASGI application that calls a WSGI application, or several; made by :func:`asgi`.

    It is called on event loops. Each of these has threads of its own, started at first need.
    """

    def __init__(self, application: Application | Mounts, settings: Settings) -> None:
        if isinstance(application, Mounts):
            mounts = application.resolve(settings)
        else:
            name = name_of(application)
            check(application, name)
            mounts = Mounts({"/": Mount("/", application, name, "wsgi")})
        self.app = application
        self._mounts = mounts
        self._settings = settings
        # A test's client may have a loop for each test. Single operations only, from any thread.
        self._dispatchers: dict[asyncio.AbstractEventLoop, Dispatchers] = {}
        self._sockets: set[WebSocketExchange] = set()  # those in progress
        weakref.finalize(self, _forget, self._dispatchers).atexit = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope (ASGI 3); return when the application and its ``close()`` have ended.

        Raises:
            ResponseCut: the application failed after its response had begun.
        """
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
            return
        if kind not in ("http", "websocket"):
            raise ValueError(f"the ASGI server offers {kind!r}: WSGI serves HTTP and WebSockets")
        dispatchers = self.dispatchers()
        if not dispatchers.lifetime.started:  # there was no lifespan, or it is on its way
            await dispatchers.lifetime.start()
        request = request_of(scope)
        dispatcher = dispatchers.first
        if dispatchers.several:
            dispatcher = dispatchers.find(request, below(request))
        if dispatcher.interface == "asgi":
            state = dispatchers.lifetime.state
            await dispatcher.application(inner(scope, request, state), receive, send)
            return
        if kind == "http":
            await Exchange(dispatcher, request, scope, receive, send).run()
            return
        socket = WebSocketExchange(dispatcher, request, scope, receive, send)
        self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            self._sockets.discard(socket)

    def dispatchers(self) -> Dispatchers:
        """Return the running loop's dispatchers, made at first need."""
        loop = asyncio.get_running_loop()
        made = self._dispatchers.get(loop)
        if made is None:
            for other in list(self._dispatchers):
                if other.is_closed():
                    left = self._dispatchers.pop(other, None)
                    if left is not None:
                        background_loop.take_back(other)
                        left.abandon()
            while _lent:
                with contextlib.suppress(IndexError):  # another thread's loop has been quicker
                    background_loop.take_back(_lent.popleft())
            made = self._dispatchers[loop] = hosted_all(self._mounts, self._settings, loop)
            background_loop.lend(loop)
        return made

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.dispatchers().lifetime.start()
                except StartError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def stop(self) -> None:
        """End what runs on this loop. Await it there if the host sends no lifespan events.

        Requests that wait are cancelled, and have ten seconds to clean up. WebSockets are closed
        with 1012 first. New requests are answered 503 meanwhile. A request that comes later starts
        everything anew. Calls of ASGI applications are the server's, and go on.
        """
        loop = asyncio.get_running_loop()
        dispatchers = self._dispatchers.get(loop)
        if dispatchers is not None:
            here = [each for each in self._sockets if each.loop is loop]
            to_each(here, lambda each: each.drain(), NOT_TOLD)
            await dispatchers.stop()
            if self._dispatchers.pop(loop, None) is not None:
                background_loop.take_back(loop)


def _forget(dispatchers: dict[asyncio.AbstractEventLoop, Dispatchers]) -> None:
    # In a destructor, anywhere: background_loop's lock may be held by this very thread.
    _lent.extend(dispatchers)
    for each in dispatchers.values():
        each.forget()


def asgi(
    application: Application | Mounts,
    *,
    executor: str = DEFAULTS.executor,
    threads: int = DEFAULTS.threads,
    queue: int = DEFAULTS.queue,
    queue_timeout: float = DEFAULTS.queue_timeout,
) -> ASGI:
    """Return an ASGI application (ASGI 3) that calls a WSGI application (PEP 3333).

    ``wait``, push, promises in the iterable and coroutine functions work as under Bide. Requests
    that wait hold no thread.

    Of several applications the ASGI ones are called as they are, with ``root_path`` and the state.

    Args:
        application: the WSGI callable; or several applications, WSGI and ASGI ones, from
            :func:`bide.mount`.
        executor: "auto", "loop" or "threads"; as ``--executor``.
        threads: how many threads run the application at most; requests that wait do not count.
        queue: how many requests may wait for a thread; more are answered 503.
        queue_timeout: seconds that they may wait; then they are answered 503.

    Raises:
        LoadError: ``application`` is not a WSGI application, nor several applications.
        SettingError: an option has a value that it cannot have.
    """
    settings = Settings(
        executor=executor, threads=threads, queue=queue, queue_timeout=queue_timeout
    )
    return ASGI(application, settings)
