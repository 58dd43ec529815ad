"""Fuzzes each target for a time, and keeps what is new: ``python -m tests.fuzz --seconds 60``."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target for so many seconds; false when an input broke it, which is printed."""
    with tempfile.TemporaryDirectory() as folder:
        new, old, crashes = Path(folder, "new"), Path(folder, "old"), Path(folder, "crashes")
        for each in (new, old, crashes):
            each.mkdir()
        for number, (_, data) in enumerate([*corpus.seeds(name), *corpus.kept(name)]):
            (old / str(number)).write_bytes(data)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={corpus.TARGETS[name]}",
            f"-artifact_prefix={crashes}/",
            "-timeout=10",  # seconds for one input: a hang
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            "-verbosity=1",
        ]
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *options, str(new), str(old)]
        status = subprocess.run(command, cwd=corpus.HERE.parent.parent, check=False).returncode
        broken = [path.read_bytes() for path in crashes.iterdir()]
        if broken:
            corpus.write(corpus.crashes(name), [*corpus.read(corpus.crashes(name)), *broken])
        if status or broken:
            print(f"\n{name} is broken by: {' '.join(map(repr, broken)) or 'see above'}")
            return False
        found = [path.read_bytes() for path in new.iterdir()]
        print(f"\n{name}: {corpus.keep(name, found)} inputs are kept")
        return True


def main() -> None:
    """Fuzz the targets that are named, or all of them; the first crash ends it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(corpus.TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    asked = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("it needs Atheris, which is there for CPython 3.11 to 3.13 on Linux")
    for name in asked.targets or corpus.TARGETS:
        if name not in corpus.TARGETS:
            parser.error(f"{name} is none of {', '.join(corpus.TARGETS)}")
        if not fuzz(name, asked.seconds):
            sys.exit(1)


if __name__ == "__main__":
    main()
