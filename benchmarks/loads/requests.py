"""Requests as fast as the server answers them, made by wrk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException

from ..errors import RoundFailedError
from ..figures import CPU_REQUEST, MEMORY, NEW_CLIENT, P50, P99, REQUESTS
from ..processes import ServerProcess
from ..wrk import WrkReport, run_wrk
from .kind import Conditions, Load, Meter, Sample

# What a browser sends beside Host when it navigates; its values are of usual lengths.
BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://example.org/articles/2026/reading-list",
    "Connection: keep-alive",
    "Cookie: session=eyJ1c2VyIjo0Mn0.aHkq1w.Pz0pQm5vVJt3; theme=dark; consent=1",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-User: ?1",
    "Priority: u=0, i",
)


@dataclass(frozen=True, slots=True)
class Requests(Load):
    """So many clients, each with one request at a time on a connection that it keeps.

    Attributes:
        path: The path asked for, with its query.
        connections: How many clients.
        headers: The header lines beside Host.
    """

    columns = (CPU_REQUEST, REQUESTS, P50, P99, NEW_CLIENT, MEMORY)

    path: str
    connections: int
    headers: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return for the report what is done."""
        with_headers = f" with {len(self.headers) + 1} headers" if self.headers else ""
        return (
            f"`GET {self.path}`{with_headers} from {self.connections:,} clients that keep their"
            " connections."
        )

    def measure(self, server: ServerProcess, conditions: Conditions) -> Sample:
        """Load the server for some seconds, and ask once from a client of our own meanwhile."""
        server.await_answer(self.path)
        server.await_idle()  # the first worker has answered; others may be starting
        warm_up = self._run(server, conditions, conditions.warm_up_seconds)
        server.await_idle()
        memory_kb = 0
        new_client_ms = 0.0
        errors: Counter[str] = Counter()

        def look_inside() -> None:
            # wrk counts nothing for a connection that is never served, so a client of our own asks.
            # One that is served only after the load has ended shows it in its figure.
            nonlocal memory_kb, new_client_ms
            time.sleep(conditions.seconds / 4)
            memory_kb = server.memory_kb()
            clock = time.monotonic()
            try:
                status, _ = server.fetch(self.path, timeout=conditions.seconds + 5.0)
            except (OSError, HTTPException):
                errors["new client unanswered"] += 1
            else:
                if status != 200:
                    errors["new client refused"] += 1
            new_client_ms = (time.monotonic() - clock) * 1000.0

        with Meter(server, conditions) as meter:
            report = self._run(server, conditions, conditions.seconds, look_inside)
        if not report.succeeded:
            raise RoundFailedError(f"no request succeeded; errors {report.errors}")
        errors.update(report.errors)
        if warm_up.errors:
            errors["in warm-up"] = sum(warm_up.errors.values())
        return Sample(
            {
                CPU_REQUEST: meter.cpu_seconds * 1e6 / report.succeeded,
                REQUESTS: report.succeeded / report.seconds,
                P50: report.p50_ms,
                P99: report.p99_ms,
                NEW_CLIENT: new_client_ms,
                MEMORY: memory_kb / 1024,
            },
            dict(errors),
            meter.foreign_share,
        )

    def _run(
        self,
        server: ServerProcess,
        conditions: Conditions,
        seconds: float,
        meanwhile: Callable[[], None] | None = None,
    ) -> WrkReport:
        return run_wrk(
            conditions.wrk,
            server.origin + self.path,
            connections=self.connections,
            headers=self.headers,
            seconds=seconds,
            cores=conditions.client_cores,
            meanwhile=meanwhile,
        )
