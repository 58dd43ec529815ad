"""The report: the verdict in words, the course in a table, and all of it as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.markdown import list_facts, write_table

from .run import Result
from .verdict import Finding, grown, judge, overall
from .watch import Sample

_ROWS = 12
_COURSE = {
    "requests": "requests",
    "departures": "departures",
    "rss_kb": "RSS, KB",
    "heap_kb": "malloc, KB",
    "blocks": "Python's blocks",
    "objects": "gc objects",
    "greenlets": "greenlets",
    "conversations": "conversations",
    "parked": "parked",
    "connections": "connections",
    "descriptors": "descriptors",
    "threads": "threads",
    "tasks": "tasks",
    "timers": "timers",
}
_TITLES = {"threads": "In threads", "loop": "On the event loop"}
_WORDS = {
    "good": "Flat: nothing grows, nothing is left, and every answer was right.",
    "bad": "**Not as it must be.**",
    "too short to say": "Right, but too short to say whether it is flat.",
}


@dataclass(frozen=True, slots=True)
class Report:
    """All runs, with where and how they took place."""

    machine: dict[str, str]
    how: dict[str, str]
    results: list[Result]


def seconds(result: Result) -> float:
    """Return how long the load lasted, without the rest at half."""
    samples = result.samples
    half = result.half["seconds"]
    first = [each for each in samples if each["seconds"] <= half]
    second = samples[len(first) :]
    return sum(part[-1]["seconds"] - part[0]["seconds"] for part in (first, second) if part)


def sum_up(result: Result) -> str:
    """Return the verdict on one run in one line."""
    findings = judge(result)
    bad = "; ".join(f"{each.what}: {each.found}" for each in findings if each.outcome == "bad")
    return f"{result.executor}: {_WORDS[overall(findings)]}" + (f" {bad}" if bad else "")


def write_markdown(report: Report) -> str:
    """Return the whole report as Markdown."""
    parts = ["# A long run of Bide", ""]
    parts += list_facts(report.how, report.machine)
    for result in report.results:
        parts += ["", f"## {_TITLES[result.executor]}", "", *_write_result(result)]
    return "\n".join(parts) + "\n"


def write_json(report: Report) -> dict[str, Any]:
    """Return the whole report, every sample of it, as what `json` can write."""
    return {
        "machine": report.machine,
        "how": report.how,
        "runs": [_plain(result) for result in report.results],
    }


def _plain(result: Result) -> dict[str, Any]:
    findings = judge(result)
    return {
        "executor": result.executor,
        "command": result.command,
        "size": asdict(result.size),
        "verdict": overall(findings),
        "findings": [asdict(finding) for finding in findings],
        "grown": dict(grown(result)),
        "requests": result.tally.requests,
        "departures": result.tally.departures,
        "wrong": result.tally.wrong,
        "examples": result.tally.examples,
        "idle": {
            name: {key: value for key, value in seen.items() if key != "types"}
            for name, seen in (
                ("before", result.before),
                ("half", result.half),
                ("after", result.after),
            )
        },
        "samples": result.samples,
    }


def _write_result(result: Result) -> list[str]:
    findings = judge(result)
    last = result.after
    cpu = 1e6 * (last["cpu_seconds"] - result.before["cpu_seconds"])
    made = last["requests"] - result.before["requests"]
    left = last["departures"] - result.before["departures"]
    parts = [
        _WORDS[overall(findings)],
        "",
        f"`{result.command}`",
        "",
        f"{made:,} requests and {left:,} departures in {seconds(result):,.0f} s;"
        f" {cpu / made:.0f} µs of CPU for each request with its share of departures.",
        "",
        *write_table(["what must be", "found", ""], [_row(finding) for finding in findings]),
        "",
        "The course under load:",
        "",
        *write_table(list(_COURSE.values()), [_figures(each) for each in _thin(result.samples)]),
        "",
        "Idle, at the beginning, at half and at the end:",
        "",
        *write_table(
            list(_COURSE.values()),
            [_figures(each) for each in (result.before, result.half, result.after)],
        ),
        "",
        f"Requests, the warm-up included: {_counts(result.tally.requests)}.",
        "",
        f"Departures: {_counts(result.tally.departures)}.",
        "",
        "Of these types the idle server had more at the end than at half:"
        f" {_counts(dict(grown(result))) or 'none'}.",
    ]
    if result.tally.wrong:
        parts += ["", f"Wrong: {_counts(result.tally.wrong)}.", ""]
        parts += [f"- `{example}`" for example in result.tally.examples]
    return parts


def _row(finding: Finding) -> list[str]:
    outcome = finding.outcome
    return [finding.what, finding.found, outcome if outcome == "good" else f"**{outcome}**"]


def _thin(samples: list[Sample]) -> list[Sample]:
    """Return some of them, evenly, the first and the last with them."""
    if len(samples) <= _ROWS:
        return samples
    step = (len(samples) - 1) / (_ROWS - 1)
    return [samples[round(index * step)] for index in range(_ROWS)]


def _figures(sample: dict[str, Any]) -> list[str]:
    return [f"{int(sample[name]):,}" for name in _COURSE]


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(numbers.items()))
