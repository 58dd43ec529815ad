"""The fenced blocks of the README and the docs, and the texts in Bide's source."""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bide.applications.loading import DEFAULT_NAMES

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*.md")
        if path.name != "settings.md"  # made from the settings, and compared with them
    ),
]

SECONDS = 'SECONDS = {"Lima": 3, "Oslo": 1, "Rome": 2}'
SOONER = 'SECONDS = {"Lima": 0.03, "Oslo": 0.01, "Rome": 0.02}'
CHANGED: Final = {
    "docs/guide.md:events": ("HEARTBEAT = 15", "HEARTBEAT = 0.05"),
    "docs/tutorial.md:blocking": (SECONDS, SOONER),
    "docs/tutorial.md:waiting": (SECONDS, SOONER),
    "docs/tutorial.md:together": (SECONDS, SOONER),
    # Far apart, for their order is seen.
    "docs/tutorial.md:streaming": (SECONDS, 'SECONDS = {"Lima": 2, "Oslo": 0, "Rome": 0.1}'),
    "docs/tutorial.md:live": ("PAUSE = 1", "PAUSE = 0.05"),
}
"""What is changed in a module, for the test to see the same sooner."""


@dataclass
class Snippet:
    """A fenced block.

    Attributes:
        line: where it begins.
        words: what stands behind the fence.
    """

    page: str
    line: int
    words: list[str]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def language(self) -> str:
        """The first word."""
        return self.words[0] if self.words else ""


@dataclass
class Written:
    """A module of a page: the text of its snippets."""

    page: str
    name: str
    parts: list[Snippet] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.page}:{self.name}"

    @property
    def text(self) -> str:
        """Its source."""
        return "\n\n".join(part.text for part in self.parts)

    @property
    def tests(self) -> bool:
        """Whether pytest runs it."""
        return self.name == "conftest" or self.name.startswith("test_")

    @property
    def serves(self) -> bool:
        """Whether it has an application, and does not serve it itself."""
        names = {
            name.id
            for node in ast.parse(self.text).body
            if isinstance(node, ast.Assign)
            for name in node.targets
            if isinstance(name, ast.Name)
        } | {
            node.name
            for node in ast.parse(self.text).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        return bool(names & set(DEFAULT_NAMES)) and "asyncio.run(" not in self.text


def text_of(page: str) -> str:
    """Read a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """Read a page without its fenced blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", text_of(page), flags=re.MULTILINE)


def snippets_of(page: str) -> list[Snippet]:
    """Read a page's fenced blocks."""
    text = text_of(page)
    found = []
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        found.append(Snippet(page, line, match[1].split(), match[2]))
    assert text.count("```") == 2 * len(found), f"{page}: a fence is not closed, or stands within"
    return found


def modules_of(page: str) -> list[Written]:
    """Put a page's Python snippets together: those without a name go on with the one before."""
    modules: list[Written] = []
    for snippet in snippets_of(page):
        if snippet.language != "python":
            continue
        named = re.match(r"# (\w+)\.py\n", snippet.text)
        if named:
            modules.append(Written(page, named[1]))
        assert modules, f"{snippet} belongs to no module"
        modules[-1].parts.append(snippet)
    return modules


def write(module: Written, directory: Path, upstream_url: str = "") -> None:
    """Write a module's file."""
    text = module.text.replace("http://upstream.example", upstream_url or "http://127.0.0.1:9")
    if str(module) in CHANGED:
        old, new = CHANGED[str(module)]
        assert old in text
        text = text.replace(old, new)
    (directory / f"{module.name}.py").write_text(text, encoding="utf-8")


@functools.cache
def texts_of_the_source() -> frozenset[str]:
    """Return every text of Bide's source but docstrings; what is put in at run time is ``…``."""
    return frozenset(_texts())


def _texts() -> Iterator[str]:
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            text = ""
            if isinstance(node, ast.JoinedStr):
                for part in node.values:
                    text += str(part.value) if isinstance(part, ast.Constant) else "…"
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                value = node.value
                if isinstance(value, bytes):
                    value = value.decode("latin-1")
                if isinstance(value, str):
                    text = value
            if text:
                yield re.sub(r"%(?:\.1f|[sd])", "…", text)
