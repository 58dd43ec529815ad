"""Whether code is a clean-up, told by where it is: on each way, in each kind of block."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from bide.waiting.cleanups import cleaning_up


def here() -> bool:
    """Ask for the code that calls this."""
    frame: FrameType = sys._getframe(1)
    return cleaning_up(_Alone(frame))  # type: ignore[arg-type]


class _Alone:
    """A frame, and those around it as far as this module: pytest's own call tests in ``try``."""

    def __init__(self, frame: FrameType) -> None:
        self.f_code = frame.f_code
        self.f_lasti = frame.f_lasti
        back = frame.f_back
        ours = back is not None and back.f_code.co_filename == frame.f_code.co_filename
        self.f_back = _Alone(back) if ours and back is not None else None


def test_code_of_no_block_is_none() -> None:
    """Nor that of a body of ``try`` or ``with``, nor what comes behind it."""
    assert not here()
    try:
        assert not here()
    except ValueError:
        pass
    assert not here()
    with contextlib.nullcontext(here()) as entering:
        assert not here()
    assert not entering, "what is called to enter is not yet inside"


def test_a_finally_is_one_on_each_of_its_ways() -> None:
    """To its end, by ``return``, ``break``, ``continue``, and by an exception."""
    seen: list[Any] = []

    def left_by(way: str) -> None:
        for number in range(2):
            try:
                assert not here()
                if way == "return":
                    return
                if way == "break":
                    break
                if way == "continue" and number == 0:
                    continue
                if way == "raise":
                    raise ValueError("raised")
            finally:
                seen.append(here())
                for _ in range(1):
                    seen.extend(here() for _ in range(1))
        assert not here()

    for way in ("end", "return", "break", "continue"):
        left_by(way)
    with pytest.raises(ValueError, match="raised"):
        left_by("raise")
    assert len(seen) == 2 * (2 + 1 + 1 + 2 + 1)
    assert all(seen)


def test_an_except_block_is_one_until_it_ends() -> None:
    """With a name or without, and for groups."""
    seen = []
    try:
        raise ValueError
    except ValueError as error:
        seen.append(here() and bool(error))
    seen.append(here())
    try:
        raise ExceptionGroup("several", [ValueError()])
    except* ValueError:
        seen.append(here())
    seen.append(here())
    assert seen == [True, False, True, False]


def test_a_block_inside_of_a_clean_up_is_one_too() -> None:
    """In each of its parts, and in what it calls."""
    seen = []
    try:
        pass
    finally:
        try:
            seen.append(here())
            raise ValueError
        except ValueError:
            seen.append(here())
        with contextlib.nullcontext():
            seen.append(here())
        seen.append(called(here_below))
    assert seen == [True] * 4


def called(function: Callable[[], bool]) -> bool:
    return function()


def here_below() -> bool:
    return here()


def test_exit_is_one_and_enter_is_not() -> None:
    """On the way of an exception or none."""
    seen = []

    class Manager:
        def __enter__(self) -> None:
            seen.append(here())

        def __exit__(self, *_: object) -> bool:
            seen.append(here())
            return True

    with Manager():
        seen.append(here())
    with Manager():
        raise ValueError
    assert seen == [False, False, True, False, True]


def test_a_generator_that_is_closed_or_ends_cleans_up() -> None:
    """In its ``finally:``."""
    seen = []

    def numbers() -> Iterator[bool]:
        try:
            yield here()
        finally:
            seen.append(here())

    closed = numbers()
    seen.append(next(closed))
    closed.close()  # type: ignore[attr-defined]
    seen += list(numbers())
    assert seen == [False, True, True, False] or seen == [False, True, False, True]


def test_what_follows_an_except_that_passes_is_none() -> None:
    """Though the compiler writes a short end of a function twice."""

    def answer(fails: bool) -> bool:
        try:
            if fails:
                raise ValueError
        except ValueError:
            pass
        return here()

    assert not answer(False)
    assert not answer(True)
