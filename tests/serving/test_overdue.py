"""Requests that take too long."""

from typing import Any

from bide.serving.overdue import end_overdue
from tests.served import Log


def test_a_request_that_cannot_be_ended_does_not_keep_the_others(log: Log) -> None:
    """The log says so, and each is tried once."""
    told: list[int] = []

    class Call:
        started = 0.0
        expired = False
        stream = type("Stream", (), {"state": "idle"})

        def __init__(self, number: int) -> None:
            self.number = number

        def cancel(self, *_: Any, **__: Any) -> None:
            told.append(self.number)
            if self.number == 1:
                raise ZeroDivisionError

        def describe(self) -> str:
            return f"call {self.number}"

    calls: list[Any] = [Call(number) for number in range(3)]
    for _ in range(2):
        end_overdue(calls, 1.0, [], lambda _: None)
    assert told == [0, 1, 2]
    log.take("internal error: a request that takes too long could not be ended")
    for number in (0, 2):
        log.take(f"call {number} has taken")
    assert not log.records
