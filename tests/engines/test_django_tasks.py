"""Requests that wait for tasks of Django's, version 6.0, which needs Python 3.12."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from copy import copy
from typing import Any, Final

import pytest

from bide import wait, wait_all
from tests.conftest import Serve
from tests.django_settings import django_settings
from tests.served import Environ, answering, happened, until

pytest.importorskip("django.tasks")

from django import tasks
from django.tasks import TaskResult, TaskResultStatus
from django.tasks.backends.immediate import ImmediateBackend
from django.test.utils import override_settings

pytestmark = pytest.mark.slow


class Threaded(ImmediateBackend):  # type: ignore[misc]
    """A backend as those of other people: a worker runs the tasks, and a store has the results.

    Django makes one for each thread.
    """

    supports_get_result = True
    store: Final[dict[str, Any]] = {}
    queued: Final[queue.SimpleQueue[Any]] = queue.SimpleQueue()

    def _execute_task(self, task_result: Any) -> None:
        self.store[task_result.id] = task_result
        self.queued.put(copy(task_result))

    def work(self) -> None:
        """Run tasks until there is None."""
        while (result := self.queued.get()) is not None:
            super()._execute_task(result)
            self.store[result.id] = result

    def get_result(self, result_id: str) -> Any:
        """Look the result up, on a thread of asgiref's."""
        return copy(self.store[result_id])


opened = threading.Event()


def double(number: int) -> int:
    return 2 * number


def fails() -> None:
    raise LookupError


def waits(number: int) -> int:
    happened(opened)
    return number


@pytest.fixture
def backends() -> Iterator[None]:
    """Set up a backend that runs tasks at once, and one that has a worker."""
    mine = {
        "default": {"BACKEND": f"{__name__}.Threaded"},
        "immediate": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
    }
    with django_settings(USE_TZ=True), override_settings(TASKS=mine):
        worker = threading.Thread(target=tasks.task_backends["default"].work)
        worker.start()
        yield
        Threaded.queued.put(None)
        worker.join()


def test_requests_wait_for_its_tasks_and_hold_no_thread(serve: Serve, backends: None) -> None:
    """As many as there are, on one thread; more than one in a request; and what fails."""
    held, doubled, failing = (tasks.task(each) for each in (waits, double, fails))

    def application(environ: Environ) -> str:
        match environ["PATH_INFO"]:
            case "/held":
                return str(wait(held.enqueue(3)))
            case "/both":
                return str(wait_all(doubled.enqueue(4), doubled.enqueue(5)))
            case "/immediate":
                return str(wait(doubled.using(backend="immediate").enqueue(6)))
            case "/awaited":
                return str(wait(wait(doubled.aenqueue(7))))
        try:
            return str(wait(failing.enqueue()))
        except ValueError as error:
            return str(error)

    served = serve(answering(application), threads=1)
    clients = [served.request("/held") for _ in range(3)]
    served.until_waiting(3)
    until(lambda: served.status.threads_busy == 0)
    assert served.get("/immediate").text == "12"
    opened.set()
    assert [each.response().text for each in clients] == ["3"] * 3
    assert served.get("/both").text == "[8, 10]"
    assert served.get("/awaited").text == "14"
    assert served.get("/fails").text == "Task failed"


def test_a_task_whose_client_has_left_is_looked_at_no_more(serve: Serve, backends: None) -> None:
    """It goes on: no backend of Django's can cancel one."""
    held = tasks.task(waits)
    given: list[TaskResult] = []

    def application(_: Environ) -> str:
        given.append(held.enqueue(1))
        return str(wait(given[0]))

    opened.clear()
    served = serve(answering(application), threads=1)
    client = served.request("/")
    served.until_waiting(1)
    client.close()
    until(lambda: not served.status.waiting)
    opened.set()
    until(lambda: Threaded.store[given[0].id].status == TaskResultStatus.SUCCESSFUL)
    assert not given[0].is_finished
