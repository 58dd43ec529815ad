"""A worker, as its supervisor hears of it; without a process."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from bide import Settings
from bide.process import member as members
from bide.process.heartbeat import Cells
from bide.process.links import Link
from bide.process.member import Member
from bide.process.signals import Signals
from bide.process.worker import Stop
from bide.serving.server import Server
from tests.failures import same
from tests.served import DEADLINE


class NoSignals(Signals):
    """Hears none."""

    def __init__(self) -> None:
        """Open nothing."""

    def attach(self, *_: Any) -> AbstractContextManager[None]:  # type: ignore[override]
        """Do nothing."""
        return nullcontext()


@pytest.mark.parametrize("signalled", [False, True])
def test_a_worker_that_is_to_end_when_it_has_started_is_not_ready(
    signalled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would have clients for a moment, and reset their connections."""

    async def start(server: Server, stop: Stop) -> bool:
        await server.start()
        if signalled:
            stop.ask()
        return True

    monkeypatch.setattr(members, "start", start)
    link, sock = Link.pair()
    supervisor = Link(sock)
    cells = Cells()
    member = Member(0, link, cells, cells.take(), lambda: None)

    async def serve() -> None:
        serving = asyncio.ensure_future(
            member.serve(lambda _, start: [b""], Settings(threads=1), "app", NoSignals())
        )
        if not signalled:
            async with asyncio.timeout(DEADLINE):
                while supervisor.receive() != [["ready"]]:
                    await asyncio.sleep(0)
            supervisor.send("retire")
        await serving

    asyncio.run(serve())
    same(supervisor.receive(), [["left"]])
    for each in (link, supervisor):
        each.close()
