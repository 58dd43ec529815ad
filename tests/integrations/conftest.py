"""What the tests of an integration are given: servers with each executor."""

from collections.abc import Callable

import pytest

from tests.conftest import Serve
from tests.each_executor import executor, starting_with
from tests.served import Served

__all__ = ["Run", "executor", "run"]

Run = Callable[..., Served]


@pytest.fixture
def run(serve: Serve, executor: str) -> Run:
    """Start servers with one executor, and then with the other; the loop's is declared."""
    return starting_with(serve, executor)
