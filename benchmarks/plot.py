"""The plot: one panel for each scenario, with Bide's forms and the best peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .drawing import BIDE, FAINT, drawing, write_above
from .judging import find_best, is_doubtful, spread
from .report import Run, show
from .rounds import Result
from .scenarios import Scenario

_COLUMNS = 2
_BEST = 3


def write_plot(run: Run, svg: Path) -> None:
    """Draw the run into a file."""
    rows = -(-len(run.tables) // _COLUMNS)
    ours = max((len(_list_ours(results)) for _, results in run.tables), default=0)
    size = (12.0, rows * (0.3 * (ours + _BEST) + 0.8) + 0.5)
    with drawing(svg, rows, _COLUMNS, figsize=size) as (figure, axes):
        panels = axes.flatten()
        for axis, (scenario, results) in zip(panels, run.tables, strict=False):
            _draw(axis, scenario, results)
        for axis in panels[len(run.tables) :]:
            axis.set_axis_off()
        figure.suptitle(
            f"{run.machine['cpu']}, one core for each worker; {run.machine['python']};"
            f" {run.how['date']}",
            fontsize=8,
        )


def _list_ours(results: list[Result]) -> list[Result]:
    return [result for result in results if result.contender.is_bide]


def _draw(axis: Any, scenario: Scenario, results: list[Result]) -> None:
    shown = _list_ours(results)
    ours = len(shown)
    shown += find_best(scenario, results, _BEST)
    medians = [spread(result, scenario.headline) for result in shown]
    bars = axis.barh(
        [result.contender.server.label for result in shown],
        [found.median if found else 0.0 for found in medians],
        color=[BIDE] * ours + [FAINT] * (len(shown) - ours),
        height=0.7,
    )
    labels = [
        (show(found.median) if found else "not measured")
        + (" (with errors)" if is_doubtful(result) else "")
        for result, found in zip(shown, medians, strict=True)
    ]
    axis.bar_label(bars, labels=labels, padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.3)
    axis.set_title(scenario.title, loc="left", fontweight="bold", pad=18)
    better = "more" if scenario.headline.more else "less"
    write_above(axis, f"{scenario.headline.title}, {better} is better", 5)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.tick_params(bottom=False, labelbottom=False, left=False)
