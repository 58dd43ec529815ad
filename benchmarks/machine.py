"""Where a run took place, and with what: enough to tell two runs apart."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Final

from .processes import ROOT

# What the servers run the applications with.
_LIBRARIES = ("flask", "werkzeug", "django")

NOT_OPTIMISED: Final = (
    "**not known to be optimised: built without --enable-optimizations. Take no figures from it.**"
)
"""What the report says of an interpreter on which figures mean little."""


def describe_machine() -> dict[str, str]:
    """Return the machine, the kernel and the interpreter, each as a short text by its name."""
    return {
        "cpu": _read_first("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine(),
        "cores": f"{os.cpu_count()}, of which {len(os.sched_getaffinity(0))} usable",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2**20} MB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python's build": describe_build(),
        "commit": _read_commit(),
    }


def find_optimisation() -> str | None:
    """Return how this interpreter was built with profile-guided optimisation, or `None`.

    `None` also where it cannot be told. An interpreter without it runs Python code 10 to 30 %
    slower, and so flatters what is compiled.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "--enable-optimizations" in arguments:
        return "--enable-optimizations"
    # Debian and Ubuntu configure without that option, and then run `make profile-opt`.
    if sys.base_prefix == "/usr" and Path("/etc/debian_version").exists():
        return "the distribution's, which is built by `make profile-opt`"
    return None


def describe_build() -> str:
    """Return whether this interpreter was built with profile-guided optimisation."""
    found = find_optimisation()
    return NOT_OPTIMISED if found is None else f"optimised ({found})"


def describe_libraries() -> dict[str, str]:
    """Return the version of each library under the applications, or that it is not installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _read_first(path: str, pattern: str) -> str | None:
    match = re.search(pattern, Path(path).read_text())
    return match[1].strip() if match else None


def _read_commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "unknown: no git"
    return described.stdout.strip() or "unknown: not a git checkout"
