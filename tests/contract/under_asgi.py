"""The contract over ``bide.hosts.asgi``: under uvicorn, on one event loop for all the tests."""

import asyncio
import functools
import logging
import socket
import threading
from typing import Any

import bide
from bide.exchange.call import Call
from bide.hosts.asgi import ASGI, Message, Receive, Scope, Send, asgi
from tests.contract.hosted import Hosted
from tests.served import Application

SECONDS = 20.0
"""For what the server has to do itself; the tests' deadline may be a short one."""


class _Uvicorn:
    """A running server, whose application changes from test to test."""

    def __init__(self) -> None:
        self.application: ASGI | None = None
        self.loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._serving = threading.Event()
        threading.Thread(target=self._run, name="uvicorn", daemon=True).start()
        assert self._serving.wait(SECONDS), "uvicorn did not start"

    def _run(self) -> None:
        import uvicorn

        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        config = uvicorn.Config(self, log_config=None, access_log=False, date_header=False)
        config.timeout_keep_alive = int(SECONDS)
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(uvicorn.Server(config).serve(sockets=[self._socket]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application of the test."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self.application is not None
        await self.application(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        message: Message = await receive()
        await send({"type": f"{message['type']}.complete"})
        self._serving.set()
        await receive()


@functools.cache
def _running() -> _Uvicorn:
    return _Uvicorn()


class UnderASGI(Hosted):
    """``bide.hosts.asgi`` under uvicorn.

    Args:
        executor: as of ``asgi``.
    """

    def __init__(self, application: Application, executor: str, **settings: Any) -> None:
        server = _running()
        threads = settings.get("threads", 4)
        self._asgi = asgi(application, executor=executor, threads=threads)
        server.application = self._asgi
        self.address = server.address
        self.loop = server.loop
        self._dispatchers = self.call(self._asgi.dispatchers)
        super().__init__()

    @property
    def status(self) -> bide.Status:
        """The numbers now."""
        return self._dispatchers.status()

    def conversations(self) -> list[Call]:
        """Return those in progress."""
        return self._dispatchers.first.calls

    def release(self) -> None:
        """End the threads."""
        asyncio.run_coroutine_threadsafe(self._asgi.stop(), self.loop).result(SECONDS)
