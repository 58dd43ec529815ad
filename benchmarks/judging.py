"""What the samples say: medians, spreads, ratios, and whether an aim was reached.

Every median is over the rounds of one run, and every ratio is of two such medians.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from .figures import Figure
from .rounds import Result
from .scenarios import Aim, Scenario


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds.

    Attributes:
        median: The median; of a ratio, the ratio of the two medians.
        least: The least of the rounds.
        most: The most.
        rounds: How many rounds gave it.
    """

    median: float
    least: float
    most: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """An aim beside what was measured.

    Attributes:
        wanted: The aim in words.
        measured: What it is judged by, or `None` where there is nothing.
        outcome: "reached", "missed" or "not measured", and whether errors cast doubt on it.
    """

    wanted: str
    measured: Spread | None
    outcome: str


def spread(result: Result, figure: Figure) -> Spread | None:
    """Return a figure over the rounds that gave it, or `None` without any."""
    values = [
        sample.figures[figure] for sample in result.samples.values() if figure in sample.figures
    ]
    if not values:
        return None
    return Spread(median(values), min(values), max(values), len(values))


def compare(bide: Result, other: Result, figure: Figure) -> Spread | None:
    """Return Bide's figure divided by the other's, or `None` where either is missing or zero.

    The least and the most are over the rounds in which both gave it.
    """
    ours, theirs = spread(bide, figure), spread(other, figure)
    if ours is None or theirs is None or not theirs.median:
        return None
    ratios = [
        bide.samples[number].figures[figure] / other.samples[number].figures[figure]
        for number in bide.samples.keys() & other.samples.keys()
        if other.samples[number].figures[figure]
    ]
    ratio = ours.median / theirs.median
    return Spread(ratio, min(ratios, default=ratio), max(ratios, default=ratio), len(ratios))


def count_errors(result: Result) -> Counter[str]:
    """Return the errors of all rounds, by kind."""
    total: Counter[str] = Counter()
    for sample in result.samples.values():
        total.update(sample.errors)
    return total


def is_doubtful(result: Result) -> bool:
    """Whether any of its rounds failed, or had errors."""
    return bool(count_errors(result) or result.failures)


def judge(aim: Aim, results: list[Result]) -> Verdict:
    """Hold an aim against what was measured; the first of `results` is Bide's, unless it says."""
    sign = "≤" if aim.side == "at most" else "≥"
    bide = results[0] if aim.bide is None else _find(aim.bide, results)
    peer = None if aim.peer is None else _find(aim.peer, results)
    wanted = f"{aim.figure.title} {sign} {aim.bound:g}"
    if aim.bide is not None:
        wanted = f"{aim.bide}: {wanted}"
    measured = None
    if aim.peer is not None:
        wanted += f" × {aim.peer}"
        if bide is not None and peer is not None:
            measured = compare(bide, peer, aim.figure)
    elif bide is not None:
        measured = spread(bide, aim.figure)
    if measured is None:
        return Verdict(wanted, None, "not measured")
    value = measured.median
    reached = value <= aim.bound if aim.side == "at most" else value >= aim.bound
    outcome = "reached" if reached else "missed"
    if any(is_doubtful(result) for result in (bide, peer) if result is not None):
        outcome += ", with errors"
    return Verdict(wanted, measured, outcome)


def judge_all(tables: Iterable[tuple[Scenario, list[Result]]]) -> list[tuple[Scenario, Verdict]]:
    """Hold every aim of the scenarios against what was measured.

    An aim about a form of Bide that this run was not asked for is left out.
    """
    return [
        (scenario, judge(aim, results))
        for scenario, results in tables
        for aim in scenario.aims
        if aim.bide is None or (_find(aim.bide, results) and _find(aim.peer, results))
    ]


def find_best(scenario: Scenario, results: list[Result], count: int) -> list[Result]:
    """Return the peers with the best headline figures, best first, at most so many."""
    measured = [
        (found.median, result)
        for result in results
        if not result.contender.is_bide and not result.contender.server.aside
        if (found := spread(result, scenario.headline)) is not None
    ]
    measured.sort(key=lambda pair: pair[0], reverse=scenario.headline.more)
    return [result for _, result in measured[:count]]


def _find(name: str | None, results: list[Result]) -> Result | None:
    found = [result for result in results if result.contender.server.name == name]
    return found[0] if found else None
