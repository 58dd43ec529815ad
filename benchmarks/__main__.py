"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import click

from .errors import CannotRunError
from .machine import describe_libraries, describe_machine
from .plot import require_plotting, write_plot
from .processes import ROOT
from .report import Run, judge_all, write_json, write_markdown
from .rounds import Conditions, Result, measure
from .scenarios import SCENARIOS, Contender, Scenario
from .wrk import find_wrk, read_version

# 2,000 clients, and what else a process has open.
_DESCRIPTORS = 4096
_CANNOT_RUN = 2
_INCOMPLETE = 3


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "benchmarks" / "results",
    help="Where latest.md, .json, .svg and .png go.  [default: benchmarks/results]",
)
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
    signal.signal(signal.SIGTERM, _leave)
    try:
        incomplete = _run(only, peers, 1 if quick else rounds, 1 if quick else seconds, output)
    except CannotRunError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(_CANNOT_RUN)
    if incomplete:
        click.echo(f"benchmarks: not everything was measured: {incomplete}", err=True)
        sys.exit(_INCOMPLETE)


def _run(
    only: tuple[str, ...], peers: tuple[str, ...], rounds: int, seconds: int, output: Path
) -> str:
    chosen = _choose(only, peers)
    wrk = find_wrk()
    require_plotting()
    server_core, client_core = _choose_cores()
    _allow_descriptors()
    machine = describe_machine()
    versions = {"wrk": read_version(wrk), **describe_libraries()}
    how = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": f"{rounds} of {seconds} s, turn by turn, each with a new process of the server"
        " and a warm-up of 1 s",
        "cores": f"{server_core} for the server, {client_core} for the client",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
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
    output.mkdir(parents=True, exist_ok=True)
    (output / "latest.md").write_text(write_markdown(run))
    (output / "latest.json").write_text(
        json.dumps(write_json(run), indent=2, ensure_ascii=False) + "\n"
    )
    write_plot(run, output / "latest.svg", output / "latest.png")
    for scenario, verdict in judge_all(run):
        measured = "" if verdict.measured is None else f": {verdict.measured:.2f}"
        click.echo(f"{scenario.name}: {verdict.wanted}{measured}: {verdict.outcome}")
    click.echo(f"written: {output}/latest.md, .json, .svg, .png")
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


def _choose_cores() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise CannotRunError("two cores are needed, one for the server and one for the client")
    return usable[-1], usable[0]


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


def _leave(number: int, frame: FrameType | None) -> None:
    # So that the server under test is ended on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
