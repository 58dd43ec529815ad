"""The inputs that are kept: read by the tests, and chosen from what a fuzzer has found.

Each target has a file of them, ``corpus/TARGET.txt``, and one of those that have broken it once,
``crashes/TARGET.txt``: an input a line, as Python writes bytes, in the order of the bytes.
"""

from __future__ import annotations

import ast
import importlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from tests.samples.tables import samples

HERE: Final = Path(__file__).parent
MOST_INPUTS: Final = 150
MOST_BYTES: Final = 200_000
"""What a target's corpus may have; of all targets together it is less than one photograph."""
TARGETS: Final = {
    "http1": 2048,
    "chunked": 1024,
    "heads": 1024,
    "applications": 256,
    "proxies": 512,
}
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


def corpus(name: str) -> Path:
    """Return the directory of a target's inputs."""
    return HERE / "corpus" / f"{name}.txt"


def crashes(name: str) -> Path:
    """Return the directory of the inputs that once broke a target; it may not exist."""
    return HERE / "crashes" / f"{name}.txt"


def read(path: Path) -> list[bytes]:
    """Read inputs: a line each.

    Raises:
        ValueError: a line is not a ``b'...'``, the lines are not in order, or one is there twice.
    """
    if not path.exists():
        return []
    found: list[bytes] = []
    for line in path.read_text("ascii").splitlines():
        data = ast.literal_eval(line)
        if not isinstance(data, bytes):
            raise ValueError(f"{path}: this is not an input: {line}")
        found.append(data)
    if found != sorted(set(found)):
        raise ValueError(f"{path}: its lines are not in the order of their bytes, each once")
    return found


def write(path: Path, inputs: Iterable[bytes]) -> None:
    """Write inputs; the same ones make the same file, in whatever order they come."""
    path.parent.mkdir(exist_ok=True)
    lines = [f"{data!r}\n" for data in sorted(set(inputs))]
    path.write_text("".join(lines), "ascii")


def seeds(name: str) -> Iterator[tuple[str, bytes]]:
    """Return inputs made of the samples of HTTP, for a target that makes some, with their names."""
    make: Callable[[bytes, int], bytes] | None = getattr(target(name), "seed", None)
    if make is None:
        return
    for sample in samples():
        # Of the name: a new sample leaves the others' inputs as they are.
        yield str(sample), make(sample.data, zlib.crc32(sample.name.encode()))


def kept(name: str) -> Iterator[tuple[str, bytes]]:
    """Return the corpus of a target, and what once broke it, with their files and lines."""
    for path in (corpus(name), crashes(name)):
        for number, data in enumerate(read(path), 1):
            yield f"{path.relative_to(HERE)}:{number}", data


def keep(name: str, found: Iterable[bytes]) -> int:
    """Choose a small corpus from the one that is there and what was found; return its size.

    What is there stays, as far as it is of use, unless there are too many.
    """
    there = set(read(corpus(name)))
    check = target(name).check
    reached = {data: arcs(check, data) for data in {*there, *found} if len(data) <= TARGETS[name]}
    known: set[Arc] = set()
    for _, data in seeds(name):  # these are run anyway
        known |= arcs(check, data)
    chosen = choose({data: each for data, each in reached.items() if data in there}, known)
    old: set[Arc] = known.union(*(reached[data] for data in chosen))
    chosen += choose(reached, old)
    if len(chosen) > MOST_INPUTS or sum(map(len, chosen)) > MOST_BYTES:
        chosen = choose(reached, known)[:MOST_INPUTS]
    write(corpus(name), chosen)
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
