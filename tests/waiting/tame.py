"""Objects that tests keep in other processes, which import this module."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from bide.waiting import resident_child
from tests.waiting import heavy
from tests.waiting.heavy import Block


class Animal:
    """What does as it is told.

    Attributes:
        made: how many calls it has made.
    """

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, value: Any) -> Any:
        """Return a value."""
        return value

    def add(self, one: int, two: int = 0) -> int:
        """Return the sum."""
        self.made += 1
        return one + two

    def calls(self) -> int:
        """Return how many sums it has made."""
        return self.made

    def process(self) -> int:
        """Return the number of its process."""
        return os.getpid()

    def double(self, block: Block) -> Block:
        """Return twice the bytes of a block."""
        return heavy.double(block)

    def fail(self, kind: str = "error") -> Any:
        """Raise, or return, what is hard to pass on."""
        return heavy.fail(kind)

    def die(self, number: int = signal.SIGKILL) -> None:
        """End its process."""
        heavy.die(number)

    def die_in_the_answer(self) -> Block:
        """End its process when the half of its answer has been sent."""
        vars(resident_child)["send"] = heavy.send_half
        return Block(bytes(1000))

    def block(self, path: str) -> None:
        """Write the number of its process to a file, and compute without end."""
        heavy.block(path)

    def fork(self) -> int:
        """Fork, and return in both; return what the forked process has ended with."""
        return heavy.come_back_forked()

    def same(self, block: Block) -> Block:
        """Return what it is given."""
        return block

    def begin_peak(self) -> int:
        """Return the bytes that its process has in memory; ``peak`` is since then."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return self.peak()

    def peak(self) -> int:
        """Return the most bytes that its process has had in memory."""
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(each.split()[1]) * 1024 for each in lines if each.startswith("VmHWM:"))

    def until(self, path: str, value: Any, begun: str = "") -> Any:
        """Return a value once a file is there; write to the file ``begun`` before."""
        if begun:
            Path(begun).touch()
        self.made += 1
        return heavy.until(path, value)

    async def later(self, value: Any) -> Any:
        """Return a value, after the loop's next turn."""
        await asyncio.sleep(0)
        return value

    def count(self, end: int, told: str = "", size: int = 0) -> Iterator[Any]:
        """Count up, from 0; write to a file how many were asked for when it is closed."""
        number = -1
        try:
            for number in range(end):
                yield Block(bytes(size)) if size else number
        finally:
            tell(told, number + 1)

    async def acount(self, end: int, told: str = "") -> AsyncIterator[int]:
        """Do the same on the event loop."""
        number = -1
        try:
            for number in range(end):
                yield number
                await asyncio.sleep(0)
        finally:
            tell(told, number + 1)

    async def feed(self, told: str) -> AsyncIterator[int]:
        """Stream one item, and wait for ever for another."""
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            tell(told, 1)

    def fail_at(self, number: int) -> Iterator[int]:
        """Stream so many items, and raise."""
        yield from range(number)
        raise KeyError("missing")

    def die_at(self, number: int) -> Iterator[int]:
        """Stream so many items, and end the process."""
        yield from range(number)
        heavy.die()


async def grow(path: str) -> Animal:
    """Return an animal, on the event loop, once a file is there; else raise.

    Adds a byte to a file beside it each time.
    """
    with Path(path).with_suffix(".tries").open("ab") as tries:
        tries.write(b".")
    await asyncio.sleep(0)
    if not Path(path).exists():
        raise FileNotFoundError("no food")
    return Animal()


def die_young(path: str) -> Animal:
    """End the process; once a file is there, return an animal."""
    if not Path(path).exists():
        heavy.die()
    return Animal()


def tell(path: str, what: object) -> None:
    """Write something to a file, all at once; to none if there is no path."""
    if path:
        told = Path(path).with_suffix(".new")
        told.write_text(str(what), encoding="ascii")
        told.rename(path)
