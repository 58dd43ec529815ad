"""What an application may do (docs/guide.md), run for both executors over a real server.

And, where a test needs nothing of Bide's own server, over the hosts of :mod:`hosted`.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import served as serving
from tests.conftest import Serve
from tests.contract.hosted import HOSTS, MODULES, NOT_TRIED, PATIENCE, Hosted, reason
from tests.each_executor import starting_with
from tests.served import Application, Log, Served


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for every executor and host; one whose application must block names its own."""
    if "executor" not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        if "executor" in mark.args[0]:
            return
    module = metafunc.module.__name__.rpartition(".")[2]
    hosts = [
        pytest.param(name, marks=pytest.mark.slow)
        for name in HOSTS
        if module in MODULES and name not in MODULES[module]
    ]
    metafunc.parametrize("executor", ["threads", "loop", *hosts], indirect=True)


@pytest.fixture
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name the executor, or the host; what a host cannot do is expected to fail."""
    name: str = request.param
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
    """Give what starts the test's host, as ``serve`` does a server; settings are not for hosts."""
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
