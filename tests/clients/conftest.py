"""Each client beside each executor; a test for some clients names them."""

from collections.abc import Callable, Iterator

import pytest

from tests.clients.asking import Visitor
from tests.clients.curl import CURL
from tests.clients.visitors import VISITORS
from tests.each_executor import executor, serve
from tests.served import Served

__all__ = ["Visit", "executor", "serve", "visit"]

Visit = Callable[[Served], Visitor]


@pytest.fixture(params=list(VISITORS))
def visit(request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Return what lets the test's client visit a server; it is closed with the test."""
    if request.param == "curl" and CURL is None:
        pytest.skip("curl is not installed (on Debian: apt install curl)")
    visitors: list[Visitor] = []

    def visiting(served: Served) -> Visitor:
        visitors.append(VISITORS[request.param](served.address))
        return visitors[-1]

    yield visiting
    for each in visitors:
        each.close()
