"""With ``opentelemetry``, requests are recorded by its two instruments, and their traces known."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import bide
from bide.serving import telemetry
from bide.serving.counters import SECONDS
from bide.serving.formatters import JSONFormatter, LineFormatter
from bide.serving.logs import MarkedRecords
from tests.conftest import Serve
from tests.failures import Failures, same
from tests.served import Gate, until

TRACE = 32 * "a"
PARENT = f"00-{TRACE}-{16 * 'b'}-01"

GATES: list[Gate] = []


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """Return what reads the metrics of a provider that the program has set."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    telemetry.instruments.cache_clear()
    yield reader
    telemetry.instruments.cache_clear()
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Read the metrics: the points of each, by its name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        each.name: (each.unit, list(each.data.data_points))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for each in scope.metrics
    }


def an_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Wait, where the path says so; say what trace the request has."""
    environ["bide.route"] = "/{what}"
    if environ["PATH_INFO"] == "/waits":
        bide.wait(GATES[0].promise())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(environ.get("bide.trace_id")).encode()]


def test_opentelemetry_is_told_of_each_request_by_its_two_instruments(
    serve: Serve, reader: InMemoryMetricReader, gate: Gate
) -> None:
    """With the attributes and the units of its conventions; those in progress are up to date."""
    GATES[:] = [gate]
    served = serve(an_application, opentelemetry=True)
    other = serve(an_application, opentelemetry=True)  # the instruments are the process's
    client = served.request("/waits", method="BREW")
    served.until_waiting(1)
    other.get("/")
    other.until_idle()
    until(lambda: telemetry.DURATION in points(reader))
    unit, observed = points(reader)[telemetry.ACTIVE]
    (point,) = [each for each in observed if each.value]
    with Failures() as failures:
        with failures.of("active"):
            same(unit, "{request}")
            same(point.value, 1)
            same(dict(point.attributes), {"http.request.method": "_OTHER", "url.scheme": "http"})
        unit, (point,) = points(reader)[telemetry.DURATION]
        with failures.of("duration"):
            same((unit, point.count), ("s", 1))
            same(tuple(point.explicit_bounds), SECONDS)
            same(
                dict(point.attributes),
                {
                    "http.request.method": "GET",
                    "url.scheme": "http",
                    "network.protocol.version": "1.1",
                    "http.response.status_code": 200,
                    "http.route": "/{what}",
                },
            )
    client.close()
    served.until_idle()

    def departed() -> bool:
        _, ended = points(reader)[telemetry.DURATION]
        errors = [each.attributes.get("error.type") for each in ended]
        return sorted(errors, key=str) == [None, "client_disconnected"]

    until(departed)
    _, now = points(reader)[telemetry.ACTIVE]
    same({each.value for each in now}, {0})


def test_a_request_s_trace_is_in_its_environ_its_scope_and_the_log(serve: Serve) -> None:
    """With a right traceparent; without one, and without the setting, nothing is added."""
    heard: list[Any] = []
    logger = logging.getLogger("tests.telemetry")
    make = MarkedRecords(logging.LogRecord)

    def log_lines() -> None:
        record = make(logger.name, logging.INFO, __file__, 1, "a line", (), None)
        line = LineFormatter("%(message)s").format(record)
        fields = JSONFormatter().format(record)
        heard[:] = [record.__dict__["trace_id"], record.__dict__["request_id"], line, fields]

    def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        log_lines()
        return an_application(environ, start_response)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        log_lines()
        text = str(scope["extensions"].get("bide.trace_id")).encode()
        length = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": text})

    right, wrong = [f"traceparent: {PARENT}"], ["traceparent: 00-a-b-01"]
    with Failures() as failures:
        for application in (wsgi, asgi):
            for settings, headers, trace, request in (
                ({"opentelemetry": True}, right, TRACE, False),
                ({"opentelemetry": True}, wrong, None, False),
                ({"opentelemetry": True, "request_id": "X-Id"}, right, TRACE, True),
                ({"request_id": "X-Id"}, right, TRACE, True),
                ({"request_id": "X-Id"}, [], None, True),
                ({}, right, None, False),
            ):
                with failures.of((application.__name__, settings, headers)):
                    served = serve(application, lifespan="off", **settings)
                    response = served.get("/", headers=headers)
                    same(response.body, str(trace).encode())
                    same("x-id" in {name.lower() for name, _ in response.headers}, request)
                    same(heard[0], trace or "-")
                    same(heard[1] != "-", request)
                    same("[" in heard[2], bool(trace or request))
                    same(TRACE in heard[3], trace is not None)
                    same("request_id" in heard[3], request)
                    served.stop()


def test_without_the_library_one_line_says_what_to_install(tmp_path: Any) -> None:
    """At the start, and only where it is wanted."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('as the test says')\n")
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    command = [sys.executable, "-c", "from bide.cli import main; main()", "app:app"]
    found = subprocess.run(
        [*command, "--bind", "127.0.0.1:0", "--control", "off", "--opentelemetry"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert found.returncode
    (line,) = found.stderr.strip().splitlines()
    assert line.endswith(
        "--opentelemetry needs opentelemetry-api, which is not installed: pip install 'bide[otel]'"
    )
