"""A loop with all its failures told tells all of them, and nothing else."""

from __future__ import annotations

import pytest

from tests import failures
from tests.failures import SHOWN, Failures, same


def test_every_row_that_fails_is_told_with_what_came_and_what_was_expected() -> None:
    """By an assertion, an error or pytest's own failure; the rows behind it are checked too."""
    checked = []

    def loop() -> None:
        with Failures() as rows:
            for row in (1, 2, 3, 4, 5):
                with rows.of(f"row {row}"):
                    checked.append(row)
                    if row == 2:
                        same("left", "right", "upside down")
                    if row == 3:
                        raise LookupError("no such thing")
                    if row == 5:
                        pytest.fail("by pytest")

    with pytest.raises(pytest.fail.Exception) as told:
        loop()
    text = str(told.value)
    assert checked == [1, 2, 3, 4, 5]
    assert text.startswith("3 of 5 fail\n")
    assert "row 2: " in text
    assert "upside down\ncame:     left\nexpected: right" in text
    assert "row 3: " in text
    assert "LookupError: no such thing" in text
    assert "row 5: " in text
    assert "row 1: " not in text
    assert __file__ in text


def test_a_loop_without_a_row_fails() -> None:
    """A table that was not found would pass otherwise."""
    with pytest.raises(pytest.fail.Exception, match="0 of 0"), Failures():
        pass


def test_a_loop_whose_rows_are_good_passes() -> None:
    """And says nothing."""
    with Failures() as rows, rows.of("row"):
        same([1], [1])


def test_what_is_raised_between_rows_is_not_taken_for_a_row() -> None:
    """It passes through, whatever has failed before."""

    def loop() -> None:
        with Failures() as rows:
            with rows.of("row"):
                same(1, 2)
            raise LookupError

    with pytest.raises(LookupError):
        loop()


def test_what_ends_the_run_is_not_taken_for_a_failure() -> None:
    """An interrupt, and a skip."""
    with pytest.raises(KeyboardInterrupt), Failures() as rows, rows.of("row"):
        raise KeyboardInterrupt
    with pytest.raises(pytest.skip.Exception), Failures() as rows, rows.of("row"):
        pytest.skip("not here")


def test_what_is_long_is_told_shortly() -> None:
    """A sample of 60,000 bytes would hide the others."""
    with pytest.raises(AssertionError) as told:
        same("a" * 60_000, "b")
    assert len(str(told.value)) < 2 * SHOWN


def test_a_row_that_hangs_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that wait for an answer in vain would take the test's whole time, and be told never."""
    monkeypatch.setattr(failures, "PATIENCE", -1.0)
    checked = []

    def loop() -> None:
        with Failures() as each:
            for row in (1, 2, 3):
                with each.of(f"row {row}"):
                    checked.append(row)
                    assert row == 1

    with pytest.raises(pytest.fail.Exception, match=r"1 of 2 fail(?s:.*)row 2: (?s:.*)it hung"):
        loop()
    assert checked == [1, 2]
