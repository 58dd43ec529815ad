"""What the soak makes of its figures: slopes, what is left, the log, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soak.load import Tally
from soak.report import Report, seconds, sum_up, write_json, write_markdown
from soak.run import Result, Size
from soak.verdict import (
    BOUNDS,
    LEAST_REQUESTS,
    STEPS,
    UNDER_LOAD,
    Finding,
    Outcome,
    fit,
    grown,
    judge,
    overall,
    second_half,
    slope,
)
from soak.watch import ZERO

SERIES = json.loads(Path(__file__).with_name("series.json").read_text())
"""Runs of 100,000 requests, as they were measured.

In the one on a busy machine the number of connections went up all through the second half.
"""
LEAKS = {"rss_kb": 60.0, "heap_kb": 5.0, "blocks": 15.0, "objects": 10.0}
"""So much more for each 1,000 requests is a leak, and is found in runs as short as these."""

FAILED = "ERROR the application failed: %s"
OVERDUE = "WARNING %s has taken %.1f s: its wait is ended"


def make_seen(requests: int, **figures: Any) -> dict[str, Any]:
    return {
        "seconds": requests / 4000,
        "requests": requests,
        "departures": requests // 10,
        "rss_kb": 40_000,
        "heap_kb": 9_000,
        "blocks": 156_000,
        "objects": 36_000,
        "greenlets": 100,
        "cpu_seconds": requests / 10_000,
        **dict.fromkeys(ZERO, 0),
        "descriptors": 9,
        "threads": 46,
        "lanes": 4,
        "tasks": 1,
        "timers": 1,
        "uncollectable": 0,
        **figures,
    }


def make_idle(requests: int, **figures: Any) -> dict[str, Any]:
    seen = {"types": {"builtins.list": 10, "builtins.dict": 5}, "logged": {FAILED: 2, OVERDUE: 1}}
    return {**make_seen(requests), **seen, **figures}


def make_result(**figures: Any) -> Result:
    """Make a flat run of 200,000 requests after a warm-up of 10,000; all can be replaced."""
    tally = Tally(done=210_000, failures=2)
    tally.requests.update(hello=210_000)
    tally.departures.update(waiting=20_999, overdue=1)
    values: dict[str, Any] = {
        "executor": "threads",
        "command": "bide",
        "size": Size(200_000, 20_000),
        "samples": [make_seen(10_000 + 10_000 * index) for index in range(21)],
        "before": make_idle(10_000),
        "half": make_idle(110_000),
        "after": make_idle(210_000),
        "tally": tally,
        "warmed": (10_000, 1_000),
        **figures,
    }
    return Result(**values)


def make_recorded(name: str, *, times: float = 1.0, **leaks: float) -> Result:
    """Make the result of a recorded run, so many times as long, with leaks in 1,000 requests."""
    recorded = SERIES[name]

    def grow(figures: dict[str, float]) -> dict[str, float]:
        requests = figures["requests"] * times
        more = {name: figures[name] + leak * requests / 1000 for name, leak in leaks.items()}
        return {**figures, **more, "requests": requests}

    course = recorded["course"]
    columns = [
        dict(zip(course, values, strict=True)) for values in zip(*course.values(), strict=True)
    ]
    requests, departures = (int(number * times) for number in recorded["size"])
    size = Size(requests, departures)
    result = make_result(
        executor=name.split(",")[0],
        size=size,
        samples=[grow({**make_seen(0), **each}) for each in columns],
        warmed=(0, 0),
        **{name: {**make_idle(0), **grow(seen)} for name, seen in recorded["idle"].items()},
    )
    result.tally.requests.clear()
    result.tally.requests.update(hello=size.requests)
    result.tally.departures.clear()
    result.tally.departures.update(waiting=size.departures - 1, overdue=1)
    return result


def outcome_of(result: Result, text: str) -> Outcome:
    (finding,) = [each for each in judge(result) if text in each.what]
    return finding.outcome


def test_a_line_is_fitted_with_its_rise_its_level_and_its_error() -> None:
    """The three figures that the verdict and the plot stand on, by an example done by hand."""
    exact = fit([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0), (3.0, 11.0)])
    assert exact is not None
    assert (exact.rise, exact.level, exact.error) == (2.0, 5.0, 0.0)
    assert exact.at(10.0) == 25.0
    # Residuals -1/6, 1/3, -1/6: their squares' sum 1/6, over one degree of freedom and a spread 2.
    rough = fit([(0.0, 0.0), (1.0, 1.0), (2.0, 1.0)])
    assert rough is not None
    assert rough.rise == pytest.approx(0.5)
    assert rough.error == pytest.approx((1 / 12) ** 0.5)


def test_a_line_is_fitted_without_what_follows_other_quantities() -> None:
    """What is in progress at the moment is not growth, though there is more of it at the end."""
    first, second = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0], [2.0, 7.0, 1.0, 8.0, 2.0, 8.0]
    heights = [50.0 * a + 20.0 * b for a, b in zip(first, second, strict=True)]
    points = [(float(x), 7.0 + 2.0 * x + height) for x, height in enumerate(heights)]
    plain, found = fit(points), fit(points, first, second)
    assert plain is not None
    assert plain.rise > 20.0
    assert found is not None
    assert found.rise == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)
    # The line of the plot goes through the middle of the points all the same.
    assert found.at(2.5) == pytest.approx(sum(y for _, y in points) / 6)


def test_a_quantity_beside_a_line_is_let_pass_when_it_says_nothing_new() -> None:
    """One that stays the same, and one that goes with another."""
    points = [(0.0, 5.0), (1.0, 7.0), (2.0, 9.0), (3.0, 11.0), (4.0, 13.0)]
    found = fit(points, [8.0] * 5)
    assert found is not None
    assert (found.rise, found.level) == (2.0, 5.0)
    beside = [3.0, 1.0, 4.0, 1.0, 5.0]
    twice = fit(points, beside, [each / 3 + 0.1 for each in beside])
    assert twice is not None
    assert twice.rise == pytest.approx(2.0)


@pytest.mark.parametrize("factor", [1.0, 0.1, 1 / 3])
def test_no_line_is_fitted_when_a_quantity_beside_it_goes_with_its_x(factor: float) -> None:
    """Which of the two it is that makes the rise cannot be told then."""
    points = [(float(x), 3.0 * x) for x in range(20)]
    assert fit(points, [factor * x for x, _ in points]) is None


@pytest.mark.parametrize("points", [[], [(0.0, 1.0), (1.0, 2.0)], [(4.0, 1.0)] * 5])
def test_no_line_is_fitted_when_the_points_give_none(points: list[tuple[float, float]]) -> None:
    """Two points always lie on a line, and points above each other on none."""
    assert fit(points) is None


def test_the_second_half_is_by_requests_and_ends_with_them() -> None:
    """Samples taken while the last stalled clients are waited for stand all at the same place."""
    samples = [make_seen(requests) for requests in (0, 40, 50, 51, 80, 100, 100, 100)]
    assert [each["requests"] for each in second_half(samples)] == [51, 80]


def test_a_slope_is_for_a_thousand_requests() -> None:
    """That is the unit of the bounds."""
    samples = [make_seen(index * 1000, rss_kb=100 + 3 * index) for index in range(30)]
    found = slope(samples, "rss_kb")
    assert found is not None
    assert found.rise == pytest.approx(3.0)


def test_a_flat_run_is_good() -> None:
    """Nothing in what is made up here is wrong; each test below spoils one thing."""
    assert {finding.outcome for finding in judge(make_result())} == {"good"}
    assert sum_up(make_result()).startswith("threads: Flat")


@pytest.mark.parametrize(
    ("rise", "outcome"), [(3.9, "good"), (4.1, "too short to say"), (30.0, "bad")]
)
@pytest.mark.parametrize("where", ["under load", "idle"])
def test_memory_that_rises_beyond_its_bound_and_a_step_is_bad(
    where: str, rise: float, outcome: Outcome
) -> None:
    """Four bytes for each request, under load as at rest; what comes once is not known from it."""
    if where == "idle":
        result = make_result(after=make_idle(210_000, rss_kb=40_000 + 100 * rise))
    else:
        rising = [make_seen(10_000 + 10_000 * n, rss_kb=40_000 + 10 * n * rise) for n in range(21)]
        result = make_result(samples=rising)
    assert outcome_of(result, f"resident memory, KB, {where}") == outcome
    assert overall(judge(result)) == outcome


@pytest.mark.parametrize(
    ("figure", "title"),
    [
        ("rss_kb", "resident memory, KB, idle"),
        ("heap_kb", "malloc's memory"),
        ("blocks", "Python's blocks"),
        ("objects", "gc tracks, idle"),
    ],
)
def test_what_an_idle_server_has_not_given_back_is_bad_beyond_its_bound_and_a_step(
    figure: str, title: str
) -> None:
    """A leak of bytes is in the first three, and has no object that gc tracks."""
    start, allowed = make_idle(10_000)[figure], 100 * BOUNDS[figure]
    outcomes: dict[float, Outcome] = {
        allowed: "good",
        allowed + 1: "too short to say",
        allowed + STEPS[figure]: "too short to say",
        allowed + STEPS[figure] + 1: "bad",
    }
    for rise, outcome in outcomes.items():
        result = make_result(after=make_idle(210_000, **{figure: start + rise}))
        assert outcome_of(result, title) == outcome
        assert overall(judge(result)) == outcome


def test_a_recorded_run_is_judged_by_what_it_has_shown() -> None:
    """In threads pages were still touched for the first time: flat, but memory cannot be told."""
    for name in ("threads", "threads, busy machine"):
        doubtful = [each for each in judge(make_recorded(name)) if each.outcome != "good"]
        assert {each.outcome for each in doubtful} == {"too short to say"}
        assert [each.what[:19] for each in doubtful] == ["resident memory, KB"] * 2
    assert overall(judge(make_recorded("loop"))) == "good"


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("figure", BOUNDS)
def test_a_leak_is_found_in_a_recorded_run_of_the_least_size(name: str, figure: str) -> None:
    """It is in the figure idle, and under load where that is judged; each alone would do."""
    result = make_recorded(name, **{figure: LEAKS[figure]})
    assert result.size.requests == LEAST_REQUESTS
    bad = [each.what for each in judge(result) if each.outcome == "bad"]
    assert len(bad) == (2 if figure in UNDER_LOAD else 1)
    assert overall(judge(result)) == "bad"


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("figure", [None, *BOUNDS])
def test_a_recorded_run_below_the_least_size_is_too_short_to_say(
    name: str, figure: str | None
) -> None:
    """With a leak and without: neither is told of a run whose warm-up may not be over."""
    leaks = {} if figure is None else {figure: LEAKS[figure]}
    assert overall(judge(make_recorded(name, times=0.99, **leaks))) == "too short to say"


@pytest.mark.parametrize("name", SERIES)
def test_a_longer_run_of_the_same_course_is_flat(name: str) -> None:
    """What has come once in 100,000 requests weighs less in a million."""
    assert overall(judge(make_recorded(name, times=10.0))) == "good"


def test_what_grew_in_the_first_half_is_not_held_against_the_server() -> None:
    """It is what the most that there ever is at once takes: pools, buffers."""
    result = make_result(before=make_idle(10_000, rss_kb=30_000, objects=30_000))
    assert overall(judge(result)) == "good"


def test_a_rise_within_two_errors_is_none() -> None:
    """What goes on at the moment of a sample is in it, and says nothing."""
    wild = [
        make_seen(10_000 + 10_000 * n, objects=36_000 + (300 if n % 3 else 0) + 22 * n)
        for n in range(21)
    ]
    found = slope(wild, "objects")
    assert found is not None
    assert found.rise > 2.0
    assert outcome_of(make_result(samples=wild), "gc tracks, under load") == "good"


@pytest.mark.parametrize(
    "figures",
    [
        {"size": Size(50_000, 20_000)},
        {"samples": [make_seen(10_000 + 20_000 * n) for n in range(11)]},
        {"samples": [make_seen(10_000 + 10_000 * n, objects=9_000 * (n % 3)) for n in range(21)]},
    ],
    ids=["few requests", "few samples", "all over the place"],
)
def test_a_run_that_can_tell_nothing_is_too_short_to_say(figures: dict[str, Any]) -> None:
    """Neither flat nor not: the exit code is another one."""
    assert overall(judge(make_result(**figures))) == "too short to say"


@pytest.mark.parametrize("name", ZERO)
def test_what_an_idle_server_still_has_is_bad(name: str) -> None:
    """Clients have all gone: nothing may be in progress."""
    result = make_result(after=make_idle(210_000, **{name: 1}))
    assert outcome_of(result, "nothing is left") == "bad"


@pytest.mark.parametrize(
    "name", ["descriptors", "threads", "lanes", "tasks", "timers", "uncollectable"]
)
def test_one_more_of_what_must_be_the_same_is_bad(name: str) -> None:
    """A single descriptor left over in a million requests is one too many."""
    before = make_idle(10_000)
    result = make_result(after=make_idle(210_000, **{name: before[name] + 1}))
    assert outcome_of(result, "what it held before") == "bad"


@pytest.mark.parametrize(("executor", "kept"), [("threads", 4 * 256), ("loop", 256)])
def test_more_greenlets_than_are_kept_idle_are_bad(executor: str, kept: int) -> None:
    """Idle workers are kept for each lane, and each thread has its main one."""
    for greenlets, outcome in ((kept + 46, "good"), (kept + 47, "bad")):
        result = make_result(executor=executor, after=make_idle(210_000, greenlets=greenlets))
        assert outcome_of(result, "kept idle") == outcome


@pytest.mark.parametrize(
    ("logged", "outcome"),
    [
        ({FAILED: 2, OVERDUE: 1}, "good"),
        ({FAILED: 2, OVERDUE: 1, "ERROR the event loop has been blocked": 3}, "good"),
        ({FAILED: 3, OVERDUE: 1}, "bad"),
        ({FAILED: 2}, "bad"),
        ({FAILED: 2, OVERDUE: 1, "ERROR internal error: a job raised": 1}, "bad"),
    ],
)
def test_the_log_must_tell_of_each_failure_and_of_nothing_else(
    logged: dict[str, int], outcome: Outcome
) -> None:
    """A line too many is an error nobody asked for; one too few has been swallowed."""
    result = make_result(after=make_idle(210_000, logged=logged))
    assert outcome_of(result, "the log tells") == outcome


def test_a_wrong_answer_or_a_missing_one_is_bad() -> None:
    """The counts are after the warm-up; what was wrong in the warm-up counts too."""
    wrong = make_result()
    wrong.tally.note("hello", ValueError("another's"))
    assert outcome_of(wrong, "get their own answers") == "bad"
    missing = make_result()
    missing.tally.requests["hello"] -= 1
    assert outcome_of(missing, "get their own answers") == "bad"
    staying = make_result()
    staying.tally.departures["waiting"] -= 1
    assert outcome_of(staying, "clients leave") == "bad"


def test_the_worst_finding_is_the_verdict() -> None:
    """One bad among good ones is bad, also where something could not be told."""

    def finding(outcome: Outcome) -> Finding:
        return Finding("", "", outcome)

    assert overall([finding("good"), finding("good")]) == "good"
    assert overall([finding("good"), finding("too short to say")]) == "too short to say"
    assert overall([finding("too short to say"), finding("bad")]) == "bad"


def test_the_types_that_have_grown_are_named_the_most_grown_first() -> None:
    """Where memory is not flat, that is where to look."""
    types = {"builtins.list": 12, "builtins.dict": 15, "builtins.set": 1}
    assert grown(make_result(after=make_idle(210_000, types=types))) == [
        ("builtins.dict", 10),
        ("builtins.list", 2),
        ("builtins.set", 1),
    ]


def test_the_report_has_every_finding_the_course_and_what_was_wrong() -> None:
    """The Markdown is for people, and the JSON has every sample."""
    result = make_result()
    result.tally.note("late", ValueError("a | b"))
    report = Report({"cpu": "a processor"}, {"date": "today"}, [result])
    text = write_markdown(report)
    assert "**Not as it must be.**" in text
    assert "| 10,000 | 1,000 | 40,000 | 9,000 | 156,000 | 36,000 | 100 |" in text
    assert "- `late: ValueError: a | b`" in text
    written = json.loads(json.dumps(write_json(report)))
    (run,) = written["runs"]
    assert len(run["samples"]) == 21
    assert run["verdict"] == "bad"
    assert len(run["findings"]) == len(judge(result))
    assert "types" not in run["idle"]["after"]


def test_the_time_of_a_run_is_that_of_its_load() -> None:
    """The pause at half is none of it: from 10,000 to 110,000 and from there to 210,000."""
    result = make_result()
    for sample in result.samples[11:]:
        sample["seconds"] += 1000
    assert seconds(result) == pytest.approx(25.0 + 22.5)
