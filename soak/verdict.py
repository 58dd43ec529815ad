"""What a run proves: slopes, what is left at rest, the log, and whether all of it is as it must be.

Flat means: over the second half of a run the line of least squares through what was sampled under
load does not rise by more than a bound, two standard errors allowed; and neither does the idle
server, to which nothing is allowed, from the run's middle to its end. What grows in the first half
is what it takes to reach the most that there ever is at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from bide.executors.hub import IDLE_WORKERS

from .departures import overdue
from .run import THREADS, Result
from .watch import SAME, ZERO, Sample

Outcome = Literal["good", "bad", "too short to say"]

BOUNDS = {"rss_kb": 4.0, "heap_kb": 1.0, "blocks": 4.0, "objects": 2.0}
"""By how much a figure may rise in 1,000 requests."""
TITLES = {
    "rss_kb": "resident memory, KB",
    "heap_kb": "malloc's memory in use, KB",
    "blocks": "Python's blocks of memory in use",
    "objects": "objects that gc tracks",
}
UNDER_LOAD = ("rss_kb", "objects")
"""What is judged under load too; the others go up and down with it too much."""
LEAST_REQUESTS = 100_000
LEAST_SAMPLES = 8
"""Fewer requests, or samples in the second half, tell nothing about a slope."""
COARSEST = 2.0
"""Nor does a slope whose standard error is so many times the bound."""

_FAILED = "ERROR the application failed: %s"
_OVERDUE = "WARNING %s has taken %.1f s: its wait is ended"
# A machine that is busy with something else is no finding.
_MONITORS = ("ERROR the event loop ", "WARNING %s has been blocked", "WARNING %s goes on")


@dataclass(frozen=True, slots=True)
class Slope:
    """A line of least squares: its rise for each unit, and the standard error of that."""

    rise: float
    error: float
    level: float  # where it begins: its height at 0

    def at(self, x: float) -> float:
        """Return its height at `x`."""
        return self.level + self.rise * x


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that had to be so, and whether it is."""

    what: str
    found: str
    outcome: Outcome


def fit(points: list[tuple[float, float]]) -> Slope | None:
    """Fit a line; None through fewer than three points, or through such as stand all at one x."""
    number = len(points)
    if number < 3:
        return None
    mean_x = sum(x for x, _ in points) / number
    mean_y = sum(y for _, y in points) / number
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return None
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    level = mean_y - rise * mean_x
    off = sum((y - level - rise * x) ** 2 for x, y in points)
    return Slope(rise, (off / (number - 2) / spread) ** 0.5, level)


def second_half(samples: list[Sample]) -> list[Sample]:
    """Return the samples of the second half of the requests; not those while stragglers end."""
    first, last = samples[0]["requests"], samples[-1]["requests"]
    return [
        sample
        for sample in samples
        if sample["requests"] > (first + last) / 2 and sample["requests"] < last
    ]


def slope(samples: list[Sample], figure: str) -> Slope | None:
    """Return how a figure rises in the second half, for each 1,000 requests."""
    return fit([(each["requests"] / 1000, each[figure]) for each in second_half(samples)])


def judge(result: Result) -> list[Finding]:
    """Hold a run against all that had to be so."""
    findings = [_answers(result), _departures(result)]
    findings += [_under_load(result, figure) for figure in UNDER_LOAD]
    findings += [_at_rest(result, figure) for figure in BOUNDS]
    return [*findings, _ended(result), _same(result), _greenlets(result), _log(result)]


def overall(findings: list[Finding]) -> Outcome:
    """Return the worst of them."""
    outcomes = {finding.outcome for finding in findings}
    for outcome in ("bad", "too short to say"):
        if outcome in outcomes:
            return outcome
    return "good"


def grown(result: Result, most: int = 12) -> list[tuple[str, int]]:
    """Return the types of which the second half has left more, the most grown first."""
    growth = Counter(result.after["types"])
    growth.subtract(result.half["types"])
    return [(name, number) for name, number in growth.most_common(most) if number > 0]


def _answers(result: Result) -> Finding:
    made = result.tally.requests.total() - result.warmed[0]
    wrong = result.tally.wrong.total()
    # A session may have a request more than was due, but none may be missing.
    good = not wrong and made >= result.size.requests
    found = f"{made:,} right, {wrong:,} wrong or missing"
    return Finding(
        f"{result.size.requests:,} requests get their own answers", found, _outcome(good)
    )


def _departures(result: Result) -> Finding:
    made = result.tally.departures.total() - result.warmed[1]
    what = f"{result.size.departures:,} clients leave, each as planned"
    return Finding(what, f"{made:,}", _outcome(made == result.size.departures))


def _under_load(result: Result, figure: str) -> Finding:
    most = f"at most {BOUNDS[figure]:g} more in 1,000 requests, beyond two errors"
    what = f"{TITLES[figure]}, under load: {most}"
    found = slope(result.samples, figure)
    if found is None or len(second_half(result.samples)) < LEAST_SAMPLES:
        return Finding(what, "too few samples", "too short to say")
    text = f"{found.rise:+.2f} ± {found.error:.2f}"
    if found.error > COARSEST * BOUNDS[figure]:
        return Finding(what, text, "too short to say")
    # What goes on at the moment is in it too: it rises when it does so beyond two errors.
    return Finding(what, text, _flat(result, found.rise - 2 * found.error, BOUNDS[figure]))


def _at_rest(result: Result, figure: str) -> Finding:
    before, half, after = (each[figure] for each in (result.before, result.half, result.after))
    rise = (after - half) / ((result.after["requests"] - result.half["requests"]) / 1000)
    what = f"{TITLES[figure]}, idle: at most {BOUNDS[figure]:g} more in 1,000 requests"
    text = f"{rise:+.2f}: {before:,} at the beginning, {half:,} at half, {after:,} at the end"
    return Finding(what, text, _flat(result, rise, BOUNDS[figure]))


def _flat(result: Result, rise: float, bound: float) -> Outcome:
    if result.size.requests < LEAST_REQUESTS:
        return "too short to say"
    return _outcome(rise <= bound)


def _ended(result: Result) -> Finding:
    left = {name: result.after[name] for name in ZERO if result.after[name]}
    return Finding(f"nothing is left: {', '.join(ZERO)}", _list(left) or "0", _outcome(not left))


def _same(result: Result) -> Finding:
    before, after = result.before, result.after
    good = all(before[name] == after[name] for name in SAME)
    found = ", ".join(f"{name} {before[name]}→{after[name]}" for name in SAME)
    return Finding("the idle server holds what it held before", found, _outcome(good))


def _greenlets(result: Result) -> Finding:
    # Idle ones are kept for the next requests, so many for each thread; and each has its main one.
    most = (max(result.after["lanes"], 1) if result.executor == "threads" else 1) * IDLE_WORKERS
    most += THREADS + 1
    found = result.after["greenlets"]
    return Finding(
        f"no more greenlets than are kept idle: {most:,}", f"{found:,}", _outcome(found <= most)
    )


def _log(result: Result) -> Finding:
    logged: dict[str, int] = result.after["logged"]
    tally = result.tally
    due = {_FAILED: tally.failures, _OVERDUE: tally.departures[overdue.__name__]}
    found = {text: n for text, n in logged.items() if not text.startswith(_MONITORS)}
    good = found == {text: number for text, number in due.items() if number}
    return Finding(
        f"the log tells of {due[_FAILED]:,} failures of the application, of {due[_OVERDUE]:,}"
        " requests that took too long, and of nothing else",
        _list(found) or "nothing",
        _outcome(good),
    )


def _outcome(good: bool) -> Outcome:
    return "good" if good else "bad"


def _list(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {number:,}" for name, number in numbers.items())
