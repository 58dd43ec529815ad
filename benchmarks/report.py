"""The report of a run, as Markdown and as JSON. No measuring, no files."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from .figures import Figure
from .forms import Form
from .judging import (
    Spread,
    compare,
    count_errors,
    find_best,
    is_doubtful,
    judge_all,
    spread,
)
from .markdown import list_facts, write_table
from .rounds import Result
from .scenarios import Scenario

# A share of the server's core taken by others that makes figures doubtful.
_DISTURBED = 0.1
_BEST = 2


@dataclass(frozen=True, slots=True)
class Run:
    """All that a report is made from.

    Attributes:
        machine: The machine, as short texts by name.
        versions: The tools and libraries, by name.
        how: How it was measured, by name: rounds, seconds, cores, the date.
        forms: The forms of Bide that were measured.
        missing: Why one of them could not be, or `None`.
        tables: The scenarios and what they gave.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    how: dict[str, str]
    forms: list[Form]
    missing: str | None
    tables: list[tuple[Scenario, list[Result]]]


def write_markdown(run: Run) -> str:
    """Return the whole report: the short table, the aims, and then each scenario."""
    parts = ["# Bide beside its peers", "", *_write_how(run), ""]
    parts += ["## In short", "", *_write_short(run), ""]
    parts += ["## Aims", "", *_write_aims(run)]
    for scenario, results in run.tables:
        parts += ["", f"## {scenario.title}", ""]
        parts += [scenario.load.describe(), "", *_write_scenario(scenario, results)]
    return "\n".join(parts) + "\n"


def write_json(run: Run) -> dict[str, Any]:
    """Return the whole run, every round of it, as what `json` can write."""
    return {
        "machine": run.machine,
        "versions": run.versions,
        "how": run.how,
        "forms": {form.name: form.note for form in run.forms},
        "missing_form": run.missing,
        "aims": [
            {
                "scenario": scenario.name,
                "aim": verdict.wanted,
                "measured": None if verdict.measured is None else verdict.measured.median,
                "outcome": verdict.outcome,
            }
            for scenario, verdict in judge_all(run.tables)
        ],
        "scenarios": {
            scenario.name: {
                "title": scenario.title,
                "servers": [_write_result(scenario, result, results[0]) for result in results],
            }
            for scenario, results in run.tables
        },
    }


def show(value: float | None) -> str:
    """Return a figure with three digits or so, and a dash for none."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def show_spread(found: Spread | None) -> str:
    """Return a median with the least and the most, where it is one of several rounds."""
    if found is None:
        return "–"
    if found.rounds < 2:
        return f"{show(found.median)} (one round)"
    return f"{show(found.median)} ({show(found.least)}–{show(found.most)})"


def _write_result(scenario: Scenario, result: Result, bide: Result) -> dict[str, Any]:
    server = result.contender.server
    medians = {figure: spread(result, figure) for figure in scenario.load.columns}
    ratios = {
        figure: compare(bide, result, figure) for figure in scenario.load.columns if figure.compared
    }
    return {
        "server": server.name,
        "setup": server.setup,
        "versions": server.versions(),
        "application": result.contender.application,
        "command": result.command,
        "not_measured": result.missing,
        "medians": _write_medians(medians),
        "bide_divided_by_it": _write_medians(ratios),
        "errors": dict(count_errors(result)),
        "failed_rounds": result.failures,
        "rounds": [
            {
                "round": number,
                **{figure.name: value for figure, value in sample.figures.items()},
                "errors": sample.errors,
                "foreign_share": sample.foreign_share,
            }
            for number, sample in result.samples.items()
        ],
    }


def _write_medians(found: dict[Figure, Spread | None]) -> dict[str, float]:
    return {figure.name: each.median for figure, each in found.items() if each is not None}


def _write_how(run: Run) -> list[str]:
    lines = list_facts(run.how, run.machine, {f"Bide {form.name}": form.note for form in run.forms})
    if run.missing is not None:
        lines.append(f"- **{run.missing}**")
    lines.append("- versions: " + ", ".join(f"{name} {v}" for name, v in run.versions.items()))
    shares = [
        sample.foreign_share
        for _, results in run.tables
        for result in results
        for sample in result.samples.values()
    ]
    if shares:
        worst = max(shares)
        note = " **Disturbed: repeat it on an idle machine.**" if worst > _DISTURBED else ""
        lines.append(
            f"- other processes took {100 * median(shares):.0f} % of the server's cores in the"
            f" median round, {100 * worst:.0f} % in the worst.{note}"
        )
    return lines


def _write_short(run: Run) -> list[str]:
    heads = ["work", "figure", *(f"Bide {form.name}" for form in run.forms), "best peers"]
    rows = []
    for scenario, results in run.tables:
        ours = {result.contender.server.name: result for result in results}
        peers = [
            f"{result.contender.server.name} {_show_headline(scenario, result)}"
            for result in find_best(scenario, results, _BEST)
        ]
        rows.append(
            [
                scenario.title,
                f"{scenario.headline.title}, {'more' if scenario.headline.more else 'less'}"
                " is better",
                *(_show_headline(scenario, ours[form.server]) for form in run.forms),
                "; ".join(peers) or "–",
            ]
        )
    return [
        "Median of the rounds, with the least and the most of them.",
        "",
        *write_table(heads, rows),
    ]


def _show_headline(scenario: Scenario, result: Result) -> str:
    shown = show_spread(spread(result, scenario.headline))
    return shown + (", with errors" if is_doubtful(result) else "")


def _write_aims(run: Run) -> list[str]:
    first = f" Bide is the {run.forms[0].name} form where an aim names none." if run.forms else ""
    return [
        "A ratio is of two medians; in parentheses the least and the most of the rounds' own."
        + first,
        "",
        *write_table(
            ["work", "aim", "measured", "outcome"],
            [
                [
                    scenario.title,
                    verdict.wanted,
                    show_spread(verdict.measured),
                    f"**{verdict.outcome}**",
                ]
                for scenario, verdict in judge_all(run.tables)
            ],
        ),
    ]


def _write_scenario(scenario: Scenario, results: list[Result]) -> list[str]:
    heads = ["server", "version"]
    for figure in scenario.load.columns:
        heads.append(figure.title)
        if figure.compared:
            heads.append("Bide ÷ it")
    heads.append("errors")
    rows = []
    for result in results:
        server = result.contender.server
        row = [server.label, server.versions().get(server.distributions[0], "–")]
        for figure in scenario.load.columns:
            row.append(show_spread(spread(result, figure)))
            if figure.compared:
                ratio = compare(results[0], result, figure)
                first = result is results[0]
                row.append("" if first else show(None if ratio is None else ratio.median))
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
