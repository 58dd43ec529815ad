"""What was acquired is given back, and what is shared goes on, whoever leaves and whenever."""

import asyncio
import threading
from typing import Any

import pytest

from bide import ClientDisconnected, using, wait
from bide.waiting.waiter import current_waiter
from tests.conftest import Serve
from tests.served import Environ, Log, answering, happened, until


class Pool:
    """Two places, acquired and given back by coroutines."""

    def __init__(self) -> None:
        self.free = 2
        self.made: asyncio.Semaphore | None = None

    async def acquire(self) -> None:
        """Wait for a place."""
        if self.made is None:
            self.made = asyncio.Semaphore(self.free)
        await self.made.acquire()
        self.free -= 1

    async def release(self) -> None:
        """Release a place, a little later."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self.made is not None
        self.made.release()
        self.free += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        await self.release()


def be_left(environ: Environ, ready: threading.Event) -> None:
    """Run code until the client has left; on the loop, where that cannot be seen, be told so."""
    ready.set()
    if environ["wsgi.multithread"]:
        until(environ["bide.disconnected"])
    else:
        here = current_waiter()
        assert here is not None
        here.cancel(ClientDisconnected("the client has left"))


@pytest.mark.parametrize("way", ["using", "nested", "finally"])
def test_a_client_that_leaves_while_code_runs_empties_no_pool(serve: Serve, way: str) -> None:
    """More of them than there are places; each leaves before the place is given back."""
    pool, lock = Pool(), Pool()
    begun: list[threading.Event] = []

    def answer(environ: Environ) -> bytes:
        ready = begun[-1]
        if way == "finally":
            wait(pool.acquire())
            try:
                be_left(environ, ready)
            finally:
                wait(pool.release())
        elif way == "using":
            with using(pool):
                be_left(environ, ready)
        else:
            with using(lock), using(pool):
                be_left(environ, ready)
        return b"answered"

    served = serve(answering(answer), threads=2)
    for _ in range(5):
        begun.append(threading.Event())
        client = served.request()
        happened(begun[-1], "no place was left")
        client.close()
        served.until_idle()
        served.call(lambda: None)
        assert (pool.free, lock.free) == (2, 2)


@pytest.mark.parametrize("executor", ["threads"])
@pytest.mark.parametrize("end", ["stop", "request_timeout"])
def test_a_request_that_is_ended_while_code_runs_gives_back_what_it_has(
    serve: Serve, end: str, log: Log
) -> None:
    """By the server's stop and by its deadline as by a departure."""
    pool = Pool()
    ready = threading.Event()

    def answer(environ: Environ) -> bytes:
        with using(pool):
            be_left(environ, ready)
        return b"answered"

    settings: dict[str, Any] = {"graceful_timeout": 0.01}
    if end == "request_timeout":
        settings["request_timeout"] = 0.01
    served = serve(answering(answer), **settings)
    client = served.request()
    happened(ready)
    if end == "stop":
        served.begin_stop()
        served.join()
        log.take("have not ended in time")
    else:
        served.until_idle()
        log.take("and its code goes on")
    assert pool.free == 2
    client.close()


def test_a_release_that_is_on_its_way_is_not_interrupted(serve: Serve) -> None:
    """The client leaves while ``finally:`` waits."""
    gates: list[asyncio.Event] = []
    waiting = threading.Event()
    released: list[bool] = []
    departed: list[Any] = []

    async def release() -> None:
        gates.append(asyncio.Event())
        waiting.set()
        await gates[0].wait()
        released.append(True)

    def answer(environ: Environ) -> None:
        departed.append(environ["bide.disconnected"])
        try:
            pass
        finally:
            wait(release())

    served = serve(answering(answer))
    client = served.request()
    happened(waiting)
    served.until_waiting(1)
    client.close()
    until(lambda: departed[0]())
    served.call(gates[0].set)
    served.until_idle()
    assert released == [True]


def test_a_task_that_others_wait_for_goes_on_when_one_client_leaves(serve: Serve) -> None:
    """All the others get its result."""
    tasks: list[asyncio.Task[bytes]] = []
    gates: list[asyncio.Event] = []

    async def refresh() -> bytes:
        gates.append(asyncio.Event())
        await gates[0].wait()
        return b"refreshed"

    async def shared() -> asyncio.Task[bytes]:
        if not tasks:
            tasks.append(asyncio.create_task(refresh()))
        return tasks[0]

    def answer(environ: Environ) -> bytes:
        task = wait(shared())
        have_it.append(task)
        return bytes(wait(task))

    have_it: list[asyncio.Task[bytes]] = []
    served = serve(answering(answer))
    clients = [served.request() for _ in range(4)]
    until(lambda: len(have_it) == 4)
    served.until_waiting(4)
    served.call(lambda: None)  # what was given to the loop before is done: each waits for the task
    clients[0].close()
    served.until_waiting(3)
    served.call(gates[0].set)
    assert [client.response().body for client in clients[1:]] == [b"refreshed"] * 3


def test_a_reactor_s_error_while_subscribing_is_raised_at_the_wait(
    serve: Serve, reactor: Any
) -> None:
    """On its own thread, where nobody would see it."""
    from twisted.internet.defer import Deferred

    class Refusing(Deferred[Any]):
        def addCallback(self, *args: Any, **kwargs: Any) -> Any:
            raise LookupError("no")

    def answer(environ: Environ) -> str:
        try:
            wait(Refusing())
        except LookupError as error:
            return str(error)
        return "waited"

    served = serve(answering(answer))
    assert served.get().text == "no"


def test_an_event_that_comes_as_the_heartbeat_is_due_is_not_lost(serve: Serve) -> None:
    """They come about as often; tests/waiting/test_ends_of_waits.py forces each order."""
    news: list[asyncio.Queue[str]] = []

    async def make() -> asyncio.Queue[str]:
        news.append(asyncio.Queue())
        return news[0]

    def answer(environ: Environ) -> str:
        queue = wait(make())
        got: list[str] = []
        while len(got) < 20:
            try:
                got.append(wait(queue.get(), timeout=0.001))
            except TimeoutError:
                continue
        return ",".join(got)

    served = serve(answering(answer))
    client = served.request()
    until(lambda: news)
    for number in range(20):
        served.call(news[0].put_nowait, str(number))
    assert client.response().text == ",".join(str(number) for number in range(20))
