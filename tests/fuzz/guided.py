"""Runs one target under Atheris, which looks for inputs that reach what none has reached before.

``python -m tests.fuzz.guided TARGET [libFuzzer's options and folders]``; ``make fuzz`` calls it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tests.fuzz import corpus


def main(name: str, options: list[str]) -> None:
    """Fuzz, until libFuzzer ends the process."""
    # By name: only `make fuzz` needs it, and there is none for every platform.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["bide", "tests.fuzz"]):
        target = corpus.target(name)
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
