"""The plot: what the server held in the course of each run."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from benchmarks.errors import CannotRunError

from .report import Report
from .run import Result
from .verdict import BOUNDS, judge, overall, second_half, slope
from .watch import Sample

_LINE, _FIT, _FAINT = "#b3452c", "#22313f", "#8a94a0"
_TITLES = {"threads": "In threads", "loop": "On the event loop"}
_WORDS = {"good": "flat", "bad": "not as it must be", "too short to say": "too short to say"}
_HELD = {
    "connections": "#b3452c",
    "parked": "#d99a2b",
    "tasks": "#2f7f6f",
    "descriptors": "#22313f",
    "threads": "#8a94a0",
}


def require_plotting() -> None:
    """Raise `CannotRunError` where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise CannotRunError("matplotlib is not installed (pip install 'bide[soak]')")


def write_plot(report: Report, svg: Path, png: Path) -> None:
    """Draw the runs into two files: a column for each run, a row for each figure."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    # Text stays text, and equal figures give an equal file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bide", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        4,
        len(report.results),
        figsize=(5.4 * len(report.results) + 0.6, 10.4),
        squeeze=False,
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    for column, result in zip(axes.T, report.results, strict=True):
        samples = result.samples
        requests = [each["requests"] / 1000 for each in samples]
        memory, objects, held, speed = column
        verdict = overall(judge(result))
        memory.annotate(
            f"{_TITLES[result.executor]}: {_WORDS[verdict]}",
            xy=(0, 1),
            xytext=(0, 24),
            xycoords="axes fraction",
            textcoords="offset points",
            fontweight="bold",
            fontsize=11,
        )
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
            color=_LINE,
            lw=1,
        )
        speed.set_title("CPU µs for each request, departures included", loc="left")
        speed.set_ylim(bottom=0)
        speed.set_xlabel("thousand requests")
        for axis in column:
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelleft=True)
            axis.axvline(result.half["requests"] / 1000, color=_FAINT, lw=0.8, ls=":")
    first = report.results[0].size
    figure.suptitle(
        f"Bide under {first.requests:,} requests and {first.departures:,} departures"
        f"\n{report.machine['python']}; {report.how['date']}",
        fontsize=9,
    )
    figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=130)
    pyplot.close(figure)


def _draw_fitted(
    axis: object, result: Result, figure: str, unit: int, title: str, counted: str
) -> None:
    from matplotlib.axes import Axes  # type: ignore[import-not-found, unused-ignore]

    assert isinstance(axis, Axes)
    samples = result.samples
    axis.plot(
        [each["requests"] / 1000 for each in samples],
        [each[figure] / unit for each in samples],
        color=_LINE,
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
