"""What the tests of an integration are given: servers with each executor."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Serve
from tests.serving import Application, Served

Run = Callable[..., Served]


@pytest.fixture(params=["threads", "loop"])
def run(request: pytest.FixtureRequest, serve: Serve) -> Run:
    """Start servers with one executor, and then with the other; the loop's is declared."""
    name: str = request.param

    def start(application: Application, **settings: Any) -> Served:
        return serve(application, executor=name, **settings)

    return start
