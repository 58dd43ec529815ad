"""Requests of ASGI applications that find too many before them: at a limit, or at processes."""

import asyncio
import threading

import bide
from bide.waiting.processes import ProcessPool
from tests.asgi.sites import Receive, Scope, Send, accept, answer, body, opening, routed, start
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.pools import own_pool, pool_of
from tests.protocols.websocket.peers import read_frame, upgraded
from tests.protocols.websocket.wires import CLOSE, FIN
from tests.served import Log, happened
from tests.waiting import heavy

__all__ = ["own_pool", "pool_of"]


def test_one_too_many_at_a_limit_is_answered_503(
    serve: Serve, log: Log, own_pool: ProcessPool
) -> None:
    """From a task group too, a thread, and a process; and one whose response has begun is cut."""
    limit = bide.limit(1, waiting=0)
    held, opens = threading.Event(), threading.Event()

    async def enter() -> None:
        async with limit:
            pass

    def enter_here() -> None:
        with limit:
            pass

    async def hold(_: Scope, __: Receive, send: Send) -> None:
        async with limit:
            held.set()
            await asyncio.to_thread(happened, opens)
        await answer(send, b"done")

    async def plain(_: Scope, __: Receive, ___: Send) -> None:
        await enter()

    async def group(_: Scope, __: Receive, ___: Send) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(enter())

    async def thread(_: Scope, __: Receive, ___: Send) -> None:
        await asyncio.to_thread(enter_here)

    async def process(_: Scope, __: Receive, ___: Send) -> None:
        first = bide.in_process(heavy.add, 1)
        try:
            bide.in_process(heavy.add, 2)
        finally:
            first.cancel()

    async def begins(_: Scope, __: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"begun", more=True))
        await enter()

    async def wrong(_: Scope, __: Receive, ___: Send) -> None:
        async def fail() -> None:
            raise ValueError("wrong")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(enter())
            tasks.create_task(fail())

    site = routed(
        hold=hold,
        plain=plain,
        group=group,
        thread=thread,
        process=process,
        begins=begins,
        wrong=wrong,
    )
    served = serve(site, process_pool=1, process_queue=0)
    first = served.request("/hold")
    happened(held)
    with Failures() as failures:
        for path in ("/plain", "/group", "/thread", "/process"):
            with failures.of(path):
                refused = served.get(path)
                same((refused.status, refused.header("Retry-After")), (503, "1"))
    cut = served.get("/begins")
    assert (cut.status, cut.complete) == (200, False)
    assert log.find("the application failed") is None
    assert served.get("/wrong").status == 500
    assert log.failure().exc_info
    opens.set()
    assert first.response().text == "done"
    assert served.get("/plain").status == 500  # it answers nothing by itself
    log.take("without a response")


def test_a_socket_that_is_one_too_many_is_told_to_come_again(serve: Serve, log: Log) -> None:
    """By 1013, behind its acceptance."""
    limit = bide.limit(1, waiting=0)

    async def enter(_: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        async with limit:
            await receive()

    served = serve(opening(enter))
    first = upgraded(served)
    served.until_waiting(1)
    code = (1013).to_bytes(2)
    assert read_frame(upgraded(served)) == (FIN | CLOSE, code + b"too many wait")
    assert log.find("the application failed") is None
    first.close()
