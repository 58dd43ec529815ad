"""The inputs that are kept: read by the tests, and chosen from what a fuzzer has found."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

HERE: Final = Path(__file__).parent
CRASHES: Final = HERE / "crashes"
SAMPLES: Final = HERE.parent / "samples" / "http1"
MOST_FILES: Final = 150
MOST_BYTES: Final = 200_000
"""What a target's corpus may have; of all targets together it is less than one photograph."""
TARGETS: Final = {"http1": 2048, "chunked": 1024, "applications": 256}
"""Each target, and how many bytes an input may have."""

Arc = tuple[str, int, int, int]
"""A file, two lines of it that were run in turn, and how often: the number's length in bits."""


class Target(Protocol):
    """A module with an invariant, which its docstring states."""

    def check(self, data: bytes) -> None:
        """Raise whatever an input shows to be wrong."""


def target(name: str) -> Target:
    """Import a target."""
    module: Any = importlib.import_module(f"tests.fuzz.{name}")
    found: Target = module
    return found


def seeds(name: str) -> Iterator[tuple[str, bytes]]:
    """Give inputs made of the samples of HTTP, for a target that makes some, with their names."""
    make: Callable[[bytes, int], bytes] | None = getattr(target(name), "seed", None)
    if make is None:
        return
    for number, path in enumerate(sorted(SAMPLES.glob("*/*.http"))):
        yield f"{path.parent.name}/{path.name}", make(path.read_bytes(), number)


def kept(name: str) -> Iterator[tuple[str, bytes]]:
    """Give the corpus of a target, and what once broke it, with their names."""
    for folder in (HERE / "corpus" / name, CRASHES / name):
        for path in sorted(folder.glob("*")):
            yield str(path.relative_to(HERE)), path.read_bytes()


def keep(name: str, found: Iterable[bytes]) -> int:
    """Choose a small corpus from the one that is there and what was found; give its files.

    What is there stays, as far as it is of use, unless there are too many.
    """
    folder = HERE / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.read_bytes(): path for path in folder.glob("*")}
    check = target(name).check
    reached = {data: arcs(check, data) for data in {*there, *found} if len(data) <= TARGETS[name]}
    known: set[Arc] = set()
    for _, data in seeds(name):  # these are run anyway
        known |= arcs(check, data)
    chosen = choose({data: each for data, each in reached.items() if data in there}, known)
    old: set[Arc] = known.union(*(reached[data] for data in chosen))
    chosen += choose(reached, old)
    if len(chosen) > MOST_FILES or sum(map(len, chosen)) > MOST_BYTES:
        chosen = choose(reached, known)[:MOST_FILES]
    for data in chosen:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]).write_bytes(data)
    for data, path in there.items():
        if data not in chosen:
            path.unlink()
    return len(chosen)


def choose(reached: dict[bytes, set[Arc]], known: set[Arc]) -> list[bytes]:
    """Choose those that reach all that is not known, best first: most that is new for each byte.

    What they reach are transitions from line to line, in Bide and in the strict readers.
    """
    missing = set().union(*reached.values()) - known
    left = dict(reached)
    chosen: list[bytes] = []
    size = 0
    while missing:
        best = max(left, key=lambda data: (len(left[data] & missing) / (len(data) + 64), data))
        missing -= left.pop(best)
        size += len(best)
        if size > MOST_BYTES:
            break
        chosen.append(best)
    return chosen


def arcs(check: Callable[[bytes], None], data: bytes) -> set[Arc]:
    """Run an input, and give the transitions between lines that it makes."""
    found: dict[tuple[str, int, int], int] = {}

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        file, before = frame.f_code.co_filename, 0
        if "/bide/" not in file and not file.endswith("/strict.py"):
            return None

        def line(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal before
            arc = (file, before, frame.f_lineno)
            found[arc] = found.get(arc, 0) + 1
            before = frame.f_lineno
            return line

        return line

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        check(data)
    finally:
        sys.settrace(previous)
    return {(*arc, number.bit_length()) for arc, number in found.items()}
