"""What is checked of a tag before a release, and what the workflow says of Pythons."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.failures import same
from tests.packaging.release import mistakes

PROJECT = Path(__file__).parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with the version 1.2.0 in all its places."""
    (tmp_path / "src" / "bide").mkdir(parents=True)
    (tmp_path / "src" / "bide" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.0] - 2027-01-31\n")
    return tmp_path


def test_a_tag_of_the_version_can_be_released(checkout: Path) -> None:
    """Where all places have it."""
    same(mistakes("v1.2.0", checkout), [])


def test_a_place_that_was_forgotten_is_named(checkout: Path) -> None:
    """Each has a line."""
    (checkout / "plugins" / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    for tag, count in (("v1.2.0", 2), ("v1.3.0", 3), ("1.2.0", 3)):
        found = mistakes(tag, checkout)
        same(len(found), count)
        assert any("plugins/pyproject.toml has the version 1.1.0" in each for each in found)


def test_this_tree_has_one_version() -> None:
    """Bide's and that of bide-twisted are released together."""
    plugin = tomllib.loads((PROJECT / "plugins" / "pyproject.toml").read_text())
    found = mistakes(f"v{plugin['project']['version']}")
    same([each for each in found if "CHANGELOG" not in each], [])


def test_the_workflow_tries_each_python_that_the_metadata_names() -> None:
    """And no other."""
    workflow = (PROJECT / ".github" / "workflows" / "release.yml").read_text()
    (listed,) = re.findall(r"python: \[(.*)\]", workflow)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)'", str(project["classifiers"]))
    same(re.findall(r"[\d.]+", listed), versions)
