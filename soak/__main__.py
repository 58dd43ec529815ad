"""The command line: `python -m soak`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from benchmarks.command import (
    CONTEXT,
    UNDECIDED,
    choose_cores,
    describe_start,
    name_cores,
    output_option,
    running,
    write_results,
)
from benchmarks.drawing import require_plotting
from benchmarks.machine import describe_machine
from benchmarks.processes import ROOT

from .plot import write_plot
from .report import Report, sum_up, write_json, write_markdown
from .run import EXECUTORS, Size, run
from .verdict import judge, overall

_BAD = 1


@click.command(context_settings=CONTEXT)
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
    envvar="SOAK_DEPARTURES",
    show_envvar=True,
    help="Clients that leave or stall meanwhile.  [default: a tenth of the requests]",
)
@click.option(
    "--executor",
    "executors",
    multiple=True,
    type=click.Choice(EXECUTORS),
    help="This executor; repeatable.  [default: all]",
)
@output_option(ROOT / "soak" / "results")
def main(requests: int, departures: int | None, executors: tuple[str, ...], output: Path) -> None:
    """Soak Bide: many mixed requests and departures, and nothing may grow.

    Ends with 0 where all is flat and right, with 1 where it is not, with 2 where nothing could be
    run, and with 3 where all was right but the run too short to say whether it is flat.
    """
    size = Size(requests, requests // 10 if departures is None else departures)
    with running("soak"):
        report = _run(size, executors or EXECUTORS)
    write_results(
        output, write_markdown(report), write_json(report), lambda svg: write_plot(report, svg)
    )
    for result in report.results:
        click.echo(sum_up(result))
    outcomes = {overall(judge(result)) for result in report.results}
    if "bad" in outcomes:
        sys.exit(_BAD)
    if "too short to say" in outcomes:
        sys.exit(UNDECIDED)


def _run(size: Size, executors: tuple[str, ...]) -> Report:
    require_plotting("soak")
    server_cores, client_cores = choose_cores(least=1)
    how = {
        **describe_start(),
        "cores": name_cores(server_cores, client_cores),
    }
    machine = describe_machine()
    os.sched_setaffinity(0, client_cores)
    results = []
    for executor in executors:
        click.echo(f"{executor}: {size.requests:,} requests, {size.departures:,} departures")
        results.append(run(executor, size, server_cores))
    return Report(machine, how, results)


if __name__ == "__main__":
    main()
