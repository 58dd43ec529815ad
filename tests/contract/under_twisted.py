"""The contract over ``bide.hosts.twisted``: a ``Site`` of twisted.web on a reactor of its own.

On asyncio's loop, so that what awaits asyncio's things can run; the one that is installed, which a
process has once, is left to others.
"""

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import bide
from bide.exchange.call import Call
from tests import served as serving
from tests.contract.hosted import Hosted
from tests.served import Application, happened

T = TypeVar("T")


@functools.cache
def _running() -> Any:
    """Return the reactor, which runs in a thread of its own."""
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    class Reactor(AsyncioSelectorReactor):
        _registerAsIOThread = False  # noqa: N815 - that word is the installed one's

    loop = asyncio.new_event_loop()
    reactor: Any = Reactor(loop)
    running = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        reactor.run(installSignalHandlers=False)

    threading.Thread(target=run, name="a reactor", daemon=True).start()
    reactor.callFromThread(running.set)
    happened(running, "the reactor did not start")
    return reactor


class UnderTwisted(Hosted):
    """``bide.hosts.twisted.Resource``, the root of a site.

    Args:
        executor: as of ``Resource``.
        threads: the same.
        reactor: one that runs, in a thread; by default one on asyncio's loop.
    """

    def __init__(
        self,
        application: Application,
        executor: str = "auto",
        threads: int = 4,
        reactor: Any = None,
    ) -> None:
        from bide.hosts.twisted.reactor import loop_of

        self.reactor = _running() if reactor is None else reactor
        self.loop = loop_of(self.reactor)
        self._released = False
        self.call(self._listen, application, executor, threads)
        super().__init__()

    def _listen(self, application: Application, executor: str, threads: int) -> None:
        from twisted.web.server import Site

        from bide.hosts.twisted import Resource

        self.resource = Resource(self.reactor, application, executor=executor, threads=threads)
        site = Site(self.root(self.resource), timeout=None)  # type: ignore[no-untyped-call]
        self._port = self.reactor.listenTCP(0, site, interface="127.0.0.1")
        self.address = f"127.0.0.1:{self._port.getHost().port}"

    def root(self, resource: Any) -> Any:
        """Return the site's root: the resource itself."""
        return resource

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the reactor's thread; return its result."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def calling() -> None:
            try:
                result.set_result(function(*args))
            except BaseException as error:
                result.set_exception(error)

        self.loop.call_soon_threadsafe(calling)
        return result.result(serving.DEADLINE)  # as it is now: shorter while a failure is expected

    @property
    def status(self) -> bide.Status:
        """The numbers now."""
        return self.resource.dispatcher.status()

    def conversations(self) -> list[Call]:
        """Return those in progress."""
        return self.resource.dispatcher.calls

    @property
    def early(self) -> int:
        """How many requests wait for ``on_start`` functions."""
        return len(self.resource._early)

    def release(self) -> None:
        """Listen no more, and end the threads; once."""
        if self._released:
            return
        self._released = True
        ended = threading.Event()

        def end() -> None:
            self._port.stopListening()
            self.resource.stop().addCallback(lambda _: ended.set())

        self.call(end)
        happened(ended, "the resource did not stop")
