"""The forms of Bide that the benchmarks make: what is in each, and the word of a missing one."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks import forms
from benchmarks.errors import CannotRunError
from benchmarks.forms import Form, make_forms


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with a package of one module, from which forms are made; no pip is run."""
    package = tmp_path / "src" / "bide"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "fast.cpython-311.so").write_bytes(b"built in place")
    monkeypatch.setattr(forms, "ROOT", tmp_path)
    monkeypatch.setattr(forms, "_BUILD", tmp_path / "build")
    return tmp_path


class Pip:
    """What stands for pip: it makes a wheel of these members, or fails with this output."""

    def __init__(self, members: dict[str, bytes], output: str = "", code: int = 0) -> None:
        self.members = members
        self.output = output
        self.code = code
        self.runs = 0
        self.version = "bide 1 (compiled)"

    def run(self, argv: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        """Stand for `subprocess.run`."""
        if "--version" in argv:
            assert settings["env"]["PYTHONPATH"].endswith("compiled")
            return subprocess.CompletedProcess(argv, 0, f"{self.version}\n")
        self.runs += 1
        assert settings["env"]["BIDE_COMPILE"] == "1"
        if not self.code:
            wheel = Path(argv[argv.index("--wheel-dir") + 1], "bide-1-cp311-linux.whl")
            with zipfile.ZipFile(wheel, "w") as archive:
                for name, data in self.members.items():
                    archive.writestr(name, data)
        return subprocess.CompletedProcess(argv, self.code, self.output)


def list_files(form: Form) -> list[str]:
    return [path.name for path in (form.packages / "bide").iterdir() if path.is_file()]


COMPILED = {"bide/__init__.py": b"", "bide/fast.so": bytes(2_000_000)}


def test_the_pure_form_has_no_library_even_when_the_tree_is_compiled(tree: Path) -> None:
    """A library that was built in place would be imported before its source."""
    (form,), missing = make_forms(("pure",), None, print)
    assert missing is None
    assert list_files(form) == ["__init__.py"]


def test_the_compiled_form_is_built_again_only_when_a_source_has_changed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a minute and more."""
    pip = Pip(COMPILED)
    monkeypatch.setattr(subprocess, "run", pip.run)
    for runs in (1, 1):
        (compiled, pure), missing = make_forms(("compiled", "pure"), None, print)
        assert (pip.runs, missing) == (runs, None)
    assert (compiled.name, pure.name) == ("compiled", "pure")
    assert (compiled.packages / "bide" / "fast.so").stat().st_size == 2_000_000
    assert compiled.note.startswith("1 compiled modules of 2.0 MB in all, built in ")
    (tree / "src" / "bide" / "__init__.py").write_text("changed = True\n")
    make_forms(("compiled",), None, print)
    assert pip.runs == 2


def test_without_a_compiled_form_one_line_says_so_and_the_pure_one_is_there(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that fails, or whose libraries are not used; the hook's own line, if it spoke."""
    unused = Pip(COMPILED)
    unused.version = "bide 1 (pure Python)"
    abort = "BIDE_COMPILE=1 asks for the compiled form, and it cannot be built: no gcc"
    failed = "error: subprocess-exited-with-error\n"
    for pip, reason in [
        (Pip({}, f"{failed}  {abort}\n{failed}", 1), abort),
        (Pip({}, failed, 1), failed.strip()),
        (unused, "it was built, and `bide --version` says: bide 1 (pure Python)"),
    ]:
        monkeypatch.setattr(subprocess, "run", pip.run)
        told: list[str] = []
        (pure,), missing = make_forms(("compiled", "pure"), None, told.append)
        assert pure.name == "pure"
        assert missing == f"the compiled form is not available: {reason}"
        assert told[-1] == missing
        with pytest.raises(CannotRunError, match="not available"):
            make_forms(("compiled",), None, print)


def test_the_form_before_is_the_one_of_a_commit(tree: Path) -> None:
    """And a commit that does not exist is one line."""
    git = ("git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tree / "src" / "bide" / "fast.cpython-311.so").unlink()
    subprocess.run([*git, "add", "src"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "one"], check=True)
    (tree / "src" / "bide" / "later.py").write_text("")
    (_, before), _ = make_forms(("pure",), "HEAD", print)
    assert before.server == "bide-before"
    assert list_files(before) == ["__init__.py"]
    with pytest.raises(CannotRunError, match="no commit 'nothing'"):
        make_forms(("pure",), "nothing", print)
