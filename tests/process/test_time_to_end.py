"""How long a process that is one of several workers may take to end."""

import asyncio
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

import bide
from bide.process.links import Link
from bide.process.member import LINGER, RETIRE, Member, patience
from tests.served import Environ, Gate, Log, request


class HurryingLoop(asyncio.SelectorEventLoop):
    """A loop without waiting: when nothing is left but timers, its clock moves on to the next."""

    def __init__(self) -> None:
        super().__init__(_Hurrying(self._hurry))
        self._ahead = 0.0

    def time(self) -> float:
        """Return the time by its own clock."""
        return time.monotonic() + self._ahead

    def _hurry(self, seconds: float) -> None:
        self._ahead += seconds


class _Hurrying(selectors.DefaultSelector):
    def __init__(self, hurry: Callable[[float], None]) -> None:
        super().__init__()
        self._hurry = hurry

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(timeout if timeout is None else 0)
        if not found and timeout:
            self._hurry(timeout)
        return found


def test_a_worker_that_takes_all_the_time_that_it_may_is_not_killed(log: Log) -> None:
    """Its client stays, its request cleans up for as long as it can, and so does ``on_stop``."""

    @bide.capable("async")
    def application(_: Environ, __: Any) -> list[bytes]:
        try:
            bide.wait(Gate().promise())
        finally:
            bide.wait(Gate().promise())
        return []

    async def never() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

    async def spend() -> tuple[float, float]:
        server = bide.Server(application, bind="127.0.0.1:0", graceful_timeout=7.0)
        bide.on_stop(never)
        link, supervisor = Link.pair()
        nothing: Any = None
        member = Member(0, link, nothing, 0, lambda: None)
        member._loop, member._server, member._told = asyncio.get_running_loop(), server, RETIRE
        await server.start()
        host, port = server.addresses[0].split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(request())
            while not server.status().waiting:
                await asyncio.sleep(0.01)
            began = member._loop.time()
            await member._finish()
            for each in (link, supervisor):
                each.close()
            return member._loop.time() - began, patience(server.settings)

    with asyncio.Runner(loop_factory=HurryingLoop) as runner:
        spent, may = runner.run(spend())
    assert LINGER + 7.0 + 20.0 <= spent < may
    log.take("they are cancelled")
    log.take("registered with on_stop, has not ended in time")
