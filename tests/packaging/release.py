"""Whether a tag is that of a version that can be released: `python release.py v0.1.0`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent


def mistakes(tag: str, project: Path = PROJECT) -> list[str]:
    """Return what is wrong, a line each.

    Args:
        tag: as pushed.
        project: the checkout.
    """
    found = []
    source = (project / "src" / "bide" / "__init__.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)
    if version != [tag.removeprefix("v")] or not tag.startswith("v"):
        found.append(f"the tag {tag} is not that of the version in src/bide/__init__.py: {version}")
    plugin = tomllib.loads((project / "plugins" / "pyproject.toml").read_text(encoding="utf-8"))
    if [plugin["project"]["version"]] != version:
        found.append(f"plugins/pyproject.toml has the version {plugin['project']['version']}")
    changes = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    number = re.escape(tag.removeprefix("v"))
    if not re.search(rf"^## \[{number}\] - \d{{4}}-\d\d-\d\d$", changes, flags=re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading '## [{tag.removeprefix('v')}] - YYYY-MM-DD'")
    return found


if __name__ == "__main__":
    wrong = mistakes(sys.argv[1])
    print("\n".join(wrong) or f"{sys.argv[1]} can be released")
    sys.exit(bool(wrong))
