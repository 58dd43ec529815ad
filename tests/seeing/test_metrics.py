"""What Prometheus is told of an instance: all workers together, in its format, and bounded."""

import shutil
import subprocess
import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bide.seeing import metrics
from bide.seeing.snapshot import snapshot
from bide.serving.counters import (
    BLOCKED,
    DURATION,
    PARTS,
    RECEIVED,
    REJECTED,
    SENT,
    Counters,
    add,
)
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import DEADLINE, Log

GET = "GET\thttp\t200\t1.1\t\t/items/{id}"
COUNTED: Counters = {
    f"{DURATION}_bucket": {f"{GET}\t0.005": 7, f"{GET}\t0.01": 2, f"{GET}\t+Inf": 1},
    f"{DURATION}_sum": {GET: 20.5},
    f"{RECEIVED}_bucket": {f"{GET}\t1000": 10},
    f"{RECEIVED}_sum": {GET: 0},
    f"{SENT}_bucket": {f"{GET}\t1000": 10},
    f"{SENT}_sum": {GET: 130},
    f"{PARTS[0]}_bucket": {"0.005": 10},
    f"{PARTS[0]}_sum": {"": 0.125},
    REJECTED: {"queue_full": 3, "400": 1},
    BLOCKED: {"thread": 2},
}


def a_row(method: str = "GET", state: str = "running") -> dict[str, Any]:
    """Make the row of a request."""
    return {"method": method, "state": state}


def a_worker(number: int = 0, counters: Counters | None = None, **more: Any) -> dict[str, Any]:
    """Make the snapshot of a worker."""
    return {
        "worker": number,
        "up": 10.0,
        "form": "pure Python",
        "rss_bytes": 1000 + number,
        "loop_lag": 0.001,
        "counts": {
            "queued": 1,
            "queue_limit": 100,
            "threads_max": 4,
            "connections": 10,
            "websockets": 3,
        },
        "connections": {"http/1": 5, "http/2": 3, "websocket": 2},
        "threads": [
            {"name": "the event loop", "state": "running"},
            {"name": "thread-1", "state": "idle"},
            {"name": "thread-2", "state": "blocked"},
        ],
        "requests": [a_row(), a_row("BREW", "waiting"), a_row("spawn", "waiting")],
        "counters": COUNTED if counters is None else counters,
        **more,
    }


def an_instance(*workers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Make what a server says of itself."""
    return {
        "version": "1.0",
        "workers": list(workers),
        "mute": [],
        "restarts": {},
        "ended": {},
        **more,
    }


def numbers(instance: dict[str, Any]) -> dict[str, float]:
    """Return each number that Prometheus is told, by its name and the values of its labels."""
    text = metrics.render(instance).decode()
    return {
        " ".join([each.name, *(f"{name}={each.labels[name]}" for name in sorted(each.labels))]): (
            each.value
        )
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_workers_are_added_up_and_told_apart_where_they_cannot_be() -> None:
    """With those that have ended, and one that does not answer."""
    told = numbers(
        an_instance(a_worker(1), a_worker(2), mute=[3], restarts={"died": 2}, ended=COUNTED)
    )
    labels = (
        "error_type= http_request_method=GET http_response_status_code=200 "
        "http_route=/items/{id} %snetwork_protocol_version=1.1 url_scheme=http"
    )
    with Failures() as failures:
        for name, value in (
            (f"{DURATION}_bucket {labels % 'le=0.005 '}", 21),
            (f"{DURATION}_bucket {labels % 'le=0.01 '}", 27),
            (f"{DURATION}_bucket {labels % 'le=10 '}", 27),
            (f"{DURATION}_bucket {labels % 'le=+Inf '}", 30),
            (f"{DURATION}_count {labels % ''}", 30),
            (f"{DURATION}_sum {labels % ''}", 61.5),
            (f"{SENT}_bucket {labels % 'le=1e+08 '}", 30),
            (f"{SENT}_sum {labels % ''}", 390),
            ("bide_request_queue_seconds_count", 30),
            ("bide_request_queue_seconds_sum", 0.375),
            ("bide_request_wait_seconds_count", 0),
            ("bide_rejected_total reason=queue_full", 9),
            ("bide_rejected_total reason=queue_timeout", 0),
            ("bide_rejected_total reason=400", 3),
            ("bide_blocked_total where=thread", 6),
            ("bide_blocked_total where=loop", 0),
            ("bide_connections_opened_total", 0),
            ("bide_worker_restarts_total reason=died", 2),
            ("http_server_active_requests http_request_method=GET", 2),
            ("http_server_active_requests http_request_method=_OTHER", 2),
            ("bide_requests state=waiting", 2),
            ("bide_requests state=running", 2),
            ("bide_requests state=sending", 0),
            ("bide_spawned", 2),
            ("bide_threads state=idle", 2),
            ("bide_threads state=running", 0),
            ("bide_threads state=blocked", 2),
            ("bide_threads_limit", 8),
            ("bide_queue_length", 2),
            ("bide_queue_limit", 200),
            ("bide_connections protocol=http/1", 10),
            ("bide_connections protocol=http/2", 6),
            ("bide_connections protocol=websocket", 4),
            ("bide_websockets", 6),
            ("bide_worker_up worker=1", 1),
            ("bide_worker_up worker=3", 0),
            ("bide_worker_rss_bytes worker=2", 1002),
            ("bide_worker_uptime_seconds worker=1", 10),
            ("bide_loop_lag_seconds worker=1", 0.001),
        ):
            with failures.of(name):
                same(told.get(name), value)
    assert any(each.startswith("bide_build_info form=pure Python") for each in told)
    assert not [each for each in told if "path" in each]


def test_promtool_finds_nothing_to_say() -> None:
    """Of names, units and types; with every label, and with none."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    odd: Counters = {
        REJECTED: {"a\nb": 1},
        f"{DURATION}_bucket": {'GET\thttp\t200\t1.1\t\t/"\\é{id}\t0.005': 1},
        f"{DURATION}_sum": {'GET\thttp\t200\t1.1\t\t/"\\é{id}': 1.0},
    }
    with Failures() as failures:
        for name, instance in (
            ("nothing", an_instance(a_worker(counters={}), workers=[])),
            ("one", an_instance(a_worker())),
            ("odd texts", an_instance(a_worker(counters=odd), restarts={"a": 1}, mute=[7])),
        ):
            with failures.of(name):
                found = subprocess.run(
                    [promtool, "check", "metrics"],
                    input=metrics.render(instance),
                    capture_output=True,
                    check=False,
                )
                same((found.returncode, found.stdout, found.stderr), (0, b"", b""))


def test_the_names_have_units_and_each_has_one_kind() -> None:
    """The rules that promtool checks, for machines without it."""
    text = metrics.render(an_instance(a_worker(), mute=[2], restarts={"died": 1})).decode()
    with Failures() as failures:
        for family in text_string_to_metric_families(text):
            with failures.of(family.name):
                assert family.documentation.endswith(".")
                names = {each.name for each in family.samples}
                assert names, "it is always there"
                if family.type == "counter":
                    same(names, {f"{family.name}_total"})
                elif family.type == "gauge":
                    same(names, {family.name})
                    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
                else:
                    same(family.type, "histogram")
                    assert family.name.endswith(("_seconds", "_bytes"))


def test_a_scrape_stops_nobody_and_waits_for_nobody(serve: Serve, log: Log) -> None:
    """The numbers are those of a server whose loop and whose only thread are blocked."""
    begun, go_on = threading.Event(), threading.Event()

    def blocks(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/blocks":
            begun.set()
            assert go_on.wait(DEADLINE)
        start_response("200 OK", [("Content-Length", "0")])
        return []

    for executor in ("loop", "threads"):
        served = serve(blocks, executor=executor, threads=1, limit_threads=1)
        before = numbers(an_instance(snapshot()))
        served.get("/")
        served.until_idle()
        client = served.request("/blocks")
        assert begun.wait(DEADLINE)
        now = numbers(an_instance(snapshot()))
        go_on.set()
        client.response()
        assert now["http_server_active_requests http_request_method=GET"] == 1
        name = "bide_request_run_seconds_count"
        assert now[name] == before[name] + 1
        served.stop()
        begun.clear()
        go_on.clear()


def test_nothing_falls_when_a_worker_ends() -> None:
    """What it has counted goes on in that of those that have ended."""
    before = numbers(an_instance(a_worker(1), a_worker(2)))
    after = numbers(an_instance(a_worker(1), ended=add({}, COUNTED)))
    with Failures() as failures:
        for name, value in before.items():
            if name.partition(" ")[0].endswith(("_total", "_count", "_sum", "_bucket")):
                with failures.of(name):
                    assert after[name] >= value
