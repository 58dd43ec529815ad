"""A table as lines: columns as wide as what is shown needs, cut or left out where room is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.text import Text

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column.

    Attributes:
        heading: its name, in capitals.
        text: returns what it shows of a row; printable characters only.
        least: how many cells it has at least, however little is in it.
        right: whether its texts end at its right side, as numbers do.
        share: where not all texts fit, cells are shared out in this proportion.
        fill: whether it takes the cells that nobody needs.
        weight: which columns are left out where room is short: those of the least weight first,
            and never those of 0.
        order: what rows are sorted by; ``None`` for its text.
    """

    heading: str
    text: Callable[[Row], str]
    least: int
    right: bool = False
    share: int = 8
    fill: bool = False
    weight: int = 0
    order: Callable[[Row], Any] | None = None


def table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    width: int,
    style: Callable[[Row], str],
    marked: tuple[str, str] = ("", ""),
) -> list[Text]:
    """Return a line of headings, and one for each row.

    Args:
        columns: the columns.
        rows: the rows that are shown.
        width: the cells that a line has; 0 for as many as are needed.
        style: returns how a row looks.
        marked: the heading of the column that the rows are sorted by, and what is put behind it.
    """
    headings = [each.heading + (marked[1] if each.heading == marked[0] else "") for each in columns]
    texts = [[each.text(row) for each in columns] for row in rows]
    needed = [
        max(each.least, cell_len(headings[at]), *(cell_len(line[at]) for line in texts), 0)
        for at, each in enumerate(columns)
    ]
    widths = _widths(columns, needed, width) if width else dict(enumerate(needed))

    def line(cells: Sequence[str], style: str) -> Text:
        parts = [_cell(cells[at], size, columns[at].right) for at, size in widths.items()]
        whole = " ".join(parts)
        return Text(set_cell_size(whole, width) if width else whole.rstrip(), style, no_wrap=True)

    return [
        line(headings, "bold reverse"),
        *(line(each, style(row)) for each, row in zip(texts, rows, strict=True)),
    ]


def more(count: int, what: str) -> list[Text]:
    """Return the line that says how many are not shown; none if all are."""
    return [Text(f"… {count:,} more {what}".rstrip(), "dim")] if count else []


def _widths(columns: Sequence[Column[Row]], needed: list[int], width: int) -> dict[int, int]:
    """Return the columns that are shown, by their places, and the width of each."""
    # Headings are whole where there is room for the column at all.
    widths = {at: max(each.least, len(each.heading)) for at, each in enumerate(columns)}

    def spare() -> int:
        return width - sum(widths.values()) - (len(widths) - 1)

    while spare() < 0:
        least = min((columns[at].weight or 99, -at) for at in widths)
        if least[0] == 99:
            break  # the line is cut
        del widths[-least[1]]
    for _ in range(spare()):
        short = [at for at in widths if widths[at] < needed[at]]
        if not short:
            break
        widths[min(short, key=lambda at: widths[at] / columns[at].share)] += 1
    for at in widths:
        if columns[at].fill:
            widths[at] += max(spare(), 0)
    return widths


def _cell(text: str, width: int, right: bool) -> str:
    over = cell_len(text) > width
    if over:
        return set_cell_size(text, max(width - 1, 0)) + "…"[:width]
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)
