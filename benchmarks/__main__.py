"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from .command import (
    CONTEXT,
    UNDECIDED,
    choose_cores,
    describe_start,
    output_option,
    running,
    write_results,
)
from .drawing import require_plotting
from .errors import CannotRunError
from .machine import describe_libraries, describe_machine
from .plot import write_plot
from .processes import ROOT
from .report import Run, judge_all, write_json, write_markdown
from .rounds import Conditions, Result, measure
from .scenarios import SCENARIOS, Contender, Scenario
from .wrk import find_wrk, read_version

# 2,000 clients, and what else a process has open.
_DESCRIPTORS = 4096


@click.command(context_settings=CONTEXT)
@click.option("--only", multiple=True, metavar="SCENARIO", help="This scenario; repeatable.")
@click.option(
    "--peers", multiple=True, metavar="NAME,…", help="Beside Bide these servers only; repeatable."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Rounds, each of which measures every server once.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="How long a round loads a server.",
)
@click.option("--quick", is_flag=True, help="One round of one second: does everything run?")
@output_option(ROOT / "benchmarks" / "results")
@click.option("--list", "listing", is_flag=True, help="Name the scenarios and their servers.")
def main(
    only: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int,
    seconds: int,
    quick: bool,
    output: Path,
    listing: bool,
) -> None:
    """Measure Bide beside its peers.

    Ends with 0 where everything was measured, with 2 where nothing could be, and with 3 where a
    server is missing or a round failed: the report says which.
    """
    if listing:
        for scenario in SCENARIOS:
            names = ", ".join(contender.server.name for contender in scenario.contenders)
            click.echo(f"{scenario.name}: {scenario.title} ({names})")
        return
    with running("benchmarks"):
        incomplete = _run(only, peers, 1 if quick else rounds, 1 if quick else seconds, output)
    if incomplete:
        click.echo(f"benchmarks: not everything was measured: {incomplete}", err=True)
        sys.exit(UNDECIDED)


def _run(
    only: tuple[str, ...], peers: tuple[str, ...], rounds: int, seconds: int, output: Path
) -> str:
    chosen = _choose(only, peers)
    wrk = find_wrk()
    require_plotting("bench")
    server_core, client_core = choose_cores(least=2)
    _allow_descriptors()
    machine = describe_machine()
    versions = {"wrk": read_version(wrk), **describe_libraries()}
    how = {
        **describe_start(),
        "rounds": f"{rounds} of {seconds} s, turn by turn, each with a new process of the server"
        " and a warm-up of 1 s",
        "cores": f"{server_core} for the server, {client_core} for the client",
    }
    # The harness looks at the server meanwhile: not on the server's core.
    os.sched_setaffinity(0, {client_core})
    conditions = Conditions(wrk, server_core, client_core, rounds, float(seconds), 1.0)
    tables = []
    for scenario, contenders in chosen:
        results = measure(scenario, contenders, conditions, click.echo)
        tables.append((scenario, results))
        for result in results:
            versions.update(result.contender.server.versions())
    run = Run(machine, versions, how, tables)
    write_results(output, write_markdown(run), write_json(run), lambda svg: write_plot(run, svg))
    for scenario, verdict in judge_all(run):
        measured = "" if verdict.measured is None else f": {verdict.measured:.2f}"
        click.echo(f"{scenario.name}: {verdict.wanted}{measured}: {verdict.outcome}")
    return "; ".join(_name_gaps(result for _, results in tables for result in results))


def _choose(
    only: tuple[str, ...], peers: tuple[str, ...]
) -> list[tuple[Scenario, tuple[Contender, ...]]]:
    known = [scenario.name for scenario in SCENARIOS]
    _refuse_unknown("scenario", only, known)
    wanted = [name.strip() for text in peers for name in text.split(",")]
    servers = {c.server.name for scenario in SCENARIOS for c in scenario.contenders[1:]}
    _refuse_unknown("peer", wanted, sorted(servers))
    return [
        (
            scenario,
            tuple(
                contender
                for contender in scenario.contenders
                if not wanted
                or contender is scenario.contenders[0]
                or contender.server.name in wanted
            ),
        )
        for scenario in SCENARIOS
        if not only or scenario.name in only
    ]


def _refuse_unknown(kind: str, names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise CannotRunError(f"no {kind} {name!r}; there are {', '.join(known)}")


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _DESCRIPTORS:
        raise CannotRunError(f"{_DESCRIPTORS} open files are needed, the limit is {hard}")
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, hard))


def _name_gaps(results: Iterable[Result]) -> list[str]:
    gaps = []
    for result in results:
        name = result.contender.server.name
        if result.missing is not None:
            gaps.append(f"{name} ({result.missing})")
        elif result.failures:
            gaps.append(f"{name} (rounds failed)")
    return list(dict.fromkeys(gaps))


if __name__ == "__main__":
    main()
