"""The command line: `python -m soak`."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import click

from benchmarks.errors import CannotRunError, RoundFailedError
from benchmarks.machine import describe_machine
from benchmarks.processes import ROOT

from .plot import require_plotting, write_plot
from .report import Report, sum_up, write_json, write_markdown
from .run import EXECUTORS, Size, run
from .verdict import judge, overall

_BAD = 1
_CANNOT_RUN = 2
_TOO_SHORT = 3


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=1_000_000,
    show_default=True,
    envvar="SOAK_REQUESTS",
    show_envvar=True,
    help="Requests that are answered, for each executor.",
)
@click.option(
    "--departures",
    type=click.IntRange(0),
    default=100_000,
    show_default=True,
    envvar="SOAK_DEPARTURES",
    show_envvar=True,
    help="Clients that leave or stall meanwhile.",
)
@click.option(
    "--executor",
    "executors",
    multiple=True,
    type=click.Choice(EXECUTORS),
    help="This executor; repeatable.  [default: all]",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "soak" / "results",
    help="Where latest.md, .json, .svg and .png go.  [default: soak/results]",
)
def main(requests: int, departures: int, executors: tuple[str, ...], output: Path) -> None:
    """Soak Bide: many mixed requests and departures, and nothing may grow.

    Ends with 0 where all is flat and right, with 1 where it is not, with 2 where nothing could be
    run, and with 3 where all was right but the run too short to say whether it is flat.
    """
    signal.signal(signal.SIGTERM, _leave)
    size = Size(requests, departures)
    try:
        report = _run(size, executors or EXECUTORS)
    except (CannotRunError, RoundFailedError) as error:
        click.echo(f"soak: {error}", err=True)
        sys.exit(_CANNOT_RUN)
    output.mkdir(parents=True, exist_ok=True)
    (output / "latest.md").write_text(write_markdown(report))
    (output / "latest.json").write_text(
        json.dumps(write_json(report), indent=1, ensure_ascii=False) + "\n"
    )
    write_plot(report, output / "latest.svg", output / "latest.png")
    for result in report.results:
        click.echo(sum_up(result))
    click.echo(f"written: {output}/latest.md, .json, .svg, .png")
    outcomes = {overall(judge(result)) for result in report.results}
    if "bad" in outcomes:
        sys.exit(_BAD)
    if "too short to say" in outcomes:
        sys.exit(_TOO_SHORT)


def _run(size: Size, executors: tuple[str, ...]) -> Report:
    require_plotting()
    cores = sorted(os.sched_getaffinity(0))
    how = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "bound to core": f"{cores[-1]} the server, {cores[0]} the client",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }
    machine = describe_machine()
    os.sched_setaffinity(0, {cores[0]})
    results = []
    for executor in executors:
        click.echo(f"{executor}: {size.requests:,} requests, {size.departures:,} departures")
        results.append(run(executor, size, cores[-1]))
    return Report(machine, how, results)


def _leave(number: int, frame: FrameType | None) -> None:
    # So that the server is ended on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
