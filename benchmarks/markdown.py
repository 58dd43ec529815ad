"""The parts of a report in Markdown."""

from __future__ import annotations


def list_facts(*facts: dict[str, str]) -> list[str]:
    """Return a line for each fact, with its name."""
    return [f"- {name}: {text}" for each in facts for name, text in each.items()]


def write_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table; a pipe or a line's end in a cell does not break its row."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    ]
