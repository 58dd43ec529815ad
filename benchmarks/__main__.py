"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from .certificate import make_certificate
from .command import (
    CONTEXT,
    UNDECIDED,
    choose_cores,
    describe_start,
    name_cores,
    output_option,
    running,
    write_results,
)
from .drawing import require_plotting
from .errors import CannotRunError
from .forms import make_forms
from .judging import judge_all
from .loads.kind import Conditions
from .machine import NOT_OPTIMISED, describe_libraries, describe_machine, find_optimisation
from .plot import write_plot
from .processes import ROOT
from .report import Run, show_spread, write_json, write_markdown
from .rounds import Result, measure
from .scenarios import SCENARIOS, Scenario
from .wrk import find_wrk, read_version

# 5,000 clients, and what else a process has open.
_DESCRIPTORS = 8192
_FORMS = ("compiled", "pure")


@click.command(context_settings=CONTEXT)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME,…",
    help="These scenarios, or those with these words in their names; repeatable.",
)
@click.option(
    "--peers", multiple=True, metavar="NAME,…", help="Beside Bide these servers only; repeatable."
)
@click.option(
    "--forms",
    multiple=True,
    metavar="NAME,…",
    help="Bide in these forms only: compiled, pure; repeatable.",
)
@click.option(
    "--before", metavar="COMMIT", help="Measure this tree's Bide beside the one of a commit, too."
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
    default=3,
    show_default=True,
    help="How long a round loads a server.",
)
@click.option("--quick", is_flag=True, help="One round of one second: does everything run?")
@output_option(ROOT / "benchmarks" / "results")
@click.option("--list", "listing", is_flag=True, help="Name the scenarios and their servers.")
def main(
    only: tuple[str, ...],
    peers: tuple[str, ...],
    forms: tuple[str, ...],
    before: str | None,
    rounds: int,
    seconds: int,
    quick: bool,
    output: Path,
    listing: bool,
) -> None:
    """Measure Bide, compiled and in pure Python, beside its peers.

    Ends with 0 where everything was measured, with 2 where nothing could be, and with 3 where a
    form of Bide or a server is missing or a round failed: the report says which.
    """
    if listing:
        for scenario in SCENARIOS:
            names = ", ".join(contender.server.name for contender in scenario.contenders)
            click.echo(f"{scenario.name}: {scenario.title} ({names})")
        return
    with running("benchmarks"):
        chosen = choose_scenarios(split_names(only), split_names(peers))
        wanted = split_names(forms) or _FORMS
        _refuse_unknown("form", wanted, _FORMS)
        run = _measure(chosen, wanted, before, 1 if quick else rounds, 1 if quick else seconds)
        write_results(
            output, write_markdown(run), write_json(run), lambda svg: write_plot(run, svg)
        )
    for scenario, verdict in judge_all(run.tables):
        click.echo(
            f"{scenario.name}: {verdict.wanted}: {show_spread(verdict.measured)}: {verdict.outcome}"
        )
    gaps = [run.missing] if run.missing else []
    gaps += _name_gaps(result for _, results in run.tables for result in results)
    if gaps:
        click.echo(f"benchmarks: not everything was measured: {'; '.join(gaps)}", err=True)
        sys.exit(UNDECIDED)


def _measure(
    chosen: list[Scenario], wanted: tuple[str, ...], before: str | None, rounds: int, seconds: int
) -> Run:
    wrk = find_wrk()
    require_plotting("bench")
    cores = {workers: choose_cores(2, workers) for workers in _count_workers(chosen)}
    _allow_descriptors()
    if find_optimisation() is None:
        click.echo(f"{sys.executable}: {NOT_OPTIMISED.strip('*')}", err=True)
    if any(contender.server.tls for scenario in chosen for contender in scenario.contenders):
        make_certificate()
    forms, missing = make_forms(wanted, before, click.echo)
    machine = describe_machine()
    versions = {"wrk": read_version(wrk), **describe_libraries()}
    how = {
        **describe_start(),
        "rounds": f"{rounds} of {seconds} s, turn by turn, each with a new process of the server"
        " and a warm-up",
        **{
            "cores" if workers == 1 else f"cores with {workers} workers": name_cores(*each)
            for workers, each in cores.items()
        },
    }
    # The harness looks at the server meanwhile: not on the server's core, if there is another.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tables = []
    for scenario in chosen:
        conditions = Conditions(wrk, *cores[scenario.workers], rounds, float(seconds), 1.0)
        in_forms = scenario.in_forms(forms)
        tables.append((in_forms, measure(in_forms, conditions, click.echo)))
        for contender in in_forms.contenders:
            versions.update(contender.server.versions())
    return Run(machine, versions, how, forms, missing, tables)


def _count_workers(chosen: list[Scenario]) -> list[int]:
    return sorted({scenario.workers for scenario in chosen})


def split_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of an option that may be repeated, and may hold several with commas."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def choose_scenarios(only: tuple[str, ...], peers: tuple[str, ...]) -> list[Scenario]:
    """Return the scenarios of these names or words, each with these peers; all for none.

    Raises `CannotRunError` for a name that does not exist.
    """
    words = {word for scenario in SCENARIOS for word in scenario.name.split("-")}
    _refuse_unknown("scenario", only, [scenario.name for scenario in SCENARIOS], words)
    peers_known = {c.server.name for s in SCENARIOS for c in s.contenders if not c.is_bide}
    _refuse_unknown("peer", peers, sorted(peers_known))
    return [
        replace(
            scenario,
            contenders=tuple(
                contender
                for contender in scenario.contenders
                if not peers or contender.is_bide or contender.server.name in peers
            ),
        )
        for scenario in SCENARIOS
        if not only or scenario.name in only or set(only) & set(scenario.name.split("-"))
    ]


def _refuse_unknown(
    kind: str, names: Iterable[str], known: Iterable[str], beside: Iterable[str] = ()
) -> None:
    for name in names:
        if name not in {*known, *beside}:
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
