"""Requests that wait for Celery: a Redis server, and a worker in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bide import wait, wait_all
from tests.conftest import Serve
from tests.ports import free_port
from tests.served import DEADLINE, Environ, answering, until

celery = pytest.importorskip("celery")
redis = pytest.importorskip("redis")
REDIS = shutil.which("redis-server")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(REDIS is None, reason="there is no redis-server"),
]

TASKS = """
import sys
from celery import Celery
url = "redis://127.0.0.1:{port}/0"
app = Celery("tasks", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True

@app.task
def double(number):
    return 2 * number

@app.task
def fail(number):
    raise LookupError("there is no %d" % number)

@app.task
def gate(number):
    import redis
    redis.Redis.from_url(url).blpop("gate", 60)
    return number
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return the module of the tasks; its worker runs one at a time."""
    directory = tmp_path_factory.mktemp("celery")
    port = free_port()
    (directory / "engine_tasks.py").write_text(TASKS.replace("{port}", str(port)))
    server = [str(REDIS), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir"]
    worker = [sys.executable, "-m", "celery", "-A", "engine_tasks", "worker"]
    worker += ["--pool", "threads", "--concurrency", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.append(subprocess.Popen([*server, str(directory)], **quiet))  # type: ignore[call-overload]
            until(lambda: answers(port))
            processes.append(
                subprocess.Popen(worker, cwd=directory, env=environment(directory), **quiet)  # type: ignore[call-overload]
            )
            import engine_tasks  # type: ignore[import-not-found]

            assert engine_tasks.double.delay(1).get(timeout=DEADLINE) == 2
            yield engine_tasks
            engine_tasks.app.close()
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def answers(port: int) -> bool:
    """Whether the server is there."""
    try:
        return bool(redis.Redis(port=port).ping())
    except redis.exceptions.ConnectionError:
        return False


def environment(directory: Path) -> dict[str, str]:
    """Return a worker's environment."""
    import os

    return {**os.environ, "PYTHONPATH": str(directory)}


def test_requests_wait_for_its_results_and_hold_no_thread(serve: Serve, tasks: Any) -> None:
    """One result, several, a group's, one that is there already; and an error."""
    early = tasks.double.delay(50)
    early.get(timeout=DEADLINE)

    def application(environ: Environ) -> str:
        match environ["PATH_INFO"]:
            case "/gate":
                return str(wait(tasks.gate.delay(3)))
            case "/both":
                return str(wait_all(tasks.double.delay(4), tasks.double.delay(5)))
            case "/group":
                return str(wait(celery.group(tasks.double.s(n) for n in range(3)).apply_async()))
            case "/set":
                both = (tasks.double.delay(7), tasks.double.delay(8))
                return str(wait(celery.result.ResultSet(both)))
            case "/early":
                return str(wait(early))
            case "/eager":
                return str(wait(tasks.double.apply([6])))
            case "/chain":
                promise = celery.chain(tasks.fail.s(9), tasks.double.s()).apply_async()
            case _:
                promise = tasks.fail.delay(9)
        try:
            return str(wait(promise))
        except LookupError as error:
            return str(error)

    served = serve(answering(application), threads=1)
    held = served.request("/gate")
    served.until_waiting(1)
    assert served.get("/early").text == "100"
    assert served.get("/eager").text == "12"
    redis.Redis.from_url(tasks.url).lpush("gate", 1)
    assert held.response().text == "3"
    assert served.get("/both").text == "[8, 10]"
    assert served.get("/group").text == "[0, 2, 4]"
    assert served.get("/set").text == "[14, 16]"
    assert served.get("/fails").text == "there is no 9"
    assert served.get("/chain").text == "there is no 9"


def test_a_task_is_revoked_when_its_client_leaves(serve: Serve, tasks: Any) -> None:
    """The worker, which has another to do first, never begins it, nor the first of a chain."""
    given: list[Any] = []

    def application(environ: Environ) -> str:
        if environ["PATH_INFO"] == "/chain":
            both = celery.chain(tasks.double.s(1), tasks.double.s()).apply_async()
            given.extend((both.parent, both))
        else:
            given.append(tasks.gate.delay(len(given)))
        return str(wait(given[-1]))

    served = serve(answering(application), threads=1)
    first, second = served.request("/"), None
    served.until_waiting(1)
    second = served.request("/")
    served.until_waiting(2)
    second.close()
    served.until_waiting(1)
    chain = served.request("/chain")
    served.until_waiting(2)
    chain.close()
    served.until_waiting(1)

    def revoked() -> str:
        return str(tasks.app.control.inspect(timeout=1.0).revoked())

    until(lambda: all(each.id in revoked() for each in given[1:3]))
    redis.Redis.from_url(tasks.url).lpush("gate", 1)
    assert first.response().text == "0"
    until(lambda: [given[each].state for each in (1, 2)] == ["REVOKED"] * 2)
