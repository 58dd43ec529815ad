"""What no request can be made to show each time: orders of events of two threads, and cycles."""

import asyncio
import gc
import threading
from collections import deque
from typing import Any

from asgiref.sync import SyncToAsync
from django.db import connections
from django.http import HttpRequest, HttpResponse

from bide import ClientDisconnected, wait
from bide.integrations.django.databases import Held, Pool, _pool_here, held_here
from bide.integrations.django.request_executor import Frame, Item, RequestExecutor
from bide.integrations.django.worker_threads import choose
from bide.waiting.waiter import Waiter, current_waiter
from tests.fakes import Lane, ManualLoop
from tests.integrations.django_project.conftest import Project
from tests.served import DEADLINE, happened


def an_executor() -> RequestExecutor:
    """Make an executor whose request never waits."""
    lane = Lane(ManualLoop())
    waiter = Waiter(lane.loop, lane.hub)
    lane.loop.close()
    return RequestExecutor(waiter, lane.hub)


class EndedMeanwhile(deque[Item]):
    """The calls of a frame that ends just before one is queued."""

    frame: Frame

    def append(self, item: Item) -> None:
        """End the frame first."""
        self.frame.end()
        super().append(item)


def test_a_call_that_comes_when_the_request_has_just_ended_is_made_elsewhere() -> None:
    """It has been queued behind the last look of the frame."""
    frame = an_executor().frame
    frame._items = items = EndedMeanwhile()
    items.frame = frame
    called = frame.submit(threading.current_thread)
    assert called.result(DEADLINE).name.startswith("ThreadPoolExecutor")
    assert not items


def test_a_call_that_a_frame_leaves_is_made_in_the_frame_around_it() -> None:
    """Its own thread, as long as the request lasts."""
    executor = an_executor()
    inner = Frame(executor, executor.frame)
    left = inner.submit(int, "1")
    inner.end()
    late = inner.submit(int, "2")
    assert [item.future for item in executor.frame._items] == [left, late]
    executor.frame.end()
    assert (left.result(DEADLINE), late.result(DEADLINE)) == (1, 2)


def test_a_call_that_is_not_wanted_any_more_is_not_made() -> None:
    """Its coroutine was cancelled before it began."""
    frame = an_executor().frame
    made: list[int] = []
    frame.submit(made.append, 1).cancel()
    frame.end()
    SyncToAsync.single_thread_executor.submit(int).result(DEADLINE)
    assert made == []


class Given:
    """A waiter whose request is given a connection, and finds that its client has left."""

    def __init__(self) -> None:
        self.pool: Any = None
        self.first: Any = None

    def wait(self, signal: Any, timeout: float) -> Any:
        """Free the first one's connection, and raise a cancellation."""
        self.pool.take_back("default", self.first)
        assert signal.fired
        raise ClientDisconnected("the client has left")


def test_a_connection_that_is_given_to_a_request_that_has_left_is_given_on(
    project: Project, alias: str
) -> None:
    """Else it would be nobody's, and count for ever."""
    project.options = {"CONNECTIONS_PER_THREAD": 1}
    project.serve({})
    given = Given()
    pool = given.pool = Pool()
    given.first = pool.lend("default", Held(pool, None))
    try:
        pool.lend("default", Held(pool, given))  # type: ignore[arg-type]
    except ClientDisconnected:
        pass
    assert pool.idle["default"] == [given.first]
    assert not pool.lent["default"]


def test_a_call_that_has_its_turn_after_its_request_has_ended_keeps_nothing(
    project: Project,
) -> None:
    """It was left while its worker thread was busy with others."""
    project.serve({})
    executor, busy, thread = an_executor(), threading.Event(), choose()
    pools: list[Any] = []

    def call() -> None:
        held = held_here()
        assert held is not None
        pools.append(held.pool)
        assert connections["default"] in held.pool.lent["default"]

    thread.executor.submit(happened, busy)
    executor.submit_to_worker(call)
    executor.end()
    busy.set()
    thread.executor.submit(pools.append, None).result(DEADLINE)
    assert not pools[0].lent["default"]


def test_a_thread_that_ends_closes_its_pool_whoever_else_refers_to_it(project: Project) -> None:
    """A traceback for instance, which is dropped in another thread."""
    project.serve({})
    pools: list[Any] = []
    closed: list[int] = []

    def thread() -> None:
        pool = _pool_here()
        wrapper = pool.lend("default", Held(pool, None))
        close = wrapper.close

        def noted() -> None:
            closed.append(threading.get_ident())
            close()

        wrapper.close = noted
        wrapper.ensure_connection()
        pool.take_back("default", wrapper)
        pools.append(pool)

    started = threading.Thread(target=thread)
    started.start()
    started.join()
    assert closed == [started.ident]
    assert pools[0].idle == {"default": []}


def test_what_else_is_done_when_a_request_has_ended_finds_no_executor(project: Project) -> None:
    """It would keep a connection that nobody gives back. It may still wait."""
    seen: list[Any] = []

    def at_the_end() -> None:
        seen.append(held_here())
        seen.append(wait(asyncio.sleep(0, "waited")))

    def view(request: HttpRequest) -> HttpResponse:
        waiter = current_waiter()
        assert waiter is not None
        waiter.ends += (at_the_end,)
        return HttpResponse(str(held_here() is not None))

    served = project.serve({"view": view})
    assert served.get("/view").text == "True"
    served.until_idle()
    assert seen == [None, "waited"]


def test_a_request_leaves_nothing_of_its_executor_to_the_collector(project: Project) -> None:
    """Which may run in any thread, and connections are closed on their own."""
    from tests.integrations.django_project.models import Note

    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(await Note.objects.acount()))

    def of_requests() -> list[object]:
        return [each for each in gc.get_objects() if type(each) in (RequestExecutor, Frame)]

    served = project.serve({"view": view}, threads=1)
    gc.collect()
    gc.disable()
    try:
        before = of_requests()  # other tests' lanes may hold their last one's
        for _ in range(20):
            assert served.get("/view").text == "0"
        served.until_idle()
        # The last request's may still be in the frame that ends it.
        left = [each for each in of_requests() if not any(each is other for other in before)]
        assert len(left) <= 2
    finally:
        gc.enable()
