"""What an application may do (docs/guide.md), run for both executors over a real server.

And, where a test needs nothing of Bide's own server, over the hosts of :mod:`hosted`.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import http2, tls
from tests import served as serving
from tests.conftest import Serve
from tests.contract import http1_alone
from tests.contract.hosted import HOSTS, MODULES, NOT_TRIED, PATIENCE, Hosted, reason
from tests.contract.in_processes import IN_PROCESSES
from tests.each_executor import starting_with
from tests.served import Application, Log, Served

OVER_TLS = {
    "test_departure",
    "test_file_wrapper",
    "test_input",
    "test_websockets",
    "test_websockets_over_http2",
}
"""The modules that are run over TLS too, where the run as a whole is not."""
OVER_HTTP2 = {"test_departure", "test_file_wrapper", "test_input"}
"""And those that are run over HTTP/2 too."""
IN_CLEAR = {
    "test_a_file_is_sent_by_the_kernel_with_its_length": "the kernel sends no file over TLS",
    "test_a_file_is_sent_from_where_it_stands": "the kernel sends no file over TLS",
    "test_a_file_that_was_moved_through_its_wrapper_is_sent_by_the_kernel": "as above",
    "test_a_range_of_flask_s_is_sent_by_the_kernel": "as above",
    "test_a_slow_disk_stops_nobody_but_its_own_request": "as above",
    "test_what_interrupts_a_send_cannot_wait_under_the_connections_lock": "it replaces the socket",
    "test_a_refused_upload_that_goes_on_slowly_is_read_and_then_its_answer": "it counts bytes",
    "test_all_that_have_connected_are_answered_when_the_server_stops": (
        "it blocks the loop, on which handshakes end; tests/live/test_tls.py stops over TLS"
    ),
    "test_a_request_that_nobody_has_read_yet_is_served": "as above",
}
"""What cannot be asked over TLS, and why."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, over TLS and over HTTP/2, what cannot be asked there."""
    for item in items:
        over_http2 = item.path.parent.name == "contract" and http2.wanted()
        if over_http2 or "-http2" in item.name:
            alone = http1_alone.reason(item.path.stem, item.name)
            if alone is not None:
                item.add_marker(pytest.mark.skip(reason=f"of HTTP/1 alone: {alone}"))
        if isinstance(item, pytest.Function) and (tls.wanted() or "-tls" in item.name):
            why = IN_CLEAR.get(item.originalname)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for every executor and host; one whose application must block names its own."""
    if "executor" not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        if "executor" in mark.args[0]:
            return
    module = metafunc.module.__name__.rpartition(".")[2]
    otherwise = tls.wanted() or http2.wanted()
    hosts = [
        pytest.param(name, marks=pytest.mark.slow)
        for name in HOSTS
        if module in MODULES and name not in MODULES[module] and not otherwise
    ]
    over_tls = ["threads-tls"] if module in OVER_TLS and not otherwise else []
    over_http2 = ["threads-http2"] if module in OVER_HTTP2 and not otherwise else []
    known = metafunc.function.__name__ in IN_PROCESSES.get(module, ())
    others = [*over_tls, *over_http2, *(["processes"] if known and not otherwise else []), *hosts]
    metafunc.parametrize("executor", ["threads", "loop", *others], indirect=True)


@pytest.fixture
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the executor, or the host; what a host cannot do is expected to fail."""
    name: str = request.param
    for suffix, wanted in (("-tls", tls.WANTED), ("-http2", http2.WANTED)):
        if name.endswith(suffix):
            monkeypatch.setenv(wanted, "1")
            return name.removesuffix(suffix)
    module = request.module.__name__.rpartition(".")[2]
    why = reason(name, module, request.node.name)
    if why is not None:
        tried = f"{module}::{request.function.__name__}" not in NOT_TRIED
        request.applymarker(pytest.mark.xfail(reason=why, strict=True, run=tried))
        for place in (serving, request.module):
            monkeypatch.setattr(place, "DEADLINE", PATIENCE, raising=False)
    return name


@pytest.fixture
def hosted(executor: str, log: Log) -> Iterator[Serve]:
    """Return what starts the test's host, as ``serve`` starts a server; hosts take no settings."""
    started: list[Hosted] = []

    def start(application: Application, **settings: Any) -> Served:
        served = HOSTS[executor](application, **settings)
        started.append(served)
        return served

    yield start
    for served in started:
        served.stop()


@pytest.fixture
def serve(serve: Serve, executor: str, hosted: Serve) -> Serve:
    """Start servers with the test's executor, or hosts."""
    if executor in HOSTS:
        return hosted
    return starting_with(serve, executor)
