"""What it takes to import Bide and to run `bide --help`, beside peers.

`python -m benchmarks.importing` measures it. Each command is a process of its own, again and again,
turn by turn. CPU time is counted, which others on the machine change little. The median is told
with the least and the most.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from .machine import describe_machine

RESULTS: Final = Path(__file__).parent / "results" / "importing.md"

IMPORTS: Final = {
    "nothing: the interpreter alone": "pass",
    "Bide: `import bide`": "import bide",
    "Bide: `from bide import wait`": "from bide import wait",
    "Bide: `from bide import run`, the server": "from bide import run",
    "waitress: `import waitress`": "import waitress",
    "gunicorn: `import gunicorn.app.wsgiapp`": "import gunicorn.app.wsgiapp",
    "uvicorn: `import uvicorn`": "import uvicorn",
    "granian: `import granian`": "import granian",
    "`import asyncio`, for comparison": "import asyncio",
}
"""What is imported, and how."""
HELPS: Final = {
    "`waitress-serve --help`": "waitress",
    "`bide --help`": "bide",
    "`gunicorn --help`": "gunicorn",
    "`granian --help`": "granian",
    "`uvicorn --help`": "uvicorn",
}
"""The modules that are run with `--help`."""

DISTRIBUTIONS: Final = ("bide", "waitress", "gunicorn", "uvicorn", "granian", "click")
"""Those whose versions the page names."""


def commands() -> dict[str, list[str]]:
    """Return what is measured, and how each is run."""
    python = sys.executable
    return {
        **{name: [python, "-c", code] for name, code in IMPORTS.items()},
        **{name: [python, "-m", module, "--help"] for name, module in HELPS.items()},
    }


def cpu_of(command: Sequence[str]) -> float:
    """Run a command to its end; return the CPU time that it took, in milliseconds.

    Raises:
        subprocess.CalledProcessError: it has failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(
    tried: Mapping[str, Sequence[str]],
    rounds: int,
    cpu: Callable[[Sequence[str]], float] = cpu_of,
) -> dict[str, list[float]]:
    """Run each command once a round, turn by turn; return the milliseconds of each.

    A round before the first brings all files into the kernel's cache, and is not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in tried}
    for number in range(rounds + 1):
        for name, command in tried.items():
            taken = cpu(command)
            if number:
                found[name].append(taken)
    return found


def written(found: Mapping[str, Sequence[float]], facts: Mapping[str, str], rounds: int) -> str:
    """Return the page."""
    lines = [
        "# Importing, and `--help`",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        f"- rounds: {rounds}, turn by turn, each command in a process of its own",
        "",
        "CPU time of the whole process in milliseconds, the interpreter's own start included.",
        "The median of the rounds, with the least and the most. Less is better.",
    ]
    for heading, names in (("Importing", IMPORTS), ("The command's help", HELPS)):
        lines += ["", f"## {heading}", "", "| what | CPU ms |", "| --- | --- |"]
        rows = sorted((statistics.median(found[name]), name) for name in names)
        lines += [
            f"| {name} | {middle:.0f} ({min(found[name]):.0f}–{max(found[name]):.0f}) |"
            for middle, name in rows
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        **describe_machine(),
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in DISTRIBUTIONS),
        "load average": " ".join(f"{each:.2f}" for each in os.getloadavg()),
    }
    text = written(measure(commands(), chosen.rounds), facts, chosen.rounds)
    chosen.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
