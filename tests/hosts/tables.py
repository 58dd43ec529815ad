"""The tables of ``docs/hosts.md``: what other people's servers do, measured anew.

``make hosts-table`` runs this. The tests check what Bide does under each server. What the servers
do by themselves changes with their releases, and is in these tables only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tests.hosts import asgi_conversations, asgi_hosts, wsgi_conversations, wsgi_hosts

PROJECT: Final = Path(__file__).parent.parent.parent
PAGE: Final = PROJECT / "docs" / "hosts.md"
TABLES: Final = {
    "wsgi servers": {name: name for name in wsgi_hosts.COMMANDS},
    "asgi servers": {name: name for name in ("uvicorn", "hypercorn", "granian", "daphne")},
    "asgi adapters": {"Bide": "uvicorn", "a2wsgi": "a2wsgi", "asgiref": "asgiref"},
}
"""For each table, its columns: the title, and the host that it is about."""

Cells = dict[tuple[str, str], str]
"""By host and row, what came of it."""


def documented(table: str) -> Cells:
    """Read what the page says in a table."""
    text = PAGE.read_text(encoding="utf-8").partition(_mark(table))[2].partition(_END)[0]
    cells: Cells = {}
    for line in text.splitlines()[2:]:
        row, *values = line.strip("| ").split(" | ")
        names = TABLES[table].values()
        cells |= {(name, row): value for name, value in zip(names, values, strict=True)}
    return cells


def write(table: str, cells: Cells) -> None:
    """Write a table into the page."""
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(_mark(table))
    text = before + mark + _markdown(TABLES[table], cells) + _END + rest.partition(_END)[2]
    PAGE.write_text(text, encoding="utf-8")


_END: Final = "<!-- end -->"


def _mark(table: str) -> str:
    return f"<!-- {table} -->\n"


def _markdown(columns: dict[str, str], cells: Cells) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in dict.fromkeys(row for _, row in cells):
        values = [cells[name, row] for name in columns.values()]
        if set(values) != {asgi_hosts.NONE}:
            lines.append(f"| {row} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the tables."""
    with tempfile.TemporaryDirectory() as directory:
        write("wsgi servers", wsgi_conversations.measure(Path(directory)))
        asgi = asgi_conversations.measure(Path(directory))
    write("asgi servers", asgi)
    write("asgi adapters", asgi)


if __name__ == "__main__":
    main()
