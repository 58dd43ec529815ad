"""Where in the application's code a thread is, and how often the log has said so.

A thread's stack has frames of Python's library, of Bide, of whoever started it, of installed
packages and of the application. The files of the frames tell them apart. A stack is read from
another thread, so it may be a moment old.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final, NamedTuple

EVERY: Final = 60.0
"""Seconds between two lines about one place, at least."""
FRAMES: Final = 12
"""The most frames of a stack that are shown, the innermost."""

BIDE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""The directory of Bide's own code."""
_PYTHON: Final = (
    "<frozen ",
    *{sysconfig.get_path(each) + os.sep for each in ("stdlib", "platstdlib")},
)
_PACKAGES: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Place(NamedTuple):
    """A line of code that blocks a thread."""

    what: str  # a thread, or the event loop
    held: bool  # whether others were held up
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}" if self.file else "code without a line"


def frames_of(frame: FrameType | None, on_loop: bool = False, bide: str = BIDE) -> list[FrameType]:
    """Return the application's frames of a stack, outermost first.

    Frames of installed packages count where there are no others: the application may be one.

    Args:
        frame: the innermost frame.
        on_loop: whether an event loop runs all of it. Frames around the loop, such as those of the
            script that runs it, do not count.
        bide: the directory of Bide's own code.
    """
    own: list[FrameType] = []
    packages: list[FrameType] = []
    inside: list[FrameType] | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(bide):  # first: it is an installed package, too
            pass
        elif any(each in file for each in _PACKAGES):
            packages.append(frame)
        elif not file.startswith(_PYTHON):
            own.append(frame)
        elif on_loop and frame.f_code.co_name == "_run_once":
            inside = list(own or packages)
        frame = frame.f_back
    return ((own or packages) if inside is None else inside)[::-1]


def place_of(frames: list[FrameType], what: str, held: bool) -> Place:
    """Return the place of a thread from the application's frames of its stack."""
    if not frames:
        return Place(what, held, "", 0, "")
    code = frames[-1].f_code
    return Place(what, held, code.co_filename, frames[-1].f_lineno or 0, code.co_name)


def stack_of_frames(frames: list[FrameType]) -> str:
    """Return frames as text, in the form of a traceback."""
    if not frames:
        return "  (no code of the application)"
    pairs = ((each, each.f_lineno or 0) for each in frames[-FRAMES:])
    return "".join(traceback.StackSummary.extract(pairs).format()).rstrip()


class Reports:
    """Which places have been in the log, so that each appears once a minute at most."""

    def __init__(self) -> None:
        self._places: dict[Place, list[float]] = {}  # when it was in the log, how often since then

    def is_due(self, place: Place, now: float) -> bool:
        """Whether to write a line that a place blocks; if not, it is counted."""
        said = self._places.setdefault(place, [now, -1.0])
        said[1] += 1
        return said[1] == 0

    def repeated(self, now: float) -> Iterator[tuple[Place, int]]:
        """Take out the places that blocked again, with how often, a minute after their line."""
        for place, said in list(self._places.items()):
            if now - said[0] < EVERY:
                continue
            if said[1]:
                yield place, int(said[1])
                said[:] = now, 0.0
            else:
                del self._places[place]
