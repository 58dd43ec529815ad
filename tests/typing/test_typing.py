"""Bide's types, as two type checkers see them in other people's code.

They find Bide as an installed package, by its ``py.typed``. ``accepted.py`` and ``refused.py`` say
what they must see; every Python block of the README and the docs, and every example, must pass.
"""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.docs.snippets import PAGES, ROOT, Written, modules_of
from tests.failures import same

UNTYPED: Final = re.compile(r"^ *(?:from|import) (?:bottle|django)\b", re.MULTILINE)
"""What has no types: pyright guesses them from its source, and is often wrong."""

UNSEEN: Final = {"docs/engines.md": "    return bide.wait(Job(page))\n"}
"""Lines that must be errors: a type checker cannot see what is registered, as the page says."""

LONG: Final = 280
"""Seconds for a type checker on a slow machine."""

MYPY: Final = [
    "--config-file=",
    "--check-untyped-defs",
    "--warn-unused-ignores",
    "--ignore-missing-imports",  # of libraries without types
    "--disable-error-code=var-annotated",  # pages have few annotations
    "--disable-error-code=str-bytes-safe",
]
PYRIGHT: Final = {
    "reportUnnecessaryTypeIgnoreComment": "error",
    "reportMissingImports": "none",  # of engines, which the tests do without
    "reportMissingModuleSource": "none",
    "reportIncompatibleVariableOverride": "none",  # the `server` of http.server's handlers
}


def name_in(page: str, name: str) -> str:
    """Return the name of a page's module among those of all pages."""
    return f"{re.sub(r'[^a-z0-9]', '_', page.removesuffix('.md').lower())}_{name}"


def text_of(written: Written, names: list[str]) -> str:
    """Return a module's source, with the names that all modules have here."""
    text, page = written.text, written.page
    for name in names:
        new = name_in(page, name)
        text = re.sub(rf"^( *from ){name} import", rf"\1{new} import", text, flags=re.MULTILINE)
        text = re.sub(rf"^( *import ){name}$", rf"\1{new} as {name}", text, flags=re.MULTILINE)
    unseen = UNSEEN.get(page)
    if unseen is not None:
        assert unseen in text
        text = text.replace(unseen, f"{unseen.rstrip()}  # type: ignore\n")
    return text


def write_all(place: Path) -> None:
    """Write the modules of all pages, and what says what must be seen, into a directory."""
    for page in PAGES:
        modules = modules_of(page)
        for written in modules:
            text = text_of(written, [each.name for each in modules])
            (place / f"{name_in(page, written.name)}.py").write_text(text, encoding="utf-8")
    assert len(list(place.glob("*.py"))) > 50
    for name in ("accepted.py", "refused.py"):
        shutil.copy(Path(__file__).parent / name, place)


def run(*command: str, cwd: Path) -> None:
    """Run a type checker as a program; it must find nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True, timeout=LONG
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_mypy_sees_what_is_right_and_what_is_wrong(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """In the samples and on every page; `make lint` runs it on the examples."""
    pytest.importorskip("mypy", reason="`make setup` has the type checkers")
    write_all(tmp_path)
    cache = pytestconfig.rootpath / ".mypy_cache" / "typing"
    run("mypy", *MYPY, f"--cache-dir={cache}", ".", cwd=tmp_path)


@pytest.mark.timeout(300)
def test_pyright_sees_what_is_right_and_what_is_wrong(tmp_path: Path) -> None:
    """In the samples, on every page and in every example but Django's and Bottle's."""
    pytest.importorskip("pyright", reason="`make setup` has the type checkers")
    write_all(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    untyped = [
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*.py")
        if UNTYPED.search(path.read_text(encoding="utf-8"))
    ]
    assert 0 < len(untyped) < 20
    config = json.dumps(PYRIGHT | {"ignore": untyped})
    (tmp_path / "pyrightconfig.json").write_text(config, encoding="utf-8")
    run("pyright", "--project", ".", "--pythonpath", sys.executable, cwd=tmp_path)


def test_a_wheel_says_that_it_has_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``py.typed`` (PEP 561), and with the modules that hold them."""
    monkeypatch.setenv("BIDE_PURE", "1")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    wanted = {"bide/py.typed", "bide/typing.py", "bide/keywords.py"}
    with zipfile.ZipFile(wheel) as archive:
        same(wanted - set(archive.namelist()), set())
