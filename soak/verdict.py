"""What a run proves: slopes, what is left at rest, the log, and whether all of it is as it must be.

Flat means: over the second half of a run the line of least squares through what was sampled under
load does not rise by more than a bound, two standard errors allowed; and neither does the idle
server, from the run's middle to its end. What grows in the first half is what it takes to reach the
most that there ever is at once.

Not flat is what has risen by more than the bound and a step besides. What comes all at once is
not growth, but in a short run it rises by more than the bound: between the two, nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bide.executors.hub import IDLE_WORKERS

from .departures import overdue
from .run import Result
from .watch import SAME, ZERO, Sample

Outcome = Literal["good", "bad", "too short to say"]

BOUNDS = {"rss_kb": 4.0, "heap_kb": 1.0, "blocks": 4.0, "objects": 2.0}
"""By how much a figure may rise in 1,000 requests."""
STEPS = {"rss_kb": 2048.0, "heap_kb": 128.0, "blocks": 512.0, "objects": 128.0}
"""By how much a figure may rise besides, in all: what comes once, and late.

Resident memory: Python takes its memory by the megabyte and touches it page by page, and malloc
keeps what was in use at once. In threads 0.5 to 0.9 MB came in the second 50,000 requests of
100,000, while what is in use stayed the same. The others: a few more greenlets than there ever
were at once.
"""
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
"""Fewer requests, or samples in the second half, tell nothing about growth."""
COARSEST = 2.0
"""Nor does a slope whose standard error is so many times the bound."""

# A connection that is kept has some objects without a conversation, and its number goes up for
# seconds when a half begins.
_IN_PROGRESS = ("conversations", "connections")
_NOTHING = 1e-9  # so small a part of what there was is rounding

_FAILED = "ERROR the application failed: %s"
_OVERDUE = "WARNING %s has taken %.1f s: its wait is ended"
# A machine that is busy with something else does not count.
_MONITORS = (
    "ERROR the event loop ",
    "WARNING the event loop ",
    "WARNING %s has been blocked",
    "WARNING %s has blocked",
    "WARNING %s goes on",
    "WARNING the soak begins",
)


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


def fit(points: list[tuple[float, float]], *beside: list[float]) -> Slope | None:
    """Fit a line; None through points that are too few for one, or give none.

    Where the heights also follow other quantities, each of `beside` has one of them for each point,
    and the rise is the one without them. The points give no line that stand all at one x, or whose
    x follows those.
    """
    free = len(points) - 2 - len(beside)
    if free < 1:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    xs = [x - mean_x for x, _ in points]
    ys = [y - mean_y for _, y in points]
    whole = _product(xs, xs)
    for others in _independent(beside):
        xs, ys = _without(xs, others), _without(ys, others)
    spread = _product(xs, xs)
    if spread <= _NOTHING * whole:
        return None
    rise = _product(xs, ys) / spread
    off = sum((y - rise * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Slope(rise, (off / free / spread) ** 0.5, mean_y - rise * mean_x)


def second_half(samples: list[Sample]) -> list[Sample]:
    """Return the samples of the second half of the requests; not those while stragglers end."""
    first, last = samples[0]["requests"], samples[-1]["requests"]
    return [
        sample
        for sample in samples
        if sample["requests"] > (first + last) / 2 and sample["requests"] < last
    ]


def slope(samples: list[Sample], figure: str) -> Slope | None:
    """Return how a figure rises in the second half, for each 1,000 requests.

    Of objects: without those of what is in progress at the moment.
    """
    half = second_half(samples)
    beside = [[each[name] for each in half] for name in _IN_PROGRESS if figure == "objects"]
    return fit([(each["requests"] / 1000, each[figure]) for each in half], *beside)


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
    half = second_half(result.samples)
    if found is None or len(half) < LEAST_SAMPLES:
        return Finding(what, "too few samples", "too short to say")
    text = f"{found.rise:+.2f} ± {found.error:.2f}"
    if found.error > COARSEST * BOUNDS[figure]:
        return Finding(what, text, "too short to say")
    thousands = (half[-1]["requests"] - half[0]["requests"]) / 1000
    # What goes on at the moment is in it too: it rises when it does so beyond two errors.
    sure = found.rise - 2 * found.error
    return Finding(what, text, _flat(result, figure, sure * thousands, thousands))


def _at_rest(result: Result, figure: str) -> Finding:
    before, half, after = (each[figure] for each in (result.before, result.half, result.after))
    thousands = (result.after["requests"] - result.half["requests"]) / 1000
    what = f"{TITLES[figure]}, idle: at most {BOUNDS[figure]:g} more in 1,000 requests"
    text = (
        f"{(after - half) / thousands:+.2f}:"
        f" {before:,} at the beginning, {half:,} at half, {after:,} at the end"
    )
    return Finding(what, text, _flat(result, figure, after - half, thousands))


def _flat(result: Result, figure: str, rise: float, thousands: float) -> Outcome:
    """Judge by how much a figure has risen in so many thousand requests."""
    bound = BOUNDS[figure] * thousands
    if result.size.requests < LEAST_REQUESTS or bound < rise <= bound + STEPS[figure]:
        return "too short to say"
    return _outcome(rise <= bound)


def _product(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def _without(values: list[float], others: list[float]) -> list[float]:
    """Return what is left of the values when what follows the others is taken off; means are 0."""
    share = _product(values, others) / _product(others, others)
    return [value - share * other for value, other in zip(values, others, strict=True)]


def _independent(quantities: Iterable[list[float]]) -> list[list[float]]:
    """Return each quantity, of mean 0, without what follows those before it, if that leaves any."""
    found: list[list[float]] = []
    for quantity in quantities:
        mean = sum(quantity) / len(quantity)
        rest = [value - mean for value in quantity]
        whole = _product(rest, rest)
        for others in found:
            rest = _without(rest, others)
        if _product(rest, rest) > _NOTHING * whole:
            found.append(rest)
    return found


def _ended(result: Result) -> Finding:
    left = {name: result.after[name] for name in ZERO if result.after[name]}
    return Finding(f"nothing is left: {', '.join(ZERO)}", _list(left) or "0", _outcome(not left))


def _same(result: Result) -> Finding:
    before, after = result.before, result.after
    good = all(before[name] == after[name] for name in SAME)
    found = ", ".join(f"{name} {before[name]}→{after[name]}" for name in SAME)
    return Finding("the idle server holds what it held before", found, _outcome(good))


def _greenlets(result: Result) -> Finding:
    # Idle ones are kept for the next requests, so many for each lane, or for the loop. And each
    # thread that has come into touch with one has its main one, those of pools too.
    most = (max(result.after["lanes"], 1) if result.executor == "threads" else 1) * IDLE_WORKERS
    most += result.after["threads"]
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
