"""Requests that wait for Dask: its futures as they come from a cluster of two worker processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bide import wait, wait_all
from tests.conftest import Serve
from tests.served import Environ, answering, until

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Return a client of a cluster with two workers, of one thread each."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


# Not at the top of the module, which the workers cannot import: Dask sends their code then.
def _work() -> tuple[Any, Any, Any]:
    def slow(number: int) -> int:
        time.sleep(0.05)
        return number

    def fails(number: int) -> int:
        raise LookupError(f"there is no {number}")

    def opened(number: int) -> int:
        return number if distributed.Event("open").wait(60) else -1

    return slow, fails, opened


slow, fails, opened = _work()


def test_requests_wait_for_its_futures_and_hold_no_thread(serve: Serve, client: Any) -> None:
    """As many as there are, on two threads; more than one in a request; and their errors."""

    def application(environ: Environ) -> str:
        number = len(environ["PATH_INFO"])
        if environ["PATH_INFO"].startswith("/f"):
            try:
                return str(wait(client.submit(fails, number, pure=False)))
            except LookupError as error:
                return str(error)
        if environ["PATH_INFO"].startswith("/b"):
            futures = client.map(slow, [number, number + 1], pure=False)
            return str(wait_all(*futures))
        return str(wait(client.submit(opened, number, pure=False)))

    served = serve(answering(application), threads=2)
    held = [served.request("/" + "o" * number) for number in range(1, 5)]
    served.until_waiting(4)
    until(lambda: served.status.threads_busy == 0)
    distributed.Event("open", client=client).set()
    assert [each.response().text for each in held] == ["2", "3", "4", "5"]
    assert served.get("/f").text == "there is no 2"
    assert served.get("/bb").text == "[3, 4]"


def test_a_future_is_cancelled_when_its_client_leaves(serve: Serve, client: Any) -> None:
    """And one that another request waits for, too, goes on."""
    begun: list[Any] = []
    shared = client.submit(opened, 7, pure=False)
    distributed.Event("open", client=client).clear()

    def application(environ: Environ) -> str:
        future = shared
        if environ["PATH_INFO"] == "/own":
            future = client.submit(opened, 8, pure=False)
            begun.append(future)
        return str(wait(future))

    distributed.Event("open", client=client).clear()
    served = serve(answering(application), threads=2)
    own, both, other = (served.request(path) for path in ("/own", "/shared", "/shared"))
    served.until_waiting(3)
    own.close()
    both.close()
    until(lambda: begun[0].status == "cancelled")
    served.until_waiting(1)
    distributed.Event("open", client=client).set()
    assert other.response().text == "7"


def test_a_result_is_fetched_on_its_own_thread(
    serve: Serve, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For that may ask the network: neither the loop nor a lane stands still for it."""
    names: list[str] = []
    result = distributed.Future.result

    def told(future: Any, *args: Any, **named: Any) -> Any:
        names.append(threading.current_thread().name)
        return result(future, *args, **named)

    monkeypatch.setattr(distributed.Future, "result", told)

    def application(_: Environ) -> str:
        return str(len(wait(client.submit(bytes, 5_000_000, pure=False))))

    served = serve(answering(application))
    assert served.get().text == "5000000"
    assert names
    assert not [name for name in names if name.startswith("bide") or "loop" in name.lower()]
