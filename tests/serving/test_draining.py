"""What a server that stops says it has to finish, and how it is stopped at once."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from bide.process.terminal import how_at_once
from bide.serving.draining import finishing


@pytest.mark.parametrize(
    ("number", "spawned", "said"),
    [
        (0, [], "no requests are in progress"),
        (1, [], "finishing 1 request, 30 s at most"),
        (3, [], "finishing 3 requests, 30 s at most"),
        (0, ["send"], "finishing background work, 30 s at most"),
        (3, ["send"], "finishing 3 requests and background work, 30 s at most"),
    ],
)
def test_what_is_left_to_finish_is_counted(number: int, spawned: list[str], said: str) -> None:
    """And its time is said."""
    dispatchers: Any = SimpleNamespace(in_progress=number, spawned=spawned)
    assert finishing(dispatchers, 30.0) == said


def test_the_way_to_stop_at_once_is_that_of_the_first_signal() -> None:
    """From the keyboard it is Ctrl-C, also where a parent has heard that."""
    assert how_at_once(signal.SIGINT) == "Ctrl-C again to stop at once (SIGINT)"
    assert how_at_once(signal.SIGTERM) == "a second signal to stop at once (SIGTERM)"
    assert how_at_once(signal.SIGTERM, True) == "Ctrl-C again to stop at once (SIGTERM)"
