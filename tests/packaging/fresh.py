"""Installs what a release uploads in fresh environments, and tries it: `make test-wheels`.

For each Python that is given: the pure wheel; the source distribution without a C compiler; the
compiled wheel; Twisted beside it, with the command of `twist`; and every extra, as far as pip finds
what it asks for. Needs a package index. It is not run by pytest, because it takes minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
ANSWERS = PROJECT / "tests" / "packaging" / "answers.py"
PATIENCE = 60.0
"""Seconds in which a server must answer."""


class Environment:
    """A virtual environment of its own, with nothing in it.

    Args:
        python: the interpreter.
        place: where it is made.
    """

    def __init__(self, python: str, place: Path) -> None:
        subprocess.run([python, "-m", "venv", str(place)], check=True)
        self.bin = place / "bin"
        self.place = place

    def run(self, *words: str, **variables: str) -> str:
        """Run one of its programs outside the checkout; return what it prints.

        Raises:
            SystemExit: the program has failed; its output is in the message.
        """
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=self.place,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"failed: {' '.join(words)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def install(self, *what: str | Path, **variables: str) -> None:
        """Install distributions, and check that their dependencies agree."""
        options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        self.run("pip", "install", *options, *map(str, what), **variables)
        self.run("pip", "check")

    def lacks(self, module: str) -> None:
        """Check that a module cannot be imported."""
        script = f"import importlib.util, sys; sys.exit(bool(importlib.util.find_spec('{module}')))"
        self.run("python", "-c", script)


def build(environment: Environment, into: Path) -> tuple[Path, Path, Path]:
    """Build what is uploaded; return the source distribution, the pure wheel and the plugin's."""
    environment.install("build", "twine")
    # The wheel is built from the source distribution, as by those who have that alone.
    environment.run("python", "-m", "build", "-o", str(into), str(PROJECT), BIDE_PURE="1")
    environment.run("python", "-m", "build", "-o", str(into), str(PROJECT / "plugins"))
    environment.run("twine", "check", "--strict", *map(str, sorted(into.iterdir())))
    return found(into)


def found(into: Path) -> tuple[Path, Path, Path]:
    """Return the source distribution, the pure wheel and the plugin's, from where they are."""
    (sources,) = into.glob("bide-*.tar.gz")
    (wheel,) = into.glob("bide-*-py3-none-any.whl")
    (plugin,) = into.glob("bide_twisted-*.whl")
    return sources, wheel, plugin


def try_form(python: str, place: Path, what: Path, form: str, **variables: str) -> None:
    """Install one distribution, and have it serve."""
    environment = Environment(python, place)
    environment.install(what, **variables)
    environment.run("python", str(ANSWERS), form)
    assert form in environment.run("bide", "--version")
    environment.run("bide", "--help")
    environment.lacks("twisted")
    print(f"  {what.name}: {form}; it answers", flush=True)


def try_extras(python: str, place: Path, wheel: Path, plugin: Path) -> None:
    """Have pip look for what each extra for users asks for."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    ours = {
        "bench",
        "check",
        "coverage",
        "demo",
        "docs",
        "engines",
        "fuzz",
        "hosts",
        "soak",
        "test",
    }
    environment = Environment(python, place)
    for extra in sorted(set(project["optional-dependencies"]) - ours):
        what = [f"bide[{extra}] @ {wheel.as_uri()}", f"bide-twisted @ {plugin.as_uri()}"]
        # With bide-twisted at hand, which is on an index only once it is released.
        words = what if extra == "twisted" else what[:1]
        environment.run("pip", "install", "--quiet", "--dry-run", *words)
    print("  every extra can be installed", flush=True)


def try_twist(python: str, place: Path, wheel: Path, plugin: Path) -> None:
    """Install Bide for Twisted, and serve by its command."""
    environment = Environment(python, place)
    environment.install(f"bide[twisted] @ {wheel.as_uri()}", f"bide-twisted @ {plugin.as_uri()}")
    (place / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'answered']\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["bide", "--port", f"tcp:{port}:interface=127.0.0.1", "app:app"]
    command = [str(environment.bin / "twist"), *words]
    program = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
    try:
        answer = fetch(f"http://127.0.0.1:{port}/")
    finally:
        program.terminate()
        program.wait(PATIENCE)
    assert answer == b"answered", answer
    print("  twist bide: it answers", flush=True)


def fetch(url: str) -> bytes:
    """Return what a server answers, once it listens."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def try_python(python: str, place: Path, built: tuple[Path, Path, Path], compiled: bool) -> None:
    """Try all forms with one Python."""
    sources, wheel, plugin = built
    version = subprocess.run([python, "-VV"], check=True, capture_output=True, text=True).stdout
    print(f"{python}: {re.split(r'[(]', version)[0].strip()}", flush=True)
    try_form(python, place / "pure", wheel, "pure Python")
    nowhere = "/nonexistent/cc"
    try_form(python, place / "sources", sources, "pure Python", CC=nowhere, LDSHARED=nowhere)
    if compiled:
        try_form(python, place / "compiled", sources, "compiled", BIDE_COMPILE="1")
    try_twist(python, place / "twisted", wheel, plugin)
    try_extras(python, place / "extras", wheel, plugin)


def main() -> None:
    """Try each Python that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", default=[sys.executable], metavar="PYTHON")
    parser.add_argument("--no-compiled", action="store_true", help="leave out the compiled form")
    parser.add_argument("--built", metavar="FOLDER", help="try what is there, and build nothing")
    chosen = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bide-fresh-"))
    try:
        (place / "dist").mkdir()
        if chosen.built:
            built = found(Path(chosen.built).resolve())
        else:
            built = build(Environment(chosen.pythons[0], place / "build"), place / "dist")
        for number, python in enumerate(chosen.pythons):
            (place / str(number)).mkdir()
            try_python(python, place / str(number), built, not chosen.no_compiled)
            shutil.rmtree(place / str(number))
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
