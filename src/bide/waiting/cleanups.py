"""Cleaning up: what must be done although the request has been cancelled, and how long it may take.

Looked at only when a cancellation has come and before it is raised, so it may take a while. A
clean-up is code in a ``finally:`` or ``except:`` block, or in ``__exit__``, or called from there.

The compiler writes a ``finally:`` block once for each way into it, and one of these is an
exception's. So an instruction belongs to such a block, on whichever way, where the same instruction
of the same place in the source is also on the way of an exception. Compiled code without Python's
frames (C, Cython) is not seen.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from greenlet import getcurrent, greenlet


class CleanupTime:
    """How long the code of a request may clean up once the request has been cancelled.

    Read by any thread, when something has been cancelled.

    Attributes:
        seconds: for all waits of a request together.
        share: how much of that a cancelled promise has to end in; the rest is the code's.
    """

    __slots__ = ("seconds", "share")

    def __init__(self) -> None:
        self.seconds = 10.0
        self.share = 0.5

    @property
    def of_promise(self) -> float:
        """Seconds in which a cancelled promise has to end."""
        return self.seconds * self.share


cleanup_time: Final = CleanupTime()
"""That of every request of this process."""

_COPY: Final = dis.opmap.get("COPY", -1)
_PUSH_EXC_INFO: Final = dis.opmap.get("PUSH_EXC_INFO", -1)
_CACHE: Final = 0


def cleans_up() -> bool:
    """Whether this code is a clean-up, from here to where the conversation began."""
    running: greenlet | None = getcurrent()
    stack: FrameType | None = sys._getframe(1)
    while not cleaning_up(stack):
        # A library may run below the conversation, in a greenlet of its own.
        if running is None or getattr(running, "waiter", None) is not None:
            return False
        running = running.parent
        stack = None if running is None else running.gr_frame
    return True


def cleaning_up(stack: FrameType | None) -> bool:
    """Whether code is a clean-up, or is called by one; ``stack`` is its innermost frame."""
    while stack is not None:
        if _is_clean_up(stack):
            return True
        stack = stack.f_back
    return False


def _is_clean_up(frame: FrameType) -> bool:
    code = frame.f_code
    if code.co_name == "__exit__":
        return True
    if not code.co_exceptiontable:
        return False
    instructions, guarded = _read(code)
    at = frame.f_lasti // 2
    while at > 0 and instructions[at][0] == _CACHE:  # of the call that is being made
        at -= 1
    return instructions[at] in guarded


_Instruction = tuple[int, Any]  # the operation, and its place in the source


@functools.lru_cache(maxsize=1024)
def _read(code: CodeType) -> tuple[list[_Instruction], frozenset[_Instruction]]:
    """Return the instructions of a function, and those that run while an exception is handled."""
    instructions = list(zip(code.co_code[::2], code.co_positions(), strict=True))
    entries = list(_exception_table(code.co_exceptiontable))
    handler_of: dict[int, int] = {}
    for entry in entries:
        handler_of.update(dict.fromkeys(range(entry.start, entry.end), entry.target))
    guarded = {
        instruction
        for at, instruction in enumerate(instructions)
        if _handles(handler_of.get(at), instructions, handler_of)
    }
    return instructions, frozenset(guarded)


def _handles(
    target: int | None, instructions: list[_Instruction], handler_of: dict[int, int]
) -> bool:
    """Whether code whose errors go to ``target`` runs while an exception is handled."""
    while target is not None:
        operation = instructions[target][0]
        # What puts away an exception that was being handled begins with a copy of it.
        if operation == _COPY:
            return True
        # A handler has a putting away of its own. What is around the whole comes after that.
        if operation == _PUSH_EXC_INFO:
            target = handler_of[target]
        target = handler_of.get(target)
    return False


class _Entry(NamedTuple):
    start: int  # in instructions; those from start to end - 1
    end: int
    target: int


def _exception_table(table: bytes) -> Iterator[_Entry]:
    """Read a code object's exception table (CPython's Objects/exception_handling_notes.txt)."""
    numbers = _numbers(table)
    for start in numbers:
        length, target, _ = next(numbers), next(numbers), next(numbers)
        yield _Entry(start, start + length, target)


def _numbers(table: bytes) -> Iterator[int]:
    """Read numbers of six bits a byte, the highest first; bit 6 says that more follow."""
    number = 0
    for byte in table:
        number = number << 6 | byte & 63
        if not byte & 64:
            yield number
            number = 0
