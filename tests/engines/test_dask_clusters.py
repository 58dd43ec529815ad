"""The same Flask application on one machine's cluster, and on clusters of processes over TCP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.served import Served, until

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    # A LocalCluster of Dask's leaves a socket to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestWarning"),
]

Start = Callable[[], str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a scheduler and two workers, as on machines of their own."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(tool: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{tool}", *arguments]
        with (tmp_path / "log").open("ab") as log:
            processes.append(subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log))

    def begin() -> str:
        file = tmp_path / f"scheduler-{len(processes)}.json"
        where = ("--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard")
        run("scheduler", *where, "--port", "0")
        # It is made empty, and written then.
        until(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        address: str = json.loads(file.read_text())["address"]
        for _ in range(2):
            worker = ("--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--no-nanny")
            run("worker", address, *worker)
        return address

    yield begin
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def test_an_application_moves_to_a_cluster_by_an_address(
    serve: Serve, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its own two workers first; then on either of two clusters. Its reader may leave each."""
    from examples.dask_report import app as module

    clusters = [start(), start()]
    for address in (None, *clusters):
        if address is None:
            monkeypatch.delenv("DASK_SCHEDULER", raising=False)
        else:
            monkeypatch.setenv("DASK_SCHEDULER", address)
        served = serve(module.make_app())
        client: Any = module.client()
        try:
            client.wait_for_workers(2)
            if address is not None:
                assert client.scheduler.address == address
            asked(served, client)
        finally:
            if client.cluster is not None:
                client.cluster.close()
            client.close()
            module.client.cache_clear()


def asked(served: Served, client: Any) -> None:
    """Read a report, and leave another."""
    assert served.get("/report/3").text.endswith("event: report\ndata: 5\n\n")

    def tasks() -> int:
        # Within a function, whose code is sent.
        def count(dask_scheduler: Any) -> int:
            return len(dask_scheduler.tasks)

        number: int = client.run_on_scheduler(count)
        return number

    until(lambda: tasks() == 0)
    reader = served.request("/report/500")
    until(lambda: tasks() == 500)
    reader.close()
    until(lambda: tasks() == 0)
