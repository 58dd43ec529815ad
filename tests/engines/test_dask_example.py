"""The example's report: as it comes, and when its reader leaves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Serve
from tests.served import until

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


def test_a_report_comes_part_by_part_and_is_dropped_with_its_reader(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster that an address names."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER", cluster.scheduler_address)
        from examples.dask_report import app as module

        served = serve(module.make_app())
        try:
            assert 'new EventSource("/report/40")' in served.get("/").text
            assert served.get("/report/0").status == 400
            events = served.get("/report/3").text
            assert events.count("event: part\n") == 3
            assert events.endswith("event: report\ndata: 5\n\n")

            def tasks() -> dict[str, Any]:
                found: dict[str, Any] = cluster.scheduler.tasks
                return found

            until(lambda: not tasks())
            reader = served.request("/report/500")
            until(lambda: len(tasks()) == 500)
            reader.close()
            until(lambda: not tasks())
        finally:
            module.client().close()
            module.client.cache_clear()
