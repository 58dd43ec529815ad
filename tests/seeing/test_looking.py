"""Snapshots and stacks of servers in this process: of what runs, and of what stands still."""

import asyncio
import concurrent.futures
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bide
from bide.seeing.snapshot import snapshot
from bide.seeing.stacks import stacks
from tests.conftest import Serve
from tests.each_executor import executor, starting_with
from tests.failures import Failures, same
from tests.served import DEADLINE, Served, until

__all__ = ["executor"]

Environ = dict[str, Any]


class Site:
    """An application whose requests stand still until the test's end."""

    def __init__(self) -> None:
        self.promise: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.opened = threading.Event()

    async def fetch(self) -> None:
        """Await the promise."""
        await asyncio.wrap_future(self.promise)

    async def named(self, name: str) -> None:
        """Await the promise in a task of this name."""
        await asyncio.create_task(self.fetch(), name=name)

    def view(self, environ: Environ) -> None:
        """Wait, or run, as the path says."""
        if environ["PATH_INFO"] == "/runs":
            self.opened.wait()
        else:
            bide.wait(self.fetch())

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        """Answer when the view has ended."""
        self.view(environ)
        start_response("200 OK", [])
        return [b"done"]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """Await the promise in another coroutine."""
        if scope["type"] == "http":
            await self.fetch()
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

    def end(self) -> None:
        """Have all requests go on."""
        self.opened.set()
        if not self.promise.done():
            self.promise.set_result(None)


@pytest.fixture
def site(serve: Serve) -> Iterator[Site]:
    """Return one; its requests end before its server does."""
    site = Site()
    yield site
    site.end()


def found(path: str) -> dict[str, Any]:
    """Return the request for a path, as the snapshot has it; nothing if there is none."""
    requests = snapshot()["requests"]
    return next((each for each in requests if each["target"].startswith(path)), {})


def threads() -> dict[str, dict[str, Any]]:
    """Return the threads of the snapshot by their names."""
    return {each["name"]: each for each in snapshot()["threads"]}


def reach(served: Served, path: str, state: str) -> dict[str, Any]:
    """Make a request that comes to a state; return it."""
    served.request(path)
    until(lambda: found(path).get("state") == state, f"{path} was never {state}")
    return found(path)


def test_a_snapshot_has_each_request_and_what_its_thread_does(
    site: Site, serve: Serve, executor: str
) -> None:
    """Its sums agree with its counts, and JSON can have all of it."""
    served = starting_with(serve, executor)(site)
    waits = reach(served, "/waits", "waiting")
    seen = snapshot()
    json.dumps(seen, allow_nan=False)
    expected = {
        "id": waits["id"],
        "application": waits["application"],
        "method": "GET",
        "client": "127.0.0.1",
        "state": "waiting",
        "waits_for": "coroutine Site.fetch",
        "thread": "bide-thread-1" if executor == "threads" else "the event loop",
        "protocol": "http/1.1",
    }
    (request,) = seen["requests"]
    with Failures() as failures:
        for name, value in expected.items():
            with failures.of(name):
                same(request[name], value)
        with failures.of("total"):
            parts = sum(request[each] for each in ("queued", "running", "waiting", "sending"))
            assert abs(parts - request["total"]) < 0.001
        for name, count in {"waiting": 1, "running": 0, "connections": 1, "websockets": 0}.items():
            with failures.of(name):
                same(seen["counts"][name], count)
        with failures.of("threads"):
            same(threads()[expected["thread"]]["waiting"], 1)
            # The loop has work of its own now and then.
            until(lambda: threads()[expected["thread"]]["state"] == "idle")
    if executor == "threads":
        runs = reach(served, "/runs", "running")
        (row,) = [each for each in threads().values() if each["request"]]
        same((row["state"], row["request"]), ("running", runs["id"]))
        assert row["for"] > 0.0
    same(found("/waits")["id"], waits["id"])


def test_a_loop_that_does_not_answer_is_seen_so(site: Site, serve: Serve) -> None:
    """The look itself does not wait for it; and afterwards it answers again."""
    served = serve(site, executor="loop")
    opened = threading.Event()
    served.loop.call_soon_threadsafe(opened.wait)
    until(lambda: snapshot()["loop_lag"] > 0.05)
    same(threads()["the event loop"]["state"], "running")
    opened.set()
    until(lambda: snapshot()["loop_lag"] < 0.05)


def test_what_steers_terminals_is_escaped_wherever_it_is_from(site: Site, serve: Serve) -> None:
    """A client's target, the name of a task, of a thread, of a limit."""
    served = serve(site, executor="loop")
    with bide.limit(1, name="\x1b[2Jlimit"):
        client = served.connect()
        client.send(b'GET /waits"\\%1b HTTP/1.1\r\nHost: x\r\n\r\n')
        until(lambda: found("/waits").get("state") == "waiting")
        task = asyncio.run_coroutine_threadsafe(site.named("\x1b[2Jtask"), served.loop)
        thread = threading.Thread(target=site.opened.wait, name="\x1b[2Jthread")
        thread.start()
        until(lambda: any("2Jtask" in each["name"] for each in stacks()["tasks"]))
        seen, told = snapshot(), stacks()
    shown = json.dumps([seen, told], ensure_ascii=False)
    with Failures() as failures:
        for text in ("2Jlimit", "2Jtask", "2Jthread", "waits\\\\x22\\\\x5c%1b"):
            with failures.of(text):
                assert text in shown
        with failures.of("controls"):
            assert shown.isprintable()
            assert "\\u001b" not in shown
            assert json.loads(shown) == [seen, told]
    site.end()
    task.result(DEADLINE)
    thread.join(DEADLINE)


def frames(stack: list[str]) -> list[str]:
    """Return the functions of a stack, outermost first."""
    return [each.rpartition(" in ")[2] for each in stack if each.startswith("  File ")]


def test_stacks_are_those_of_the_application_s_code(
    site: Site, serve: Serve, executor: str
) -> None:
    """Of a request that waits, of one that runs, and of what the first one waits for."""
    served = starting_with(serve, executor)(site)
    waits = reach(served, "/waits", "waiting")
    told = stacks()
    (request,) = told["requests"]
    same(frames(request["stack"]), ["__call__", "view"])
    same([request["id"], request["waits_for"]], [waits["id"], "coroutine Site.fetch"])
    until(lambda: ["fetch"] in [frames(each["stack"]) for each in stacks()["tasks"]])
    same(stacks(waits["id"])["requests"], [request])
    same([stacks("9-9")[each] for each in ("threads", "requests", "tasks")], [[], [], []])
    if executor == "threads":
        runs = reach(served, "/runs", "running")
        (row,) = stacks(runs["id"])["threads"]
        same(frames(row["stack"]), ["__call__", "view"])
        same((row["name"], row["request"]), (found("/runs")["thread"], runs["id"]))
        same(stacks(runs["id"])["requests"], [])


def test_the_stack_of_an_asgi_call_leads_to_where_its_task_awaits(site: Site, serve: Serve) -> None:
    """Through all coroutines of the application; it is not a task of its own beside that."""
    waits = reach(serve(site.asgi), "/waits", "waiting")
    (request,) = stacks()["requests"]
    same(request["id"], waits["id"])
    same(frames(request["stack"]), ["asgi", "fetch"])
    assert all("asgi" not in frames(each["stack"]) for each in stacks()["tasks"])


def test_a_request_has_one_id_whoever_looks_first(site: Site, serve: Serve) -> None:
    """Many threads may look at once, at many requests."""
    served = serve(site, executor="loop")
    for number in range(20):
        served.request(f"/{number}")
    until(lambda: served.status.waiting == 20)
    start = threading.Barrier(4)

    def look() -> list[tuple[str, str]]:
        start.wait()
        return [(each.target, each.id) for each in bide.status().requests]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        looks = [each.result() for each in [pool.submit(look) for _ in range(4)]]
    same(looks, [looks[0]] * 4)
    same(len({identity for _, identity in looks[0]}), 20)
