"""A plot in a file, with matplotlib, which is loaded only here and only to draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import CannotRunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found, unused-ignore]

BIDE: Final = "#b3452c"
"""The colour of Bide's figures."""
FAINT: Final = "#8a94a0"
"""The colour of what they stand beside."""


def require_plotting(extra: str) -> None:
    """Raise `CannotRunError` where matplotlib is not installed; `extra` is Bide's that has it."""
    if find_spec("matplotlib") is None:
        raise CannotRunError(f"matplotlib is not installed (pip install 'bide[{extra}]')")


@contextmanager
def drawing(svg: Path, rows: int, columns: int, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """Return a figure and its axes by row and column; what the block has drawn is in the file then.

    `settings` are those of `pyplot.subplots`.
    """
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    # Text stays text, and equal figures give an equal file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bide", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, squeeze=False, layout="constrained", **settings)
    try:
        yield figure, axes
        figure.savefig(svg, metadata={"Date": None})
    finally:
        pyplot.close(figure)


def write_above(axis: Axes, text: str, points: int, **font: Any) -> None:
    """Write so many points above the upper left corner."""
    axis.annotate(
        text,
        xy=(0, 1),
        xytext=(0, points),
        xycoords="axes fraction",
        textcoords="offset points",
        **font,
    )
