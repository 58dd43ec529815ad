"""A loop with all its failures told tells all of them, and nothing else."""

from __future__ import annotations

import pytest

from tests.failures import SHOWN, Failures, same


def test_every_row_that_fails_is_told_with_what_came_and_what_was_expected() -> None:
    """By an assertion, an error or pytest's own failure; the rows behind it are checked too."""
    checked = []

    def loop() -> None:
        with Failures() as failures:
            for row in (1, 2, 3, 4, 5):
                with failures.of(f"row {row}"):
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
    with Failures() as failures, failures.of("row"):
        same([1], [1])


def test_what_is_raised_between_rows_is_not_taken_for_a_row() -> None:
    """It passes through, whatever has failed before."""

    def loop() -> None:
        with Failures() as failures:
            with failures.of("row"):
                same(1, 2)
            raise LookupError

    with pytest.raises(LookupError):
        loop()


def test_what_ends_the_run_is_not_taken_for_a_failure() -> None:
    """An interrupt, and a skip."""
    with pytest.raises(KeyboardInterrupt), Failures() as failures, failures.of("row"):
        raise KeyboardInterrupt
    with pytest.raises(pytest.skip.Exception), Failures() as failures, failures.of("row"):
        pytest.skip("not here")


def test_what_is_long_is_told_shortly() -> None:
    """A sample of 60,000 bytes would hide the others."""
    with pytest.raises(AssertionError) as told:
        same("a" * 60_000, "b")
    assert len(str(told.value)) < 2 * SHOWN
