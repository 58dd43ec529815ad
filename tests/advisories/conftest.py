"""What the tests of published attacks are given: servers with either executor."""

from typing import Any

import pytest

from tests.conftest import Serve
from tests.serving import Application, Served


@pytest.fixture(params=["threads", "loop"])
def executor(request: pytest.FixtureRequest) -> str:
    """Name the executor."""
    name: str = request.param
    return name


@pytest.fixture
def serve(serve: Serve, executor: str) -> Serve:
    """Start servers with the test's executor."""

    def start(application: Application, **settings: Any) -> Served:
        return serve(application, **{"executor": executor, **settings})

    return start
