"""Real sockets, real processes, real signals."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.processes import PROGRAM, Program

Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give what starts ``bide ARGUMENTS`` in the test's directory; it is ended with the test."""
    programs: list[Program] = []

    def starting(
        *arguments: str, program: list[str] | None = None, directory: Path | None = None, **env: str
    ) -> Program:
        command = PROGRAM if program is None else program
        programs.append(Program([*command, *arguments], directory or tmp_path, **env))
        return programs[-1]

    yield starting
    for each in programs:
        each.close()
