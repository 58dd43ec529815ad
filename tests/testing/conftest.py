"""What every test of the kit is held to."""

import threading
from collections.abc import Iterator

import pytest

from tests.served import until


@pytest.fixture
def all_ends() -> Iterator[None]:
    """See that a test leaves no thread behind: neither a lane, nor the loop's, nor an upload's."""
    before = set(threading.enumerate())
    yield
    until(
        lambda: (
            not [t for t in threading.enumerate() if t not in before and "asyncio" not in t.name]
        ),
        "threads are left",
    )
