"""One HTTP request's call of an ASGI application: its task, and what it awaits.

Everything here is called on the loop.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from time import monotonic
from typing import Final

from bide.asgi.answering import Answering
from bide.asgi.call import FOR_CLIENT
from bide.asgi.files import send_path
from bide.asgi.messages import Message, Scope, route_of
from bide.errors import ClientDisconnected, ClientGone, LocalProtocolError
from bide.exchange.identity import current
from bide.exchange.stream import READY
from bide.waiting.outcome import Signal, Wait
from bide.waiting.served import in_task

YIELD: Final = 1.0
"""Seconds that a task which sends to nobody leaves to the one that was told so by ``receive``."""


class HTTPCall(Answering):
    """One HTTP request's call of an ASGI application."""

    __slots__ = ()

    def run(self) -> None:
        """Begin the task, in a context that no other request has."""
        self.times.begun = monotonic()
        context = self.site.context.copy()
        identity = self.stream.identity
        if identity is not None:
            context.run(current.set, identity)
        live = self._live()
        live.send(None)
        self._task = asyncio.Task(live, loop=self._loop, context=context)

    async def _live(self) -> None:
        scope: Scope = {}
        try:
            # Up to here it is run before it is a task's. A task that is cancelled before its first
            # step ends a coroutine that has not begun, and this one has to end the call.
            await _begun()
            in_task.set(True)
            if not self.stream.gone:
                scope = self.scope()
                await self.site.application(scope, self.receive, self.send)
                self.returned()
        except BaseException as error:  # noqa: BLE001 - it is logged
            # Whatever it is, SystemExit and KeyboardInterrupt too, ends this request only.
            self.failed(error)
        finally:
            if "route" in scope:
                self.stream.route = route_of(scope["route"])
            self.finish()

    async def wait(self, signal: Signal | None, shown: Wait = FOR_CLIENT) -> None:
        """Wait until something has happened; as :meth:`ASGICall.begin_wait`."""
        waiting = self.begin_wait(signal, shown)
        try:
            await waiting.future
        finally:
            self.end_wait(waiting)

    # ASGI's ``receive`` and ``send`` -------------------------------------------------------------

    async def receive(self) -> Message:
        """Return the next event: a part of the body, or at last that the client has left."""
        while True:
            event = self.event()
            if event is None:
                await self._listen()
            elif isinstance(event, Signal):
                await self.wait(event)
            else:
                return event

    async def _listen(self) -> None:
        """Wait until something has happened; count who waits, but not who gives it up."""
        self.listeners += 1
        told = False
        try:
            await self.wait(None)
            told = self.has_ended()
        finally:
            if not told:
                self.listeners -= 1

    async def send(self, message: Message) -> None:
        """Send a part of the response; return when the client has taken enough of it.

        A task that waits in ``receive`` goes first when the client has left: it has a moment to
        cancel the one that sends, as frameworks do. Django does not end a request in which both
        raise, and keeps its database connection.

        Raises:
            ClientGone: the client has left.
            LocalProtocolError: this message may not be sent, or not now.
        """
        try:
            if message["type"] == "http.response.pathsend":
                await self._send_path(message)
                return
            signal = self.take(message)
            if signal is not None:
                await self._keep_pace(signal)
        except ClientDisconnected as gone:
            self.left = True
            self.wake_all()  # it may have been found out here
            if self.listeners and not self.yielded:
                self.yielded = True
                await asyncio.sleep(YIELD)
            raise ClientGone(str(gone)) from None

    async def _send_path(self, message: Message) -> None:
        if self.stream.state != READY:
            raise LocalProtocolError("http.response.pathsend is the body, right after the start")
        await send_path(self.stream, message.get("path"), self._keep_pace)
        self.wake_all()

    async def _keep_pace(self, signal: Signal) -> None:
        """Wait until the client has caught up.

        Raises:
            ClientDisconnected: the client has left.
        """
        while not signal.fired:
            self.require_client()
            await self.wait(signal)


@types.coroutine
def _begun() -> Generator[None, None, None]:
    """Suspend the coroutine that awaits this, once."""
    yield
