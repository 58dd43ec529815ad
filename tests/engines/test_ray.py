"""Requests that wait for Ray: tasks, and what an actor returns."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bide import wait, wait_all
from tests.conftest import Serve
from tests.served import Environ, answering, until

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.slow

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import it


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Start Ray on this machine, with two processors."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Gate:
    """An actor: tasks wait for it, and tell it that they have begun."""

    def __init__(self) -> None:
        """Begin closed."""
        self._open = asyncio.Event()
        self._begun = 0

    async def wait(self) -> None:
        """Return when it is open."""
        self._begun += 1
        await self._open.wait()

    async def begun(self) -> int:
        """Return how many wait, or have waited."""
        return self._begun

    async def open(self) -> None:
        """Let all go on."""
        self._open.set()


def behind(gate: Any, number: int) -> int:
    """Return the number when the gate is open; on a worker."""
    ray.get(gate.wait.remote())
    return number


def fails(number: int) -> int:
    """Fail on a worker."""
    raise LookupError(f"there is no {number}")


def test_requests_wait_for_what_its_references_refer_to(serve: Serve) -> None:
    """And hold no thread; several at once, an actor's, and an error."""
    gate = ray.remote(Gate).remote()

    def application(environ: Environ) -> str:
        match environ["PATH_INFO"]:
            case "/gate":
                return str(wait(ray.remote(behind).remote(gate, 3)))
            case "/both":
                return str(wait_all(ray.put(1), ray.remote(behind).remote(gate, 2)))
            case "/actor":
                return str(wait(gate.begun.remote()))
        try:
            return str(wait(ray.remote(fails).remote(9)))
        except LookupError as error:
            return str(error).strip().splitlines()[-1]

    served = serve(answering(application), threads=1)
    held = served.request("/gate")
    until(lambda: served.get("/actor").text == "1")
    until(lambda: served.status.threads_busy == 0)
    ray.get(gate.open.remote())
    assert held.response().text == "3"
    assert served.get("/both").text == "[1, 2]"
    assert served.get("/fails").text.endswith("there is no 9")


def test_a_task_is_cancelled_when_its_client_leaves(serve: Serve) -> None:
    """The worker is free for others."""
    gate = ray.remote(Gate).remote()
    given: list[Any] = []

    def application(_: Environ) -> str:
        given.append(ray.remote(behind).remote(gate, 1))
        return str(wait(given[-1]))

    served = serve(answering(application), threads=1)
    client = served.request("/")
    until(lambda: ray.get(gate.begun.remote()) == 1)
    client.close()
    until(lambda: not served.status.waiting)
    with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError)):
        ray.get(given[0], timeout=60)
