"""The plot: what the server held in the course of each run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.drawing import BIDE, FAINT, drawing, write_above

from .report import Report
from .run import Result
from .verdict import BOUNDS, judge, overall, second_half, slope
from .watch import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found, unused-ignore]

_FIT = "#22313f"
_TITLES = {"threads": "In threads", "loop": "On the event loop"}
_WORDS = {"good": "flat", "bad": "not as it must be", "too short to say": "too short to say"}
_HELD = {
    "connections": BIDE,
    "parked": "#d99a2b",
    "tasks": "#2f7f6f",
    "descriptors": _FIT,
    "threads": FAINT,
}


def write_plot(report: Report, svg: Path) -> None:
    """Draw the runs into a file: a column for each run, a row for each figure."""
    columns = len(report.results)
    size = (5.4 * columns + 0.6, 10.4)
    with drawing(svg, 4, columns, figsize=size, sharex="col", sharey="row") as (figure, axes):
        _draw(report, figure, axes)


def _draw(report: Report, figure: Any, axes: Any) -> None:
    for column, result in zip(axes.T, report.results, strict=True):
        samples = result.samples
        requests = [each["requests"] / 1000 for each in samples]
        memory, objects, held, speed = column
        verdict = overall(judge(result))
        title = f"{_TITLES[result.executor]}: {_WORDS[verdict]}"
        write_above(memory, title, 24, fontweight="bold", fontsize=11)
        _draw_fitted(memory, result, "rss_kb", 1024, "RSS, MB", "KB")
        _draw_fitted(objects, result, "objects", 1000, "gc objects, thousands", "objects")
        for name, colour in _HELD.items():
            held.plot(requests, [each[name] for each in samples], color=colour, label=name, lw=1)
        held.set_title("held at once", loc="left")
        held.legend(ncols=3, loc="upper left", fontsize=8)
        held.set_ylim(0, 1.5 * max(each[name] for each in samples for name in _HELD))
        pairs = [(a, b) for a, b in pairwise(samples) if b["requests"] - a["requests"] >= 1000]
        speed.plot(
            [b["requests"] / 1000 for _, b in pairs],
            [_cost(a, b) for a, b in pairs],
            color=BIDE,
            lw=1,
        )
        speed.set_title("CPU µs for each request, departures included", loc="left")
        speed.set_ylim(bottom=0)
        speed.set_xlabel("thousand requests")
        for axis in column:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelleft=True)
            axis.axvline(result.half["requests"] / 1000, color=FAINT, lw=0.8, ls=":")
    first = report.results[0].size
    figure.suptitle(
        f"Bide under {first.requests:,} requests and {first.departures:,} departures"
        f"\n{report.machine['python']}; {report.how['date']}",
        fontsize=9,
    )


def _draw_fitted(
    axis: Axes, result: Result, figure: str, unit: int, title: str, counted: str
) -> None:
    samples = result.samples
    axis.plot(
        [each["requests"] / 1000 for each in samples],
        [each[figure] / unit for each in samples],
        color=BIDE,
        lw=1,
    )
    idle = (result.before, result.half, result.after)
    axis.plot(
        [each["requests"] / 1000 for each in idle],
        [each[figure] / unit for each in idle],
        ls="",
        marker="o",
        ms=4,
        color=_FIT,
        label="idle",
    )
    fitted = slope(samples, figure)
    if fitted is not None:
        ends = [each["requests"] / 1000 for each in second_half(samples)]
        ends = [ends[0], ends[-1]]
        axis.plot(
            ends,
            [fitted.at(x) / unit for x in ends],
            color=_FIT,
            lw=1.6,
            ls="--",
            label=f"{fitted.rise:+.2f} {counted} in 1,000 requests (bound {BOUNDS[figure]:g})",
        )
    axis.set_title(title, loc="left")
    axis.set_ylim(0, 1.15 * max(each[figure] for each in samples) / unit)
    axis.legend(loc="lower right", fontsize=8)


def _cost(before: Sample, after: Sample) -> float:
    made = after["requests"] - before["requests"]
    return 1e6 * (after["cpu_seconds"] - before["cpu_seconds"]) / made
