"""Something is done to many, and to each whatever fails on another."""

from __future__ import annotations

import logging

import pytest

from bide.waiting.each import to_each
from tests.served import Log


def test_what_fails_on_one_is_logged_once_and_the_others_have_their_turns(log: Log) -> None:
    """In order; also where some of them leave meanwhile."""
    told: list[int] = []
    these = dict.fromkeys(range(4))

    def do(number: int) -> None:
        told.append(number)
        these.pop(number)
        if number % 2:
            raise ZeroDivisionError(number)

    to_each(these, do, "it has failed")
    assert told == [0, 1, 2, 3]
    for number in (1, 3):
        record = log.take("it has failed")
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == str(number)
    assert not log.records


def test_a_log_that_fails_keeps_nobody_and_the_errors_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A handler of the program may raise."""
    told: list[int] = []

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the disk is full")

    def do(number: int) -> None:
        told.append(number)
        raise ZeroDivisionError(f"number {number}")

    handler = Broken()
    logging.getLogger("bide").addHandler(handler)
    try:
        to_each(range(3), do, "it has failed")
    finally:
        logging.getLogger("bide").removeHandler(handler)
    assert told == [0, 1, 2]
    printed = capsys.readouterr().err
    for number in told:
        assert f"ZeroDivisionError: number {number}" in printed
    assert printed.count("RuntimeError: the disk is full") == 3


def test_what_ends_the_process_is_not_kept() -> None:
    """An interruption goes on to who called."""

    def do(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_each(range(3), do, "it has failed")
