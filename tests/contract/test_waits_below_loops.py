"""What is in progress on a thread stays its own: an import and a foreign event loop.

Below them a wait blocks a thread of the pool; on the event loop's own thread it is refused.
"""

import asyncio
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import trio
from gevent.hub import get_hub

from bide import wait
from bide.errors import WaitError
from bide.waiting.locks import IMPORT, LOOP
from tests.conftest import Serve
from tests.each_executor import executor as executor
from tests.served import Application, Environ, Gate, Served, answering, until


@pytest.fixture
def called() -> list[str]:
    """Keep what a module's body is to tell, under the name ``called`` of this module."""
    return []


MODULE = """
import tests_waiting_module_hook as hook
half = "initialized"
hook.wait()
name = "whole"
"""


@pytest.fixture
def module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate, called: list[str]
) -> Iterator[str]:
    """Return the name of a module whose body waits for the gate."""
    hook: Any = types.ModuleType("tests_waiting_module_hook")

    def hooked() -> None:
        called.append("the body waits")
        wait(gate.promise())

    hook.wait = hooked
    monkeypatch.setitem(sys.modules, hook.__name__, hook)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tests_waiting_module.py").write_text(MODULE)
    importlib.invalidate_caches()
    yield "tests_waiting_module"
    sys.modules.pop("tests_waiting_module", None)


def imports(module: str) -> Application:
    """Make an application each of whose requests imports the module."""

    def answer(_: Environ) -> str:
        try:
            name: str = importlib.import_module(module).name
        except (AttributeError, WaitError) as error:
            return str(error)
        return name

    return answering(answer)


@pytest.mark.parametrize("executor", ["threads"])
@pytest.mark.parametrize("threads", [1, 2])
def test_requests_wait_for_a_module_that_another_imports(
    serve: Serve, gate: Gate, module: str, called: list[str], executor: str, threads: int
) -> None:
    """On one thread as on two: none sees half of it, and its body runs once."""
    served = serve(imports(module), executor=executor, threads=threads, limit_threads=threads)
    first = served.request()
    until(lambda: called)
    second = served.request()
    until(lambda: served.status.running + served.status.queued == 2)
    gate.open()
    assert first.response().text == second.response().text == "whole"
    assert called == ["the body waits"]


@pytest.mark.parametrize("executor", ["threads"])
def test_requests_wait_for_a_module_that_is_loaded_in_another_way(
    serve: Serve, gate: Gate, module: str, called: list[str], executor: str
) -> None:
    """Reloaded, or loaded when it is first used: its lock is the thread's, too."""

    def answer(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/reload":
            importlib.reload(sys.modules[module])
        return str(sys.modules[module].name)

    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[module])

    served = serve(answering(answer), executor=executor, threads=1)
    for path in ("/first", "/reload"):
        client = served.request(path)
        until(lambda: called)
        assert (served.status.waiting, served.status.running) == (0, 1)
        gate.open()
        assert client.response().text == "whole"
        gate.__init__()  # type: ignore[misc]
        called.clear()


@pytest.mark.parametrize("executor", ["loop"])
def test_a_module_cannot_wait_on_the_event_loop(
    serve: Serve, module: str, called: list[str], executor: str
) -> None:
    """Blocked, it would wait for ever; the next request tries again."""
    served = serve(imports(module), executor=executor)
    assert [served.get().text for _ in range(2)] == [IMPORT, IMPORT]
    assert called == ["the body waits"] * 2


def by_trio(function: Callable[[], str]) -> str:
    """Call below trio's loop."""

    async def main() -> str:
        return function()

    return trio.run(main)


def by_own(function: Callable[[], str]) -> str:
    """Call below a loop that nobody knows: it runs a coroutine."""

    async def main() -> str:
        return function()

    coroutine = main()
    try:
        coroutine.send(None)
    except StopIteration as end:
        return str(end.value)
    raise AssertionError("it has parked in the loop")


def by_gevent(function: Callable[[], str]) -> str:
    """Call in a greenlet of gevent's, whose hub was made by this thread's first request."""
    result: str = gevent.spawn(function).get()
    return result


def by_gevents_hub(function: Callable[[], str]) -> str:
    """Call in the hub's own greenlet."""
    results: list[str] = []
    get_hub().loop.run_callback(lambda: results.append(function()))
    gevent.sleep(0)
    return results[0]


def by_asyncio(function: Callable[[], str]) -> str:
    """Call below asyncio's own, in a callback."""
    loop = asyncio.new_event_loop()
    results: list[str] = []

    def callback() -> None:
        results.append(function())
        loop.stop()

    loop.call_soon(callback)
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        loop.run_forever()
    finally:
        asyncio._set_running_loop(running)
        loop.close()
    return results[0]


LOOPS = pytest.mark.parametrize("below", [by_trio, by_own, by_gevent, by_gevents_hub, by_asyncio])


def below_a_loop(below: Callable[[Callable[[], str]], str], gate: Gate) -> Application:
    """Make an application that waits below a loop, and answers with the error if there is one."""

    def waits() -> str:
        try:
            wait(gate.promise())
        except WaitError as error:
            return str(error)
        return "it has waited"

    return answering(lambda environ: below(waits) if environ["PATH_INFO"] == "/" else "other")


def until_running(served: Served) -> None:
    """Return once a request runs, and holds its thread."""
    until(lambda: served.status.running and not served.status.waiting)


@pytest.mark.parametrize("executor", ["threads"])
@LOOPS
def test_a_wait_below_a_loop_blocks_its_thread(
    serve: Serve, gate: Gate, below: Callable[[Callable[[], str]], str], executor: str
) -> None:
    """The next request begins when the loop has ended, and finds none running."""
    served = serve(below_a_loop(below, gate), executor=executor, threads=1, limit_threads=1)
    first = served.request()
    until_running(served)
    second = served.request()
    until(lambda: served.status.queued == 1)
    assert served.status.waiting == 0
    gate.open()
    assert first.response().text == second.response().text == "it has waited"


@pytest.mark.parametrize("executor", ["loop"])
@LOOPS
def test_a_wait_below_a_loop_on_the_event_loop_is_refused(
    serve: Serve, gate: Gate, below: Callable[[Callable[[], str]], str], executor: str
) -> None:
    """At that line, by name; the server goes on."""
    served = serve(below_a_loop(below, gate), executor=executor)
    refused = served.get().text
    assert refused == LOOP or refused.startswith("this thread runs an event loop")
    assert served.get("/other").text == "other"
