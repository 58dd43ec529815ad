"""The plot: one panel for each scenario, with the figure that its aim is about."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from .errors import CannotRunError
from .report import TITLES, Run, count_errors, judge_all, take_median
from .rounds import Result
from .scenarios import Figure

_BIDE, _PEER = "#b3452c", "#8a94a0"


def require_plotting() -> None:
    """Raise `CannotRunError` where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise CannotRunError("matplotlib is not installed (pip install 'bide[bench]')")


def write_plot(run: Run, svg: Path, png: Path) -> None:
    """Draw the run into two files."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    # Text stays text, and equal figures give an equal file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bide", "font.size": 9})
    from matplotlib import pyplot

    heights = [len(results) + 1.8 for _, results in run.tables]
    figure, axes = pyplot.subplots(
        len(run.tables),
        1,
        figsize=(9.6, 0.36 * sum(heights) + 0.7),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    outcomes = {scenario.name: verdict for scenario, verdict in judge_all(run)}
    for axis, (scenario, results) in zip(axes[:, 0], run.tables, strict=True):
        figure_name = scenario.aims[0].figure
        medians = [take_median(result, figure_name) for result in results]
        lengths = [value or 0.0 for value in medians]
        bars = axis.barh(
            [result.contender.server.label for result in results],
            lengths,
            color=[_BIDE, *[_PEER] * (len(results) - 1)],
            height=0.7,
        )
        axis.bar_label(
            bars,
            labels=[_label(result, value) for result, value in zip(results, medians, strict=True)],
            padding=3,
        )
        axis.invert_yaxis()
        axis.margins(x=0.3)
        verdict = outcomes[scenario.name]
        axis.set_title(scenario.title, loc="left", fontweight="bold", pad=18)
        axis.annotate(
            f"{TITLES[figure_name]}, {_better(figure_name)} is better."
            f" Aim: {verdict.wanted}: {verdict.outcome}",
            xy=(0, 1),
            xytext=(0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
        )
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(bottom=False, labelbottom=False, left=False)
    figure.suptitle(
        f"{run.machine['cpu']}, one core for the server; {run.machine['python']};"
        f" {run.how['date']}",
        fontsize=8,
    )
    figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=150)
    pyplot.close(figure)


def _better(figure: Figure) -> str:
    return "more" if figure == "requests_per_second" else "less"


def _label(result: Result, value: float | None) -> str:
    if value is None:
        return f"not measured: {result.missing or 'every round failed'}"
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
    return text + (" (with errors)" if count_errors(result) or result.failures else "")
