"""Write docs/settings.md from ``bide.settings``, where every setting is declared once.

Run it after a change there: ``python docs/make_settings.py``. A test says when it was forgotten.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from bide.settings import Settings, flag, variable

PAGE = pathlib.Path(__file__).with_name("settings.md")

INTRODUCTION = """\
# Settings

<!-- Made by docs/make_settings.py from src/bide/settings.py: edit that. -->

Each setting can be given on the command line, in the environment, or in Python, as in
`bide.run(app, threads=8)` and `bide.Server(app, threads=8)`. The command line goes before the
environment. Seconds may be fractions; sizes are bytes.
"""


def page() -> str:
    """Return the page's text."""
    groups: dict[str, list[str]] = {}
    for each in dataclasses.fields(Settings):
        groups.setdefault(each.metadata["group"], []).append(_section(each))
    return "\n".join(
        [INTRODUCTION, *(f"## {name}\n\n" + "\n".join(each) for name, each in groups.items())]
    )


def _section(setting: dataclasses.Field[Any]) -> str:
    metadata = setting.metadata
    rows = [
        ("Command line", f"`{flag(setting.name)} {_value(setting)}`"),
        ("Environment", f"`{variable(setting.name)}`"),
        ("Python", f"`{setting.name}`"),
        ("Default", _default(setting.default)),
    ]
    if metadata["choices"]:
        rows.append(("Choices", ", ".join(f"`{each}`" for each in metadata["choices"])))
    if metadata["minimum"] is not None:
        rows.append(("At least", f"`{metadata['minimum']:g}`"))
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return f"### `{flag(setting.name)}`\n\n{metadata['help']}\n\n| | |\n|---|---|\n{table}"


def _value(setting: dataclasses.Field[Any]) -> str:
    # No "|" between choices: it would end the table's cell.
    return str(setting.metadata["metavar"] or f"{{{','.join(setting.metadata['choices'])}}}")


def _default(default: Any) -> str:
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"`{default}`" if default != "" else "none"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
