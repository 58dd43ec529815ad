"""``BIDE_PURE=1`` runs the sources, though what was compiled from them stands beside them."""

import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bide.sources import SourceFinder
from tests.failures import same

SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


def test_the_source_is_found_where_there_is_a_compiled_module_too(tmp_path: Path) -> None:
    """Python by itself takes the other."""
    (tmp_path / "reading.py").touch()
    (tmp_path / f"reading{SUFFIX}").touch()
    found = SourceFinder().find_spec("bide.reading", [str(tmp_path)])
    assert found is not None
    same(found.origin, str(tmp_path / "reading.py"))


def test_a_module_without_a_source_is_not_found(tmp_path: Path) -> None:
    """As where it was not compiled: what imports it has a twin of it."""
    (tmp_path / f"_quick{SUFFIX}").touch()
    with pytest.raises(ModuleNotFoundError, match=r"bide\._quick has no source"):
        SourceFinder().find_spec("bide._quick", [str(tmp_path)])


def test_another_package_is_left_alone(tmp_path: Path) -> None:
    """Its compiled modules are its own affair."""
    (tmp_path / f"reading{SUFFIX}").touch()
    assert SourceFinder().find_spec("theirs.reading", [str(tmp_path)]) is None


def test_every_module_runs_from_its_source_when_asked() -> None:
    """Whichever form is installed; run by `make test-compiled`, too, where most are compiled."""
    program = """if True:
        import sys
        import bide.cli, bide.serving.server, bide.protocols.http1.pipeline
        files = [m.__file__ for n, m in sys.modules.items() if n.startswith("bide.")]
        print(len(files) > 50, {file.rpartition(".")[2] for file in files})
    """
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "BIDE_PURE": "1"},
        capture_output=True,
        text=True,
    )
    same((run.stdout, run.stderr), ("True {'py'}\n", ""))
