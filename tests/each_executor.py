"""Fixtures for tests that run with each executor: imported, they hold for what imports them.

A ``conftest.py`` imports both; a module whose tests name the executor themselves, the first.
"""

from typing import Any

import pytest

from tests.conftest import Serve
from tests.served import Application, Served

__all__ = ["executor", "serve"]


@pytest.fixture(params=["threads", "loop"])
def executor(request: pytest.FixtureRequest) -> str:
    """Name the executor."""
    name: str = request.param
    return name


@pytest.fixture
def serve(serve: Serve, executor: str) -> Serve:
    """Start servers with the test's executor."""
    return starting_with(serve, executor)


def starting_with(serve: Serve, executor: str) -> Serve:
    """Start servers with an executor, unless a test names one."""

    def start(application: Application, **settings: Any) -> Served:
        return serve(application, **{"executor": executor, **settings})

    return start
