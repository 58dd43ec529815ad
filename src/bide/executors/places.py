"""Where in the application's code a thread is, and how often the log has named that place.

A thread's stack has frames of Python's library, of Bide, of the code that started the thread, of
installed packages and of the application. The files of the frames tell them apart. A stack is read
from another thread, so it may be a moment old.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Final, NamedTuple

EVERY: Final = 60.0
"""Seconds, at least, between two log lines about one place."""
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
    seen: list[FrameType] = []
    found = None
    while frame is not None:
        seen.append(frame)
        code = frame.f_code
        if (
            on_loop
            and code.co_name == "_run_once"
            and code.co_filename.startswith(_PYTHON)
            and not any(each in code.co_filename for each in _PACKAGES)
        ):
            found = own_frames(seen, bide)
        frame = frame.f_back
    return (own_frames(seen, bide) if found is None else found)[::-1]


def own_frames(frames: Iterable[FrameType], bide: str = BIDE) -> list[FrameType]:
    """Return the application's ones of some frames, or those of packages; in their order.

    Args:
        frames: a stack's, or those of coroutines that await each other.
        bide: the directory of Bide's own code.
    """
    own: list[FrameType] = []
    packages: list[FrameType] = []
    for frame in frames:
        file = frame.f_code.co_filename
        if file.startswith(bide):  # first: it is an installed package, too
            continue
        if any(each in file for each in _PACKAGES):
            packages.append(frame)
        elif not file.startswith(_PYTHON):
            own.append(frame)
    return own or packages


def place_of(frames: list[FrameType], what: str, held: bool) -> Place:
    """Return the place of a thread from the application's frames of its stack."""
    if not frames:
        return Place(what, held, "", 0, "")
    code = frames[-1].f_code
    return Place(what, held, code.co_filename, frames[-1].f_lineno or 0, code.co_name)


def stack_of_frames(frames: list[FrameType], frame: FrameType | None = None) -> str:
    """Return frames as text, in the form of a traceback.

    Args:
        frames: the application's.
        frame: the innermost of the whole stack, to show all frames in their place; None: show the
            application's.
    """
    if frame is not None:
        shown = list(traceback.walk_stack(frame))[::-1]
    elif frames:
        shown = [(each, each.f_lineno or 0) for each in frames[-FRAMES:]]
    else:
        return "  (no code of the application)"
    return "".join(traceback.StackSummary.extract(iter(shown)).format()).rstrip()


class Reports:
    """Which places have been in the log, so that each appears once a minute at most."""

    def __init__(self) -> None:
        # By place: when it was logged, and how often it has blocked since then.
        self._places: dict[Place, list[float]] = {}

    def is_due(self, place: Place, now: float) -> bool:
        """Return whether to log that a place blocks; if not, count it.

        One that has been logged since it held others up is known, also when it holds nobody up.
        """
        if not place.held and (holding := place._replace(held=True)) in self._places:
            place = holding
        said = self._places.setdefault(place, [now, -1.0])
        said[1] += 1
        return said[1] == 0

    def repeated(self, now: float) -> Iterator[tuple[Place, int]]:
        """Yield the places that blocked again, and how often, a minute after their log line."""
        for place, said in list(self._places.items()):
            if now - said[0] < EVERY:
                continue
            if said[1]:
                yield place, int(said[1])
                said[:] = now, 0.0
            else:
                del self._places[place]
