"""From the start of the process to its first answer."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..figures import CPU_START, MEMORY, START
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample

_PAUSE = 0.002  # seconds after which a refused client asks again


@dataclass(frozen=True, slots=True)
class StartUp(Load):
    """A client that asks again and again until it has an answer.

    Attributes:
        path: What it asks for.
    """

    columns = (START, CPU_START, MEMORY)

    path: str

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"A client asks for `{self.path}` every {_PAUSE * 1000:g} ms from the moment at which"
            " the process is started, with its files in the kernel's cache."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Await the first answer."""
        with Meter(server, conditions) as meter:
            server.await_answer(self.path, _PAUSE)
            ready = time.monotonic()
        return Sample(
            {
                START: (ready - server.started) * 1000.0,
                CPU_START: server.cpu_seconds() * 1000.0,
                MEMORY: server.memory_kb() / 1024,
            },
            {},
            meter.foreign_share,
        )
