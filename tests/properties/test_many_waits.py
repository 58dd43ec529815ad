"""Thousands of random waits against a model; ``python -m soak.waits 1000000`` makes a million."""

import gc

import pytest

from soak.waits import Model


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_given_twice_in_thousands_of_random_waits(seed: int) -> None:
    """Every place of a pool is back, every item was taken once, each result had one reader."""
    model = Model(seed)
    model.run(2_000)
    model.close()
    assert model.waits >= 2_000
    for outcome in ("result", "time-out", "ClientDisconnected", "RequestTimeout", "ServerStopping"):
        assert model.outcomes[outcome], f"none had this outcome: {outcome}"
    gc.collect()  # what asyncio would say of forgotten errors is said here
