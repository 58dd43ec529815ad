"""What the samples say: medians, ratios, aims, and the table. No measuring, no files.

Every median is over the rounds of one run, and every ratio is of two such medians.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from .markdown import list_facts, write_table
from .rounds import Result
from .scenarios import Aim, Figure, Load, Scenario

TITLES: dict[Figure, str] = {
    "requests_per_second": "requests/s",
    "cpu_us_per_request": "CPU µs/request",
    "p99_ms": "p99 ms",
    "new_client_ms": "new client ms",
    "memory_mb": "memory MB",
    "parked_mb": "MB parked",
    "kb_per_request": "KB/request",
}
_LOAD_COLUMNS: tuple[Figure, ...] = (
    "cpu_us_per_request",
    "requests_per_second",
    "p99_ms",
    "new_client_ms",
    "memory_mb",
)
_PARK_COLUMNS: tuple[Figure, ...] = ("kb_per_request", "memory_mb", "parked_mb")
_WITH_RATIO: tuple[Figure, ...] = ("cpu_us_per_request", "requests_per_second", "kb_per_request")
# A share of the server's core taken by others that makes figures doubtful.
_DISTURBED = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """All that a report is made from.

    Attributes:
        machine: The machine, as short texts by name.
        versions: The tools and libraries, by name.
        how: How it was measured, by name: rounds, seconds, cores, the date.
        tables: The scenarios and what they gave.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    how: dict[str, str]
    tables: list[tuple[Scenario, list[Result]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An aim beside what was measured.

    Attributes:
        wanted: The aim in words.
        measured: The value it is judged by, or `None` where there is none.
        outcome: "reached", "missed" or "not measured", and whether errors cast doubt on it.
    """

    wanted: str
    measured: float | None
    outcome: str


def take_median(result: Result, figure: Figure) -> float | None:
    """Return the median of a figure over the rounds that gave it, or `None` without any."""
    values = [sample.figures[figure] for sample in result.samples if figure in sample.figures]
    return median(values) if values else None


def compare(bide: Result, other: Result, figure: Figure) -> float | None:
    """Return Bide's median divided by the other's, or `None` where either is missing or zero."""
    ours, theirs = take_median(bide, figure), take_median(other, figure)
    if ours is None or not theirs:
        return None
    return ours / theirs


def count_errors(result: Result) -> Counter[str]:
    """Return the errors of all rounds, by kind."""
    total: Counter[str] = Counter()
    for sample in result.samples:
        total.update(sample.errors)
    return total


def judge(aim: Aim, results: list[Result]) -> Verdict:
    """Hold an aim against what was measured; the first of `results` is Bide's."""
    bide = results[0]
    sign = "≤" if aim.side == "at most" else "≥"
    if aim.peer is None:
        wanted = f"{TITLES[aim.figure]} {sign} {aim.bound:g}"
        value = take_median(bide, aim.figure)
        involved = [bide]
    else:
        wanted = f"{TITLES[aim.figure]} {sign} {aim.bound:g} × {aim.peer}"
        peers = [result for result in results[1:] if result.contender.server.name == aim.peer]
        value = compare(bide, peers[0], aim.figure) if peers else None
        involved = [bide, *peers]
    if value is None:
        return Verdict(wanted, None, "not measured")
    reached = value <= aim.bound if aim.side == "at most" else value >= aim.bound
    outcome = "reached" if reached else "missed"
    if any(count_errors(result) or result.failures for result in involved):
        outcome += ", with errors"
    return Verdict(wanted, value, outcome)


def judge_all(run: Run) -> list[tuple[Scenario, Verdict]]:
    """Hold every aim of the run's scenarios against what was measured."""
    return [
        (scenario, judge(aim, results)) for scenario, results in run.tables for aim in scenario.aims
    ]


def write_markdown(run: Run) -> str:
    """Return the whole report as Markdown."""
    parts = ["# Bide beside its peers", "", *_write_how(run), "", "## Aims", ""]
    parts += write_table(
        ["scenario", "aim", "measured", "outcome"],
        [
            [scenario.title, verdict.wanted, _show(verdict.measured), f"**{verdict.outcome}**"]
            for scenario, verdict in judge_all(run)
        ],
    )
    for scenario, results in run.tables:
        parts += ["", f"## {scenario.title}", "", _describe(scenario), ""]
        parts += _write_scenario(scenario, results)
    return "\n".join(parts) + "\n"


def write_json(run: Run) -> dict[str, Any]:
    """Return the whole run, every round of it, as what `json` can write."""
    return {
        "machine": run.machine,
        "versions": run.versions,
        "how": run.how,
        "aims": [
            {
                "scenario": scenario.name,
                "aim": verdict.wanted,
                "measured": verdict.measured,
                "outcome": verdict.outcome,
            }
            for scenario, verdict in judge_all(run)
        ],
        "scenarios": {
            scenario.name: {
                "title": scenario.title,
                "servers": [_write_result(result, results[0]) for result in results],
            }
            for scenario, results in run.tables
        },
    }


def _write_result(result: Result, bide: Result) -> dict[str, Any]:
    figures: list[Figure] = list(TITLES)
    medians = {figure: take_median(result, figure) for figure in figures}
    ratios = {figure: compare(bide, result, figure) for figure in _WITH_RATIO}
    server = result.contender.server
    return {
        "server": server.name,
        "setup": server.setup,
        "versions": server.versions(),
        "application": result.contender.application,
        "command": result.command,
        "not_measured": result.missing,
        "medians": {figure: value for figure, value in medians.items() if value is not None},
        "bide_divided_by_it": {
            figure: value for figure, value in ratios.items() if value is not None
        },
        "errors": dict(count_errors(result)),
        "failed_rounds": result.failures,
        "rounds": [
            {**sample.figures, "errors": sample.errors, "foreign_share": sample.foreign_share}
            for sample in result.samples
        ],
    }


def _write_how(run: Run) -> list[str]:
    lines = list_facts(run.how, run.machine)
    lines.append("- versions: " + ", ".join(f"{name} {v}" for name, v in run.versions.items()))
    shares = [
        sample.foreign_share
        for _, results in run.tables
        for result in results
        for sample in result.samples
    ]
    if shares:
        worst = max(shares)
        note = " **Disturbed: repeat it on an idle machine.**" if worst > _DISTURBED else ""
        lines.append(
            f"- other processes took {100 * median(shares):.0f} % of the server's core in the"
            f" median round, {100 * worst:.0f} % in the worst.{note}"
        )
    return lines


def _describe(scenario: Scenario) -> str:
    load = scenario.load
    if isinstance(load, Load):
        return (
            f"`GET {load.path}` from {load.connections:,} clients that keep their connections."
            " Median of the rounds (least–most). Less CPU is better, more requests/s are."
        )
    return (
        f"`GET {load.path}`, {load.requests:,} at once, each of which waits {load.seconds:g} s."
        " Memory (PSS) of all the server's processes before and while all of them wait."
        " Median of the rounds (least–most). Less is better."
    )


def _write_scenario(scenario: Scenario, results: list[Result]) -> list[str]:
    columns = _LOAD_COLUMNS if isinstance(scenario.load, Load) else _PARK_COLUMNS
    heads = ["server", "version"]
    for column in columns:
        heads.append(TITLES[column])
        if column in _WITH_RATIO:
            heads.append("Bide ÷ it")
    heads.append("errors")
    rows = []
    for result in results:
        server = result.contender.server
        row = [server.label, server.versions().get(server.distributions[0], "–")]
        for column in columns:
            row.append(_show_spread([sample.figures.get(column) for sample in result.samples]))
            if column in _WITH_RATIO:
                same = result is results[0]
                row.append("" if same else _show(compare(results[0], result, column)))
        row.append(_show_errors(result))
        rows.append(row)
    return write_table(heads, rows)


def _show_errors(result: Result) -> str:
    if result.missing is not None:
        return f"not measured: {result.missing}"
    parts = [f"{kind} {count:,}" for kind, count in count_errors(result).items()]
    if result.failures:
        rounds = len(result.failures) + len(result.samples)
        reasons = "; ".join(dict.fromkeys(result.failures))
        parts.append(f"{len(result.failures)} of {rounds} rounds failed: {reasons}")
    return ", ".join(parts) if parts else "none"


def _show_spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return _show(known[0])
    return f"{_show(median(known))} ({_show(min(known))}–{_show(max(known))})"


def _show(value: float | None) -> str:
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
