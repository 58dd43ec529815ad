"""Each test of HTTP/2 is run twice: what has come is taken at once, or a frame in each turn."""

import pytest

from tests.protocols.http2.clients import Client


@pytest.fixture(autouse=True, params=[False, True], ids=["at-once", "in-turns"])
def hurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a turn of the loop take all that has come, or one frame of it."""
    monkeypatch.setattr(Client, "hurried", request.param)
