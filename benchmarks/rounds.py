"""Measuring: every server of a scenario in turn, and that several times over."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException

from . import processes
from .beside import run_beside
from .errors import RoundFailedError
from .parking import park
from .processes import ServerProcess
from .scenarios import Beside, Contender, Figure, Load, Park, Scenario
from .wrk import run_wrk


@dataclass(frozen=True, slots=True)
class Conditions:
    """What holds for every round of a run.

    Attributes:
        wrk: The path of wrk.
        server_core: The core on which servers run.
        client_core: The core on which clients run.
        rounds: How many rounds.
        seconds: How long each loads a server.
        warm_up_seconds: How long each loads it before, unmeasured.
    """

    wrk: str
    server_core: int
    client_core: int
    rounds: int
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one round of one server.

    Attributes:
        figures: By name; the unit is the end of the name.
        errors: By kind, those of the warm-up too; kinds that did not occur are left out.
        foreign_share: The part of the server's core, 0 to 1, that others took meanwhile.
    """

    figures: dict[Figure, float]
    errors: dict[str, int]
    foreign_share: float


@dataclass(slots=True)
class Result:
    """What one contender of a scenario gave.

    Attributes:
        contender: Which.
        command: The command line, with the port of its last start.
        missing: Why it could not be measured at all, or `None`.
        samples: One for each round that gave figures.
        failures: The reason of each round that gave none.
    """

    contender: Contender
    command: list[str] = field(default_factory=list)
    missing: str | None = None
    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(
    scenario: Scenario,
    contenders: tuple[Contender, ...],
    conditions: Conditions,
    tell: Callable[[str], None],
) -> list[Result]:
    """Measure `contenders` turn by turn (A B C A B C …) and return a result for each, in order.

    `tell` gets one line for each round. A round that fails, or a server that is not installed, is
    in the results with its reason.
    """
    results = [Result(contender) for contender in contenders]
    for result in results:
        result.missing = result.contender.server.missing()
        if result.missing is not None:
            tell(f"{scenario.name}: {result.contender.server.name} not measured: {result.missing}")
    for number in range(1, conditions.rounds + 1):
        for result in results:
            if result.missing is not None:
                continue
            server = result.contender.server
            line = f"{scenario.name} {number}/{conditions.rounds} {server.name}: "
            try:
                sample = _measure_once(scenario.load, result, conditions)
            except RoundFailedError as failure:
                result.failures.append(str(failure))
                tell(f"{line}failed: {failure}")
            else:
                result.samples.append(sample)
                figures = ", ".join(f"{name} {sample.figures[name]:.1f}" for name in sample.figures)
                tell(line + figures + (f", errors {sample.errors}" if sample.errors else ""))
    return results


def _measure_once(load: Load | Park | Beside, result: Result, conditions: Conditions) -> Sample:
    port = processes.find_free_port()
    contender = result.contender
    result.command = contender.server.argv(contender.application, port)
    with processes.start(result.command, port, conditions.server_core) as server:
        if isinstance(load, Load):
            return _measure_load(server, load, conditions)
        if isinstance(load, Beside):
            return _measure_beside(server, load, conditions)
        return _measure_park(server, load, conditions)


def _measure_load(server: ServerProcess, load: Load, conditions: Conditions) -> Sample:
    server.await_answer(load.path)
    url = f"http://127.0.0.1:{server.port}{load.path}"
    warm_up = run_wrk(
        conditions.wrk,
        url,
        connections=load.connections,
        seconds=conditions.warm_up_seconds,
        core=conditions.client_core,
    )
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
            status, _ = server.fetch(load.path, timeout=conditions.seconds + 5.0)
        except (OSError, HTTPException):
            errors["new client unanswered"] += 1
        else:
            if status != 200:
                errors["new client refused"] += 1
        new_client_ms = (time.monotonic() - clock) * 1000.0

    cpu, busy, clock = _read_clocks(server, conditions)
    report = run_wrk(
        conditions.wrk,
        url,
        connections=load.connections,
        seconds=conditions.seconds,
        core=conditions.client_core,
        meanwhile=look_inside,
    )
    cpu_after, busy_after, clock_after = _read_clocks(server, conditions)
    server.check_alive()
    if not report.succeeded:
        raise RoundFailedError(f"no request succeeded; errors {report.errors}")
    errors.update(report.errors)
    if warm_up.errors:
        errors["in warm-up"] = sum(warm_up.errors.values())
    cpu_seconds = cpu_after - cpu
    return Sample(
        figures={
            "requests_per_second": report.succeeded / report.seconds,
            "cpu_us_per_request": cpu_seconds * 1e6 / report.succeeded,
            "p99_ms": report.p99_ms,
            "new_client_ms": new_client_ms,
            "memory_mb": memory_kb / 1024,
        },
        errors=dict(errors),
        foreign_share=max(0.0, busy_after - busy - cpu_seconds) / (clock_after - clock),
    )


def _measure_park(server: ServerProcess, load: Park, conditions: Conditions) -> Sample:
    # Both views have run before the first reading: what they import or build once is no request's.
    server.await_answer(f"{load.path}?seconds=0")
    server.await_answer(load.count_path)
    cpu, busy, clock = _read_clocks(server, conditions)
    report = park(server, load)
    cpu_after, busy_after, clock_after = _read_clocks(server, conditions)
    server.check_alive()
    return Sample(
        figures={
            "kb_per_request": (report.parked_kb - report.before_kb) / load.requests,
            "memory_mb": report.before_kb / 1024,
            "parked_mb": report.parked_kb / 1024,
        },
        errors=report.errors,
        foreign_share=max(0.0, busy_after - busy - cpu_after + cpu) / (clock_after - clock),
    )


def _measure_beside(server: ServerProcess, load: Beside, conditions: Conditions) -> Sample:
    server.await_answer("/quick")
    cpu, busy, clock = _read_clocks(server, conditions)
    report = run_beside(server, load, conditions.seconds)
    cpu_after, busy_after, clock_after = _read_clocks(server, conditions)
    server.check_alive()
    return Sample(
        figures={
            "quick_p99_ms": _p99(report.quick_ms),
            "event_p99_ms": _p99(report.late_ms),
            "million_counts_per_second": report.counted / 1e6 / (clock_after - clock),
        },
        errors={},
        foreign_share=max(0.0, busy_after - busy - cpu_after + cpu) / (clock_after - clock),
    )


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _read_clocks(server: ServerProcess, conditions: Conditions) -> tuple[float, float, float]:
    return server.cpu_seconds(), processes.busy_seconds(conditions.server_core), time.monotonic()
