"""What is uploaded: the names in the wheels and in the source distribution, and their metadata."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.failures import Failures, same

PROJECT = Path(__file__).parent.parent.parent
INSTALLING = (PROJECT / "docs" / "installing.md").read_text()


def declared(place: Path) -> dict[str, Any]:
    """Return the table ``project`` of a ``pyproject.toml``."""
    project: dict[str, Any] = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    return project


def built(place: Path, target: str, into: Path) -> Path:
    """Build a distribution with the backend that is installed; return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    subprocess.run(command, cwd=place, check=True, capture_output=True, env={"BIDE_PURE": "1"})
    (file,) = into.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Bide's pure wheel."""
    return built(PROJECT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return Bide's source distribution."""
    return built(PROJECT, "sdist", tmp_path_factory.mktemp("sdist"))


def metadata(place: Path) -> Mapping[str, Any]:
    """Return what PyPI is told."""
    command = [sys.executable, "-m", "hatchling", "metadata"]
    told = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    """A folder ``twisted`` beside it would make ``import twisted`` succeed without Twisted."""
    names = zipfile.ZipFile(wheel).namelist()
    same({name.partition("/")[0] for name in names}, {"bide", f"{wheel.name[:10]}.dist-info"})
    assert "bide/py.typed" in names


def test_the_command_of_twist_is_a_distribution_of_its_own(tmp_path: Path) -> None:
    """It has one module, and brings Twisted; `bide[twisted]` brings it."""
    place = PROJECT / "plugins"
    names = zipfile.ZipFile(built(place, "wheel", tmp_path)).namelist()
    modules = [name for name in names if ".dist-info/" not in name]
    same(modules, ["twisted/plugins/bide_plugin.py"])
    same(declared(place)["dependencies"], ["bide>=0.1", "twisted>=24.7"])
    assert "bide-twisted>=0.1" in declared(PROJECT)["optional-dependencies"]["twisted"]
    assert declared(place)["requires-python"] == declared(PROJECT)["requires-python"]


def test_the_source_distribution_has_what_it_says_and_nothing_else(sources: Path) -> None:
    """Each pattern is of the root: none takes a folder of that name from anywhere."""
    chosen = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    patterns = chosen["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    with tarfile.open(sources) as file:
        names = [name.partition("/")[2] for name in file.getnames()]
    added = {"PKG-INFO", "pyproject.toml", ".gitignore"}
    same({name.partition("/")[0] for name in names} - added, set(patterns))
    unwanted = re.compile(r"(^|/)(\.venv|__pycache__|\.git/|dist/)|\.(so|c|pyc)$|dropin\.cache")
    same([name for name in names if unwanted.search(name)], [])
    for name in ("hatch_build.py", "src/bide/_native.pyx", "plugins/pyproject.toml"):
        assert name in names


def test_the_long_description_has_no_relative_link() -> None:
    """On PyPI a relative one leads nowhere: each is made absolute, of the version's own tag."""
    for place in (PROJECT, PROJECT / "plugins"):
        told = metadata(place)
        text = told["readme"]["text"] if isinstance(told["readme"], dict) else told["readme"]
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        links = re.findall(r"\]\(\s*<?([^)\s>]+)", prose)
        links += re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, flags=re.MULTILINE)
        links += re.findall(r"\b(?:href|src|srcset)\s*=\s*[\"']([^\"']+)", prose)
        assert links
        with Failures() as failures:
            for link in links:
                with failures.of(link):
                    assert re.match(r"https://|#", link)
        assert "$HFPR" not in text


def test_what_the_long_description_links_to_is_in_the_tree() -> None:
    """Of the links that were made absolute: a file that was moved is noticed."""
    told = metadata(PROJECT)
    text = told["readme"]["text"] if isinstance(told["readme"], dict) else told["readme"]
    source, version = told["urls"]["Source"], told["version"]
    raw = source.replace("//github.com", "//raw.githubusercontent.com")
    found = re.findall(rf"(?:{source}/blob|{raw})/v{re.escape(version)}/([^)#\s]+)", text)
    assert len(found) > 10
    with Failures() as failures:
        for path in found:
            with failures.of(path):
                assert (PROJECT / path).exists()


def test_the_metadata_names_the_places_and_the_versions() -> None:
    """The classifiers say the Pythons for which wheels are built, and the systems of the page."""
    told = metadata(PROJECT)
    same(set(told["urls"]), {"Documentation", "Source", "Issues", "Changelog"})
    classifiers = told["classifiers"]
    same(sorted(set(classifiers)), sorted(classifiers))
    versions = [
        each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)
    ]
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    tags = table["tool"]["cibuildwheel"]["build"].split()
    same([f"cp{each.replace('.', '')}-*" for each in versions], tags)
    same(told["requires-python"], f">={versions[0]}")
    assert not [each for each in classifiers if "Windows" in each]


# Extras -----------------------------------------------------------------------------------------


def extras() -> dict[str, list[str]]:
    """Return the extras and what each installs."""
    found: dict[str, list[str]] = declared(PROJECT)["optional-dependencies"]
    return found


def listed(heading: str) -> set[str]:
    """Return the names in the first column of the table below a heading of docs/installing.md."""
    section = INSTALLING.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([a-z0-9]+)` \|", section, flags=re.MULTILINE))


def test_every_extra_is_on_the_page() -> None:
    """Those for users, and those for working on Bide; and the page has no others."""
    users, ours = listed("Extras"), listed("Extras for working on Bide")
    same(users | ours, set(extras()))
    assert not users & ours


def test_every_extra_that_is_named_exists() -> None:
    """In the documentation, in messages of the source, and in the extras themselves."""
    pages = [PROJECT / "README.md", *PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
    pages += [PROJECT / "plugins" / "README.md", PROJECT / "pyproject.toml", PROJECT / "Makefile"]
    pages += [*(PROJECT / "src").rglob("*.py"), *(PROJECT / "examples").rglob("*.*")]
    with Failures() as failures:
        for page in pages:
            if page.suffix not in (".md", ".py", ".toml", "") or not page.is_file():
                continue
            for names in re.findall(r"\bbide\[([a-z0-9,]+)\]", page.read_text()):
                with failures.of(f"{page.relative_to(PROJECT)}: bide[{names}]"):
                    assert set(names.split(",")) <= set(extras())
