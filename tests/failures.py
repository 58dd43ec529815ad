"""A loop over a table, all of whose failures are told, each with its name."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pytest

SHOWN = 600
"""Characters of a value that are shown; a longer one is cut in its middle."""
PATIENCE = 5.0
"""Seconds: a row that fails after more has hung, and so will others; they are not tried."""


class Failures:
    """Collects what fails in a loop, and fails at its end.

    ::

        with Failures() as failures:
            for sample in samples():
                with failures.of(sample.name):
                    same(read(sample.data), sample.expected)

    A loop without a row fails as well. One row that hangs ends the loop.
    """

    def __init__(self) -> None:
        self._hung: BaseException | None = None
        self.told: list[str] = []
        self.checked = 0
        self.failed = 0

    def __enter__(self) -> Failures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not self._hung:
            return  # it belongs to no row
        told = "\n\n".join(self.told)
        if told or not self.checked:
            pytest.fail(f"{self.failed} of {self.checked} fail\n\n{told}", pytrace=False)

    @contextmanager
    def of(self, name: object) -> Iterator[None]:
        """Check one row: whatever is raised is told at the end, under this name."""
        self.checked += 1
        began = time.monotonic()
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            places = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename != __file__
            ]
            place = f"{places[-1].filename}:{places[-1].lineno}" if places else ""
            what = "".join(traceback.format_exception_only(error)).rstrip()
            self.failed += 1
            self.told.append(f"{name}: {place}\n{what}")
            if time.monotonic() - began > PATIENCE:
                self.told.append("it hung: no row behind this one was checked")
                self._hung = error
                raise


def same(came: object, expected: object, how: object = "") -> None:
    """Check that two values are equal, and tell both if they are not.

    Args:
        came: the value.
        expected: what it must be equal to.
        how: how the value came about, told with it.
    """
    if came != expected:
        lines = [f"came:     {short(came)}", f"expected: {short(expected)}"]
        raise AssertionError("\n".join([*([short(how)] if how else []), *lines]))


def short(value: object) -> str:
    """Show a value in a line that can be read."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
    return text
