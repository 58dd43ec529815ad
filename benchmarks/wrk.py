"""wrk: running it, and reading what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass

from .errors import CannotRunError, RoundFailedError

_SCALE = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True)
class WrkReport:
    """What one run of wrk counted.

    Attributes:
        requests: Every complete response, of any status.
        seconds: How long it ran.
        p50_ms: The median latency in milliseconds.
        p99_ms: The 99th percentile of it.
        errors: By kind; kinds that did not occur are left out. "status" are responses that are
            neither 2xx nor 3xx, "timeout" responses later than wrk's time-out.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]

    @property
    def succeeded(self) -> int:
        """Responses that wrk counts as good: 2xx, for the applications here send no 3xx."""
        return self.requests - self.errors.get("status", 0)


def find_wrk() -> str:
    """Return the path of wrk; raise `CannotRunError` where there is none."""
    path = shutil.which("wrk")
    if path is None:
        raise CannotRunError("wrk is not installed (Debian, Ubuntu: apt-get install wrk)")
    return path


def read_version(wrk: str) -> str:
    """Return the version that wrk names."""
    # wrk prints it with its usage, and then ends with code 1.
    result = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"wrk (\S+)", result.stdout)
    return match[1] if match else "of unknown version"


def run_wrk(
    wrk: str,
    url: str,
    *,
    connections: int,
    headers: tuple[str, ...] = (),
    seconds: float,
    cores: Collection[int],
    meanwhile: Callable[[], None] | None = None,
) -> WrkReport:
    """Load `url` from one thread of wrk for each of `cores`, and return what they counted.

    `headers` are lines to send beside Host. `meanwhile` is called once, while the load runs.
    Raises `RoundFailedError` where wrk fails.
    """
    argv = [
        wrk,
        f"-t{len(cores)}",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--latency",
        "--timeout",
        "5s",
        *(word for header in headers for word in ("-H", header)),
        url,
    ]
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ) as process:
        try:
            if meanwhile is not None:
                meanwhile()
            output, _ = process.communicate(timeout=seconds + 30.0)
        except subprocess.TimeoutExpired:
            raise RoundFailedError("wrk did not end") from None
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode != 0:
        raise RoundFailedError(f"wrk: {output.strip().splitlines()[-1] if output else 'failed'}")
    return parse_wrk(output)


def parse_wrk(output: str) -> WrkReport:
    """Read what `wrk --latency` prints; raise `RoundFailedError` where it is something else."""
    total = re.search(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m),", output, re.MULTILINE)
    if total is None:
        raise RoundFailedError("wrk printed no total")
    errors: dict[str, int] = {}
    sockets = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output
    )
    if sockets is not None:
        kinds = ("connect", "read", "write", "timeout")
        errors.update(zip(kinds, map(int, sockets.groups()), strict=True))
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if status is not None:
        errors["status"] = int(status[1])
    return WrkReport(
        requests=int(total[1]),
        seconds=float(total[2]) * _SCALE[total[3]] / 1000.0,
        p50_ms=_percentile(output, 50),
        p99_ms=_percentile(output, 99),
        errors={kind: count for kind, count in errors.items() if count},
    )


def _percentile(output: str, percent: int) -> float:
    match = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\b", output, re.MULTILINE)
    if match is None:
        raise RoundFailedError(f"wrk printed no {percent}th percentile")
    return float(match[1]) * _SCALE[match[2]]
