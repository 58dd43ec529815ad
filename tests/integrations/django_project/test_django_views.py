"""Async views and middleware, and the two bridges between blocking code and coroutines."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any
from wsgiref.util import setup_testing_defaults

from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client

from bide import ClientDisconnected, blocking, iterate, wait
from tests.integrations.django_project.conftest import Project
from tests.served import Gate, Log, happened, until

HERE = "tests.integrations.django_project"
variable: ContextVar[str] = ContextVar("variable", default="unset")
local = Local()


def test_async_views_of_one_thread_wait_at_once(project: Project, executor: str) -> None:
    """Each parks; none holds the thread. All of them run on the server's loop."""
    gate = Gate()

    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.wrap_future(gate.promise())
        return HttpResponse(str(id(asyncio.get_running_loop())))

    served = project.serve({"view": view}, executor=executor, threads=1)
    clients = [served.request("/view") for _ in range(20)]
    served.until_waiting(20)
    gate.open()
    assert {client.response().text for client in clients} == {str(id(served.loop))}


def test_an_asyncio_lock_made_once_works_across_requests(project: Project) -> None:
    """A loop for each request, as Django alone has it, breaks what belongs to one loop."""
    lock = asyncio.Lock()
    gate = Gate()

    async def view(request: HttpRequest) -> HttpResponse:
        async with lock:
            await asyncio.wrap_future(gate.promise())
        return HttpResponse("done")

    served = project.serve({"view": view}, threads=2)
    clients = [served.request("/view") for _ in range(4)]
    served.until_waiting(4)
    gate.open()
    assert [client.response().text for client in clients] == ["done"] * 4


def test_a_blocking_call_of_a_coroutine_is_made_on_the_requests_thread(project: Project) -> None:
    """Its connections live there."""

    async def view(request: HttpRequest) -> HttpResponse:
        thread = await sync_to_async(threading.current_thread)()
        return HttpResponse(f"{thread.name} {threading.current_thread().name}")

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view").text == "bide-thread-1 the server's loop"


def test_a_blocking_call_on_the_loop_executor_is_made_in_a_thread(project: Project) -> None:
    """Always the same one for a request; the event loop does not block."""

    async def view(request: HttpRequest) -> HttpResponse:
        threads = {(await sync_to_async(threading.current_thread)()).name for _ in range(3)}
        return HttpResponse(" ".join(threads))

    served = project.serve({"view": view}, executor="loop")
    assert served.get("/view").text.startswith("bide-django-1")


def test_requests_of_the_loop_executor_do_not_wait_for_each_others_calls(
    project: Project,
) -> None:
    """One whose call blocks has a thread to itself, while there are some."""
    release = threading.Event()

    async def blocked(request: HttpRequest) -> HttpResponse:
        await sync_to_async(happened)(release)
        return HttpResponse("released")

    async def quick(request: HttpRequest) -> HttpResponse:
        return HttpResponse(await sync_to_async(str)(1))

    served = project.serve({"blocked": blocked, "quick": quick}, executor="loop")
    client = served.request("/blocked")
    served.until_waiting(1)
    assert served.get("/quick").text == "1"
    release.set()
    assert client.response().text == "released"


def nested(depth: int, gate: Gate, seen: list[int]) -> int:
    """Go from blocking code to a coroutine and back, so many times, and wait at the bottom."""
    seen.append(threading.get_ident())
    if not depth:
        wait(gate.promise())
        return 0

    async def coroutine() -> int:
        await asyncio.sleep(0)
        return await sync_to_async(nested)(depth - 1, gate, seen)

    return 1 + async_to_sync(coroutine)()


def test_the_bridges_nest_both_ways_in_requests_that_are_interleaved(project: Project) -> None:
    """Ten of them on one lane, each on its own stack, and none waits for another."""
    gate = Gate()
    seen: list[int] = []

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(nested(4, gate, seen)))

    served = project.serve({"view": view}, threads=1)
    clients = [served.request("/view") for _ in range(10)]
    until(lambda: len(seen) == 50)
    served.until_waiting(10)
    gate.open()
    assert [client.response().text for client in clients] == ["4"] * 10
    assert len(set(seen)) == 1, "not all on the lane"


def test_the_bridges_nest_both_ways_on_the_loop_executor(project: Project) -> None:
    """Below the first blocking call asgiref's own way is taken, in that call's thread."""
    seen: list[int] = []

    async def view(request: HttpRequest) -> HttpResponse:
        gate = Gate()
        gate.open()
        return HttpResponse(str(await sync_to_async(nested)(3, gate, seen)))

    served = project.serve({"view": view}, executor="loop")
    assert served.get("/view").text == "3"
    assert len(set(seen)) == 1
    assert served.thread not in seen


def test_calls_of_one_request_are_not_made_one_within_the_other(project: Project) -> None:
    """The one that came first may wait, in a transaction perhaps: the other is made after it."""
    gate = Gate()
    events: list[str] = []

    def first() -> None:
        events.append("first begins")
        wait(gate.promise())
        events.append("first ends")

    def second() -> None:
        events.append("second")

    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.gather(sync_to_async(first)(), sync_to_async(second)())
        return HttpResponse(", ".join(events))

    served = project.serve({"view": view}, threads=1)
    client = served.request("/view")
    until(lambda: events)
    served.call(lambda: None)  # by now the loop has sent the second call after the first
    served.until_waiting(1)
    assert events == ["first begins"]
    gate.open()
    assert client.response().text == "first begins, first ends, second"


def test_a_call_made_below_a_call_is_made_at_once(project: Project) -> None:
    """What the inner coroutine waits for cannot stand behind what waits for it."""

    async def inner() -> str:
        return await sync_to_async(lambda: "inner")()

    def waiting() -> str:
        return wait(inner())

    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(await sync_to_async(waiting)())

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view").text == "inner"


def test_a_plain_wait_and_iterate_bring_calls_to_the_requests_thread_too(
    project: Project,
) -> None:
    """``wait(Note.objects.acount())`` in a plain view is as good as an async view."""

    async def thread() -> int:
        return await sync_to_async(threading.get_ident)()

    async def threads() -> AsyncIterator[int]:
        yield await thread()
        yield await thread()

    def view(request: HttpRequest) -> HttpResponse:
        seen = {wait(thread()), *iterate(threads())}
        return HttpResponse(str(seen == {threading.get_ident()}))

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view").text == "True"


def test_middleware_of_both_kinds_keeps_to_its_thread(project: Project) -> None:
    """Blocking, coroutine, blocking, and an async view at the bottom."""
    gate = Gate()
    project.middleware = [
        f"{HERE}.middleware.blocking",
        f"{HERE}.middleware.Asynchronous",
        f"{HERE}.middleware.blocking",
    ]

    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.wrap_future(gate.promise())
        return HttpResponse("through")

    served = project.serve({"view": view}, threads=1)
    clients = [served.request("/view") for _ in range(5)]
    served.until_waiting(5)
    gate.open()
    for client in clients:
        response = client.response()
        assert response.text == "through"
        first, second = (response.header("X-Threads") or "").split()
        assert first == second != str(served.thread)
        assert response.header("X-Loop-Thread") == str(served.thread)


def test_context_goes_both_ways(project: Project, executor: str) -> None:
    """A coroutine sees what the request has set, and the request what the coroutine sets."""

    async def inner() -> str:
        seen = f"{variable.get()} {local.value}"
        variable.set("set inside")
        local.value = "local inside"
        return seen

    def view(request: HttpRequest) -> HttpResponse:
        variable.set("set outside")
        local.value = "local outside"
        seen = async_to_sync(inner)()
        return HttpResponse(f"{seen}; {variable.get()} {local.value}")

    served = project.serve({"view": view}, executor=executor)
    expected = "set outside local outside; set inside local inside"
    assert served.get("/view").text == expected
    assert not hasattr(local, "value")


def test_an_error_of_an_async_view_is_the_views(project: Project, log: Log) -> None:
    """Django answers for it, and Bide's thread goes on."""

    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        raise ValueError("the view fails")

    def catching(request: HttpRequest) -> HttpResponse:
        async def fails() -> None:
            await sync_to_async(int)("no number")

        try:
            async_to_sync(fails)()
        except ValueError as error:
            return HttpResponse(type(error).__name__)
        return HttpResponse("no error")

    served = project.serve({"view": view, "catching": catching})
    assert served.get("/view").status == 500
    assert served.get("/catching").text == "ValueError"


def test_a_client_that_leaves_cancels_the_coroutine_which_cleans_up_on_the_thread(
    project: Project, executor: str
) -> None:
    """The request lasts until the clean-up has been made, and its calls come to its thread."""
    events: list[Any] = []
    ended = threading.Event()

    async def view(request: HttpRequest) -> HttpResponse:
        events.append((await sync_to_async(threading.current_thread)()).name)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        finally:
            events.append((await sync_to_async(threading.current_thread)()).name)
            ended.set()
        return HttpResponse("never")

    served = project.serve({"view": view}, threads=1, executor=executor)
    client = served.request("/view")
    until(lambda: events)
    served.until_waiting(1)
    client.close()
    happened(ended)
    served.until_idle()
    before, cancelled, after = events
    assert cancelled == "cancelled"
    assert before == after
    assert before.startswith("bide-thread-1" if executor == "threads" else "bide-django-1")


def test_leaving_while_a_call_of_a_coroutine_waits_raises_at_its_line(project: Project) -> None:
    """And comes up through the coroutine to the view."""
    events: list[str] = []
    ended = threading.Event()

    def call() -> None:
        events.append("begun")
        try:
            wait(asyncio.sleep(3600))
        except ClientDisconnected:
            events.append("call")
            raise

    def view(request: HttpRequest) -> HttpResponse:
        async def coroutine() -> None:
            try:
                await sync_to_async(call)()
            except BaseException:
                events.append("coroutine")
                raise

        try:
            async_to_sync(coroutine)()
        except ClientDisconnected:
            events.append("view")
            raise
        finally:
            ended.set()
        return HttpResponse("never")

    served = project.serve({"view": view}, threads=1)
    client = served.request("/view")
    until(lambda: events)
    served.until_waiting(1)
    client.close()
    happened(ended)
    served.until_idle()
    assert events == ["begun", "call", "coroutine", "view"]


def test_a_time_out_in_a_coroutine_cancels_what_its_call_waits_for(project: Project) -> None:
    """And not what another request's call does, on the same lane."""
    gate = Gate()
    outcomes: list[str] = []
    limits: list[asyncio.Timeout] = []

    async def inner(name: str) -> None:
        outcomes.append(f"{name} begins")
        try:
            await asyncio.wrap_future(gate.promise())
            outcomes.append(f"{name} ends")
        except asyncio.CancelledError:
            outcomes.append(f"{name} cancelled")
            raise

    async def other(request: HttpRequest) -> HttpResponse:
        await sync_to_async(async_to_sync(inner))("other")
        return HttpResponse("other")

    async def timed(request: HttpRequest) -> HttpResponse:
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await sync_to_async(async_to_sync(inner))("timed")
        except TimeoutError:
            return HttpResponse("too late")
        return HttpResponse("in time")

    served = project.serve({"other": other, "timed": timed}, threads=1)
    client = served.request("/other")
    until(lambda: outcomes)
    late = served.request("/timed")
    until(lambda: len(outcomes) == 2)
    served.call(limits[0].reschedule, 0.0)
    assert late.response().text == "too late"
    gate.open()
    assert client.response().text == "other"
    assert outcomes == ["other begins", "timed begins", "timed cancelled", "other ends"]


def test_a_task_that_outlives_its_request_has_its_calls_made_elsewhere(
    project: Project, executor: str
) -> None:
    """As asgiref makes those that no request waits for, in a thread that it keeps for them."""
    gate = Gate()
    threads: list[str] = []
    ended = threading.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await asyncio.wrap_future(gate.promise())
        threads.append((await sync_to_async(threading.current_thread)()).name)
        ended.set()

    async def view(request: HttpRequest) -> HttpResponse:
        tasks.append(asyncio.create_task(later()))
        return HttpResponse("at once")

    served = project.serve({"view": view}, executor=executor)
    assert served.get("/view").text == "at once"
    served.until_idle()
    gate.open()
    happened(ended)
    assert threads[0].startswith("ThreadPoolExecutor")


def test_a_call_that_nobody_makes_before_the_request_ends_is_made_all_the_same(
    project: Project,
) -> None:
    """It came while the request ran and did not wait any more."""
    called = threading.Event()
    running, go_on = threading.Event(), threading.Event()

    async def calling() -> None:
        await asyncio.to_thread(happened, running)
        asyncio.get_running_loop().call_soon(go_on.set)
        await sync_to_async(called.set)()

    tasks: list[asyncio.Task[None]] = []

    def view(request: HttpRequest) -> HttpResponse:
        async def start() -> None:
            tasks.append(asyncio.create_task(calling()))

        async_to_sync(start)()
        running.set()
        happened(go_on)
        assert not called.is_set()
        return HttpResponse("done")

    served = project.serve({"view": view}, threads=1)
    assert served.get("/view").text == "done"
    happened(called)


def test_a_loop_that_is_asked_for_is_a_loop_of_its_own(project: Project) -> None:
    """``force_new_loop`` blocks the thread, as asgiref says; calls still come back to it."""

    async def inner() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        return id(loop), await sync_to_async(threading.get_ident)()

    def view(request: HttpRequest) -> HttpResponse:
        loop, thread = async_to_sync(inner, force_new_loop=True)()
        return HttpResponse(f"{loop != id(served.loop)} {thread == threading.get_ident()}")

    served = project.serve({"view": view})
    assert served.get("/view").text == "True True"


def test_without_the_integration_an_async_view_runs_as_django_alone_runs_it(
    project: Project,
) -> None:
    """On a loop of its own, holding the thread; nothing breaks."""

    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(str(asyncio.get_running_loop() is served.loop))

    served = project.serve({"view": view}, install=False)
    assert served.get("/view").text == "False"


def test_the_test_client_runs_async_views_with_the_integration_in_force(
    project: Project,
) -> None:
    """Outside a request of Bide's everything is as ever."""

    async def view(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse(await sync_to_async(lambda: threading.current_thread().name)())

    project.serve({"view": view})
    assert Client().get("/view").text == threading.current_thread().name


def test_under_another_server_the_bridges_go_through_bide_blocking(project: Project) -> None:
    """The host's thread blocks, and makes the coroutine's calls; streams stream there, too."""
    events: list[str] = []

    async def blocks() -> AsyncIterator[str]:
        yield (await sync_to_async(threading.current_thread)()).name
        events.append("second")
        yield "second"

    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse((await sync_to_async(threading.current_thread)()).name)

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(blocks())

    project.serve({"view": view, "stream": stream})
    application = blocking(get_wsgi_application())
    here = threading.current_thread().name.encode()

    def call(path: str) -> Iterator[bytes]:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        answer: Iterator[bytes] = application(environ, lambda status, headers, error=None: print)
        return answer

    assert b"".join(call("/view")) == here
    iterable = call("/stream")
    assert next(iter(iterable)) == here
    assert events == []
    assert b"".join(iterable) == b"second"
