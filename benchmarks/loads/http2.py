"""Requests over HTTP/2, made by h2load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from ..errors import RoundFailedError
from ..figures import CPU_REQUEST, MEMORY, REQUESTS
from ..processes import ServerProcess
from .kind import Conditions, Load, Meter, Sample


@dataclass(frozen=True, slots=True)
class HTTP2Requests(Load):
    """So many clients, each with so many requests at a time on one connection, in clear.

    Attributes:
        path: The path asked for.
        connections: How many clients.
        streams: How many requests each has at a time.
    """

    columns = (CPU_REQUEST, REQUESTS, MEMORY)

    path: str
    connections: int
    streams: int

    def describe(self) -> str:
        """Return for the report what is done."""
        return (
            f"`GET {self.path}` over HTTP/2 in clear, from {self.connections} clients with"
            f" {self.streams} requests at a time each."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Load the server for some seconds."""
        server.await_answer(self.path)
        server.await_idle()
        self._run(server, conditions, conditions.warm_up_seconds)
        server.await_idle()
        with Meter(server, conditions) as meter:
            succeeded, failed = self._run(server, conditions, conditions.seconds)
        memory_kb = server.memory_kb()
        if not succeeded:
            raise RoundFailedError("no request succeeded over HTTP/2")
        return Sample(
            {
                CPU_REQUEST: meter.cpu_seconds * 1e6 / succeeded,
                REQUESTS: succeeded / conditions.seconds,
                MEMORY: memory_kb / 1024,
            },
            {"failed": failed} if failed else {},
            meter.foreign_share,
        )

    def _run(
        self, server: ServerProcess, conditions: Conditions, seconds: float
    ) -> tuple[int, int]:
        """Return how many requests succeeded, and how many failed."""
        h2load = shutil.which("h2load")
        if h2load is None:
            raise RoundFailedError(
                "h2load is not installed (Debian: apt-get install nghttp2-client)"
            )
        argv = [h2load, f"-c{self.connections}", f"-m{self.streams}", f"-D{max(1.0, seconds):.0f}"]
        result = subprocess.run(
            [*argv, server.origin + self.path],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 60.0,
            preexec_fn=lambda: os.sched_setaffinity(0, conditions.client_cores),
        )
        return parse_h2load(result.stdout)


def parse_h2load(output: str) -> tuple[int, int]:
    """Read what h2load prints: how many requests succeeded, and how many failed."""
    statuses = re.search(r"^status codes: (\d+) 2xx", output, re.MULTILINE)
    requests = re.search(r"(\d+) succeeded, (\d+) failed", output)
    if statuses is None or requests is None:
        last = output.strip().splitlines()
        raise RoundFailedError(f"h2load: {last[-1] if last else 'failed'}")
    return int(statuses[1]), int(requests[2])
