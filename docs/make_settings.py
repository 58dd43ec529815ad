"""Write what is made from ``bide.settings``, where every setting is declared once.

That is docs/settings.md, and the types of keywords in src/bide/keywords.py.

Run it after a change there: ``python docs/make_settings.py``. A test says when it was forgotten.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from bide.environment import FIELDS, flag, variable

PAGE = pathlib.Path(__file__).with_name("settings.md")
KEYWORDS = PAGE.parent.parent / "src" / "bide" / "keywords.py"

MODULE = '''\
"""The types of all settings as keywords of ``bide.run`` and ``bide.Server``, for type checkers.

Made by docs/make_settings.py from src/bide/settings.py: edit that.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TypedDict


class Keywords(TypedDict, total=False):
    """All settings, each of which may be given."""

'''

INTRODUCTION = """\
# Settings

<!-- Made by docs/make_settings.py from src/bide/settings.py: edit that. -->

A setting can be given in four places. The first of them that gives it counts:

1. The command line: `bide shop:app --queue-timeout 10`; or Python, as in
   `bide.run("shop:app", queue_timeout=10)` and `bide.Server(app, queue_timeout=10)`.
2. The environment: `BIDE_QUEUE_TIMEOUT=10`. A variable that is empty counts as not set.
3. A file, which the command line alone reads: `bide.toml` in the current directory, or else the
   table `[tool.bide]` of its `pyproject.toml`. `--config FILE`, or `BIDE_CONFIG`, names another.
4. The default.

```toml
# bide.toml
bind = ["127.0.0.1:8000", "unix:/run/shop.sock"]
threads = 8
queue-timeout = 10  # or queue_timeout
```

`bide --print-settings` prints all settings as such a file, each with where its value comes from.
`bide shop:app --check` imports the application, and looks at the addresses and files that the
settings name; it says all that is wrong, and ends with 0 or 1. An unknown name is an error, in the
file and among the variables `BIDE_…`.

Seconds may be fractions; sizes are bytes. Relative paths are from the current directory.
"""


def page() -> str:
    """Return the page's text."""
    groups: dict[str, list[str]] = {}
    for each in FIELDS.values():
        groups.setdefault(each.metadata["group"], []).append(_section(each))
    return "\n".join(
        [INTRODUCTION, *(f"## {name}\n\n" + "\n".join(each) for name, each in groups.items())]
    )


def _section(setting: dataclasses.Field[Any]) -> str:
    metadata = setting.metadata
    rows = [
        ("Command line", _options(setting)),
        ("Environment", ", ".join(f"`{each}`" for each in _variables(setting))),
        ("Python", f"`{setting.name}`"),
        ("Default", _default(setting.default)),
    ]
    if metadata["choices"]:
        rows.append(("Choices", ", ".join(f"`{each}`" for each in metadata["choices"])))
    if metadata["minimum"] is not None:
        rows.append(("At least", f"`{metadata['minimum']:g}`"))
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return f"### `{flag(setting.name)}`\n\n{metadata['help']}\n\n| | |\n|---|---|\n{table}"


def _variables(setting: dataclasses.Field[Any]) -> list[str]:
    return [each for each in (variable(setting.name), setting.metadata["also"]) if each]


def _options(setting: dataclasses.Field[Any]) -> str:
    long, short = flag(setting.name), setting.metadata["short"]
    if isinstance(setting.default, bool):
        return f"`{long}`, `--no-{long[2:]}`"
    value = _value(setting)
    return f"`{long} {value}`" + (f", `-{short} {value}`" if short else "")


def _value(setting: dataclasses.Field[Any]) -> str:
    # No "|" between choices: it would end the table's cell.
    return str(setting.metadata["metavar"] or f"{{{','.join(setting.metadata['choices'])}}}")


def _default(default: Any) -> str:
    if isinstance(default, tuple) and default:
        return ", ".join(f"`{each}`" for each in default)
    if isinstance(default, bool):
        return "on" if default else "off"
    return "none" if default in ("", ()) else f"`{default}`"


def keywords() -> str:
    """Return the text of the module with the types of keywords."""
    return MODULE + "".join(f"    {each.name}: {_type(each)}\n" for each in FIELDS.values())


def _type(setting: dataclasses.Field[Any]) -> str:
    one = "str | PathLike[str]" if setting.metadata["path"] else "str"
    if isinstance(setting.default, tuple):
        return f"{one} | Iterable[{one}]"
    return one if isinstance(setting.default, str) else str(setting.type)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    KEYWORDS.write_text(keywords(), encoding="utf-8")
