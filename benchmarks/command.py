"""What the commands that measure do alike: the benchmarks, and the soak."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from .errors import CannotRunError, RoundFailedError

CONTEXT: Final = {"help_option_names": ["-h", "--help"]}
"""The settings of the command."""
CANNOT_RUN: Final = 2
"""The exit code where nothing could be measured."""
UNDECIDED: Final = 3
"""The exit code where something could not be measured, or was not enough to say."""


def output_option(directory: Path) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option that says where the results go: to this directory, if not used."""
    return click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        default=directory,
        help="Where latest.md, .svg and .json go."
        f"  [default: {directory.parent.name}/{directory.name}]",
    )


@contextmanager
def running(name: str) -> Iterator[None]:
    """Run the command's work in the block.

    Where it cannot be done, the process ends with `CANNOT_RUN` and one line, which begins with the
    command's name. A SIGTERM leaves the block, so that servers under test are ended.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    except (CannotRunError, RoundFailedError) as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(CANNOT_RUN)
    finally:
        signal.signal(signal.SIGTERM, before)


def choose_cores(least: int, workers: int = 1) -> tuple[frozenset[int], frozenset[int]]:
    """Return the server's cores and the client's, among those that this process may use.

    The server has one for each of its workers, and the client up to as many of the others. Where
    there are no others, both share all.

    Raises `CannotRunError` where there are fewer than `least`.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < least:
        raise CannotRunError("two cores are needed, one for the server and one for the client")
    others = usable[:-workers]
    return frozenset(usable[-workers:]), frozenset(others[:workers] or usable)


def name_cores(server: frozenset[int], client: frozenset[int]) -> str:
    """Return in words which cores are whose."""
    ours, theirs = (", ".join(map(str, sorted(cores))) for cores in (server, client))
    if server & client:
        return f"{ours}, shared by the server and the client"
    return f"{ours} for the server, {theirs} for the client"


def describe_start() -> dict[str, str]:
    """Return when the run begins, and how busy the machine is then."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def write_results(
    output: Path, markdown: str, plain: dict[str, Any], draw: Callable[[Path], None]
) -> None:
    """Write the report, the plot that `draw` makes in a file, and all figures as JSON.

    The JSON is for whoever doubts the report, and git ignores it.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / "latest.md").write_text(markdown)
    (output / "latest.json").write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    draw(output / "latest.svg")
    click.echo(f"written: {output}/latest.md, .svg, .json")


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
