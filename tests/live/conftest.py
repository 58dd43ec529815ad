"""Real sockets, real processes, real signals."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.live.faults import close_arenas
from tests.live.processes import PROGRAM, Program

Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts ``bide ARGUMENTS`` in the test's directory; it is ended with the test."""
    programs: list[Program] = []

    def starting(
        *arguments: str,
        program: list[str] | None = None,
        directory: Path | None = None,
        descriptors: Iterable[int] = (),
        **env: str,
    ) -> Program:
        command = PROGRAM if program is None else program
        programs.append(Program([*command, *arguments], directory or tmp_path, descriptors, **env))
        return programs[-1]

    yield starting
    for each in programs:
        each.close()


@pytest.fixture
def arenas(serve: Serve) -> Iterator[None]:
    """End clients and proxies before their servers."""
    yield
    close_arenas()


@pytest.fixture
def log_for_us_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep records from pytest, which keeps them: their tracebacks hold the requests."""
    for name in ("bide", "bide.access", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
