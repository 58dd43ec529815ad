"""What the tests of the examples are given."""

import asyncio
import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import bide
from tests.examples.serving import DEADLINE, Example, LoopThread, Serve, Served, Watched


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    """Run the one loop on which every server of these tests, and so every client, lives."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def serve(loop_thread: LoopThread) -> Serve:
    """Return what serves an application, until its ``with`` block is left.

    With others beside it, by their paths, if ``mounted`` names any.
    """

    @contextlib.contextmanager
    def serving(
        application: Any, mounted: Mapping[str, Any] | None = None, **settings: Any
    ) -> Iterator[Served]:
        watched = Watched(application)
        whole: Any = bide.mount({"/": watched, **mounted}) if mounted else watched
        started: asyncio.Future[list[str]] = loop_thread.loop.create_future()
        stop = asyncio.Event()

        async def hold() -> None:
            async with bide.Server(whole, bind="127.0.0.1:0", **settings) as server:
                started.set_result(server.addresses)
                await stop.wait()

        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(hold())
            either: set[asyncio.Future[Any]] = {task, started}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task

        task = loop_thread.run(start())
        try:
            yield Served(started.result()[0], watched)
        finally:
            loop_thread.loop.call_soon_threadsafe(stop.set)
            loop_thread.run(asyncio.wait_for(_finished(task), DEADLINE))

    return serving


async def _finished(task: "asyncio.Task[None]") -> None:
    await task


@pytest.fixture(scope="session")
def example(loop_thread: LoopThread) -> Iterator[Example]:
    """Import an example by its dotted name; its HTTP client is closed after the last test."""
    imported: dict[str, Any] = {}

    def import_example(name: str) -> Any:
        if name not in imported:
            imported[name] = importlib.import_module(f"examples.{name}")
        return imported[name]

    yield import_example
    for module in imported.values():
        if hasattr(module, "CLIENT"):
            loop_thread.run(module.CLIENT.aclose())
