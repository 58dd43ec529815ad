"""The plot: one panel for each scenario, with the figure that its aim is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .drawing import BIDE, FAINT, drawing, write_above
from .report import TITLES, Run, count_errors, judge_all, take_median
from .rounds import Result
from .scenarios import Figure


def write_plot(run: Run, svg: Path) -> None:
    """Draw the run into a file."""
    heights = [len(results) + 1.8 for _, results in run.tables]
    size = (9.6, 0.36 * sum(heights) + 0.7)
    ratios = {"height_ratios": heights}
    with drawing(svg, len(heights), 1, figsize=size, gridspec_kw=ratios) as (figure, axes):
        _draw(run, figure, axes[:, 0])


def _draw(run: Run, figure: Any, axes: Any) -> None:
    outcomes = {scenario.name: verdict for scenario, verdict in judge_all(run)}
    for axis, (scenario, results) in zip(axes, run.tables, strict=True):
        figure_name = scenario.aims[0].figure
        medians = [take_median(result, figure_name) for result in results]
        lengths = [value or 0.0 for value in medians]
        bars = axis.barh(
            [result.contender.server.label for result in results],
            lengths,
            color=[BIDE, *[FAINT] * (len(results) - 1)],
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
        write_above(
            axis,
            f"{TITLES[figure_name]}, {_better(figure_name)} is better."
            f" Aim: {verdict.wanted}: {verdict.outcome}",
            5,
        )
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(bottom=False, labelbottom=False, left=False)
    figure.suptitle(
        f"{run.machine['cpu']}, one core for the server; {run.machine['python']};"
        f" {run.how['date']}",
        fontsize=8,
    )


def _better(figure: Figure) -> str:
    return "more" if figure == "requests_per_second" else "less"


def _label(result: Result, value: float | None) -> str:
    if value is None:
        return f"not measured: {result.missing or 'every round failed'}"
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"
    return text + (" (with errors)" if count_errors(result) or result.failures else "")
