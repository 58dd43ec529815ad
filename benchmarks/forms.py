"""Bide in each of its forms: a directory that holds the package, which servers import it from.

All forms run under one interpreter with the same installed libraries: nothing but Bide differs.
They are made in `build/bench`. The compiled one is kept until a source changes, for it takes long.
"""

from __future__ import annotations

import compileall
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CannotRunError
from .processes import ROOT

_BUILD = ROOT / "build" / "bench"
_SOURCES = ("src", "hatch_build.py", "pyproject.toml")
_MADE = "form.json"
_PIP_WHEEL = (
    *(sys.executable, "-m", "pip", "--disable-pip-version-check"),
    *("wheel", "--quiet", "--no-deps"),
)


@dataclass(frozen=True, slots=True)
class Form:
    """One form of Bide.

    Attributes:
        name: "compiled", "pure" or "before".
        packages: The directory from which a server imports `bide`.
        note: What it is, for the report.
    """

    name: str
    packages: Path
    note: str

    @property
    def server(self) -> str:
        """What the reports call a server of this form."""
        return f"bide-{self.name}"


def make_forms(
    wanted: tuple[str, ...], before: str | None, tell: Callable[[str], None]
) -> tuple[list[Form], str | None]:
    """Make the forms, the compiled one first; return them, and why that one is missing, if it is.

    `before` is a commit whose pure form is made, too. Raises `CannotRunError` where there is no
    form left, or no such commit.
    """
    forms = []
    missing = None
    if "compiled" in wanted:
        try:
            forms.append(_make_compiled(tell))
        except BuildError as error:
            missing = f"the compiled form is not available: {error}"
            tell(missing)
    if "pure" in wanted:
        forms.append(_make_pure())
    if not forms:
        raise CannotRunError(missing or "no form of Bide was asked for")
    if before is not None:
        forms.append(_make_before(before))
    for form in forms:
        # Else the first start would write what later ones read.
        compileall.compile_dir(form.packages, quiet=1)
    return forms, missing


class BuildError(Exception):
    """The compiled form cannot be built; `str()` of it is the reason, in one line."""


def _make_pure() -> Form:
    target = _clear("pure")
    shutil.copytree(
        ROOT / "src" / "bide", target / "bide", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    return Form("pure", target, "pure Python: this tree's sources")


def _make_before(commit: str) -> Form:
    archived = subprocess.run(
        ["git", "archive", "--format=zip", commit, "src/bide"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archived.returncode != 0:
        raise CannotRunError(f"no commit {commit!r}: {_last_line(archived.stderr.decode())}")
    target = _clear("before")
    with zipfile.ZipFile(io.BytesIO(archived.stdout)) as archive:
        archive.extractall(target)
    return Form("before", target / "src", f"pure Python: the sources of {commit}")


def _make_compiled(tell: Callable[[str], None]) -> Form:
    target = _BUILD / "compiled"
    key = _hash_sources()
    made = _read_made(target)
    if made.get("sources") != key:
        tell("building the compiled form; it is kept until a source changes")
        target = _clear("compiled")
        began, cpu = time.monotonic(), _cpu_of_children()
        _build_wheel(target)
        made = {
            "sources": key,
            "seconds": time.monotonic() - began,
            "cpu": _cpu_of_children() - cpu,
        }
        version = _ask_version(target)
        if "(compiled)" not in version:
            raise BuildError(f"it was built, and `bide --version` says: {version}")
        (target / _MADE).write_text(json.dumps(made))
    libraries = list(target.rglob("*.so"))
    size = sum(library.stat().st_size for library in libraries)
    return Form(
        "compiled",
        target,
        f"{len(libraries)} compiled modules of {size / 1e6:.1f} MB in all,"
        f" built in {made['seconds']:.0f} s, of which {made['cpu']:.0f} s of CPU",
    )


def _ask_version(target: Path) -> str:
    # Libraries that cannot be imported are not used, and Bide runs without them.
    asked = subprocess.run(
        [sys.executable, "-m", "bide", "--version"],
        env={**os.environ, "PYTHONPATH": str(target), "BIDE_PURE": ""},
        cwd=target,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return _last_line(asked.stdout)


def _cpu_of_children() -> float:
    # The compilers' too: pip waits for them.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _build_wheel(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-wheel-") as directory:
        built = subprocess.run(
            [*_PIP_WHEEL, "--wheel-dir", directory, str(ROOT)],
            env={**os.environ, "BIDE_COMPILE": "1", "BIDE_PURE": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise BuildError(_find_reason(built.stdout))
        with zipfile.ZipFile(next(Path(directory).glob("bide-*.whl"))) as wheel:
            wheel.extractall(target)


def _find_reason(output: str) -> str:
    # The hook's own line, if it has spoken: pip's last one says only that a subprocess failed.
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    own = [line for line in lines if "BIDE_COMPILE" in line]
    return (own or lines or ["pip says nothing"])[-1]


def _hash_sources() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for name in _SOURCES:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*.p*"))
        for file in files:
            if file.suffix in (".py", ".pyx", ".pxd", ".toml"):
                digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _read_made(target: Path) -> dict[str, Any]:
    try:
        made: dict[str, Any] = json.loads((target / _MADE).read_text())
    except FileNotFoundError:
        return {}
    return made


def _clear(name: str) -> Path:
    target = _BUILD / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "nothing"
